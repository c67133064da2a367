package order_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// relay is the production relay over the shop's store, on the shop's clock.
func (s *shop) relay(o outbox.Options, handlers ...outbox.Named) *outbox.Relay {
	return outbox.New(s.store, handlers, s.now, func() float64 { return 0.5 }, slog.New(slog.DiscardHandler), o)
}

// Who reads that an order is over can buy again at once, even if nobody has
// told the ledger yet: the change was saved, and its event waits.
func TestReadingTellsTheLedger(t *testing.T) {
	f := func(name string, read func(s *shop, o order.Order) error) {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 5, 1)
			o := s.buy("ann", terms(1, "", false))
			s.must(s.store.Update(t.Context(), o.ID, func(o *order.Order) ([]outbox.Message, error) {
				return order.Transition(o, order.ActionTimeout, "", s.at())
			}))
			if got := s.ledgerState(o); got != stock.Held {
				t.Fatalf("the ledger was told before anybody read: %s", got)
			}
			s.must(read(s, o))
			s.reserve("ann", terms(1, "", false)) // the one that a user may have
			s.settle()
			s.wantAlarms(nil)
		})
	}
	f("order", func(s *shop, o order.Order) error {
		_, err := s.desk.Get(t.Context(), o.User, o.ID)
		return err
	})
	f("reservation", func(s *shop, o order.Order) error {
		_, err := s.desk.Reservation(t.Context(), o.User, o.Reservation)
		return err
	})
}

// What an order becomes is the ledger's answer too as soon as the shopper has
// been told, before any event is relayed: the key replays the same state, and
// a limit no longer counts what was given up. The relay then writes nothing.
func TestLedgerFollowsAtOnce(t *testing.T) {
	f := func(name string, want stock.State, end func(s *shop, o order.Order)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 5, 1)
			o := s.buy("ann", terms(1, "", false))
			entries := len(s.ledger.entries)
			end(s, o)
			if got := s.ledgerState(o); got != want {
				t.Errorf("before its event is relayed the ledger says %s, want %s", got, want)
			}
			if n := len(s.settle()); n != 1 {
				t.Errorf("%d events: the event stays the guarantee", n)
			}
			if got := s.ledgerState(o); got != want {
				t.Errorf("the ledger says %s, want %s", got, want)
			}
			if n := len(s.ledger.entries) - entries; n != 1 {
				t.Errorf("%d log entries for one end of a reservation", n)
			}
			s.wantAlarms(nil)
			if want != stock.Confirmed {
				s.reserve("ann", terms(1, "", false)) // the one that a user may have
			}
		})
	}
	f("cancel", stock.Released, func(s *shop, o order.Order) {
		_, err := s.desk.Cancel(t.Context(), o.User, o.ID)
		s.must(err)
	})
	f("time-out", stock.Expired, func(s *shop, _ order.Order) {
		s.advance(time.Minute)
		s.keep()
	})
	f("callback", stock.Confirmed, func(s *shop, o order.Order) {
		s.pay(o)
		s.captured(o, 1, "c1 5900 EUR")
	})
	f("poll", stock.Confirmed, func(s *shop, o order.Order) {
		s.press(s.pay(o), "never_call_back")
		s.advance(10 * time.Second)
		s.keep()
	})
}

// A ledger that does not answer costs the shopper who cancels a second, those
// who come next nothing, and the cancellation stands.
func TestCancelLedgerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offline(t, 10, 0)
		s.open()
		defer func() { s.must(s.store.Close()) }()
		s.cashier.SettleEarly(order.NewSettler(hanging{}, s.alarms, s.now))
		cancel := func(user stock.UserID) (order.Order, time.Duration) {
			o := s.buy(user, terms(1, "", false))
			began := time.Now()
			o, err := s.desk.Cancel(t.Context(), user, o.ID)
			s.must(err)
			return o, time.Since(began)
		}
		if o, took := cancel("ann"); o.State != order.Cancelled || took != time.Second {
			t.Errorf("%s after %s", o.State, took)
		}
		if o, took := cancel("bob"); o.State != order.Cancelled || took != 0 {
			t.Errorf("the next one: %s after %s", o.State, took)
		}
		s.advance(time.Minute) // then it is asked again
		if _, took := cancel("cid"); took != time.Second {
			t.Errorf("a minute later: asked for %s", took)
		}
		s.wantAlarms(nil)
		s.settle()
		if c := s.ledger.count(); c.Held != 0 || c.Free != 10 {
			t.Errorf("ledger %+v", c)
		}
	})
}

// A ledger that says at once that it is not ready costs nobody anything: who
// cancels next is told of to it all the same.
func TestCancelLedgerNotReady(t *testing.T) {
	s := newShop(t, 5, 0)
	ann, bob := s.buy("ann", terms(1, "", false)), s.buy("bob", terms(1, "", false))
	f := func(user stock.UserID, o order.Order, fails error, want stock.State) {
		t.Helper()
		s.ledger.fail(fails, nil)
		_, err := s.desk.Cancel(t.Context(), user, o.ID)
		s.must(err)
		s.ledger.fail(nil, nil)
		if got := s.ledgerState(o); got != want {
			t.Errorf("the ledger, which answered %v, says %s, want %s", fails, got, want)
		}
	}
	f("ann", ann, stock.ErrNotReady, stock.Held)
	f("bob", bob, nil, stock.Released)
}

// hanging is a ledger whose answers never come.
type hanging struct{}

func (hanging) Settle(ctx context.Context, _ stock.Settlement) (stock.Outcome, error) {
	<-ctx.Done()
	return 0, stock.ErrUnknown
}

// The ledger and the order contradict each other: one alarm, however often it
// is noticed.
func TestEarlyViolation(t *testing.T) {
	s := newShop(t, 5, 0)
	o := s.buy("ann", terms(1, "", false))
	_, err := s.ledger.Settle(t.Context(), stock.Settlement{ID: o.Reservation, Outcome: stock.Confirmed, At: s.at()})
	s.must(err)
	_, err = s.desk.Cancel(t.Context(), "ann", o.ID)
	s.must(err)
	s.wantAlarms(map[string]uint64{order.AlarmSettlement: 1})
	s.settle()
	s.wantAlarms(map[string]uint64{order.AlarmSettlement: 1})
	if v, n := s.settler.Violations(); n != 1 || len(v) != 1 || v[0].Asked != stock.Released || v[0].Stands != stock.Confirmed {
		t.Errorf("%d violations %+v", n, v)
	}
}

// The ledger is away for half an hour, in every way it can be. Nothing is
// given up, and soon after it is back all units are where they belong.
func TestLedgerAway(t *testing.T) {
	f := func(away error) {
		t.Helper()
		s := newShop(t, 1, 0)
		o := s.buy("ann", terms(1, pricing.RereserveOrRefund, false))
		relay := s.relay(outbox.Options{Buried: s.alarms.DeadLetter}, outbox.Named{Name: "ledger", Handle: s.settler.Settle})
		step := func(d, every time.Duration) {
			t.Helper()
			for range int(d / every) {
				_, err := relay.Step(t.Context())
				s.must(err)
				s.advance(every)
			}
		}
		s.ledger.fail(away, nil)
		_, err := s.desk.Cancel(t.Context(), "ann", o.ID)
		s.must(err)
		step(20*time.Second, time.Second)
		step(30*time.Minute, 20*time.Second) // it tries about every half minute by now
		s.ledger.fail(nil, nil)
		step(31*time.Second, time.Second)
		if c := s.ledger.count(); c.Held != 0 {
			dead, err := s.store.Dead(t.Context(), 0, 10)
			s.must(err)
			t.Errorf("%v: half a minute after the ledger came back %d units are held; dead letters %+v", away, c.Held, dead)
		}
		s.wantAlarms(nil)
	}
	f(stock.ErrNotReady)
	f(stock.ErrOverloaded)
	f(stock.ErrUnknown)
	f(context.DeadlineExceeded)
}

// A reservation that the ledger does not know stays unknown: given up in the
// end, with an alarm.
func TestReservationLost(t *testing.T) {
	s := newShop(t, 1, 0)
	o := s.buy("ann", terms(1, "", false))
	s.ledger.fail(stock.ErrNoSuchReservation, nil)
	_, err := s.desk.Cancel(t.Context(), "ann", o.ID)
	s.must(err)
	relay := s.relay(outbox.Options{MaxAttempts: 3, Buried: s.alarms.DeadLetter}, outbox.Named{Name: "ledger", Handle: s.settler.Settle})
	for range 20 {
		_, err := relay.Step(t.Context())
		s.must(err)
		s.advance(time.Second)
	}
	dead, err := s.store.Dead(t.Context(), 0, 10)
	s.must(err)
	if len(dead) != 1 || dead[0].Attempts != 3 {
		t.Errorf("dead letters %+v", dead)
	}
	s.wantAlarms(map[string]uint64{order.AlarmDeadLetter: 1})
}

// refuser is a provider that refuses refunds for good, until it does not.
type refuser struct {
	payment.Provider
	refuses bool
}

func (r *refuser) Refund(ctx context.Context, q payment.RefundRequest) (payment.RefundState, error) {
	if r.refuses {
		return "", payment.ErrRefused
	}
	return r.Provider.Refund(ctx, q)
}

// The refund of an order that late money paid is refused: meanwhile it is
// looked at ever more seldom, and the operator who asks again gets it through,
// by the order that was asked about.
func TestLateRefundStuck(t *testing.T) {
	s := newShop(t, 5, 1)
	o := s.tooLate(pricing.RereserveOrRefund, true)
	s.keep()
	s.land()
	late := s.get(s.get(o.ID).ReplacedBy)
	provider := &refuser{Provider: s.client, refuses: true}
	s.provider = provider
	s.crash()
	_, err := s.desk.Refund(t.Context(), late.ID, "recalled")
	s.must(err)
	for range 240 {
		s.advance(15 * time.Second)
		s.keep()
	}
	if got := s.get(late.ID); got.State != order.Paid || got.Version > late.Version+25 || got.CheckAt == 0 {
		t.Errorf("an hour later: %s, written %d times, due at %d", got.State, got.Version-late.Version, got.CheckAt)
	}
	if r := s.get(o.ID).Money.Refunds; len(r) != 1 || r[0].State != order.RefundStuck {
		t.Fatalf("refunds %+v", r)
	}
	provider.refuses = false
	is, err := s.desk.Refund(t.Context(), late.ID, "again")
	s.must(err)
	if is.State != order.Refunded || is.Reason != "recalled" || is.CheckAt != 0 {
		t.Errorf("after asking again: %+v", is)
	}
	balanced(t, s.get(o.ID))
	if n := s.alarms.Counts()[order.AlarmRefundStuck]; n != 1 {
		t.Errorf("%d alarms", n)
	}
}
