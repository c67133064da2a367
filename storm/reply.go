package storm

import (
	"bytes"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// verdict is what a reply to a purchase means for the oracle.
type verdict uint8

const (
	accepted    verdict = iota + 1 // a receipt
	refused                        // a definite no, nothing was changed
	unavailable                    // 503 that changed nothing: try again
	unknown                        // may or may not have been accepted
	broken                         // an answer that no correct server gives to a well-formed, genuine attempt
)

// codes a purchase may be answered with, in the order of how often they come.
// Those from firstOdd on are wrong answers to a well-formed, genuine attempt.
var codes = [...]string{
	"sold_out", "all_held", "limit_reached", "not_open", "rate_limited", "insufficient", "ended",
	"queued", "overloaded", "paused", "not_eligible", "challenge_required", "ticket_required", "read_only", "not_ready", "unknown",
	"internal", "unauthenticated", "invalid_request", "idempotency_key_missing", "idempotency_mismatch",
	"no_such_activity", "no_such_sku", "no_such_order", "no_such_reservation", "method_not_allowed",
	"order_state", "too_large", "unsupported_media_type", "",
}

const (
	codeSoldOut = 0
	codeAllHeld = 1
	codeLimit   = 2
	codeNotOpen = 3
	firstOdd    = 16
	noCode      = len(codes) - 1
)

// judge reads status and code of a reply to a purchase.
func judge(statusCode int, body []byte) (v verdict, code int) {
	if statusCode == 200 || statusCode == 202 {
		return accepted, noCode
	}
	code = codeOf(body)
	if code == noCode && fronts(statusCode, body) {
		return unknown, code
	}
	switch {
	case codes[code] == "unknown":
		return unknown, code
	case codes[code] == "not_ready":
		return unavailable, code
	case code >= firstOdd:
		return broken, code
	case statusCode == 409 || statusCode == 429 || statusCode == 503 || statusCode == 403:
		return refused, code
	}
	return broken, code
}

// fronts says that a reply is of whatever stands before the server: the server
// itself words its problems in JSON.
func fronts(statusCode int, body []byte) bool {
	return statusCode >= 502 && statusCode <= 504 && !bytes.HasPrefix(bytes.TrimLeft(body, " \r\n\t"), []byte("{"))
}

// codeOf finds the code of a problem document without parsing the rest of it,
// for there are a hundred thousand a second of them.
func codeOf(body []byte) int {
	const field = `"code":`
	at := bytes.Index(body, []byte(field))
	if at < 0 {
		return noCode
	}
	rest := bytes.TrimLeft(body[at+len(field):], " ")
	if len(rest) == 0 || rest[0] != '"' {
		return noCode
	}
	rest = rest[1:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return noCode
	}
	for i, c := range codes {
		if string(rest[:end]) == c {
			return i
		}
	}
	return noCode
}

// tally counts what one lane did. Its lock is taken by its lane and, once a
// second, by the progress line; so it is nearly always free.
type tally struct {
	mu sync.Mutex
	counts
	latency *hdrhistogram.Histogram // µs from when the attempt was due to its answer
}

// counts of attempts. attempts = replies of every kind + errors + lost.
type counts struct {
	attempts uint64 // purchases sent
	accepted uint64 // replies with a receipt, replays included
	refused  [len(codes)]uint64
	errors   uint64 // no answer, or one that decides nothing
	lost     uint64 // replies dropped on purpose
	unsent   uint64 // slots given up because every lane, or the errands, were busy for too long
	unwanted uint64 // slots for which no user wanted to buy
	forged   uint64 // forged attempts and looks at other people's orders
}

// latencyLimit bounds what the histogram tells apart, in µs.
const latencyLimit = int64(120 * time.Second / time.Microsecond)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, latencyLimit, 2) }

func newTally() *tally { return &tally{latency: newHistogram()} }

// answered counts a reply. latency < 0 is not recorded: only attempts of the
// schedule have a time at which they were due.
func (t *tally) answered(v verdict, code int, latency time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	switch v {
	case accepted:
		t.accepted++
	case refused:
		t.refused[code]++
	default:
		t.errors++
	}
	if latency >= 0 {
		// The value is in range by the min, and that is the only error.
		_ = t.latency.RecordValue(min(max(latency.Microseconds(), 1), latencyLimit))
	}
}

// count adds to one of the plain counters.
func (t *tally) count(field *uint64) {
	t.mu.Lock()
	*field++
	t.mu.Unlock()
}

// drain moves what was counted since the last drain into total and latency.
func (t *tally) drain(total *counts, latency *hdrhistogram.Histogram) {
	t.mu.Lock()
	defer t.mu.Unlock()
	total.add(t.counts)
	latency.Merge(t.latency)
	t.counts = counts{}
	t.latency.Reset()
}

func (c *counts) add(d counts) {
	c.attempts += d.attempts
	c.accepted += d.accepted
	for i, n := range d.refused {
		c.refused[i] += n
	}
	c.errors += d.errors
	c.lost += d.lost
	c.unsent += d.unsent
	c.unwanted += d.unwanted
	c.forged += d.forged
}
