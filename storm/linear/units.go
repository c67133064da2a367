package linear

import (
	"fmt"
	"slices"
)

// The units of a SKU are free, held or sold, and what moves them is of three
// classes. All movements of a class do the same to the counts, and that is what
// makes a search of a hundred thousand operations possible:
//
//   - A movement is two points in time, "it may happen from here on" and "it has
//     happened by here", and not a choice of porcupine's. Between the two, the
//     model leaves it undone until something needs it done, and then does the one
//     that must be done soonest. Neither loses anything: a movement put off can
//     still be made later, with the same effect, and of two that could both be
//     made, exchanging the sooner with the later one breaks no bound. Only the
//     sale of the last unit leaves no later: see exchange.
//   - A look (a refusal for want of units, the counts) changes nothing, so looks do
//     not restrict each other. One that lies wholly around another with the same
//     answer says nothing more, and is left out. And where only looks of one
//     answer begin and end for a while, it does not matter when within the while
//     they do: movements could all be put before it or behind it.
//   - Looks with the same answer that are left have an order, first come, first
//     served, for the same reason. The model demands it.
//
// What is left for porcupine is where each look stands among the points. Where
// that is still much, it is searched in segments, cut at any point: looks that are
// under way there may have their place on either side. The points alone, without any
// look, lead to the state with the most left open that there can be; what has no
// order from that one has none at all.

// class of a movement.
type class uint8

const (
	take    class = iota // free → held: a purchase
	give                 // held → free: its end by cancel or time
	confirm              // held → sold
	classes
)

var classNames = [...]string{"bought", "given back", "sold"}

// movement of one unit: not before from, not after by; by = Forever: perhaps never.
type movement struct {
	class    class
	from, by int64
	of       *purchase
}

// kind of a look.
type kind uint8

const (
	sawSoldOut kind = iota
	sawAllHeld
	sawFewer // insufficient: some free, fewer than quantity
	sawCounts
	sawSold // the sold units of counts that were read at several moments
	kinds
)

// plain looks of one kind all say the same.
func (k kind) plain() bool { return k == sawSoldOut || k == sawAllHeld }

var sawKinds = map[string]kind{codeSoldOut: sawSoldOut, codeAllHeld: sawAllHeld, codeInsufficient: sawFewer}

// look at the counts by somebody; op is its number in the history.
type look struct {
	call, back       int64
	op, quantity     int
	free, held, sold int
	kind             kind
	turn             int // among the looks of its kind, from 0
}

// pile is where the units are, and the movements that may be made now, soonest
// bound first. It is never changed, only copied.
type pile struct {
	free, held, sold int
	open             [classes][]int // numbers of movements
	turn             [kinds]int
}

// move makes one open movement of a class, making room for it by others if it
// needs any. It answers false when that cannot be.
func (p *pile) move(c class) bool {
	if len(p.open[c]) == 0 || !p.effect(c) {
		return false
	}
	p.open[c] = p.open[c][1:]
	return true
}

func (p *pile) effect(c class) bool {
	switch {
	case c == take && p.free == 0:
		if p.held == 0 || !p.move(give) {
			return false
		}
	case c == give && p.held == 0:
		// It was sold ahead of a purchase that did not have to be by then.
		if p.free == 0 || !p.move(take) {
			return false
		}
	case c == confirm && p.held == 0:
		if p.free == 0 || !p.move(take) {
			return false
		}
	}
	switch c {
	case take:
		p.free, p.held = p.free-1, p.held+1
	case give:
		p.free, p.held = p.free+1, p.held-1
	case confirm:
		if p.free+p.held == 1 {
			p.exchange()
		}
		p.held, p.sold = p.held-1, p.sold+1
	}
	return true
}

// exchange makes what is open as pairs: a unit comes back and is taken again,
// which leaves the counts as they are. It is for the moment before the last unit
// is sold. Nothing is given back or taken after that, so what is put off any
// longer was never made, and neither is what may be made only from then on.
func (p *pile) exchange() {
	n := min(len(p.open[give]), len(p.open[take]))
	p.open[give], p.open[take] = p.open[give][n:], p.open[take][n:]
}

// until makes movements of a class as long as more says so.
func (p *pile) until(c class, more func() bool) bool {
	for more() {
		if !p.move(c) {
			return false
		}
	}
	return true
}

// shows makes as few movements as it takes for a look to be right.
func (p *pile) shows(l *look) bool {
	noneFree := func() bool { return p.until(take, func() bool { return p.free > 0 }) }
	switch l.kind {
	case sawSoldOut:
		return noneFree() && p.until(confirm, func() bool { return p.held > 0 })
	case sawAllHeld:
		return noneFree() && p.held > 0
	case sawFewer:
		return p.until(give, func() bool { return p.free == 0 }) && p.until(take, func() bool { return p.free >= l.quantity }) && p.free > 0
	case sawSold:
		return p.until(confirm, func() bool { return p.sold < l.sold }) && p.sold == l.sold
	default:
		return p.until(take, func() bool { return p.free > l.free }) && p.until(confirm, func() bool { return p.sold < l.sold }) &&
			p.until(give, func() bool { return p.free < l.free }) && p.free == l.free && p.held == l.held && p.sold == l.sold
	}
}

// stage of a movement, or a look.
type stage uint8

const (
	begins stage = iota // a movement may be made
	ends                // it has been made
	looked
)

// step is one operation as porcupine sees it.
type step struct {
	stage stage
	n     int  // number of the movement or look
	later bool // a look that may have its place behind the segment
}

func (s *search) apply(p *pile, in step) (*pile, bool) {
	next := *p
	switch in.stage {
	case begins:
		c := s.movements[in.n].class
		i, _ := slices.BinarySearch(next.open[c], in.n)
		next.open[c] = slices.Insert(slices.Clip(next.open[c]), i, in.n)
	case ends:
		c := s.movements[in.n].class
		i, open := slices.BinarySearch(next.open[c], in.n)
		if !open { // it was made before
			return &next, true
		}
		next.open[c] = slices.Concat(next.open[c][:i], next.open[c][i+1:])
		if !next.effect(c) {
			return nil, false
		}
	case looked:
		l := &s.looks[in.n]
		if (next.turn[l.kind] == l.turn || !l.kind.plain()) && next.shows(l) {
			next.turn[l.kind]++
			return &next, true
		}
		return p, in.later && next.turn[l.kind] <= l.turn
	}
	return &next, true
}

func samePile(a, b any) bool {
	p, q := a.(*pile), b.(*pile)
	if p.free != q.free || p.held != q.held || p.sold != q.sold || p.turn != q.turn {
		return false
	}
	for c := range p.open {
		if !slices.Equal(p.open[c], q.open[c]) {
			return false
		}
	}
	return true
}

func hashPile(state any) uint64 {
	p := state.(*pile)
	h := uint64(14695981039346656037) // FNV-1a
	mix := func(n int) { h = (h ^ uint64(n)) * 1099511628211 }
	mix(p.free)
	mix(p.held)
	mix(p.sold)
	for c := range p.open {
		mix(-1 - len(p.open[c]))
		for _, n := range p.open[c] {
			mix(n)
		}
	}
	return h
}

// row is where a picture shows a step.
func (x *search) row(s step) int {
	if s.stage == looked {
		return int(classes) + int(x.looks[s.n].kind)
	}
	return int(x.movements[s.n].class)
}

// describe words a step.
func (x *search) describe(s step) string {
	if s.stage == looked {
		l := x.looks[s.n]
		if x.words == nil { // only who is to be told something needs them
			x.words = make(map[int]string, len(x.looks))
			for _, l := range x.looks {
				x.words[l.op] = ""
			}
			words(x.history, x.words)
		}
		return fmt.Sprintf("%s between %s and %s", x.words[l.op], at(l.call), at(l.back))
	}
	m := x.movements[s.n]
	if s.stage == begins {
		return fmt.Sprintf("%s may be %s from %s on", m.of, classNames[m.class], at(m.from))
	}
	return fmt.Sprintf("%s was %s by %s", m.of, classNames[m.class], at(m.by))
}

func (p *pile) String() string {
	s := fmt.Sprintf("%d free, %d held, %d sold", p.free, p.held, p.sold)
	for c, name := range [...]string{"taken", "given back", "sold"} {
		if n := len(p.open[c]); n > 0 {
			s += fmt.Sprintf(", %d more may be %s", n, name)
		}
	}
	return s
}

// segmentSize is how many operations are searched at once.
const segmentSize = 2000

// checkUnits searches one SKU.
func (r *Result) checkUnits(s *shelf, o Options) {
	x := newSearch(s, segmentSize)
	r.Searched += len(x.ops)
	r.take(x.find(o), fmt.Sprintf("SKU %s, %d units", s.sku, s.units))
}

func (x *search) find(o Options) finding {
	return searchInParts(part[*pile]{
		start: x.loose[0], timeout: o.Timeout, terse: o.terse,
		segments: len(x.cuts) - 1, slice: x.slice, loose: func(i int) *pile { return x.loose[i] },
		apply:    func(p *pile, in any) (*pile, bool) { return x.apply(p, in.(step)) },
		same:     samePile,
		hash:     hashPile,
		describe: func(in any) string { return x.describe(in.(step)) },
		draw:     true,
	})
}
