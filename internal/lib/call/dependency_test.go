package call_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/call"
)

func dependency(t testing.TB, o call.Options) *call.Dependency {
	t.Helper()
	d, err := call.NewDependency(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pass lets time pass in synctest's bubble, which takes none.
func pass(d time.Duration) { <-time.After(d) }

// takes is a call that ends after d, or with its context.
func takes(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func bulkhead(t testing.TB, o call.BulkheadOptions) *call.Bulkhead {
	t.Helper()
	b, err := call.NewBulkhead(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead(t, call.BulkheadOptions{Name: "bank", InFlight: 2, Waiting: 2, MaxWait: time.Second})
		for range 2 {
			if err := b.Enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var order []int
		for i := range 2 {
			go func() {
				if err := b.Enter(t.Context()); err == nil {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		start := time.Now()
		if err := b.Enter(t.Context()); !errors.Is(err, call.ErrFull) || !strings.Contains(err.Error(), "bank") || time.Since(start) != 0 {
			t.Errorf("beyond the queue: %v after %v", err, time.Since(start))
		}
		if b.InFlight() != 2 || b.Waiting() != 2 {
			t.Errorf("%d in flight, %d waiting", b.InFlight(), b.Waiting())
		}
		b.Leave()
		synctest.Wait()
		b.Leave()
		synctest.Wait()
		if len(order) != 2 || order[0] != 0 || b.Waiting() != 0 {
			t.Errorf("served in order %v, %d waiting", order, b.Waiting())
		}
		// Waiting ends with the bound and with the caller.
		if err := b.Enter(t.Context()); !errors.Is(err, call.ErrFull) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := b.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) || b.Waiting() != 0 {
			t.Errorf("%v, %d waiting", err, b.Waiting())
		}
		b.Leave()
		if err := b.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller who is gone has entered: %v", err)
		}
		b.Leave()
		defer func() {
			if recover() == nil {
				t.Error("left more often than entered")
			}
		}()
		b.Leave()
	})
}

// TestSlowDependencyIsAlone has two dependencies and a flood of callers. One of
// them begins to hang: callers of the other notice nothing, those of the slow one
// are refused at once for most of the time, and it is left in peace.
func TestSlowDependencyIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := func(name string) call.Options {
			return call.Options{
				Name: name, Timeout: time.Second,
				Bulkhead: call.BulkheadOptions{InFlight: 20, Waiting: 20, MaxWait: 100 * time.Millisecond},
				Breaker:  call.BreakerOptions{Slow: 500 * time.Millisecond},
			}
		}
		slow, well := dependency(t, options("slow")), dependency(t, options("well"))
		var reached, refusedLate, refused, inside, most, failed atomic.Int64
		worst := new(atomic.Int64)
		for range 300 { // people, each asking both
			go func() {
				for start := time.Now(); time.Since(start) < time.Minute; pass(time.Second) {
					asked := time.Now()
					err := slow.Do(t.Context(), call.Once, func(ctx context.Context) error {
						reached.Add(1)
						most.Store(max(most.Load(), inside.Add(1)))
						defer inside.Add(-1)
						return takes(time.Hour)(ctx)
					})
					switch {
					case call.Refused(err) && time.Since(asked) > 100*time.Millisecond:
						refusedLate.Add(1)
					case call.Refused(err):
						refused.Add(1)
					case !errors.Is(err, call.ErrTimeout):
						t.Errorf("the slow one answered %v", err)
					}
					asked = time.Now()
					if err := well.Do(t.Context(), call.Once, takes(10*time.Millisecond)); err != nil {
						failed.Add(1)
					}
					worst.Store(max(worst.Load(), int64(time.Since(asked))))
				}
			}()
		}
		pass(2 * time.Minute)
		synctest.Wait()
		t.Logf("slow: %d calls reached it, %d at a time; %d refused", reached.Load(), most.Load(), refused.Load())
		if most.Load() > 20 {
			t.Errorf("%d calls at a time", most.Load())
		}
		if reached.Load() > 150 || refused.Load() < 10_000 || refusedLate.Load() > 0 {
			t.Errorf("%d calls reached what hangs, %d were refused, %d of them late", reached.Load(), refused.Load(), refusedLate.Load())
		}
		if time.Duration(worst.Load()) > 110*time.Millisecond || well.Breaker.Status().State != call.Closed {
			t.Errorf("the well one took up to %v", time.Duration(worst.Load()))
		}
	})
}

func TestDependencyTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dependency(t, call.Options{Name: "bank", Timeout: time.Second, Retry: call.RetryOptions{Backoff: 1}})
		f := func(s call.Safety, deadline time.Duration, want error, wantTook time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			err := d.Do(ctx, s, takes(time.Hour))
			if took := time.Since(start).Round(time.Millisecond); !errors.Is(err, want) || took != wantTook {
				t.Errorf("%v after %v, want %v after %v", err, took, want, wantTook)
			}
			if call.Refused(err) {
				t.Errorf("%v is said not to have been called", err)
			}
		}
		f(call.Once, time.Hour, call.ErrTimeout, time.Second)
		f(call.Idempotent, time.Hour, call.ErrTimeout, 3*time.Second) // three attempts
		f(call.Once, 300*time.Millisecond, context.DeadlineExceeded, 300*time.Millisecond)
	})
}

// TestUnmade wants every way of not calling to say so, and no other.
func TestUnmade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dependency(t, call.Options{Name: "bank", Bulkhead: call.BulkheadOptions{InFlight: 1, Waiting: 1}, Retry: call.RetryOptions{Needs: time.Second}})
		f := func(ctx context.Context, want error) {
			t.Helper()
			err := d.Do(ctx, call.Idempotent, func(context.Context) error { t.Error("called"); return nil })
			if !errors.Is(err, want) || !call.Refused(err) {
				t.Errorf("got %v, refused %v; want %v", err, call.Refused(err), want)
			}
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f(soon, call.ErrNoTime)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		f(gone, context.Canceled)
		go func() { _ = d.Do(t.Context(), call.Once, takes(3*time.Second)) }()
		synctest.Wait()
		f(t.Context(), call.ErrFull)
		later, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		pass(500 * time.Millisecond)
		f(later, call.ErrFull)
		pass(time.Minute)
		d.Breaker.Hold(call.Open)
		f(t.Context(), call.ErrOpen)
	})
}

func TestDependencyPanic(t *testing.T) {
	d := dependency(t, call.Options{Bulkhead: call.BulkheadOptions{InFlight: 1}})
	func() {
		defer func() { _ = recover() }()
		_ = d.Do(t.Context(), call.Once, func(context.Context) error { panic("a bug") })
	}()
	if n := d.Bulkhead.InFlight(); n != 0 {
		t.Errorf("%d places are lost", n)
	}
	if err := d.Do(t.Context(), call.Once, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	_, err := call.NewDependency(call.Options{
		Name: "bank", Timeout: -1,
		Breaker:  call.BreakerOptions{Trials: -1},
		Bulkhead: call.BulkheadOptions{InFlight: -1, Waiting: -1},
		Retry:    call.RetryOptions{Attempts: 11},
	})
	if !errors.Is(err, call.ErrOptions) {
		t.Fatal(err)
	}
	for _, want := range []string{"bank", "time-out -1", "trials -1", "in flight -1", "waiting -1", "attempts 11"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	// One judge for all parts.
	asked := new(sync.Map)
	d := dependency(t, call.Options{Judge: func(err error) call.Verdict { asked.Store(err, true); return call.Answered }})
	attempts := 0
	_ = d.Do(t.Context(), call.Idempotent, func(context.Context) error { attempts++; return errDeclined })
	if _, ok := asked.Load(errDeclined); !ok || attempts != 1 || d.Breaker.Status().Failed != 0 {
		t.Errorf("a business refusal was retried %d times or counted: %+v", attempts-1, d.Breaker.Status())
	}
}
