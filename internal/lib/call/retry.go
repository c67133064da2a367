package call

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// RetryOptions of a Retry. The zero value is usable.
type RetryOptions struct {
	Attempts   int           // in all, the first included; default 3, 1..10
	Backoff    time.Duration // bound of the first pause; default 100 ms
	BackoffMax time.Duration // bound of its doubling; default 2 s, or Backoff if longer
	Patience   time.Duration // longest Retry-After that is waited for; default 5 s
	// Needs is the time an attempt needs to be worth beginning: with less left
	// before the context's deadline it is not begun; default 0.
	Needs time.Duration

	Budget *Budget // default: one of its own, by BudgetOptions{}
	Judge  Judge   // default AllFail; what it calls Failed is retried

	Now    func() time.Time // default time.Now; of the same clock as the contexts' deadlines
	Random func() float64   // in [0, 1), safe for concurrent use; default math/rand
}

func (o RetryOptions) withDefaults() (RetryOptions, error) {
	o.Attempts = cmp.Or(o.Attempts, 3)
	o.Backoff = cmp.Or(o.Backoff, 100*time.Millisecond)
	o.BackoffMax = cmp.Or(o.BackoffMax, max(2*time.Second, o.Backoff))
	o.Patience = cmp.Or(o.Patience, 5*time.Second)
	if o.Judge == nil {
		o.Judge = AllFail
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	var budget error
	if o.Budget == nil {
		o.Budget, budget = NewBudget(BudgetOptions{})
	}
	return o, faults("retry", budget,
		check(o.Attempts >= 1 && o.Attempts <= 10, "attempts %d are not in 1..10", o.Attempts),
		check(o.Backoff > 0 && o.Backoff <= o.BackoffMax, "backoff %v is not in (0, %v]", o.Backoff, o.BackoffMax),
		check(o.Patience >= 0, "patience %v is negative", o.Patience),
		check(o.Needs >= 0, "needs %v is negative", o.Needs))
}

// Retry makes a call again when it failed and it is safe, there is time, and
// the budget grants it. Pauses are exponential with full jitter: uniform between
// nothing and a bound that doubles (Brooker, "Exponential Backoff and Jitter"),
// so that callers who failed together do not return together. It is safe for
// concurrent use.
type Retry struct{ o RetryOptions }

// NewRetry checks the options. The error wraps ErrOptions and names all faults.
func NewRetry(o RetryOptions) (*Retry, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Retry{o}, nil
}

// Do calls fn until it answers, or gives up with the error of the last attempt
// that reached the dependency: a refusal of this package after an attempt that
// failed would wrongly say that nothing was done. ErrNoTime: not even the first
// attempt had the time it needs.
func (r *Retry) Do(ctx context.Context, s Safety, fn func(context.Context) error) error {
	if !r.inTime(ctx, 0) {
		return ErrNoTime
	}
	var reached error
	for attempt := 1; ; attempt++ {
		err := fn(ctx)
		switch {
		case err == nil:
			r.called(attempt)
			return nil
		case Refused(err):
			// Asking our own bounds again in a moment would be a queue in disguise.
			return cmp.Or(reached, err)
		}
		r.called(attempt)
		reached = err
		if s == Once || attempt >= r.o.Attempts || r.o.Judge.of(ctx, err) != Failed {
			return err
		}
		pause, ok := r.pause(attempt, err)
		if !ok || !r.inTime(ctx, pause) || !r.o.Budget.Take(r.o.Now()) {
			return err
		}
		if !wait(ctx, pause) {
			return err
		}
	}
}

// called tells the budget of a first attempt that reached the dependency. If
// refusals counted, an open breaker would save up retries for the moment at which
// it closes.
func (r *Retry) called(attempt int) {
	if attempt == 1 {
		r.o.Budget.Called(r.o.Now())
	}
}

// pause before the attempt that follows this one; not ok if the dependency has
// asked for more patience than there is. Its wish is a least time, to which
// jitter is added: it says the same to everybody.
func (r *Retry) pause(attempt int, err error) (time.Duration, bool) {
	bound := r.o.Backoff
	for i := 1; i < attempt && bound < r.o.BackoffMax; i++ {
		bound *= 2
	}
	jitter := time.Duration(r.o.Random() * float64(min(bound, r.o.BackoffMax)))
	least := RetryAfter(err)
	return least + jitter, least <= r.o.Patience
}

// inTime says whether an attempt that begins after pause can end before the
// deadline.
func (r *Retry) inTime(ctx context.Context, pause time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || deadline.Sub(r.o.Now()) > pause+r.o.Needs
}

// wait answers false if ctx ended first.
func wait(ctx context.Context, pause time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	if pause <= 0 {
		return true
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// After wraps err with the time before which the dependency asks not to be
// called again.
func After(err error, pause time.Duration) error { return &after{err, pause} }

// RetryAfter is the pause that err asks for by After, or 0.
func RetryAfter(err error) time.Duration {
	var a *after
	if errors.As(err, &a) {
		return max(0, a.pause)
	}
	return 0
}

type after struct {
	error
	pause time.Duration
}

func (a *after) Unwrap() error { return a.error }
