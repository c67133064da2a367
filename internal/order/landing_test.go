package order_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

func TestLanding(t *testing.T) {
	s := newShop(t, 10, 0)
	changed := s.lander.Changed()
	o := s.buy("ann", terms(2, pricing.AlwaysRefund, false))
	if o.State != order.Created || o.User != "ann" || o.Version != 1 || o.ExpiresAt != s.at()+hold {
		t.Errorf("landed as %+v", o)
	}
	if string(o.Products) != `[{"id":"cup","version":3}]` {
		t.Errorf("products %s", o.Products)
	}
	select {
	case <-changed:
	default:
		t.Error("landing woke nobody")
	}
	if got := s.lander.Landed(); got != (stock.Cursor{Log: logID, Epoch: 1, Position: 2}) {
		t.Errorf("landed up to %+v", got)
	}
	if _, err := s.cashier.Apply(t.Context(), o.ID, status(t, o.ID, 1)); !errors.Is(err, order.ErrNoSuchOrder) {
		t.Errorf("a payment that was never started: %v", err)
	}
	if got := s.settle(); len(got) != 0 {
		t.Errorf("an order to be paid said %v", got)
	}
}

func TestNothingToPay(t *testing.T) {
	s := newShop(t, 10, 0)
	free := pricing.Terms{Quote: quote(1, pricing.Money{Amount: 0, Currency: "EUR"})}
	o := s.buy("ann", free)
	if o.State != order.Paid || o.PaidAt == 0 || o.CheckAt != 0 {
		t.Errorf("landed as %+v", o)
	}
	if got := s.settle(); !slices.Equal(got, []string{"order.paid " + string(o.ID)}) {
		t.Errorf("events %v", got)
	}
	if c := s.ledger.count(); c.Confirmed != 1 || c.Held != 0 {
		t.Errorf("ledger %+v", c)
	}
	o, err := s.desk.Refund(t.Context(), o.ID, "")
	s.must(err)
	if o.State != order.Refunded {
		t.Errorf("refund of nothing: %s", o.State)
	}
}

// crashing ends a landing just after the store has committed it: the caller
// never learns of it.
type crashing struct {
	order.Store
	err error
}

func (c *crashing) Land(ctx context.Context, b order.Batch) error {
	if err := c.Store.Land(ctx, b); err != nil {
		return err
	}
	return c.err
}

func TestLandingAfterCrash(t *testing.T) {
	s := newShop(t, 10, 0)
	first := s.reserve("ann", terms(1, "", false))
	lost := errors.New("the answer was lost")
	store := &crashing{s.store, lost}
	l := s.newLander(store, product)
	_, err := l.Step(t.Context())
	s.wants(err, lost)
	second := s.reserve("bob", terms(1, "", false))

	// The same lander looks up where the store really stands …
	store.err = nil
	s.advance(time.Minute)
	if _, err := l.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	// … and so does a new one after a restart.
	third := s.reserve("cid", terms(1, "", false))
	s.crash()
	s.land()
	for _, r := range []stock.Receipt{first, second, third} {
		if o := s.get(r.Order); o.Version != 1 {
			t.Errorf("order %s was landed again", r.Order)
		}
	}
	all, err := s.store.List(t.Context(), order.Query{Activity: "sale", Limit: 10})
	s.must(err)
	if len(all) != 3 {
		t.Errorf("%d orders, want 3", len(all))
	}
}

func TestLandingFenced(t *testing.T) {
	s := newShop(t, 10, 0)
	s.buy("ann", terms(1, "", false))
	s.reserve("bob", terms(1, "", false))
	successor := s.newLander(s.store, product)
	if _, err := successor.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := s.reserve("cid", terms(1, "", false))
	_, err := s.lander.Step(t.Context())
	s.wants(err, order.ErrFenced)
	s.advance(time.Hour)
	_, err = s.lander.Step(t.Context())
	s.wants(err, order.ErrFenced)
	if st := s.lander.Stats(); !st.Fenced {
		t.Errorf("stats %+v", st)
	}
	_, err = s.store.Get(t.Context(), r.Order)
	s.wants(err, order.ErrNoSuchOrder)
	s.wantAlarms(map[string]uint64{order.AlarmFenced: 1})
}

// A product that cannot be found stops landing at its entry, not before and
// not beyond, with one alarm; and landing goes on by itself afterwards.
func TestLandingStops(t *testing.T) {
	s := newShop(t, 10, 0)
	missing := errors.New("no such product")
	var mu sync.Mutex
	gone := true
	l := s.newLander(s.store, func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if gone && version == 9 {
			return nil, missing
		}
		return product(ctx, sku, version)
	})
	before := s.reserve("ann", terms(1, "", false))
	odd := terms(1, "", false)
	odd.Lines[0].Version = 9
	bad := s.reserve("bob", odd)
	behind := s.reserve("cid", terms(1, "", false))

	_, err := l.Step(t.Context())
	s.wants(err, missing)
	s.get(before.Order)
	_, err = s.store.Get(t.Context(), behind.Order)
	s.wants(err, order.ErrNoSuchOrder)

	// 1, 2, 4, … s: between attempts nothing is tried, and the error stands, so
	// that nobody takes a pause for a recovery.
	attempts := []time.Duration{}
	began := s.now()
	for range 80 {
		failures := l.Stats().Failures
		_, err := l.Step(t.Context())
		s.wants(err, missing)
		if l.Stats().Failures > failures {
			attempts = append(attempts, s.now().Sub(began))
		}
		s.advance(time.Second)
	}
	want := []time.Duration{1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 63 * time.Second}
	if !slices.Equal(attempts, want) {
		t.Errorf("attempts after %v, want %v", attempts, want)
	}
	st := l.Stats()
	if !st.Stopped || st.Reason == "" || st.Delay < 80*time.Second || st.Failures != 7 {
		t.Errorf("stats %+v", st)
	}
	s.wantAlarms(map[string]uint64{order.AlarmLanding: 1})

	mu.Lock()
	gone = false
	mu.Unlock()
	s.advance(time.Minute)
	if _, err := l.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.get(bad.Order)
	s.get(behind.Order)
	if st := l.Stats(); st.Stopped || st.Delay != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestLandingStopsOnBadTerms(t *testing.T) {
	s := newShop(t, 10, 0)
	_, err := s.ledger.Reserve(t.Context(), stock.Request{
		Activity: "sale", User: "ann", Key: "k", Order: "1", Terms: []byte("not JSON"), At: s.at(),
		Lines: []stock.Line{{SKU: "cup", Quantity: 1}},
	})
	s.must(err)
	for range 3 {
		if _, err := s.lander.Step(t.Context()); err == nil {
			t.Fatal("landed an entry without terms")
		}
		s.advance(time.Minute)
	}
	// The allocation before it has landed.
	if got := s.lander.Landed().Position; got != 1 {
		t.Errorf("landed up to %d, want 1", got)
	}
}

// tail is a log of n orders without a book, for batches.
type tail struct{ entries []stock.Entry }

func (l tail) Trim(context.Context, stock.Cursor) error { return nil }
func (l tail) Tail(_ context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		// At least once: the entry at the cursor comes again.
		for _, e := range l.entries {
			if e.Cursor.Position >= after.Position && !yield(e, nil) {
				return
			}
		}
	}
}

// slow makes each landing take some time on the test's clock, and notes sizes.
type slow struct {
	order.Store
	s     *shop
	takes time.Duration
	sizes []int
}

func (w *slow) Land(ctx context.Context, b order.Batch) error {
	w.s.advance(w.takes)
	w.sizes = append(w.sizes, int(b.To.Position-b.From.Position))
	return w.Store.Land(ctx, b)
}

func TestBatchSize(t *testing.T) {
	s := newShop(t, 10, 0)
	w := &slow{Store: kept{s.store}, s: s} // how fast it is is for this test to say
	l := order.NewLander(order.Landing{Store: w, Log: longTail(t, s, 12_000), LogID: logID, Snapshots: order.NewSnapshots(product),
		Alarms: s.alarms, Now: s.now})
	step := func(takes time.Duration) []int {
		t.Helper()
		w.takes, w.sizes = takes, nil
		if _, err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.sizes
	}
	if got := step(60 * time.Millisecond); !slices.Equal(got[:6], []int{500, 250, 125, 62, 31, 15}) || got[15] != 8 {
		t.Errorf("slow batches %v: want halves from 500 down to 8", got)
	}
	if got := step(40 * time.Millisecond); got[0] != 8 || got[15] != 8 {
		t.Errorf("fair batches %v: want no change", got)
	}
	var most int
	for range 4 {
		got := step(0)
		if got == nil {
			break
		}
		most = max(most, slices.Max(got))
	}
	if most != order.MaxBatch {
		t.Errorf("fast batches grow to %d, want %d", most, order.MaxBatch)
	}
	if st := l.Stats(); st.Orders != 12_000 {
		t.Errorf("%d orders landed", st.Orders)
	}
}

func longTail(t testing.TB, s *shop, n int) tail {
	t.Helper()
	r := s.reserve("ann", terms(1, "", false))
	var l tail
	for i := range n {
		one := r.Reservation
		one.ID.Number = uint64(i + 1)
		one.Order = stock.OrderID(strconv.Itoa(100_000 + i))
		one.Key = string(one.Order)
		l.entries = append(l.entries, stock.Entry{
			Cursor: stock.Cursor{Log: logID, Epoch: 1, Position: uint64(i + 1)}, Activity: "sale", Sequence: uint64(i + 1),
			Kind: stock.EntryReserved, Reservation: &one,
		})
	}
	return l
}

// Entries share what is read of their terms only when it is the same: with more
// offers than are remembered, and with products that cannot be found at first.
func TestManyOffers(t *testing.T) {
	const offers = 1100 // more than are remembered
	s := newShop(t, 2*offers, 0)
	missing := errors.New("the shelf is being moved")
	var fails error
	l := s.newLander(s.store, func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
		if fails != nil {
			return nil, fails
		}
		return product(ctx, sku, version)
	})
	s.lander = l
	want := map[stock.OrderID]int64{}
	for i := range 2 * offers {
		unit := pricing.Money{Amount: int64(100 + i%offers), Currency: "EUR"}
		r := s.reserve(stock.UserID("u"+strconv.Itoa(i)), pricing.Terms{Quote: quote(1, unit), Restock: i%offers%2 == 0})
		want[r.Order] = unit.Amount
	}
	fails = missing
	_, err := l.Step(t.Context())
	s.wants(err, missing)
	fails = nil
	s.advance(time.Minute)
	s.land()
	for id, amount := range want {
		if o := s.get(id); o.Terms.Total != amount || o.Terms.Restock != (amount%2 == 0) || string(o.Products) != `[{"id":"cup","version":3}]` {
			t.Fatalf("order %s of %d: %+v", id, amount, o)
		}
	}
}

// kept is a store that lands nothing, so that a benchmark sees the lander alone.
type kept struct{ order.Store }

func (kept) Land(context.Context, order.Batch) error { return nil }

// BenchmarkLander is the way from log entries to rows, and with "rows" into the
// store as well; ns/op is per entry. All entries are of one offer, as in a sale.
func BenchmarkLander(b *testing.B) {
	f := func(name string, of func(order.Store) order.Store) {
		b.Run(name, func(b *testing.B) {
			s := newShop(b, 10, 0)
			l := s.newLander(of(s.store), product)
			l.Log = longTail(b, s, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for worked := true; worked; {
				var err error
				worked, err = l.Step(b.Context())
				s.must(err)
				if l.Landed().Position == uint64(b.N) {
					break
				}
			}
		})
	}
	f("entries", func(s order.Store) order.Store { return kept{s} })
	f("rows", func(s order.Store) order.Store { return s })
}
