package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// script is a short day that the power is cut in, everywhere.
type script struct {
	name          string
	eager         bool   // the lander takes a step before each disk operation, also in the middle of a commit
	snapshotAt    uint64 // entries
	every         int    // so many different states to one engine that is brought up
	images, pairs int    // fewer than these would prove less than it seems
	play          func(p *player)
}

var scripts = []script{
	{"landing in the middle of commits", true, 4, 1, 250, 900, landingAtOnce},
	{"landing long after", false, 4, 1, 350, 900, landingLate},
	{"late money and refunds", false, 100, 1, 300, 1000, lateDay},
	{"an operator's day", true, 6, 1, 500, 1400, operatorsDay},
	{"a full segment", false, 12, 10, 2000, 3000, fullSegment},
}

// Three users and a little of everything, landed as soon as it can be.
func landingAtOnce(p *player) {
	p.sell(sale.Activity{PerUser: 2, HoldSeconds: 120}, 3)
	p.roll()
	p.buy("ann", "k1", 1)
	p.buy("bob", "k2", 1)
	p.during = func() { p.buy("cid", "k3", 1) } // while the first two are being synced
	p.commit()
	p.commit()
	p.land()
	p.buy("dan", "k4", 1) // all held
	p.pay("k1")
	p.money("k1", 0)
	p.callback()
	p.cancel("k2")
	p.relay()
	p.compact()
	p.buy("dan", "k5", 1) // the unit that came back
	p.commit()
	p.pass(3 * time.Minute) // nobody pays
	p.keep()
	p.relay()
	p.compact()
	p.buy("bob", "k6", 2)
	p.commit()
	p.land()
}

// The log runs ahead of the store, then the store ahead of the log.
func landingLate(p *player) {
	p.sell(sale.Activity{HoldSeconds: 120}, 4)
	p.roll()
	for _, key := range []string{"k1", "k2", "k3"} {
		p.buy("ann", key, 1)
		p.commit()
	}
	p.buy("bob", "k4", 1)
	p.buy("bob", "k4", 1) // a double click
	p.commit()
	p.land()
	p.pay("k1")
	p.pay("k2")
	p.money("k1", 0)
	p.money("k2", 1) // a wrong amount
	p.callback()
	p.callback()
	p.cancel("k3")
	p.keep()
	p.pass(3 * time.Minute)
	p.keep()
	p.relay()
	p.compact()
	p.fulfil("k1")
	p.buy("bob", "k5", 1)
	p.commit()
	p.land()
	p.relay()
}

// Money for orders that are over: one finds units, one does not; an order
// that late money paid is refunded and its units go back.
func lateDay(p *player) {
	p.sell(sale.Activity{HoldSeconds: 60, Restock: true}, 2)
	p.buy("ann", "k1", 1)
	p.buy("bob", "k2", 1)
	p.commit()
	p.land()
	p.pay("k1")
	p.pay("k2")
	p.roll()
	p.cancel("k1")
	p.money("k1", 0)
	p.callback()
	p.keep() // buys the same again
	p.land()
	p.relay()
	p.cancel("k2")
	p.relay()
	p.buy("cid", "k3", 1) // takes bob's
	p.commit()
	p.land()
	p.money("k2", 0)
	p.callback()
	p.keep() // no unit left: goes back
	p.pay("k3")
	p.money("k3", 0)
	p.money("k3", 0) // twice
	p.callback()
	p.callback()
	p.keep()
	p.relay()
	p.refund(p.late())
	p.refund(p.orderOf("k3"))
	p.keep()
	p.relay()
	p.buy("dan", "k4", 1) // a unit that was returned
	p.commit()
}

// Units and limits change, the sale pauses, and is closed with a unit held.
func operatorsDay(p *player) {
	p.sell(sale.Activity{PerUser: 1, HoldSeconds: 60}, 1)
	p.roll()
	p.buy("ann", "k1", 1)
	p.commit()
	p.units("d1", 2)
	p.units("d1", 2) // again
	p.units("d2", -5)
	p.buy("bob", "k2", 1)
	p.commit()
	p.move(p.w.e.sales.Pause)
	p.buy("cid", "k3", 1)
	p.move(p.w.e.sales.Resume)
	p.edit(2)
	p.buy("ann", "k4", 1) // the limit is two now
	p.commit()
	p.land()
	p.compact()
	p.units("d3", 1)
	p.pay("k1")
	p.money("k1", 0)
	p.callback()
	p.relay()
	p.move(p.w.e.sales.Drain)
	p.pass(2 * time.Minute)
	p.keep()
	p.relay()
	p.move(p.w.e.sales.Close)
	p.life()
	p.land()
}

// A segment fills up before the lander comes: its successor, then two
// snapshots, and the first segment goes. What came before has long ended.
func fullSegment(p *player) {
	p.w.tail = longTail
	p.sell(sale.Activity{HoldSeconds: 600}, 500)
	n := 0
	batch := func(size int) {
		for range size {
			n++
			p.buy(fmt.Sprint("u", n%20, longTail), fmt.Sprint("k", n, longTail), 1)
		}
		p.commit()
	}
	over := func(size int) { // the newest orders end
		p.land()
		for i := range size {
			p.cancel(fmt.Sprint("k", n-i, longTail))
		}
		p.relay()
		p.land()
		p.compact()
	}
	for size := 0; size < 57_000; {
		batch(8)
		over(8)
		size = 0
		for _, e := range p.w.oracle.entries {
			size += len(e)
		}
	}
	if len(p.segments()) != 1 {
		p.t.Errorf("too late for the film: %q", p.segments())
	}
	p.roll()
	first := p.segments()[0]
	for range 8 { // the lander is late: nothing may go that it has not taken
		batch(4)
		p.compact()
	}
	for rounds := 0; p.segments()[0] == first; rounds++ {
		over(3)
		batch(6)
		if rounds == 6 {
			p.t.Fatalf("no segment goes: %q", p.segments())
		}
	}
}

// player plays a script on a world, one step at a time.
type player struct {
	w      *world
	t      *testing.T
	film   *film
	eager  bool
	during func() // at the next sync, once
	inside bool
}

// did ends a step.
func (p *player) did(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Errorf("%v", err)
	}
	p.w.settle()
	p.w.oracle.check(false)
	if p.film != nil && p.w.film != nil {
		p.film.note()
	}
}

// roll begins the film.
func (p *player) roll() {
	p.w.roll()
	p.film = p.w.film
	p.w.disk.Judge(func(op simdisk.Op) simdisk.Verdict {
		if p.inside {
			return simdisk.Verdict{}
		}
		p.inside = true
		if p.eager {
			_, _ = p.w.e.lander.Step(context.Background())
		}
		if do := p.during; do != nil && op.Kind == simdisk.Sync {
			p.during = nil
			do()
		}
		p.inside = false
		return simdisk.Verdict{}
	})
}

// sell opens a sale of units of one product.
func (p *player) sell(a sale.Activity, units int) {
	w := p.w
	a.ID, a.Title, a.OpensAt, a.ClosesAt = stock.ActivityID("a0"+w.tail), "Sale", w.now(), w.now()+2*3_600_000
	a.LatePayment = pricing.RereserveOrRefund
	a.Items = []sale.Item{{SKU: "s0", Price: pricing.Money{Amount: 990, Currency: "CNY"}, Units: units, PerOrder: 3}}
	made, err := w.e.sales.Create(context.Background(), a)
	w.ops.activities = append(w.ops.activities, made)
	w.oracle.follow()
	p.did(err)
	p.life()
}

func (p *player) buy(user, key string, quantity int) {
	w := p.w
	in := &intent{activity: w.ops.activities[0].ID, user: stock.UserID(user), key: key, lines: []stock.Line{{SKU: "s0", Quantity: quantity}}}
	if known := p.intent(key); known != nil {
		in = known
	} else {
		w.shoppers.asked = append(w.shoppers.asked, in)
	}
	w.shoppers.call(in, in.lines).lost = false
	w.shoppers.replies()
	if !p.inside {
		p.did(nil)
	}
}

func (p *player) intent(key string) *intent {
	for _, in := range p.w.shoppers.asked {
		if in.key == key {
			return in
		}
	}
	return nil
}

func (p *player) orderOf(key string) stock.OrderID {
	p.t.Helper()
	in := p.intent(key)
	if in == nil || in.receipt == nil {
		p.t.Fatalf("%s has no receipt", key)
	}
	return in.receipt.Order
}

func (p *player) commit()              { p.w.commit(); p.did(nil) }
func (p *player) land()                { p.w.land(); p.did(nil) }
func (p *player) relay()               { p.w.relay(); p.did(nil) }
func (p *player) keep()                { p.w.keep(); p.did(nil) }
func (p *player) life()                { p.w.life(); p.did(nil) }
func (p *player) pass(d time.Duration) { p.w.skipped += d }

func (p *player) compact() {
	p.w.film.follows() // what is trimmed follows from the store's watermark
	p.w.compact()
	p.did(nil)
}

func (p *player) pay(key string) {
	_, err := p.w.e.orders.Pay(context.Background(), p.intent(key).user, p.orderOf(key), "")
	p.did(err)
}

// money arrives for a payment, short of its amount by so much; the provider
// will tell of it.
func (p *player) money(key string, short int64) {
	w := p.w
	at := w.provider.payments[string(p.orderOf(key))+"-1"]
	at.state = payment.Paid
	c := &captured{id: fmt.Sprint("cap", len(w.provider.captures)+1), payment: at.id, amount: at.amount}
	c.amount.Amount -= short
	w.provider.captures = append(w.provider.captures, c)
	body, err := json.Marshal(w.provider.status(at.id))
	w.provider.queue = append(w.provider.queue, report{body: body, left: 1 << 20})
	p.did(err)
}

// callback delivers the oldest report. The provider forgets it once it was taken.
func (p *player) callback() {
	w := p.w
	r := w.provider.queue[0]
	err := w.e.orders.Callback(context.Background(), "sim", header("genuine"), r.body)
	if err == nil {
		w.provider.queue = w.provider.queue[1:]
		var st payment.Status
		err = json.Unmarshal(r.body, &st)
		w.oracle.acknowledged(st)
	}
	p.did(err)
}

func (p *player) cancel(key string) {
	id := p.orderOf(key)
	_, err := p.w.e.orders.Cancel(context.Background(), p.intent(key).user, id)
	p.w.oracle.promise(id, order.Cancelled)
	p.did(err)
}

func (p *player) fulfil(key string) {
	_, err := p.w.e.orders.Fulfil(context.Background(), p.orderOf(key))
	p.w.oracle.promise(p.orderOf(key), order.Fulfilled)
	p.did(err)
}

func (p *player) refund(id stock.OrderID) {
	_, err := p.w.e.orders.Refund(context.Background(), id, "broken")
	p.w.oracle.promise(id, order.Refunded)
	p.did(err)
}

// late is the order that late money paid.
func (p *player) late() stock.OrderID {
	p.w.oracle.readOrders()
	for id, row := range p.w.oracle.rows {
		if row.LateOf != "" {
			return id
		}
	}
	p.t.Fatal("no order was paid by late money")
	return ""
}

func (p *player) units(id string, by int) {
	w := p.w
	d := delta{first: true, activity: w.ops.activities[0].ID, id: id, sku: "s0", by: by}
	w.ops.ask(&d)
	p.did(nil)
}

func (p *player) move(how func(context.Context, stock.ActivityID) (sale.Activity, error)) {
	_, err := how(context.Background(), p.w.ops.activities[0].ID)
	p.w.oracle.follow()
	p.did(err)
}

func (p *player) edit(perUser int) {
	is, err := p.w.e.sales.Edit(context.Background(), p.w.ops.activities[0].ID, sale.Edit{PerUser: &perUser})
	p.w.oracle.follow()
	p.w.oracle.sameRules(is)
	p.did(err)
}

// segments are the files of the log.
func (p *player) segments() []string {
	names, err := p.w.disk.ReadDir("stock")
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool { return err != nil || !strings.HasSuffix(n, ".wal") })
}
