// Package stocktest is the conformance suite of stock.Ledger: scenario
// scripts, concurrency, and random operations against a model. Every ledger
// passes it unchanged.
package stocktest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/stock"
)

// Run runs the whole suite. open answers a fresh, empty ledger.
func Run(t *testing.T, open func(t *testing.T) stock.Ledger) {
	t.Run("Scripts", func(t *testing.T) { Scripts(t, open) })
	t.Run("Model", func(t *testing.T) { Model(t, open) })
	t.Run("Crowd", func(t *testing.T) { crowd(t, open(t)) })
	t.Run("SameKey", func(t *testing.T) { sameKey(t, open(t)) })
	t.Run("Claims", func(t *testing.T) { sameClaim(t, open(t)) })
	t.Run("Limits", func(t *testing.T) { sameUser(t, open(t)) })
	t.Run("Settles", func(t *testing.T) { racingSettles(t, open(t)) })
	t.Run("Reopen", func(t *testing.T) { reopen(t, open(t)) })
}

// Allocation is an open sale of one SKU "s".
func Allocation(activity string, units, perUser int) stock.Allocation {
	return stock.Allocation{
		ID: "open-" + activity, Activity: stock.ActivityID(activity), Epoch: 1,
		OpensAt: zero, ClosesAt: zero + 3_600_000, Hold: 60_000, At: zero,
		Items: []stock.Item{{SKU: "s", Units: units, PerUser: perUser, PerOrder: stock.MaxQuantity}},
	}
}

// Request asks for units of "s" while Allocation's window is open.
func Request(activity, user, key string, quantity int) stock.Request {
	lines := []stock.Line{{SKU: "s", Quantity: quantity}}
	return stock.Request{
		Activity: stock.ActivityID(activity), User: stock.UserID(user), Key: key, Fingerprint: FingerprintOf(lines),
		Order: stock.OrderID("o-" + user + "-" + key), Lines: lines, Terms: []byte(`{"total":1}`), At: zero + 1,
	}
}

func open(t *testing.T, l stock.Ledger, a stock.Allocation) {
	t.Helper()
	if err := l.Open(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func together(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// crowd: a thousand want a hundred units.
func crowd(t *testing.T, l stock.Ledger) {
	open(t, l, Allocation("crowd", 100, 1))
	var accepted, refused atomic.Int64
	ids := sync.Map{}
	together(1000, func(i int) {
		r, err := l.Reserve(t.Context(), Request("crowd", fmt.Sprint("u", i), "k", 1))
		switch {
		case err == nil:
			accepted.Add(1)
			if _, twice := ids.LoadOrStore(r.ID, true); twice {
				t.Errorf("reservation %s was given twice", r.ID)
			}
		case errors.Is(err, stock.ErrAllHeld):
			refused.Add(1)
		default:
			t.Error(err)
		}
	})
	if accepted.Load() != 100 || refused.Load() != 900 {
		t.Errorf("%d accepted, %d refused; want 100 and 900", accepted.Load(), refused.Load())
	}
	c, err := l.Counts(t.Context(), "crowd")
	if err != nil || c.Items[0].Free != 0 || c.Items[0].Held != 100 {
		t.Errorf("counts %+v, %v", c, err)
	}
}

// sameKey: one user's parallel requests with one key are one reservation.
func sameKey(t *testing.T, l stock.Ledger) {
	open(t, l, Allocation("key", 100, 0))
	var fresh atomic.Int64
	var first atomic.Value
	together(64, func(i int) {
		req := Request("key", "ann", "k", 2)
		req.Order = stock.OrderID(fmt.Sprint("o", i))
		r, err := l.Reserve(t.Context(), req)
		if err != nil {
			t.Error(err)
			return
		}
		if !r.Replayed {
			fresh.Add(1)
		}
		same := fmt.Sprint(r.ID, r.Order, r.Expires)
		if !first.CompareAndSwap(nil, same) && first.Load() != same {
			t.Errorf("got %s and %s", first.Load(), same)
		}
	})
	c, _ := l.Counts(t.Context(), "key")
	if fresh.Load() != 1 || c.Items[0].Held != 2 {
		t.Errorf("%d fresh receipts, %d held; want 1 and 2", fresh.Load(), c.Items[0].Held)
	}
}

// sameClaim: a pass admits one of many who show it.
func sameClaim(t *testing.T, l stock.Ledger) {
	open(t, l, Allocation("claim", 100, 0))
	var accepted atomic.Int64
	together(64, func(i int) {
		req := Request("claim", fmt.Sprint("u", i), "k", 1)
		req.Claims = []string{"pass"}
		if _, err := l.Reserve(t.Context(), req); err == nil {
			accepted.Add(1)
		} else if !errors.Is(err, stock.ErrClaimUsed) {
			t.Error(err)
		}
	})
	if accepted.Load() != 1 {
		t.Errorf("one pass admitted %d", accepted.Load())
	}
}

// sameUser: parallel requests of one user with many keys meet the limit.
func sameUser(t *testing.T, l stock.Ledger) {
	open(t, l, Allocation("limit", 100, 3))
	var accepted atomic.Int64
	together(50, func(i int) {
		if _, err := l.Reserve(t.Context(), Request("limit", "ann", fmt.Sprint("k", i), 1)); err == nil {
			accepted.Add(1)
		} else if !errors.Is(err, stock.ErrLimit) {
			t.Error(err)
		}
	})
	if accepted.Load() != 3 {
		t.Errorf("%d accepted under a limit of 3", accepted.Load())
	}
}

// racingSettles: of a confirm and an expire, exactly one stands.
func racingSettles(t *testing.T, l stock.Ledger) {
	open(t, l, Allocation("settle", 100, 0))
	for i := range 50 {
		r, err := l.Reserve(t.Context(), Request("settle", fmt.Sprint("u", i), "k", 1))
		if err != nil {
			t.Fatal(err)
		}
		var won [2]bool
		want := []stock.Outcome{stock.Confirmed, stock.Expired}
		together(2, func(j int) {
			got, err := l.Settle(t.Context(), stock.Settlement{ID: r.ID, User: r.User, Outcome: want[j], At: zero + 2})
			won[j] = err == nil
			if err == nil && got != want[j] || err != nil && (!errors.Is(err, stock.ErrOutcome) || got != want[1-j]) {
				t.Errorf("asked %s, got %s, %v", want[j], got, err)
			}
		})
		if won[0] == won[1] {
			t.Fatalf("confirm won: %v, expire won: %v", won[0], won[1])
		}
	}
	c, _ := l.Counts(t.Context(), "settle")
	if it := c.Items[0]; it.Held != 0 || it.Free+it.Confirmed != 100 {
		t.Errorf("counts %+v", it)
	}
}

// reopen: opening is idempotent by allocation, and another one is refused.
func reopen(t *testing.T, l stock.Ledger) {
	a := Allocation("again", 5, 0)
	open(t, l, a)
	if _, err := l.Reserve(t.Context(), Request("again", "ann", "k", 1)); err != nil {
		t.Fatal(err)
	}
	a.At += 1000
	if err := l.Open(t.Context(), a); err != nil {
		t.Errorf("the same allocation again: %v", err)
	}
	c, _ := l.Counts(t.Context(), "again")
	if c.Items[0].Free != 4 {
		t.Errorf("reopening changed the counts: %+v", c.Items[0])
	}
	a.Items[0].Units = 50
	if err := l.Open(t.Context(), a); !errors.Is(err, stock.ErrConflict) {
		t.Errorf("another allocation: %v", err)
	}
	if _, err := l.Reserve(t.Context(), Request("nowhere", "ann", "k", 1)); !errors.Is(err, stock.ErrNoSuchActivity) {
		t.Errorf("unknown activity: %v", err)
	}
	if _, err := l.Settle(t.Context(), stock.Settlement{ID: stock.ID{Activity: "again", Epoch: 1, Number: 9}, User: "ann", Outcome: stock.Expired}); !errors.Is(err, stock.ErrNoSuchReservation) {
		t.Errorf("unknown reservation: %v", err)
	}
}

// Fataler is what tests and property tests have in common.
type Fataler interface{ Fatal(args ...any) }
