package sim

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/wal"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// oracle keeps its own account of what happened and what was promised, and
// holds the engine against it. Of the engine it trusts nothing but what it has
// read itself: the durable log, the rows, the replies.
type oracle struct {
	w *world

	entries  [][]byte // of the durable log, encoded; position i+1
	books    map[stock.ActivityID]*book
	closing  map[stock.ActivityID]bool        // an operator has asked to close it
	replayed map[stock.ActivityID]*stock.Book // the same entries through stock.Book
	watches  []*watch

	deltas   map[string]bool // adjustment id → applied; false = refused for good
	rows     map[stock.OrderID]order.Order
	landed   uint64 // the watermark as seen last
	promised map[stock.OrderID][]order.State
	told     map[string]stock.OrderID // capture ids of acknowledged callbacks
	seen     map[string]bool          // things fired once

	opened map[stock.ActivityID]uint64 // position of an activity's first entry
	cut    map[stock.ActivityID]bool   // it was said that the log no longer reaches back to it
	mayCut bool                        // the last trim had a reason to

	delivered map[int64]event
	lastOf    map[string]int64 // key → greatest message id delivered
}

func newOracle(w *world) *oracle {
	return &oracle{
		w: w, books: map[stock.ActivityID]*book{}, closing: map[stock.ActivityID]bool{}, replayed: map[stock.ActivityID]*stock.Book{},
		deltas: map[string]bool{}, rows: map[stock.OrderID]order.Order{}, promised: map[stock.OrderID][]order.State{},
		opened: map[stock.ActivityID]uint64{}, cut: map[stock.ActivityID]bool{}, told: map[string]stock.OrderID{}, seen: map[string]bool{}, delivered: map[int64]event{}, lastOf: map[string]int64{},
	}
}

// once fires a kind once for each thing.
func (o *oracle) once(kind, thing string) {
	if !o.seen[kind+" "+thing] {
		o.seen[kind+" "+thing] = true
		o.w.fire(kind)
	}
}

func after(position int) stock.Cursor {
	return stock.Cursor{Log: walstock.LogID, Epoch: walstock.Epoch, Position: uint64(position)}
}

// follow reads what has become durable.
func (o *oracle) follow() {
	w := o.w
	for e, err := range w.e.ledger.Tail(context.Background(), after(len(o.entries))) {
		if err != nil {
			if !w.faults.dark {
				w.violate("tail after %d: %v", len(o.entries), err)
			}
			return
		}
		o.take(e)
	}
}

func (o *oracle) take(e stock.Entry) {
	w := o.w
	if e.Cursor.Position != uint64(len(o.entries))+1 {
		w.violate("log entry %d follows entry %d", e.Cursor.Position, len(o.entries))
		return
	}
	p := stock.AppendEntry(nil, &e)
	o.entries = append(o.entries, p)
	var d stock.Decoder
	mine, err := d.Entry(bytes.Clone(p)) // shares nothing with the ledger
	if err != nil {
		w.violate("entry %d does not decode: %v", len(o.entries), err)
		return
	}
	b := o.books[mine.Activity]
	o.final(e)
	if b == nil {
		o.opened[mine.Activity] = e.Cursor.Position
		o.books[mine.Activity] = open(o, mine)
		o.replayed[mine.Activity], err = stock.Open(mine)
	} else {
		b.take(mine)
		err = o.replayed[mine.Activity].Replay(mine)
	}
	if err != nil {
		w.violate("entry %d does not follow: %v", len(o.entries), err)
	}
	for _, x := range o.watches {
		if x.activity == mine.Activity {
			x.judge(o.books[mine.Activity])
		}
	}
}

// recovered compares the log of a new process with everything that was ever
// seen durable.
func (o *oracle) recovered() {
	w := o.w
	head := w.e.ledger.Head().Position
	if head < uint64(len(o.entries)) {
		w.violate("the log ends at %d after recovery, %d entries were durable", head, len(o.entries))
		return
	}
	first := 0 // the log is whole after this position
	for lo, hi := 0, len(o.entries); lo <= hi; {
		mid := (lo + hi) / 2
		if o.reaches(mid) {
			first, hi = mid, mid-1
		} else {
			lo = mid + 1
		}
	}
	if first > 0 {
		o.once("log trimmed", "")
	}
	o.unheard()
	at := first
	for e, err := range w.e.ledger.Tail(context.Background(), after(first)) {
		if err != nil {
			w.violate("tail after recovery: %v", err)
			return
		}
		if at == len(o.entries) {
			break
		}
		if !bytes.Equal(stock.AppendEntry(nil, &e), o.entries[at]) {
			w.violate("entry %d reads otherwise after recovery", at+1)
			return
		}
		at++
	}
	o.follow()
	o.replay()
	o.counts()
}

func (o *oracle) reaches(position int) bool {
	for _, err := range o.w.e.ledger.Tail(context.Background(), after(position)) {
		return !errors.Is(err, stock.ErrTruncated)
	}
	return true
}

// replay: the engine's replica of its log has the state that the entries give.
func (o *oracle) replay() {
	w := o.w
	got, err := w.e.ledger.Replica(context.Background(), w.e.ledger.Head())
	if err != nil {
		if !w.faults.dark {
			w.violate("replica: %v", err)
		}
		return
	}
	for id, b := range o.replayed {
		if got[id] == nil || got[id].Hash() != b.Hash() {
			w.violate("the replica of %s has another state than its entries give", id)
		}
	}
}

// counts: what the ledger shows is what its durable entries come to.
func (o *oracle) counts() {
	w := o.w
	if w.faults.dark || w.e.ledger.Failed() != nil || w.e.ledger.Full() != nil {
		return // what was synced of the batch that failed is not shown
	}
	for _, id := range slices.Sorted(maps.Keys(o.books)) {
		b := o.books[id]
		c, err := w.e.ledger.Counts(context.Background(), id)
		if err != nil || len(c.Items) != len(b.items) || c.Phase != b.phase {
			w.violate("counts of %s: %+v, %v; want phase %s", id, c, err, b.phase)
			return
		}
		for i, it := range b.items {
			want := b.count(it)
			if c.Items[i] != want {
				w.violate("counts of %s: %+v, the durable log comes to %+v", id, c.Items[i], want)
			}
			if want.Free < 0 || want.Held < 0 || want.Confirmed < 0 || want.Free+want.Held+want.Confirmed != want.Allocated {
				w.violate("%s %s: %+v does not add up", id, it.sku, want)
			}
		}
	}
}

// check is called after every step; all says to look at everything.
func (o *oracle) check(all bool) {
	w := o.w
	if w.violation != "" || w.faults.dark {
		return
	}
	o.follow()
	o.counts()
	if v, n := w.e.settler.Violations(); n > 0 {
		w.violate("settlement violated: %+v", v[0])
	}
	if n := w.e.alarms.Counts()[order.AlarmClockJump]; n > 0 {
		o.once("time-outs held back", "")
	}
	if all {
		o.readOrders()
		o.trails()
	}
}

// watch collects what may be answered to a purchase, from its start on.
type watch struct {
	activity stock.ActivityID
	user     stock.UserID
	key      string
	lines    []stock.Line
	at       stock.Millis
	may      []error // nil = accepted
}

func (o *oracle) watch(in *intent, lines []stock.Line, at stock.Millis) *watch {
	x := &watch{in.activity, in.user, in.key, lines, at, nil}
	x.judge(o.books[in.activity])
	if o.books[in.activity] == nil && o.closing[in.activity] {
		x.may = append(x.may, stock.ErrEnded) // closed before it had units
	}
	o.watches = append(o.watches, x)
	return x
}

func (o *oracle) unwatch(x *watch) {
	o.watches = slices.DeleteFunc(o.watches, func(y *watch) bool { return x == y })
}

func (x *watch) judge(b *book) {
	if b == nil {
		x.may = append(x.may, stock.ErrNotOpen)
		return
	}
	for _, err := range b.judge(x.user, x.key, x.lines, x.at, "") {
		if !slices.Contains(x.may, err) {
			x.may = append(x.may, err)
		}
	}
}

// refusals that a shopper may hear, with the kind they are counted as.
var refusals = map[error]string{
	stock.ErrSoldOut: "sold out", stock.ErrAllHeld: "all held", stock.ErrInsufficient: "insufficient", stock.ErrLimit: "limit",
	stock.ErrPaused: "paused", stock.ErrEnded: "ended", stock.ErrNotOpen: "not open", stock.ErrMismatch: "",
}

// answered judges a reply to a purchase.
func (o *oracle) answered(a *attempt) {
	w := o.w
	if a.err == nil {
		o.accepted(a)
		return
	}
	switch {
	case errors.Is(a.err, stock.ErrUnknown) && (errors.Is(a.err, context.Canceled) || w.e.ledger.Failed() != nil):
		return
	case errors.Is(a.err, stock.ErrNotReady) && w.e.ledger.Failed() != nil:
		return
	case errors.Is(a.err, stock.ErrUnknown) && errors.Is(a.err, wal.ErrNoRoom), errors.Is(a.err, stock.ErrOverloaded) && w.e.ledger.Full() != nil:
		w.fire("refused by a full disk")
		return
	case slices.Contains(a.watch.may, errNonsense):
		return
	case errors.Is(a.err, sale.ErrNoSuchActivity) && w.ops.unshown:
		return
	case errors.Is(a.err, stock.ErrNotReady) && w.ops.unshown && o.books[a.activity] == nil:
		return // the shop knows it, and the ledger has not been told yet
	}
	for err, kind := range refusals {
		if !errors.Is(a.err, err) {
			continue
		}
		if !slices.Contains(a.watch.may, err) {
			w.violate("%s of %s asking for %v is told %q; right would be %v", a.key, a.user, a.lines, a.err, a.watch.may)
		}
		if kind != "" {
			w.fire(kind)
		}
		return
	}
	w.violate("%s of %s is told %v", a.key, a.user, a.err)
}

// accepted judges a receipt: it is a promise, so it rests on a durable entry,
// and it is the same promise every time.
func (o *oracle) accepted(a *attempt) {
	w, r := o.w, a.got
	if !slices.Contains(a.watch.may, nil) {
		w.violate("%s of %s is accepted for %v; right would be %v", a.key, a.user, a.lines, a.watch.may)
		return
	}
	held := o.reservation(r.ID)
	if held == nil {
		w.violate("%s of %s got a receipt for %s, which is not durable", a.key, a.user, r.ID)
		return
	}
	if !same(held.Reservation, r.Reservation) || r.User != a.user || r.Key != a.key || !sameLines(r.Lines, a.lines) {
		w.violate("%s of %s: the receipt says %+v, the log %+v", a.key, a.user, r.Reservation, held.Reservation)
	}
	if a.receipt != nil && !same(a.receipt.Reservation, r.Reservation) {
		w.violate("%s of %s: the receipt was %+v, and is %+v", a.key, a.user, a.receipt.Reservation, r.Reservation)
	}
	a.receipt = &r
}

func (o *oracle) reservation(id stock.ID) *held {
	b := o.books[id.Activity]
	if b == nil || id.Number == 0 || id.Number > uint64(len(b.held)) {
		return nil
	}
	return b.held[id.Number-1]
}

// same compares what a reservation can never change.
func same(a, b stock.Reservation) bool {
	return a.ID == b.ID && a.User == b.User && a.Key == b.Key && a.Fingerprint == b.Fingerprint && a.Order == b.Order &&
		slices.Equal(a.Lines, b.Lines) && bytes.Equal(a.Terms, b.Terms) && a.At == b.At && a.Expires == b.Expires && a.Late == b.Late
}

func sameLines(a, b []stock.Line) bool {
	sorted := func(l []stock.Line) []stock.Line {
		return slices.SortedFunc(slices.Values(l), func(a, b stock.Line) int { return bytes.Compare([]byte(a.SKU), []byte(b.SKU)) })
	}
	return slices.Equal(sorted(a), sorted(b))
}

// expectDelta notes what is free before a delta is asked for, and answers the
// judge of a refusal.
func (o *oracle) expectDelta(d delta) func(error) {
	free := func() int {
		b := o.books[d.activity]
		if b == nil {
			return -1 // units of an activity exist once they are allocated
		}
		return b.count(b.item(d.sku)).Free
	}
	before := free()
	return func(err error) {
		if _, known := o.deltas[d.id]; !known && d.first && before >= -d.by && free() >= -d.by {
			o.w.violate("delta %s of %+d is refused with %d free: %v", d.id, d.by, free(), err)
		}
	}
}

func (o *oracle) deltaApplied(d delta) {
	o.deltas[d.id] = true
	if b := o.books[d.activity]; b == nil || !b.adjusted["stock-"+d.id] {
		o.w.violate("delta %s is answered as applied, and is not in the log", d.id)
	}
}

func (o *oracle) deltaRefused(d delta) {
	o.deltas[d.id] = false
	if b := o.books[d.activity]; b != nil && b.adjusted["stock-"+d.id] {
		o.w.violate("delta %s is answered as refused, and is in the log", d.id)
	}
}

// promise notes that an operator or shopper was told of an order's state.
func (o *oracle) promise(id stock.OrderID, s order.State) { o.promised[id] = append(o.promised[id], s) }

// captured notes money that arrived for an order that is cancelled already.
func (o *oracle) captured(c *captured) {
	if row, err := o.w.store.Get(context.Background(), orderOf(c.payment)); err == nil && row.State == order.Cancelled {
		o.w.fire("late payment")
	}
}

// acknowledged: a callback that was taken is on record.
func (o *oracle) acknowledged(st payment.Status) {
	for _, c := range st.Captures {
		o.told[c.ID] = orderOf(st.PaymentID)
	}
}
