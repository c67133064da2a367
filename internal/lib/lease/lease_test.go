package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/lease"
	"sluice/internal/lib/lease/leasetest"
)

func TestLocal(t *testing.T) {
	leasetest.Run(t, func(t *testing.T) leasetest.Body {
		var mu sync.Mutex
		now := time.Unix(1_790_000_000, 0)
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
		return leasetest.Body{Leases: lease.NewLocal(clock), Pass: func(_ *testing.T, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
		}}
	})
}

// Work under a lease that outlasts it several times, beside somebody who waits;
// and work whose lease somebody ends.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := lease.NewLocal(time.Now), time.Now()
		f := func(holder string, lasts time.Duration, want error) time.Duration {
			t.Helper()
			err := lease.Hold(t.Context(), l, "n", holder, 10*time.Second, func(ctx context.Context, g lease.Grant) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(lasts):
					return nil
				}
			})
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", holder, err, want)
			}
			return time.Since(began)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			synctest.Wait() // the other holds it
			if at := f("b", time.Second, nil); at < 46*time.Second || at > 50*time.Second {
				t.Errorf("who waited was done after %s", at)
			}
		})
		if at := f("a", 45*time.Second, nil); at != 45*time.Second {
			t.Errorf("done after %s", at)
		}
		wg.Wait()

		began = time.Now()
		wg.Go(func() {
			<-time.After(5 * time.Second)
			if _, err := l.Acquire(t.Context(), "n", "a", time.Minute); err != nil { // another grant of the same holder ends the first
				t.Error(err)
			}
		})
		if at := f("a", time.Minute, lease.ErrLost); at > 10*time.Second {
			t.Errorf("it was noticed after %s", at)
		}
		wg.Wait()
	})
}
