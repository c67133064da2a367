package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
	"sluice/test/servers"
)

var errCrash = errors.New("the power is gone")

// crashAt ends landing at the n-th time (from 0) that a step is reached.
func crashAt(s *Sharded, step string, n int) {
	s.step = func(at string) error {
		if at != step {
			return nil
		}
		if n--; n >= 0 {
			return nil
		}
		return errCrash
	}
}

// holdings are what a store has of the log "wal", over all databases.
type holdings struct {
	orders map[stock.ID]int
	events int
	marks  []stock.Cursor
}

func holdingsOf(t *testing.T, s *Sharded) holdings {
	t.Helper()
	h := holdings{orders: map[stock.ID]int{}}
	for _, db := range s.dbs {
		at, err := db.Watermark(t.Context(), "wal")
		must(t, err)
		h.marks = append(h.marks, at)
		h.events += count(t, db.Store, "outbox")
	}
	for _, g := range s.groups {
		_, _, err := g.Snapshot(t.Context(), "flash-1", func(o order.Order) error { h.orders[o.Reservation]++; return nil })
		must(t, err)
	}
	return h
}

// complete says what is wrong with holdings that should be orders 0..n−1.
func (h holdings) complete(n int) (faults []string) {
	if len(h.orders) != n || h.events != n {
		faults = append(faults, fmt.Sprintf("%d orders and %d events, want %d", len(h.orders), h.events, n))
	}
	for r, times := range h.orders {
		if times != 1 {
			faults = append(faults, fmt.Sprintf("%s landed %d times", r, times))
		}
	}
	for i, at := range h.marks {
		if at != position(n) {
			faults = append(faults, fmt.Sprintf("database %d stands at %v", i, at))
		}
	}
	return faults
}

// A crash at each step of a landing over three databases. Whoever lands next,
// with the log or without what was decided of it, leaves each order once.
func TestShardedLandingCrash(t *testing.T) {
	urls := schemas(t, servers.MariaDB(t), 3, "?tables=2")
	f := func(step string, n int, decided bool) {
		t.Run(fmt.Sprint(step, " ", n), func(t *testing.T) {
			s := spreadOver(t, nil, urls...)
			ctx := t.Context()
			token, err := s.Fence(ctx, "wal")
			must(t, err)
			orders := sold(idSource(), 0, 90)
			land(t, s, token, 0, orders[:30])
			crashAt(s, step, n)
			err = s.Land(ctx, order.Batch{Log: "wal", Token: token, From: position(30), To: position(60), Orders: orders[30:60]})
			is(t, "landing", err, errCrash)
			if decided {
				is(t, "landing", err, stock.ErrUnknown)
			}
			s.step = nil
			half := holdingsOf(t, s)
			if n := len(half.orders); !decided && n != 30 || decided && (n <= 30 || n >= 60) {
				t.Fatalf("%d orders right after the crash: %+v", n, half.marks)
			}
			before, err := s.Watermark(ctx, "wal")
			must(t, err)
			equal(t, "watermark", before, position(30))

			// The next lander, in another process.
			s = openSpread(t, urls...)
			if token, err = s.Fence(ctx, "wal"); err != nil {
				t.Fatal(err)
			}
			at, err := s.Watermark(ctx, "wal")
			must(t, err)
			want := 30
			if decided {
				want = 60
			}
			equal(t, "watermark of the next", at, position(want))
			if faults := holdingsOf(t, s).complete(want); len(faults) > 0 {
				t.Errorf("after the fence: %v", faults)
			}
			land(t, s, token, want, orders[want:])
			if faults := holdingsOf(t, s).complete(90); len(faults) > 0 {
				t.Errorf("in the end: %v", faults)
			}
		})
	}
	f(stepWritten, 0, false) // the third database has its rows, uncommitted
	f(stepWritten, 1, false) // and the second
	f(stepDecided, 0, true)  // the first has committed, and no other
	f(stepLanded, 0, true)   // the first and the second
}

// Whoever completes a batch may crash too, and the lander that crashed in
// between may come back and try its batch again.
func TestShardedCompletingCrash(t *testing.T) {
	urls := schemas(t, servers.MariaDB(t), 3, "")
	s := spreadOver(t, nil, urls...)
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(idSource(), 0, 90)
	b := order.Batch{Log: "wal", Token: token, To: position(60), Orders: orders[:60]}
	crashAt(s, stepDecided, 0)
	is(t, "landing", s.Land(ctx, b), errCrash)
	crashAt(s, stepApplied, 0)
	is(t, "watermark is not where the batch begins", s.Land(ctx, b), errCrash)
	s.step = nil
	is(t, "landing again", s.Land(ctx, b), order.ErrWatermark)
	if faults := holdingsOf(t, s).complete(60); len(faults) > 0 {
		t.Error(faults)
	}
	land(t, s, token, 60, orders[60:])
	// All of it again, as one who has the log from its start would.
	b = order.Batch{Log: "wal", Token: token, From: position(90), To: position(91), Orders: orders}
	must(t, s.Land(ctx, b))
	h := holdingsOf(t, s)
	if len(h.orders) != 90 || h.events != 90 {
		t.Errorf("%d orders, %d events", len(h.orders), h.events)
	}
}

// A batch that begins where the first database stands, while others lag: what
// they lack is completed before it.
func TestShardedLandingBehindADecision(t *testing.T) {
	s := spreadOver(t, nil, schemas(t, servers.MariaDB(t), 3, "")...)
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(idSource(), 0, 90)
	crashAt(s, stepDecided, 0)
	is(t, "landing", s.Land(ctx, order.Batch{Log: "wal", Token: token, To: position(60), Orders: orders[:60]}), errCrash)
	s.step = nil
	is(t, "without the fence", s.Land(ctx, order.Batch{Log: "wal", Token: token + 1, From: position(60), To: position(90), Orders: orders[60:]}), order.ErrFenced)
	land(t, s, token, 60, orders[60:])
	if faults := holdingsOf(t, s).complete(90); len(faults) > 0 {
		t.Error(faults)
	}
}

// landEach is landing without a decision: every database commits its part by
// itself, and the watermark is the least of them. That is enough where the log
// is there to be read again.
func landEach(t *testing.T, s *Sharded, b order.Batch, databases int) {
	t.Helper()
	whole, err := prepareLanding(b)
	must(t, err)
	d := s.divide(whole, nil)
	for i := range databases {
		must(t, s.dbs[i].writing(t.Context(), "land", func(c *conn) error {
			at, err := d.parts[i].step(c)
			if err != nil || !before(at, b.To) {
				return err // landed before
			}
			return d.advance(c, i)
		}))
	}
}

// With the guard off: the lander dies between two databases, and the ledger
// loses that part of its log. The first database has orders for which users see
// "held"; those of the others are nowhere, though the book that accepted them had
// them in one batch, and no reading of what is left of the log brings them back.
// With the guard on, the batch is whole, without the log.
func TestShardedLandingWithoutDecision(t *testing.T) {
	d := servers.MariaDB(t)
	s := pair(t, d, "")
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(idSource(), 0, 40)
	b := order.Batch{Log: "wal", Token: token, To: position(40), Orders: orders}
	landEach(t, s, b, 1)
	lost := holdingsOf(t, s)
	if n := len(lost.orders); n == 0 || n == 40 {
		t.Fatalf("%d orders after a crash in between", n)
	}
	// The log that can be read again makes it good: nothing twice.
	landEach(t, s, b, 2)
	if faults := holdingsOf(t, s).complete(40); len(faults) > 0 {
		t.Errorf("with the log: %v", faults)
	}

	s = pair(t, d, "")
	if token, err = s.Fence(ctx, "wal"); err != nil {
		t.Fatal(err)
	}
	b.Token = token
	landEach(t, s, b, 1)
	// The log is gone: nothing can be completed, and that is an error, not a
	// silence. A keeper that went on would leave the others lost.
	if err := s.complete(ctx, "wal"); !errors.Is(err, stock.ErrCorrupt) {
		t.Errorf("a batch of which nothing is left: %v", err)
	}
	if faults := holdingsOf(t, s).complete(40); len(faults) == 0 {
		t.Error("with the guard off nothing was lost")
	}
}

// Landers that take the log from each other, while some die at any step: every
// entry lands once, and no database is left behind.
func TestShardedLandersRace(t *testing.T) {
	urls := schemas(t, servers.MariaDB(t), 3, "")
	spreadOver(t, nil, urls...)
	const total, size = 240, 8
	orders := sold(idSource(), 0, total)
	var mu sync.Mutex
	var steps int
	lander := func(s *Sharded) error {
		s.step = func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if steps++; steps%17 == 0 {
				return errCrash
			}
			return nil
		}
		expected := func(err error) bool {
			return errors.Is(err, errCrash) || errors.Is(err, order.ErrFenced) || errors.Is(err, order.ErrWatermark)
		}
		for {
			token, err := s.Fence(context.Background(), "wal")
			for err == nil {
				var at stock.Cursor
				if at, err = s.Watermark(context.Background(), "wal"); err != nil {
					break
				}
				from := int(at.Position)
				if from == total {
					return nil
				}
				to := min(from+size, total)
				err = s.Land(context.Background(), order.Batch{Log: "wal", Token: token, From: at, To: position(to), Orders: orders[from:to]})
			}
			if !expected(err) {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		s := openSpread(t, urls...)
		wg.Go(func() {
			if err := lander(s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := openSpread(t, urls...)
	_, err := s.Fence(t.Context(), "wal")
	must(t, err)
	if faults := holdingsOf(t, s).complete(total); len(faults) > 0 {
		t.Error(faults)
	}
}

// What the proof and a rebuilding read while a batch is half-way: the proof sees
// the place before it, on all sides; a rebuilding completes it.
func TestShardedReadsHalfWay(t *testing.T) {
	s := pair(t, servers.MariaDB(t), "?tables=2")
	ctx := t.Context()
	const log = stock.LogID("flash-1/3")
	inLog := func(landed []order.Landed) []order.Landed {
		for i := range landed {
			o := &landed[i].Order
			o.Reservation.Bucket, o.Position.Log = 3, log
		}
		return landed
	}
	at := func(n uint64) stock.Cursor { return stock.Cursor{Log: log, Epoch: 1, Position: n} }
	rule := func(id string, n uint64) stock.Entry {
		return stock.Entry{Cursor: at(n), Activity: "flash-1", Bucket: 3, Kind: stock.EntryAdjusted, Adjustment: &stock.Adjustment{ID: id, Activity: "flash-1", SKU: "sku-1", Delta: 1}}
	}
	token, err := s.Fence(ctx, log)
	must(t, err)
	orders := inLog(sold(idSource(), 0, 60))
	must(t, s.Land(ctx, order.Batch{Log: log, Token: token, To: at(30), Orders: orders[:30], Rules: []stock.Entry{rule("a", 30)}}))
	crashAt(s, stepDecided, 0)
	is(t, "landing", s.Land(ctx, order.Batch{Log: log, Token: token, From: at(30), To: at(60), Orders: orders[30:], Rules: []stock.Entry{rule("b", 60)}}), errCrash)
	s.step = nil

	check := func(what string, n int, mark stock.Cursor, rules []stock.Entry, got []order.Order, undelivered []outbox.Message, wantRules int) {
		t.Helper()
		equal(t, what+": watermark", mark, at(uint64(n)))
		equal(t, what+": rules", len(rules), wantRules)
		equal(t, what+": undelivered", len(undelivered), n)
		if len(got) != n {
			t.Fatalf("%s: %d orders, want %d", what, len(got), n)
		}
		for i, o := range got {
			equal(t, what+": order", o.ID, orders[i].Order.ID)
		}
		keys := map[string]bool{}
		for _, o := range got {
			keys[string(o.ID)] = true
		}
		if slices.ContainsFunc(undelivered, func(m outbox.Message) bool { return !keys[m.Key] }) {
			t.Errorf("%s: an event of an order that is left out", what)
		}
	}
	inspect := func(n, wantRules int) {
		t.Helper()
		var got []order.Order
		var mark stock.Cursor
		visit := func(o order.Order) error { got = append(got, o); return nil }
		rules, undelivered, err := s.Inspect(ctx, log, func(c stock.Cursor) error { mark = c; return nil }, visit)
		must(t, err)
		check("inspect", n, mark, rules, got, undelivered, wantRules)
		got = nil
		marks, undelivered, err := s.Snapshot(ctx, "flash-1", visit)
		must(t, err)
		check("snapshot", n, marks[log], rules, got, undelivered, wantRules)
	}
	inspect(30, 1)
	enough := errors.New("enough")
	if _, _, err := s.Snapshot(ctx, "flash-1", func(order.Order) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of visit: %v", err)
	}
	kept, err := s.Kept(ctx, log)
	must(t, err)
	equal(t, "kept: watermark", kept.Watermark, at(60))
	equal(t, "kept: rules", len(kept.Rules), 2)
	equal(t, "kept: reservations", len(kept.Reservations), 60)
	for i, r := range kept.Reservations {
		equal(t, "kept: order", r.Order, orders[i].Order.ID)
	}
	inspect(60, 2)

	// An order that was deleted by hand is put back where its user is.
	o := orders[7]
	g := s.groups[s.groupOfUser(o.Order.User)]
	must(t, g.writing(ctx, "vandal", func(c *conn) error {
		n, _ := rowID(o.Order.ID)
		_, err := c.exec("DELETE FROM "+g.orders.name+" WHERE id = ?", n)
		return err
	}))
	_, err = s.Get(ctx, o.Order.ID)
	is(t, "a deleted order", err, order.ErrNoSuchOrder)
	must(t, s.Reland(ctx, o))
	if _, err := s.Get(ctx, o.Order.ID); err != nil {
		t.Errorf("after it was landed again: %v", err)
	}
}
