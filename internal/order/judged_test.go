package order_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// unsafe is a ledger whose answers are not durable: what it knows to be held,
// it says to be something else.
type unsafe struct {
	*ledger
	as stock.State // 0: held
}

func (u *unsafe) seen(r stock.Receipt, err error) (stock.Receipt, error) {
	if u.as != 0 && r.State == stock.Held {
		r.State = u.as
	}
	return r, err
}

func (u *unsafe) Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error) {
	return u.seen(u.ledger.Reserve(ctx, r))
}

func (u *unsafe) Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	if ref.User == "" {
		return stock.Receipt{}, errors.New("it finds reservations by user only")
	}
	return u.seen(u.ledger.Lookup(ctx, ref))
}

// unsafely puts the desk and the keeper in front of such a ledger.
func (s *shop) unsafely(as stock.State) *unsafe {
	s.t.Helper()
	u := &unsafe{s.ledger, as}
	late := order.NewLate(s.store, u, s.lateID, slog.New(slog.DiscardHandler), s.now)
	s.keeper = order.NewKeeper(s.store, s.cashier, late, s.alarms, s.now, nil)
	s.desk = order.NewDesk(s.store, u, s.cashier, s.lander.Changed, s.now)
	return u
}

// Late money has bought nothing as long as the ledger may lose it again.
func TestLateWhilePending(t *testing.T) {
	f := func(then stock.State) order.Order {
		t.Helper()
		s := newShop(t, 10, 0)
		o := s.tooLate(pricing.RereserveOrRefund, false)
		u := s.unsafely(stock.Pending)
		for range 3 {
			s.keep()
			if o = s.get(o.ID); o.ReplacedBy != "" || len(o.Money.Refunds) != 0 || o.CheckAt <= s.at() {
				t.Fatalf("decided while it was pending: %+v", o)
			}
			balanced(t, o)
			s.advance(time.Duration(o.CheckAt-s.at()) * time.Millisecond)
		}
		u.as = then
		s.keep()
		s.land()
		o = s.get(o.ID)
		balanced(t, o)
		if c := s.ledger.count(); c.Held != 1 {
			t.Errorf("ledger %+v: want one reservation however often it was asked", c)
		}
		return o
	}
	if o := f(stock.Held); o.ReplacedBy == "" || len(o.Money.Refunds) != 0 {
		t.Errorf("held in the end: %+v", o)
	}
	if o := f(stock.Refused); o.ReplacedBy != "" || len(o.Money.Refunds) != 1 || o.Money.Refunds[0].Reason != "late" {
		t.Errorf("refused in the end: %+v", o)
	}
}

// Before landing a shopper sees what the ledger says, whatever that is.
func TestPendingAndLostAreShown(t *testing.T) {
	s := newShop(t, 10, 0)
	u := s.unsafely(stock.Pending)
	r := s.reserve("ann", terms(1, "", false))
	f := func(state stock.State, is order.State) {
		t.Helper()
		u.as = state
		got, err := s.desk.Reservation(t.Context(), "ann", r.ID)
		if err != nil || got.State != state || got.OrderState != is || got.Landed {
			t.Errorf("%s: reservation %+v, %v", state, got, err)
		}
		if o, err := s.desk.Get(t.Context(), "ann", r.Order); err != nil || o.State != is || o.Version != 0 {
			t.Errorf("%s: order %+v, %v", state, o, err)
		}
	}
	f(stock.Pending, order.Created)
	f(stock.Refused, order.Refused)
	s.wantsState(r.Order)
}

// wantsState: nothing can be done with an order that was refused, and one need
// not wait to hear it.
func (s *shop) wantsState(id stock.OrderID) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	_, err := s.desk.Pay(ctx, "ann", id, "")
	s.wants(err, order.ErrState)
	_, err = s.desk.Cancel(ctx, "ann", id)
	s.wants(err, order.ErrState)
}

// judging is a lander with a judge.
func (s *shop) judging(judge func(stock.Entry) error) *order.Lander {
	s.lander = order.NewLander(order.Landing{
		Store: s.store, Log: s.ledger, LogID: logID, Snapshots: order.NewSnapshots(product), Judge: judge,
		Landed: s.watchers.Landed, Alarms: s.alarms, Logger: slog.New(slog.DiscardHandler), Now: s.now,
	})
	s.desk = order.NewDesk(s.store, s.ledger, s.cashier, s.lander.Changed, s.now)
	return s.lander
}

// What the judge refuses lands so that its owner sees it, and does nothing else.
func TestRefusedByTheBook(t *testing.T) {
	for _, why := range []error{&stock.Refusal{Err: stock.ErrAllHeld, SKU: "cup"}, stock.ErrMismatch} {
		s := newShop(t, 10, 0)
		free := pricing.Terms{Quote: quote(1, pricing.Money{Currency: "EUR"})} // paid from the start, if it stood
		r, other := s.reserve("ann", free), s.reserve("bob", free)
		lander := s.judging(func(e stock.Entry) error {
			if e.Reservation != nil && e.Reservation.User == "ann" {
				return why
			}
			return nil
		})
		changes, stop, err := s.watchers.Subscribe(r.ID)
		s.must(err)
		defer stop()
		s.land()
		o := s.get(r.Order)
		if o.State != order.Refused || o.Reason == "" || o.CheckAt != 0 || o.PaidAt != 0 || o.Version != 1 {
			t.Errorf("landed as %+v", o)
		}
		if got, want := o.Key == r.Key, !errors.Is(why, stock.ErrMismatch); got != want {
			t.Errorf("%v: it has its key: %v", why, got)
		}
		if c := <-changes; c.State != stock.Refused || c.OrderState != order.Refused {
			t.Errorf("its stream says %+v", c)
		}
		if got, err := s.desk.Reservation(t.Context(), "ann", r.ID); err != nil || got.State != stock.Refused {
			t.Errorf("%+v, %v", got, err)
		}
		s.wantsState(r.Order)
		if got := s.get(other.Order).State; got != order.Paid {
			t.Errorf("the other one is %s", got)
		}
		if got := s.settle(); len(got) != 1 || got[0] != "order.paid "+string(other.Order) {
			t.Errorf("events %v", got)
		}
		if st := lander.Stats(); st.Refused != 1 || st.Disagreed != 0 || st.Orders != 2 {
			t.Errorf("%+v", st)
		}
		if s.alarms.Counts()[order.AlarmRefused] != 1 {
			t.Errorf("alarms %v", s.alarms.Counts())
		}
	}
}

// Rules are kept when the judge has accepted them; what it would settle or
// adjust otherwise is passed over with an alarm.
func TestRulesLandWhenJudged(t *testing.T) {
	s := newShop(t, 10, 0)
	adjust := func(id string) {
		t.Helper()
		e, err := s.ledger.book.Adjust(stock.Adjustment{ID: id, Activity: "sale", SKU: "cup", Delta: 1})
		s.must(err)
		s.ledger.add(e)
	}
	adjust("good")
	adjust("bad")
	lander := s.judging(func(e stock.Entry) error {
		if e.Adjustment != nil && e.Adjustment.ID == "bad" {
			return stock.ErrConflict
		}
		return nil
	})
	s.land()
	f := func(id string, want bool) {
		t.Helper()
		if got, err := s.store.Adjusted(t.Context(), logID, []string{id}); err != nil || got[0] != want {
			t.Errorf("%s is kept: %v, %v", id, got, err)
		}
	}
	f("good", true)
	f("bad", false)
	f("", true) // the opening
	if st := lander.Stats(); st.Disagreed != 1 || st.Landed.Position != 3 || s.alarms.Counts()[order.AlarmDisagreed] != 1 {
		t.Errorf("%+v, alarms %v", st, s.alarms.Counts())
	}

	adjust("later") // by a ledger that has the last word nothing is kept
	s.lander = s.newLander(s.store, product)
	s.land()
	f("later", false)
}

// An entry that cannot follow ends landing before it, and this lander with it:
// its book is ahead of the store.
func TestCorruptLogEndsAJudgedLanding(t *testing.T) {
	s := newShop(t, 10, 0)
	first, second := s.reserve("ann", terms(1, "", false)), s.reserve("bob", terms(1, "", false))
	asked := 0
	lander := s.judging(func(e stock.Entry) error {
		asked++
		if e.Reservation != nil && e.Reservation.User == "bob" {
			return stock.ErrCorrupt
		}
		return nil
	})
	for range 3 {
		_, err := lander.Step(t.Context())
		s.wants(err, stock.ErrCorrupt)
		s.advance(time.Hour)
	}
	if asked != 3 {
		t.Errorf("the judge was asked %d times, want 3", asked)
	}
	s.get(first.Order)
	if _, err := s.store.Get(t.Context(), second.Order); !errors.Is(err, order.ErrNoSuchOrder) {
		t.Errorf("what cannot follow has landed: %v", err)
	}
}
