package waiting_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
)

func check(t *testing.T, ok bool, format string, a ...any) {
	t.Helper()
	if !ok {
		t.Errorf(format, a...)
	}
}

// A whole sale: people come before the draw and after it, a fifth go away, some
// of those come back too late or in time, units come back.
func TestSale(t *testing.T) {
	w := newWorld(t, 2)
	w.free, w.comeBack = 600, 0.1
	w.run(time.Second)
	leaving := func(i int, s *shopper) {
		if i%5 == 0 {
			s.leaves = opening.Add(time.Duration(i%40-30) * time.Second)
		}
		if i%20 == 0 {
			s.back = opening.Add(time.Duration(i%60) * time.Second)
		}
		s.take = i%10 != 3
	}
	w.crowd("early", 1000, 0, 50*time.Second, leaving)
	w.crowd("late", 1000, 62*time.Second, 90*time.Second, leaving)
	w.run(70 * time.Second)
	// All who wait have positions of their own.
	seen := map[int]string{}
	for _, s := range w.shoppers {
		if p, ok := w.gates[0].Glance(activity, s.name); ok && p.State == waiting.Waiting {
			check(t, seen[p.Position] == "", "%s and %s are both at %d", s.name, seen[p.Position], p.Position)
			seen[p.Position] = s.name
		}
	}
	check(t, len(seen) > 100, "only %d wait", len(seen))
	w.run(4 * time.Minute)
	p := w.room().Progress
	check(t, w.sold == 600, "%d of 600 units sold, %d free, %d held; head %d", w.sold, w.free, w.held, p.Head)
	check(t, p.Over, "it is not over")
	check(t, w.releases > 30, "%d units came back", w.releases)
	absent, gone := p.Head-p.Called, 0
	for _, s := range w.shoppers {
		check(t, s.called <= 1, "%s was called %d times", s.name, s.called)
	}
	for place := range p.Head {
		number := place
		if place < len(w.order) {
			number = w.order[place]
		}
		if w.byNumber[number].gone {
			gone++
		}
	}
	check(t, absent > 50 && absent <= gone+20, "%d of %d places were passed over, %d of them had gone", absent, p.Head, gone)
	check(t, w.most > 60, "at most %d people had a pass at once", w.most)
	for _, s := range w.shoppers {
		if !s.gone && !s.used {
			check(t, s.last.State == waiting.Over || s.last.State == waiting.Lapsed || !s.take, "%s was left at %v", s.name, s.last.State)
		}
	}
	published, err := w.gates[1].Draw(activity)
	check(t, err == nil, "%v", err)
	entries, err := w.gates[0].Entries(t.Context(), activity, 0, 10_000)
	check(t, err == nil && len(entries) == published.Entries, "%d entries of %d, %v", len(entries), published.Entries, err)
	places, err := published.Verify(published.Commitment, entries)
	check(t, err == nil && len(places) == 1000, "%d places, %v", len(places), err)
	for _, s := range w.shoppers {
		if n := s.number; n < len(places) {
			check(t, entries[n] == s.last.Entry || s.last.State == waiting.Over, "%s is not in the list", s.name)
		}
	}
}

// Nothing that is answered before the draw has the seed in it.
func TestSeedIsSecret(t *testing.T) {
	w := newWorld(t, 1)
	w.free = 10
	w.crowd("u", 20, time.Second, 10*time.Second, nil)
	w.run(20 * time.Second)
	seed := w.room().Seed
	secret := []string{fmt.Sprintf("%x", seed[4:20]), strings.Trim(fmt.Sprint(seed[4:20]), "[]"), string(seed[4:20])}
	told := func() string {
		t.Helper()
		var b strings.Builder
		g := w.gates[0]
		d, err := g.Draw(activity)
		check(t, err == nil, "%v", err)
		e, err := g.Entries(t.Context(), activity, 0, 100)
		check(t, err == nil, "%v", err)
		p, err := g.Place(t.Context(), activity, "u-3")
		check(t, err == nil, "%v", err)
		j, err := g.Join(t.Context(), activity, "u-4")
		check(t, err == nil, "%v", err)
		q, _ := g.Glance(activity, "u-5")
		for _, x := range []any{d, e, p, j, q, g.Stats()} {
			fmt.Fprintf(&b, "%+v %x %s\n", x, x, x)
		}
		return b.String()
	}
	before := told()
	for _, s := range secret {
		check(t, !strings.Contains(before, s), "the seed is told before the draw: %q", before)
	}
	d, _ := w.gates[0].Draw(activity)
	check(t, !d.Drawn && d.Commitment == seed.Commitment() && d.DrawAt == w.config.OpensAt && d.Entries == 0, "%+v", d)
	w.run(time.Minute)
	check(t, strings.Contains(told(), secret[0]), "the seed is not told after the draw")
}

func TestJoin(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Most, w.config.Opens = 100, 3, 30*time.Second
	g, ctx := w.gates[0], t.Context()
	_, err := g.Join(ctx, activity, "ann")
	var early *waiting.TooEarly
	check(t, errors.As(err, &early) && errors.Is(err, waiting.ErrTooEarly) && early.OpensAt == w.config.OpensAt &&
		early.QueueOpensAt == w.config.OpensAt-30_000, "before it opens: %v", err)
	_, err = g.Join(ctx, "nowhere", "ann")
	check(t, errors.Is(err, waiting.ErrNoRoom), "no such room: %v", err)
	_, err = g.Place(ctx, activity, "ann")
	check(t, errors.Is(err, waiting.ErrNoRoom), "place before it opens: %v", err)
	_, err = g.Draw(activity)
	check(t, errors.Is(err, waiting.ErrNoRoom), "draw before it opens: %v", err)
	w.run(31 * time.Second)
	_, err = g.Place(ctx, activity, "ann")
	check(t, errors.Is(err, waiting.ErrNotWaiting), "place of who has not joined: %v", err)
	for i, user := range []string{"ann", "bob", "ann", "cat"} {
		p, err := g.Join(ctx, activity, user)
		check(t, err == nil && p.State == waiting.Registered && p.Number == []int{0, 1, 0, 2}[i] && p.Joined == max(p.Number+1, i) &&
			p.DrawAt == w.config.OpensAt && p.PollAfter > 0 && p.PollAfter < w.config.Absent/2 || i == 2, "%s: %+v, %v", user, p, err)
	}
	_, err = g.Join(ctx, activity, "dan")
	check(t, errors.Is(err, waiting.ErrFull), "the room is full: %v", err)
	w.config.OpensAt += 3_600_000 // put off
	w.run(time.Second)
	_, err = g.Join(ctx, activity, "dan")
	check(t, errors.As(err, &early) && early.OpensAt == w.config.OpensAt, "put off: %v", err)
	w.config.OpensAt -= 3_600_000
	w.config.Ended = true
	w.run(time.Second)
	p, err := g.Join(ctx, activity, "dan")
	check(t, err == nil && p.State == waiting.Over && p.Number == -1, "over: %+v, %v", p, err)
	p, err = g.Join(ctx, activity, "ann")
	check(t, err == nil && p.State == waiting.Over && p.Number == 0, "over: %+v, %v", p, err)
	check(t, w.room().Joined == 3, "%d joined", w.room().Joined)
	w.config.Ended, w.config.Closed = false, true
	w.run(30 * time.Minute)
	check(t, w.room().Joined == 3, "forgotten too early")
	w.run(31 * time.Minute)
	_, err = w.line.Room(ctx, activity)
	check(t, errors.Is(err, waiting.ErrNoRoom), "after closing: %v", err)
	_, err = g.Join(ctx, activity, "ann")
	check(t, errors.Is(err, waiting.ErrNoRoom), "after it was forgotten: %v", err)
}

// Who was called and did not come may come until his pass has run out; then he
// gets another number, at the end.
func TestLapse(t *testing.T) {
	w := newWorld(t, 2)
	w.free, w.config.Rate = 1000, 1
	w.crowd("u", 100, 31*time.Second, 32*time.Second, func(_ int, s *shopper) { s.take = false })
	ann := &shopper{name: "ann"}
	w.after(30*time.Second, func() {
		ann.leaves = w.now.Add(5 * time.Second)
		w.enter(ann)
	})
	w.run(40 * time.Second)
	place := func(gate int) waiting.Place {
		t.Helper()
		p, err := w.gates[gate].Place(t.Context(), activity, "ann")
		check(t, err == nil, "%v", err)
		return p
	}
	for w.head == 0 || ann.called == 0 {
		w.run(200 * time.Millisecond)
	}
	called := w.now
	check(t, ann.gone, "ann is there")
	w.run(w.config.Pass - 2*time.Second)
	p := place(0)
	check(t, p.State == waiting.Called && p.Until >= waiting.Millis(called.Add(w.config.Pass-time.Second).UnixMilli()), "in time: %+v", p)
	w.run(3 * time.Second)
	p = place(0)
	check(t, p.State == waiting.Lapsed && p.Number == ann.number, "too late: %+v", p)
	head := w.head
	p, err := w.gates[1].Join(t.Context(), activity, "ann") // where she is not known
	check(t, err == nil && p.State == waiting.Waiting && p.Number == 101 && p.Position == 102-head, "again: %+v, %v, head %d", p, err, head)
	w.run(500 * time.Millisecond)
	q := place(0) // where the old number is known
	check(t, q.Number == 101 && q.State == waiting.Waiting, "asks there: %+v", q)
	q, err = w.gates[0].Join(t.Context(), activity, "ann")
	check(t, err == nil && q.Number == 101 && q.State == waiting.Waiting && q.Entry == p.Entry, "there: %+v, %v", q, err)
	check(t, w.room().Joined == 102, "%d joined", w.room().Joined)
}

// A Line that has lost a room gives its numbers again: the calls of the next one are
// others, and a pass of the one before counts for nobody in it.
func TestLostRoom(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gates[0]
	w.gaps, w.free, w.config.Rate = true, 1, 100
	called := func() (calls []string) {
		t.Helper()
		for i := range 3 {
			name := fmt.Sprint("u", i)
			_, err := g.Join(t.Context(), activity, name)
			check(t, err == nil, "%v", err)
		}
		w.run(3 * time.Second)
		for i := range 3 {
			p, err := g.Place(t.Context(), activity, fmt.Sprint("u", i))
			check(t, err == nil && (p.Call != "") == (p.State == waiting.Called), "%+v, %v", p, err)
			if p.Call != "" {
				calls = append(calls, p.Call)
			}
		}
		return calls
	}
	w.run(time.Minute + time.Second)
	before := called()
	check(t, len(before) == 1, "called: %v", before)
	if err := w.line.Drop(t.Context(), activity); err != nil {
		t.Fatal(err)
	}
	w.run(time.Second)
	after := called()
	check(t, len(after) == 1 && after[0] != before[0], "called %v, before the room was lost %v", after, before)
	for range 3 {
		g.Used(activity, before[0])
		g.Used(activity, "")
		g.Used(activity, after[0]+"0")
	}
	w.run(3 * time.Second)
	check(t, len(called()) == 1, "somebody else was called: a pass of another room was counted")
	w.free = 1
	g.Used(activity, after[0])
	w.run(3 * time.Second)
	check(t, len(called()) == 2, "a pass was used and a unit is free, and nobody else was called")
}

// Nobody is called who could find nothing, nor by a leader who does not know.
func TestCallsNobodyInVain(t *testing.T) {
	w := newWorld(t, 1)
	f := func(what string, change func(), want int) {
		t.Helper()
		change()
		w.run(10 * time.Second)
		check(t, w.room().Progress.Called == want, "%s: %d called, want %d", what, w.room().Progress.Called, want)
	}
	w.crowd("u", 300, time.Second, 30*time.Second, func(_ int, s *shopper) { s.take = false })
	w.free, w.told = 100, false
	w.run(time.Minute)
	f("stock not known", func() {}, 0)
	f("nothing free", func() { w.told, w.free, w.held = true, 0, 100 }, 0)
	f("paused", func() { w.free, w.config.Paused = 10, true }, 0)
	f("ten free", func() { w.config.Paused = false }, 10)
	f("twelve free", func() { w.free = 12 }, 12)
	f("passes ran out", func() { w.run(2 * w.config.Pass) }, w.room().Progress.Called+24)
	f("sold out", func() { w.free, w.held = 0, 0 }, w.room().Progress.Called)
	check(t, w.room().Progress.Over, "it is not over")
	f("more units", func() { w.free = 5; w.run(w.config.Pass / 2) }, w.room().Progress.Called+5)
	check(t, !w.room().Progress.Over, "it is over")
}

// Who leaves is passed over, and who comes late to an empty room is called at once.
func TestLeave(t *testing.T) {
	w := newWorld(t, 1)
	w.free = 10
	w.crowd("u", 40, time.Second, 2*time.Second, func(i int, s *shopper) { s.take = i%2 == 0 })
	w.run(30 * time.Second)
	for i, s := range w.shoppers {
		if i%2 == 1 {
			w.gates[0].Leave(activity, s.name)
			s.gone = true
		}
	}
	w.run(40 * time.Second)
	p := w.room().Progress
	check(t, p.Called == 10, "%d called, %d passed over", p.Called, p.Head-p.Called)
	w.free = 1000
	w.run(20 * time.Second)
	p = w.room().Progress
	check(t, p.Head == 40 && p.Called == 20, "%d called of %d", p.Called, p.Head)
	joined, err := w.gates[0].Join(t.Context(), activity, "new")
	check(t, err == nil && joined.Position == 1 && joined.ETA < 2*time.Second && !joined.Unlikely, "%+v, %v", joined, err)
	w.run(time.Second)
	now, _ := w.gates[0].Glance(activity, "new")
	check(t, now.State == waiting.Called, "%+v", now)
}

// Those for whom nothing can be left are told early; those who may hope, too.
func TestOutlook(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 200, 20
	w.crowd("u", 1000, time.Second, 30*time.Second, func(i int, s *shopper) { s.take = i%2 == 0 })
	w.run(62 * time.Second)
	first := 0
	f := func(most int) (good int) {
		t.Helper()
		first = 10_000
		for _, s := range w.shoppers {
			p, _ := w.gates[0].Glance(activity, s.name)
			if p.State != waiting.Waiting {
				continue
			}
			if !p.Unlikely {
				good = max(good, p.Position)
			} else {
				first = min(first, p.Position)
			}
		}
		check(t, first == good+1 && good <= most, "the last to hope is %d, the first not to %d", good, first)
		return good
	}
	before := f(200)
	check(t, before > 50, "only %d may hope at first", before)
	w.run(70 * time.Second) // half of those called did not buy
	after, left := f(2000), w.free+w.held-w.room().Progress.Outstanding/2
	check(t, after > left*3/2, "%d may hope, %d units are left and half do not buy", after, left)
}

// Those who are known here are told their place without a question to the Line,
// also those who were forgotten and looked up again.
func TestFewQuestions(t *testing.T) {
	w := newWorld(t, 1)
	counted := &counting{Line: w.line}
	w.line = counted
	w.free = 100
	w.start(2)
	w.crowd("u", 500, time.Second, 20*time.Second, nil)
	w.run(50 * time.Second)
	check(t, counted.joins == 500 && counted.finds == 0, "%d joins, %d looked up", counted.joins, counted.finds)
	for _, s := range w.shoppers {
		for range 3 {
			p, err := w.gates[1-s.gate].Place(t.Context(), activity, s.name)
			check(t, err == nil && p.Number == s.number, "%s at the other gate: %+v, %v", s.name, p, err)
		}
	}
	check(t, counted.finds == 500, "%d looked up", counted.finds)
	_, ok := w.gates[0].Glance(activity, "nobody")
	check(t, !ok && counted.finds == 500, "%d looked up by a glance", counted.finds)
	numbers := []int{}
	for _, s := range w.shoppers {
		numbers = append(numbers, s.number)
	}
	slices.Sort(numbers)
	check(t, len(slices.Compact(numbers)) == 500, "%d numbers", len(numbers))
}

// A poll of somebody who is known costs no memory, however he stands.
func TestPollAllocatesNothing(t *testing.T) {
	w := newWorld(t, 1)
	w.free = 3
	w.crowd("u", 100, time.Second, 10*time.Second, nil)
	w.run(20 * time.Second)
	f := func(state waiting.State, user string) {
		t.Helper()
		n := testing.AllocsPerRun(100, func() {
			if p, err := w.gates[0].Place(t.Context(), activity, user); err != nil || p.State != state {
				t.Errorf("%+v, %v, want %s", p, err, state)
			}
		})
		check(t, n == 0, "%s: %.0f allocations", state, n)
	}
	f(waiting.Registered, "u-7")
	w.run(45 * time.Second)
	for _, s := range w.shoppers {
		if s.last.State == waiting.Waiting {
			f(waiting.Waiting, s.name)
			return
		}
	}
	t.Error("nobody waits")
}
