package proof

import (
	"fmt"
	"strings"
	"testing"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// What a bucket's book is shown to do is held against the limits in force, by an
// account of its own; what the book had from the store already is not counted
// again, and what it refuses is not counted at all.
func TestLimitsOfBuckets(t *testing.T) {
	place := stock.Place{Activity: "a"}
	var book *stock.Book
	i := NewInspector(Inspecting{})
	begin := func(kept ...stock.Reservation) {
		t.Helper()
		a := stocktest.Allocation("a", 100, 2)
		opened := stock.Entry{Activity: "a", Sequence: 1, Kind: stock.EntryOpened, Allocation: &a}
		b, err := stock.Restore(2, []stock.Entry{opened}, func(yield func(stock.Reservation, error) bool) {
			for _, r := range kept {
				if !yield(r, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		book = b
		i.Made(place, book, stock.Cursor{Log: place.Log(), Epoch: 2})
	}
	next := uint64(0)
	show := func(e stock.Entry, verdict error) {
		t.Helper()
		next++
		e.Activity, e.Cursor = "a", stock.Cursor{Log: place.Log(), Epoch: 2, Position: next}
		i.Judging(place, &e, book)
		if e.Kind == stock.EntrySettled {
			_, _, verdict = book.Settle(*e.Settlement)
		}
		i.Judged(place, &e, book, verdict)
	}
	reserve := func(user string, number uint64, units int, verdict error) {
		t.Helper()
		show(stock.Entry{Kind: stock.EntryReserved, Reservation: &stock.Reservation{ID: stock.ID{Activity: "a", Epoch: 2, Number: number},
			User: stock.UserID(user), Order: stock.OrderID(fmt.Sprint("o", number)), Lines: []stock.Line{{SKU: "s", Quantity: units}}}}, verdict)
	}
	settle := func(id stock.ID, o stock.Outcome) {
		t.Helper()
		show(stock.Entry{Kind: stock.EntrySettled, Settlement: &stock.Settlement{ID: id, Outcome: o}}, nil)
	}
	found := func(from bool, want ...string) {
		t.Helper()
		c := newComparison("a")
		v := i.vigil(place)
		if since := v.withinLimits(c, v.made); (since != nil) != from {
			t.Errorf("limits are known from %v on", since)
		}
		if len(c.report.Violations) != len(want) {
			t.Fatalf("%q, want %q", c.report.Violations, want)
		}
		for n, v := range c.report.Violations {
			if !strings.Contains(v, want[n]) {
				t.Errorf("%q, want %q", v, want[n])
			}
		}
	}
	begin()
	reserve("ann", 1, 2, nil)
	reserve("bob", 2, 2, nil)
	reserve("bob", 3, 1, stock.ErrLimit) // refused, so nothing to complain about
	found(false)
	reserve("ann", 4, 1, nil)
	found(false, "left user ann with 3 units")

	old := func(n uint64, user string, is stock.State) stock.Reservation {
		return stock.Reservation{ID: stock.ID{Activity: "a", Epoch: 1, Number: n}, User: stock.UserID(user), Key: fmt.Sprint("k", n),
			Lines: []stock.Line{{SKU: "s", Quantity: 2}}, State: is}
	}
	begin(old(1, "ann", stock.Released), old(2, "bob", stock.Held), old(3, "cy", stock.Held), old(4, "dee", stock.Confirmed))
	found(true)
	settle(old(1, "", 0).ID, stock.Released) // the book has that from the order
	reserve("ann", 1, 2, nil)
	found(true)
	settle(old(2, "", 0).ID, stock.Expired)
	reserve("bob", 2, 2, nil)
	settle(old(3, "", 0).ID, stock.Confirmed)
	settle(old(4, "", 0).ID, stock.Returned)
	reserve("dee", 3, 2, nil)
	found(true)
	reserve("cy", 4, 1, nil)
	found(true, "left user cy with 3 units")
}
