package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// gateway is a process of a fleet that follows activities: a connection, a
// board and a mirror of its own, and what the mirror has told.
type gateway struct {
	*redisstock.Mirror
	t     testing.TB
	board *stock.Board

	mu     sync.Mutex
	states map[stock.ID]stock.State // the last told of each
	told   map[stock.ID]int         // how often it was told to be held
	epochs []uint32
}

func newGateway(t testing.TB, s *servers.Server, activities ...stock.ActivityID) *gateway {
	t.Helper()
	return follow(t, connect(t, s, "", redisstock.Options{}), activities...)
}

func follow(t testing.TB, l *redisstock.Ledger, activities ...stock.ActivityID) *gateway {
	t.Helper()
	g := &gateway{t: t, board: stock.NewBoard(), states: map[stock.ID]stock.State{}, told: map[stock.ID]int{}}
	g.Mirror = l.Mirror(redisstock.MirrorOptions{
		Board: g.board, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Changed: func(id stock.ID, state stock.State) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.states[id] = state
			if state == stock.Held {
				g.told[id]++
			}
		},
		Epoch: func(_ stock.Place, epoch uint32) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.epochs = append(g.epochs, epoch)
		},
	})
	g.Follow(activities)
	return g
}

func (g *gateway) step() (worked bool) {
	g.t.Helper()
	worked, err := g.Step(g.t.Context())
	if err != nil && g.t.Context().Err() == nil {
		g.t.Fatal(err)
	}
	return worked
}

// until steps until something is so.
func (g *gateway) until(what string, so func() bool) {
	g.t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); g.step() {
		if time.Now().After(end) {
			g.t.Fatalf("not within 10 s: %s; %+v", what, g.Standings())
		}
	}
}

// settled steps until the mirror has made its mind up about the present: two
// readings of everything after the last news.
func (g *gateway) settled(a stock.ActivityID) {
	g.t.Helper()
	g.until("ready", func() bool { return g.Ready(a) })
	for range 2 {
		from := time.Now()
		g.until("a later reading", func() bool {
			for _, s := range g.Standings() {
				if s.Activity == a {
					return s.Ready && s.Behind == 0 && s.AsOf.After(from)
				}
			}
			return false
		})
	}
}

// run steps in the background as a process does, until the test's end.
func (g *gateway) run() (stop func()) {
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			if worked, _ := g.Step(ctx); !worked {
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (g *gateway) refuses(a stock.ActivityID, user string, quantity int) error {
	face := g.board.Face(a)
	if face == nil {
		return nil
	}
	return face.Refuses(stock.UserID(user), []stock.Line{{SKU: "s", Quantity: quantity}}, stock.MillisOf(time.Now()))
}

func (g *gateway) state(id stock.ID) stock.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.states[id]
}

// onSale is an allocation that is open now, by the clocks of all.
func onSale(activity string, units int, buckets uint16) stock.Allocation {
	a := spread(activity, units, 0, buckets)
	now := stock.MillisOf(time.Now())
	a.OpensAt, a.ClosesAt, a.At = now-60_000, now+3_600_000, now
	return a
}

// followedSale is a kept ledger by the time of its Redis, with one activity open.
func followedSale(t testing.TB, s *servers.Server, options string, a stock.Allocation) *served {
	t.Helper()
	l := connect(t, s, options, redisstock.Options{})
	kept := &served{l, newKeeper(t, l)}
	open(t, kept, a)
	return kept
}

func buy(t testing.TB, s *served, a stock.ActivityID, user string, quantity int) stock.Receipt {
	t.Helper()
	got, err := insist(t.Context(), s, stocktest.Request(string(a), user, "k-"+user, quantity))
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	return got
}

func settle(t testing.TB, s *served, r stock.Receipt, outcome stock.Outcome) {
	t.Helper()
	if _, err := s.Settle(t.Context(), stock.Settlement{ID: r.ID, User: r.User, Outcome: outcome}); err != nil {
		t.Fatal(err)
	}
}

// Whatever happens on the ledger: what the face refuses, the ledger would have
// refused in the same words when the mirror last read it, and nobody who had a
// reservation then is refused at all. Some readings are of one entry and one user.
func TestMirrorRefusesOnlyWhatTheLedgerWould(t *testing.T) {
	server := servers.Redis(t)
	l := connect(t, server, "answer=held", redisstock.Options{})
	s := &served{l, newKeeper(t, l)}
	other := connect(t, server, "", redisstock.Options{})
	number, refusals := 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		number++
		a := onSale(fmt.Sprint("model", number), rapid.IntRange(0, 6).Draw(rt, "units"), rapid.SampledFrom([]uint16{1, 1, 3}).Draw(rt, "buckets"))
		if err := s.Open(t.Context(), a); err != nil {
			rt.Fatal(err)
		}
		g := follow(t, other, a.Activity)
		g.Eager()
		g.Pages(rapid.SampledFrom([]int{1, 2, 1000}).Draw(rt, "page"))
		m := &mirrorModel{t: rt, s: s, g: g, a: a.Activity, holders: map[string]bool{}, refusals: refusals}
		for range rapid.IntRange(1, 25).Draw(rt, "operations") {
			m.operate()
			if rapid.Bool().Draw(rt, "read") {
				m.read()
			}
			m.check()
		}
		m.edit(rapid.IntRange(1, 4).Draw(rt, "last"))
		m.read()
	})
	for _, want := range []error{stock.ErrAllHeld, stock.ErrSoldOut, stock.ErrPaused, stock.ErrEnded, stock.ErrNotOpen} {
		if refusals[want.Error()] == 0 {
			t.Errorf("%q was never refused by: the test shows nothing of it", want)
		}
	}
}

type mirrorModel struct {
	t        *rapid.T
	s        *served
	g        *gateway
	a        stock.ActivityID
	live     []stock.Receipt // held or confirmed
	holders  map[string]bool
	number   int
	shown    map[string]bool // who held something when the mirror last read
	probes   map[string]error
	refusals map[string]int
}

func (m *mirrorModel) operate() {
	m.number++
	ctx := m.g.t.Context()
	switch pick := rapid.IntRange(0, 9).Draw(m.t, "operation"); {
	case pick < 6:
		user := fmt.Sprint("u", rapid.IntRange(0, 9).Draw(m.t, "user"))
		r := stocktest.Request(string(m.a), user, fmt.Sprint("k", m.number), rapid.IntRange(1, 3).Draw(m.t, "quantity"))
		if got, err := insist(ctx, m.s, r); err == nil {
			m.holders[user] = true
			m.live = append(m.live, got)
		}
	case pick < 8 && len(m.live) > 0:
		i := rapid.IntRange(0, len(m.live)-1).Draw(m.t, "which")
		r := m.live[i]
		outcome := rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Confirmed, stock.Released}).Draw(m.t, "outcome")
		if _, err := m.s.Settle(ctx, stock.Settlement{ID: r.ID, User: r.User, Outcome: outcome}); err != nil {
			m.t.Fatal(err)
		}
		m.live = slices.Delete(m.live, i, i+1)
	case pick == 8:
		m.edit(rapid.IntRange(0, 5).Draw(m.t, "edit"))
	}
}

func (m *mirrorModel) edit(kind int) {
	m.number++
	now := stock.MillisOf(time.Now())
	edit := stock.Adjustment{ID: fmt.Sprint("e", m.number), Activity: m.a, At: now}
	switch kind {
	case 0:
		edit.SKU, edit.Delta = "s", rapid.IntRange(-2, 2).Draw(m.t, "delta")
	case 1:
		edit.Phase = rapid.SampledFrom([]stock.Phase{stock.Live, stock.Paused}).Draw(m.t, "phase")
	case 2:
		edit.OpensAt, edit.ClosesAt = now+1_000_000, now+2_000_000
	case 3:
		edit.Phase = rapid.SampledFrom([]stock.Phase{stock.Draining, stock.Closed}).Draw(m.t, "phase")
	case 4:
		edit.OpensAt, edit.ClosesAt = now-60_000, now+2_000_000
	case 5:
		edit.SKU, edit.Limits = "s", &stock.ItemLimits{PerUser: rapid.IntRange(0, 3).Draw(m.t, "limit"), PerOrder: 2}
	}
	_ = m.s.Adjust(m.g.t.Context(), edit) // a refusal changes nothing
}

// read lets the mirror catch up, and asks the ledger what it would answer.
func (m *mirrorModel) read() {
	m.g.settled(m.a)
	m.shown, m.probes = map[string]bool{}, map[string]error{}
	for user := range m.holders {
		m.shown[user] = true
	}
	for i := range 10 {
		user := fmt.Sprint("u", i)
		err := m.g.refuses(m.a, user, 1)
		if err == nil {
			continue
		}
		_, would := m.s.Reserve(m.g.t.Context(), stocktest.Request(string(m.a), user, "probe", 1))
		if would == nil || !errors.Is(would, reason(err)) {
			m.t.Fatalf("the face refuses %s with %v, the ledger says %v", user, err, would)
		}
		m.probes[user] = reason(err)
		m.refusals[reason(err).Error()]++
	}
}

// reason is the sentinel of a refusal.
func reason(err error) error {
	var r *stock.Refusal
	if errors.As(err, &r) {
		return r.Err
	}
	return err
}

// check compares the face with what the ledger said when it was last read.
func (m *mirrorModel) check() {
	for i := range 10 {
		user := fmt.Sprint("u", i)
		err := m.g.refuses(m.a, user, 1)
		if err == nil {
			continue
		}
		if m.shown[user] {
			m.t.Fatalf("%s has a reservation and is refused with %v", user, err)
		}
		if m.probes[user] == nil || !errors.Is(err, m.probes[user]) {
			m.t.Fatalf("%s is refused with %v, and the ledger said %v", user, err, m.probes[user])
		}
	}
}

// A crowd buys everything of four buckets, between which units are moved, while
// mirrors follow: no buyer is ever refused, and once a stranger was refused
// nobody gets anything any more, since nothing comes back in this sale.
func TestMirrorsRaced(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "buckets=4", onSale("raced", 120, 4))
	defer s.k.serve("raced")()
	var refused atomic.Int64 // when first, in ns
	var gateways []*gateway
	for range 2 {
		g := newGateway(t, server, "raced")
		g.Pages(7)
		defer g.run()()
		gateways = append(gateways, g)
	}
	var wg sync.WaitGroup
	var sold atomic.Int64
	ends := time.Now().Add(3 * time.Second)
	latest := ends.Add(20 * time.Second) // on a busy machine
	for c := range 8 {
		wg.Go(func() {
			var mine []string
			for n := 0; time.Now().Before(ends) || (sold.Load() < 120 || refused.Load() == 0) && time.Now().Before(latest); n++ {
				g := gateways[n%2]
				stranger := g.refuses("raced", "stranger", 1)
				if stranger != nil {
					if !errors.Is(stranger, stock.ErrAllHeld) {
						t.Errorf("refused with %v", stranger)
					}
					refused.CompareAndSwap(0, time.Now().UnixNano())
				}
				for _, user := range mine {
					if err := g.refuses("raced", user, 1); err != nil {
						t.Errorf("%s has a unit and is refused with %v", user, err)
					}
				}
				user := fmt.Sprintf("u%d-%d", c, n)
				began := time.Now().UnixNano()
				_, err := s.Reserve(t.Context(), stocktest.Request("raced", user, "k", 1))
				switch first := refused.Load(); {
				case err == nil && first != 0 && began > first:
					t.Errorf("%s got a unit after the face had said that all are held", user)
				case err == nil:
					mine = append(mine, user)
					sold.Add(1)
				case !errors.Is(err, stock.ErrAllHeld) && !errors.Is(err, stock.ErrNotReady):
					t.Errorf("%s: %v", user, err)
				}
			}
		})
	}
	wg.Wait()
	if sold.Load() != 120 || refused.Load() == 0 {
		t.Errorf("%d of 120 sold, first refusal at %d", sold.Load(), refused.Load())
	}
}

// With the guard off, counts are shown before the holders whose units they
// miss: somebody who has just bought the last unit is told that all are held.
func TestCountsBeforeHoldersRefuseAHolder(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "", onSale("guard", 8, 1))
	f := func(careless bool) (wronged bool) {
		t.Helper()
		g := newGateway(t, server, "guard")
		g.Pages(1) // one entry in each reading, so that holders lag behind
		if careless {
			g.Careless()
		}
		g.until("the last is known", func() bool {
			face := g.board.Face("guard")
			wronged = wronged || g.refuses("guard", "last", 1) != nil
			return wronged || face != nil && face.Holds("last")
		})
		g.settled("guard")
		if err := g.refuses("guard", "stranger", 1); !errors.Is(err, stock.ErrAllHeld) {
			t.Errorf("a stranger is told %v", err)
		}
		return wronged
	}
	s.k.pause() // nothing lands, so both are read from the stream
	for i := range 7 {
		buy(t, s, "guard", fmt.Sprint("u", i), 1)
	}
	buy(t, s, "guard", "last", 1)
	do(t, server, "DEL", redisstock.Users(stock.Place{Activity: "guard"})) // and not from the users, whose pages may be as many
	if f(false) {
		t.Error("a holder is refused")
	}
	if !f(true) {
		t.Error("with the guard off no holder is refused: the guard does nothing")
	}
}

// A gateway that joins a sale that is sold out, and one whose place in the
// stream is gone, refuse no holder at any step on their way.
func TestMirrorJoinsLate(t *testing.T) {
	const holders = 400
	server := servers.Redis(t)
	s := followedSale(t, server, "answer=held", onSale("late", holders, 1))
	old := newGateway(t, server, "late")
	old.settled("late")
	for i := range holders {
		buy(t, s, "late", fmt.Sprint("u", i), 1)
	}
	f := func(name string, g *gateway) {
		t.Helper()
		g.Pages(50)
		steps := 0
		g.until(name+" is ready and refuses strangers", func() bool {
			steps++
			for i := range holders {
				if err := g.refuses("late", fmt.Sprint("u", i), 1); err != nil {
					t.Fatalf("%s, step %d: u%d has a unit and is refused with %v", name, steps, i, err)
				}
			}
			return errors.Is(g.refuses("late", "stranger", 1), stock.ErrAllHeld)
		})
		if steps < 5 {
			t.Errorf("%s: ready after %d steps: the bound of a step does not hold", name, steps)
		}
		for i := range holders {
			if !g.board.Face("late").Holds(stock.UserID(fmt.Sprint("u", i))) {
				t.Fatalf("%s does not know u%d", name, i)
			}
		}
	}
	f("joined late", newGateway(t, server, "late"))
	do(t, server, "XTRIM", redisstock.Stream(stock.Place{Activity: "late"}), "MAXLEN", "3")
	f("fell behind", old)
	if !slices.Equal(old.epochs, []uint32{1, 1}) {
		t.Errorf("begun in epochs %v, want twice in 1", old.epochs)
	}
	f("joined a trimmed stream", newGateway(t, server, "late"))
	limits := stock.Adjustment{ID: "limits", Activity: "late", SKU: "s", Limits: &stock.ItemLimits{PerOrder: 1}, At: 1}
	if err := s.Adjust(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	do(t, server, "DEL", redisstock.Stream(stock.Place{Activity: "late"}))
	f("joined without a stream", newGateway(t, server, "late"))
	old.until("has begun again", func() bool { return slices.Equal(old.epochs, []uint32{1, 1, 1}) })
	f("missed all of a stream", old)
}

// What an engine loses: the face stops refusing at once, the new epoch is told,
// and so are the states of reservations in it.
func TestMirrorThroughAnEpoch(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "", onSale("epoch", 2, 1))
	g := newGateway(t, server, "epoch")
	g.settled("epoch")
	serving := s.k.serve("epoch")
	kept := buy(t, s, "epoch", "kept", 1)
	g.until("kept has landed", func() bool { return g.state(kept.ID) == stock.Held })
	serving()
	s.k.pause()
	lost := buy(t, s, "epoch", "lost", 1)
	g.settled("epoch")
	f := func(user string, want error) {
		t.Helper()
		if err := g.refuses("epoch", user, 1); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
	}
	f("stranger", stock.ErrAllHeld)
	f("lost", nil)
	if g.state(lost.ID) != 0 {
		t.Errorf("%s was told to be %s and is pending", lost.ID, g.state(lost.ID))
	}

	do(t, server, "FLUSHALL")
	g.until("not ready", func() bool { return !g.Ready("epoch") })
	if s := g.Standings()[0]; s.NotAccepting != 1 {
		t.Errorf("%+v", s)
	}
	f("stranger", nil)
	if _, err := s.Ledger.Reserve(t.Context(), stocktest.Request("epoch", "x", "k", 1)); !errors.Is(err, stock.ErrNotReady) {
		t.Errorf("the ledger answers %v", err)
	}
	s.k.resume()
	defer s.k.serve("epoch")()
	g.until("the new epoch", func() bool { return slices.Equal(g.epochs, []uint32{1, 2}) })
	g.settled("epoch")
	if s := g.Standings()[0]; s.NotAccepting != 0 {
		t.Errorf("%+v", s)
	}
	f("stranger", nil) // the unit that was lost is free again
	last := buy(t, s, "epoch", "last", 1)
	settle(t, s, kept, stock.Confirmed)
	g.until("states in the new epoch", func() bool { return g.state(last.ID) == stock.Held && g.state(kept.ID) == stock.Confirmed })
	g.settled("epoch")
	f("stranger", stock.ErrAllHeld)
	f("kept", nil)
	f("last", nil)
	settle(t, s, last, stock.Confirmed)
	g.until("sold out", func() bool { return errors.Is(g.refuses("epoch", "stranger", 1), stock.ErrSoldOut) })
	if got := g.Levels("epoch"); !slices.Equal(got, []stock.Level{stock.SoldOut}) {
		t.Errorf("levels %v", got)
	}
}

// A Redis that restarts with all its data does not accept before its keeper has
// seen to it; a gateway that joins in between must not believe what it reads.
func TestMirrorDoesNotBelieveARestartedRedis(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	s := followedSale(t, server, "answer=held", onSale("restart", 1, 1))
	buy(t, s, "restart", "ann", 1)
	g := newGateway(t, server, "restart")
	g.settled("restart")
	s.k.pause()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	late := newGateway(t, server, "restart")
	g.until("not ready", func() bool { return !g.Ready("restart") })
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		g.step()
		late.step()
		if err := errors.Join(g.refuses("restart", "bob", 1), late.refuses("restart", "bob", 1)); err != nil {
			t.Fatalf("refuses with %v", err)
		}
	}
	s.k.resume()
	defer s.k.serve("restart")()
	for _, one := range []*gateway{g, late} {
		one.until("refuses again", func() bool { return errors.Is(one.refuses("restart", "bob", 1), stock.ErrAllHeld) })
	}
}

// Redis stands still: what was read is refused by for 200 ms and not longer,
// though Step does not get to say so, and Step itself is not held up.
func TestMirrorOfAPausedRedis(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "answer=held", onSale("paused", 1, 1))
	buy(t, s, "paused", "ann", 1)
	g := newGateway(t, server, "paused")
	g.settled("paused")
	read := g.Standings()[0].AsOf
	server.Pause()
	defer server.Resume()
	steps := 0
	for ; time.Since(read) < 700*time.Millisecond || steps == 0; steps++ {
		asked := time.Now()
		if err := g.refuses("paused", "bob", 1); err != nil && asked.Sub(read) > 205*time.Millisecond {
			t.Fatalf("refuses %v after the last reading", asked.Sub(read))
		}
		g.step()
		if as := g.Standings()[0].AsOf; as.After(read) {
			read = as // it was answered before it stood still
		}
	}
	if g.Ready("paused") {
		t.Error("ready")
	}
	if steps < 3 { // a reading that is waited for takes a second
		t.Errorf("%d steps in %v", steps, time.Since(read))
	}
	if got := g.Levels("paused"); !slices.Equal(got, []stock.Level{stock.AllHeld}) {
		t.Errorf("levels %v: what was known last is to stay on show", got)
	}
	server.Resume()
	g.until("refuses again", func() bool { return errors.Is(g.refuses("paused", "bob", 1), stock.ErrAllHeld) })
}

// A mirror that does not run, such as that of a process which stood still,
// refuses nobody by what it knew.
func TestMirrorThatDoesNotRun(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "answer=held", onSale("still", 1, 1))
	first := buy(t, s, "still", "ann", 1)
	g := newGateway(t, server, "still")
	g.settled("still")
	settle(t, s, first, stock.Released)
	buy(t, s, "still", "bob", 1)
	timer := time.NewTimer(250 * time.Millisecond)
	<-timer.C
	if err := g.refuses("still", "bob", 1); err != nil {
		t.Errorf("bob has a unit and is refused with %v", err)
	}
	g.settled("still")
	if err := g.refuses("still", "carl", 1); !errors.Is(err, stock.ErrAllHeld) {
		t.Errorf("a stranger is told %v", err)
	}
}

// While units are on their way between buckets nobody is refused; when they
// have arrived and are taken, everybody is.
func TestMirrorWithUnitsInTransit(t *testing.T) {
	server := servers.Redis(t)
	l := connect(t, server, "", redisstock.Options{PullWithin: 50 * time.Millisecond})
	s := &served{l, newKeeper(t, l)}
	open(t, s, onSale("transit", 4, 4))
	g := newGateway(t, server, "transit")
	neighbour := 0 // of ann's bucket, who takes its unit
	for stock.BucketOf(stock.UserID(fmt.Sprint("n", neighbour)), 4) != stock.BucketOf("ann", 4) {
		neighbour++
	}
	buy(t, s, "transit", fmt.Sprint("n", neighbour), 1)
	s.k.pause()
	r := stocktest.Request("transit", "ann", "k", 3)
	if _, err := l.Reserve(t.Context(), r); !errors.Is(err, stock.ErrNotReady) {
		t.Fatal(err)
	}
	for range 10 {
		g.settled("transit")
		if err := g.refuses("transit", "bob", 1); err != nil {
			t.Fatalf("refused with %v", err)
		}
	}
	c, _ := g.board.Face("transit").Counts()
	if it := c.Items[0]; it.InTransit != 3 || it.Free != 0 || it.Free+it.Held+it.Confirmed+it.InTransit != it.Allocated || it.Allocated != 4 || it.Level == stock.SoldOut {
		t.Errorf("%+v", it)
	}
	s.k.resume()
	if _, err := insist(t.Context(), s, r); err != nil {
		t.Fatal(err)
	}
	g.until("all held", func() bool { return errors.Is(g.refuses("transit", "bob", 1), stock.ErrAllHeld) })
	if err := g.refuses("transit", "ann", 1); err != nil {
		t.Errorf("ann is refused with %v", err)
	}
}

// An adjustment that has reached one bucket and not the other is neither shown
// nor refused by, so that whoever made it sees that it has to be made again.
func TestMirrorShowsRulesThatAllBucketsHave(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "", onSale("rules", 8, 2))
	defer s.k.serve("rules")()
	g := newGateway(t, server, "rules")
	g.settled("rules")
	f := func(g *gateway, want stock.Phase, refusal error) {
		t.Helper()
		g.settled("rules")
		if phase, _, _ := g.board.Face("rules").Rules(); phase != want {
			t.Errorf("phase %s, want %s", phase, want)
		}
		if err := g.refuses("rules", "bob", 1); !errors.Is(err, refusal) {
			t.Errorf("refuses with %v, want %v", err, refusal)
		}
	}
	// halfway makes an adjustment that the second bucket does not get.
	halfway := func(a stock.Adjustment) {
		t.Helper()
		s.k.mu.Lock() // nobody rebuilds it yet
		token := s.k.kept[stock.Place{Activity: "rules", Bucket: 1}].token
		err := s.Fence(t.Context(), stock.Place{Activity: "rules", Bucket: 1}, token)
		if err == nil {
			err = s.Ledger.Adjust(t.Context(), a)
		}
		s.k.mu.Unlock()
		if !errors.Is(err, stock.ErrNotReady) {
			t.Fatal(err)
		}
	}
	edit := stock.Adjustment{ID: "pause", Activity: "rules", Phase: stock.Paused, At: 1}
	halfway(edit)
	late := newGateway(t, server, "rules")
	f(g, stock.Live, nil)
	f(late, stock.Live, nil)
	if err := s.Adjust(t.Context(), edit); err != nil {
		t.Fatal(err)
	}
	f(g, stock.Paused, stock.ErrPaused)
	f(late, stock.Paused, stock.ErrPaused)
	edit.ID, edit.Phase = "resume", stock.Live
	halfway(edit)
	f(g, stock.Paused, nil) // some would get units now
	if err := s.Adjust(t.Context(), edit); err != nil {
		t.Fatal(err)
	}
	f(g, stock.Live, nil)
}

// Every reservation is told to be held once, when it has landed, however many
// there are at once; afterwards its end is told.
func TestMirrorTellsWatchers(t *testing.T) {
	const n = 300
	server := servers.Redis(t)
	s := followedSale(t, server, "", onSale("news", n, 2))
	g := newGateway(t, server, "news")
	s.k.pause()
	var all []stock.Receipt
	for i := range n {
		r, err := s.Ledger.Reserve(t.Context(), stocktest.Request("news", fmt.Sprint("u", i), "k", 1))
		if errors.Is(err, stock.ErrNotReady) {
			continue // its bucket has no more, and nobody moves units
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	g.settled("news")
	if len(g.states) != 0 {
		t.Errorf("%d pending reservations were told to be something", len(g.states))
	}
	s.k.resume()
	defer s.k.serve("news")()
	held := func() (count int) {
		for _, r := range all {
			if g.state(r.ID) == stock.Held {
				count++
			}
		}
		return count
	}
	g.until("all are told to be held", func() bool { return held() == len(all) })
	for id, times := range g.told {
		if times != 1 {
			t.Errorf("%s was told %d times", id, times)
		}
	}
	for i, r := range all {
		settle(t, s, r, []stock.Outcome{stock.Confirmed, stock.Released, stock.Expired}[i%3])
	}
	g.until("all ends are told", func() bool { return held() == 0 })
	for i, r := range all {
		if want := []stock.State{stock.Confirmed, stock.Released, stock.Expired}[i%3]; g.state(r.ID) != want {
			t.Errorf("%s was told to be %s, want %s", r.ID, g.state(r.ID), want)
		}
	}
	settle(t, s, all[0], stock.Returned)
	g.until("a return is told", func() bool { return g.state(all[0].ID) == stock.Returned })
}

// A closed activity is refused for good, also when its buckets are retired; one
// that is not followed any more is off the board.
func TestMirrorOfAClosedActivity(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "answer=held", onSale("closed", 2, 2))
	buy(t, s, "closed", "ann", 1)
	g := newGateway(t, server, "closed", "unheard-of")
	g.settled("closed")
	if err := s.Adjust(t.Context(), stock.Adjustment{ID: "close", Activity: "closed", Phase: stock.Closed, At: stock.MillisOf(time.Now())}); err != nil {
		t.Fatal(err)
	}
	g.until("ended", func() bool { return errors.Is(g.refuses("closed", "bob", 1), stock.ErrEnded) })
	s.k.pause()
	for b := range uint16(2) {
		p := stock.Place{Activity: "closed", Bucket: b}
		if err := errors.Join(s.Fence(t.Context(), p, 99), s.Retire(t.Context(), p, 99)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); g.step() {
		if err := g.refuses("closed", "bob", 1); !errors.Is(err, stock.ErrEnded) {
			t.Fatalf("bob is told %v", err)
		}
	}
	if err := g.refuses("closed", "ann", 1); err != nil {
		t.Errorf("ann is told %v", err)
	}
	for _, s := range g.Standings() {
		if s.Activity == "closed" && s.NotAccepting != 0 {
			t.Errorf("%+v", s)
		}
	}
	if g.board.Face("unheard-of") != nil || g.Ready("unheard-of") {
		t.Error("there is a face of what Redis has not got")
	}
	g.Follow(nil)
	g.step()
	if g.board.Face("closed") != nil || len(g.Standings()) != 0 {
		t.Error("it is still there")
	}
}
