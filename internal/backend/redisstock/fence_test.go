package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// sale is one of ten units in one bucket, of which four are landed and two more
// were accepted after the keeper had stopped landing.
type sale struct {
	*served
	server  *servers.Server
	image   string // the server's files between the landed and the others
	landed  []stock.Receipt
	pending []stock.Receipt
}

const saleUnits = 10

func newSale(t *testing.T, server *servers.Server) *sale {
	t.Helper()
	s := &sale{served: serve(t, server, ""), server: server, image: t.TempDir()}
	open(t, s.served, stocktest.Allocation("sale", saleUnits, 1))
	buy := func(user string) stock.Receipt {
		t.Helper()
		r, err := s.Reserve(t.Context(), stocktest.Request("sale", user, "k", 1))
		if err != nil || r.State != stock.Pending {
			t.Fatalf("%s: %+v, %v", user, r, err)
		}
		return r
	}
	for i := range 4 {
		s.landed = append(s.landed, buy(fmt.Sprint("landed", i)))
	}
	s.settled(t)
	s.k.pause()
	if err := s.server.Image(s.image); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s.pending = append(s.pending, buy(fmt.Sprint("pending", i)))
	}
	return s
}

// settled waits until the keeper has landed everything.
func (s *sale) settled(t testing.TB) {
	t.Helper()
	defer s.k.serve("sale")()
	for t.Context().Err() == nil {
		c, err := s.Counts(t.Context(), "sale")
		if err != nil {
			continue // it is being rebuilt
		}
		s.k.mu.Lock()
		at := s.k.kept[stock.Place{Activity: "sale"}].landed
		s.k.mu.Unlock()
		if c.Position.Epoch == at.Epoch && c.Position.Position == at.Position {
			return
		}
	}
}

// closed checks that nothing is accepted and nothing is said to be gone, by a
// gateway that has been there all along and by one that has just started.
func (s *sale) closed(t *testing.T, fresh *redisstock.Ledger) {
	t.Helper()
	broken := 0 // connections, of which the old gateway has a few
	for i := range 10 {
		for name, l := range map[string]*redisstock.Ledger{"old": s.Ledger, "fresh": fresh} {
			got, err := l.Reserve(t.Context(), stocktest.Request("sale", fmt.Sprint("late", i), "k", 1))
			if errors.Is(err, stock.ErrUnknown) && broken < 4 {
				broken++
				continue
			}
			if !errors.Is(err, stock.ErrNotReady) {
				t.Errorf("%s gateway reserves: %+v, %v", name, got, err)
			}
			for _, r := range slices.Concat(s.landed, s.pending) {
				if got, err := l.Lookup(t.Context(), stock.Ref{ID: r.ID, User: r.User}); !errors.Is(err, stock.ErrNotReady) {
					t.Errorf("%s gateway looks %s up: %+v, %v", name, r.ID, got, err)
				}
			}
			if got, err := l.Settle(t.Context(), stock.Settlement{ID: s.landed[0].ID, User: s.landed[0].User, Outcome: stock.Expired}); !errors.Is(err, stock.ErrNotReady) {
				t.Errorf("%s gateway settles: %v, %v", name, got, err)
			}
		}
	}
}

// reopened lets the keeper do its work and checks that what had landed is kept,
// that what is lost is refused, and that exactly the rest can be sold.
func (s *sale) reopened(t *testing.T, l *redisstock.Ledger, survived bool) {
	t.Helper()
	s.k.resume()
	s.settled(t)
	f := func(r stock.Receipt, want stock.State) {
		t.Helper()
		got, err := l.Lookup(t.Context(), stock.Ref{ID: r.ID, User: r.User})
		if err != nil || got.State != want || got.ID != r.ID || want == stock.Held && got.Order != r.Order {
			t.Errorf("%s is %+v, %v; want %s", r.ID, got, err, want)
		}
	}
	for _, r := range s.landed {
		f(r, stock.Held)
	}
	left := saleUnits - len(s.landed)
	for _, r := range s.pending {
		if survived {
			f(r, stock.Held)
			left--
		} else {
			f(r, stock.Refused)
		}
	}
	again, err := l.Reserve(t.Context(), stocktest.Request("sale", string(s.landed[0].User), "k", 1))
	if err != nil || again.ID != s.landed[0].ID || !again.Replayed || string(again.Terms) != `{"total":1}` {
		t.Errorf("a landed key again: %+v, %v", again, err)
	}
	sold := 0
	for i := range 2 * saleUnits {
		_, err := l.Reserve(t.Context(), stocktest.Request("sale", fmt.Sprint("after", i), "k", 1))
		if err == nil {
			sold++
		} else if !errors.Is(err, stock.ErrAllHeld) {
			t.Error(err)
		}
	}
	s.settled(t)
	if it := count(t, l, "sale"); sold != left || it.Held != saleUnits || len(s.k.refused) != 0 {
		t.Errorf("%d sold, want %d; %+v; the book refused %v", sold, left, it, s.k.refused)
	}
}

// Whatever a Redis loses, it accepts nothing until the keeper has rebuilt it.
func TestFence(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	f := func(name string, survived bool, fault func(s *sale) error) {
		t.Run(name, func(t *testing.T) {
			s := newSale(t, server)
			if err := fault(s); err != nil {
				t.Fatal(err)
			}
			fresh := connect(t, server, "", redisstock.Options{CallerTime: true})
			s.closed(t, fresh)
			s.reopened(t, fresh, survived)
		})
	}
	f("restarts with all it had", true, func(s *sale) error { s.server.Kill(); return s.server.Restart() })
	f("restarts empty", false, func(s *sale) error { return s.server.RestartEmpty() })
	f("restarts rolled back", false, func(s *sale) error { return s.server.RestartFrom(s.image) })
	f("forgets its scripts", true, func(s *sale) error { do(t, s.server, "SCRIPT", "FLUSH"); return nil })
	f("is emptied", false, func(s *sale) error { do(t, s.server, "FLUSHALL"); return nil })
	f("is emptied and restarts", false, func(s *sale) error { do(t, s.server, "FLUSHALL"); s.server.Kill(); return s.server.Restart() })
}

// A replica that is promoted has the data, or most of it, and no scripts.
func TestFencePromotedReplica(t *testing.T) {
	pair := servers.RedisWithReplica(t)
	s := newSale(t, pair.Primary)
	pair.Replica.Pause() // it will not have what is accepted from here on
	for i := range 2 {
		r, err := s.Ledger.Reserve(t.Context(), stocktest.Request("sale", fmt.Sprint("more", i), "k", 1))
		if err != nil {
			t.Fatal(err)
		}
		s.pending = append(s.pending, r)
	}
	pair.Primary.Kill()
	pair.Replica.Resume()
	if err := pair.Promote(); err != nil {
		t.Fatal(err)
	}
	l := connect(t, pair.Primary, "", redisstock.Options{CallerTime: true})
	s.Ledger, s.k.l, s.server = l, l, pair.Primary
	s.closed(t, connect(t, pair.Primary, "", redisstock.Options{CallerTime: true}))
	s.k.resume()
	s.settled(t)
	held := 0
	for _, r := range s.pending {
		got, err := l.Lookup(t.Context(), stock.Ref{ID: r.ID, User: r.User})
		if err != nil || got.State != stock.Held && got.State != stock.Refused {
			t.Errorf("%s: %+v, %v", r.ID, got, err)
		}
		if got.State == stock.Held {
			held++
		}
	}
	if it := count(t, l, "sale"); it.Held != len(s.landed)+held {
		t.Errorf("%d of those who were pending are held; %+v", held, it)
	}
}

// With the guard off, the same loss oversells: scripts that are sent again when
// Redis does not know them, as clients do by themselves.
func TestOversoldWithoutTheFence(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	s := newSale(t, server)
	if err := server.RestartFrom(s.image); err != nil {
		t.Fatal(err)
	}
	naive := connect(t, server, "", redisstock.Options{CallerTime: true})
	if err := redisstock.LoadScripts(t.Context(), naive, stock.Place{Activity: "sale"}, 1); err != nil {
		t.Fatal(err)
	}
	promised := len(s.landed) + len(s.pending)
	for i := range 2 * saleUnits {
		if _, err := naive.Reserve(t.Context(), stocktest.Request("sale", fmt.Sprint("after", i), "k", 1)); err == nil {
			promised++
		}
	}
	if promised <= saleUnits {
		t.Errorf("%d promised of %d units: this test shows nothing", promised, saleUnits)
	}
}

// A rolled-back Redis that does have the scripts, as a primary that was demoted
// and promoted again would, is found out by whoever has seen what it lost.
func TestLostTailIsNoticed(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	f := func(name string, notice func(s *sale) error) {
		t.Run(name, func(t *testing.T) {
			s := newSale(t, server)
			if err := server.RestartFrom(s.image); err != nil {
				t.Fatal(err)
			}
			fresh := connect(t, server, "", redisstock.Options{CallerTime: true})
			if err := redisstock.LoadScripts(t.Context(), fresh, stock.Place{Activity: "sale"}, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := fresh.Counts(t.Context(), "sale"); err != nil {
				t.Fatalf("nobody has noticed yet: %v", err)
			}
			for range 2 { // the first may find its connection broken
				if err := notice(s); !errors.Is(err, stock.ErrNotReady) && !errors.Is(err, stock.ErrUnknown) {
					t.Fatalf("not noticed: %v", err)
				}
			}
			s.closed(t, fresh)
			s.reopened(t, fresh, false)
		})
	}
	f("by a gateway that reserves", func(s *sale) error {
		_, err := s.Ledger.Reserve(t.Context(), stocktest.Request("sale", "eve", "k", 1))
		return err
	})
	f("by a gateway that settles", func(s *sale) error {
		_, err := s.Settle(t.Context(), stock.Settlement{ID: s.landed[0].ID, User: s.landed[0].User, Outcome: stock.Expired})
		return err
	})
	f("by a gateway that reads", func(s *sale) error {
		_, err := s.Counts(t.Context(), "sale")
		return err
	})
	f("by landing", func(s *sale) error {
		return s.Landed(t.Context(), stock.Cursor{Log: stock.Place{Activity: "sale"}.Log(), Epoch: 1, Position: 6})
	})
	f("by its keeper", func(s *sale) error { return heard(t, s.Ledger, stock.Place{Activity: "sale"}, 1) })
}

// bookOf is a book in an epoch with so many users who hold a unit each.
func bookOf(t *testing.T, activity string, epoch uint32, users int) *stock.Book {
	t.Helper()
	a := stocktest.Allocation(activity, users+5, 1)
	rules := []stock.Entry{{Activity: a.Activity, Sequence: 1, Kind: stock.EntryOpened, Allocation: &a}}
	b, err := stock.Restore(epoch, rules, func(yield func(stock.Reservation, error) bool) {
		for i := range users {
			r := stocktest.Request(activity, fmt.Sprint("u", i), "k", 1)
			one := stock.Reservation{ID: stock.ID{Activity: a.Activity, Epoch: epoch - 1, Number: uint64(i + 1)}, User: r.User, Key: r.Key, Order: r.Order,
				Fingerprint: r.Fingerprint, Lines: r.Lines, Terms: []byte(fmt.Sprint("terms", i%700)), Claims: []string{fmt.Sprint("claim", i)}, State: stock.Held, At: r.At}
			if !yield(one, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A token smaller than one that was seen changes nothing, at any step.
func TestStaleKeeper(t *testing.T) {
	l, p := serve(t, servers.Redis(t), "").Ledger, stock.Place{Activity: "stale"}
	f := func(step string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", step, err, want)
		}
	}
	ctx := t.Context()
	f("fence", l.Fence(ctx, p, 7), nil)
	f("older fence", l.Fence(ctx, p, 6), stock.ErrStale)
	f("activate before restore", l.Activate(ctx, p, 7, 2), stock.ErrNotReady)
	f("older restore", l.Restore(ctx, p, 6, bookOf(t, "stale", 2, 1)), stock.ErrStale)
	f("restore", l.Restore(ctx, p, 7, bookOf(t, "stale", 2, 3)), nil)
	f("newer fence", l.Fence(ctx, p, 8), nil)
	f("activate", l.Activate(ctx, p, 7, 2), stock.ErrStale)
	f("the newer keeper's restore", l.Restore(ctx, p, 8, bookOf(t, "stale", 3, 2)), nil)
	f("of another epoch", l.Activate(ctx, p, 8, 2), stock.ErrNotReady)
	f("restore again", l.Restore(ctx, p, 8, bookOf(t, "stale", 3, 2)), nil)
	_, err := l.Head(ctx, p, 3)
	f("head before", err, stock.ErrNotReady)
	f("the newer keeper's activate", l.Activate(ctx, p, 8, 3), nil)
	f("restore while it accepts", l.Restore(ctx, p, 8, bookOf(t, "stale", 4, 2)), stock.ErrNotReady)
	f("twice", l.Activate(ctx, p, 8, 3), stock.ErrNotReady)
	f("older retire", l.Retire(ctx, p, 7), stock.ErrStale)
	f("retire before the fence", l.Retire(ctx, p, 8), stock.ErrNotReady)
	at, err := l.Head(ctx, p, 3)
	f("head", err, nil)
	if want := (stock.Cursor{Log: p.Log(), Epoch: 3}); at != want {
		t.Errorf("head %+v, want %+v", at, want)
	}
	if it := count(t, l, "stale"); it.Held != 2 || it.Free != 5 {
		t.Errorf("%+v", it)
	}
	f("fence again", l.Fence(ctx, p, 9), nil)
	f("retire", l.Retire(ctx, p, 9), nil)
}

// What a gateway meets while a bucket that it knew to accept is fenced, and
// that steps of a restore which are not one attempt do not count.
func TestFencedMeanwhile(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	s := newSale(t, server)
	ctx, p, first := t.Context(), stock.Place{Activity: "sale"}, s.landed[0]
	f := func(step string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", step, err, want)
		}
	}
	gateway := func() *redisstock.Ledger { // that has read, so that it knows the epoch
		t.Helper()
		l := connect(t, server, "", redisstock.Options{CallerTime: true})
		count(t, l, "sale")
		return l
	}
	gateways := []*redisstock.Ledger{gateway(), gateway(), gateway(), gateway(), gateway(), gateway()}
	f("fence", s.Fence(ctx, p, 100), nil)
	_, err := gateways[0].Reserve(ctx, stocktest.Request("sale", "eve", "k", 1))
	f("reserve", err, stock.ErrNotReady)
	_, err = gateways[1].Lookup(ctx, stock.Ref{ID: first.ID, User: first.User})
	f("lookup", err, stock.ErrNotReady)
	_, err = gateways[2].Settle(ctx, stock.Settlement{ID: first.ID, User: first.User, Outcome: stock.Expired})
	f("settle", err, stock.ErrNotReady)
	f("adjust", gateways[3].Adjust(ctx, stock.Adjustment{ID: "x", Activity: "sale", Phase: stock.Paused}), stock.ErrNotReady)
	_, err = gateways[4].Counts(ctx, "sale")
	f("counts", err, stock.ErrNotReady)
	f("landed", gateways[5].Landed(ctx, stock.Cursor{Log: p.Log(), Epoch: 1, Position: 5}), stock.ErrNotReady)

	f("begin", redisstock.RestoreStep(ctx, s.Ledger, p, "100", "a", "0", "m", "place", "x"), nil)
	f("a step is missing", redisstock.RestoreStep(ctx, s.Ledger, p, "100", "a", "2", "c", "x"), stock.ErrNotReady)
	f("of another attempt", redisstock.RestoreStep(ctx, s.Ledger, p, "100", "b", "1", "c", "x"), stock.ErrNotReady)

	f("restore", s.Restore(ctx, p, 100, bookOf(t, "sale", 2, 2)), nil)
	image := t.TempDir()
	if err := server.Image(image); err != nil {
		t.Fatal(err)
	}
	f("restore again", s.Restore(ctx, p, 100, bookOf(t, "sale", 3, 7)), nil)
	if err := server.RestartFrom(image); err != nil { // it has the first attempt, whole
		t.Fatal(err)
	}
	f("activate", s.Activate(ctx, p, 100, 3), stock.ErrNotReady)
	f("head", heard(t, s.Ledger, p, 3), stock.ErrNotReady)
}

// A restore that stops half way leaves nothing that accepts, and neither do two
// at once: the newer keeper's counts.
func TestRestoreInterrupted(t *testing.T) {
	server := servers.Redis(t)
	s := serve(t, server, "")
	p, user := stock.Place{Activity: "half"}, stocktest.Request("half", "eve", "k", 1)
	var accepting atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var hammer sync.WaitGroup
	hammer.Go(func() {
		for ctx.Err() == nil {
			before := accepting.Load()
			if got, err := s.Ledger.Reserve(ctx, user); err == nil && !before && !accepting.Load() {
				t.Errorf("accepted before it was activated: %+v", got)
			}
		}
	})
	token := uint64(0)
	book := func(epoch uint32) *stock.Book { return bookOf(t, "half", epoch, 8000) }
	for i := range 8 {
		token++
		if err := s.Fence(ctx, p, token); err != nil {
			t.Fatal(err)
		}
		given, cut := context.WithCancel(ctx)
		var newer sync.WaitGroup
		newer.Go(func() { // cuts it off somewhere, by giving up or by a newer keeper
			for range i * 100 {
				do(t, server, "PING")
			}
			if i%2 == 0 {
				cut()
			} else if err := s.Fence(ctx, p, token+1); err != nil {
				t.Error(err)
			}
		})
		err := s.Restore(given, p, token, book(2))
		newer.Wait()
		cut()
		if i%2 == 1 {
			if err == nil {
				err = s.Activate(ctx, p, token, 2)
			}
			if !errors.Is(err, stock.ErrStale) {
				t.Errorf("the older keeper: %v", err)
			}
			token++
		} else if err != nil {
			if err := s.Activate(ctx, p, token, 2); !errors.Is(err, stock.ErrNotReady) {
				t.Errorf("half a restore is activated: %v", err)
			}
		}
	}
	if err := s.Restore(ctx, p, token, book(2)); err != nil {
		t.Fatal(err)
	}
	accepting.Store(true)
	if err := s.Activate(ctx, p, token, 2); err != nil {
		t.Fatal(err)
	}
	stop() // who asks together shares an answer, and the hammer may have asked before
	hammer.Wait()
	for i := range 8000 {
		if i%97 != 0 {
			continue
		}
		r, err := s.Lookup(t.Context(), stock.Ref{Activity: "half", User: stock.UserID(fmt.Sprint("u", i)), Key: "k"})
		if err != nil || r.ID.Number != uint64(i+1) || string(r.Terms) != fmt.Sprint("terms", i%700) {
			t.Fatalf("u%d: %+v, %v", i, r, err)
		}
	}
	used := stocktest.Request("half", "zoe", "k", 1)
	used.Claims = []string{"claim4711"}
	if _, err := s.Ledger.Reserve(t.Context(), used); !errors.Is(err, stock.ErrClaimUsed) {
		t.Errorf("a claim that was used: %v", err)
	}
}
