package limit

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newFixed(limit int64, places int) *Limiter {
	return must(New(Rate{Algorithm: FixedWindow, Limit: limit, Per: time.Hour}, places))
}

// left is how much could be taken now.
func left(l *Limiter, now int64) int64 {
	d := l.Peek(Only, 1, now)
	if d.Allowed {
		return d.Remaining + 1
	}
	return d.Remaining
}

func TestAllOrNothing(t *testing.T) {
	a, b, c := newFixed(2, 1), newFixed(1, 1), newFixed(1, 1)
	ask := func() []Ask { return []Ask{{Limiter: a, N: 1}, {Limiter: b, N: 1}, {Limiter: c, N: 1}} }
	c.Take(Only, 1, 0)
	v := All(ask(), 0)
	if v.Allowed || v.Refused != 2 || v.RetryAfter != time.Hour {
		t.Fatalf("%+v", v)
	}
	for i, l := range []*Limiter{a, b} {
		if left(l, 0) != int64(2-i) {
			t.Errorf("limit %d was charged by a refused group", i)
		}
	}
	if v := PeekAll(ask(), int64(time.Hour)); !v.Allowed || v.Refused != -1 || left(a, int64(time.Hour)) != 2 {
		t.Errorf("peek: %+v", v)
	}
	if v := All(ask(), int64(time.Hour)); !v.Allowed {
		t.Errorf("in the next window: %+v", v)
	}
	if v := All(ask(), int64(time.Hour)); v.Allowed || v.Refused != 1 {
		t.Errorf("two refuse, and the lowest is named: %+v", v)
	}
	if v := All(nil, 0); !v.Allowed || v.Refused != -1 {
		t.Errorf("of nothing: %+v", v)
	}
}

// TestTakeOneByOneLeaks is the same without the guard: what looks, then takes,
// charges limits for a request that another one then refuses.
func TestTakeOneByOneLeaks(t *testing.T) {
	wide, narrow := newFixed(10, 1), newFixed(1, 1)
	look := func() bool { return wide.Peek(Only, 1, 0).Allowed && narrow.Peek(Only, 1, 0).Allowed }
	take := func() bool { return wide.Take(Only, 1, 0).Allowed && narrow.Take(Only, 1, 0).Allowed }
	alice, bob := look(), look() // both are told that there is room
	if !alice || !bob || !take() || take() {
		t.Fatal("the race did not happen")
	}
	if n := left(wide, 0); n != 8 {
		t.Errorf("%d left: the test shows nothing", n)
	}
}

func TestLongestRetry(t *testing.T) {
	short := must(New(Rate{Algorithm: TokenBucket, Limit: 1, Per: time.Second}, 1))
	long := must(New(Rate{Algorithm: TokenBucket, Limit: 1, Per: time.Minute}, 1))
	asks := []Ask{{Limiter: short, N: 1}, {Limiter: long, N: 1}}
	All(asks, 0)
	v := All(asks, 0)
	if v.Refused != 0 || v.RetryAfter != time.Minute || asks[0].Decision.RetryAfter != time.Second {
		t.Fatalf("%+v", v)
	}
	asks[0], asks[1] = asks[1], asks[0]
	if v := All(asks, 0); v.RetryAfter != time.Minute {
		t.Errorf("the other way round: %+v", v)
	}
	asks[0].N = 2
	if v := All(asks, 0); v.RetryAfter != Never {
		t.Errorf("one of them never allows: %+v", v)
	}
	asks[0].N = 1
	if PeekAll(asks, int64(v.RetryAfter)-1).Allowed || !PeekAll(asks, int64(v.RetryAfter)).Allowed {
		t.Error("not exact")
	}
}

func TestShadow(t *testing.T) {
	real, trial := newFixed(3, 1), newFixed(1, 1)
	asks := []Ask{{Limiter: trial, N: 1, Shadow: true}, {Limiter: real, N: 1}}
	for i, want := range []bool{true, false, false} {
		if v := All(asks, 0); !v.Allowed || asks[0].Decision.Allowed != want {
			t.Errorf("request %d: %+v, the shadow says %+v", i, v, asks[0].Decision)
		}
	}
	if v := All(asks, 0); v.Allowed || v.Refused != 1 {
		t.Errorf("%+v", v)
	}
	// What the enforced limit refused is not charged to the shadow either.
	other := newFixed(1, 1)
	asks[0].Limiter = other
	if All(asks, 0); left(other, 0) != 1 {
		t.Error("the shadow was charged for a refused request")
	}
}

func TestSameKeyTwice(t *testing.T) {
	l := newFixed(3, 64)
	twice := []Ask{{Limiter: l, Key: 5, N: 2}, {Limiter: l, Key: 5, N: 2}}
	if v := All(twice, 0); v.Allowed || v.Refused != 1 {
		t.Errorf("4 of 3: %+v", v)
	}
	if d := l.Peek(5, 3, 0); !d.Allowed {
		t.Errorf("not taken back: %+v", d)
	}
	twice[1].N = 1
	if v := All(twice, 0); !v.Allowed || l.Peek(5, 1, 0).Allowed {
		t.Errorf("3 of 3: %+v", v)
	}
}

func TestDelayOfAGroup(t *testing.T) {
	slow := must(New(Rate{Algorithm: LeakyBucket, Limit: 1, Per: time.Second, Burst: 5}, 1))
	wide := newFixed(3, 1)
	asks := []Ask{{Limiter: slow, N: 1}, {Limiter: wide, N: 1}}
	for i := range 3 {
		if v := All(asks, 0); !v.Allowed || v.Delay != time.Duration(i)*time.Second {
			t.Errorf("%d: %+v", i, v)
		}
	}
	if v := All(asks, 0); v.Allowed || v.Delay != 0 || slow.Peek(Only, 1, 0).Delay != 3*time.Second {
		t.Errorf("a refused group keeps its place in the queue: %+v", v)
	}
}

// TestUndoIsExact: a refused group leaves tables bit for bit as they were, also
// where its newcomers displaced others.
func TestUndoIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := must(New(rates(rapid.SampledFrom(algorithms).Draw(t, "algorithm")).Draw(t, "rate"), ways)) // one full set
		no := newFixed(1, 1)
		no.Take(Only, 1, 0)
		keys := rapid.Uint64Range(1, 3*ways)
		for range rapid.IntRange(0, 60).Draw(t, "fill") {
			l.Take(Key(keys.Draw(t, "key")), 1, 0)
		}
		before, forgotten := slices.Clone(l.sets), l.Forgotten()
		var asks []Ask
		for range rapid.IntRange(1, MaxGroup-1).Draw(t, "asks") {
			asks = append(asks, Ask{Limiter: l, Key: Key(keys.Draw(t, "key")), N: 1, Shadow: rapid.Bool().Draw(t, "shadow")})
		}
		if v := All(append(asks, Ask{Limiter: no, N: 1}), 0); v.Allowed {
			t.Fatalf("%+v", v)
		}
		PeekAll(asks, 0)
		if !slices.Equal(before, l.sets) || forgotten != l.Forgotten() {
			t.Fatal("a refused group left a trace")
		}
	})
}

// TestRacedGroups: groups over the same limits in all orders, with edits
// between. They end, no limit grants too much, and each limit's count is that
// of the groups that were granted, neither more nor less.
func TestRacedGroups(t *testing.T) {
	const limits, each = 4, 3000
	var all [limits]*Limiter
	var granted [limits]atomic.Int64
	for i := range all {
		all[i] = newFixed(2000+int64(i)*500, 64)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for range each {
				var asks []Ask
				order := random.Perm(limits)[:1+random.IntN(limits)]
				for _, i := range order {
					asks = append(asks, Ask{Limiter: all[i], Key: Only, N: 1})
				}
				if All(asks, 0).Allowed {
					for _, i := range order {
						granted[i].Add(1)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for n := range int64(100) { // the same limit in the end, another one on the way
			for i, l := range all {
				r := Rate{Algorithm: FixedWindow, Limit: 2000 + int64(i)*500 - (99-n)%2*100, Per: time.Hour}
				if err := l.Edit(r, 0); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	for i, l := range all {
		limit := 2000 + int64(i)*500
		if got, rest := granted[i].Load(), left(l, 0); got > limit || rest != limit-got {
			t.Errorf("limit %d: granted %d of %d, and %d are left", i, got, limit, rest)
		}
	}
	if granted[0].Load() < 1900 {
		t.Errorf("only %d granted: the limits were not met", granted[0].Load())
	}
}
