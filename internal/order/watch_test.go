package order_test

import (
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

type message = outbox.Message

func TestWatchers(t *testing.T) {
	s := newShop(t, 10, 0)
	r := s.reserve("ann", terms(1, "", false))
	changes, stop, err := s.watchers.Subscribe(r.ID)
	s.must(err)
	next := func(want stock.State) {
		t.Helper()
		select {
		case c := <-changes:
			if c.State != want || c.Order != r.Order || c.Reservation != r.ID {
				t.Errorf("change %+v, want %s", c, want)
			}
		default:
			t.Errorf("no change, want %s", want)
		}
	}
	s.land()
	next(stock.Held)
	o := s.get(r.Order)
	s.pay(o)
	s.captured(o, 1, "c1 5900 EUR")
	s.settle()
	next(stock.Confirmed)

	stop()
	stop()
	if n := s.watchers.Count(); n != 0 {
		t.Errorf("%d watchers left", n)
	}
	s.watchers.Publish(order.Change{Reservation: r.ID, State: stock.Returned})
	select {
	case c := <-changes:
		t.Errorf("told %+v after stopping", c)
	default:
	}
}

// A reader that does not keep up misses what is in between, never the newest,
// and an older state that comes late does not displace it.
func TestSlowWatcher(t *testing.T) {
	w := order.NewWatchers(2)
	id := stock.ID{Activity: "sale", Epoch: 1, Number: 1}
	changes, stop, err := w.Subscribe(id)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, st := range []stock.State{stock.Held, stock.Confirmed, stock.Returned, stock.Held} {
		w.Publish(order.Change{Reservation: id, State: st})
	}
	if c := <-changes; c.State != stock.Returned {
		t.Errorf("newest is %s", c.State)
	}
	if len(changes) != 0 {
		t.Error("more than the newest is kept")
	}
}

func TestWatchersBound(t *testing.T) {
	w := order.NewWatchers(1)
	stop, err := w.Watch(stock.ID{Number: 1}, func(order.Change) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Watch(stock.ID{Number: 2}, nil); err == nil {
		t.Error("one too many is let in")
	}
	stop()
	if _, err := w.Watch(stock.ID{Number: 2}, nil); err != nil {
		t.Error(err)
	}
}

func TestBadEvents(t *testing.T) {
	s := newShop(t, 1, 0)
	f := func(topic, body string) {
		t.Helper()
		m := outbox.Message{ID: 1, Key: "7", Topic: topic, Body: []byte(body)}
		if err := s.settler.Settle(t.Context(), m); err == nil {
			t.Errorf("settled %s", body)
		}
		if err := s.watchers.Handle(t.Context(), m); err == nil && topic != order.TopicPaid {
			t.Errorf("published %s", body)
		}
	}
	f(order.TopicCancelled, `{`)
	f(order.TopicCancelled, `{"state":"cancelled","reservation":"nonsense"}`)
	f(order.TopicCancelled, `{"state":"nonsense","reservation":"sale.0.1.1"}`)
	f(order.TopicPaid, `{"state":"created","reservation":"sale.0.1.1"}`)
	f(order.TopicPaid, `{"state":"paid","reservation":"sale.0.1.99"}`) // not in the ledger
	if err := s.settler.Settle(t.Context(), outbox.Message{Topic: "order.fulfilled", Body: []byte("any")}); err != nil {
		t.Error(err)
	}
}
