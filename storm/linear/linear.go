// Package linear asks of a recorded history whether the shop could have done
// all of it one thing after the other: whether each purchase, refusal, end of a
// reservation and look at the counts has a moment between its request and its
// answer at which it is right by the rules. The search is porcupine's.
//
// The rules are written here anew, from the API's description: nothing of the
// server is imported. It is a package of its own beside storm because a history
// is data: the kill harness, or a person with a file, checks one without a load
// generator, and hand-written ones show that each kind of lie is found.
//
// Two views are checked, each in partitions. Units: where the units of one SKU
// are (see units.go for what keeps that search small). Users: what one user
// holds, by which key, and what the limit allows. A purchase has its moment in
// both views, and they are not compared with each other: a history that passes
// is right for every SKU and for every user, which is a little less than being
// linearizable as one object. Where outsiders cannot know (when money arrived,
// which request of a key was the one that bought, when an engine lost what was
// only pending) the model gives the shop the benefit of the doubt, so that what
// it calls illegal is.
//
// A ledger in several buckets is checked by their sums: see spread.go.
package linear

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// Forever is the time of what never happened.
const Forever = int64(math.MaxInt64)

// History is what was seen of one activity from outside. All times are
// nanoseconds of one monotonic clock.
type History struct {
	Activity string `json:"activity"`
	PerUser  int    `json:"per_user"` // units one user may hold or have bought; 0 = no limit
	Items    []Item `json:"items"`
	// Buckets is over how many buckets the units may be spread, between which
	// they move unseen; 0 = 1.
	Buckets int `json:"buckets,omitempty"`
	// Troubles are when parts of the shop were away. An end that was shown in
	// one may reach the ledger as late as its end.
	Troubles []Span `json:"troubles,omitempty"`

	// Complete says that the history ends with a Final of every order there
	// is: what has none never was. Otherwise what was not answered stays open.
	Complete bool `json:"complete"`
	// Dropped operations were seen and not recorded. A history with any cannot
	// pass: see Check.
	Dropped int `json:"dropped"`

	// Ops in any order. It is read more than once.
	Ops iter.Seq[Op] `json:"-"`
}

// Item is one SKU with the units on sale.
type Item struct {
	SKU   string `json:"sku"`
	Units int    `json:"units"`
}

// Span of time.
type Span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// What an operation is.
type What string

// The operations.
const (
	Buy    What = "buy"    // a purchase, or a replay of its key
	Cancel What = "cancel" // of the order of Reservation
	Pay    What = "pay"    // money that can pay the order of Reservation was sent off
	Order  What = "order"  // a look at the order of Reservation, in the words of a reservation
	Counts What = "counts" // a look at where the units of a SKU are
	Final  What = "final"  // how an order stood when all was at rest
)

// Answers that are not the code of a refusal.
const (
	Accepted = "accepted"
	Unknown  = "unknown" // no answer, or one that decides nothing
)

// States of a reservation as outsiders tell them apart. Pending is no promise
// yet: as long as nothing else was shown, it may turn out Refused, which ends it
// at a moment that nobody knows.
const (
	Pending   = "pending"
	Refused   = "refused"
	Held      = "held"
	Confirmed = "confirmed"
	Released  = "released" // by its user or by time
)

// Op is one operation as seen by whoever asked for it.
type Op struct {
	What     What   `json:"op"`
	User     string `json:"user,omitempty"`
	Key      string `json:"key,omitempty"` // of a Buy, and of a Final that knows it
	SKU      string `json:"sku,omitempty"`
	Quantity int    `json:"quantity,omitempty"` // of a Buy or Final, ≥ 1; 0 = 1

	Call   int64 `json:"call"`             // when it was asked for
	Return int64 `json:"return,omitempty"` // when the answer was there; 0 = never

	Answer      string `json:"answer,omitempty"` // Accepted, a code, or Unknown
	Reservation string `json:"reservation,omitempty"`
	State       string `json:"state,omitempty"` // that was shown with it; empty = none was
	// NotBefore is when time may end an accepted reservation at the earliest.
	NotBefore int64 `json:"not_before,omitempty"`

	Free      int `json:"free,omitempty"` // of Counts
	Held      int `json:"held,omitempty"`
	Confirmed int `json:"confirmed,omitempty"`
}

// Options of a check. Zero fields take the defaults.
type Options struct {
	Timeout time.Duration // for one partition, default 60 s
	// Lag is for how long the ledger may follow an order that has been shown as
	// paid or ended. The default is none.
	Lag time.Duration
	// Stale is how old the levels may be by which a gateway refuses for want of
	// units without asking the ledger. The default is 0: none does.
	Stale time.Duration

	terse bool // only the verdict is wanted
}

// Verdict on a history.
type Verdict string

// The verdicts.
const (
	Legal      Verdict = "linearizable"
	Illegal    Verdict = "not linearizable"
	NotChecked Verdict = "not checked"
)

// Result of a check.
type Result struct {
	Verdict    Verdict
	Operations int // that were judged
	Partitions int // in which they were
	Took       time.Duration
	Searched   int // operations that were left to search after the reduction
	Unjudged   int // refusals that took too long to be judged over several buckets
	// Violations are sentences about what has no place, one for each partition
	// that is illegal, at most maxSentences.
	Violations []string
	// Doubts say why something was not checked.
	Doubts []string

	pictures []picture
}

// maxSentences bounds the violations told, and the doubts.
const maxSentences = 20

// String is one line.
func (r Result) String() string {
	s := fmt.Sprintf("%s: %d operations in %d partitions, checked in %s", r.Verdict, r.Operations, r.Partitions, r.Took.Round(time.Millisecond))
	if r.Unjudged > 0 {
		s += fmt.Sprintf("; %d slow refusals not judged by the sums of the buckets", r.Unjudged)
	}
	return s
}

// ErrHistory wraps what makes a history unreadable; such a one is not judged.
var ErrHistory = errors.New("history")

// lags are tried when a history is illegal, to say what it would take.
var lags = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}

// Check judges a history by the default options.
func Check(h History) (Result, error) { return CheckWith(h, Options{}) }

// CheckWith judges a history. Illegal is certain. What ran out of time or
// memory, or was not recorded, makes the verdict NotChecked, never Legal. An
// error means that the history contradicts itself as a record.
func CheckWith(h History, o Options) (Result, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	began := time.Now()
	result, err := check(h, o)
	if err != nil {
		return Result{}, err
	}
	if result.Verdict == Illegal && o.Lag == 0 {
		if lag, ok := lagOf(h, o); ok {
			result.Violations = append(result.Violations, fmt.Sprintf("it would be legal if the ledger might follow an order that was shown as paid or ended by up to %s", lag))
		}
	}
	result.Took = time.Since(began)
	return result, nil
}

// lagOf finds what lag would make an illegal history legal, if any would.
func lagOf(h History, o Options) (time.Duration, bool) {
	legal := func(lag time.Duration) bool {
		again, err := check(h, Options{Timeout: o.Timeout / 4, Lag: lag, Stale: o.Stale, terse: true})
		return err == nil && len(again.Violations) == 0
	}
	if !legal(lags[len(lags)-1]) {
		return 0, false
	}
	for _, lag := range lags {
		if legal(lag) {
			return lag, true
		}
	}
	return 0, false
}

func check(h History, o Options) (Result, error) {
	rec, err := gather(h, o)
	if err != nil {
		return Result{}, err
	}
	result := Result{Operations: rec.ops, Unjudged: rec.unjudged}
	if h.Dropped > 0 {
		result.doubt("%d operations were not recorded", h.Dropped)
	}
	if most := max(h.Buckets, 1); len(rec.buckets) > most {
		result.doubt("the reservations are of %d buckets, and the history says %d", len(rec.buckets), most)
	}
	for _, f := range rec.faults {
		result.violate(f)
	}
	for _, it := range h.Items {
		result.Partitions++
		result.checkUnits(rec.shelves[it.SKU], o)
	}
	result.checkUsers(rec, o)
	switch {
	case len(result.Violations) > 0:
		result.Verdict = Illegal
	case len(result.Doubts) > 0:
		result.Verdict = NotChecked
	default:
		result.Verdict = Legal
	}
	return result, nil
}

func (r *Result) violate(sentence string) {
	if len(r.Violations) < maxSentences {
		r.Violations = append(r.Violations, sentence)
	}
}

func (r *Result) doubt(format string, args ...any) {
	if len(r.Doubts) < maxSentences {
		r.Doubts = append(r.Doubts, fmt.Sprintf(format, args...))
	}
}
