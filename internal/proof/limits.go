package proof

import (
	"fmt"

	"sluice/internal/stock"
)

// limits is the auditor's own account of what each user of an activity has, and
// of the limits in force: a user's held and confirmed units may at no acceptance
// come to more than those allow, late money's reservations included. It is kept
// from the entries alone, beside the book that replays them, which decides
// nothing; of that book it uses only whose a reservation is.
type limits struct {
	since   uint64 // acceptances up to this log position were not seen
	perUser int
	items   []stock.Item // with the limits in force; units are not kept up
	closed  bool         // for good, so nobody's units are counted any more

	all  map[stock.UserID]int32
	each map[userItem]int32 // of activities with more than one SKU

	found     int
	sentences []string // at most MaxViolations
}

type userItem struct {
	user stock.UserID
	item int
}

func newLimits(perUser int, items []stock.Item) *limits {
	return &limits{perUser: perUser, items: append([]stock.Item(nil), items...),
		all: map[stock.UserID]int32{}, each: map[userItem]int32{}}
}

// standingLimits goes on from a book whose way to a position was not seen.
func standingLimits(b *stock.Book, position uint64) *limits {
	l := newLimits(b.Allocation().PerUser, b.Items())
	l.since = position
	b.Reservations(func(r *stock.Reservation) bool {
		if r.State == stock.Held || r.State == stock.Confirmed {
			l.add(r, 1)
		}
		return true
	})
	if b.Phase() == stock.Closed {
		l.close()
	}
	return l
}

// take follows the next entry; book stands before it, and is nil before the
// first.
func (l *limits) take(e stock.Entry, book *stock.Book) {
	switch e.Kind {
	case stock.EntryReserved:
		l.judge(e.Reservation)
		l.add(e.Reservation, 1)
	case stock.EntrySettled:
		if e.Settlement.Outcome == stock.Confirmed {
			return
		}
		if r, err := book.Find(e.Settlement.ID); err == nil { // else the replay refuses it
			l.add(&r.Reservation, -1)
		}
	case stock.EntryAdjusted:
		l.adjust(e.Adjustment)
	}
}

func (l *limits) adjust(a *stock.Adjustment) {
	if at := l.item(a.SKU); at >= 0 && a.Limits != nil {
		l.items[at].PerUser, l.items[at].PerOrder = a.Limits.PerUser, a.Limits.PerOrder
	}
	if a.PerUser != nil {
		l.perUser = *a.PerUser
	}
	if a.Phase == stock.Closed {
		l.close()
	}
}

func (l *limits) close() { l.closed, l.all, l.each = true, nil, nil }

func (l *limits) item(sku stock.SKU) int {
	for i := range l.items {
		if l.items[i].SKU == sku {
			return i
		}
	}
	return -1
}

// judge holds an acceptance against the limits in force at it.
func (l *limits) judge(r *stock.Reservation) {
	if l.closed {
		l.violated("reservation %s of order %s was accepted although the activity was closed", r.ID, r.Order)
		return
	}
	asked := 0
	for _, line := range r.Lines {
		asked += line.Quantity
		at := l.item(line.SKU)
		if at < 0 {
			continue // the replay refuses it
		}
		it := &l.items[at]
		if line.Quantity > it.PerOrder {
			l.violated("reservation %s of order %s took %d units of %s, at its acceptance an order could have %d",
				r.ID, r.Order, line.Quantity, it.SKU, it.PerOrder)
		}
		if has := l.has(r.User, at) + line.Quantity; it.PerUser > 0 && has > it.PerUser {
			l.violated("reservation %s of order %s left user %s with %d units of %s, at its acceptance a user could have %d",
				r.ID, r.Order, r.User, has, it.SKU, it.PerUser)
		}
	}
	if has := int(l.all[r.User]) + asked; l.perUser > 0 && has > l.perUser {
		l.violated("reservation %s of order %s left user %s with %d units of the activity, at its acceptance a user could have %d",
			r.ID, r.Order, r.User, has, l.perUser)
	}
}

func (l *limits) has(user stock.UserID, item int) int {
	if len(l.items) == 1 {
		return int(l.all[user])
	}
	return int(l.each[userItem{user, item}])
}

func (l *limits) add(r *stock.Reservation, sign int32) {
	if l.closed {
		return
	}
	n := int32(0)
	for _, line := range r.Lines {
		n += sign * int32(line.Quantity)
		if len(l.items) > 1 {
			sum(l.each, userItem{r.User, l.item(line.SKU)}, sign*int32(line.Quantity))
		}
	}
	sum(l.all, r.User, n)
}

// sum forgets who has nothing: most of those who ever reserved, in the end.
func sum[K comparable](m map[K]int32, key K, n int32) {
	if n += m[key]; n == 0 {
		delete(m, key)
		return
	}
	m[key] = n
}

func (l *limits) violated(format string, args ...any) {
	l.found++
	if len(l.sentences) < MaxViolations {
		l.sentences = append(l.sentences, fmt.Sprintf(format, args...))
	}
}
