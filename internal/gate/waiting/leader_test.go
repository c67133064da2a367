package waiting_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate/waiting"
)

// counting counts the questions to a Line.
type counting struct {
	waiting.Line
	joins, finds int
}

func (c *counting) Join(ctx context.Context, a, user string, e waiting.EntryID, instead, most int) (int, waiting.EntryID, error) {
	c.joins++
	return c.Line.Join(ctx, a, user, e, instead, most)
}

func (c *counting) Find(ctx context.Context, a, user string) (int, waiting.EntryID, error) {
	c.finds++
	return c.Line.Find(ctx, a, user)
}

// Every process ends and comes back, before the draw and in the middle of
// calling, with nothing but the database.
func TestRestart(t *testing.T) {
	w := newWorld(t, 1)
	path := filepath.Join(t.TempDir(), "shop.db")
	var store *sqlstore.Store
	open := func() {
		var err error
		if store, err = sqlstore.Open(t.Context(), path, sqlstore.Options{}); err != nil {
			t.Fatal(err)
		}
		w.line, w.there = store.Waiting(), &waiting.Local{}
		w.start(1)
	}
	open()
	w.free, w.config.Rate, w.config.Pass = 10_000, 20, time.Minute
	restart := func(away time.Duration) {
		t.Helper()
		before := w.room()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		old := map[*shopper]waiting.Place{}
		for _, s := range w.shoppers {
			old[s], _ = w.gates[0].Glance(activity, s.name)
		}
		w.now = w.now.Add(away)
		open()
		after := w.room()
		check(t, after.Seed == before.Seed && after.Joined == before.Joined && after.Progress.Head == before.Progress.Head, "%+v, before %+v", after, before)
		w.turn()
		for _, s := range w.shoppers {
			p, err := w.gates[0].Place(t.Context(), activity, s.name)
			was := old[s]
			check(t, err == nil && p.Number == was.Number && p.Entry == was.Entry, "%s: %+v, %v, before %+v", s.name, p, err, was)
			if was.State == waiting.Waiting && p.State == waiting.Waiting {
				check(t, p.Position <= was.Position, "%s was %d, is %d", s.name, was.Position, p.Position)
			}
		}
	}
	w.crowd("u", 400, time.Second, 30*time.Second, nil)
	w.run(40 * time.Second)
	restart(2 * time.Second)
	draw, err := w.gates[0].Draw(activity)
	check(t, err == nil, "%v", err)
	w.run(26 * time.Second)
	drawn, err := w.gates[0].Draw(activity)
	check(t, err == nil && drawn.Drawn && drawn.Commitment == draw.Commitment && drawn.Seed.Commitment() == draw.Commitment, "%+v, %v", drawn, err)
	restart(3 * time.Second)
	again, err := w.gates[0].Draw(activity)
	check(t, err == nil && again == drawn, "%+v, %v, before %+v", again, err, drawn)
	// Before anybody can have asked again, nobody counts as absent.
	head := w.head
	w.run(time.Second)
	check(t, w.head > head, "the head stands")
	w.run(time.Minute)
	p := w.room().Progress
	check(t, p.Head == 400 && p.Called == 400, "%d places, %d called", p.Head, p.Called)
	for _, s := range w.shoppers {
		check(t, s.called == 1, "%s was called %d times", s.name, s.called)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// A new leader of a shop whose Presence is whole knows the absent at once; one that
// has lost its Presence takes nobody for absent until all can have asked again.
func TestTakeover(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 10_000, 6
	w.crowd("u", 400, time.Second, 20*time.Second, func(i int, s *shopper) {
		s.take = false
		if i%2 == 0 {
			s.leaves = opening.Add(-35 * time.Second)
		}
	})
	w.run(65 * time.Second)
	passed := func() int { p := w.room().Progress; return p.Head - p.Called }
	before := passed()
	check(t, before > 15, "%d passed over", before)
	w.leaders = []*waiting.Leader{waiting.NewLeader(waiting.Options{Line: w.line, Presence: w.there, Now: func() time.Time { return w.now }, Random: w.random,
		Activities: func() []string { return []string{activity} },
		Config:     func(string) (waiting.Config, bool) { return w.config, true },
		Stock:      func(string) (waiting.Stock, bool) { return waiting.Stock{Free: w.free}, true }}, 0, nil)}
	w.run(6 * time.Second)
	check(t, passed() > before+5, "%d passed over, before the takeover %d", passed(), before)

	lost := w.there.(*waiting.Local)
	lost.Forget(activity)
	before = passed()
	w.run(5 * time.Second)
	check(t, passed() == before, "%d passed over, %d before", passed(), before)
	there := w.room().Progress.Called
	w.run(6 * time.Second)
	before = passed()
	w.run(3 * time.Second)
	check(t, passed() > before, "nobody is absent any more")
	check(t, w.room().Progress.Called > there, "nobody is called any more")
}

// Leaders who are at it at once call each place once, no faster, and no more
// people than there are units.
func TestTwoLeaders(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 150, 30
	w.crowd("u", 600, time.Second, 20*time.Second, func(_ int, s *shopper) { s.take = false })
	more := w.leaders[0]
	w.start(1)
	w.leaders = append(w.leaders, more)
	w.run(time.Second)
	leaders := w.leaders
	w.leaders = nil
	w.run(50 * time.Second)
	w.gaps = true
	for i := range 150 {
		w.run(200 * time.Millisecond)
		var all sync.WaitGroup
		for _, l := range leaders {
			all.Go(func() {
				if _, err := l.Step(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		p := w.room().Progress
		check(t, p.Head == p.Called && p.Called <= 150, "step %d: head %d, called %d", i, p.Head, p.Called)
		if p.DrawnAt > 0 {
			took := float64(w.now.UnixMilli()-int64(p.DrawnAt)) / 1000
			check(t, float64(p.Head) <= 30*(took+3), "step %d: %d called in %.1f s at 30/s", i, p.Head, took)
		}
		for j := 1; j < len(p.Steps); j++ {
			check(t, p.Steps[j].Head > p.Steps[j-1].Head && p.Steps[j].At > p.Steps[j-1].At, "step %d: %+v", i, p.Steps)
		}
	}
	check(t, w.room().Progress.Called == 150, "%d called", w.room().Progress.Called)
}

// The draw is made once everybody is in, and those who come then keep their order.
func TestLateEntrants(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 0, 10
	w.held = 1
	w.crowd("early", 50, time.Second, 59*time.Second, nil)
	w.crowd("late", 50, 61*time.Second, 70*time.Second, nil)
	w.run(75 * time.Second)
	moved := 0
	for _, s := range w.shoppers {
		p, ok := w.gates[0].Glance(activity, s.name)
		check(t, ok && p.State == waiting.Waiting, "%s: %+v", s.name, p)
		check(t, (p.Number < 50) == (p.Position <= 50), "%s has number %d and position %d", s.name, p.Number, p.Position)
		check(t, p.Number < 50 || p.Position == p.Number+1, "%s has number %d and position %d", s.name, p.Number, p.Position)
		if p.Position != p.Number+1 {
			moved++
		}
	}
	check(t, moved > 35, "only %d of 50 places were drawn", moved)
}

// A room that is made in the middle of a sale is first come, first served.
func TestRoomInTheMiddle(t *testing.T) {
	w := newWorld(t, 1)
	w.now = opening.Add(time.Minute)
	w.free = 10
	w.crowd("u", 30, time.Second, 2*time.Second, func(_ int, s *shopper) { s.take = false })
	w.run(10 * time.Second)
	p := w.room().Progress
	check(t, p.DrawnAt > 0 && p.Drawn == 0 && p.Head == 10, "%+v", p)
	d, err := w.gates[0].Draw(activity)
	check(t, err == nil && d.Drawn, "%+v, %v", d, err)
	places, err := d.Verify(d.Commitment, nil)
	check(t, err == nil && len(places) == 0, "%v, %v", places, err)
}

// When the door is shut for everybody, the line does not run through at once.
func TestDoorShut(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 10_000, 20
	w.crowd("u", 4000, time.Second, 20*time.Second, func(_ int, s *shopper) {
		s.take = false
		s.leaves = opening.Add(-25 * time.Second)
		s.back = opening.Add(4 * time.Second)
	})
	w.run(64 * time.Second)
	p := w.room().Progress
	check(t, p.Called == 0 && p.Head > 300 && p.Head < 5*(10*20+2*20)+300, "head %d, called %d", p.Head, p.Called)
	w.run(5 * time.Second)
	before := w.room().Progress
	w.run(5 * time.Second)
	after := w.room().Progress
	check(t, after.Head == before.Head+after.Called-before.Called && after.Called > before.Called+50, "%+v", after)
}

// Who has only just come is called, though the Presence has not heard of him yet.
func TestFreshEntrant(t *testing.T) {
	w := newWorld(t, 1)
	w.free = 10
	w.run(90 * time.Second)
	if _, err := w.gates[0].Join(t.Context(), activity, "ann"); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(100 * time.Millisecond)
	if _, err := w.leaders[0].Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := w.room().Progress
	check(t, p.Head == 1 && p.Called == 1, "head %d, called %d", p.Head, p.Called)
}

// Those who were passed over, come back and buy make no room for others: the
// world counts who has a pass at each move.
func TestComersBack(t *testing.T) {
	w := newWorld(t, 1)
	w.free, w.config.Rate = 100, 10
	w.serve = func(w *world, s *shopper) {
		if !s.back.IsZero() {
			w.bought(s)
		}
	}
	w.crowd("u", 400, time.Second, 20*time.Second, func(i int, s *shopper) {
		if i%2 == 0 {
			s.leaves, s.back = opening.Add(-25*time.Second), opening.Add(3*time.Second)
		}
	})
	w.run(67 * time.Second)
	check(t, w.free < 90 && w.free > 40, "%d units are free", w.free)
	w.config.Rate = 1000
	w.run(5 * time.Second)
	check(t, w.most > 40, "at most %d had a pass", w.most)
}

// Counts of stock that come a little later than the uses of passes let nobody be
// called in vain.
func TestStockLags(t *testing.T) {
	w := newWorld(t, 1)
	w.lags, w.free, w.config.Rate = true, 300, 500
	w.crowd("u", 1000, time.Second, 59*time.Second, nil)
	w.run(2 * time.Minute)
	check(t, w.sold == 300, "%d sold", w.sold)
}
