package storm

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// treatment is how a shop treated one profile of users in the rush.
type treatment struct {
	mu      sync.Mutex
	counted Treatment
	waited  *hdrhistogram.Histogram // µs in the queue, from the opening at the earliest
	wrong   []time.Duration         // by how much they were called later than they had been told
}

// Treatment is how a shop treated people, or bots, until the end of the rush.
type Treatment struct {
	Profile    string            `json:"profile"`
	Users      int               `json:"users"`
	UserShare  float64           `json:"user_share"` // of all users, 0..1
	Requests   uint64            `json:"requests"`   // of every kind
	Attempts   uint64            `json:"attempts"`   // purchases among them
	Accepted   int               `json:"accepted"`   // units got, each by another user
	UnitShare  float64           `json:"unit_share"` // of all units that were got
	FairShare  float64           `json:"fair_share"` // unit share ÷ user share: 1 is fair
	Refused    map[string]uint64 `json:"refused"`    // purchases, tickets and places in the queue, by code
	Challenges struct {
		Shown  uint64 `json:"shown"`
		Solved uint64 `json:"solved"`
		Failed uint64 `json:"failed"`
	} `json:"challenges"`
	Tickets uint64       `json:"tickets"`
	Queue   *QueueReport `json:"queue,omitempty"` // nil = nobody was in one
	GaveUp  uint64       `json:"gave_up"`         // could not solve a challenge
}

// QueueReport is how people waited.
type QueueReport struct {
	Joined    uint64   `json:"joined"`
	Called    uint64   `json:"called"`
	Lapsed    uint64   `json:"lapsed"`
	Over      uint64   `json:"over"` // were told that nothing is left
	WaitedMS  *Waiting `json:"waited_ms"`
	ETAErrors int      `json:"eta_errors"`   // how many were told when and then called
	ETAErrMS  Waiting  `json:"eta_error_ms"` // how far off the first that they were told was, either way
	ETALateMS float64  `json:"eta_late_ms"`  // the mean: above 0, they were called later than told
}

func newTreatment() *treatment {
	return &treatment{counted: Treatment{Refused: map[string]uint64{}}, waited: newHistogram()}
}

// add changes the counts.
func (t *treatment) add(change func(c *Treatment)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.counted)
}

// queue changes the counts of the queue.
func (t *treatment) queue(change func(q *QueueReport)) {
	t.add(func(c *Treatment) {
		if c.Queue == nil {
			c.Queue = &QueueReport{}
		}
		change(c.Queue)
	})
}

// called: somebody was, after waiting so long. told is when that was to be, or
// zero if it was never said.
func (t *treatment) called(now time.Time, waited time.Duration, told time.Time) {
	t.queue(func(q *QueueReport) { q.Called++ })
	t.mu.Lock()
	defer t.mu.Unlock()
	// The value is in range by the bounds, and that is the only error.
	_ = t.waited.RecordValue(min(max(waited.Microseconds(), 1), latencyLimit))
	if !told.IsZero() {
		t.wrong = append(t.wrong, now.Sub(told))
	}
}

// report sums up; accepted are units got by this profile, of so many.
func (t *treatment) report(p profile, c cast, accepted, of int) Treatment {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.counted
	r.Profile, r.Users, r.Accepted = profileNames[p], c.count(p), accepted
	r.UserShare = float64(r.Users) / float64(c.users)
	if of > 0 {
		r.UnitShare = float64(accepted) / float64(of)
	}
	if r.Users > 0 {
		r.FairShare = r.UnitShare / r.UserShare
	}
	if r.Queue == nil {
		return r
	}
	q := *r.Queue
	if t.waited.TotalCount() > 0 {
		at := latencyOf(t.waited)
		q.WaitedMS = &Waiting{at.P50, at.P99, float64(t.waited.Max()) / 1000}
	}
	q.ETAErrors, q.ETAErrMS, q.ETALateMS = offBy(t.wrong)
	r.Queue = &q
	return r
}

// offBy sums up how late people were called, below 0 if early.
func offBy(late []time.Duration) (n int, off Waiting, mean float64) {
	if len(late) == 0 {
		return 0, off, 0
	}
	abs := make([]float64, len(late))
	for i, d := range late {
		ms := float64(d.Microseconds()) / 1000
		mean += ms / float64(len(late))
		abs[i] = max(ms, -ms)
	}
	slices.SortFunc(abs, cmp.Compare[float64])
	at := func(q float64) float64 { return abs[min(int(q*float64(len(abs))), len(abs)-1)] }
	return len(late), Waiting{at(0.5), at(0.99), abs[len(abs)-1]}, mean
}

// rows are for people to read.
func (t Treatment) rows(row func(name, format string, args ...any)) {
	row(t.Profile, "%d users (%.0f %%) got %d units (%.0f %%): %.2f of their share; %d requests, %d attempts", t.Users, 100*t.UserShare,
		t.Accepted, 100*t.UnitShare, t.FairShare, t.Requests, t.Attempts)
	row("", "refused %s", ranked(t.Refused, len(t.Refused)))
	if c := t.Challenges; c.Shown > 0 || t.Tickets > 0 {
		row("", "challenges %d shown, %d solved, %d failed; %d tickets; %d gave up", c.Shown, c.Solved, c.Failed, t.Tickets, t.GaveUp)
	}
	if q := t.Queue; q != nil {
		waited := "nobody was called"
		if q.WaitedMS != nil {
			waited = fmt.Sprintf("waited p50 %.1f s, p99 %.1f s", q.WaitedMS.P50/1000, q.WaitedMS.P99/1000)
		}
		row("", "queue: %d joined, %d called, %d lapsed, %d told that it is over; %s", q.Joined, q.Called, q.Lapsed, q.Over, waited)
		if q.ETAErrors > 0 {
			row("", "ETA as first told: off by p50 %.1f s, p99 %.1f s; called %.1f s later than told on average", q.ETAErrMS.P50/1000, q.ETAErrMS.P99/1000, q.ETALateMS/1000)
		}
	}
}
