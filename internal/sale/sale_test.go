package sale_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/catalog"
	"sluice/internal/lib/id"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// bench is a shop on the real store and ledger, with a clock of its own.
type bench struct {
	t      *testing.T
	now    time.Time
	store  *sqlstore.Store
	ledger *walstock.Ledger
	shop   *sale.Shop
	desk   *sale.Desk
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)}
	quiet := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	var err error
	if b.store, err = sqlstore.Open(t.Context(), filepath.Join(dir, "shop.db"), sqlstore.Options{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	if b.ledger, err = walstock.Open(filepath.Join(dir, "stock"), walstock.Options{Log: quiet, SegmentSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if worked, _ := b.ledger.Commit(ctx); worked {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-b.ledger.Wake():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := errors.Join(b.ledger.Close(), b.store.Close()); err != nil {
			t.Error(err)
		}
	})
	b.restart()
	for _, p := range []catalog.Product{
		{ID: "cup", Title: "Cup", Price: pricing.Money{Amount: 1000, Currency: "CNY"}},
		{ID: "pot", Title: "Pot", Price: pricing.Money{Amount: 5000, Currency: "CNY"}},
	} {
		if _, err := b.store.SaveProduct(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// restart builds shop and desk anew on the same doors.
func (b *bench) restart() {
	clock := func() time.Time { return b.now }
	b.shop = sale.NewShop(b.ledger, b.ledger.Board(), sale.OpenGate{}, id.NewSource(0, clock), b.store, b.store, clock)
	b.desk = sale.NewDesk(b.shop)
}

func (b *bench) step() {
	b.t.Helper()
	if _, err := b.desk.Step(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) in(d time.Duration) stock.Millis { return stock.MillisOf(b.now.Add(d)) }

func (b *bench) create(a sale.Activity) sale.Activity {
	b.t.Helper()
	if a.ID == "" {
		a.ID = "drop"
	}
	a.Title = "Drop"
	if a.Items == nil {
		a.Items = []sale.Item{{SKU: "cup", Units: 3, PerUser: 2}}
	}
	got, err := b.desk.Create(b.t.Context(), a)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *bench) buy(user, key string, lines ...stock.Line) (stock.Receipt, error) {
	if lines == nil {
		lines = []stock.Line{{SKU: "cup", Quantity: 1}}
	}
	return b.shop.Purchase(b.t.Context(), sale.PurchaseRequest{Activity: "drop", User: stock.UserID(user), Key: key, Lines: lines})
}

func (b *bench) want(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("got %v, want %v", err, want)
	}
}

func (b *bench) state(want sale.State) {
	b.t.Helper()
	a, err := b.desk.Get(b.t.Context(), "drop")
	if err != nil || a.State != want {
		b.t.Errorf("state %s, %v; want %s", a.State, err, want)
	}
}

// The window is the ledger's: a sale opens and ends on the millisecond, even
// when no task has run in between.
func TestWindowNeedsNoTimer(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(time.Minute), ClosesAt: b.in(time.Hour)})
	b.state(sale.Warm)
	_, err := b.buy("ann", "k")
	b.want(err, stock.ErrNotOpen)
	var r *stock.Refusal
	if !errors.As(err, &r) || r.OpensAt != b.in(time.Minute) {
		t.Errorf("the refusal does not say when it opens: %v", err)
	}
	b.now = b.now.Add(time.Minute - time.Millisecond)
	_, err = b.buy("ann", "k")
	b.want(err, stock.ErrNotOpen)
	b.now = b.now.Add(time.Millisecond)
	if _, err = b.buy("ann", "k"); err != nil {
		t.Error(err)
	}
	b.state(sale.Open)
	b.now = b.now.Add(59 * time.Minute)
	_, err = b.buy("bob", "k")
	b.want(err, stock.ErrEnded)
	b.state(sale.Draining)
}

// Stock is allocated a while before the opening, and not earlier.
func TestWarmUp(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(time.Hour)})
	b.state(sale.Scheduled)
	_, err := b.ledger.Counts(t.Context(), "drop")
	b.want(err, stock.ErrNoSuchActivity)
	_, err = b.buy("ann", "k")
	b.want(err, stock.ErrNotOpen)
	b.now = b.now.Add(55 * time.Minute)
	b.step()
	b.state(sale.Warm)
	if c, err := b.ledger.Counts(t.Context(), "drop"); err != nil || c.Items[0].Free != 3 {
		t.Errorf("counts %+v, %v", c, err)
	}
}

// The activity closes when its time is over and nothing is held any more.
func TestClosesByItself(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0), ClosesAt: b.in(time.Minute), HoldSeconds: 60})
	r, err := b.buy("ann", "k")
	if err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(3 * time.Minute)
	b.step()
	b.state(sale.Draining)
	if _, err := b.ledger.Settle(t.Context(), stock.Settlement{ID: r.ID, Outcome: stock.Expired}); err != nil {
		t.Fatal(err)
	}
	b.step()
	b.state(sale.Closed)
	_, err = b.buy("ann", "k2")
	b.want(err, stock.ErrEnded)
	if again, err := b.buy("ann", "k"); err != nil || again.ID != r.ID || again.State != stock.Expired {
		t.Errorf("the receipt of a closed sale: %+v, %v", again, err)
	}
}

// full is a gate that lets nobody through.
type full struct{}

var errFull = errors.New("the gate is full")

func (full) Admit(context.Context, sale.PurchaseRequest) ([]string, error) { return nil, errFull }

// A buyer who comes back for the receipt passes the gate; a new key does not.
func TestReturningBuyerPassesTheGate(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	first, err := b.buy("ann", "k")
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return b.now }
	b.shop = sale.NewShop(b.ledger, b.ledger.Board(), full{}, id.NewSource(1, clock), b.store, b.store, clock)
	if err := b.shop.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := b.buy("ann", "k"); err != nil || again.ID != first.ID {
		t.Errorf("a retry: %+v, %v", again, err)
	}
	_, err = b.buy("ann", "k2")
	b.want(err, errFull)
	_, err = b.buy("bob", "k")
	b.want(err, errFull)
}

// Of a ledger elsewhere the board shows a moment that is past, and that may be one
// in which nothing was free, just before what the buyer got became so. Whoever has
// a receipt is not told that all is held.
func TestBuyerIsKnownAtOnce(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	counts, _ := b.ledger.Board().Face("drop").Counts()
	_, rules, items := b.ledger.Board().Face("drop").Rules()
	board := stock.NewBoard()
	face := board.Post("drop")
	face.Publish(counts, rules, items)
	clock := func() time.Time { return b.now }
	b.shop = sale.NewShop(b.ledger, board, sale.OpenGate{}, id.NewSource(1, clock), b.store, b.store, clock)
	if err := b.shop.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := b.buy("ann", "k")
	if err != nil {
		t.Fatal(err)
	}
	counts.Items = slices.Clone(counts.Items)
	counts.Items[0].Free, counts.Items[0].Held = 0, counts.Items[0].Free
	face.Publish(counts, rules, items)
	if again, err := b.buy("ann", "k"); err != nil || again.ID != first.ID {
		t.Errorf("a retry: %+v, %v", again, err)
	}
	_, err = b.buy("bob", "k")
	b.want(err, stock.ErrAllHeld)
}

// Opening arms a sale; it never opens it before its time.
func TestOpenArmsByWindow(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{})
	b.state(sale.Draft)
	_, err := b.buy("ann", "k")
	b.want(err, sale.ErrNoSuchActivity)
	if _, err := b.desk.Open(t.Context(), "drop"); err != nil {
		t.Fatal(err)
	}
	b.state(sale.Open)
	if _, err := b.buy("ann", "k"); err != nil {
		t.Error(err)
	}
	b.create(sale.Activity{ID: "later", OpensAt: b.in(time.Hour)})
	a, err := b.desk.Open(t.Context(), "later")
	if err != nil || a.State != sale.Scheduled {
		t.Errorf("opened before its time: %s, %v", a.State, err)
	}
}

// Pause, resume, drain and close reach the ledger; what is over stays over.
func TestTransitions(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	do := func(what func(context.Context, stock.ActivityID) (sale.Activity, error), want sale.State, refusal error) {
		t.Helper()
		if _, err := what(t.Context(), "drop"); err != nil {
			t.Fatal(err)
		}
		b.state(want)
		_, err := b.buy("ann", fmt.Sprint("k-", want, refusal))
		b.want(err, refusal)
	}
	do(b.desk.Pause, sale.Paused, stock.ErrPaused)
	do(b.desk.Resume, sale.Open, nil)
	do(b.desk.Drain, sale.Draining, stock.ErrEnded)
	_, err := b.desk.Resume(t.Context(), "drop")
	b.want(err, sale.ErrTransition)
	do(b.desk.Close, sale.Closed, stock.ErrEnded)
	_, err = b.desk.Open(t.Context(), "drop")
	b.want(err, sale.ErrTransition)
	_, err = b.desk.Stock(t.Context(), "drop", "d", "cup", 1, "")
	b.want(err, sale.ErrTransition)
	_, err = b.desk.Pause(t.Context(), "nowhere")
	b.want(err, sale.ErrNoSuchActivity)
}

// A crash between saving an intent and telling the ledger is finished by the
// next step: the store is what counts.
func TestStepFinishesWhatACrashLeft(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	if _, err := b.store.UpdateActivity(t.Context(), "drop", func(a *sale.Activity) error {
		a.State = sale.Paused
		a.Items[0].PerUser = 1
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	delta := stock.Adjustment{ID: "stock-d1", Activity: "drop", SKU: "cup", Delta: 4, At: b.in(0)}
	if _, err := b.store.SaveAdjustment(t.Context(), delta); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.step()
	c, err := b.ledger.Counts(t.Context(), "drop")
	if err != nil || c.Phase != stock.Paused || c.Items[0].Allocated != 7 {
		t.Errorf("the ledger was not told: %+v, %v", c, err)
	}
	b.step()
	if c, _ := b.ledger.Counts(t.Context(), "drop"); c.Items[0].Allocated != 7 {
		t.Errorf("a delta was applied twice: %+v", c.Items[0])
	}
	if _, err := b.desk.Resume(t.Context(), "drop"); err != nil {
		t.Fatal(err)
	}
	_, err = b.buy("ann", "k", stock.Line{SKU: "cup", Quantity: 2})
	b.want(err, stock.ErrLimit)
}

// The same delta id is one delta, and a refused one stays refused.
func TestStockIsIdempotent(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	for range 2 {
		c, err := b.desk.Stock(t.Context(), "drop", "d1", "cup", 2, "found")
		if err != nil || c.Items[0].Allocated != 5 {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	_, err := b.desk.Stock(t.Context(), "drop", "d1", "cup", 3, "found")
	b.want(err, stock.ErrConflict)
	for range 2 {
		_, err = b.desk.Stock(t.Context(), "drop", "d2", "cup", -6, "broken")
		b.want(err, stock.ErrInsufficient)
		var r *stock.Refusal
		if !errors.As(err, &r) || r.Available != 5 {
			t.Errorf("the refusal does not say what can be taken: %v", err)
		}
	}
	_, err = b.desk.Stock(t.Context(), "drop", "d3", "pot", 1, "")
	b.want(err, stock.ErrNoSuchSKU)
}

// Edits reach shoppers at once, and leave accepted reservations alone.
func TestEdit(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0), HoldSeconds: 60})
	first, err := b.buy("ann", "k")
	if err != nil {
		t.Fatal(err)
	}
	hold, later := 600, b.in(time.Hour)
	if _, err := b.desk.Edit(t.Context(), "drop", sale.Edit{HoldSeconds: &hold}); err != nil {
		t.Fatal(err)
	}
	second, err := b.buy("bob", "k")
	if err != nil || second.Expires-second.At != 600_000 || first.Expires-first.At != 60_000 {
		t.Errorf("holds of %d and %d ms, %v", first.Expires-first.At, second.Expires-second.At, err)
	}
	if _, err := b.desk.Edit(t.Context(), "drop", sale.Edit{OpensAt: &later}); err != nil {
		t.Fatal(err)
	}
	_, err = b.buy("cy", "k")
	b.want(err, stock.ErrNotOpen)
	_, err = b.desk.Edit(t.Context(), "drop", sale.Edit{ClosesAt: &first.At})
	b.want(err, sale.ErrInvalid)
}

// A receipt carries its price, and the terms that hold whatever comes later.
func TestTerms(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0), LatePayment: pricing.AlwaysRefund, Items: []sale.Item{
		{SKU: "cup", Units: 20, PerOrder: 20}, {SKU: "pot", Units: 3, PerOrder: 3, Price: pricing.Money{Amount: 4500, Currency: "CNY"}},
	}})
	f := func(total int64, lines ...stock.Line) {
		t.Helper()
		r, err := b.buy("ann", fmt.Sprint(lines), lines...)
		if err != nil {
			t.Fatal(err)
		}
		var terms pricing.Terms
		if err := json.Unmarshal(r.Terms, &terms); err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, l := range terms.Lines {
			sum += l.Total
		}
		if terms.Total != total || sum != total || terms.Currency != "CNY" || terms.LatePayment != pricing.AlwaysRefund || terms.Lines[0].Version != 1 {
			t.Errorf("terms %+v, want a total of %d", terms, total)
		}
	}
	f(1000, stock.Line{SKU: "cup", Quantity: 1})
	f(12000, stock.Line{SKU: "cup", Quantity: 12}) // more than is prepared in advance
	f(10000, stock.Line{SKU: "pot", Quantity: 2}, stock.Line{SKU: "cup", Quantity: 1})
	// The order of lines is no part of the terms.
	if r, err := b.buy("ann", fmt.Sprint([]stock.Line{{SKU: "pot", Quantity: 2}, {SKU: "cup", Quantity: 1}}),
		stock.Line{SKU: "cup", Quantity: 1}, stock.Line{SKU: "pot", Quantity: 2}); err != nil || !r.Replayed {
		t.Errorf("the same lines in another order: %+v, %v", r, err)
	}
	_, err := b.buy("ann", "[{cup 1}]", stock.Line{SKU: "cup", Quantity: 2})
	b.want(err, stock.ErrMismatch)
}

// What cannot be priced is refused before it is saved, and an activity that
// cannot be shown hides no other.
func TestOneBadActivityHidesNoOther(t *testing.T) {
	b := newBench(t)
	dear := pricing.Money{Amount: pricing.MaxAmount, Currency: "CNY"}
	_, err := b.desk.Create(t.Context(), sale.Activity{ID: "dear", Title: "X", OpensAt: b.in(0), Items: []sale.Item{{SKU: "cup", Price: dear, Units: 1, PerOrder: 2}}})
	b.want(err, sale.ErrInvalid)
	b.create(sale.Activity{ID: "fine", OpensAt: b.in(0), Items: []sale.Item{{SKU: "cup", Price: dear, Units: 1, PerOrder: 1}}})
	two := 2
	_, err = b.desk.Edit(t.Context(), "fine", sale.Edit{Items: []sale.ItemEdit{{SKU: "cup", PerOrder: &two}}})
	b.want(err, sale.ErrInvalid)
	// One that got into the store all the same, as by another version of the program.
	if err := b.store.CreateActivity(t.Context(), sale.Activity{ID: "bad", Kind: "flash", State: sale.Scheduled, OpensAt: b.in(0), ClosesAt: b.in(time.Hour), HoldSeconds: 1,
		Items: []sale.Item{{SKU: "cup", Price: dear, PerOrder: 2}}, Epoch: 1, Revision: 1}); err != nil {
		t.Fatal(err)
	}
	b.create(sale.Activity{OpensAt: b.in(0)})
	if _, err := b.buy("ann", "k"); err != nil {
		t.Errorf("another activity is hidden: %v", err)
	}
}

// The epoch is no opening time: it would be saved and never reach the ledger.
func TestOpensAtZero(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	zero := stock.Millis(0)
	_, err := b.desk.Edit(t.Context(), "drop", sale.Edit{OpensAt: &zero})
	b.want(err, sale.ErrInvalid)
}

// A delta allocates a scheduled sale early; a later opening still reaches the ledger.
func TestPostponedAfterADelta(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(time.Hour), ClosesAt: b.in(9 * time.Hour)})
	if _, err := b.desk.Stock(t.Context(), "drop", "d", "cup", 1, ""); err != nil {
		t.Fatal(err)
	}
	later := b.in(3 * time.Hour)
	if _, err := b.desk.Edit(t.Context(), "drop", sale.Edit{OpensAt: &later}); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(2 * time.Hour)
	b.step()
	_, err := b.buy("ann", "k")
	b.want(err, stock.ErrNotOpen)
}

// An edit that was saved by a call which ended before it was shown is shown by
// the next step.
func TestLostRefresh(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	if _, err := b.store.UpdateActivity(t.Context(), "drop", func(a *sale.Activity) error { a.Title = "New title"; return nil }); err != nil {
		t.Fatal(err)
	}
	b.step()
	if v, err := b.shop.View("drop"); err != nil || v.Title != "New title" {
		t.Errorf("shoppers see %q, %v", v.Title, err)
	}
}

// A draft that is closed was never a sale.
func TestClosedDraftStaysHidden(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{})
	if _, err := b.desk.Close(t.Context(), "drop"); err != nil {
		t.Fatal(err)
	}
	_, err := b.shop.View("drop")
	b.want(err, sale.ErrNoSuchActivity)
	b.step()
}

// A sale whose stock was adjusted to the bound can still be paused.
func TestPauseAfterManyDeltas(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(0)})
	book, _, err := stock.NewBook(stock.Allocation{ID: "x", Activity: "x", Epoch: 1, OpensAt: 1, ClosesAt: 2, Hold: 1, Items: []stock.Item{{SKU: "cup", PerOrder: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil; i++ {
		_, err = book.Adjust(stock.Adjustment{ID: fmt.Sprint(i), SKU: "cup", Delta: 1})
	}
	b.want(err, stock.ErrOverloaded)
	if _, err := book.Adjust(stock.Adjustment{ID: "pause", Phase: stock.Paused}); err != nil || book.Phase() != stock.Paused {
		t.Errorf("pausing: %v", err)
	}
	var d stock.Decoder
	if _, err := d.Snapshot(book.AppendSnapshot(nil)); err != nil {
		t.Errorf("its snapshot: %v", err)
	}
}

func TestCreateNamesTheFault(t *testing.T) {
	b := newBench(t)
	good := func() sale.Activity {
		return sale.Activity{ID: "x", Title: "X", OpensAt: b.in(0), Items: []sale.Item{{SKU: "cup", Units: 1}}}
	}
	f := func(want error, break_ func(a *sale.Activity)) {
		t.Helper()
		a := good()
		break_(&a)
		if _, err := b.desk.Create(t.Context(), a); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	f(sale.ErrInvalid, func(a *sale.Activity) { a.ID = "a b" })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Kind = "lottery" })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Title = "" })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.ClosesAt = a.OpensAt })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.HoldSeconds = -1 })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.PerUser = -1 })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.LatePayment = "shrug" })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Items = nil })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Items = append(a.Items, a.Items[0]) })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Items[0].Units = -1 })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Items[0].Price = pricing.Money{Amount: -1, Currency: "CNY"} })
	f(sale.ErrInvalid, func(a *sale.Activity) { a.Items[0].Price = pricing.Money{Amount: 1, Currency: "yuan"} })
	f(catalog.ErrNoSuchSKU, func(a *sale.Activity) { a.Items[0].SKU = "ghost" })
	f(nil, func(*sale.Activity) {})
	f(sale.ErrExists, func(*sale.Activity) {})
}
