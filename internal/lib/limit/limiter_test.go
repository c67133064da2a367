package limit

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

func TestValidate(t *testing.T) {
	f := func(r Rate, want ...string) {
		t.Helper()
		err := r.Validate()
		if (err == nil) != (len(want) == 0) || err != nil && !errors.Is(err, ErrRate) {
			t.Fatalf("%+v: %v", r, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: %q does not speak of %q", r, err, w)
			}
		}
		if l, err := New(r, 1); (err == nil) != (len(want) == 0) || (l == nil) != (err != nil) {
			t.Errorf("New: %v", err)
		}
	}
	f(Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Second})
	f(Rate{Algorithm: SlidingWindow, Limit: MaxLimit, Per: MaxPer})
	f(Rate{Algorithm: TokenBucket, Limit: MaxLimit, Per: MinPer, Burst: MaxLimit})
	f(Rate{Algorithm: LeakyBucket, Limit: 1, Per: MaxPer, Burst: 10})
	f(Rate{}, "algorithm", "limit 0", "per 0s")
	f(Rate{Algorithm: 9, Limit: -1, Per: time.Hour, Burst: -1}, "algorithm", "limit -1", "burst -1")
	f(Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Second, Burst: 5}, "a window has none")
	f(Rate{Algorithm: SlidingWindow, Limit: MaxLimit + 1, Per: time.Microsecond}, "limit 1000000001", "per 1µs")
	f(Rate{Algorithm: TokenBucket, Limit: 1, Per: time.Hour, Burst: MaxLimit}, "refill")
	f(Rate{Algorithm: LeakyBucket, Limit: 1, Per: MaxPer, Burst: 12}, "refill")

	good := Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Second}
	for _, places := range []int{-1, 0, MaxPlaces + 1} {
		if _, err := New(good, places); !errors.Is(err, ErrPlaces) {
			t.Errorf("%d places: %v", places, err)
		}
	}
}

func TestAlgorithmNames(t *testing.T) {
	for _, a := range algorithms {
		text, err := a.MarshalText()
		var back Algorithm
		if err != nil || back.UnmarshalText(text) != nil || back != a {
			t.Errorf("%v: %q, %v, %v", a, text, err, back)
		}
	}
	var a Algorithm
	if _, err := a.MarshalText(); !errors.Is(err, ErrRate) {
		t.Errorf("the zero algorithm: %v", err)
	}
	if err := a.UnmarshalText(nil); !errors.Is(err, ErrRate) {
		t.Errorf("no name: %v", err)
	}
}

// TestExtremes is arithmetic at the bounds: nothing overflows.
func TestExtremes(t *testing.T) {
	const far = int64(1) << 61
	f := func(r Rate) {
		t.Helper()
		l := must(New(r, 1))
		for _, n := range []int64{1, r.capacity() - 2, 1} {
			if d := l.Take(Only, n, far); !d.Allowed {
				t.Fatalf("%s: %d: %+v", r, n, d)
			}
		}
		d := l.Take(Only, 1, far)
		if d.Allowed || d.Remaining != 0 || d.RetryAfter <= 0 || d.RetryAfter > 2*MaxFill {
			t.Fatalf("%s: %+v", r, d)
		}
		if again := far + int64(d.RetryAfter); l.Peek(Only, 1, again-1).Allowed || !l.Take(Only, 1, again).Allowed {
			t.Errorf("%s: not allowed exactly after %s", r, d.RetryAfter)
		}
		if err := l.Edit(Rate{Algorithm: TokenBucket, Limit: MaxLimit, Per: MaxPer}, far); err != nil {
			t.Error(err)
		}
		if d := l.Take(Only, MaxLimit+1, far); d.RetryAfter != Never {
			t.Errorf("%s: more than there ever is: %+v", r, d)
		}
	}
	g := func(r Rate) {
		t.Helper()
		l, small := must(New(r, 1)), Rate{Algorithm: TokenBucket, Limit: 1, Per: MaxPer, Burst: 2}
		l.Take(Only, r.capacity(), far)
		if err := l.Edit(small, far); err != nil || left(l, far) != 0 || left(l, far+int64(MaxPer)) != 1 {
			t.Errorf("%s: all used, then %s: %v, %d left", r, small, err, left(l, far))
		}
	}
	for _, per := range []time.Duration{MinPer, MaxPer} {
		g(Rate{Algorithm: SlidingWindow, Limit: MaxLimit, Per: per})
		g(Rate{Algorithm: LeakyBucket, Limit: MaxLimit, Per: per, Burst: MaxLimit})
		f(Rate{Algorithm: FixedWindow, Limit: MaxLimit, Per: per})
		f(Rate{Algorithm: SlidingWindow, Limit: MaxLimit, Per: per})
		f(Rate{Algorithm: TokenBucket, Limit: MaxLimit, Per: per})
		f(Rate{Algorithm: LeakyBucket, Limit: MaxLimit, Per: per, Burst: MaxLimit})
		f(Rate{Algorithm: TokenBucket, Limit: 7, Per: per, Burst: 80})
	}
}

// TestClockGoesBack: the step itself grants nothing, and nobody waits for the
// clock to catch up.
func TestClockGoesBack(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := rates(a).Draw(t, "rate")
				l, now := must(New(r, 1)), int64(time.Hour)
				for range rapid.IntRange(1, 50).Draw(t, "steps") {
					now += rapid.Int64Range(0, int64(r.Per)).Draw(t, "pass")
					for l.Take(Only, 1, now).Allowed && rapid.Bool().Draw(t, "more") {
					}
					before := l.Peek(Only, 1, now)
					step := rapid.SampledFrom([]int64{1, int64(r.Per), maxSkew, maxSkew + 1, 60 * second}).Draw(t, "back")
					now = max(now-step, 0)
					after := l.Peek(Only, 1, now)
					if after.Remaining > before.Remaining || after.Allowed && !before.Allowed {
						t.Fatalf("%s: back by %d: %+v became %+v", r, step, before, after)
					}
					longest := maxSkew + int64(r.Per)*max(2, (r.capacity()+r.Limit-1)/r.Limit)
					if int64(after.RetryAfter) > longest || int64(after.Delay) > longest {
						t.Fatalf("%s: back by %d: locked out: %+v", r, step, after)
					}
					if !after.Allowed && !l.Peek(Only, 1, now+int64(after.RetryAfter)).Allowed {
						t.Fatalf("%s: back by %d: %+v is wrong", r, step, after)
					}
				}
			})
		})
	}
}

// TestLateRequestsDoNotRefill: requests of one moment meet the lock in any
// order, also around the end of a window. Without the standing still of time,
// each straggler of the old window would begin the new one again.
func TestLateRequestsDoNotRefill(t *testing.T) {
	r := Rate{Algorithm: FixedWindow, Limit: 10, Per: time.Second}
	l, granted := must(New(r, 1)), 0
	plain, kept, withoutGuard := fixed{limit: 10, per: second}, cell{}, 0
	for i := range int64(1000) {
		now := second + i%2*-1 // the first nanosecond of a window, and the last of the one before
		if l.Take(Only, 1, now).Allowed {
			granted++
		}
		var d Decision
		if kept, d = plain.take(kept, 1, now); d.Allowed {
			withoutGuard++
		}
	}
	if granted != 10 {
		t.Errorf("granted %d of 10", granted)
	}
	if withoutGuard != 1000 {
		t.Errorf("without the guard %d were granted: the test shows nothing", withoutGuard)
	}
}

// TestEditKeepsWhatWasUsed: after an edit at any point, from any rate to any
// other, there is what the new capacity has beyond what was used.
func TestEditKeepsWhatWasUsed(t *testing.T) {
	any := rapid.Custom(func(t *rapid.T) Rate {
		return rates(rapid.SampledFrom(algorithms).Draw(t, "algorithm")).Draw(t, "rate")
	})
	rapid.Check(t, func(t *rapid.T) {
		r := any.Draw(t, "from")
		l, now := must(New(r, 1)), int64(time.Hour)
		for range rapid.IntRange(1, 20).Draw(t, "edits") {
			now += rapid.Int64Range(0, int64(r.Per)).Draw(t, "pass")
			for range rapid.IntRange(0, 9).Draw(t, "takes") {
				l.Take(Only, 1, now)
			}
			rest := left(l, now)
			to := any.Draw(t, "to")
			if err := l.Edit(to, now); err != nil {
				t.Fatal(err)
			}
			d := l.Peek(Only, 1, now)
			// A window keeps a count above its limit, of which rest says 0 only.
			want := max(to.capacity()-(r.capacity()-rest), 0)
			if got := left(l, now); got > want || got < want-1 && rest > 0 {
				t.Fatalf("%s, %d left, became %s with %d left, want %d", r, rest, to, got, want)
			}
			if longest := 2 * int64(to.Per) * max(1, (to.capacity()+to.Limit-1)/to.Limit); int64(d.RetryAfter) > longest {
				t.Fatalf("%s became %s: locked out for %s", r, to, d.RetryAfter)
			}
			r = to
		}
	})
}

// TestEditRoundsUp: what was used is never forgotten by a nanosecond.
func TestEditRoundsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rates(TokenBucket).Draw(t, "rate")
		r.Burst = 20
		l, now := must(New(r, 1)), int64(0)
		for range rapid.IntRange(1, 20).Draw(t, "takes") {
			now += rapid.Int64Range(0, int64(r.Per)/r.Limit).Draw(t, "pass")
			l.Take(Only, 1, now)
		}
		before := l.Peek(Only, 100, now).Reset
		r.Burst = 30
		if err := l.Edit(r, now); err != nil {
			t.Fatal(err)
		}
		if after := l.Peek(Only, 100, now).Reset; after < before || after > before+2 {
			t.Fatalf("%s: fresh after %d ns became %d", r, before, after)
		}
	})
}

// TestManyEditsDoNotStarve: what an edit rounds is far below a permit.
func TestManyEditsDoNotStarve(t *testing.T) {
	r := Rate{Algorithm: TokenBucket, Limit: 1, Per: time.Second, Burst: 1}
	l := must(New(r, 1))
	l.Take(Only, 1, 0)
	for now := int64(0); now < second; now += second / 1000 {
		r.Burst = 3 - r.Burst // 1, 2, 1, …
		if err := l.Edit(r, now); err != nil {
			t.Fatal(err)
		}
	}
	if d := l.Take(Only, 1, second+5_000); !d.Allowed {
		t.Errorf("after a thousand edits, a permit is late: %+v", d)
	}
}

// TestCutAndRevert is the stated exception: a cut that is taken back gives what
// it had cut off, and windows give nothing.
func TestCutAndRevert(t *testing.T) {
	f := func(r, cut Rate, want int64) {
		t.Helper()
		l, now := must(New(r, 1)), int64(time.Hour)
		for range 100 {
			l.Take(Only, 1, now)
		}
		for _, to := range []Rate{cut, r} {
			if err := l.Edit(to, now); err != nil {
				t.Fatal(err)
			}
		}
		if got := left(l, now); got != want {
			t.Errorf("%s cut to %s and back: %d left, want %d", r, cut, got, want)
		}
	}
	bucket := func(limit int64) Rate { return Rate{Algorithm: TokenBucket, Limit: limit, Per: time.Minute} }
	window := func(limit int64) Rate { return Rate{Algorithm: SlidingWindow, Limit: limit, Per: time.Minute} }
	f(bucket(100), bucket(10), 90)
	f(window(100), window(10), 0)
}

// TestMillionKeys: the table is what it was, the flood costs no allocation, and
// a key that ran into its limit is remembered through all of it.
func TestMillionKeys(t *testing.T) {
	f := func(r Rate, keys int) {
		t.Helper()
		const places = 8192
		l := must(New(r, places))
		hash, now := NewHash(), int64(time.Hour)
		var greedy [32]Key
		for i := range greedy {
			greedy[i] = hash.Bytes([]byte{byte(i)})
			l.Take(greedy[i], 5, now)
		}
		random := rand.New(rand.NewPCG(1, 2))
		allocs := testing.AllocsPerRun(1, func() { // runs it twice
			for range keys / 2 {
				now++
				l.Take(Key(random.Uint64()), 1, now)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", r, allocs)
		}
		held := 0
		for i := range l.sets {
			for _, k := range l.sets[i].keys {
				if k != 0 {
					held++
				}
			}
		}
		if held > places || len(l.sets)*ways != places {
			t.Errorf("%s: %d keys in %d sets", r, held, len(l.sets))
		}
		for i, k := range greedy {
			if d := l.Take(k, 1, now); d.Allowed {
				t.Errorf("%s: key %d was washed out by a flood of others: %+v", r, i, d)
			}
		}
		if n := int(l.Forgotten()); n < keys-places-100 || n > keys {
			t.Errorf("%s: forgotten %d of %d", r, n, keys)
		}
	}
	f(Rate{Algorithm: TokenBucket, Limit: 5, Per: time.Hour}, 1_000_000)
	f(Rate{Algorithm: LeakyBucket, Limit: 5, Per: time.Hour, Burst: 4}, 100_000)
	f(Rate{Algorithm: FixedWindow, Limit: 5, Per: time.Hour}, 100_000)
	f(Rate{Algorithm: SlidingWindow, Limit: 5, Per: time.Hour}, 100_000)
}

// TestPlacesNeeded measures what table.go says of the number of places.
func TestPlacesNeeded(t *testing.T) {
	f := func(load, low, high float64) {
		t.Helper()
		const places = 1 << 16
		l := must(New(Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Hour}, places))
		random, keys := rand.New(rand.NewPCG(3, 4)), int(load*places)
		for range keys {
			l.Take(Key(random.Uint64()), 1, 0)
		}
		share := float64(l.Forgotten()) / float64(keys)
		t.Logf("%d keys in %d places: one in %.0f forgotten", keys, places, 1/share)
		if share < low || share > high {
			t.Errorf("%v forgotten", share)
		}
	}
	f(1, 0.08, 0.12)
	f(0.5, 1./3000, 1./800)
}

// TestFreshKeysGiveTheirPlace: what owes nothing is no loss.
func TestFreshKeysGiveTheirPlace(t *testing.T) {
	l := must(New(Rate{Algorithm: SlidingWindow, Limit: 1, Per: time.Second}, 1))
	for k := range Key(100 * ways) {
		if d := l.Take(k+1, 1, int64(k)/ways*2*second); !d.Allowed {
			t.Fatalf("key %d: %+v", k, d)
		}
	}
	if n := l.Forgotten(); n != 0 {
		t.Errorf("forgotten %d that owed nothing", n)
	}
}

func TestKeys(t *testing.T) {
	h := NewHash()
	a, b, c := h.String("a"), h.String("b"), h.String("c")
	if h.Bytes([]byte("a")) != a || a == b {
		t.Error("bytes and strings differ, or a and b do not")
	}
	seen := map[Key]bool{}
	for _, k := range []Key{a, b, c, a.And(b), b.And(a), a.And(b).And(c), a.And(b.And(c)), h.String("ab").And(c), a.And(h.String("bc")), a.And(a)} {
		if seen[k] {
			t.Errorf("%x twice", uint64(k))
		}
		seen[k] = true
	}
	// Key 0 is a key like others, and not an empty place.
	l := must(New(Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Second}, 1))
	if !l.Take(0, 1, 0).Allowed || !l.Take(a, 1, 0).Allowed || l.Take(0, 1, 0).Allowed {
		t.Error("the zero key is not limited")
	}
}

// TestRacedKey: many goroutines, one key, one limit.
func TestRacedKey(t *testing.T) {
	const limit = 1000
	l := must(New(Rate{Algorithm: SlidingWindow, Limit: limit, Per: time.Hour}, 1))
	var granted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range limit / 4 {
				if l.Take(Only, 1, int64(time.Hour)).Allowed {
					granted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if granted.Load() != limit {
		t.Errorf("granted %d of %d", granted.Load(), limit)
	}
	// The guard off: two that decide on the same cell, as without the lock.
	one, c := fixed{limit: 1, per: second}, cell{}
	_, first := one.take(c, 1, 0)
	_, second := one.take(c, 1, 0)
	if !first.Allowed || !second.Allowed {
		t.Error("without the lock one was refused: the test shows nothing")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	h, name := NewHash(), []byte("198.51.100.7")
	l := must(New(Rate{Algorithm: TokenBucket, Limit: 1, Per: time.Second}, 1024))
	w := must(New(Rate{Algorithm: SlidingWindow, Limit: 1, Per: time.Second}, 1024))
	b := newTestBudget(t, 1)
	now := int64(0)
	f := func(what string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	f("allowed", func() { now += second; l.Take(h.Bytes(name), 1, now) })
	f("refused", func() { l.Take(h.Bytes(name), 1, now) })
	f("newcomer", func() { now++; l.Take(Key(now*0x9e3779b97f4a7c), 1, now) })
	f("peek", func() { w.Peek(h.String("a").And(Only), 1, now) })
	f("budget", func() { b.Take(1, now) })
	f("group", func() {
		now += second
		asks := [4]Ask{{Limiter: l, Key: 7, N: 1}, {Limiter: w, Key: 8, N: 1}, {Limiter: w, Key: 9, N: 1, Shadow: true}, {Budget: b, N: 1}}
		All(asks[:], now)
	})
}

func TestImpossibleRequestsPanic(t *testing.T) {
	l := must(New(Rate{Algorithm: FixedWindow, Limit: 1, Per: time.Second}, 1))
	f := func(do func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
			if !l.stripes[0].mu.TryLock() {
				t.Fatal("a lock is left behind")
			}
			l.stripes[0].mu.Unlock()
		}()
		do()
	}
	f(func() { l.Take(Only, 0, 0) })
	f(func() { l.Peek(Only, -1, 0) })
	f(func() { All([]Ask{{Limiter: l, N: 1}, {Limiter: l, N: 0}}, 0) })
	f(func() { All([]Ask{{Limiter: l, N: 1}, {N: 1}}, 0) })
	f(func() { All(make([]Ask, MaxGroup+1), 0) })
}
