package gate

import (
	"time"

	"sluice/internal/lib/call"
)

// Work is how much a piece of work matters to the shop: the later in this list,
// the earlier it is refused.
type Work uint8

const (
	Paying   Work = iota // of somebody who has units and pays for them, or gives them back: never refused
	Buying               // of somebody who is about to have units
	Browsing             // of somebody who looks
	works
)

func (w Work) String() string { return [...]string{"paying", "buying", "browsing"}[w] }

// shares of the limit up to which each kind of work may fill it. Four tenths are
// never taken by people who only look, and a tenth is for those who pay.
var shares = []float64{Paying: 1, Buying: 0.9, Browsing: 0.6}

// Bounds of the limit. Below shedMin there is nothing to be won: so few reads of
// a tenth of a millisecond are done before anybody notices, and a shop with a slow
// store still wants to keep all of its connections busy. shedMax stands below the
// bound on reads in flight, which is what refuses while nothing is known.
const (
	shedMin     = 32
	shedInitial = 256
	shedMax     = 2048
)

// Shedding bounds the work that one resource does at a time, by a limit found
// from how long the work takes (call.Adaptive). What is beyond is refused at once,
// browsing first and paying never. It is for a resource that slows down by being
// asked more: a store that is read. What waits for something else (a provider,
// landing, a commit that is shared) must not hold a permit while it does:
// docs/decisions/0016. It is safe for concurrent use.
type Shedding struct {
	limit *call.Adaptive
	now   func() time.Time
}

// NewShedding has nothing in flight. now should never go back.
func NewShedding(now func() time.Time) *Shedding {
	limit, err := call.NewAdaptive(call.AdaptiveOptions{Shares: shares, Min: shedMin, Initial: shedInitial, Max: shedMax, Tolerance: 2})
	if err != nil {
		panic(err) // all of it is constant
	}
	return &Shedding{limit: limit, now: now}
}

// Enter admits work, or answers ErrOverloaded at once and without allocating.
// Every permit must be left. Paying is always admitted, beyond the limit without
// being measured: what is beside it is what gives way, and routes of payments have a
// bound of their own.
func (s *Shedding) Enter(w Work) (Permit, error) {
	p, err := s.limit.Acquire(call.Class(w), s.now())
	switch {
	case err != nil && w == Paying:
		return Permit{}, nil
	case err != nil:
		return Permit{}, ErrOverloaded
	}
	return Permit{of: s, held: p}, nil
}

// Permit is admitted work.
type Permit struct {
	of   *Shedding
	held call.Permit
}

// Leave ends the work. A second Leave does nothing.
func (p *Permit) Leave(o call.Outcome) {
	if p.of != nil {
		p.held.Release(p.of.now(), o)
	}
}

// SheddingStatus is how a Shedding stands.
type SheddingStatus struct {
	Limit, InFlight int
	Bounds          map[string]int    // in flight, of all work, below which each kind is admitted
	Refused         map[string]uint64 // by kind of work, since the start; of paying: admitted beyond the limit
}

// Status is for metrics.
func (s *Shedding) Status() SheddingStatus {
	is := s.limit.Status()
	out := SheddingStatus{Limit: is.Limit, InFlight: is.InFlight, Bounds: make(map[string]int, works), Refused: make(map[string]uint64, works)}
	for w := range works {
		out.Bounds[w.String()], out.Refused[w.String()] = is.Classes[w].Bound, is.Classes[w].Refused
	}
	return out
}
