package order_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// tooLate is an order that was cancelled, and whose money arrives now.
func (s *shop) tooLate(policy pricing.LatePolicy, byShopper bool) order.Order {
	s.t.Helper()
	o := s.buy("ann", terms(1, policy, false))
	page := s.pay(o)
	if byShopper {
		_, err := s.desk.Cancel(s.t.Context(), "ann", o.ID)
		s.must(err)
	} else {
		s.advance(time.Minute)
		s.keep()
	}
	s.press(page, "never_call_back")
	st, err := s.client.Query(s.t.Context(), string(o.ID)+"-1")
	s.must(err)
	_, err = s.cashier.Apply(s.t.Context(), o.ID, st)
	s.must(err)
	return s.get(o.ID)
}

func TestLateRefunded(t *testing.T) {
	for _, byShopper := range []bool{true, false} {
		s := newShop(t, 10, 0)
		o := s.tooLate(pricing.AlwaysRefund, byShopper)
		s.keep()
		o = s.get(o.ID)
		r := o.Money.Refunds
		if o.State != order.Cancelled || o.ReplacedBy != "" || len(r) != 1 || r[0].Reason != "late" || r[0].State != order.RefundDone {
			t.Errorf("order %+v", o)
		}
		s.wantAlarms(nil)
		balanced(t, o)
	}
}

// The event of the cancellation is not handled yet, and the user may hold one
// unit: the old hold must not stand in the way of the new one.
func TestLateReserved(t *testing.T) {
	for _, byShopper := range []bool{true, false} {
		s := newShop(t, 1, 1)
		s.ledger.unsettled(stock.ErrNotReady)
		o := s.tooLate(pricing.RereserveOrRefund, byShopper)
		s.ledger.unsettled(nil)
		if got := s.ledgerState(o); got != stock.Held {
			t.Fatalf("ledger says %s already", got)
		}
		s.keep()
		o = s.get(o.ID)
		if o.State != order.Cancelled || o.ReplacedBy == "" || o.Money.Captures[0].Pays != o.ReplacedBy || len(o.Money.Refunds) != 0 {
			t.Fatalf("order %+v", o)
		}
		balanced(t, o)
		s.land()
		late := s.get(o.ReplacedBy)
		if late.State != order.Paid || late.LateOf != o.Money.Payments[0].ID || late.Terms.Total != o.Terms.Total || late.User != o.User {
			t.Errorf("new order %+v", late)
		}
		s.settle()
		if got := s.ledgerState(late); got != stock.Confirmed {
			t.Errorf("ledger says %s", got)
		}
		if c := s.ledger.count(); c.Confirmed != 1 || c.Held != 0 || c.Free != 0 {
			t.Errorf("ledger %+v", c)
		}
		// Still more money for the same order is given back.
		s.captured(o, 1, "c9 5900 EUR")
		if r := s.get(o.ID).Money.Refunds; len(r) != 1 || r[0].Reason != "second_capture" {
			t.Errorf("refunds %+v", r)
		}
	}
}

func TestLateSoldOut(t *testing.T) {
	s := newShop(t, 1, 0)
	o := s.buy("ann", terms(1, pricing.RereserveOrRefund, false))
	page := s.pay(o)
	s.advance(time.Minute)
	s.keep()
	s.settle()
	s.buy("bob", terms(1, "", false)) // takes the unit
	s.press(page, "never_call_back")
	s.advance(30 * time.Second)
	s.keep() // finds the money, asks the ledger, gives it back
	o = s.get(o.ID)
	if r := o.Money.Refunds; o.ReplacedBy != "" || len(r) != 1 || r[0].Reason != "late" || r[0].State != order.RefundDone {
		t.Errorf("order %+v", o)
	}
	balanced(t, o)
}

// The ledger cannot answer, or did and was not heard: the same key again.
func TestLateLedgerAway(t *testing.T) {
	f := func(name string, down, lost error) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 10, 0)
			o := s.tooLate(pricing.RereserveOrRefund, false)
			s.ledger.fail(down, lost)
			s.keep()
			if o = s.get(o.ID); o.ReplacedBy != "" || len(o.Money.Refunds) != 0 || o.CheckAt != s.at()+1000 {
				t.Fatalf("decided without the ledger: %+v", o)
			}
			balanced(t, o)
			s.ledger.fail(nil, nil)
			s.crash()
			s.advance(time.Second)
			s.keep()
			s.land()
			o = s.get(o.ID)
			if late := s.get(o.ReplacedBy); late.State != order.Paid {
				t.Errorf("new order %+v", late)
			}
			s.settle()
			if c := s.ledger.count(); c.Confirmed != 1 || c.Held != 0 {
				t.Errorf("ledger %+v: want one unit, once", c)
			}
		})
	}
	f("overloaded", stock.ErrOverloaded, nil)
	f("not ready", stock.ErrNotReady, nil)
	f("unknown", nil, stock.ErrUnknown)
	f("something else", errors.New("no route"), nil)
}

// The old reservation has gone another way, or with its ledger: an alarm for
// others to raise, and no reason to keep the buyer's money.
func TestLateOldReservationLost(t *testing.T) {
	for _, err := range []error{stock.ErrOutcome, stock.ErrNoSuchReservation} {
		s := newShop(t, 10, 0)
		o := s.tooLate(pricing.RereserveOrRefund, false)
		s.ledger.unsettled(err)
		s.keep()
		if s.get(o.ID).ReplacedBy == "" {
			t.Errorf("%v: %+v", err, s.get(o.ID))
		}
	}
}

// An operator refunds the order that late money paid: the money lies with the
// old order, and both end right, also when the provider is away meanwhile.
func TestLateThenRefunded(t *testing.T) {
	for _, mode := range []int32{up, down, answerLost} {
		s := newShop(t, 10, 0)
		o := s.tooLate(pricing.RereserveOrRefund, false)
		s.keep()
		s.land()
		late := s.get(s.get(o.ID).ReplacedBy)
		s.front.mode.Store(mode)
		_, err := s.desk.Refund(t.Context(), late.ID, "recalled")
		s.must(err)
		if mode != up {
			if got := s.get(late.ID).State; got != order.Paid {
				t.Errorf("refunded by a provider that did not answer: %s", got)
			}
			s.crash()
			s.front.mode.Store(up)
			for range 3 {
				s.advance(time.Minute)
				s.keep()
			}
		}
		late, o = s.get(late.ID), s.get(o.ID)
		if late.State != order.Refunded || late.Reason != "recalled" || late.CheckAt != 0 {
			t.Errorf("new order %+v", late)
		}
		if r := o.Money.Refunds; o.State != order.Cancelled || len(r) != 1 || r[0].State != order.RefundDone {
			t.Errorf("old order %+v", o)
		}
		balanced(t, o)
		if got := s.settle(); !slices.Contains(got, "order.refunded "+string(late.ID)) {
			t.Errorf("events %v", got)
		}
	}
}

// Late money that nobody is to decide about cannot be saved: whatever else is
// changed of its order, somebody looks at it.
func TestLateNeverForgotten(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.tooLate(pricing.RereserveOrRefund, true)
	s.must(s.store.Update(t.Context(), o.ID, func(o *order.Order) ([]outbox.Message, error) {
		o.Money.Captures[0].CheckAt, o.Money.Payments[0].CheckAt, o.CheckAt = 0, 0, 0 // as no code of ours leaves it
		o.Money.Payments = append(o.Money.Payments, order.Payment{ID: string(o.ID) + "-2", State: order.PaymentStarted})
		return nil, nil
	}))
	failed := status(t, o.ID, 2) // something else happens to it
	failed.State = payment.Failed
	_, err := s.cashier.Apply(t.Context(), o.ID, failed)
	s.must(err)
	s.keep()
	if is := s.get(o.ID); is.ReplacedBy == "" {
		t.Errorf("the money is forgotten: %+v", is.Money.Captures)
	}
	balanced(t, s.get(o.ID))
}
