package storm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// facts are what the server says when all is at rest.
type facts struct {
	counts item
	orders []Order // all of the activity
	stored []Order // the same from the store itself; nil = not asked
	proof  proofReport
	unsold int // units not sold at the end of the tail although users kept asking
	dead   []deadLetter
	at     time.Time // when they were read
}

// gather reads the facts. It keeps trying for a while: the server may just
// have come back.
func (r *rehearsal) gather(ctx context.Context) (facts, error) {
	var f facts
	var err error
	for tries := 0; tries < 20; tries++ {
		// The proof of a fleet may lag behind; what it finds wrong stays wrong.
		if f, err = r.read(); err == nil && (f.proof.OK || len(f.proof.Violations) > 0) || ctx.Err() != nil {
			break
		}
		time.Sleep(samplePace)
	}
	if err != nil || r.o.Orders == nil {
		return f, err
	}
	f.stored = []Order{}
	err = r.o.Orders.Orders(r.shop.activity, func(o Order) error {
		f.stored = append(f.stored, o)
		return nil
	})
	return f, err
}

func (r *rehearsal) read() (f facts, err error) {
	f.at = time.Now()
	if f.counts, err = r.shop.count(); err != nil {
		return f, err
	}
	if f.dead, err = r.shop.deadLetters(); err != nil {
		return f, err
	}
	if f.proof, err = r.shop.proof(); err != nil {
		return f, err
	}
	err = r.shop.orders(func(o Order) error {
		f.orders = append(f.orders, o)
		return nil
	})
	return f, err
}

// atRest says that orders and ledger agree with nothing on its way between them.
func atRest(i item, orders map[string]int) bool {
	return i.InTransit == 0 && i.Held == orders["created"] && i.Confirmed == sold(orders)
}

// sold units are those of orders that were paid for, refunded ones included:
// the storm's activity does not put refunded units back on sale.
func sold(orders map[string]int) int {
	return orders["paid"] + orders["fulfilled"] + orders["refunded"]
}

func byState(orders []Order) map[string]int {
	n := map[string]int{}
	for _, o := range orders {
		n[o.State]++
	}
	return n
}

// audit compares the oracle's record with the facts.
func (o *oracle) audit(f facts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sample(f.counts, true)
	states := byState(f.orders)
	if !atRest(f.counts, states) {
		o.broken.add("the ledger holds %d and has confirmed %d units, but there are %d orders created and %d paid, fulfilled or refunded",
			f.counts.Held, f.counts.Confirmed, states["created"], sold(states))
	}
	o.receiptsKept(f)
	o.ordersKnown(f.orders)
	o.limitKept(f.orders)
	o.soldOutHonest(f)
	o.proofAgrees(f, states)
	for _, d := range f.dead {
		o.broken.add("dead letter %s (%s of order %s) after %d attempts: %s", d.ID, d.Topic, d.Key, d.Attempts, d.Reason)
	}
	if f.stored != nil {
		o.storeAgrees(f)
	}
}

// receiptsKept: every acknowledged receipt is an order of that user with that
// total, and its money is where it belongs.
func (o *oracle) receiptsKept(f facts) {
	byID := make(map[string]Order, len(f.orders))
	for _, row := range f.orders {
		if _, twice := byID[row.ID]; twice {
			o.broken.add("order %s is listed twice", row.ID)
		}
		byID[row.ID] = row
	}
	for _, r := range o.order {
		row, ok := byID[r.given.Order]
		who := userName(r.try.user)
		switch {
		case r.promised.IsZero() && !r.refused:
			o.broken.add("order %s of %s was answered pending, and the shop never said whether it is held (%s in the end)", r.given.Order, who, cmp.Or(row.State, "not there"))
			continue
		case !ok && r.refused && len(r.presses) == 0:
			continue // lost with an engine
		case !ok:
			o.broken.add("lost order: %s got a receipt for order %s, and there is no such order", who, r.given.Order)
			continue
		case row.User != who:
			o.broken.add("order %s of %s belongs to %s", row.ID, who, row.User)
		case row.Reservation != r.given.Reservation:
			o.broken.add("order %s of %s is of reservation %s, its receipt said %s", row.ID, who, row.Reservation, r.given.Reservation)
		case row.Key != "" && row.Key != r.try.key() && row.State != "refused":
			o.broken.add("order %s of %s has key %s, it was sent with %s", row.ID, who, row.Key, r.try.key())
		case row.Total != r.given.Total:
			o.broken.add("order %s of %s costs %d %s, its receipt said %d %s", row.ID, who, row.Total.Amount, row.Total.Currency, r.given.Total.Amount, r.given.Total.Currency)
		}
		o.stateKept(r, row)
		o.moneyKept(r, row, byID, f.at)
	}
}

// stateKept: what was shown to the owner of an order stays so.
func (o *oracle) stateKept(r *receipt, row Order) {
	who := userName(r.try.user)
	paid := row.State == "paid" || row.State == "fulfilled"
	switch {
	case row.State == "refused" && !r.promised.IsZero():
		o.broken.add("order %s of %s was promised by a receipt and is refused", row.ID, who)
	case row.State != "refused" && r.refused:
		o.broken.add("order %s of %s is %s although it had been shown as refused by %s", row.ID, who, row.State, r.endedBy)
	case paid && !r.ended.IsZero():
		o.broken.add("order %s of %s is %s although it had been shown as ended", row.ID, who, row.State)
	case r.paid && !paid && row.State != "refunded":
		o.broken.add("order %s of %s had been shown as paid and is %s", row.ID, who, row.State)
	case row.State == "refunded" && row.Reason == "":
		o.broken.add("order %s of %s was refunded without a reason", row.ID, who)
	}
}

// ordersKnown: every order comes from a receipt, from a request whose reply
// never came, or from late money for an order of the same user.
func (o *oracle) ordersKnown(orders []Order) {
	late := map[string]Order{}
	for _, row := range orders {
		if row.ReplacedBy != "" {
			late[row.ReplacedBy] = row
		}
	}
	unsure := map[string]tryID{} // by key, and by user for orders that do not tell theirs
	asked := map[string]bool{}   // users of whom some reply was lost
	for try := range o.unsure {
		unsure[try.key()], asked[userName(try.user)] = try, true
		if o.receipts[try] == nil {
			unsure[userName(try.user)] = try
		}
	}
	for _, row := range orders {
		if r := o.byOrder[row.ID]; r != nil {
			continue
		}
		if len(row.Captures) > 0 && row.LateOf == "" {
			o.broken.add("order %s of %s has %d captures, and nobody knows of it who could have paid", row.ID, row.User, len(row.Captures))
		}
		if row.State == "refused" && asked[row.User] {
			continue // a request without an answer that an engine lost; its key may not even be its own any more
		}
		if row.LateOf != "" || strings.HasPrefix(row.Key, "late:") {
			if from, ok := late[row.ID]; !ok || from.User != row.User {
				o.broken.add("order %s of %s claims late money, but no order of that user points to it", row.ID, row.User)
			}
			continue
		}
		try, ok := unsure[cmp.Or(row.Key, row.User)]
		switch {
		case !ok || userName(try.user) != row.User:
			o.broken.add("order %s of %s (key %q) was never acknowledged, and no reply for its key was lost", row.ID, row.User, row.Key)
		case o.receipts[try] != nil:
			o.broken.add("order %s of %s (key %q) is a second one beside order %s", row.ID, row.User, row.Key, o.receipts[try].given.Order)
		}
	}
}

// limitKept: no user has more than one order that holds a unit.
func (o *oracle) limitKept(orders []Order) {
	has := map[string]string{}
	for _, row := range orders {
		if row.State != "created" && row.State != "paid" && row.State != "fulfilled" {
			continue
		}
		if first, ok := has[row.User]; ok {
			o.broken.add("%s has orders %s and %s: over the limit of one per user", row.User, first, row.ID)
			continue
		}
		has[row.User] = row.ID
	}
}

// soldOutHonest: sold_out is final, and nothing stays unsold while users ask.
func (o *oracle) soldOutHonest(f facts) {
	if o.soldOutAt.Load() != 0 && f.counts.Confirmed < f.counts.Allocated {
		o.broken.add("sold_out was told, but only %d of %d units were ever sold", f.counts.Confirmed, f.counts.Allocated)
	}
	if f.unsold > 0 {
		o.broken.add("%d of %d units stayed unsold although users kept asking for them, %d of them in transit", f.unsold, f.counts.Allocated, f.counts.InTransit)
	}
}

// proofAgrees: the server's own proof finds nothing, and tells the same story.
func (o *oracle) proofAgrees(f facts, states map[string]int) {
	o.proofTold(f.proof.Violations)
	switch {
	case f.proof.OK || len(f.proof.Violations) > 0:
	case len(f.proof.Incomplete) > 0:
		o.broken.add("the server's proof says nothing about buckets %v", f.proof.Incomplete)
	default:
		o.broken.add("the server's proof is not ok and does not say why")
	}
	money := f.proof.Payments
	var captured, refunded int64
	for _, row := range f.orders {
		for _, c := range row.Captures {
			captured += c.Amount.Amount
		}
		for _, back := range row.Refunds {
			refunded += back.Amount.Amount
		}
	}
	if captured != money.Captured || refunded != money.Refunded {
		o.broken.add("the proof counts %d minor units captured and %d refunded, the orders list %d and %d", money.Captured, money.Refunded, captured, refunded)
	}
	if money.Owed != 0 {
		o.broken.add("the server owes its buyers %d minor units", money.Owed)
	}
	if kept, goods := money.Captured-money.Refunded-money.Owed, price*int64(states["paid"]+states["fulfilled"]); kept != goods {
		o.broken.add("%d minor units captured - %d refunded - %d owed = %d kept, but the orders paid for are worth %d",
			money.Captured, money.Refunded, money.Owed, kept, goods)
	}
	told := maps.Clone(f.proof.Orders)
	maps.DeleteFunc(told, func(_ string, n int) bool { return n == 0 })
	if !maps.Equal(told, states) {
		o.broken.add("the proof counts orders %v, the list of orders holds %v", told, states)
	}
}

// storeAgrees: the API's list is the store's.
func (o *oracle) storeAgrees(f facts) {
	sorted := func(orders []Order) []Order {
		return slices.SortedFunc(slices.Values(orders), func(a, b Order) int { return cmp.Compare(a.ID, b.ID) })
	}
	api, rows := sorted(f.orders), sorted(f.stored)
	if len(api) != len(rows) {
		o.broken.add("the API lists %d orders, the store holds %d", len(api), len(rows))
		return
	}
	for i := range api {
		a, b := api[i], rows[i]
		if a.ID != b.ID || a.User != b.User || a.State != b.State || a.Total != b.Total {
			o.broken.add("the API tells order %s as %s, the store as %s", a.ID, describe(a), describe(b))
		}
	}
}

func describe(o Order) string {
	return fmt.Sprintf("%s of %s, %s, %d %s", o.ID, o.User, o.State, o.Total.Amount, o.Total.Currency)
}
