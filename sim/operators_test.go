package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// operators run the sale.
type operators struct {
	w          *world
	activities []sale.Activity // as created
	next       sale.Activity   // being created
	unshown    bool            // one was created without an answer; the next life step shows it
	deltas     []delta
	edits      int
}

// delta is an adjustment of units that was asked for.
type delta struct {
	activity stock.ActivityID
	id       string
	sku      stock.SKU
	by       int
	applied  bool // so it was answered
	refused  bool // likewise
	first    bool // asked for the first time
}

func newOperators(w *world) *operators { return &operators{w: w} }

// found makes the products and activities of this seed, and boots the engine.
func (w *world) found() bool {
	w.quiet = true
	defer func() { w.quiet = false }()
	if _, err := w.boot(); err != nil {
		w.violate("a new engine does not come up: %v", err)
		return false
	}
	for range 1 + w.rng.IntN(2) {
		w.ops.create()
	}
	w.oracle.follow()
	return w.violation == ""
}

// longTail makes names as long as they may be, in runs that are to fill the
// log's segments.
var longTail = strings.Repeat("x", stock.MaxID-4)

// create announces one more activity. One whose creation was not answered is
// tried again.
func (o *operators) create() {
	w := o.w
	if o.next.ID == "" {
		o.next = o.draft()
	}
	made, err := w.e.sales.Create(context.Background(), o.next)
	w.tell("  create %s: %v", o.next.ID, err)
	switch {
	case w.faults.dark:
	case err == nil, errors.Is(err, sale.ErrExists):
		if err != nil {
			made = o.next
		}
		o.activities = append(o.activities, made)
		o.next = sale.Activity{}
		w.oracle.follow()
	case w.unheard(err):
		o.unshown = true
	default:
		w.violate("create activity: %v", err)
	}
}

func (o *operators) draft() sale.Activity {
	w := o.w
	opens := w.now() + pick(w, []stock.Millis{0, 0, 0, 5_000, 60_000})
	a := sale.Activity{
		ID: stock.ActivityID(fmt.Sprint("a", len(o.activities)) + w.tail), Title: "Sale", OpensAt: opens,
		ClosesAt:    opens + stock.Millis(20+w.rng.IntN(120))*60_000,
		HoldSeconds: pick(w, []int{30, 120, 600}), PerUser: pick(w, []int{0, 0, 2, 5, 9}),
		LatePayment: pick(w, []pricing.LatePolicy{pricing.RereserveOrRefund, pricing.RereserveOrRefund, pricing.AlwaysRefund}),
		Restock:     w.chance(1, 2),
	}
	for j := range 1 + w.rng.IntN(3) {
		a.Items = append(a.Items, sale.Item{
			SKU: stock.SKU(fmt.Sprint("s", j)), Price: pricing.Money{Amount: pick(w, []int64{0, 1, 990, 990, 990, 5900, 5900, 5900}), Currency: "CNY"},
			Units: pick(w, []int{1, 3, 10, 40, 200}), PerUser: pick(w, []int{0, 0, 1, 3, 6}), PerOrder: 1 + w.rng.IntN(4),
		})
	}
	if w.long() { // as much as can be sold
		a.PerUser, a.OpensAt, a.ClosesAt = 0, w.now(), w.now()+10*3_600_000
		for j := range a.Items {
			a.Items[j].Units, a.Items[j].PerUser = 500, 0
		}
	}
	return a
}

// selling says whether anything can be bought, as far as anybody knows.
func (o *operators) selling() bool {
	return slices.ContainsFunc(o.activities, func(a sale.Activity) bool {
		b := o.w.oracle.books[a.ID]
		return b == nil || b.phase == stock.Live && b.closes > o.w.now()
	})
}

// current is an activity to do something with: mostly a late one.
func (o *operators) current() sale.Activity {
	if n := len(o.activities); n > 2 && o.w.chance(3, 4) {
		return pick(o.w, o.activities[n-2:])
	}
	return pick(o.w, o.activities)
}

// products are in every run's catalogue.
func products() (all []catalog.Product) {
	for j := range 3 {
		for _, tail := range []string{"", longTail} {
			all = append(all, catalog.Product{ID: stock.SKU(fmt.Sprint("s", j) + tail), Title: "Product", Price: pricing.Money{Amount: 990, Currency: "CNY"}})
		}
	}
	return all
}

func (o *operators) act() {
	w := o.w
	if (w.chance(1, 40) || !o.selling()) && len(o.activities) < 60 {
		o.create()
		return
	}
	a := o.current()
	draw := w.rng.IntN(16)
	if w.long() && draw >= 5 && draw <= 11 {
		draw = 12
	}
	switch draw {
	case 0, 1, 2, 3:
		o.units(a)
	case 4:
		o.unitsAgain()
	case 5:
		o.move(a.ID, "paused by operator", w.e.sales.Pause, stock.Paused)
	case 6:
		for _, a := range o.activities {
			if b := w.oracle.books[a.ID]; b != nil && b.phase == stock.Paused {
				o.move(a.ID, "", w.e.sales.Resume, stock.Live)
				return
			}
		}
	case 7, 8, 9, 10:
		o.limits(a)
	case 11:
		o.window(a)
	case 12, 13:
		o.refund()
	case 14:
		w.redrive(context.Background())
		o.fulfil()
	default:
		switch {
		case w.long():
			o.audit()
		case w.step%160 > 100 && w.chance(1, 2):
			o.move(a.ID, "closed", w.e.sales.Close, stock.Closed)
		case w.step%160 > 60:
			o.move(a.ID, "drained", w.e.sales.Drain, stock.Draining)
		default:
			o.audit()
		}
	}
}

// units adds or takes back.
func (o *operators) units(a sale.Activity) {
	w := o.w
	o.edits++
	d := delta{first: true, activity: a.ID, id: fmt.Sprint("d", o.edits), sku: pick(w, a.Items).SKU, by: pick(w, []int{1, 2, 5, -1, -2, -5})}
	o.ask(&d)
	o.deltas = append(o.deltas, d)
}

func (o *operators) unitsAgain() {
	if len(o.deltas) == 0 {
		return
	}
	o.w.fire("delta repeated")
	o.ask(&o.deltas[o.w.rng.IntN(len(o.deltas))])
}

func (o *operators) ask(d *delta) {
	w := o.w
	check := w.oracle.expectDelta(*d)
	_, err := w.e.sales.Stock(context.Background(), d.activity, d.id, d.sku, d.by, "because")
	w.tell("  stock %s %s %+d: %v", d.id, d.sku, d.by, err)
	w.oracle.follow()
	d.first = false
	switch {
	case w.faults.dark, errors.Is(err, sale.ErrTransition):
	case err == nil:
		if d.by > 0 {
			w.fire("units added")
		} else {
			w.fire("units taken")
		}
		if d.refused {
			w.violate("delta %s was refused, and is applied when asked again", d.id)
		}
		d.applied = true
		w.oracle.deltaApplied(*d)
	case errors.Is(err, stock.ErrInsufficient):
		w.fire("delta refused")
		if d.applied {
			w.violate("delta %s was applied, and is refused when asked again", d.id)
		}
		check(err)
		d.refused = true
		w.oracle.deltaRefused(*d)
	case errors.Is(err, stock.ErrEnded), w.unheard(err):
	default:
		w.violate("delta %s: %v", d.id, err)
	}
}

// move changes an activity's phase and sees that the ledger follows.
func (o *operators) move(id stock.ActivityID, kind string, how func(context.Context, stock.ActivityID) (sale.Activity, error), want stock.Phase) {
	w := o.w
	if want == stock.Closed {
		w.oracle.closing[id] = true
	}
	a, err := how(context.Background(), id)
	w.tell("  %s is %s: %v", id, a.State, err)
	w.oracle.follow()
	if err != nil {
		if !errors.Is(err, sale.ErrTransition) && !w.unheard(err) {
			w.violate("%s of %s: %v", want, id, err)
		}
		return
	}
	if w.faults.dark {
		return
	}
	if kind != "" {
		w.fire(kind)
	}
	// The clock may have taken it further by itself.
	if b := w.oracle.books[id]; b != nil && b.phase != want && b.phase != stock.Draining && b.phase != stock.Closed {
		w.violate("%s was answered as %s, its ledger is %s", id, a.State, b.phase)
	}
}

// limits edits what a user may have. The limit in force at acceptance counts.
func (o *operators) limits(a sale.Activity) {
	w := o.w
	perUser, itemUser, itemOrder := pick(w, []int{0, 0, 2, 5, 9}), pick(w, []int{0, 0, 1, 3, 6}), 1+w.rng.IntN(4)
	e := sale.Edit{PerUser: &perUser}
	if w.chance(1, 2) {
		hold := pick(w, []int{30, 120, 600})
		e = sale.Edit{HoldSeconds: &hold, Items: []sale.ItemEdit{{SKU: pick(w, a.Items).SKU, PerUser: &itemUser, PerOrder: &itemOrder}}}
	}
	is, err := w.e.sales.Edit(context.Background(), a.ID, e)
	w.tell("  edit limits of %s: %v", a.ID, err)
	w.oracle.follow()
	if err == nil && !w.faults.dark {
		w.fire("limits changed")
		w.oracle.sameRules(is)
	}
}

func (o *operators) window(a sale.Activity) {
	w := o.w
	closes := w.now() + stock.Millis(5+w.rng.IntN(120))*60_000
	restock := w.chance(1, 2)
	is, err := w.e.sales.Edit(context.Background(), a.ID, sale.Edit{ClosesAt: &closes, Restock: &restock})
	w.tell("  edit window of %s: %v", a.ID, err)
	w.oracle.follow()
	if err == nil && !w.faults.dark {
		w.fire("window changed")
		w.oracle.sameRules(is)
	}
}

// some is an order in one of these states.
func (o *operators) some(states ...order.State) *order.Order {
	w := o.w
	var all []order.Order
	for _, s := range states {
		page, err := w.store.List(context.Background(), order.Query{State: s, Limit: 100})
		if err != nil {
			w.violate("list orders: %v", err)
		}
		all = append(all, page...)
	}
	if len(all) == 0 {
		return nil
	}
	for i := range all {
		if all[i].LateOf != "" && w.chance(1, 3) {
			return &all[i]
		}
	}
	return &all[w.rng.IntN(len(all))]
}

func (o *operators) refund() {
	w, it := o.w, o.some(order.Paid, order.Fulfilled)
	if it == nil {
		return
	}
	is, err := w.e.orders.Refund(context.Background(), it.ID, "broken")
	w.tell("  refund %s: %s %v", it.ID, is.State, err)
	if err == nil && !w.faults.dark {
		if is.Reason == "" {
			w.violate("the refund of order %s was answered, and nobody asks for it", it.ID)
		}
		w.fire("refunded by operator")
		if it.LateOf != "" {
			w.fire("late order refunded")
		}
		w.oracle.promise(it.ID, order.Refunded)
	}
}

func (o *operators) fulfil() {
	w, it := o.w, o.some(order.Paid)
	if it == nil {
		return
	}
	_, err := w.e.orders.Fulfil(context.Background(), it.ID)
	w.tell("  fulfil %s: %v", it.ID, err)
	if err == nil && !w.faults.dark {
		w.fire("fulfilled")
		w.oracle.promise(it.ID, order.Fulfilled)
	}
}

// audit asks the auditor while work is in flight: it must not raise a false alarm.
func (o *operators) audit() {
	w := o.w
	for _, a := range o.activities {
		if w.oracle.books[a.ID] == nil {
			continue
		}
		r, err := w.e.auditor.Check(context.Background(), a.ID)
		switch {
		case w.faults.dark:
			return
		case errors.Is(err, stock.ErrNoSuchActivity): // not landed so far
		case err != nil && !w.unheard(err):
			w.violate("the auditor of %s: %v", a.ID, err)
		case err == nil && !r.OK && w.redrive(context.Background()):
		case err == nil && !r.OK:
			w.violate("the auditor of %s at %d: %q", a.ID, r.Position.Position, r.Violations)
		case err == nil:
			w.fire("audit under way")
		}
	}
}

// evenings are how time passes at the end, long enough for every sale to end.
var (
	longEvening = []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute,
		time.Hour, time.Hour, 2 * time.Hour, 7 * time.Hour, 7 * time.Hour, 7 * time.Hour}
	shortEvening = []time.Duration{0, 10 * time.Second, 3 * time.Minute, 15 * time.Minute, 3 * time.Hour}
)

// rest ends the day: nobody misbehaves any more, every task runs until nothing
// is left to do, and time passes. Then everything must be in its place.
func (w *world) rest() {
	w.tell("everything comes to rest")
	w.quiet = true
	w.faults = faults{dark: w.faults.dark}
	w.disk.Fill(-1)
	if w.faults.dark || w.broken() {
		w.restart()
	}
	w.provider.closeShop()
	w.stepped = 0
	ctx := context.Background()
	for _, by := range w.evening {
		w.skipped += by
		w.settleAll(ctx)
		if w.violation != "" {
			return
		}
	}
	w.skipped += proof.Sweep // the auditor looks once more
	w.settleAll(ctx)
	if w.violation != "" {
		return
	}
	w.oracle.atRest()
}

// settleAll runs all tasks until none has work.
func (w *world) settleAll(ctx context.Context) {
	for round := 0; ; round++ {
		for len(w.provider.queue) > 0 && w.violation == "" {
			w.provider.send(0)
		}
		w.commit()
		worked := w.run("land", w.e.lander.Step)
		if w.broken() { // only now it met the fence that another lander took
			w.restart()
			worked = true
		}
		worked = w.run("relay", w.e.relay.Step) || worked
		worked = w.run("keep", w.e.keeper.Step) || worked
		worked = w.run("life", w.e.sales.Step) || worked
		worked = w.run("prove", w.e.proofs.Step) || worked
		w.compact()
		w.redrive(ctx)
		if !worked && w.violation == "" {
			worked = w.askAgain(ctx)
		}
		if w.violation != "" || !worked {
			return
		}
		if round == 500 {
			w.violate("the tasks do not come to rest")
		}
	}
}

// redrive is an operator who looks after dead letters: one that keeps the
// ledger from an order is for the auditor to name.
func (w *world) redrive(ctx context.Context) (any bool) {
	dead, err := w.e.store.Dead(ctx, 0, 100)
	if err != nil {
		w.violate("dead letters: %v", err)
	}
	for _, m := range dead {
		w.fire("dead letter")
		if err := w.e.store.Redrive(ctx, m.ID); err != nil {
			w.violate("redrive %d: %v", m.ID, err)
		}
	}
	return len(dead) > 0
}

// askAgain is an operator who looks after refunds that are stuck.
func (w *world) askAgain(ctx context.Context) (asked bool) {
	w.oracle.readOrders()
	for _, id := range slices.Sorted(maps.Keys(w.oracle.rows)) {
		for _, r := range w.oracle.rows[id].Money.Refunds {
			if r.State != order.RefundStuck {
				continue
			}
			asked = true
			if _, err := w.e.orders.RetryRefund(ctx, id, r.ID); err != nil {
				w.violate("refund %s of order %s is stuck: %v", r.ID, id, err)
			}
		}
	}
	return asked
}
