package sale_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/id"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// counting counts the activities that are read.
type counting struct {
	*sqlstore.Store
	read atomic.Int64
}

func (c *counting) Activities(ctx context.Context) ([]sale.Activity, error) {
	all, err := c.Store.Activities(ctx)
	c.read.Add(int64(len(all)))
	return all, err
}

func (c *counting) Select(ctx context.Context, q sale.Query) ([]sale.Activity, error) {
	found, err := c.Store.Select(ctx, q)
	c.read.Add(int64(len(found)))
	return found, err
}

// The task reads what lives; what is closed and proved is read once, and stays
// on show as it was.
func TestTheTaskReadsWhatLives(t *testing.T) {
	b := newBench(t)
	clock := func() time.Time { return b.now }
	store := &counting{Store: b.store}
	b.shop = sale.NewShop(b.ledger, b.ledger.Board(), sale.OpenGate{}, id.NewSource(0, clock), store, b.store, clock)
	b.desk = sale.NewDesk(b.shop)
	over := func(id stock.ActivityID) {
		t.Helper()
		if err := b.store.SaveProof(t.Context(), proof.Report{Activity: id, OK: true, Final: true}); err != nil {
			t.Fatal(err)
		}
	}
	f := func(what string, want int64) {
		t.Helper()
		store.read.Store(0)
		b.step()
		if got := store.read.Load(); got != want {
			t.Errorf("%s: %d activities are read, want %d", what, got, want)
		}
	}
	state := func(id stock.ActivityID, want sale.State) {
		t.Helper()
		if v, err := b.shop.View(id); err != nil || v.State != want {
			t.Errorf("%s is shown as %s, %v, want %s", id, v.State, err, want)
		}
	}
	const ended = 20
	for i := range ended {
		id := stock.ActivityID(fmt.Sprint("old-", i))
		b.create(sale.Activity{ID: id, OpensAt: b.in(0)})
		if _, err := b.desk.Close(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	b.create(sale.Activity{OpensAt: b.in(0)})
	f("closed, not proved", ended+1)
	for i := range ended {
		over(stock.ActivityID(fmt.Sprint("old-", i)))
	}
	f("closed and proved", 1)
	state("old-3", sale.Closed)

	// As a process that starts now.
	b.shop = sale.NewShop(b.ledger, b.ledger.Board(), sale.OpenGate{}, id.NewSource(0, clock), store, b.store, clock)
	b.desk = sale.NewDesk(b.shop)
	f("the first step", ended+1)
	f("the next one", 1)
	state("old-3", sale.Closed)
	_, err := b.shop.Purchase(t.Context(), sale.PurchaseRequest{Activity: "old-3", User: "ann", Key: "k", Lines: []stock.Line{{SKU: "cup", Quantity: 1}}})
	b.want(err, stock.ErrEnded)
	if views := b.shop.Views(); len(views) != 1 || views[0].ID != "drop" {
		t.Errorf("on show: %+v", views)
	}
	if all, err := b.desk.List(t.Context()); err != nil || len(all) != ended+1 {
		t.Errorf("the desk lists %d, %v", len(all), err)
	}
	if a, err := b.desk.Get(t.Context(), "old-7"); err != nil || a.State != sale.Closed {
		t.Errorf("the desk gets %+v, %v", a, err)
	}
	_, err = b.desk.Get(t.Context(), "none")
	b.want(err, sale.ErrNoSuchActivity)

	// Closed and proved by somebody else between two steps.
	if _, err := b.store.UpdateActivity(t.Context(), "drop", func(a *sale.Activity) error { a.State = sale.Closed; return nil }); err != nil {
		t.Fatal(err)
	}
	over("drop")
	f("left the living unseen", 1)
	state("drop", sale.Closed)
	f("nothing lives", 0)
}
