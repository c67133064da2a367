package call_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/lib/call"
)

// TestAdmission draws acquires and releases, outcomes and times at random, also
// times that go back: every decision follows from the count and the bounds, and
// the bounds from the options.
func TestAdmission(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := call.AdaptiveOptions{
			Min:    rapid.IntRange(1, 5).Draw(t, "min"),
			Max:    rapid.IntRange(5, 60).Draw(t, "max"),
			Shares: rapid.SampledFrom([][]float64{nil, shares, {1, 1}, {1, 0.5, 0.5, 0.1}}).Draw(t, "shares"), Samples: 5,
			ProbeEvery: time.Second, Random: rand.New(rand.NewPCG(1, 1)).Float64,
		}
		a, err := call.NewAdaptive(o)
		if err != nil {
			t.Fatal(err)
		}
		classes := max(1, len(o.Shares))
		now := epoch
		var inside []call.Permit
		var refused uint64
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(t, "people") {
					c := call.Class(rapid.IntRange(0, classes-1).Draw(t, "class"))
					bound := a.Status().Classes[c].Bound
					p, err := a.Acquire(c, now)
					if (err == nil) != (len(inside) < bound) || err != nil && !errors.Is(err, call.ErrLimited) {
						t.Fatalf("class %d with %d in flight of %d: %v", c, len(inside), bound, err)
					}
					if err == nil {
						inside = append(inside, p)
					} else {
						refused++
						p.Release(now, call.Served) // holds nothing
					}
				}
			},
			"release": func(t *rapid.T) {
				outcome := rapid.SampledFrom([]call.Outcome{call.Served, call.TimedOut, call.Unmeasured}).Draw(t, "outcome")
				for range min(len(inside), rapid.IntRange(1, 30).Draw(t, "people")) {
					i := rapid.IntRange(0, len(inside)-1).Draw(t, "which")
					inside[i].Release(now, outcome)
					inside[i].Release(now, outcome) // does nothing
					inside = append(inside[:i], inside[i+1:]...)
				}
			},
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-20, 500).Draw(t, "ms")) * time.Millisecond)
			},
			"": func(t *rapid.T) {
				s := a.Status()
				if s.InFlight != len(inside) || s.Limit < o.Min || s.Limit > o.Max {
					t.Fatalf("%d in flight, want %d; limit %d, want %d..%d", s.InFlight, len(inside), s.Limit, o.Min, o.Max)
				}
				var sum uint64
				for i, c := range s.Classes {
					sum += c.Refused
					if c.Bound < 1 || c.Bound > s.Limit || i > 0 && c.Bound > s.Classes[i-1].Bound {
						t.Fatalf("bounds of classes are wrong: %+v", s)
					}
				}
				if sum != refused {
					t.Fatalf("%d refusals counted, want %d", sum, refused)
				}
			},
		})
	})
}

// TestAdaptiveConcurrently has goroutines fight for a few places, with the
// window turning all the time.
func TestAdaptiveConcurrently(t *testing.T) {
	const most = 10
	a := adaptive(t, call.AdaptiveOptions{Shares: shares, Max: most, Initial: most, Window: time.Microsecond, Samples: 1, ProbeEvery: time.Millisecond,
		Random: rand.Float64})
	var inside, highest, admitted atomic.Int64
	var done sync.WaitGroup
	for g := range 8 {
		done.Go(func() {
			for range 20_000 {
				p, err := a.Acquire(call.Class(g%len(shares)), time.Now())
				if err != nil {
					continue
				}
				admitted.Add(1)
				for n := inside.Add(1); n > highest.Load(); {
					highest.Store(n)
				}
				inside.Add(-1)
				p.Release(time.Now(), call.Served)
			}
		})
	}
	done.Wait()
	if s := a.Status(); s.InFlight != 0 || highest.Load() > most || admitted.Load() == 0 {
		t.Errorf("%d left in flight, at most %d were, %d in all", s.InFlight, highest.Load(), admitted.Load())
	}
}

// TestDeadDependency lets all work hang for minutes until its time is up, and
// then recover. A limiter that only looks at times would learn that this is how
// long work takes.
func TestDeadDependency(t *testing.T) {
	f := func(worst time.Duration, o call.Outcome) {
		t.Helper()
		limit := adaptive(t, call.AdaptiveOptions{Min: 2, Initial: 100, Worst: worst})
		now := epoch
		// round lets everybody in who may, and all of them end after took.
		round := func(took time.Duration, o call.Outcome) {
			var all []call.Permit
			for {
				p, err := limit.Acquire(0, now)
				if err != nil {
					break
				}
				all = append(all, p)
			}
			now = now.Add(took)
			for i := range all {
				all[i].Release(now, o)
			}
		}
		for range 100 {
			round(10*time.Millisecond, call.Served)
		}
		if n := limit.Status().Limit; n < 100 {
			t.Errorf("a limit of %d, though nothing ever queued", n)
		}
		for i := range 600 {
			round(time.Second, o)
			if n := limit.Status().Limit; i > 100 && n > 10 {
				t.Fatalf("a limit of %d before what hangs for %d s", n, i)
			}
		}
		for range 1000 {
			round(10*time.Millisecond, call.Served)
		}
		if n := limit.Status().Limit; n < 50 {
			t.Errorf("a limit of %d after it recovered", n)
		}
	}
	f(0, call.TimedOut)
	f(500*time.Millisecond, call.Served)
}

// TestUnmeasured mixes refusals of later rules with real work. They are quick:
// taken for work, they would make all real work look slow.
func TestUnmeasured(t *testing.T) {
	f := func(quick call.Outcome) time.Duration {
		s := newServer(adaptive(t, call.AdaptiveOptions{}))
		s.offer(paying, 0, 20*time.Second, 2*capacity)
		s.watch = func() {
			if p, err := s.limit.Acquire(0, s.clock()); err == nil {
				p.Release(s.clock().Add(10*time.Microsecond), quick)
			}
		}
		s.run(0, 20*time.Second)
		return s.limit.Status().Classes[0].Unqueued
	}
	if took := f(call.Unmeasured); took < 7*time.Millisecond || took > 15*time.Millisecond {
		t.Errorf("unqueued work is taken to last %v, it lasts 10 ms", took)
	}
	if took := f(call.Served); took > 7*time.Millisecond {
		t.Errorf("%v though half of the results are quick: this test could not fail", took)
	}
}

func TestAdaptiveOptions(t *testing.T) {
	f := func(o call.AdaptiveOptions, want string) {
		t.Helper()
		_, err := call.NewAdaptive(o)
		if want == "" && err == nil {
			return
		}
		if !errors.Is(err, call.ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	f(call.AdaptiveOptions{}, "")
	f(call.AdaptiveOptions{Max: 1, Min: 1}, "")
	f(call.AdaptiveOptions{Min: 100}, "")
	f(call.AdaptiveOptions{Min: 5, Max: 4}, "min 5")
	f(call.AdaptiveOptions{Shares: []float64{0.9}}, "shares [0.9]")
	f(call.AdaptiveOptions{Shares: []float64{1, 0.5, 0.6}}, "shares")
	f(call.AdaptiveOptions{Shares: []float64{1, 0}}, "shares")
	f(call.AdaptiveOptions{Shares: make([]float64, 9)}, "9 classes")
	f(call.AdaptiveOptions{Tolerance: 0.5}, "tolerance 0.5")
}

// TestNoAllocations covers what stands in everybody's way.
func TestNoAllocations(t *testing.T) {
	f := func(name string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(1000, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	ctx := t.Context()
	b, err := call.NewBreaker(call.BreakerOptions{Name: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	answered := func(err error) func() {
		return func() {
			if b.Do(ctx, func(context.Context) error { return nil }) != err && err == nil {
				t.Error("refused")
			}
		}
	}
	f("an answered call", answered(nil))
	b.Hold(call.Open)
	f("a refused call", answered(call.ErrOpen))
	a := adaptive(t, call.AdaptiveOptions{Initial: 4})
	now := epoch
	f("acquire and release", func() {
		p, err := a.Acquire(0, now)
		if err != nil {
			t.Error(err)
		}
		now = now.Add(time.Millisecond)
		p.Release(now, call.Served)
	})
	for range 4 {
		_, _ = a.Acquire(0, now)
	}
	f("a refusal", func() {
		if _, err := a.Acquire(0, now); err == nil {
			t.Error("admitted")
		}
	})
	h := bulkhead(t, call.BulkheadOptions{})
	f("a place", func() { _ = h.Enter(ctx); h.Leave() })
}
