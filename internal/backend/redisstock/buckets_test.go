package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

func spread(activity string, units, perUser int, buckets uint16) stock.Allocation {
	a := stocktest.Allocation(activity, units, perUser)
	a.Buckets = buckets
	return a
}

func open(t testing.TB, s *served, a stock.Allocation) {
	t.Helper()
	if err := s.Open(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

// insist asks until the answer is neither "not ready" nor "overloaded".
func insist(ctx context.Context, l stock.Ledger, r stock.Request) (stock.Receipt, error) {
	for {
		got, err := l.Reserve(ctx, r)
		if !errors.Is(err, stock.ErrNotReady) && !errors.Is(err, stock.ErrOverloaded) || ctx.Err() != nil {
			return got, err
		}
	}
}

func count(t testing.TB, l stock.Ledger, a stock.ActivityID) stock.Count {
	t.Helper()
	c, err := l.Counts(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	it := c.Items[0]
	if it.Free+it.Held+it.Confirmed+it.InTransit != it.Allocated {
		t.Errorf("counts do not add up: %+v", it)
	}
	return it
}

// A crowd over four buckets: as many get a unit as there are, nobody is told
// that all are held while one is free, and none is left over.
func TestNothingIsStranded(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=held&buckets=4")
	if s.Buckets() != 4 {
		t.Errorf("%d buckets, want 4", s.Buckets())
	}
	for _, units := range []int{1, 7, 100} {
		a := spread(fmt.Sprint("crowd", units), units, 1, 4)
		open(t, s, a)
		var accepted, allHeld atomic.Int64
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				switch _, err := insist(t.Context(), s, stocktest.Request(string(a.Activity), fmt.Sprint("u", i), "k", 1)); {
				case err == nil:
					accepted.Add(1)
				case errors.Is(err, stock.ErrAllHeld):
					allHeld.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		it := count(t, s, a.Activity)
		if int(accepted.Load()) != units || it.Held != units || it.Free != 0 || it.InTransit != 0 || allHeld.Load() != int64(400-units) {
			t.Errorf("%d units: %d accepted, %d refused; %+v", units, accepted.Load(), allHeld.Load(), it)
		}
	}
}

// Units come together for whoever asks for many, and a refusal counts them all.
func TestUnitsAreGathered(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=held")
	open(t, s, spread("gather", 10, 0, 4))
	f := func(user string, quantity int, want error) {
		t.Helper()
		_, err := s.Reserve(t.Context(), stocktest.Request("gather", user, "k", quantity))
		if !alike(err, want) {
			t.Errorf("%s asks for %d: %v, want %v", user, quantity, err, want)
		}
	}
	f("ann", 11, &stock.Refusal{Err: stock.ErrInsufficient, SKU: "s", Available: 10})
	f("ann", 9, nil)
	f("bob", 2, &stock.Refusal{Err: stock.ErrInsufficient, SKU: "s", Available: 1})
	f("bob", 1, nil)
	f("cy", 1, &stock.Refusal{Err: stock.ErrAllHeld, SKU: "s"})
	for _, user := range []string{"ann", "bob"} {
		receipt, err := s.Lookup(t.Context(), stock.Ref{Activity: "gather", User: stock.UserID(user), Key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Settle(t.Context(), stock.Settlement{ID: receipt.ID, User: receipt.User, Outcome: stock.Confirmed, At: receipt.At}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Lookup(t.Context(), stock.Ref{User: receipt.User, Order: receipt.Order}); err != nil || got.ID != receipt.ID {
			t.Errorf("by order: %+v, %v", got, err)
		}
		if got, err := s.Lookup(t.Context(), stock.Ref{User: "dee", ID: receipt.ID}); !errors.Is(err, stock.ErrNoSuchReservation) {
			t.Errorf("somebody else's: %+v, %v", got, err)
		}
	}
	f("cy", 1, &stock.Refusal{Err: stock.ErrSoldOut, SKU: "s"})
}

// A live sale is edited as a whole.
func TestAdjustOverBuckets(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=held")
	open(t, s, spread("edit", 10, 0, 4))
	f := func(a stock.Adjustment, want error) {
		t.Helper()
		a.Activity = "edit"
		for range 2 { // the second time changes nothing
			if err := s.Adjust(t.Context(), a); !alike(err, want) {
				t.Errorf("adjust %s: %v, want %v", a.ID, err, want)
			}
		}
	}
	f(stock.Adjustment{ID: "a1", SKU: "s", Delta: -11}, &stock.Refusal{Err: stock.ErrInsufficient, SKU: "s", Available: 10})
	f(stock.Adjustment{ID: "a2", SKU: "s", Delta: -9}, nil)
	f(stock.Adjustment{ID: "a2", SKU: "s", Delta: -8}, stock.ErrConflict)
	f(stock.Adjustment{ID: "a2", SKU: "s", Limits: &stock.ItemLimits{}}, stock.ErrConflict)
	f(stock.Adjustment{ID: "a3", SKU: "s", Delta: 4, Limits: &stock.ItemLimits{PerUser: 1, PerOrder: 1}}, nil)
	f(stock.Adjustment{ID: "out-1-x", SKU: "s", Delta: -1}, stock.ErrInvalid) // that is a move's
	if it := count(t, s, "edit"); it.Allocated != 5 || it.Free != 5 {
		t.Errorf("%+v", it)
	}
	limited := &stock.Refusal{Err: stock.ErrLimit, SKU: "s", Scope: "per_order", Limit: 1}
	for i := range 8 { // users of every bucket
		if _, err := s.Reserve(t.Context(), stocktest.Request("edit", fmt.Sprint("u", i), "k", 2)); !alike(err, limited) {
			t.Errorf("user %d: %v", i, err)
		}
	}
	f(stock.Adjustment{ID: "a4", Phase: stock.Draining}, nil)
	f(stock.Adjustment{ID: "a5", Phase: stock.Live}, stock.ErrEnded)
	for i := range 8 {
		if _, err := s.Reserve(t.Context(), stocktest.Request("edit", fmt.Sprint("u", i), "k", 1)); !errors.Is(err, stock.ErrEnded) {
			t.Errorf("user %d: %v", i, err)
		}
	}
	f(stock.Adjustment{ID: "a6", SKU: "s", Delta: -5}, nil)
}

// While nobody lands, units of other buckets cannot come: then the answer is
// "not ready", and the units are neither lost nor said to be sold.
func TestUnitsInTransitAreNotSoldOut(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	l := connect(t, server, "", redisstock.Options{CallerTime: true, PullWithin: 50 * time.Millisecond})
	s := &served{l, newKeeper(t, l)}
	open(t, s, spread("transit", 4, 0, 4))
	s.k.pause()
	r := stocktest.Request("transit", "ann", "k", 4)
	for range 3 {
		if got, err := l.Reserve(t.Context(), r); !errors.Is(err, stock.ErrNotReady) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if it := count(t, l, "transit"); it.InTransit == 0 || it.Level == stock.SoldOut {
		t.Errorf("%+v", it)
	}
	s.k.resume()
	if _, err := insist(t.Context(), s, r); err != nil {
		t.Error(err)
	}
	if it := count(t, s, "transit"); it.Held != 4 || it.InTransit != 0 {
		t.Errorf("%+v", it)
	}
}

// Whatever is asked over three buckets: no ceiling is broken, every refusal for
// want of stock was true, and the counts are those of a plain model.
func TestCeilingsOverBuckets(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=held")
	number := 0
	rapid.Check(t, func(rt *rapid.T) {
		number++
		a := spread(fmt.Sprint("ceiling", number), rapid.IntRange(0, 12).Draw(rt, "units"), 5, 3)
		if err := s.Open(t.Context(), a); err != nil {
			rt.Fatal(err)
		}
		units, has, taken := a.Items[0].Units, map[string]int{}, []stock.Receipt{}
		free := func() int {
			n := units
			for _, h := range has {
				n -= h
			}
			return n
		}
		for step := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "operation") {
			case 0:
				delta := rapid.IntRange(-4, 4).Draw(rt, "delta")
				err := s.Adjust(t.Context(), stock.Adjustment{ID: fmt.Sprint("d", step), Activity: a.Activity, SKU: "s", Delta: delta})
				if (err == nil) != (delta >= -free()) {
					rt.Fatalf("adjust by %d with %d free: %v", delta, free(), err)
				}
				if err == nil {
					units += delta
				}
			case 1:
				if len(taken) == 0 {
					continue
				}
				r := taken[len(taken)-1]
				taken = taken[:len(taken)-1]
				if _, err := s.Settle(t.Context(), stock.Settlement{ID: r.ID, User: r.User, Outcome: stock.Released}); err != nil {
					rt.Fatal(err)
				}
				has[string(r.User)] -= r.Lines[0].Quantity
			default:
				user, quantity := fmt.Sprint("u", rapid.IntRange(0, 9).Draw(rt, "user")), rapid.IntRange(1, 6).Draw(rt, "quantity")
				got, err := insist(t.Context(), s, stocktest.Request(string(a.Activity), user, fmt.Sprint("k", step), quantity))
				limited, short := has[user]+quantity > 5, free() < quantity
				var want error
				switch {
				case limited:
					want = &stock.Refusal{Err: stock.ErrLimit, SKU: "s", Scope: "per_user", Limit: 5}
				case short && free() > 0:
					want = &stock.Refusal{Err: stock.ErrInsufficient, SKU: "s", Available: free()}
				case short && units > 0:
					want = &stock.Refusal{Err: stock.ErrAllHeld, SKU: "s"}
				case short:
					want = &stock.Refusal{Err: stock.ErrSoldOut, SKU: "s"}
				}
				if !alike(err, want) {
					rt.Fatalf("%s asks for %d of %d free, has %d: %v, want %v", user, quantity, free(), has[user], err, want)
				}
				if err == nil {
					has[user] += quantity
					taken = append(taken, got)
				}
			}
			if c, err := s.Counts(t.Context(), a.Activity); err != nil || c.Items[0].Free != free() || c.Items[0].Allocated != units {
				rt.Fatalf("%+v, %v; want %d free of %d", c, err, free(), units)
			}
		}
	})
}
