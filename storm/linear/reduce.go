package linear

import (
	"cmp"
	"slices"

	"github.com/anishathalye/porcupine"
)

// search is one SKU ready to be searched.
type search struct {
	*shelf
	movements []movement                   // soonest bound first
	looks     []look                       // those that are left
	ops       []porcupine.Operation        // by their calls, which are places on the line of time
	byTurn    [kinds][]porcupine.Operation // the looks again
	cuts      []int                        // numbers of operations that begin a segment, and the number of all
	loose     []*pile                      // at the beginning of each segment, without any look
	words     map[int]string               // what a look was, by its number in the history
}

// newSearch lays a SKU's history out: points and looks, in an order of time in
// which no two share a place.
func newSearch(s *shelf, segment int) *search {
	x := &search{shelf: s}
	for _, p := range s.purchases {
		by := p.by
		if p.lossy { // what was lost may have held nothing
			by = Forever
		}
		for range p.quantity {
			x.movements = append(x.movements, movement{take, p.from, by, p})
			for _, e := range p.ends() {
				if e.class == give && e.by != Forever {
					e.by += s.slack
				}
				x.movements = append(x.movements, movement{e.class, e.from, e.by, p})
			}
		}
	}
	slices.SortStableFunc(x.movements, func(a, b movement) int { return cmp.Or(cmp.Compare(a.by, b.by), cmp.Compare(a.from, b.from)) })
	places := x.timeline(s.looks)
	x.reduce(s.looks, places)
	x.cut(segment)
	return x
}

// place is one end of something on the line of time.
type place struct {
	at   int64
	what placeKind
	n    int
}

// placeKind in the order in which what happens at one instant is laid out: all
// that begins before all that ends, since nobody knows better.
type placeKind uint8

const (
	lookCalled placeKind = iota
	mayMove
	hasMoved
	lookBack
)

func (x *search) timeline(looks []look) []place {
	places := make([]place, 0, 2*(len(looks)+len(x.movements)))
	for n, l := range looks {
		places = append(places, place{l.call, lookCalled, n}, place{l.back, lookBack, n})
	}
	for n, m := range x.movements {
		places = append(places, place{m.from, mayMove, n})
		if m.by != Forever {
			places = append(places, place{m.by, hasMoved, n})
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what, b.what), cmp.Compare(a.n, b.n))
	})
	return places
}

// reduce leaves looks out that say nothing more, and makes operations of the rest.
func (x *search) reduce(looks []look, places []place) {
	type span struct{ n, call, back, callPlace, backPlace int } // in runs, and in places
	spans := make([]span, len(looks))
	run, last := 0, kinds // a run: only looks of one kind begin and end in it
	for i, p := range places {
		is := kinds
		if p.what == lookCalled || p.what == lookBack {
			is = looks[p.n].kind
		}
		if is != last || is == kinds || !is.plain() {
			run, last = run+1, is
		}
		switch p.what {
		case lookCalled:
			spans[p.n] = span{n: p.n, call: run, callPlace: i}
		case lookBack:
			spans[p.n].back, spans[p.n].backPlace = run, i
		case mayMove:
			x.add(step{stage: begins, n: p.n}, i, i)
		case hasMoved:
			x.add(step{stage: ends, n: p.n}, i, i)
		}
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.back, b.back), cmp.Compare(b.call, a.call), cmp.Compare(a.n, b.n))
	})
	var latest, turn [kinds]int // of the looks kept: when the last of a kind was called
	for _, s := range spans {
		l := looks[s.n]
		if l.kind.plain() && s.call <= latest[l.kind] {
			continue // another look of the kind lies within this one
		}
		latest[l.kind] = s.call
		l.turn = turn[l.kind]
		turn[l.kind]++
		x.looks = append(x.looks, l)
		x.add(step{stage: looked, n: len(x.looks) - 1}, s.callPlace, s.backPlace)
	}
	slices.SortFunc(x.ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range x.ops {
		if in := op.Input.(step); in.stage == looked {
			k := x.looks[in.n].kind
			x.byTurn[k] = append(x.byTurn[k], op)
		}
	}
}

func (x *search) add(s step, call, back int) {
	x.ops = append(x.ops, porcupine.Operation{ClientId: x.row(s), Input: s, Call: int64(call), Return: int64(back)})
}

// cut makes segments of so many operations, or more where a look that is not
// plain is under way, and walks the points for the loose states.
func (x *search) cut(segment int) {
	state := &pile{free: x.units}
	x.cuts, x.loose = []int{0}, []*pile{state}
	busy := int64(-1) // a look that is not plain goes on until then
	var called [kinds]int
	for i, op := range x.ops {
		if state != nil && i-x.cuts[len(x.cuts)-1] >= segment && op.Call > busy {
			at := *state
			at.turn = called
			x.cuts, x.loose = append(x.cuts, i), append(x.loose, &at)
		}
		in := op.Input.(step)
		if in.stage != looked {
			if state != nil {
				state, _ = x.apply(state, in) // nil: what is illegal here is found by the search
			}
			continue
		}
		k := x.looks[in.n].kind
		called[k]++
		if !k.plain() {
			busy = max(busy, op.Return)
		}
	}
	x.cuts = append(x.cuts, len(x.ops))
}

// slice is the operations of segments from..to-1, with the looks from before
// that start has not placed. Those that go on behind them may be put off.
func (x *search) slice(from, to int, start *pile) (ops []porcupine.Operation) {
	begin, end := x.cuts[from], x.cuts[to]
	if begin == end {
		return nil
	}
	for k := range kinds {
		for _, op := range x.byTurn[k][min(start.turn[k], len(x.byTurn[k])):] {
			if op.Call >= x.ops[begin].Call {
				break
			}
			ops = append(ops, op)
		}
	}
	ops = append(ops, x.ops[begin:end]...)
	if end < len(x.ops) {
		for i := range ops {
			if in := ops[i].Input.(step); ops[i].Return > x.ops[end].Call {
				in.later = true
				ops[i].Input = in
			}
		}
	}
	return ops
}
