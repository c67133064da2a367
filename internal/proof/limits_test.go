package proof

import (
	"slices"
	"strings"
	"testing"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// unlimited is a book with the limit check off: its log is then said to be that
// of an activity which had limits.
type unlimited struct {
	t    *testing.T
	book *stock.Book
	log  []stock.Entry
	keys int
}

func newUnlimited(t *testing.T, perUser int, items ...stock.Item) *unlimited {
	t.Helper()
	a := stocktest.Allocation("a", 0, 0)
	a.Items = nil
	for _, it := range items {
		a.Items = append(a.Items, stock.Item{SKU: it.SKU, Units: 100, PerOrder: stock.MaxQuantity})
	}
	b, e, err := stock.NewBook(a)
	if err != nil {
		t.Fatal(err)
	}
	said := *e.Allocation
	said.PerUser, said.Items = perUser, slices.Clone(items)
	for i := range items {
		said.Items[i].Units = 100
	}
	e.Allocation = &said
	return &unlimited{t: t, book: b, log: []stock.Entry{e}}
}

// note copies the entry, which may point into the book.
func (u *unlimited) note(e *stock.Entry, err error) {
	u.t.Helper()
	if err != nil || e == nil {
		u.t.Fatalf("no entry: %v", err)
	}
	var d stock.Decoder
	mine, err := d.Entry(stock.AppendEntry(nil, e))
	if err != nil {
		u.t.Fatal(err)
	}
	u.log = append(u.log, mine)
}

func (u *unlimited) reserve(user string, late string, lines ...stock.Line) stock.ID {
	u.t.Helper()
	u.keys++
	r := stocktest.Request("a", user, strings.Repeat("k", u.keys), 1)
	r.Lines, r.Late = lines, late
	rec, e, err := u.book.Reserve(&r)
	u.note(e, err)
	return rec.ID
}

func (u *unlimited) settle(id stock.ID, outcomes ...stock.Outcome) {
	u.t.Helper()
	for _, o := range outcomes {
		_, e, err := u.book.Settle(stock.Settlement{ID: id, Outcome: o})
		u.note(e, err)
	}
}

// limit notes an edit of limits, which the book itself is not told of.
func (u *unlimited) limit(a stock.Adjustment) {
	u.t.Helper()
	u.keys++
	told := a
	told.ID, told.Activity, told.PerUser = strings.Repeat("k", u.keys), "a", nil
	if told.Limits != nil {
		told.Limits = &stock.ItemLimits{PerOrder: stock.MaxQuantity}
	}
	e, err := u.book.Adjust(told)
	u.note(e, err)
	said := u.log[len(u.log)-1].Adjustment
	said.PerUser, said.Limits = a.PerUser, a.Limits
}

// check replays the log.
func (u *unlimited) check() (l *limits) {
	u.t.Helper()
	r := replica{books: stock.Books{}, limits: map[stock.ActivityID]*limits{}, whole: true}
	for _, e := range u.log {
		if err := r.take(e); err != nil {
			u.t.Fatal(err)
		}
	}
	return r.limits["a"]
}

func one(n int) stock.Line { return stock.Line{SKU: "s", Quantity: n} }
func two(n int) stock.Line { return stock.Line{SKU: "t", Quantity: n} }

// Every acceptance is held against the limits in force at it.
func TestLimits(t *testing.T) {
	five := []stock.Item{{SKU: "s", Units: 100, PerOrder: 5}}
	f := func(what string, perUser int, items []stock.Item, do func(u *unlimited), want ...string) {
		t.Helper()
		u := newUnlimited(t, perUser, items...)
		do(u)
		l := u.check()
		if l.found != len(want) || !slices.EqualFunc(l.sentences, want, strings.Contains) {
			t.Errorf("%s: %d found, %q; want %q", what, l.found, l.sentences, want)
		}
	}
	f("as many as allowed", 3, five, func(u *unlimited) {
		u.reserve("ann", "", one(2))
		u.reserve("ann", "", one(1))
		u.reserve("bob", "", one(3))
	})
	f("one too many", 3, five, func(u *unlimited) {
		u.reserve("ann", "", one(2))
		u.reserve("bob", "", one(2))
		u.reserve("ann", "", one(2))
	}, "a.0.1.3 of order o-ann-kkk left user ann with 4 units of the activity, at its acceptance a user could have 3")
	f("late money is limited too", 1, five, func(u *unlimited) {
		u.reserve("ann", "", one(1))
		u.reserve("ann", "p-1", one(1))
	}, "a.0.1.2 of order o-ann-kk left user ann with 2 units of the activity")
	f("what is paid counts, what was given back does not", 2, five, func(u *unlimited) {
		u.settle(u.reserve("ann", "", one(2)), stock.Released)
		u.settle(u.reserve("ann", "", one(2)), stock.Expired)
		u.settle(u.reserve("ann", "", one(2)), stock.Confirmed, stock.Returned)
		u.settle(u.reserve("ann", "", one(2)), stock.Confirmed)
		u.reserve("ann", "", one(1))
	}, "a.0.1.5 of order o-ann-kkkkk left user ann with 3 units")
	f("more than an order may have", 0, five, func(u *unlimited) { u.reserve("ann", "", one(6)) }, "took 6 units of s, at its acceptance an order could have 5")
	each := []stock.Item{{SKU: "s", PerUser: 2, PerOrder: 9}, {SKU: "t", PerUser: 0, PerOrder: 9}}
	f("one SKU is limited, the other is not", 0, each, func(u *unlimited) {
		u.reserve("ann", "", one(2), two(9))
		u.settle(u.reserve("bob", "", one(2), two(9)), stock.Released)
		u.reserve("bob", "", one(1), two(9))
		u.reserve("bob", "", one(2), two(9))
	}, "left user bob with 3 units of s, at its acceptance a user could have 2")
	both := []stock.Item{{SKU: "s", PerUser: 2, PerOrder: 1}}
	f("every limit has its sentence", 1, both, func(u *unlimited) { u.reserve("ann", "", one(3)) },
		"an order could have 1", "3 units of s", "3 units of the activity")
	lower, higher := 1, 9
	f("lowered afterwards", 3, five, func(u *unlimited) {
		u.reserve("ann", "", one(3))
		u.limit(stock.Adjustment{PerUser: &lower})
		u.reserve("bob", "", one(1))
		u.reserve("bob", "", one(1))
	}, "left user bob with 2 units of the activity, at its acceptance a user could have 1")
	f("raised before", 3, five, func(u *unlimited) {
		u.limit(stock.Adjustment{PerUser: &higher})
		u.reserve("ann", "", one(5))
		u.limit(stock.Adjustment{SKU: "s", Limits: &stock.ItemLimits{PerUser: 6, PerOrder: 5}})
		u.reserve("ann", "", one(1))
		u.reserve("ann", "", one(1))
	}, "left user ann with 7 units of s, at its acceptance a user could have 6")
}

// Nothing is accepted once an activity is closed.
func TestClosedAcceptsNothing(t *testing.T) {
	u := newUnlimited(t, 0, stock.Item{SKU: "s", PerOrder: 9})
	id := u.reserve("ann", "", one(1))
	u.limit(stock.Adjustment{Phase: stock.Closed})
	if l := u.check(); l.found != 0 || l.all != nil {
		t.Fatalf("%q", l.sentences)
	}
	u.settle(id, stock.Expired)
	closing := u.log[2]
	u.log = slices.Delete(u.log, 2, 3) // the book is closed, so somebody else has to write this log
	again := *u.log[1].Reservation
	again.ID.Number++
	u.log = append(u.log[:1], u.log[1], closing, stock.Entry{Activity: "a", Kind: stock.EntryReserved, Reservation: &again})
	for i := range u.log {
		u.log[i].Sequence = uint64(i) + 1
	}
	if l := u.check(); l.found != 1 || !strings.Contains(l.sentences[0], "although the activity was closed") {
		t.Errorf("%q", l.sentences)
	}
}

// A book from a snapshot brings what its users have, and its limits; what was
// accepted before it was not seen, and is not called right.
func TestLimitsFromASnapshot(t *testing.T) {
	a := stocktest.Allocation("a", 100, 3)
	b, _, err := stock.NewBook(a)
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range []stock.Outcome{0, stock.Released, stock.Confirmed} {
		r := stocktest.Request("a", "ann", strings.Repeat("k", i+1), 1)
		rec, _, err := b.Reserve(&r)
		if err != nil {
			t.Fatal(err)
		}
		if outcome != 0 {
			if _, _, err := b.Settle(stock.Settlement{ID: rec.ID, Outcome: outcome}); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := standingLimits(b, 7)
	f := func(n, found int) {
		t.Helper()
		l.judge(&stock.Reservation{User: "ann", Lines: []stock.Line{one(n)}})
		if l.found != found {
			t.Errorf("%d more: %d found, want %d", n, l.found, found)
		}
	}
	f(1, 0)
	f(2, 1)
	if l.since != 7 {
		t.Errorf("since %d", l.since)
	}
}
