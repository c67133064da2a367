package waiting_test

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
)

// world is a shop with one room, in virtual time: gateways, leaders, a ledger
// that counts, and shoppers who poll as they are told.
type world struct {
	t       *testing.T
	now     time.Time
	chance  *rand.Rand
	random  *rand.ChaCha8
	line    waiting.Line
	there   waiting.Presence
	gates   []*waiting.Rooms
	paces   []*waiting.Pace
	leaders []*waiting.Leader

	config waiting.Config
	rate   func(now time.Time) float64 // of the configuration, nil: config.Rate
	none   bool                        // there is no rule for a room

	told                       bool
	free, held, sold, releases int
	serve                      func(w *world, s *shopper) // buys, nil: at once
	holdFor                    time.Duration
	comeBack                   float64 // of units held
	step                       int
	queue                      events
	shoppers                   []*shopper
	byNumber                   map[int]*shopper
	head                       int
	order                      []int // numbers by place
	calls                      []call
	most                       int // outstanding at once
	positions                  map[*shopper]int
	lags                       bool // counts of stock are a step old
	seen                       waiting.Stock
	gaps                       bool // calls are not followed
}

// shopper is somebody who waits.
type shopper struct {
	name     string
	gate     int
	number   int
	call     string // the pass
	take     bool   // buys when called
	gone     bool
	used     bool
	buying   bool
	called   int
	calledAt time.Time
	last     waiting.Place
	leaves   time.Time // and polls no more; zero: stays
	back     time.Time // comes back then; zero: does not
}

type call struct {
	s  *shopper
	at time.Time
}

const activity = "sale"

var opening = time.UnixMilli(1_800_000_000_000)

func newWorld(t *testing.T, gates int) *world {
	t.Helper()
	w := &world{t: t, now: opening.Add(-time.Minute), chance: rand.New(rand.NewPCG(7, uint64(gates))), random: rand.NewChaCha8([32]byte{5}), told: true,
		line: &linetest.Local{}, there: &waiting.Local{}, holdFor: 5 * time.Second,
		byNumber: map[int]*shopper{}, positions: map[*shopper]int{}}
	w.config = waiting.Config{OpensAt: waiting.Millis(opening.UnixMilli()), Opens: 10 * time.Minute, Pass: 30 * time.Second,
		Absent: 10 * time.Second, Most: 100_000, Rate: 100}
	w.start(gates)
	return w
}

// start makes the processes anew, with nothing in their memories.
func (w *world) start(gates int) {
	o := waiting.Options{
		Line: w.line, Presence: w.there, Now: func() time.Time { return w.now }, Random: w.random,
		Activities: func() []string { return []string{activity, "other"} },
		Config: func(a string) (waiting.Config, bool) {
			c := w.config
			if w.rate != nil {
				c.Rate = w.rate(w.now)
			}
			return c, a == activity && !w.none
		},
		Stock: func(string) (waiting.Stock, bool) {
			if w.lags {
				return w.seen, w.told
			}
			return w.stock(), w.told
		},
	}
	w.gates, w.paces = nil, nil
	for i := range gates {
		w.paces = append(w.paces, waiting.NewPace(0))
		w.gates = append(w.gates, waiting.NewRooms(o, fmt.Sprint("gate-", i, "-", w.step), 1<<20, w.paces[i]))
	}
	w.leaders = []*waiting.Leader{waiting.NewLeader(o, time.Hour, nil)}
}

// events are what happens when, soonest first.
type events []event

type event struct {
	at time.Time
	do func()
}

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) { heap.Push(&w.queue, event{w.now.Add(d), do}) }

// run lets so much time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	for until := w.now.Add(d); w.now.Before(until); {
		w.now = w.now.Add(100 * time.Millisecond)
		for len(w.queue) > 0 && !w.queue[0].at.After(w.now) {
			heap.Pop(&w.queue).(event).do()
		}
		if w.step++; w.step%2 == 0 {
			w.turn()
		}
	}
}

// turn is a step of each process.
func (w *world) turn() {
	w.t.Helper()
	for _, g := range w.gates {
		if _, err := g.Step(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, l := range w.leaders {
		if _, err := l.Step(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.follow()
	}
	w.seen = w.stock()
}

func (w *world) stock() waiting.Stock {
	return waiting.Stock{Free: w.free, Held: w.held, SoldOut: w.free+w.held == 0}
}

func (w *world) room() waiting.Room {
	w.t.Helper()
	r, err := w.line.Room(w.t.Context(), activity)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// follow notes who was called, and that no more people have a pass than there
// are units for.
func (w *world) follow() {
	w.t.Helper()
	r, err := w.line.Room(w.t.Context(), activity)
	if err != nil || r.Progress.DrawnAt == 0 || w.gaps {
		return
	}
	if w.order == nil {
		w.order = make([]int, r.Progress.Drawn)
		for number, place := range waiting.Places(r.Seed, [32]byte(r.Progress.Digest), r.Progress.Drawn) {
			w.order[place] = number
		}
	}
	switch {
	case r.Progress.Head < w.head || r.Progress.Head > r.Joined:
		w.t.Fatalf("the head went from %d to %d, %d joined", w.head, r.Progress.Head, r.Joined)
	case r.Progress.Head == w.head:
		return
	}
	for ; w.head < r.Progress.Head; w.head++ {
		number := w.head
		if number < len(w.order) {
			number = w.order[number]
		}
		if s := w.byNumber[number]; s != nil && s.number == number {
			s.called++
			s.calledAt = w.now
			if !s.gone {
				w.calls = append(w.calls, call{s, w.now})
			}
		}
	}
	left := w.calls[:0]
	for _, c := range w.calls {
		if !c.s.used && c.s.take && w.now.Before(c.at.Add(w.config.Pass)) {
			left = append(left, c)
		}
	}
	w.calls = left
	w.most = max(w.most, len(left))
	if len(left) > w.free {
		w.t.Errorf("%v: %d people have a pass, %d units are free", w.now.Sub(opening), len(left), w.free)
	}
}

// enter has somebody join and stay.
func (w *world) enter(s *shopper) {
	w.t.Helper()
	p, err := w.gates[s.gate].Join(context.Background(), activity, s.name)
	if err != nil {
		w.t.Fatalf("%s joins: %v", s.name, err)
	}
	w.shoppers = append(w.shoppers, s)
	w.meet(s, p)
}

// meet is what somebody does who is told his place.
func (w *world) meet(s *shopper, p waiting.Place) {
	w.t.Helper()
	if p.State != waiting.Over {
		s.number = p.Number
		w.byNumber[p.Number] = s
	}
	if p.State == waiting.Waiting {
		if old, had := w.positions[s]; had && s.last.Number == p.Number && p.Position > old {
			w.t.Errorf("%s fell back from %d to %d", s.name, old, p.Position)
		}
		w.positions[s] = p.Position
	}
	if s.last = p; p.State == waiting.Called {
		s.call = p.Call
	}
	switch {
	case p.State == waiting.Called && s.take && !s.used && !s.buying:
		s.buying = true
		w.after(time.Duration(w.chance.ExpFloat64()*2*float64(time.Second)), func() { w.buy(s, p) })
	case p.State == waiting.Over || p.State == waiting.Lapsed:
		return
	}
	w.after(p.PollAfter, func() { w.poll(s) })
}

func (w *world) poll(s *shopper) {
	if !s.leaves.IsZero() && w.now.After(s.leaves) {
		s.gone, s.leaves = true, time.Time{}
		if !s.back.IsZero() {
			w.after(s.back.Sub(w.now), func() { s.gone = false; w.poll(s) })
		}
	}
	if s.gone {
		return
	}
	p, err := w.gates[s.gate].Place(context.Background(), activity, s.name)
	if err != nil {
		w.t.Errorf("%s asks: %v", s.name, err)
		return
	}
	w.meet(s, p)
}

func (w *world) buy(s *shopper, p waiting.Place) {
	if s.gone || w.now.UnixMilli() >= int64(p.Until) || w.free == 0 {
		return
	}
	if w.serve != nil {
		w.serve(w, s)
		return
	}
	w.bought(s)
}

func (w *world) bought(s *shopper) {
	w.free--
	w.held++
	s.used = true
	w.gates[s.gate].Used(activity, s.call)
	w.after(w.holdFor, func() {
		w.held--
		if w.chance.Float64() < w.comeBack {
			w.releases++
			w.free++
		} else {
			w.sold++
		}
	})
}

// crowd makes shoppers who come between two moments, in the order of neither.
func (w *world) crowd(name string, n int, from, to time.Duration, each func(i int, s *shopper)) {
	w.t.Helper()
	for i := range n {
		s := &shopper{name: fmt.Sprint(name, "-", i), gate: i % len(w.gates), take: true, number: -1}
		if each != nil {
			each(i, s)
		}
		w.after(from+time.Duration(w.chance.Float64()*float64(to-from)), func() { w.enter(s) })
	}
}
