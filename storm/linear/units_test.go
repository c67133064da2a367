package linear

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// plainly searches a shelf without any of the reductions: each movement and
// each look is one operation with its own interval, and the state is three counts.
func plainly(s *shelf) Verdict {
	type counts struct{ free, held, sold int }
	var ops []porcupine.Operation
	last := int64(1000)
	for _, m := range newSearch(s, segmentSize).movements {
		by := m.by
		if by == Forever {
			by = last
		}
		ops = append(ops, porcupine.Operation{Input: m, Call: m.from, Return: by})
	}
	for _, l := range s.looks {
		ops = append(ops, porcupine.Operation{Input: l, Call: l.call, Return: l.back})
	}
	m := porcupine.Model{
		Init: func() any { return counts{free: s.units} },
		Step: func(state, input, _ any) (bool, any) {
			c := state.(counts)
			switch in := input.(type) {
			case movement:
				is := c
				switch in.class {
				case take:
					c.free, c.held = c.free-1, c.held+1
				case give:
					c.free, c.held = c.free+1, c.held-1
				case confirm:
					c.held, c.sold = c.held-1, c.sold+1
				}
				if c.free < 0 || c.held < 0 {
					return in.by == Forever, is
				}
			case look:
				switch in.kind {
				case sawSoldOut:
					return c.free == 0 && c.held == 0, c
				case sawAllHeld:
					return c.free == 0 && c.held > 0, c
				case sawFewer:
					return c.free > 0 && c.free < in.quantity, c
				case sawSold:
					return c.sold == in.sold, c
				}
				return c == counts{in.free, in.held, in.sold}, c
			}
			return true, c
		},
	}
	return map[bool]Verdict{true: Legal, false: Illegal}[porcupine.CheckOperations(m, ops)]
}

// someShelf makes up a short history: one that a shop could have, with most
// answers right, so that both verdicts are common.
//
// sure: every purchase was acknowledged before anything else became of it.
// Otherwise some have an outcome that nobody was told. atRest: some are known
// from the orders at rest only, so that all that became of them has one bound.
func someShelf(dice *rand.Rand, sure, atRest bool) *shelf {
	s := &shelf{sku: "s", units: 1 + dice.IntN(3), history: History{Ops: func(func(Op) bool) {}}}
	const span = 24 // ends of intervals are close, and often at the same time
	const rest = 2 * span
	between := func(low int64) (int64, int64) {
		from := low + int64(dice.IntN(span/2))
		return from, from + int64(dice.IntN(span/3))
	}
	for n := range 1 + dice.IntN(5) {
		p := &purchase{user: fmt.Sprint(n), id: fmt.Sprint(n), quantity: 1, notBefore: Forever, cancelled: Forever, paid: Forever, confirmed: Forever, released: Forever, finalBy: Forever}
		p.from, p.by = between(0)
		switch begin := p.by; dice.IntN(4) {
		case 0:
			p.cancelled, p.released = between(begin)
		case 1:
			p.paid, p.confirmed = between(begin)
		case 2:
			p.cancelled, _ = between(begin)
		}
		switch {
		case !sure && dice.IntN(3) == 0:
			p.by = Forever
		case atRest && dice.IntN(2) == 0:
			p.by, p.finalBy, p.confirmed, p.released = rest, rest, Forever, Forever
			p.final = []string{Held, Confirmed, Released}[dice.IntN(3)]
		}
		s.purchases = append(s.purchases, p)
	}
	for n := range 1 + dice.IntN(7) {
		l := look{op: n, kind: kind(dice.IntN(int(kinds))), quantity: 2}
		if dice.IntN(2) == 0 {
			l.kind = sawAllHeld
		}
		l.call, l.back = between(int64(dice.IntN(span)))
		if l.kind == sawCounts {
			l.held = dice.IntN(s.units + 1)
			l.sold = dice.IntN(s.units - l.held + 1)
			l.free = s.units - l.held - l.sold
		}
		if l.kind == sawSold {
			l.sold = dice.IntN(s.units + 1)
		}
		s.looks = append(s.looks, l)
	}
	return s
}

// The reductions lose nothing and add nothing: a search without them agrees,
// however finely the history is cut.
func TestReductionIsExact(t *testing.T) {
	t.Parallel()
	f := func(sure, atRest bool) {
		t.Helper()
		tally := map[Verdict]int{}
		reduced := 0
		for seed := range uint64(5_000) {
			s := someShelf(rand.New(rand.NewPCG(seed, 1)), sure, atRest)
			want := plainly(s)
			tally[want]++
			for _, segment := range []int{1, 3, segmentSize} {
				x := newSearch(s, segment)
				reduced += len(s.looks) - len(x.looks)
				if got := x.find(Options{Timeout: time.Minute, terse: true}).verdict; got != want {
					t.Fatalf("seed %d, segments of %d: %s, and a plain search says %s: %d units, looks %+v, movements %+v", seed, segment, got, want, s.units, s.looks, x.movements)
				}
			}
		}
		t.Logf("%v; %d looks left out", tally, reduced)
		if tally[Legal] < 300 || tally[Illegal] < 300 || reduced < 2000 {
			t.Errorf("%v, %d looks left out: this shows too little", tally, reduced)
		}
	}
	f(true, false)
	f(false, false)
	f(true, true)
	f(false, true)
}
