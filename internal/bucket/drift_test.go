package bucket_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// lively is a world in which somebody always buys, pays or cancels, and every
// worker's auditor is at work.
type lively struct {
	*world
	path string // of the database
}

func newLively(t *testing.T) *lively {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shop.db")
	store, err := sqlstore.Open(t.Context(), path, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &lively{newWorld(t, t.Context(), store, 2, 4000, 0), path}
	w.hire()
	w.serve()
	return w
}

// live goes on for a while.
func (w *lively) live(d time.Duration) {
	w.Helper()
	for until := w.clock.Add(d); w.clock.Before(until); {
		w.clock = w.clock.Add(200 * time.Millisecond)
		if _, err := w.buy(stock.UserID(fmt.Sprint("u", w.orders)), "k", 1); err != nil {
			w.Fatalf("buy: %v", err)
		}
		if n := len(w.bought); n > 20 {
			w.change(w.bought[n-20], []order.Action{order.ActionPay, order.ActionCancel, order.ActionPay}[n%3])
		}
		w.handle()
		for _, k := range w.workers {
			k.step()
			k.inspect()
		}
		if _, err := w.fleet.Step(w.ctx); err != nil {
			w.Fatalf("%v", err)
		}
	}
}

// find answers a purchase whose order is in a state.
func (w *lively) find(state order.State) *bought {
	w.Helper()
	for _, b := range w.bought {
		if o, err := w.store.Get(w.ctx, b.order); err == nil && o.State == state {
			return b
		}
	}
	w.Fatalf("no order is %s", state)
	return nil
}

// edit writes into an order row what no part of the program would.
func (w *lively) edit(b *bought, by func(*order.Order)) {
	w.Helper()
	w.must(w.store.Update(w.ctx, b.order, func(o *order.Order) ([]outbox.Message, error) { by(o); return nil, nil }))
}

// sql does to the database what somebody may who has the file.
func (w *lively) sql(statement string, value string) {
	w.Helper()
	db, err := sql.Open("sqlite", w.path)
	w.must(err)
	done, err := db.Exec(statement, value)
	w.must(err)
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		w.Fatalf("%s: %d rows, %v", statement, n, err)
	}
	w.must(db.Close())
}

// TestPlantedDrifts: each kind of drift is found under purchases that go on, by
// the workers' own rounds, and raises one alarm; until then nothing is.
func TestPlantedDrifts(t *testing.T) {
	f := func(name, want string, plant func(w *lively), patience time.Duration, check func(w *lively, r proof.Report)) {
		t.Run(name, func(t *testing.T) {
			w := newLively(t)
			w.live(20 * time.Second)
			if r := w.check(); !r.OK || w.alarms.Counts()[order.AlarmProof] != 0 {
				t.Fatalf("before: %+v", r)
			}
			w.planted = true
			plant(w)
			began := w.clock
			for w.alarms.Counts()[order.AlarmProof] == 0 && w.clock.Sub(began) < 2*time.Minute {
				w.live(time.Second)
			}
			took := w.clock.Sub(began)
			w.live(15 * time.Second)
			r, err := w.fleet.Report(w.ctx, w.sale.Activity)
			w.must(err)
			if r.OK || !slices.ContainsFunc(r.Violations, func(v string) bool { return strings.Contains(v, want) }) || len(r.Incomplete) > 0 {
				t.Fatalf("want %q: %+v", want, r)
			}
			if n := w.alarms.Counts()[order.AlarmProof]; n != uint64(r.Found) {
				t.Errorf("%d alarms for %q", n, r.Violations)
			}
			if took > patience {
				t.Errorf("found after %v, want it within %v", took, patience)
			}
			if check != nil {
				check(w, r)
			}
		})
	}
	const soon = 16 * time.Second
	f("a count changed in the engine", "counts of cup are off the book's by +0 allocated, +3 free, -2 held", func(w *lively) {
		w.engine.Skew(w.places()[1], stock.Count{SKU: "cup", Free: 3, Held: -2})
	}, soon, (*lively).rebuilt)
	f("an order's state changed", "is paid, its reservation", func(w *lively) {
		w.edit(w.find(order.Created), func(o *order.Order) { o.State = order.Paid })
	}, soon, nil)
	f("an order deleted", "has no order though it is behind the landing watermark", func(w *lively) {
		w.sql("DELETE FROM orders WHERE id = ?", string(w.find(order.Paid).order))
	}, soon, nil)
	f("a capture lost", "is paid with 0 captured for a total of 100", func(w *lively) {
		w.edit(w.find(order.Paid), func(o *order.Order) { o.Money.Captures = nil })
	}, soon, nil)
	f("late money that nobody decides about", "nobody will decide about it", func(w *lively) {
		w.edit(w.find(order.Cancelled), func(o *order.Order) {
			o.Money.Captures = []order.Capture{{ID: "c", Payment: "p", Amount: o.Terms.Money(), Late: true, CheckAt: 5}}
		})
	}, soon, nil)
	f("an event given up", "dead letter", func(w *lively) {
		w.change(w.find(order.Created), order.ActionCancel)
		waiting := w.pending()
		w.must(w.store.Bury(w.ctx, waiting[len(waiting)-1].ID, "planted"))
	}, soon, func(w *lively, r proof.Report) {
		if len(r.Drifts) != 1 || r.Drifts[0].Kind != proof.Redrive || r.Drifts[0].Letter == 0 {
			t.Errorf("%+v", r.Drifts)
		}
	})
	f("a debit without its credit", "bucket 1 has not got them", func(w *lively) {
		w.noCredit = true
		w.pull(0, 1, 2)
	}, proof.TransitPatience+soon, func(w *lively, r proof.Report) {
		if r.Ledger[0].InTransit != 2 || r.Ledger[0].Allocated != 4000 {
			t.Errorf("%+v", r.Ledger)
		}
		w.noCredit, w.planted = false, false
		w.live(10 * time.Second)
		if r := w.check(); !r.OK || r.Ledger[0].InTransit != 0 {
			t.Errorf("after the credit: %+v", r)
		}
	})
	f("a share changed in the rules", "its share of all", func(w *lively) {
		w.sql("UPDATE rules SET doc = replace(doc, '2000', '1990') WHERE log = ? AND id = ''", string(w.places()[1].Log()))
	}, soon, nil)
}

// rebuilt repairs a drift of an engine under purchases.
func (w *lively) rebuilt(r proof.Report) {
	w.Helper()
	log := w.places()[1].Log()
	hands := proof.Hands{Rebuild: w.fleet.Rebuild}
	repairs := proof.NewRepairer(w.fleet, hands, w.store, w.now)
	if _, err := repairs.Repair(w.ctx, w.sale.Activity, proof.RepairRequest{ID: "0", Kind: proof.Rebuild, Log: w.places()[0].Log(), Reason: "x"}); err == nil {
		w.Errorf("a bucket without a drift was rebuilt")
	}
	ask := proof.RepairRequest{ID: "1", Kind: proof.Rebuild, Log: log, Reason: "somebody edited it"}
	before := w.watermark(w.places()[1]).Epoch
	is, err := repairs.Repair(w.ctx, w.sale.Activity, ask)
	w.must(err)
	if is.DoneAt.IsZero() || len(is.Drifts) != 1 || w.watermark(w.places()[1]).Epoch != before+1 || w.watermark(w.places()[0]).Epoch != 1 {
		w.Fatalf("%+v, epochs %d → %d", is, before, w.watermark(w.places()[1]).Epoch)
	}
	if again, err := repairs.Repair(w.ctx, w.sale.Activity, ask); err != nil || again.DoneAt != is.DoneAt {
		w.Errorf("again: %+v, %v", again, err)
	}
	w.planted = false
	w.live(10 * time.Second)
	if r := w.check(); !r.OK || r.Buckets[1].LimitsFrom == nil || r.Buckets[1].LimitsFrom.Epoch != before+1 || r.Buckets[0].LimitsFrom != nil {
		w.Fatalf("after the repair: %+v", r)
	}
	if asks, err := w.store.Asks(w.ctx); err != nil || len(asks) != 0 {
		w.Errorf("asked for still: %v, %v", asks, err)
	}
}

// A book that was made from the store knows of orders what their events have
// not told the engine yet. That is no drift.
func TestBookAheadOfTheEngine(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 1, 10, 0)
	old := w.hire()
	w.serve()
	i := w.sell("ann", "bob", "cy")
	w.serve()
	w.change(w.bought[i], order.ActionCancel)
	w.change(w.bought[i+1], order.ActionPay)
	w.must(old.Close(t.Context()))
	old.dead = true
	w.hire()
	w.serve()
	engine := func() *proof.Position {
		t.Helper()
		r := w.check() // fails on a violation
		if !r.OK {
			t.Fatalf("%+v", r)
		}
		return r.Buckets[0].Engine
	}
	if at := engine(); at != nil {
		t.Errorf("compared at %v, while the engine is behind", at)
	}
	w.handle()
	if at := engine(); at != nil {
		t.Errorf("compared at %v, while the engine is behind", at)
	}
	w.handle()
	w.sell("dee")
	if at := engine(); at == nil || at.Position < 5 {
		t.Errorf("not compared though the engine has been told: %v", at)
	}
}

// What no worker has looked at is not said to be right.
func TestIncomplete(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 2, 10, 0)
	if _, err := w.fleet.Check(t.Context(), w.sale.Activity); err == nil {
		t.Error("an activity without buckets was proved")
	}
	first := w.hire()
	w.serve()
	w.sell("ann", "bob")
	began := w.clock
	if r := w.check(); !r.OK || r.CheckedAt.Before(began.Add(-time.Millisecond)) || w.clock.Sub(began) >= proof.FreshWithin {
		t.Fatalf("%+v after %v", r, w.clock.Sub(began))
	}
	w.serve()
	first.inspect()
	first.dead = true // and bob's order has landed since it was looked at last
	if r := w.check(); r.OK || len(r.Incomplete) != 2 || r.Found != 0 || len(r.Buckets) != 2 {
		t.Errorf("nobody keeps the buckets: %+v", r)
	}
	newest := func() proof.Report {
		t.Helper()
		r, err := w.fleet.Report(t.Context(), w.sale.Activity)
		w.must(err)
		return r
	}
	w.clock = w.clock.Add(2 * time.Minute)
	if r := newest(); r.OK || len(r.Incomplete) != 2 {
		t.Errorf("nobody has looked for long: %+v", r)
	}
	w.hire()
	w.rest()
	if r := newest(); !r.OK || len(r.Incomplete) != 0 {
		t.Errorf("another worker has: %+v", r)
	}
}

// The final proof lets the keepers retire the buckets; money that moves after
// it is compared still.
func TestFinalProofOfBuckets(t *testing.T) {
	w := newLively(t)
	w.live(5 * time.Second)
	w.pull(0, 1, 3)
	for _, p := range w.places() {
		w.must(w.engine.Adjust(t.Context(), p, stock.Adjustment{ID: "close", Activity: w.sale.Activity, Phase: stock.Closed}))
	}
	final := func() (proof.Report, bool) {
		t.Helper()
		r, ok, err := w.store.Proof(t.Context(), w.sale.Activity)
		w.must(err)
		return r, ok
	}
	step := func(d time.Duration) {
		t.Helper()
		for until := w.clock.Add(d); w.clock.Before(until); {
			w.clock = w.clock.Add(60 * time.Millisecond)
			w.handle()
			for _, k := range w.workers {
				k.step()
				k.inspect()
			}
			_, err := w.fleet.Step(t.Context())
			w.must(err)
		}
	}
	step(20 * time.Second)
	if _, ok := final(); ok {
		t.Fatal("final, while orders wait for money")
	}
	w.serve()
	var paid *bought
	for i, b := range w.bought {
		if i%2 == 0 {
			w.change(b, order.ActionTimeout)
		} else {
			w.change(b, order.ActionPay)
		}
	}
	paid = w.find(order.Paid)
	for len(w.pending()) > 0 {
		w.handle()
	}
	step(90 * time.Second)
	r, ok := final()
	if !ok || !r.Final || len(r.Buckets) != 2 || r.Ledger[0].Held != 0 || r.Ledger[0].InTransit != 0 || r.Ledger[0].Allocated != 4000 {
		t.Fatalf("%v %+v", ok, r)
	}
	w.final = true // as the store says now
	step(10 * time.Second)
	for _, p := range w.places() {
		if over, err := w.store.Retired(t.Context(), p.Log()); err != nil || !over {
			t.Fatalf("%s is retired: %v, %v", p.Log(), over, err)
		}
	}
	if r := w.check(); !r.OK || r.Proved == nil || r.Ledger[0].Confirmed == 0 {
		t.Errorf("after retirement: %+v", r)
	}
	w.change(paid, order.ActionRefund)
	for _, m := range w.pending() {
		w.must(w.store.Done(t.Context(), []int64{m.ID}))
	}
	w.clock = w.clock.Add(proof.ProvedSweep)
	step(time.Second)
	if after, _ := final(); after.Payments.Refunded != 100 || !after.Final {
		t.Errorf("money moved since: %+v", after)
	}
	w.planted = true
	w.edit(paid, func(o *order.Order) { o.Money.Refunds = append(o.Money.Refunds, o.Money.Refunds[0]) })
	w.clock = w.clock.Add(proof.ProvedSweep)
	step(time.Second)
	if n := w.alarms.Counts()[order.AlarmProof]; n == 0 {
		t.Error("a second refund went unnoticed")
	}
}

// Where each unit of a sale in buckets went, from the rows alone.
func TestTrailOfBuckets(t *testing.T) {
	w := newLively(t)
	w.live(20 * time.Second)
	w.pull(0, 1, 100)
	w.deltas["more"] = 7
	w.must(w.engine.Adjust(t.Context(), w.places()[0], stock.Adjustment{ID: "more", Activity: w.sale.Activity, SKU: "cup", Delta: 7}))
	w.live(10 * time.Second)
	w.change(w.find(order.Paid), order.ActionRefund)
	w.rest()
	trail := proof.NewFleetTrail(w.store, w.store)
	r := w.check()
	states, holders := map[string]int{}, map[string]int{}
	last := 0
	for from := 1; from != 0; {
		page, err := trail.Units(t.Context(), w.sale.Activity, "", from, 999)
		w.must(err)
		for _, u := range page.Units {
			if last++; u.Number != last {
				t.Fatalf("unit %d stands at %d", u.Number, last)
			}
			states[u.State]++
			if u.Reservation != "" {
				holders[u.Reservation]++
			}
		}
		from = page.Next
	}
	units := r.Ledger[0]
	if last != 4007 || states["free"] != units.Free || states["held"] != units.Held || states["confirmed"] != units.Confirmed {
		t.Errorf("%d units, %v; the books say %+v", last, states, units)
	}
	returned := 0
	for _, b := range w.bought {
		is, err := w.look(b)
		w.must(err)
		if has := holders[b.id.String()]; has != 1 && (is == stock.Held || is == stock.Confirmed) || has != 0 && is.Ended() && is != stock.Confirmed {
			t.Errorf("%s is %s and has %d units", b.id, is, has)
		}
		u, err := trail.User(t.Context(), w.sale.Activity, b.user)
		w.must(err)
		mine := u.Reservations[0]
		if u.Complete || len(u.Reservations) != 1 || mine.Order != b.order || mine.State != is.String() || len(mine.Settled) != is.Version()-1 {
			t.Errorf("%s is %s: %+v", b.id, is, u)
		}
		if is == stock.Returned {
			returned++
		}
	}
	if returned != 1 {
		t.Errorf("%d reservations were returned", returned)
	}
	one, err := trail.Unit(t.Context(), w.sale.Activity, "cup", 1)
	if err != nil || len(one.History) < 2 || one.History[0].Event != "allocated" || one.History[1].Event != "held" {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := trail.Units(t.Context(), "none", "", 1, 1); !errors.Is(err, stock.ErrNoSuchActivity) {
		t.Errorf("of no activity: %v", err)
	}
	// A reservation that took more than the rows say was free: they are wrong
	// about the times, and nothing is made of them.
	w.sql(`UPDATE orders SET terms = replace(terms, '"quantity":1', '"quantity":5000') WHERE id = ?`, string(w.find(order.Created).order))
	if _, err := trail.Units(t.Context(), w.sale.Activity, "", 1, 1); !errors.Is(err, stock.ErrTruncated) {
		t.Errorf("of rows that do not add up: %v", err)
	}
}
