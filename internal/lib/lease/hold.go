package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// waker is leases that can wake those who wait for one.
type waker interface {
	// Freed returns when nobody holds the lease, or when it cannot tell.
	Freed(ctx context.Context, name string) error
}

// Hold waits for a lease, does the work under it, and gives it back. The lease
// is renewed at a third of ttl while the work goes on, and no longer; the work's
// context ends when it can no longer be certain that the lease stands, and then
// Hold answers ErrLost beside what the work says, however it ended. Who waits
// is woken when the lease is free, by leases that can, or looks every ttl/3.
//
// The work's writes carry the grant's token: that its context has ended may be
// noticed late, by a process that stood still.
func Hold(ctx context.Context, leases Leases, name, holder string, ttl time.Duration, work func(context.Context, Grant) error) error {
	for {
		asked := time.Now() // it is granted later than this, so it ends later too
		grant, err := leases.Acquire(ctx, name, holder, ttl)
		if err == nil {
			return under(ctx, leases, grant, asked, ttl, work)
		}
		if !errors.Is(err, ErrHeld) {
			return fmt.Errorf("hold %s: %w", name, err)
		}
		if err := awaitFree(ctx, leases, name, ttl/3); err != nil {
			return fmt.Errorf("hold %s: %w", name, err)
		}
	}
}

func awaitFree(ctx context.Context, leases Leases, name string, pause time.Duration) error {
	if w, ok := leases.(waker); ok {
		return w.Freed(ctx, name)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func under(ctx context.Context, leases Leases, g Grant, asked time.Time, ttl time.Duration, work func(context.Context, Grant) error) error {
	inside, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- work(inside, g) }()
	until := asked.Add(ttl)
	over, beat := time.NewTimer(time.Until(until)), time.NewTicker(ttl/3)
	defer over.Stop()
	defer beat.Stop()
	renewed := make(chan time.Time, 1) // when it was asked for; zero: lost
	busy := false
	for {
		select {
		case err := <-done:
			if time.Now().After(until) {
				return errors.Join(err, fmt.Errorf("%w: %s", ErrLost, g.Name))
			}
			// The caller may have given up, and others should not have to wait.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ttl)
			defer cancel()
			return errors.Join(err, leases.Release(ctx, g))
		case <-over.C:
			end()
			return errors.Join(<-done, fmt.Errorf("%w: %s", ErrLost, g.Name))
		case asked := <-renewed:
			busy = false
			if asked.IsZero() {
				until = time.Now()
			} else {
				until = asked.Add(ttl)
			}
			over.Reset(time.Until(until))
		case <-beat.C:
			if !busy {
				busy = true
				// Not in this goroutine: a call that hangs must not keep the end from being seen.
				go renew(inside, leases, g, ttl, until, renewed)
			}
		}
	}
}

// renew sends when the renewal was asked for, the zero time when the lease is
// lost, or by how much it stood before when nobody knows.
func renew(ctx context.Context, leases Leases, g Grant, ttl time.Duration, until time.Time, renewed chan<- time.Time) {
	asked := time.Now()
	switch err := leases.Renew(ctx, g, ttl); {
	case err == nil:
	case errors.Is(err, ErrLost):
		asked = time.Time{}
	default:
		asked = until.Add(-ttl)
	}
	renewed <- asked
}
