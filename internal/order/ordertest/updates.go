package ordertest

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

func update(t *testing.T, f *fixture) {
	f.land(t, some(2)...)
	var seen order.Order
	err := f.Update(t.Context(), "1000", func(o *order.Order) ([]outbox.Message, error) {
		seen = *o
		from := full()
		o.State, o.Reason, o.ReplacedBy = order.Cancelled, "timeout", "1001"
		o.ExpiresAt, o.PaidAt, o.ClosedAt, o.CheckAt = 11, 12, 13, 14
		o.Money = from.Money
		return []outbox.Message{event(*o, "order.cancelled"), event(*o, "second")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "what change saw", seen, plain(0))
	w := plain(0)
	w.State, w.Reason, w.ReplacedBy, w.Version = order.Cancelled, "timeout", "1001", 2
	w.ExpiresAt, w.PaidAt, w.ClosedAt, w.CheckAt = 11, 12, 13, 14
	w.Money = full().Money
	equal(t, "updated", f.get(t, "1000"), w)
	equal(t, "another", f.get(t, "1001"), plain(1))
	equal(t, "events", f.events(t), []string{"1000 landed", "1001 landed", "1000 order.cancelled", "1000 second"})

	err = f.Update(t.Context(), "1000", func(o *order.Order) ([]outbox.Message, error) {
		o.Reason, o.ReplacedBy, o.ExpiresAt, o.PaidAt, o.ClosedAt, o.CheckAt, o.Money = "", "", 0, 0, 0, 0, order.Money{}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w = plain(0)
	w.State, w.Version, w.ExpiresAt, w.CheckAt = order.Cancelled, 3, 0, 0
	equal(t, "emptied", f.get(t, "1000"), w)
}

// Each field of Money is kept when it is the only one that is set: no store may
// take an order for unpaid by some of them.
func moneyAlone(t *testing.T, f *fixture) {
	all := full().Money
	var fields []order.Money
	for i := range reflect.TypeFor[order.Money]().NumField() {
		var one order.Money
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(all).Field(i))
		fields = append(fields, one)
	}
	orders := some(2 * len(fields))
	for i, m := range fields {
		orders[i].Order.Money = m
	}
	f.land(t, orders...)
	for i, m := range fields {
		w := plain(i)
		w.Money = m
		equal(t, "landed", f.get(t, w.ID), w)

		w = plain(len(fields) + i)
		w.Money, w.Version = m, 2
		err := f.Update(t.Context(), w.ID, func(o *order.Order) ([]outbox.Message, error) { o.Money = m; return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "updated", f.get(t, w.ID), w)
	}
}

// What change refuses is returned as it is, and nothing has happened.
func updateRefused(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	no := fmt.Errorf("no: %w", order.ErrState)
	err := f.Update(t.Context(), "1000", func(o *order.Order) ([]outbox.Message, error) {
		o.State = order.Paid
		return []outbox.Message{event(*o, "order.paid")}, no
	})
	if err != no {
		t.Errorf("refusal came back as %v", err)
	}
	equal(t, "order", f.get(t, "1000"), plain(0))
	equal(t, "events", f.events(t), []string{"1000 landed"})
}

// An event that cannot be saved undoes the state it came with.
func updateIsWhole(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	spoil := func(name string, change func(o *order.Order) []outbox.Message) {
		t.Helper()
		err := f.Update(t.Context(), "1000", func(o *order.Order) ([]outbox.Message, error) {
			o.State = order.Paid
			return change(o), nil
		})
		if err == nil {
			t.Errorf("%s: saved", name)
		}
		equal(t, name, f.get(t, "1000"), plain(0))
		equal(t, name+": events", f.events(t), []string{"1000 landed"})
	}
	spoil("second event without a key", func(o *order.Order) []outbox.Message {
		return []outbox.Message{event(*o, "order.paid"), {Topic: "order.paid"}}
	})
	spoil("another user", func(o *order.Order) []outbox.Message { o.User = "mallory"; return nil })
	spoil("another id", func(o *order.Order) []outbox.Message { o.ID = "2000"; return nil })
}

func noLostUpdate(t *testing.T, f *fixture) {
	const workers, each = 8, 20
	f.land(t, some(2)...)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				id := stock.OrderID(strconv.Itoa(1000 + i%2))
				err := f.Update(t.Context(), id, func(o *order.Order) ([]outbox.Message, error) {
					o.Money.Payments = append(o.Money.Payments, order.Payment{ID: fmt.Sprintf("%d-%d", w, i)})
					return []outbox.Message{event(*o, "touched")}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range []stock.OrderID{"1000", "1001"} {
		o := f.get(t, id)
		equal(t, "version", o.Version, 1+workers*each/2)
		equal(t, "payments", len(o.Money.Payments), workers*each/2)
	}
	equal(t, "events", len(f.events(t)), 2+workers*each)
}

// Of a payment and a time-out that race, one finds the order no longer
// created, whatever else is being written.
func payAgainstTimeout(t *testing.T, f *fixture) {
	const n = 40
	f.land(t, some(n)...)
	var wins, losses atomic.Int64
	move := func(id stock.OrderID, to order.State) {
		err := f.Update(t.Context(), id, func(o *order.Order) ([]outbox.Message, error) {
			if o.State != order.Created {
				return nil, order.ErrState
			}
			o.State = to
			return []outbox.Message{event(*o, "order."+string(to))}, nil
		})
		switch {
		case err == nil:
			wins.Add(1)
		case errors.Is(err, order.ErrState):
			losses.Add(1)
		default:
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range n {
		id := plain(i).ID
		wg.Go(func() { move(id, order.Paid) })
		wg.Go(func() { move(id, order.Cancelled) })
	}
	wg.Wait()
	equal(t, "wins", wins.Load(), int64(n))
	equal(t, "losses", losses.Load(), int64(n))
	equal(t, "events", len(f.events(t)), 2*n)
}

// pages compares every combination of filters with a plain search of all orders.
func pages(t *testing.T, f *fixture) {
	activities := []stock.ActivityID{"flash", "coupon"}
	all := make([]order.Landed, 90)
	var orders []order.Order
	for i := range all {
		o := plain(i)
		o.Activity = activities[i%2]
		o.Reservation.Activity = o.Activity
		o.User = stock.UserID(fmt.Sprintf("u%d", i%3))
		o.State = []order.State{order.Created, order.Paid, order.Cancelled, order.Fulfilled, order.Refunded, order.Refused}[i/3%6]
		all[i] = order.Landed{Order: o}
		orders = append(orders, o)
	}
	f.land(t, all...)
	slices.SortFunc(orders, func(a, b order.Order) int { return cmp.Compare(b.ID, a.ID) })

	for _, user := range []stock.UserID{"", "u1", "nobody"} {
		for _, activity := range []stock.ActivityID{"", "coupon", "none"} {
			for _, state := range []order.State{"", order.Paid, order.Refused} {
				for _, reservation := range []*stock.ID{nil, &orders[7].Reservation, {Activity: "flash", Epoch: 9, Number: 1}} {
					checkPages(t, f, orders, order.Query{User: user, Activity: activity, State: state, Reservation: reservation})
				}
			}
		}
	}
}

func checkPages(t *testing.T, f *fixture, orders []order.Order, q order.Query) {
	t.Helper()
	var want []string
	for _, o := range orders {
		if (q.User == "" || q.User == o.User) && (q.Activity == "" || q.Activity == o.Activity) &&
			(q.State == "" || q.State == o.State) && (q.Reservation == nil || *q.Reservation == o.Reservation) {
			want = append(want, string(o.ID))
		}
	}
	for _, limit := range []int{4, 90} {
		q.Limit, q.Before = limit, ""
		var got []string
		for range orders {
			page := f.ids(t, q)
			if len(page) > limit {
				t.Fatalf("%+v: page of %d", q, len(page))
			}
			got = append(got, page...)
			if len(page) == 0 {
				break
			}
			q.Before = stock.OrderID(page[len(page)-1])
		}
		q.Before = ""
		equal(t, fmt.Sprintf("%+v", q), got, want)
	}
}

func due(t *testing.T, f *fixture) {
	at := []stock.Millis{50, 0, 30, 30, 70, 10}
	batch := some(len(at))
	for i := range batch {
		batch[i].Order.CheckAt = at[i]
	}
	f.land(t, batch...)
	check := func(q order.Query, want ...string) {
		t.Helper()
		equal(t, fmt.Sprintf("due %+v", q), f.ids(t, q), want)
	}
	check(order.Query{DueBy: 50, Limit: 9}, "1005", "1002", "1003", "1000")
	check(order.Query{DueBy: 49, Limit: 9}, "1005", "1002", "1003")
	check(order.Query{DueBy: 1000, Limit: 2}, "1005", "1002")
	check(order.Query{DueBy: 9, Limit: 9})
	check(order.Query{DueBy: 1000, Activity: "none", Limit: 9})
	check(order.Query{DueBy: 1000, User: "u3", Limit: 9}, "1003")
	check(order.Query{DueBy: 1000, State: order.Paid, Limit: 9})

	reschedule := func(id stock.OrderID, at stock.Millis) {
		t.Helper()
		if err := f.Update(t.Context(), id, func(o *order.Order) ([]outbox.Message, error) { o.CheckAt = at; return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	reschedule("1005", 0)
	reschedule("1001", 31)
	check(order.Query{DueBy: 1000, Limit: 9}, "1002", "1003", "1001", "1000", "1004")
}

func bounds(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	for _, q := range []order.Query{
		{Limit: 0}, {Limit: -1}, {Limit: order.MaxPage + 1}, {Limit: 1, Before: "x"}, {Limit: 1, Before: "-1"},
	} {
		if page, err := f.List(t.Context(), q); err == nil {
			t.Errorf("list %+v: %d orders, no error", q, len(page))
		}
	}
	equal(t, "largest page", len(f.list(t, order.Query{Limit: order.MaxPage})), 1)
	b := f.batch(t)
	b.Log = ""
	if err := f.Land(t.Context(), b); err == nil {
		t.Error("a batch of no log landed")
	}
	o := plain(3)
	o.Terms = pricing.Terms{}
	f.land(t, landed(o)) // empty terms are terms
	equal(t, "empty terms", f.get(t, o.ID), o)
}
