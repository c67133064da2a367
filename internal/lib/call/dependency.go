package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Options of a Dependency. The zero value is usable.
//
// Name, Judge, Now and Random are for all parts; what a part's own options say
// of them goes first.
type Options struct {
	Name    string        // in errors
	Timeout time.Duration // of one attempt, without its wait for a place; default 5 s

	Breaker  BreakerOptions
	Bulkhead BulkheadOptions
	Retry    RetryOptions

	Judge  Judge
	Now    func() time.Time
	Random func() float64
}

// Dependency is something outside that is called: a payment provider, a
// mailer, another role. There is one for each, shared by all who call it.
//
// The parts stand in this order, for these reasons:
//
//	retry ► bulkhead ► breaker ► time-out ► the call
//
// Retry is outermost: each attempt is bounded and counted like a first one, and
// no place is held during a pause. The bulkhead is before the breaker, so that
// time in its queue is not taken for slowness of the dependency, and a trial is
// made at once when it is granted. The time-out is innermost, so that the breaker
// sees it.
type Dependency struct {
	Breaker  *Breaker  // to hold it, and for its status
	Bulkhead *Bulkhead // for its counts
	retry    *Retry
	timeout  time.Duration
}

// NewDependency puts the parts together. The error wraps ErrOptions and names
// all faults of all parts.
func NewDependency(o Options) (*Dependency, error) {
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Breaker.Name, o.Bulkhead.Name = cmp.Or(o.Breaker.Name, o.Name), cmp.Or(o.Bulkhead.Name, o.Name)
	for _, judge := range []*Judge{&o.Breaker.Judge, &o.Retry.Judge} {
		if *judge == nil {
			*judge = o.Judge
		}
	}
	for _, now := range []*func() time.Time{&o.Breaker.Now, &o.Retry.Now} {
		if *now == nil {
			*now = o.Now
		}
	}
	for _, random := range []*func() float64{&o.Breaker.Random, &o.Retry.Random} {
		if *random == nil {
			*random = o.Random
		}
	}
	var (
		d       = Dependency{timeout: o.Timeout}
		found   [3]error
		timeout = faults(cmp.Or(o.Name, "dependency"), check(o.Timeout > 0, "time-out %v is not above 0", o.Timeout))
	)
	d.Breaker, found[0] = NewBreaker(o.Breaker)
	d.Bulkhead, found[1] = NewBulkhead(o.Bulkhead)
	d.retry, found[2] = NewRetry(o.Retry)
	if err := errors.Join(append(found[:], timeout)...); err != nil {
		return nil, err
	}
	return &d, nil
}

// Do calls fn, more than once only if it is Idempotent. Errors are those of fn
// and of ctx, and ErrTimeout; those for which Refused holds say that fn was not
// called. It takes at most Attempts × (MaxWait + Timeout) and the pauses between,
// or as long as ctx. fn must return soon after its context ends: nothing can stop
// it, and until it returns it keeps its place.
func (d *Dependency) Do(ctx context.Context, s Safety, fn func(context.Context) error) error {
	return d.retry.Do(ctx, s, func(ctx context.Context) error {
		if err := d.Bulkhead.Enter(ctx); err != nil {
			return unmade(err)
		}
		defer d.Bulkhead.Leave()
		return d.Breaker.Do(ctx, func(ctx context.Context) error { return d.attempt(ctx, fn) })
	})
}

// unmade makes a refusal of a context that ended in the queue: the dependency
// was not called.
func unmade(err error) error {
	if Refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrFull, err)
}

// attempt is one call with its time-out. An error that comes of the time-out
// says so, whatever fn made of it.
func (d *Dependency) attempt(ctx context.Context, fn func(context.Context) error) error {
	own, cancel := context.WithTimeoutCause(ctx, d.timeout, ErrTimeout)
	defer cancel()
	err := fn(own)
	if err != nil && ctx.Err() == nil && context.Cause(own) == ErrTimeout {
		return fmt.Errorf("%w after %v: %w", ErrTimeout, d.timeout, err)
	}
	return err
}
