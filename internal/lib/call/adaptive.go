package call

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Class says how important a piece of work is: 0 is refused last.
type Class uint8

// MaxClasses bounds the classes of an Adaptive.
const MaxClasses = 8

// Outcome of admitted work.
type Outcome uint8

const (
	Served     Outcome = iota // its time is that of the work
	TimedOut                  // it ended because its time was up: a sign of overload
	Unmeasured                // its time says nothing: refused by a later rule, or answered from a cache
)

// AdaptiveOptions of an Adaptive. The zero value is usable: one class.
type AdaptiveOptions struct {
	// Shares of the limit up to which each class may fill it, by class; default
	// {1}. They start with 1, do not rise, and are above 0; at most MaxClasses. With
	// {1, 0.9, 0.75}, class 2 is refused when three quarters of the limit are taken,
	// by whomever, and so a quarter is always there for the others.
	Shares []float64

	Min, Max int // bounds of the limit; default 4 and 1,000; 1 ≤ Min ≤ Max
	Initial  int // the first limit; default 20, within the bounds

	Window  time.Duration // between two moves of the limit, at least; default 100 ms
	Samples int           // results that a window needs, at least; default 50
	// Tolerance is how many times longer than unqueued work may take before it
	// is taken for a queue; default 1.25, at least 1.
	Tolerance float64
	// ProbeEvery is the time after which a limiter that was never quiet lowers
	// its limit for a moment to measure how long unqueued work takes; default 30 s.
	ProbeEvery time.Duration
	// Worst is a mean time that is overload whatever was measured before; default
	// 0: none.
	Worst time.Duration

	Random func() float64 // in [0, 1); default math/rand
}

func (o AdaptiveOptions) withDefaults() (AdaptiveOptions, error) {
	if len(o.Shares) == 0 {
		o.Shares = []float64{1}
	}
	o.Min, o.Max = cmp.Or(o.Min, 4), cmp.Or(o.Max, 1000)
	o.Initial = cmp.Or(o.Initial, min(max(20, o.Min), o.Max))
	o.Window = cmp.Or(o.Window, 100*time.Millisecond)
	o.Samples = cmp.Or(o.Samples, 50)
	o.Tolerance = cmp.Or(o.Tolerance, 1.25)
	o.ProbeEvery = cmp.Or(o.ProbeEvery, 30*time.Second)
	if o.Random == nil {
		o.Random = rand.Float64
	}
	falling := o.Shares[0] == 1
	for i, s := range o.Shares {
		falling = falling && share(s) && (i == 0 || s <= o.Shares[i-1])
	}
	return o, faults("adaptive limit",
		check(len(o.Shares) <= MaxClasses, "%d classes, at most %d", len(o.Shares), MaxClasses),
		check(falling, "shares %v do not start with 1, rise, or are not in (0, 1]", o.Shares),
		check(o.Min >= 1 && o.Min <= o.Max, "min %d is not in 1..%d", o.Min, o.Max),
		check(o.Initial >= o.Min && o.Initial <= o.Max, "initial %d is not in %d..%d", o.Initial, o.Min, o.Max),
		check(o.Window > 0, "window %v is not above 0", o.Window),
		check(o.Samples >= 1, "samples %d is below 1", o.Samples),
		check(o.Tolerance >= 1, "tolerance %v is below 1", o.Tolerance),
		check(o.ProbeEvery >= o.Window, "probe every %v is below the window", o.ProbeEvery),
		check(o.Worst >= 0, "worst %v is negative", o.Worst))
}

// Adaptive bounds the work in flight by a limit that it finds itself, from how
// long the work takes (gradient.go). Nobody waits: work beyond the limit is
// refused at once, work of a low class before work of a high one. It is safe for
// concurrent use. Time is told by the caller and should be monotonic: while it
// stands behind an earlier one, the limit stays where it is.
//
// All classes are counted together and each has a bound of its own below the
// limit ("trunk reservation" in telephony), rather than each having its own part:
// nothing is left unused that a higher class does not need, and the higher class
// never waits for the lower ones to go.
//
// An acquire is two loads, a compare-and-swap and another load; a refusal is
// two loads and a counter of its class, so that a flood of refusals does not
// slow those who are let in. The window is turned by whoever releases after its
// end; nobody waits for that either.
type Adaptive struct {
	inFlight atomic.Int64
	_        [56]byte // apart from what is only read: every acquire writes it
	bounds   [MaxClasses]atomic.Int64
	epoch    atomic.Uint32 // given to what is admitted, for probes: see gradient.go
	counted  atomic.Uint32 // the epoch whose results count
	turnAt   atomic.Int64  // Unix ns
	classes  int
	_        [40]byte
	peak     atomic.Int64 // of inFlight in this window
	_        [56]byte
	tallies  [MaxClasses]tally

	mu   sync.Mutex // what follows, for whoever turns the window
	grad gradient
	last [MaxClasses]sums // tallies at the window's beginning
}

// tally counts for ever; a window is the difference between two readings.
type tally struct {
	refused  atomic.Uint64
	_        [56]byte // a flood writes refused, the others write the rest
	measured atomic.Uint64
	took     atomic.Int64 // ns, of all measured
	timedOut atomic.Uint64
	_        [40]byte
}

// sums is a reading of a tally.
type sums struct {
	refused, measured, timedOut uint64
	took                        int64
}

func (t *tally) read() sums {
	return sums{t.refused.Load(), t.measured.Load(), t.timedOut.Load(), t.took.Load()}
}

// NewAdaptive has nothing in flight. The error wraps ErrOptions and names all
// faults.
func NewAdaptive(o AdaptiveOptions) (*Adaptive, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Adaptive{classes: len(o.Shares), grad: newGradient(o)}
	a.publish()
	return a, nil
}

// Acquire admits work of class c, or answers ErrLimited. Every permit must be
// released. A class without a share panics.
func (a *Adaptive) Acquire(c Class, now time.Time) (Permit, error) {
	epoch := a.epoch.Load() // before the bound: see publish
	bound := a.bounds[:a.classes][c].Load()
	for {
		n := a.inFlight.Load()
		if n >= bound {
			a.tallies[c].refused.Add(1)
			return Permit{}, ErrLimited
		}
		if a.inFlight.CompareAndSwap(n, n+1) {
			if n >= a.peak.Load() {
				a.peak.Store(n + 1) // of two at once the lower may win: then it is low by one
			}
			return Permit{of: a, began: now.UnixNano(), epoch: epoch, class: c}, nil
		}
	}
}

// Permit is admitted work. The zero Permit holds nothing.
type Permit struct {
	of    *Adaptive
	began int64
	epoch uint32
	class Class
}

// Release ends the work and tells how. A second Release does nothing.
func (p *Permit) Release(now time.Time, o Outcome) {
	a := p.of
	if a == nil {
		return
	}
	p.of = nil
	at := now.UnixNano()
	a.inFlight.Add(-1)
	if took := at - p.began; o != Unmeasured && took > 0 && p.epoch == a.counted.Load() {
		t := &a.tallies[p.class]
		t.took.Add(took)
		t.measured.Add(1)
		if o == TimedOut {
			t.timedOut.Add(1)
		}
	}
	if at >= a.turnAt.Load() && a.mu.TryLock() {
		defer a.mu.Unlock()
		a.turn(at)
	}
}

// turn ends the window if it has what it needs.
func (a *Adaptive) turn(now int64) {
	if now < a.turnAt.Load() {
		return // somebody else has just done it
	}
	var w sample
	var all [MaxClasses]sums
	for i := range a.classes {
		s := a.tallies[i].read()
		all[i] = s
		w.refused = w.refused || s.refused != a.last[i].refused
		w.timedOut += int(s.timedOut - a.last[i].timedOut)
		w.classes[i] = part{int(s.measured - a.last[i].measured), float64(s.took - a.last[i].took)}
	}
	w.peak = int(a.peak.Load())
	if a.grad.turn(now, w) {
		a.last = all
		a.peak.Store(a.inFlight.Load())
	}
	a.publish()
}

// publish makes the gradient's decisions known. The epoch comes last here and
// first in Acquire: whoever has seen a probe's epoch was admitted under its bounds.
func (a *Adaptive) publish() {
	for i := range a.classes {
		a.bounds[i].Store(int64(a.grad.bound(i)))
	}
	a.turnAt.Store(a.grad.turnAt)
	a.counted.Store(a.grad.counted)
	a.epoch.Store(a.grad.epoch)
}

// AdaptiveStatus is how a limiter stands. Counts are since it was made.
type AdaptiveStatus struct {
	Limit    int
	InFlight int
	Probing  bool // its limit is lowered for a moment
	Classes  []ClassStatus
}

// ClassStatus is one class of an AdaptiveStatus.
type ClassStatus struct {
	Bound    int           // of work in flight, of all classes, under which it is admitted
	Unqueued time.Duration // what it takes when nothing waits, as far as is known; 0: not known
	Measured uint64        // Served or TimedOut; a few that straddle a probe are left out
	TimedOut uint64
	Refused  uint64
}

// Status is for people and metrics: it allocates and takes a lock.
func (a *Adaptive) Status() AdaptiveStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := AdaptiveStatus{Limit: int(a.grad.limit), InFlight: int(a.inFlight.Load()), Probing: a.grad.phase == lowered}
	for i := range a.classes {
		t := a.tallies[i].read()
		s.Classes = append(s.Classes, ClassStatus{
			Bound: int(a.bounds[i].Load()), Unqueued: time.Duration(a.grad.unqueued[i]),
			Measured: t.measured, TimedOut: t.timedOut, Refused: t.refused,
		})
	}
	return s
}
