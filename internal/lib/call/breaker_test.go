package call_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/lib/call"
)

var (
	errDown     = errors.New("connection refused")
	errDeclined = errors.New("card declined")
)

// bench is a breaker with a clock of its own.
type bench struct {
	testing.TB
	*call.Breaker
	now     time.Time
	changes []string
}

// newBench judges 10 calls and more, opens for 5 to 10 s and lets three trials
// through.
func newBench(t testing.TB, o call.BreakerOptions) *bench {
	t.Helper()
	b := &bench{TB: t, now: epoch}
	o.MinCalls, o.OpenFor, o.OpenMax = 10, 10*time.Second, time.Minute
	o.Now = func() time.Time { return b.now }
	if o.Random == nil {
		o.Random = func() float64 { return 0 } // the shortest pauses
	}
	o.Changed = func(c call.Change) { b.changes = append(b.changes, fmt.Sprintf("%v: %s", c.To, c.Why)) }
	var err error
	if b.Breaker, err = call.NewBreaker(o); err != nil {
		t.Fatal(err)
	}
	return b
}

// calls makes n calls that take so long and end so, and answers how many were
// let through.
func (b *bench) calls(n int, took time.Duration, end error) (made int) {
	b.Helper()
	for range n {
		err := b.Do(b.Context(), func(context.Context) error {
			made++
			b.now = b.now.Add(took)
			return end
		})
		if err != end && !errors.Is(err, call.ErrOpen) {
			b.Fatalf("got %v, the call ended with %v", err, end)
		}
	}
	return made
}

func (b *bench) wants(s call.State) {
	b.Helper()
	if got := b.Status().State; got != s {
		b.Fatalf("%v, want %v; changes %q", got, s, b.changes)
	}
}

func TestBreakerOpensOnFailures(t *testing.T) {
	f := func(answered, failed, declined int, want call.State) {
		t.Helper()
		b := newBench(t, call.BreakerOptions{Judge: func(err error) call.Verdict {
			if errors.Is(err, errDeclined) {
				return call.Answered
			}
			return call.AllFail(err)
		}})
		b.calls(answered, 0, nil)
		b.calls(declined, 0, errDeclined)
		b.calls(failed, 0, errDown)
		b.wants(want)
	}
	f(0, 9, 0, call.Closed) // too few to judge
	f(0, 10, 0, call.Open)
	f(10, 9, 0, call.Closed)
	f(10, 10, 0, call.Open)
	f(0, 9, 10, call.Closed)   // being refused is being answered
	f(0, 0, 1000, call.Closed) // however often
	f(1000, 500, 0, call.Closed)
}

func TestBreakerOpensOnSlowness(t *testing.T) {
	f := func(quick, slow int, want call.State) {
		t.Helper()
		b := newBench(t, call.BreakerOptions{Slow: 100 * time.Millisecond, Window: time.Minute})
		b.calls(quick, 100*time.Millisecond, nil)
		b.calls(slow, 101*time.Millisecond, nil)
		b.wants(want)
	}
	f(0, 9, call.Closed)
	f(0, 10, call.Open)
	f(10, 39, call.Closed)
	f(10, 40, call.Open) // four in five
	f(200, 0, call.Closed)
}

func TestBreakerForgets(t *testing.T) {
	b := newBench(t, call.BreakerOptions{Window: 10 * time.Second})
	b.calls(9, 0, errDown)
	b.now = b.now.Add(10 * time.Second)
	b.calls(9, 0, errDown)
	b.wants(call.Closed)
	if s := b.Status(); s.Calls != 9 || s.Failed != 9 {
		t.Errorf("the window has %d calls, %d failed; the older nine are over", s.Calls, s.Failed)
	}
	b.now = b.now.Add(9 * time.Second)
	b.calls(1, 0, errDown)
	b.wants(call.Open)

	// It forgets bit by bit: of a call each second, those of the last ten count.
	b = newBench(t, call.BreakerOptions{Window: 10 * time.Second})
	for i := range 100 {
		b.calls(1, 0, nil)
		if got, want := b.Status().Calls, min(i+1, 10); got != want {
			t.Fatalf("after %d seconds the window has %d calls, want %d", i, got, want)
		}
		b.now = b.now.Add(time.Second)
	}
}

// TestBreakerCycle follows a dependency that dies, is tried, fails under its
// trials, and recovers.
func TestBreakerCycle(t *testing.T) {
	b := newBench(t, call.BreakerOptions{Slow: time.Second})
	b.calls(10, 0, errDown)
	b.wants(call.Open)
	f := func(pause time.Duration, want int, end error, took time.Duration, then call.State) {
		t.Helper()
		if got := b.Status().Until; !got.Equal(b.now.Add(pause)) {
			t.Fatalf("open for %v, want %v", got.Sub(b.now), pause)
		}
		b.now = b.now.Add(pause - 1)
		if n := b.calls(100, 0, nil); n != 0 {
			t.Fatalf("%d calls were made while it was open", n)
		}
		b.now = b.now.Add(1)
		if n := b.calls(3, took, end); n != want {
			t.Fatalf("%d trials were made, want %d", n, want)
		}
		b.wants(then)
	}
	f(5*time.Second, 1, errDown, 0, call.Open) // half of 10 s, as nothing is random here
	f(10*time.Second, 1, errDown, 0, call.Open)
	f(20*time.Second, 1, nil, 1001*time.Millisecond, call.Open) // slow is no better
	f(30*time.Second, 1, errDown, 0, call.Open)                 // half of the bound
	f(30*time.Second, 3, nil, time.Millisecond, call.Closed)
	// Three good answers do not end the row of pauses.
	b.calls(10, 0, errDown)
	f(30*time.Second, 3, nil, 0, call.Closed)
	// A good window does.
	b.now = b.now.Add(10 * time.Second)
	b.calls(10, 0, errDown)
	f(5*time.Second, 3, nil, 0, call.Closed)
	want := []string{
		"open: too many calls failed", "half-open: time to try again", "open: a trial failed",
		"half-open: time to try again", "open: a trial failed", "half-open: time to try again", "open: a trial was slow",
		"half-open: time to try again", "open: a trial failed", "half-open: time to try again", "closed: all trials were answered",
	}
	if got := b.changes[:min(len(want), len(b.changes))]; !slices.Equal(got, want) {
		t.Errorf("changes were\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBreakerJitter(t *testing.T) {
	f := func(random float64, want time.Duration) {
		t.Helper()
		b := newBench(t, call.BreakerOptions{Random: func() float64 { return random }})
		b.calls(10, 0, errDown)
		if got := b.Status().Until.Sub(b.now); got != want {
			t.Errorf("random %v: open for %v, want %v", random, got, want)
		}
	}
	f(0, 5*time.Second)
	f(0.5, 7500*time.Millisecond)
	f(0.99, 9950*time.Millisecond)
}

// TestBreakerIgnoresWhoGivesUp has callers who cancel: it says nothing about
// the dependency, and takes no trial away.
func TestBreakerIgnoresWhoGivesUp(t *testing.T) {
	b := newBench(t, call.BreakerOptions{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	giveUp := func(n int) {
		t.Helper()
		for range n {
			if err := b.Do(gone, func(ctx context.Context) error { return fmt.Errorf("reading: %w", errDown) }); !errors.Is(err, errDown) {
				t.Fatal(err)
			}
		}
	}
	giveUp(100)
	b.wants(call.Closed)
	if n := b.Status().Calls; n != 0 {
		t.Errorf("%d calls were counted", n)
	}
	b.calls(10, 0, errDown)
	b.now = b.now.Add(time.Minute)
	giveUp(100)
	b.wants(call.HalfOpen)
	b.calls(3, 0, nil)
	b.wants(call.Closed)
	// A deadline is the dependency's failure: it had the time it was given.
	b.calls(10, 0, context.DeadlineExceeded)
	b.wants(call.Open)
}

func TestBreakerHeld(t *testing.T) {
	b := newBench(t, call.BreakerOptions{})
	b.Hold(call.Open)
	b.now = b.now.Add(time.Hour)
	if n := b.calls(10, 0, nil); n != 0 {
		t.Errorf("%d calls passed what an operator holds open", n)
	}
	b.Hold(call.Closed)
	if n := b.calls(100, 0, errDown); n != 100 {
		t.Errorf("%d of 100 calls passed what an operator holds closed", n)
	}
	if s := b.Status(); !s.Held || s.State != call.Closed || s.Failed != 100 {
		t.Errorf("%+v", s)
	}
	b.Auto()
	b.wants(call.Closed)
	b.calls(1, 0, errDown) // the window went on counting
	b.wants(call.Open)
	b.Auto() // nobody holds it: nothing changes
	b.wants(call.Open)
	b.Hold(call.Open)
	b.Auto()
	b.wants(call.HalfOpen)
	b.calls(3, 0, nil)
	b.wants(call.Closed)
	defer func() {
		if recover() == nil {
			t.Error("a breaker can be held half-open")
		}
	}()
	b.Hold(call.HalfOpen)
}

// TestBreakerLateResults lets calls from before an opening come back during the
// trials.
func TestBreakerLateResults(t *testing.T) {
	b := newBench(t, call.BreakerOptions{})
	var early []call.Pass
	for range 20 {
		p, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		early = append(early, p)
	}
	b.calls(10, 0, errDown)
	b.now = b.now.Add(time.Minute)
	trial, err := b.Enter()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range early {
		p.Done([]call.Verdict{call.Failed, call.Answered}[i%2])
	}
	b.wants(call.HalfOpen)
	trial.Done(call.Answered)
	b.calls(2, 0, nil)
	b.wants(call.Closed)
}

// TestBreakerLostTrials has trials that never come back.
func TestBreakerLostTrials(t *testing.T) {
	b := newBench(t, call.BreakerOptions{})
	b.calls(10, 0, errDown)
	b.now = b.now.Add(5 * time.Second)
	for range 3 {
		if _, err := b.Enter(); err != nil {
			t.Fatal(err)
		}
	}
	b.now = b.now.Add(time.Minute - 1)
	if n := b.calls(10, 0, nil); n != 0 {
		t.Errorf("%d calls passed beside the trials", n)
	}
	b.wants(call.HalfOpen)
	b.now = b.now.Add(1)
	b.calls(1, 0, nil)
	b.wants(call.Open)
	b.now = b.now.Add(time.Minute)
	b.calls(3, 0, nil)
	b.wants(call.Closed)
}

func TestBreakerPanic(t *testing.T) {
	b := newBench(t, call.BreakerOptions{})
	for range 10 {
		func() {
			defer func() { _ = recover() }()
			_ = b.Do(t.Context(), func(context.Context) error { panic("a bug") })
		}()
	}
	b.wants(call.Open)
}

// TestTrials lets a hundred callers race for three trials.
func TestTrials(t *testing.T) {
	for range 50 {
		b := newBench(t, call.BreakerOptions{})
		b.calls(10, 0, errDown)
		b.now = b.now.Add(time.Minute)
		var (
			start, done sync.WaitGroup
			mu          sync.Mutex
			passed      []call.Pass
		)
		start.Add(1)
		for range 100 {
			done.Go(func() {
				start.Wait()
				if p, err := b.Enter(); err == nil {
					mu.Lock()
					defer mu.Unlock()
					passed = append(passed, p)
				}
			})
		}
		start.Done()
		done.Wait()
		if len(passed) != 3 {
			t.Fatalf("%d of 100 were let through, want 3", len(passed))
		}
		for _, p := range passed {
			p.Done(call.Answered)
		}
		b.wants(call.Closed)
	}
}

func TestBreakerOptions(t *testing.T) {
	f := func(o call.BreakerOptions, want string) {
		t.Helper()
		_, err := call.NewBreaker(o)
		if want == "" && err == nil {
			return
		}
		if !errors.Is(err, call.ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	f(call.BreakerOptions{}, "")
	f(call.BreakerOptions{OpenFor: time.Hour}, "")
	f(call.BreakerOptions{FailedShare: 1.1}, "failed share 1.1")
	f(call.BreakerOptions{FailedShare: -1, Trials: -1}, "trials -1")
	f(call.BreakerOptions{OpenFor: time.Minute, OpenMax: time.Second}, "open for 1m0s")
	f(call.BreakerOptions{Window: 1}, "window")
}
