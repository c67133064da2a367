package sim

import (
	"errors"
	"slices"
	"strings"

	"sluice/internal/sale"
	"sluice/internal/stock"
)

// book is one activity's ledger as the oracle keeps it: a list of everything
// accepted, counted anew for each question. Too plain to be wrong.
type book struct {
	o              *oracle
	id             stock.ActivityID
	items          []*item
	phase          stock.Phase
	opens, closes  stock.Millis
	holdFor        stock.Millis
	perUser        int
	held           []*held
	adjusted       map[string]bool
	sequence       uint64
	lastAcceptance stock.Millis
}

type item struct {
	sku                          stock.SKU
	allocated, perUser, perOrder int
	returned                     int
}

// held is one reservation and the position of its entry.
type held struct {
	stock.Reservation
	position uint64
}

var errNonsense = errors.New("sim: out of shape")

func open(o *oracle, e stock.Entry) *book {
	a := e.Allocation
	if a == nil {
		o.w.violate("the log of %s starts with kind %d", e.Activity, e.Kind)
		return &book{o: o, id: e.Activity}
	}
	b := &book{o: o, id: e.Activity, phase: stock.Live, opens: a.OpensAt, closes: a.ClosesAt, holdFor: a.Hold, perUser: a.PerUser,
		adjusted: map[string]bool{}, sequence: 1}
	for _, it := range a.Items {
		b.items = append(b.items, &item{sku: it.SKU, allocated: it.Units, perUser: it.PerUser, perOrder: it.PerOrder})
	}
	return b
}

func (b *book) item(sku stock.SKU) *item {
	for _, it := range b.items {
		if it.sku == sku {
			return it
		}
	}
	return nil
}

// units sums what reservations have of a SKU in one state; user "" is all.
func (b *book) units(sku stock.SKU, user stock.UserID, state stock.State) (n int) {
	for _, h := range b.held {
		if h.State == state && (user == "" || h.User == user) {
			for _, l := range h.Lines {
				if l.SKU == sku {
					n += l.Quantity
				}
			}
		}
	}
	return n
}

func (b *book) count(it *item) stock.Count {
	h, c := b.units(it.sku, "", stock.Held), b.units(it.sku, "", stock.Confirmed)
	free := it.allocated - h - c
	level := stock.Plenty
	switch {
	case free <= 0 && h > 0:
		level = stock.AllHeld
	case free <= 0:
		level = stock.SoldOut
	case free*10 <= it.allocated:
		level = stock.Few
	}
	return stock.Count{SKU: it.sku, Allocated: it.allocated, Free: free, Held: h, Confirmed: c, Returned: it.returned, Level: level}
}

// judge says what may be answered to a purchase now; nil is acceptance.
func (b *book) judge(user stock.UserID, key string, lines []stock.Line, at stock.Millis, late string) []error {
	for _, h := range b.held {
		if h.User == user && h.Key == key {
			if sameLines(h.Lines, lines) {
				return []error{nil}
			}
			return []error{stock.ErrMismatch}
		}
	}
	seen := map[stock.SKU]bool{}
	for _, l := range lines {
		if b.item(l.SKU) == nil || l.Quantity < 1 || seen[l.SKU] {
			return []error{errNonsense}
		}
		seen[l.SKU] = true
	}
	if len(lines) == 0 {
		return []error{errNonsense}
	}
	switch {
	case late != "" && b.phase == stock.Closed:
		return []error{stock.ErrEnded}
	case late != "":
	case b.phase >= stock.Draining || at >= b.closes:
		return []error{stock.ErrEnded}
	case at < b.opens:
		return []error{stock.ErrNotOpen}
	case b.phase == stock.Paused:
		return []error{stock.ErrPaused}
	}
	if !b.within(user, lines) {
		return []error{stock.ErrLimit}
	}
	var short []error
	for _, l := range lines {
		switch c := b.count(b.item(l.SKU)); {
		case c.Free >= l.Quantity:
		case c.Free > 0:
			short = append(short, stock.ErrInsufficient)
		case c.Held > 0:
			short = append(short, stock.ErrAllHeld)
		default:
			short = append(short, stock.ErrSoldOut)
		}
	}
	if len(short) > 0 {
		return short
	}
	return []error{nil}
}

func (b *book) within(user stock.UserID, lines []stock.Line) bool {
	asked, has, count := 0, 0, 0
	for _, it := range b.items {
		has += b.units(it.sku, user, stock.Held) + b.units(it.sku, user, stock.Confirmed)
	}
	for _, l := range lines {
		it := b.item(l.SKU)
		mine := b.units(l.SKU, user, stock.Held) + b.units(l.SKU, user, stock.Confirmed)
		if l.Quantity > it.perOrder || it.perUser > 0 && mine+l.Quantity > it.perUser {
			return false
		}
		asked += l.Quantity
	}
	for _, h := range b.held {
		if h.User == user {
			count++
		}
	}
	return (b.perUser == 0 || has+asked <= b.perUser) && count < stock.MaxReservations
}

// take is the effect of an entry, and whether it could be one.
func (b *book) take(e stock.Entry) {
	w := b.o.w
	b.sequence++
	if e.Sequence != b.sequence {
		w.violate("%s: entry with sequence %d after %d", b.id, e.Sequence, b.sequence-1)
	}
	switch e.Kind {
	case stock.EntryReserved:
		b.reserve(*e.Reservation)
	case stock.EntrySettled:
		b.settle(*e.Settlement)
	case stock.EntryAdjusted:
		b.adjust(*e.Adjustment)
	default:
		w.violate("%s: entry of kind %d", b.id, e.Kind)
	}
}

func (b *book) reserve(r stock.Reservation) {
	w := b.o.w
	for _, h := range b.held {
		if h.User == r.User && h.Key == r.Key {
			w.violate("%s: %s and %s have the same key %s", b.id, h.ID, r.ID, r.Key)
		}
		if h.Order == r.Order {
			w.violate("%s: %s and %s have the same order %s", b.id, h.ID, r.ID, r.Order)
		}
	}
	if may := b.judge(r.User, r.Key, r.Lines, r.At, r.Late); !slices.Contains(may, nil) {
		w.violate("%s: %s of %s was accepted for %v; right would be %v", b.id, r.ID, r.User, r.Lines, may)
	}
	if r.ID.Number != uint64(len(b.held))+1 || r.Expires != r.At+b.holdFor || r.At < b.lastAcceptance {
		w.violate("%s: %+v is reservation %d with hold %d", b.id, r, len(b.held)+1, b.holdFor)
	}
	b.lastAcceptance = r.At
	r.State = stock.Held
	b.held = append(b.held, &held{r, uint64(len(b.o.entries))})
}

func (b *book) settle(s stock.Settlement) {
	h := b.o.reservation(s.ID)
	switch {
	case h == nil:
		b.o.w.violate("%s: settles %s, which is not there", b.id, s.ID)
		return
	case h.State == stock.Held && (s.Outcome == stock.Confirmed || s.Outcome == stock.Released || s.Outcome == stock.Expired):
	case h.State == stock.Confirmed && s.Outcome == stock.Returned:
		b.o.w.fire("returned by refund")
		for _, l := range h.Lines {
			b.item(l.SKU).returned += l.Quantity
		}
	default:
		b.o.w.violate("%s: %s goes from %s to %s", b.id, s.ID, h.State, s.Outcome)
	}
	h.State = s.Outcome
}

func (b *book) adjust(a stock.Adjustment) {
	w := b.o.w
	if b.adjusted[a.ID] {
		w.violate("%s: adjustment %s is applied twice", b.id, a.ID)
	}
	b.adjusted[a.ID] = true
	delta, _ := strings.CutPrefix(a.ID, "stock-")
	if applied, known := b.o.deltas[delta]; known && !applied {
		w.violate("%s: adjustment %s was refused, and is applied", b.id, a.ID)
	}
	if it := b.item(a.SKU); it != nil {
		if a.Delta < 0 && b.count(it).Free < -a.Delta {
			w.violate("%s: %d of %s are taken, %d are free", b.id, -a.Delta, a.SKU, b.count(it).Free)
		}
		it.allocated += a.Delta
		if a.Limits != nil {
			it.perUser, it.perOrder = a.Limits.PerUser, a.Limits.PerOrder
		}
	}
	if a.PerUser != nil {
		b.perUser = *a.PerUser
	}
	if a.OpensAt != 0 {
		b.opens = a.OpensAt
	}
	if a.ClosesAt != 0 {
		b.closes = a.ClosesAt
	}
	if a.Hold != 0 {
		b.holdFor = a.Hold
	}
	if a.Phase != 0 {
		if b.phase >= stock.Draining && a.Phase < b.phase {
			w.violate("%s: goes from %s to %s", b.id, b.phase, a.Phase)
		}
		b.phase = a.Phase
	}
}

// sameRules: an edit that was answered is in force.
func (o *oracle) sameRules(a sale.Activity) {
	b := o.books[a.ID]
	if b == nil {
		return // its stock is not allocated yet
	}
	ok := b.perUser == a.PerUser && b.opens == a.OpensAt && b.closes == a.ClosesAt && b.holdFor == stock.Millis(a.HoldSeconds)*1000
	for _, it := range a.Items {
		mine := b.item(it.SKU)
		ok = ok && mine.perUser == it.PerUser && mine.perOrder == it.PerOrder
	}
	if !ok {
		o.w.violate("an edit of %s was answered, and is not in force: %+v", a.ID, a)
	}
}
