package order_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Every state with every action, whether listed or not.
func TestTransitions(t *testing.T) {
	type row struct {
		to    order.State
		topic string
	}
	allowed := map[order.State]map[order.Action]row{
		order.Created: {
			order.ActionPay:     {order.Paid, "order.paid"},
			order.ActionCancel:  {order.Cancelled, "order.cancelled"},
			order.ActionTimeout: {order.Cancelled, "order.cancelled"},
		},
		order.Paid: {
			order.ActionFulfil: {order.Fulfilled, "order.fulfilled"},
			order.ActionRefund: {order.Refunded, "order.refunded"},
		},
		order.Fulfilled: {order.ActionRefund: {order.Refunded, "order.refunded"}},
	}
	states := []order.State{order.Created, order.Paid, order.Fulfilled, order.Cancelled, order.Refunded, order.Refused}
	actions := []order.Action{order.ActionPay, order.ActionCancel, order.ActionTimeout, order.ActionFulfil, order.ActionRefund}
	f := func(from order.State, do order.Action) {
		t.Helper()
		o := order.Order{ID: "7", Reservation: stock.ID{Activity: "sale", Epoch: 1, Number: 2}, State: from, Version: 4}
		before := o
		events, err := order.Transition(&o, do, "because", 1_000)
		want, ok := allowed[from][do]
		if !ok {
			if !errors.Is(err, order.ErrState) || events != nil || !reflect.DeepEqual(o, before) {
				t.Errorf("%s of %s: %v, %v, now %s; want ErrState and no change", do, from, events, err, o.State)
			}
			return
		}
		if err != nil || o.State != want.to || len(events) != 1 || events[0].Topic != want.topic || events[0].Key != "7" {
			t.Errorf("%s of %s: %s, %v, %v; want %s by %s", do, from, o.State, events, err, want.to, want.topic)
		}
	}
	for _, from := range states {
		for _, do := range actions {
			f(from, do)
		}
	}
	f("nonsense", order.ActionPay)
	f(order.Created, "nonsense")
}

func TestTransitionNotes(t *testing.T) {
	f := func(from order.State, do order.Action, reason string, paid, closed stock.Millis) {
		t.Helper()
		o := order.Order{ID: "7", State: from}
		if _, err := order.Transition(&o, do, "because", 9); err != nil {
			t.Fatal(err)
		}
		if o.Reason != reason || o.PaidAt != paid || o.ClosedAt != closed {
			t.Errorf("%s: reason %q, paid at %d, closed at %d; want %q, %d, %d", do, o.Reason, o.PaidAt, o.ClosedAt, reason, paid, closed)
		}
	}
	f(order.Created, order.ActionPay, "", 9, 0)
	f(order.Created, order.ActionCancel, "because", 0, 9)
	f(order.Created, order.ActionTimeout, "timeout", 0, 9)
	f(order.Paid, order.ActionFulfil, "", 0, 9)
	f(order.Paid, order.ActionRefund, "because", 0, 9)
}

// The body is a published schema: this test is meant to be hard to change.
func TestEventSchema(t *testing.T) {
	o := order.Order{
		ID: "7", Reservation: stock.ID{Activity: "sale", Bucket: 1, Epoch: 2, Number: 3}, Activity: "sale", User: "ann",
		State: order.Created, Version: 1, Terms: pricing.Terms{Quote: pricing.Quote{Currency: "EUR", Total: 5900}, Restock: true},
	}
	events, err := order.Transition(&o, order.ActionCancel, "shopper", 1_767_323_045_100)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"order":"7","reservation":"sale.1.2.3","activity":"sale","user":"ann","state":"cancelled","version":2,` +
		`"reason":"shopper","at":"2026-01-02T03:04:05.100Z","total":{"amount":5900,"currency":"EUR"},"restock":true}`
	if got := string(events[0].Body); got != want {
		t.Errorf("body\n%s, want\n%s", got, want)
	}
	if events[0].At != 1_767_323_045_100 {
		t.Errorf("at %d", events[0].At)
	}
}

func TestFromReservation(t *testing.T) {
	good := func() stock.Reservation {
		raw, err := json.Marshal(terms(2, pricing.AlwaysRefund, false))
		if err != nil {
			t.Fatal(err)
		}
		return stock.Reservation{
			ID: stock.ID{Activity: "sale", Epoch: 1, Number: 1}, User: "ann", Key: "k", Order: "7", Terms: raw,
			Lines: []stock.Line{{SKU: "cup", Quantity: 2}}, State: stock.Held, At: 10, Expires: 20,
		}
	}
	f := func(change func(*stock.Reservation), state order.State, events int, checkAt stock.Millis) {
		t.Helper()
		r := good()
		change(&r)
		at := stock.Cursor{Log: "wal", Epoch: 1, Position: 5}
		o, messages, err := order.FromReservation(stock.Entry{Cursor: at, Kind: stock.EntryReserved, Reservation: &r})
		if err != nil {
			t.Errorf("refused: %v", err)
			return
		}
		if o.State != state || len(messages) != events || o.CheckAt != checkAt || o.Version != 1 || o.Position != at {
			t.Errorf("%s, %d events, check at %d; want %s, %d, %d", o.State, len(messages), o.CheckAt, state, events, checkAt)
		}
	}
	f(func(*stock.Reservation) {}, order.Created, 0, 20)
	f(func(r *stock.Reservation) { r.Late = "6-1" }, order.Paid, 1, 0)
	f(func(r *stock.Reservation) {
		r.Terms = []byte(`{"currency":"EUR","total":0,"lines":[{"sku":"cup","version":3,"quantity":2,"unit":0,"total":0}]}`)
	}, order.Paid, 1, 0)

	bad := func(change func(*stock.Reservation)) {
		t.Helper()
		r := good()
		change(&r)
		if o, _, err := order.FromReservation(stock.Entry{Kind: stock.EntryReserved, Reservation: &r}); err == nil {
			t.Errorf("accepted as %+v", o)
		}
	}
	bad(func(r *stock.Reservation) { r.Terms = []byte(`{`) })
	bad(func(r *stock.Reservation) { r.Terms = nil })
	bad(func(r *stock.Reservation) { r.Order = "" })
	bad(func(r *stock.Reservation) { r.Lines[0].Quantity = 3 })
	bad(func(r *stock.Reservation) { r.Lines[0].SKU = "mug" })
	bad(func(r *stock.Reservation) { r.Lines = append(r.Lines, stock.Line{SKU: "mug", Quantity: 1}) })
	bad(func(r *stock.Reservation) {
		r.Terms = []byte(`{"currency":"EUR","total":-1,"lines":[{"sku":"cup","quantity":2,"total":-1}]}`)
	})
	bad(func(r *stock.Reservation) {
		r.Terms = []byte(`{"currency":"EUR","total":5,"lines":[{"sku":"cup","quantity":2,"total":4}]}`)
	})
	bad(func(r *stock.Reservation) {
		r.Terms = []byte(`{"currency":"eur","total":4,"lines":[{"sku":"cup","quantity":2,"total":4}]}`)
	})
}
