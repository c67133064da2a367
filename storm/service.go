package storm

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// service measures what shoppers miss while parts of a fleet are away: for how
// long nobody was served, and for how long nobody of some bucket was. Served is
// who gets a receipt or a refusal that rests on the stock. A time without
// service begins when a request was sent that failed, but not before the last
// one that was served, and ends with the next that is, sent after the beginning.
type service struct {
	watching atomic.Bool
	mu       sync.Mutex
	faults   []*Fault
	lines    []line // one for each bucket, and the last for all of them
}

type line struct{ since, served time.Time }

// Fault is one part, or several, that were away, until the next ones were.
type Fault struct {
	Part    string  `json:"part"`
	At      float64 `json:"at_s"`   // seconds after the opening
	Away    float64 `json:"away_s"` // until the supervisor said that it is back; 0 = it never did
	Failed  int     `json:"failed"` // requests without an answer, or told to come again
	AllMS   float64 `json:"unavailable_ms"`
	OneMS   float64 `json:"bucket_ms"` // the longest in which nobody of one bucket was served
	Bucket  int     `json:"bucket"`    // which that was
	Lasting bool    `json:"lasting"`   // the longer of the two had not ended when the rush did

	at   time.Time
	back bool
}

// newService is for so many buckets; 0 is 1.
func newService(buckets int) *service { return &service{lines: make([]line, max(buckets, 1)+1)} }

// broken says that a part is away since at. Several at once are one fault.
func (s *service) broken(part string, at, opened time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching.Store(true)
	if n := len(s.faults); n > 0 && !s.faults[n-1].back {
		s.faults[n-1].Part += ", " + part
		return
	}
	s.cut(at)
	s.faults = append(s.faults, &Fault{Part: part, At: at.Sub(opened).Seconds(), at: at})
}

// mended says that all parts are back. What is failing still counts on.
func (s *service) mended(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.faults); n > 0 && !s.faults[n-1].back {
		s.faults[n-1].back, s.faults[n-1].Away = true, at.Sub(s.faults[n-1].at).Seconds()
	}
}

// failed: a request of a bucket's user, sent at sent, was not served.
func (s *service) failed(bucket int, sent time.Time) {
	if !s.watching.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults[len(s.faults)-1]
	f.Failed++
	for _, n := range s.of(bucket) {
		if l := &s.lines[n]; l.since.IsZero() {
			l.since = slices.MaxFunc([]time.Time{sent, l.served, f.at}, time.Time.Compare)
		}
	}
}

// served: one was, at now.
func (s *service) served(bucket int, sent, now time.Time) {
	if !s.watching.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.of(bucket) {
		l := &s.lines[n]
		if !l.since.IsZero() && sent.After(l.since) {
			s.lasted(n, now.Sub(l.since))
			l.since = time.Time{}
		}
		if now.After(l.served) {
			l.served = now
		}
	}
}

func (s *service) of(bucket int) [2]int { return [2]int{bucket, len(s.lines) - 1} }

// lasted notes a time without service on a line.
func (s *service) lasted(n int, d time.Duration) {
	f, ms := s.faults[len(s.faults)-1], float64(d.Microseconds())/1000
	switch {
	case n == len(s.lines)-1:
		f.AllMS = max(f.AllMS, ms)
	case ms > f.OneMS:
		f.OneMS, f.Bucket = ms, n
	}
}

// cut ends what is failing at now for the present fault; it may go on in the next.
func (s *service) cut(now time.Time) {
	for n := range s.lines {
		if l := &s.lines[n]; !l.since.IsZero() {
			s.lasted(n, now.Sub(l.since))
			l.since = now
		}
	}
}

// stop ends the watch, with the rush, and answers the faults there were.
func (s *service) stop(now time.Time) []*Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching.Store(false)
	if n := len(s.faults); n > 0 {
		f := s.faults[n-1]
		all, one := f.AllMS, f.OneMS
		s.cut(now)
		f.Lasting = f.AllMS > all || f.OneMS > one
	}
	return s.faults
}

func (f *Fault) String() string {
	text := fmt.Sprintf("%s at %.1f s for %.1f s: %d failed; nobody was served for %.0f ms, nobody of bucket %d for %.0f ms", f.Part, f.At, f.Away, f.Failed, f.AllMS, f.Bucket, f.OneMS)
	if f.Lasting {
		text += ", to the end"
	}
	return text
}

// served says whether an answer is one that a shopper can go by: a receipt, or
// a refusal that rests on the stock. Before the opening there is nothing else
// to be told than that.
func served(v verdict, code int) bool {
	switch {
	case v == accepted:
		return true
	case v != refused:
		return false
	}
	switch codes[code] {
	case "sold_out", "all_held", "insufficient", "limit_reached", "not_open":
		return true
	}
	return false
}

// comeAgain says that a part of the shop could not serve just now.
func comeAgain(v verdict, code int) bool {
	return v == unavailable || v == unknown || v == refused && (codes[code] == "overloaded" || codes[code] == "paused")
}

// heard tells the clocks of outages how an attempt was answered.
func (r *rehearsal) heard(v verdict, code int, try tryID, sent, now time.Time) {
	switch {
	case served(v, code):
		r.outage.answered(sent, now)
		r.service.served(r.bucketOf(try), sent, now)
	case comeAgain(v, code):
		r.outage.failed(now)
		r.service.failed(r.bucketOf(try), sent)
	}
}

func (r *rehearsal) bucketOf(try tryID) int {
	if !r.service.watching.Load() {
		return 0
	}
	return bucketOf(userName(try.user), r.oracle.buckets)
}
