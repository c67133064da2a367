package order_test

import (
	"database/sql"
	"path/filepath"
	"reflect"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// lose deletes the row of an order behind the store's back.
func (s *shop) lose(id stock.OrderID) {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.path, "shop.db")+"?_pragma=busy_timeout(5000)")
	s.must(err)
	_, err = db.Exec("DELETE FROM orders WHERE id = ?", string(id))
	s.must(err)
	s.must(db.Close())
}

// A lost row is made again as the log and the ledger have it, or not at all.
func TestReland(t *testing.T) {
	s := newShop(t, 100, 0)
	free := terms(1, pricing.AlwaysRefund, false)
	free.Quote = quote(1, pricing.Money{Currency: "EUR"})
	f := func(user stock.UserID, granted pricing.Terms, outcome stock.Outcome, state order.State, reason string) {
		t.Helper()
		was := s.buy(user, granted)
		is := stock.Held
		if outcome != 0 {
			_, err := s.ledger.Settle(t.Context(), stock.Settlement{ID: was.Reservation, Outcome: outcome})
			s.must(err)
			is = outcome
		}
		s.lose(was.ID)
		_, err := s.store.Get(t.Context(), was.ID)
		s.wants(err, order.ErrNoSuchOrder)
		made, err := s.lander.Reland(t.Context(), s.store, was.Reservation, is)
		s.must(err)
		got, err := s.store.Get(t.Context(), was.ID)
		s.must(err)
		if got.State != state || got.Reason != reason || made.ID != was.ID {
			t.Errorf("%s: %s %q, want %s %q", user, got.State, got.Reason, state, reason)
		}
		if state == was.State && !reflect.DeepEqual(got, was) {
			t.Errorf("%s:\n%+v\nwas\n%+v", user, got, was)
		}
		_, err = s.lander.Reland(t.Context(), s.store, was.Reservation, is)
		s.must(err)
		if again, err := s.store.Get(t.Context(), was.ID); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s, again: %+v, %v", user, again, err)
		}
	}
	paid := terms(2, pricing.AlwaysRefund, true)
	f("held", paid, 0, order.Created, "")
	f("released", paid, stock.Released, order.Cancelled, order.ReasonRepair)
	f("expired", paid, stock.Expired, order.Cancelled, order.ReasonTimeout)
	f("free", free, stock.Confirmed, order.Paid, "")
	f("free and held", free, 0, order.Paid, "")

	// Whatever paid it was in the row.
	o := s.buy("lost", paid)
	s.lose(o.ID)
	_, err := s.lander.Reland(t.Context(), s.store, o.Reservation, stock.Confirmed)
	s.wants(err, order.ErrState)
	// The lander itself will come by what has not landed.
	r := s.reserve("early", paid)
	_, err = s.lander.Reland(t.Context(), s.store, r.ID, stock.Held)
	s.wants(err, order.ErrWatermark)
	r.ID.Number = 1000
	_, err = s.lander.Reland(t.Context(), s.store, r.ID, stock.Held)
	s.wants(err, stock.ErrNoSuchReservation)
}

// A reservation is brought to where its order is by allowed steps only.
func TestResettle(t *testing.T) {
	s := newShop(t, 100, 0)
	f := func(state order.State, reason string, restock bool, before []stock.Outcome, want stock.State, refused error) {
		t.Helper()
		r := s.reserve("u", terms(1, pricing.AlwaysRefund, restock))
		for _, o := range before {
			_, err := s.ledger.Settle(t.Context(), stock.Settlement{ID: r.ID, Outcome: o})
			s.must(err)
		}
		o := order.Order{ID: r.Order, Reservation: r.ID, State: state, Reason: reason, Terms: terms(1, pricing.AlwaysRefund, restock)}
		s.wants(order.Resettle(t.Context(), s.ledger, o, s.at()), refused)
		got, err := s.ledger.Lookup(t.Context(), stock.Ref{ID: r.ID})
		s.must(err)
		if got.State != want {
			t.Errorf("%s (%s) after %v: %s, want %s", state, reason, before, got.State, want)
		}
	}
	confirmed := []stock.Outcome{stock.Confirmed}
	f(order.Paid, "", false, nil, stock.Confirmed, nil)
	f(order.Fulfilled, "", false, confirmed, stock.Confirmed, nil)
	f(order.Cancelled, order.ReasonTimeout, false, nil, stock.Expired, nil)
	f(order.Cancelled, order.ReasonShopper, false, nil, stock.Released, nil)
	f(order.Refunded, "operator", true, confirmed, stock.Returned, nil)
	f(order.Refunded, "operator", true, nil, stock.Returned, nil)
	f(order.Refunded, "operator", false, nil, stock.Confirmed, nil)
	f(order.Created, "", false, nil, stock.Held, order.ErrState)
	f(order.Paid, "", false, []stock.Outcome{stock.Released}, stock.Released, stock.ErrOutcome)
	f(order.Cancelled, order.ReasonShopper, false, confirmed, stock.Confirmed, stock.ErrOutcome)
	f(order.Refunded, "operator", true, []stock.Outcome{stock.Expired}, stock.Expired, stock.ErrOutcome)
}

// Only money that pays nothing, and is not being decided about, is given back.
func TestGiveBack(t *testing.T) {
	s := newShop(t, 100, 0)
	o := s.buy("u", terms(1, pricing.AlwaysRefund, false))
	capture := func(c order.Capture) {
		t.Helper()
		s.must(s.store.Update(t.Context(), o.ID, func(o *order.Order) ([]outbox.Message, error) {
			o.Money.Payments = []order.Payment{{ID: string(o.ID) + "-1", Provider: s.provider.Name(), Amount: price, State: order.PaymentCaptured}}
			o.Money.Captures, o.Money.Refunds = []order.Capture{c}, nil
			return nil, nil
		}))
	}
	f := func(c order.Capture, want error) {
		t.Helper()
		c.ID, c.Payment, c.Amount = "c1", string(o.ID)+"-1", price
		capture(c)
		got, err := s.desk.GiveBack(t.Context(), o.ID, "c1")
		s.wants(err, want)
		if want == nil && (len(got.Money.Refunds) != 1 || got.Money.Refunds[0].Capture != "c1" || got.Money.Refunds[0].Reason != order.ReasonRepair) {
			t.Errorf("%+v", got.Money)
		}
	}
	f(order.Capture{Pays: o.ID}, order.ErrState)
	f(order.Capture{Late: true}, order.ErrState)
	f(order.Capture{}, nil)
	again, err := s.desk.GiveBack(t.Context(), o.ID, "c1")
	s.must(err)
	if len(again.Money.Refunds) != 1 {
		t.Errorf("again: %+v", again.Money.Refunds)
	}
	_, err = s.desk.GiveBack(t.Context(), o.ID, "c2")
	s.wants(err, order.ErrState)
	_, err = s.desk.GiveBack(t.Context(), "99", "c1")
	s.wants(err, order.ErrNoSuchOrder)
}
