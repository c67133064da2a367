// Package pooltest is the conformance suite of limit.Pool: every body passes
// it unchanged.
package pooltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/lib/limit"
)

// Body is a pool with a full bucket, and the way its clock advances: Pass
// returns once at least d has passed on it.
type Body struct {
	limit.Pool
	Pass func(t *testing.T, d time.Duration)
}

const (
	slow     = time.Hour // of a bucket that does not refill within a test
	validity = 200 * time.Millisecond
	capacity = 100
)

// Run checks a body. open is called once a test, with the rate of the pool and
// the validity of its leases.
func Run(t *testing.T, open func(t *testing.T, r limit.Rate, validity time.Duration) Body) {
	still := limit.Rate{Algorithm: limit.TokenBucket, Limit: 1, Per: slow, Burst: capacity}
	quick := limit.Rate{Algorithm: limit.TokenBucket, Limit: capacity, Per: time.Second}
	for name, c := range map[string]struct {
		rate limit.Rate
		test func(*testing.T, Body)
	}{
		"grants what there is":    {still, grantsWhatThereIs},
		"repeated":                {still, repeated},
		"ids apart":               {still, idsApart},
		"returned":                {still, returned},
		"returned once":           {still, returnedOnce},
		"no more than it had":     {still, noMoreThanItHad},
		"returned is over":        {still, returnedIsOver},
		"foreign and late return": {still, foreignAndLate},
		"run out is spent":        {still, runOutIsSpent},
		"refills":                 {quick, refills},
		"never above the burst":   {quick, neverAbove},
		"bounds":                  {still, bounds},
		"raced":                   {still, raced},
		"cancelled, nothing":      {still, cancelled},
	} {
		t.Run(name, func(t *testing.T) { c.test(t, open(t, c.rate, validity)) })
	}
}

func grant(t *testing.T, b Body, id string, want, permits int64) limit.Lease {
	t.Helper()
	l, err := b.Grant(t.Context(), id, want)
	switch {
	case err != nil || l.Permits != permits:
		t.Fatalf("%d for %s: %+v, %v; want %d", want, id, l, err, permits)
	case permits > 0 && (l.ValidFor <= 0 || l.ValidFor > validity):
		t.Fatalf("%s is valid for %s", id, l.ValidFor)
	case permits == want && l.Again != 0, permits < want && l.Again <= 0:
		t.Fatalf("%s: %d of %d, and ask again after %s", id, permits, want, l.Again)
	}
	return l
}

func giveBack(t *testing.T, b Body, id string, unspent int64) {
	t.Helper()
	if err := b.Return(t.Context(), id, unspent); err != nil {
		t.Fatalf("return %d of %s: %v", unspent, id, err)
	}
}

func grantsWhatThereIs(t *testing.T, b Body) {
	grant(t, b, "a", 60, 60)
	grant(t, b, "b", 60, 40)
	grant(t, b, "c", 60, 0)
	grant(t, b, "c", 1, 0) // what took nothing may be asked again
}

func repeated(t *testing.T, b Body) {
	first := grant(t, b, "a", 60, 60)
	grant(t, b, "b", 60, 40)
	for range 3 {
		again, err := b.Grant(t.Context(), "a", 60)
		if err != nil || again.Permits != 60 || again.ValidFor > first.ValidFor {
			t.Fatalf("again: %+v, %v; first %+v", again, err, first)
		}
	}
	grant(t, b, "c", 1, 0)
}

func idsApart(t *testing.T, b Body) {
	for _, id := range []string{"a", "A", "a ", "a/1", "a\x00", "ä", "*"} {
		grant(t, b, id, 10, 10)
	}
	grant(t, b, "rest", 100, 30)
}

func returned(t *testing.T, b Body) {
	grant(t, b, "a", 100, 100)
	giveBack(t, b, "a", 30)
	grant(t, b, "b", 100, 30)
}

func returnedOnce(t *testing.T, b Body) {
	grant(t, b, "a", 100, 100)
	for range 3 {
		giveBack(t, b, "a", 30)
	}
	grant(t, b, "b", 100, 30)
}

func noMoreThanItHad(t *testing.T, b Body) {
	grant(t, b, "a", 20, 20)
	grant(t, b, "b", 80, 80)
	giveBack(t, b, "a", 1000)
	grant(t, b, "c", 100, 20)
}

func returnedIsOver(t *testing.T, b Body) {
	grant(t, b, "a", 50, 50)
	giveBack(t, b, "a", 50)
	// An answer that was lost, or a late copy of the question: the lease is over.
	if l, err := b.Grant(t.Context(), "a", 50); err != nil || l.Permits != 0 {
		t.Fatalf("of a returned lease: %+v, %v", l, err)
	}
	grant(t, b, "b", 100, 100)
}

func foreignAndLate(t *testing.T, b Body) {
	grant(t, b, "a", 100, 100)
	giveBack(t, b, "never granted", 50)
	b.Pass(t, validity)
	giveBack(t, b, "a", 50)
	grant(t, b, "b", 1, 0)
}

func runOutIsSpent(t *testing.T, b Body) {
	grant(t, b, "a", 70, 70)
	b.Pass(t, validity)
	grant(t, b, "b", 100, 30)
}

func refills(t *testing.T, b Body) {
	grant(t, b, "a", 100, 100)
	l, err := b.Grant(t.Context(), "b", 4)
	if err != nil || l.Permits < 4 && l.Again <= 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	b.Pass(t, l.Again)
	if l, err := b.Grant(t.Context(), "c", 4); err != nil || l.Permits < 1 {
		t.Fatalf("when told to ask again: %+v, %v", l, err)
	}
	b.Pass(t, 50*time.Millisecond)
	grant(t, b, "d", 4, 4)
}

func neverAbove(t *testing.T, b Body) {
	grant(t, b, "a", 10, 10)
	b.Pass(t, 150*time.Millisecond) // full again
	giveBack(t, b, "a", 10)
	l, err := b.Grant(t.Context(), "b", 1000)
	if err != nil || l.Permits != capacity {
		t.Fatalf("%+v, %v; want %d", l, err, capacity)
	}
}

func bounds(t *testing.T, b Body) {
	long := make([]byte, limit.MaxLeaseID+1)
	for i := range long {
		long[i] = 'x'
	}
	f := func(id string, want int64) {
		t.Helper()
		if _, err := b.Grant(t.Context(), id, want); !errors.Is(err, limit.ErrPool) {
			t.Errorf("%d for an id of %d bytes: %v", want, len(id), err)
		}
	}
	f("", 1)
	f(string(long), 1)
	f("a", 0)
	f("a", -1)
	f("a", limit.MaxLimit+1)
	if err := b.Return(t.Context(), "a", -1); !errors.Is(err, limit.ErrPool) {
		t.Errorf("return of -1: %v", err)
	}
	grant(t, b, string(long[1:]), 100, 100) // nothing of the above took any
}

func raced(t *testing.T, b Body) {
	var got atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				l, err := b.Grant(t.Context(), fmt.Sprint(i%4, "/", j), 3) // each id from two sides
				if err != nil {
					t.Error(err)
				}
				if i < 4 {
					got.Add(l.Permits)
				}
			}
		})
	}
	wg.Wait()
	// 40 ids of 3 want more than there is. Both sides of an id hear the same.
	if n := got.Load(); n != capacity {
		t.Errorf("granted %d of %d", n, capacity)
	}
	grant(t, b, "rest", 3, 0)
}

func cancelled(t *testing.T, b Body) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := b.Grant(ctx, "a", 10); err == nil || l.Permits != 0 {
		t.Errorf("granted %+v", l)
	}
	if err := b.Return(ctx, "a", 10); err == nil {
		t.Error("returned")
	}
}
