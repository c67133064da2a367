package call_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/lib/call"
)

func retrying(t testing.TB, o call.RetryOptions) *call.Retry {
	t.Helper()
	r, err := call.NewRetry(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func budget(t testing.TB, o call.BudgetOptions) *call.Budget {
	t.Helper()
	b, err := call.NewBudget(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRetry gives each attempt its end, and says at which times attempts began.
func TestRetry(t *testing.T) {
	f := func(s call.Safety, deadline time.Duration, ends []error, want []time.Duration, err error) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			r := retrying(t, call.RetryOptions{
				Attempts: 4, Needs: 50 * time.Millisecond, Budget: budget(t, call.BudgetOptions{PerSecond: 10}),
				Random: func() float64 { return 0.5 },
			})
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(ctx, deadline)
			}
			defer cancel()
			var began []time.Duration
			start := time.Now()
			got := r.Do(ctx, s, func(context.Context) error {
				began = append(began, time.Since(start))
				return ends[len(began)-1]
			})
			if !errors.Is(got, err) || (err == nil) != (got == nil) {
				t.Errorf("got %v, want %v", got, err)
			}
			if !slices.Equal(began, want) {
				t.Errorf("attempts at %v, want %v", began, want)
			}
		})
	}
	at := func(ms ...int) (d []time.Duration) {
		for _, m := range ms {
			d = append(d, time.Duration(m)*time.Millisecond)
		}
		return d
	}
	f(call.Idempotent, 0, []error{nil}, at(0), nil)
	f(call.Idempotent, 0, []error{errDown, nil}, at(0, 50), nil)
	f(call.Idempotent, 0, []error{errDown, errDown, errDown, errDown}, at(0, 50, 150, 350), errDown)
	f(call.Once, 0, []error{errDown}, at(0), errDown)
	f(call.Once, 0, []error{call.After(errDown, time.Millisecond)}, at(0), errDown)
	// What the dependency wishes is a least time.
	f(call.Idempotent, 0, []error{call.After(errDown, time.Second), nil}, at(0, 1050), nil)
	f(call.Idempotent, 0, []error{call.After(errDown, time.Minute)}, at(0), errDown)
	f(call.Idempotent, 0, []error{call.After(errDown, -time.Minute), nil}, at(0, 50), nil)
	// An attempt that cannot end in time is not begun.
	f(call.Idempotent, 90*time.Millisecond, []error{errDown}, at(0), errDown)
	f(call.Idempotent, 190*time.Millisecond, []error{errDown, errDown}, at(0, 50), errDown)
	f(call.Idempotent, 50*time.Millisecond, nil, nil, call.ErrNoTime)
	f(call.Idempotent, 500*time.Millisecond, []error{call.After(errDown, time.Second)}, at(0), errDown)
	// Refusals of this package are not retried, and do not hide what was done.
	f(call.Idempotent, 0, []error{call.ErrOpen}, at(0), call.ErrOpen)
	f(call.Idempotent, 0, []error{errDown, call.ErrOpen}, at(0, 50), errDown)
}

func TestRetryEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrying(t, call.RetryOptions{Backoff: time.Hour, BackoffMax: time.Hour, Budget: budget(t, call.BudgetOptions{PerSecond: 10})})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start, attempts := time.Now(), 0
		err := r.Do(ctx, call.Idempotent, func(context.Context) error { attempts++; return errDown })
		if !errors.Is(err, errDown) || attempts != 1 || time.Since(start) > time.Second {
			t.Errorf("%v after %v and %d attempts", err, time.Since(start), attempts)
		}
	})
}

// TestRetryJitter wants pauses that differ, between nothing and the bound.
func TestRetryJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrying(t, call.RetryOptions{Attempts: 2, Backoff: time.Second, Budget: budget(t, call.BudgetOptions{PerSecond: 1000})})
		var below, above int
		for range 400 {
			pass(time.Second)
			start := time.Now()
			_ = r.Do(t.Context(), call.Idempotent, func(context.Context) error { return errDown })
			switch pause := time.Since(start); {
			case pause > time.Second:
				t.Fatalf("a pause of %v", pause)
			case pause < 500*time.Millisecond:
				below++
			default:
				above++
			}
		}
		if min(below, above) < 150 {
			t.Errorf("%d pauses in the first half, %d in the second", below, above)
		}
	})
}

// TestOutageIsNotMultiplied has two hundred callers lose their dependency for a
// minute. It sees at most a tenth more than the calls, and the least rate.
func TestOutageIsNotMultiplied(t *testing.T) {
	outage := func(b *call.Budget) (calls, attempts int64) {
		synctest.Test(t, func(t *testing.T) {
			r := retrying(t, call.RetryOptions{Budget: b})
			var made atomic.Int64
			for range 200 {
				go func() {
					for start := time.Now(); time.Since(start) < time.Minute; {
						atomic.AddInt64(&calls, 1)
						_ = r.Do(t.Context(), call.Idempotent, func(context.Context) error { made.Add(1); return errDown })
						pass(time.Second)
					}
				}()
			}
			pass(2 * time.Minute)
			synctest.Wait()
			attempts = made.Load()
		})
		return calls, attempts
	}
	calls, attempts := outage(budget(t, call.BudgetOptions{}))
	t.Logf("with a budget: %d calls, %d attempts", calls, attempts)
	const perSecond, saved = 60 + 1, 10
	if most := 1.1*float64(calls) + perSecond + saved; float64(attempts) > most {
		t.Errorf("%d calls became %d attempts, want at most %.0f", calls, attempts, most)
	}
	if attempts < calls+calls/11 {
		t.Errorf("%d calls became %d attempts: the budget was hardly used", calls, attempts)
	}
	calls, attempts = outage(budget(t, call.BudgetOptions{Share: 1, PerSecond: 1e6, Saved: 1e6}))
	t.Logf("without one: %d calls, %d attempts", calls, attempts)
	if attempts < 3*calls {
		t.Errorf("without a budget %d calls became %d attempts: this test could not fail", calls, attempts)
	}
}

// TestBudgetBound draws calls, retries and time at random: in no span may more
// be granted than the comment of Budget says, nor is one refused that is due.
func TestBudgetBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := call.BudgetOptions{
			Share:     float64(rapid.IntRange(1, 10).Draw(t, "share")) / 10,
			PerSecond: float64(rapid.IntRange(1, 20).Draw(t, "per second")),
			Saved:     float64(rapid.IntRange(1, 30).Draw(t, "saved")),
		}
		b, err := call.NewBudget(o)
		if err != nil {
			t.Fatal(err)
		}
		// level is the bucket by its definition.
		now, level := epoch, min(o.Saved, o.PerSecond)
		b.Left(now) // its time begins when it is first used
		type moment struct{ calls, seconds, granted float64 }
		history := []moment{{}}
		last := moment{}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				b.Called(now)
				last.calls++
				level = min(o.Saved, level+o.Share)
			case 1:
				d := time.Duration(rapid.IntRange(-100, 1000).Draw(t, "ms")) * time.Millisecond
				if d < 0 {
					if left := b.Left(now); b.Left(now.Add(d)) != left {
						t.Fatal("a clock that goes back takes retries away")
					}
					break
				}
				now = now.Add(d)
				last.seconds += d.Seconds()
				level = min(o.Saved, level+o.PerSecond*d.Seconds())
			default:
				ok := b.Take(now)
				if ok != (level > 1-1e-6) && (level < 1-1e-6 || level > 1+1e-6) {
					t.Fatalf("granted: %v with %v left", ok, level)
				}
				if ok {
					last.granted++
					level--
				}
			}
			history = append(history, last)
			for _, h := range history {
				most := o.Share*(last.calls-h.calls) + o.PerSecond*(last.seconds-h.seconds) + o.Saved
				if got := last.granted - h.granted; got > most+1e-6 {
					t.Fatalf("granted %v retries, at most %v", got, most)
				}
			}
		}
	})
}
