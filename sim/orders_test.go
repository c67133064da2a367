package sim

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// event is a delivered message.
type event struct {
	outbox.Message
	order.Event
}

// deliver is the oracle's own event handler: what consumers see.
func (o *oracle) deliver(ctx context.Context, m outbox.Message) error {
	w := o.w
	if w.faults.dark {
		return errPower
	}
	e := event{Message: m}
	if err := json.Unmarshal(m.Body, &e.Event); err != nil {
		w.violate("event %d does not decode: %v", m.ID, err)
		return nil
	}
	w.tell("  event %d %s of %s", m.ID, m.Topic, m.Key)
	if had, again := o.delivered[m.ID]; again {
		if had.Topic != m.Topic || string(had.Body) != string(m.Body) {
			w.violate("event %d is delivered again as something else", m.ID)
		}
		return nil
	}
	if o.lastOf[m.Key] > m.ID {
		w.violate("event %d of %s is delivered after event %d", m.ID, m.Key, o.lastOf[m.Key])
	}
	o.delivered[m.ID], o.lastOf[m.Key] = e, m.ID
	w.film.delivered(e)
	row, err := w.store.Get(ctx, e.Order)
	if err != nil || row.Version < e.Version {
		w.violate("event %d tells of version %d of order %s: %v, version %d", m.ID, e.Version, e.Order, err, row.Version)
	}
	return nil
}

// readOrders reads all rows and holds them against the log, against what they
// were, and against what was promised.
func (o *oracle) readOrders() {
	w, ctx := o.w, context.Background()
	mark, err := w.store.Watermark(ctx, walstock.LogID)
	if err != nil {
		w.violate("watermark: %v", err)
		return
	}
	if mark.Position < o.landed || mark.Position > uint64(len(o.entries)) {
		w.violate("the watermark is %d, it was %d, and %d entries are durable", mark.Position, o.landed, len(o.entries))
	}
	o.landed = mark.Position
	count := 0
	for _, id := range slices.Sorted(maps.Keys(o.books)) {
		rows, err := w.store.List(ctx, order.Query{Activity: id, Limit: order.MaxPage})
		if err != nil {
			w.violate("orders of %s: %v", id, err)
			return
		}
		count += len(rows)
		slices.Reverse(rows)
		for _, row := range rows {
			o.row(row)
		}
		landed := 0
		for _, h := range o.books[id].held {
			if h.position > mark.Position {
				continue
			}
			landed++
			if row, ok := o.rows[h.Order]; !ok || row.Reservation != h.ID {
				w.violate("reservation %s at %d is behind the watermark %d and has no order", h.ID, h.position, mark.Position)
			}
		}
		if landed != len(rows) {
			w.violate("%s: %d orders for %d landed reservations", id, len(rows), landed)
		}
	}
	if count != len(o.rows) {
		w.violate("%d orders, there were %d", count, len(o.rows))
	}
}

// follows lists where an order may go from a state, in any number of changes.
var follows = map[order.State][]order.State{
	order.Created:   {order.Created, order.Paid, order.Fulfilled, order.Cancelled, order.Refunded},
	order.Paid:      {order.Paid, order.Fulfilled, order.Refunded},
	order.Fulfilled: {order.Fulfilled, order.Refunded},
	order.Cancelled: {order.Cancelled},
	order.Refunded:  {order.Refunded},
}

func (o *oracle) row(row order.Order) {
	w := o.w
	h := o.reservation(row.Reservation)
	if h == nil || h.Order != row.ID || h.User != row.User || h.Key != row.Key || h.Fingerprint != row.Fingerprint ||
		h.At != row.CreatedAt || h.Expires != row.ExpiresAt || h.position != row.Position.Position || h.Late != row.LateOf || len(row.Products) < 3 {
		w.violate("order %s is not its reservation: %+v, %+v", row.ID, row, h)
		return
	}
	was, known := o.rows[row.ID]
	switch {
	case known && (row.Version < was.Version || !slices.Contains(follows[was.State], row.State)):
		w.violate("order %s went from %s (version %d) to %s (version %d)", row.ID, was.State, was.Version, row.State, row.Version)
	case row.State == order.Created && h.State != stock.Held:
		w.violate("order %s is created, its reservation %s is %s", row.ID, row.Reservation, h.State)
	case row.State == order.Cancelled && row.Reason == order.ReasonTimeout && row.ClosedAt < row.ExpiresAt:
		w.violate("order %s timed out at %d, it expires at %d", row.ID, row.ClosedAt, row.ExpiresAt)
	}
	for _, s := range o.promised[row.ID] {
		if row.State != s && !slices.Contains(follows[s], row.State) && !(s == order.Refunded && row.Reason != "") {
			w.violate("order %s is %s, %s was promised", row.ID, row.State, s)
		}
	}
	o.money(row)
	o.rows[row.ID] = row
	switch {
	case row.State == order.Cancelled && row.Reason == order.ReasonTimeout:
		o.once("expired", string(row.ID))
	case row.ReplacedBy != "":
		o.once("late payment bought", string(row.ID))
	case row.Terms.Total == 0:
		o.once("free order", string(row.ID))
	}
}

// money holds a row against the provider's books.
func (o *oracle) money(row order.Order) {
	w := o.w
	for _, c := range row.Money.Captures {
		real := w.provider.find(c.ID)
		if real == nil || real.payment != c.Payment || real.amount != c.Amount {
			w.violate("order %s has capture %+v, the provider has %+v", row.ID, c, real)
			return
		}
		if c.Pays != "" && (c.Amount != row.Terms.Money() || real.refund != "") {
			w.violate("order %s: %v of capture %s pay %s, which costs %v; refund %q", row.ID, c.Amount, c.ID, c.Pays, row.Terms.Money(), real.refund)
		}
	}
	for capture, id := range o.told {
		if id == row.ID && !slices.ContainsFunc(row.Money.Captures, func(c order.Capture) bool { return c.ID == capture }) {
			w.violate("capture %s of order %s was acknowledged, and is not on record", capture, id)
		}
	}
	for _, r := range row.Money.Refunds {
		if real := w.provider.find(r.Capture); r.State == order.RefundDone && (real == nil || real.refund != r.ID || real.pending) {
			w.violate("order %s calls refund %s done, the provider has %+v", row.ID, r.ID, real)
		}
		if r.Reason == "late" && r.State == order.RefundDone {
			o.once("late payment refunded", r.ID)
		}
	}
	for c, b := range row.Money.Balances() {
		if b.Captured != b.Paying+b.Owed+b.Refunded+b.Undecided {
			w.violate("order %s, %s: %+v does not add up", row.ID, c, b)
		}
	}
}

// updated is told of every change of an order as it is committed. A time-out
// has asked the provider first: money that is there pays. (A payment with a
// capture is final; more money on it is told by callback only, and comes late.)
func (o *oracle) updated(row order.Order) {
	if row.State != order.Cancelled || row.Reason != order.ReasonTimeout || o.seen["timed out "+string(row.ID)] {
		return
	}
	o.seen["timed out "+string(row.ID)] = true
	first := map[string]bool{}
	for _, c := range o.w.provider.captures {
		if had := first[c.payment]; !had && orderOf(c.payment) == row.ID && c.amount == row.Terms.Money() {
			o.w.violate("order %s timed out with %v of capture %s at the provider", row.ID, c.amount, c.id)
		}
		first[c.payment] = true
	}
}

func (p *provider) find(capture string) *captured {
	for _, c := range p.captures {
		if c.id == capture {
			return c
		}
	}
	return nil
}

// atRest is the last word: every order ended, every unit in its place, every
// minor unit paid for something or given back, every event delivered.
func (o *oracle) atRest() {
	w, ctx := o.w, context.Background()
	o.follow()
	o.counts()
	o.readOrders()
	if o.landed != uint64(len(o.entries)) {
		w.violate("at rest the watermark is %d of %d", o.landed, len(o.entries))
	}
	if n, _, err := w.store.Backlog(ctx); n != 0 || err != nil {
		w.violate("at rest %d events are undelivered: %v", n, err)
	}
	if open, err := w.store.OpenAdjustments(ctx); len(open) != 0 || err != nil {
		w.violate("at rest %d adjustments are unfinished: %v", len(open), err)
	}
	for _, id := range slices.Sorted(maps.Keys(o.rows)) {
		o.ended(o.rows[id])
	}
	o.balance()
	o.notified()
	activities, err := w.e.sales.List(ctx)
	if err != nil {
		w.violate("at rest: %v", err)
	}
	for _, a := range activities {
		if a.State != sale.Closed {
			w.violate("at rest %s is %s", a.ID, a.State)
		}
		if b := o.books[a.ID]; b != nil {
			o.proved(a.ID, b)
		}
		o.over(a)
	}
	if w.violation != "" {
		return
	}
	w.tell("one more life")
	w.restart() // compares the log, the replica and the counts
	o.check(true)
}

func (o *oracle) proved(id stock.ActivityID, b *book) {
	w := o.w
	for _, it := range b.items {
		if c := b.count(it); c.Held != 0 || c.Free+c.Confirmed != c.Allocated || (c.Level == stock.SoldOut) != (c.Free == 0) {
			w.violate("at rest %s %s: %+v", id, it.sku, c)
		}
	}
	r, err := w.e.auditor.Check(context.Background(), id)
	if err != nil || !r.OK || r.Position.Position != uint64(len(o.entries)) {
		w.violate("at rest the auditor of %s at %d of %d: %v, %q", id, r.Position.Position, len(o.entries), err, r.Violations)
	}
}

// ended checks one order, its reservation and its events.
func (o *oracle) ended(row order.Order) {
	w := o.w
	is := o.reservation(row.Reservation).State
	var want stock.State
	var topics []string
	switch row.State {
	case order.Paid:
		want, topics = stock.Confirmed, []string{order.TopicPaid}
	case order.Fulfilled:
		want, topics = stock.Confirmed, []string{order.TopicPaid, order.TopicFulfilled}
	case order.Cancelled:
		want, topics = stock.Released, []string{order.TopicCancelled}
		if row.Reason == order.ReasonTimeout {
			want = stock.Expired
		}
	case order.Refunded:
		want, topics = stock.Confirmed, []string{order.TopicPaid, order.TopicRefunded}
		if row.Terms.Restock {
			want = stock.Returned
		}
	}
	if is != want || row.CheckAt != 0 {
		w.violate("at rest order %s is %s (%s), looks at itself at %d, its reservation is %s", row.ID, row.State, row.Reason, row.CheckAt, is)
	}
	var got []string
	for _, id := range slices.Sorted(maps.Keys(o.delivered)) {
		if e := o.delivered[id]; e.Order == row.ID && (e.Topic != order.TopicPaymentDue || len(got) > 0) { // a reminder comes first or not at all
			got = append(got, e.Topic)
		}
	}
	if row.State == order.Refunded && len(got) == 3 {
		topics = slices.Insert(topics, 1, order.TopicFulfilled)
	}
	if !slices.Equal(got, topics) {
		w.violate("at rest order %s is %s, its events were %q", row.ID, row.State, got)
	}
}

// balance: what came in without going back is what the paid orders cost.
func (o *oracle) balance() {
	w := o.w
	paid := map[stock.OrderID]int64{}
	for _, c := range w.provider.captures {
		row := o.rows[orderOf(c.payment)]
		i := slices.IndexFunc(row.Money.Captures, func(m order.Capture) bool { return m.ID == c.id })
		if i < 0 {
			w.violate("at rest nobody knows of capture %s of payment %s: %v", c.id, c.payment, c.amount)
			continue
		}
		pays := row.Money.Captures[i].Pays
		if (pays == "") == (c.refund == "" || c.pending) {
			w.violate("at rest capture %s of %v pays %q and has refund %q", c.id, c.amount, pays, c.refund)
		}
		if pays != "" {
			paid[pays] += c.amount.Amount
		}
	}
	for id, row := range o.rows {
		want := int64(0)
		if row.State == order.Paid || row.State == order.Fulfilled {
			want = row.Terms.Total
		}
		if paid[id] != want {
			w.violate("at rest order %s is %s with %d paid of %d", id, row.State, paid[id], row.Terms.Total)
		}
	}
}

// notified: each event that concerns a buyer was applied exactly once.
func (o *oracle) notified() {
	w := o.w
	want := map[stock.UserID]int{}
	for _, e := range o.delivered {
		if e.Topic != order.TopicFulfilled {
			want[e.User]++
		}
	}
	for user, n := range want {
		got, err := w.store.Notifications(context.Background(), user, 0, 500)
		if err != nil || len(got) != n {
			w.violate("at rest %s has %d notifications of %d events: %v", user, len(got), n, err)
		}
	}
}
