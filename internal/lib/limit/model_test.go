package limit

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what a limit means, as plainly as it can be said: a list of what was
// granted and when, gone through from its beginning for each question, in exact
// fractions.
type model struct {
	rate    Rate
	granted []event
}

type event struct{ at, n int64 }

// allows answers a request, and how long an allowed one waits, in ns.
func (m *model) allows(n, now int64) (ok bool, delay int64) {
	switch m.rate.Algorithm {
	case FixedWindow:
		return m.within(now/m.per(), now)+n <= m.rate.Limit, 0
	case SlidingWindow:
		window := now / m.per()
		view := big.NewRat((window+1)*m.per()-now, m.per())
		estimate := view.Mul(view, big.NewRat(m.within(window-1, now), 1))
		estimate.Add(estimate, big.NewRat(m.within(window, now)+n, 1))
		return estimate.Cmp(big.NewRat(m.rate.Limit, 1)) <= 0, 0
	case TokenBucket:
		return m.tokens(now).Cmp(big.NewRat(n, 1)) >= 0, 0
	}
	first := m.nextSlot(now)
	last := new(big.Rat).Add(first, m.cost(n-1))
	longest := new(big.Rat).Add(big.NewRat(now, 1), m.cost(m.rate.Burst))
	if last.Cmp(longest) > 0 {
		return false, 0
	}
	return true, ceil(first) - now
}

func (m *model) per() int64 { return int64(m.rate.Per) }

// within counts a window's permits.
func (m *model) within(window, until int64) (n int64) {
	for _, e := range m.granted {
		if e.at/m.per() == window && e.at <= until {
			n += e.n
		}
	}
	return n
}

// tokens fills a bucket from the start and takes out what was granted.
func (m *model) tokens(now int64) *big.Rat {
	full := big.NewRat(m.rate.capacity(), 1)
	level, at := new(big.Rat).Set(full), int64(0)
	fill := func(until int64) {
		level.Add(level, big.NewRat((until-at)*m.rate.Limit, m.per()))
		if level.Cmp(full) > 0 {
			level.Set(full)
		}
		at = until
	}
	for _, e := range m.granted {
		fill(e.at)
		level.Sub(level, big.NewRat(e.n, 1))
	}
	fill(now)
	return level
}

// nextSlot is when the next one may go: an interval after the last, not before now.
func (m *model) nextSlot(now int64) *big.Rat {
	next := new(big.Rat)
	for _, e := range append(m.granted, event{at: now}) {
		if arrived := big.NewRat(e.at, 1); next.Cmp(arrived) < 0 {
			next.Set(arrived)
		}
		next.Add(next, m.cost(e.n))
	}
	return next
}

func (m *model) cost(n int64) *big.Rat { return big.NewRat(n*m.per(), m.rate.Limit) }

func ceil(r *big.Rat) int64 {
	q, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		return q.Int64() + 1
	}
	return q.Int64()
}

func rates(algorithm Algorithm) *rapid.Generator[Rate] {
	return rapid.Custom(func(t *rapid.T) Rate {
		r := Rate{Algorithm: algorithm, Limit: rapid.Int64Range(1, 9).Draw(t, "limit")}
		r.Per = rapid.SampledFrom([]time.Duration{time.Millisecond, 1_000_003, time.Second}).Draw(t, "per")
		if algorithm == TokenBucket || algorithm == LeakyBucket {
			r.Burst = rapid.Int64Range(0, 9).Draw(t, "burst")
		}
		return r
	})
}

var algorithms = []Algorithm{FixedWindow, SlidingWindow, TokenBucket, LeakyBucket}

// TestAgainstTheModel lets time pass in steps that meet the edges, and compares
// every part of every answer.
func TestAgainstTheModel(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := rates(a).Draw(t, "rate")
				l, m := must(New(r, 1)), &model{rate: r}
				now, retry := rapid.Int64Range(0, int64(3*r.Per)).Draw(t, "start"), int64(0)
				for range rapid.IntRange(1, 40).Draw(t, "requests") {
					now += rapid.SampledFrom([]int64{0, 0, 1, retry, max(retry-1, 0), int64(r.Per) / r.Limit,
						int64(r.Per) / 3, int64(r.Per), 2*int64(r.Per) - 1}).Draw(t, "step")
					n := rapid.SampledFrom([]int64{1, 1, 1, 2, 3, 10}).Draw(t, "n")
					if d := compare(t, l, m, n, now); d.Allowed {
						m.granted = append(m.granted, event{now, n})
					} else if d.RetryAfter != Never {
						retry = int64(d.RetryAfter)
					}
				}
				bound(t, m)
			})
		})
	}
}

// compare takes, and asks the model about each field of the answer.
func compare(t *rapid.T, l *Limiter, m *model, n, now int64) Decision {
	t.Helper()
	peeked := l.Peek(Only, n, now)
	d := l.Take(Only, n, now)
	if peeked != d {
		t.Fatalf("%s at %d: peek %+v, take %+v", m.rate, now, peeked, d)
	}
	ok, delay := m.allows(n, now)
	if d.Allowed != ok || int64(d.Delay) != delay {
		t.Fatalf("%s: %d at %d: %+v, the model says %v, %d ns", m.rate, n, now, d, ok, delay)
	}
	after := &model{rate: m.rate, granted: m.granted}
	if ok {
		after.granted = append(m.granted[:len(m.granted):len(m.granted)], event{now, n})
	}
	check := func(what string, n, at int64, want bool) {
		t.Helper()
		if n < 1 {
			return
		}
		if got, _ := after.allows(n, at); got != want {
			t.Fatalf("%s: %d at %d: %+v: %s: the model allows %d at +%d: %v", m.rate, n, now, d, what, n, at-now, got)
		}
	}
	check("remaining", d.Remaining, now, true)
	check("no more than remaining", d.Remaining+1, now, false)
	check("reset", m.rate.capacity(), now+int64(d.Reset), true)
	if d.Reset > 0 {
		check("before reset", m.rate.capacity(), now+int64(d.Reset)-1, false)
	}
	switch {
	case d.Reset < 0, ok && d.RetryAfter != 0, !ok && d.RetryAfter <= 0, (d.RetryAfter == Never) != (n > m.rate.capacity()):
		t.Fatalf("%s: %d at %d: %+v", m.rate, n, now, d)
	case !ok && d.RetryAfter != Never:
		check("retry after", n, now+int64(d.RetryAfter), true)
		check("before retry after", n, now+int64(d.RetryAfter)-1, false)
	}
	return d
}

// bound checks the promise of the package comment over every interval.
func bound(t *rapid.T, m *model) {
	t.Helper()
	for i := range m.granted {
		sum := int64(0)
		for _, e := range m.granted[i:] {
			sum += e.n
			x := e.at - m.granted[i].at
			saved := m.rate.capacity()
			switch {
			case m.rate.Algorithm == FixedWindow && x < m.per():
				if sum > 2*m.rate.Limit {
					t.Fatalf("%s: %d within %d ns", m.rate, sum, x)
				}
				continue
			case m.rate.Algorithm == FixedWindow, m.rate.Algorithm == SlidingWindow && x > m.per():
				continue
			}
			if most := saved + x*m.rate.Limit/m.per(); sum > most {
				t.Fatalf("%s: %d within %d ns, at most %d", m.rate, sum, x, most)
			}
		}
	}
}

// TestLeakyBucketPaces looks at the times at which requests go on rather than
// at those at which they came.
func TestLeakyBucketPaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rates(LeakyBucket).Draw(t, "rate")
		l, now, last, waiting := must(New(r, 1)), int64(0), int64(-1<<62), 0
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			now += rapid.Int64Range(0, int64(r.Per)).Draw(t, "step")
			d := l.Take(Only, 1, now)
			if !d.Allowed {
				continue
			}
			goes := now + int64(d.Delay)
			if goes-last < int64(r.Per)/r.Limit-1 { // each is rounded up to a nanosecond
				t.Fatalf("%s: two within %d ns", r, goes-last)
			}
			if most := (r.Burst*int64(r.Per) + r.Limit - 1) / r.Limit; int64(d.Delay) > most {
				t.Fatalf("%s: waits %s", r, d.Delay)
			}
			last, waiting = goes, waiting+1
		}
		if waiting == 0 {
			t.Fatal("nobody was let through")
		}
	})
}

// TestSlidingWindowAtItsWorst reaches the stated error bound: nearly twice the
// limit over a whole period, and never more than the limit at an instant.
func TestSlidingWindowAtItsWorst(t *testing.T) {
	const limit, per = 1000, int64(time.Second)
	l := must(New(Rate{Algorithm: SlidingWindow, Limit: limit, Per: time.Second}, 1))
	granted := int64(0)
	for range limit { // all at the end of the first window
		if l.Take(Only, 1, per-1).Allowed {
			granted++
		}
	}
	for now := per; now < 2*per-1; now += per / 5000 { // and then as soon as there is room
		if l.Take(Only, 1, now).Allowed {
			granted++
		}
	}
	if granted < 1990 || granted >= 2*limit {
		t.Errorf("%d in one period; the bound is just below %d", granted, 2*limit)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
