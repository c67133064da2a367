package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// BreakerOptions of a Breaker. The zero value is usable; a zero field has the
// default named beside it.
type BreakerOptions struct {
	Name string // in errors

	Window      time.Duration // that is judged; default 10 s, at least 10 ns
	MinCalls    int           // in the window before it is judged at all; default 20
	FailedShare float64       // of calls in the window, from which it opens; (0, 1], default 0.5
	Slow        time.Duration // longer than this is slow; default 0: slowness is not judged
	SlowShare   float64       // of calls in the window, from which it opens; (0, 1], default 0.8

	OpenFor time.Duration // first refusal, between half of it and all of it; default 5 s
	OpenMax time.Duration // bound on its doubling, and on how long trials may take; default 1 min, or OpenFor if longer
	Trials  int           // that pass when half-open, and must all be answered; default 3

	Judge Judge // default AllFail

	// Changed, optional, is told of every change of state, in their order. It is
	// called with the breaker's lock held: it must be quick and must not call the
	// breaker.
	Changed func(Change)

	Now    func() time.Time // default time.Now
	Random func() float64   // in [0, 1), safe for concurrent use; default math/rand
}

func (o BreakerOptions) withDefaults() (BreakerOptions, error) {
	o.Window = cmp.Or(o.Window, 10*time.Second)
	o.MinCalls = cmp.Or(o.MinCalls, 20)
	o.FailedShare = cmp.Or(o.FailedShare, 0.5)
	o.SlowShare = cmp.Or(o.SlowShare, 0.8)
	o.OpenFor = cmp.Or(o.OpenFor, 5*time.Second)
	o.OpenMax = cmp.Or(o.OpenMax, max(time.Minute, o.OpenFor))
	o.Trials = cmp.Or(o.Trials, 3)
	if o.Judge == nil {
		o.Judge = AllFail
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return o, faults("breaker "+o.Name,
		check(o.Window >= buckets, "window %v is below %d ns", o.Window, buckets),
		check(o.MinCalls >= 1, "min calls %d is below 1", o.MinCalls),
		check(share(o.FailedShare), "failed share %v is not in (0, 1]", o.FailedShare),
		check(share(o.SlowShare), "slow share %v is not in (0, 1]", o.SlowShare),
		check(o.Slow >= 0, "slow %v is negative", o.Slow),
		check(o.OpenFor > 0 && o.OpenFor <= o.OpenMax, "open for %v is not in (0, %v]", o.OpenFor, o.OpenMax),
		check(o.Trials >= 1, "trials %d is below 1", o.Trials))
}

// Change is one move of a breaker. Why is for people.
type Change struct {
	At       time.Time
	From, To State
	Why      string
}

// Breaker stops calling what does not answer, or not in time, and finds out
// with a few trials when it does again. It is safe for concurrent use.
//
// The pattern is Nygard's (Release It!, "Circuit Breaker"); judging slowness
// beside failures, and a least number of calls, as resilience4j does.
type Breaker struct {
	judge  Judge
	now    func() time.Time
	open   error
	mu     sync.Mutex
	inside circuit
}

// NewBreaker is closed. The error wraps ErrOptions and names all faults.
func NewBreaker(o BreakerOptions) (*Breaker, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	open := ErrOpen
	if o.Name != "" {
		open = fmt.Errorf("%s: %w", o.Name, ErrOpen) // made once: refusing must cost nothing
	}
	return &Breaker{judge: o.Judge, now: o.Now, open: open, inside: newCircuit(o)}, nil
}

// Do calls fn unless the breaker is open, and judges its error. It answers
// what fn does, or ErrOpen. A panic of fn counts as a failure.
func (b *Breaker) Do(ctx context.Context, fn func(context.Context) error) (err error) {
	pass, err := b.Enter()
	if err != nil {
		return err
	}
	verdict := Failed // what a panic leaves behind
	defer func() { pass.Done(verdict) }()
	err = fn(ctx)
	verdict = b.judge.of(ctx, err)
	return err
}

// Enter is Do for a call that is not one function: ask, call, tell Pass.Done.
// It answers ErrOpen if the call must not be made.
func (b *Breaker) Enter() (Pass, error) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock() // here and below: Random and Changed are not ours, and might panic
	generation, ok := b.inside.enter(now)
	if !ok {
		return Pass{}, b.open
	}
	return Pass{b, generation, now}, nil
}

// Pass is the permission for one call. Done must be told exactly once.
type Pass struct {
	of         *Breaker
	generation uint64
	began      time.Time
}

// Done tells the verdict on the call, which has taken the time since Enter.
func (p Pass) Done(v Verdict) {
	now := p.of.now()
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.of.inside.settle(now, p.generation, v, now.Sub(p.began))
}

// Hold is for operators: Open refuses everything, Closed lets everything pass,
// until Auto. Another state panics.
func (b *Breaker) Hold(s State) {
	if s != Open && s != Closed {
		panic("call: a breaker cannot be held " + s.String())
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside.hold(now, s)
}

// Auto ends a Hold: what was held open is half-open now. Without a hold it does
// nothing.
func (b *Breaker) Auto() {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside.auto(now)
}

// BreakerStatus is how a breaker stands.
type BreakerStatus struct {
	State State
	Held  bool      // by an operator
	Until time.Time // open and not held: when the next trials are made
	// Of the window: what was counted. After an opening it is what led to it.
	Calls, Failed, Slow int
}

// Status does not move the breaker: one whose time is up stays open until
// somebody calls.
func (b *Breaker) Status() BreakerStatus {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.inside
	c.window.advance(now)
	s := BreakerStatus{State: c.state, Held: c.held, Calls: c.window.total.calls, Failed: c.window.total.failed, Slow: c.window.total.slow}
	if s.State == Open && !s.Held {
		s.Until = c.until
	}
	return s
}

func share(f float64) bool { return f > 0 && f <= 1 }

// check answers the fault, or nil if ok.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// faults joins what is wrong with the options of something.
func faults(of string, found ...error) error {
	if err := errors.Join(found...); err != nil {
		return fmt.Errorf("%w of %s: %w", ErrOptions, of, err)
	}
	return nil
}
