package order_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/stock"
)

// An order id on a receipt is never a 404 to its owner, and always to others.
func TestOwnOrdersOnly(t *testing.T) {
	s := newShop(t, 10, 0)
	r := s.reserve("ann", terms(2, "", false))
	check := func(landed bool) {
		t.Helper()
		o, err := s.desk.Get(t.Context(), "ann", r.Order)
		s.must(err)
		if o.State != order.Created || (o.Version > 0) != landed || o.Terms.Total != 2*price.Amount || o.ExpiresAt != r.Expires {
			t.Errorf("order %+v", o)
		}
		res, err := s.desk.Reservation(t.Context(), "ann", r.ID)
		s.must(err)
		if res.State != stock.Held || res.Landed != landed || res.Order != r.Order || res.Expires != r.Expires || len(res.Lines) != 1 {
			t.Errorf("reservation %+v", res)
		}
		_, err = s.desk.Get(t.Context(), "bob", r.Order)
		s.wants(err, order.ErrNoSuchOrder)
		_, err = s.desk.Reservation(t.Context(), "bob", r.ID)
		s.wants(err, stock.ErrNoSuchReservation)
		_, err = s.desk.Cancel(t.Context(), "bob", r.Order)
		s.wants(err, order.ErrNoSuchOrder)
		_, err = s.desk.Pay(t.Context(), "bob", r.Order, "")
		s.wants(err, order.ErrNoSuchOrder)
		_, err = s.desk.Get(t.Context(), "ann", "404")
		s.wants(err, order.ErrNoSuchOrder)
	}
	check(false)
	s.land()
	check(true)
	mine, err := s.desk.List(t.Context(), "ann", "", 10)
	s.must(err)
	if len(mine) != 1 || mine[0].ID != r.Order {
		t.Errorf("ann's orders: %+v", mine)
	}
	if others, err := s.desk.List(t.Context(), "bob", "", 10); err != nil || len(others) != 0 {
		t.Errorf("bob's orders: %+v, %v", others, err)
	}
}

func TestReservationState(t *testing.T) {
	f := func(state order.State, reason string, restock bool, want stock.State) {
		t.Helper()
		s := newShop(t, 10, 0)
		o := s.buy("ann", terms(1, "", restock))
		s.must(s.store.Update(t.Context(), o.ID, func(o *order.Order) ([]message, error) {
			o.State, o.Reason = state, reason
			return nil, nil
		}))
		r, err := s.desk.Reservation(t.Context(), "ann", o.Reservation)
		s.must(err)
		if r.State != want || r.OrderState != state {
			t.Errorf("order %s (%s): reservation %s, want %s", state, reason, r.State, want)
		}
	}
	f(order.Created, "", false, stock.Held)
	f(order.Paid, "", false, stock.Confirmed)
	f(order.Fulfilled, "", false, stock.Confirmed)
	f(order.Cancelled, "timeout", false, stock.Expired)
	f(order.Cancelled, "shopper", false, stock.Released)
	f(order.Refunded, "operator", false, stock.Confirmed)
	f(order.Refunded, "operator", true, stock.Returned)
	f(order.Refused, "", false, stock.Refused)
}

func TestCancel(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	for range 2 {
		o, err := s.desk.Cancel(t.Context(), "ann", o.ID)
		s.must(err)
		if o.State != order.Cancelled || o.Reason != "shopper" || o.Version != 2 {
			t.Errorf("order %+v", o)
		}
	}
	s.settle()
	if got := s.ledgerState(o); got != stock.Released {
		t.Errorf("ledger says %s", got)
	}
	_, err := s.desk.Pay(t.Context(), "ann", o.ID, "")
	s.wants(err, order.ErrState)
	_, err = s.desk.Cancel(t.Context(), "ann", s.paid(terms(1, "", false)).ID)
	s.wants(err, order.ErrState)
}

// halting is a store whose lists come only when it is let go.
type halting struct {
	order.Store
	halts atomic.Bool
	lists atomic.Int64
}

func (h *halting) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	h.lists.Add(1)
	if h.halts.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Store.List(ctx, q)
}

// A replay of a key tells what the order says, though the ledger has not heard
// of it; and waits for no store that does not answer.
func TestStanding(t *testing.T) {
	s := newShop(t, 10, 0)
	store := &halting{Store: s.store}
	desk := order.NewDesk(store, s.ledger, s.cashier, s.lander.Changed, s.now)
	r := s.reserve("ann", terms(1, "", false))
	f := func(id stock.ID, want stock.State) {
		t.Helper()
		if got, ok := desk.Standing(t.Context(), id); got != want || ok != (want != 0) {
			t.Errorf("%s stands as %s, %v; want %s", id, got, ok, want)
		}
	}
	f(r.ID, 0)
	s.land()
	f(r.ID, stock.Held)
	s.ledger.fail(stock.ErrUnknown, nil) // whatever the cancel says is not heard
	if _, err := desk.Cancel(t.Context(), "ann", r.Order); err != nil {
		t.Fatal(err)
	}
	if again, err := s.ledger.Lookup(t.Context(), stock.Ref{ID: r.ID}); err != nil || again.State != stock.Held {
		t.Fatalf("the ledger says %s, %v: nothing to see", again.State, err)
	}
	f(r.ID, stock.Released)
	f(stock.ID{Activity: "sale", Epoch: 1, Number: 99}, 0)

	s.ledger.fail(nil, nil)
	f(r.ID, stock.Released)
	if got := s.ledgerState(s.get(r.Order)); got != stock.Released {
		t.Errorf("who has read it buys again, and the ledger still says %s", got)
	}

	store.halts.Store(true)
	asked := store.lists.Load()
	for range 3 {
		f(r.ID, 0)
	}
	if n := store.lists.Load() - asked; n != 1 {
		t.Errorf("a store that does not answer was asked %d times", n)
	}
	store.halts.Store(false)
	s.advance(time.Second)
	f(r.ID, stock.Released)
}

func TestFulfil(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.paid(terms(1, "", false))
	for range 2 {
		o, err := s.desk.Fulfil(t.Context(), o.ID)
		s.must(err)
		if o.State != order.Fulfilled || o.ClosedAt == 0 {
			t.Errorf("order %+v", o)
		}
	}
	_, err := s.desk.Fulfil(t.Context(), s.buy("bob", terms(1, "", false)).ID)
	s.wants(err, order.ErrState)
	_, err = s.desk.Fulfil(t.Context(), "404")
	s.wants(err, order.ErrNoSuchOrder)
}

// Pay waits for landing and is woken by it.
func TestPayWaitsForLanding(t *testing.T) {
	s := newShop(t, 10, 0)
	r := s.reserve("ann", terms(1, "", false))
	var paying sync.WaitGroup
	paying.Go(func() {
		if _, err := s.desk.Pay(t.Context(), "ann", r.Order, "http://shop.example/"); err != nil {
			t.Error(err)
		}
	})
	s.land()
	paying.Wait()
	if got := s.get(r.Order).Money.Payments; len(got) != 1 {
		t.Errorf("payments %+v", got)
	}
}

// Pay and Cancel wait two seconds, no less and no more.
func TestNotLanded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offline(t, 10, 0)
		s.open()
		defer func() { s.must(s.store.Close()) }()
		r := s.reserve("ann", terms(1, "", false))
		began := time.Now()
		_, err := s.desk.Cancel(t.Context(), "ann", r.Order)
		s.wants(err, order.ErrNotReady)
		_, err = s.desk.Pay(t.Context(), "ann", r.Order, "")
		s.wants(err, order.ErrNotReady)
		if waited := time.Since(began); waited != 4*time.Second {
			t.Errorf("waited %s, want twice 2 s", waited)
		}
		// A caller that gives up is not kept waiting …
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.desk.Cancel(ctx, "ann", r.Order)
		s.wants(err, context.DeadlineExceeded)
		// … and one whose order is landed elsewhere is not woken, but looks.
		desk := order.NewDesk(s.store, s.ledger, s.cashier, nil, s.now)
		time.AfterFunc(1500*time.Millisecond, s.land)
		began = time.Now()
		_, err = desk.Cancel(t.Context(), "ann", r.Order)
		s.must(err)
		if waited := time.Since(began); waited > 1700*time.Millisecond {
			t.Errorf("found after %s", waited)
		}
	})
}

// callbacks has the sandbox deliver what is due, by HTTP, to the desk.
func (s *shop) callbacks(answers func(error)) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 16<<10))
		err := s.desk.Callback(r.Context(), "sandbox", r.Header.Get, body)
		answers(err)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	s.t.Cleanup(server.Close)
	s.callback = func(string) string { return server.URL }
	return server
}

func TestCallbacks(t *testing.T) {
	f := func(action string, want order.State, refunds int) {
		t.Helper()
		t.Run(action, func(t *testing.T) {
			s := newShop(t, 10, 0)
			s.callbacks(func(err error) {
				if err != nil {
					t.Error(err)
				}
			})
			o := s.buy("ann", terms(1, "", false))
			s.press(s.pay(o), action)
			for worked := true; worked; {
				var err error
				worked, err = s.sandbox.Step(t.Context())
				s.must(err)
			}
			s.keep()
			o = s.get(o.ID)
			if o.State != want || len(o.Money.Refunds) != refunds {
				t.Errorf("%s, refunds %+v; want %s and %d", o.State, o.Money.Refunds, want, refunds)
			}
			for _, r := range o.Money.Refunds {
				if r.State != order.RefundDone {
					t.Errorf("refund %+v", r)
				}
			}
			balanced(t, o)
		})
	}
	f("pay", order.Paid, 0)
	f("fail", order.Created, 0)
	f("duplicate", order.Paid, 1)
	f("wrong_amount", order.Created, 1)
	f("never_call_back", order.Created, 0)
}

func TestCallbackRefused(t *testing.T) {
	s := newShop(t, 10, 0)
	var header http.Header
	var body []byte
	keep := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
	}))
	t.Cleanup(keep.Close)
	s.callback = func(string) string { return keep.URL }
	o := s.buy("ann", terms(1, "", false))
	s.press(s.pay(o), "pay")
	_, err := s.sandbox.Step(t.Context())
	s.must(err)

	call := func(provider string, header http.Header, body []byte) error {
		return s.desk.Callback(t.Context(), provider, header.Get, body)
	}
	s.wants(call("sandbox", http.Header{}, body), payment.ErrForged)
	s.wants(call("sandbox", header, bytes.ReplaceAll(body, []byte("5900"), []byte("5901"))), payment.ErrForged)
	s.wants(call("other", header, body), order.ErrNoSuchOrder)
	if got := s.get(o.ID); got.State != order.Created {
		t.Fatalf("a forged callback made the order %s", got.State)
	}
	for range 2 {
		s.must(call("sandbox", header, body))
	}
	if got := s.get(o.ID); got.State != order.Paid || len(got.Money.Captures) != 1 {
		t.Errorf("order %+v", got)
	}
}

// A genuine callback about something that is not ours changes nothing.
func TestCallbackUnknown(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	f := func(paymentID string) {
		t.Helper()
		desk := order.NewDesk(s.store, s.ledger, s.cashierFor(says{payment.Status{PaymentID: paymentID, State: payment.Paid}}), nil, s.now)
		err := desk.Callback(t.Context(), "says", http.Header{}.Get, nil)
		s.wants(err, order.ErrNoSuchOrder)
	}
	f("")
	f("-")
	f("-1")
	f(string(o.ID))
	f(string(o.ID) + "-")
	f(string(o.ID) + "-0")
	f(string(o.ID) + "-1") // never started
	f(string(o.ID) + "-x")
	f("404-1")
	s.pay(o)
	f(string(o.ID) + "-1") // started at another provider
}

// says is a provider whose callbacks are what a test wants them to be.
type says struct{ st payment.Status }

func (p says) Name() string { return "says" }
func (p says) Start(_ context.Context, r payment.StartRequest) (string, error) {
	return "http://pay.example/" + r.ID, nil
}
func (p says) Query(context.Context, string) (payment.Status, error) { return p.st, nil }
func (p says) Refund(context.Context, payment.RefundRequest) (payment.RefundState, error) {
	return payment.RefundDone, nil
}
func (p says) Parse(func(string) string, []byte) (payment.Status, error) { return p.st, nil }

// Whatever a genuine callback says about a payment, the law of money holds.
func FuzzCallback(f *testing.F) {
	f.Add("1-1", "c1", int64(5900), "EUR")
	f.Add("1-1", "", int64(-1), "eur")
	f.Add("-", "c", int64(1)<<62, "")
	f.Fuzz(func(t *testing.T, paymentID, capture string, amount int64, currency string) {
		s := newShop(t, 10, 0)
		o := s.buy("ann", terms(1, "", false))
		st := payment.Status{PaymentID: paymentID, State: payment.Paid, Captures: []payment.Capture{{ID: capture}}}
		st.Captures[0].Amount.Amount, st.Captures[0].Amount.Currency = amount, currency
		if paymentID == "1-1" {
			st.PaymentID = string(o.ID) + "-1"
		}
		cashier := s.cashierFor(says{st})
		_, err := cashier.Start(t.Context(), o.ID, "")
		s.must(err)
		err = order.NewDesk(s.store, s.ledger, cashier, nil, s.now).Callback(t.Context(), "says", http.Header{}.Get, nil)
		if err != nil && !errors.Is(err, order.ErrNoSuchOrder) && !errors.Is(err, payment.ErrMalformed) {
			t.Error(err)
		}
		balanced(t, s.get(o.ID))
	})
}

// untrue is a store of copies in which every order was just cancelled, or is in
// another state since just now.
type untrue struct {
	order.Store
	now   func() time.Time
	state order.State
}

func (u untrue) Get(ctx context.Context, id stock.OrderID) (order.Order, error) {
	o, err := u.Store.Get(ctx, id)
	o.State, o.Reason, o.ClosedAt = cmp.Or(u.state, order.Cancelled), order.ReasonShopper, stock.MillisOf(u.now())
	return o, err
}

// What a copy says of an order is shown, and gives no units back: without
// OfCopies it would.
func TestCopiesDecideNothing(t *testing.T) {
	f := func(prepare func(*order.Desk) *order.Desk, want stock.State) {
		t.Helper()
		s := newShop(t, 10, 0)
		o := s.buy("ann", terms(1, "", false))
		desk := prepare(order.NewDesk(untrue{Store: s.store, now: s.now}, s.ledger, s.cashier, nil, s.now))
		shown, err := desk.Get(t.Context(), "ann", o.ID)
		s.must(err)
		if got := s.ledgerState(o); got != want || shown.State != order.Cancelled {
			t.Errorf("ledger says %s, want %s; shown is %s", got, want, shown.State)
		}
	}
	f((*order.Desk).OfCopies, stock.Held)
	f(func(d *order.Desk) *order.Desk { return d }, stock.Released)
}

// frozen is a store that answers no reads until it is thawed, and counts them.
type frozen struct {
	order.Store
	ice, asked atomic.Int32
}

func (f *frozen) Get(ctx context.Context, id stock.OrderID) (order.Order, error) {
	f.asked.Add(1)
	if f.ice.Load() == 0 {
		return f.Store.Get(ctx, id)
	}
	<-ctx.Done()
	return order.Order{}, ctx.Err()
}

// A copy is shown while the store that decides hangs: who reads waits a second at
// most, those after it not at all, and for what there is nothing to tell nobody asks.
func TestCopiesWhileStoreHangs(t *testing.T) {
	s := newShop(t, 10, 0)
	o, other := s.buy("ann", terms(1, "", false)), s.buy("bob", terms(1, "", false))
	store := &frozen{Store: s.store}
	cashier := order.NewCashier(store, []payment.Provider{s.provider}, func(string) string { return "" }, s.alarms, slog.New(slog.DiscardHandler), s.now)
	cashier.SettleEarly(s.settler)
	copied := func(store order.Store) *order.Desk {
		return order.NewDesk(store, s.ledger, cashier, nil, s.now).OfCopies()
	}
	desk := copied(untrue{Store: s.store, now: s.now})
	f := func(desk *order.Desk, user stock.UserID, id stock.OrderID, most time.Duration, asks int32) {
		t.Helper()
		before, began := store.asked.Load(), time.Now()
		_, err := desk.Get(t.Context(), user, id)
		s.must(err)
		if took, asked := time.Since(began), store.asked.Load()-before; took > most || asked != asks {
			t.Errorf("took %s and asked %d times, want %s and %d", took, asked, most, asks)
		}
	}
	f(copied(untrue{s.store, s.now, order.Refunded}), "bob", other.ID, time.Second/2, 0) // there is nothing to tell
	f(desk, "ann", o.ID, time.Second/2, 1)
	store.ice.Store(1)
	f(desk, "ann", o.ID, 3*time.Second, 1)
	f(desk, "ann", o.ID, time.Second/2, 0)
	s.advance(6 * time.Second)
	store.ice.Store(0)
	f(desk, "ann", o.ID, time.Second/2, 1)
}
