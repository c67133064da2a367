package ordertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

func everyField(t *testing.T, f *fixture) {
	o := full()
	f.land(t, order.Landed{Order: o})
	equal(t, "get", f.get(t, o.ID), o)
	equal(t, "list", f.list(t, order.Query{User: o.User, Limit: 2}), []order.Order{o})
}

func plainOrder(t *testing.T, f *fixture) {
	bare := order.Order{
		ID: "1", Reservation: stock.ID{Activity: "a", Number: 1}, Activity: "a", User: "u", Key: "k",
		Position: stock.Cursor{Log: log, Epoch: 1, Position: 1}, State: order.Created, Version: 1, CreatedAt: 1,
	}
	last := plain(0)
	last.ID = "9223372036854775807"
	last.Reservation.Number, last.Reservation.Epoch, last.Reservation.Bucket = 1<<63-1, 1<<32-1, 1<<16-1
	f.land(t, order.Landed{Order: bare}, order.Landed{Order: last})
	equal(t, "bare", f.get(t, "1"), bare)
	equal(t, "largest numbers", f.get(t, last.ID), last)
}

func noSuchOrder(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	for _, id := range []stock.OrderID{"7", "", "0", "-1000", "+1000", "01000", " 1000", "1000 ", "1e3", "9223372036854775808", "'"} {
		if _, err := f.Get(t.Context(), id); !errors.Is(err, order.ErrNoSuchOrder) {
			t.Errorf("get %q: %v", id, err)
		}
		if err := f.Update(t.Context(), id, nil); !errors.Is(err, order.ErrNoSuchOrder) {
			t.Errorf("update %q: %v", id, err)
		}
	}
}

// The log may be read again: what has landed stays as it is, without events.
func landAgain(t *testing.T, f *fixture) {
	first := some(3)
	f.land(t, first[:2]...)
	other := first[1]
	other.Order.ID, other.Order.Key, other.Order.User = "77", "other", "other" // its reservation decides
	f.land(t, first[0], other, first[2], first[2])
	equal(t, "orders", f.ids(t, order.Query{Activity: "flash", Limit: 9}), []string{"1002", "1001", "1000"})
	equal(t, "order", f.get(t, "1001"), first[1].Order)
	equal(t, "events", f.events(t), []string{"1000 landed", "1001 landed", "1002 landed"})
	equal(t, "watermark", f.watermark(t, log), f.at)
}

// A batch that fails, at whatever row, leaves no row, no event, no watermark.
func landIsWhole(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	before := f.at
	bad := func(name string, spoil func(l *order.Landed)) {
		t.Helper()
		for _, at := range []int{0, 1, 4} {
			batch := some(6)[1:]
			spoil(&batch[at])
			if err := f.Land(t.Context(), f.batch(t, batch...)); err == nil {
				t.Errorf("%s at %d: landed", name, at)
			}
			equal(t, name+": orders", f.ids(t, order.Query{Activity: "flash", Limit: 9}), []string{"1000"})
			equal(t, name+": events", f.events(t), []string{"1000 landed"})
			equal(t, name+": watermark", f.watermark(t, log), before)
		}
	}
	bad("order id taken", func(l *order.Landed) { l.Order.ID = "1000" })
	bad("order id no number", func(l *order.Landed) { l.Order.ID = "x" })
	bad("reservation of another activity", func(l *order.Landed) { l.Order.Reservation.Activity = "b" })
	bad("event without a key", func(l *order.Landed) { l.Events[0].Key = "" })
	f.land(t, some(6)[1:]...) // and it can be repeated
	equal(t, "events", len(f.events(t)), 6)
}

// Users, keys and activities are bytes: neither case nor spaces nor what is no
// text at all makes two of them one.
func idsAreBytes(t *testing.T, f *fixture) {
	var batch []order.Landed
	names := []string{"bob", "Bob", "bob ", " bob", "böb", "bo\u0308b", "b\xf6b", "bob\x00", "b'o\\b"}
	for i, name := range names {
		for j, key := range []string{"k", "K", "k "} {
			o := plain(3*i + j)
			o.User, o.Key = stock.UserID(name), key
			o.Activity = stock.ActivityID(name)
			o.Reservation.Activity = o.Activity
			batch = append(batch, landed(o))
		}
	}
	f.land(t, batch...)
	for i, name := range names {
		var want []order.Order
		for j := 2; j >= 0; j-- {
			want = append(want, batch[3*i+j].Order)
		}
		equal(t, "by user", f.list(t, order.Query{User: stock.UserID(name), Limit: 9}), want)
		equal(t, "by activity", f.list(t, order.Query{Activity: stock.ActivityID(name), Limit: 9}), want)
	}
}

// What the API lets in at its longest is kept whole: 200 characters of four
// bytes each, ids of 64 bytes, a key with its prefix.
func longestValues(t *testing.T, f *fixture) {
	o := full()
	id := strings.Repeat("x", stock.MaxID)
	o.Activity, o.Reservation.Activity, o.Position.Log = stock.ActivityID(id), stock.ActivityID(id), log
	o.User, o.Key, o.LateOf = stock.UserID(id), strings.Repeat("k", stock.MaxKey+8), strings.Repeat("p", stock.MaxID+4)
	o.Reason = strings.Repeat("\U0001F600", 200)
	o.Products = []byte(`["` + strings.Repeat("p", 200_000) + `"]`)
	f.land(t, order.Landed{Order: o, Events: []outbox.Message{{Key: id, Topic: "t", Body: o.Products}}})
	equal(t, "get", f.get(t, o.ID), o)
}

func oneOrderPerKey(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	twice := plain(5)
	twice.User, twice.Key = plain(0).User, plain(0).Key
	if err := f.Land(t.Context(), f.batch(t, landed(twice))); err == nil {
		t.Error("a second reservation landed under the same key")
	}
	twice.Key = "another"
	f.land(t, landed(twice))
}

func fence(t *testing.T, f *fixture) {
	b := f.batch(t, some(1)...)
	newer, err := f.Fence(t.Context(), log)
	if err != nil || newer <= b.Token {
		t.Fatalf("fence after %d = %d, %v", b.Token, newer, err)
	}
	refused := func(token uint64) {
		t.Helper()
		b.Token = token
		if err := f.Land(t.Context(), b); !errors.Is(err, order.ErrFenced) {
			t.Errorf("land with token %d, newest %d: %v", token, newer, err)
		}
		equal(t, "watermark", f.watermark(t, log), stock.Cursor{})
		equal(t, "events", f.events(t), nil)
	}
	refused(newer - 1)
	refused(0)
	refused(newer + 1)
	b.Token = newer
	if err := f.Land(t.Context(), b); err != nil {
		t.Errorf("land with the newest token: %v", err)
	}
}

// Landers that keep taking the log from each other: each position is landed
// by exactly one of them.
func fenceRaced(t *testing.T, f *fixture) {
	const total = 60
	land := func() error {
		token, err := f.Fence(t.Context(), log)
		if err != nil {
			return err
		}
		for {
			at, err := f.Watermark(t.Context(), log)
			if err != nil {
				return err
			}
			if at.Position == total {
				return nil
			}
			b := order.Batch{Log: log, Token: token, From: at, To: stock.Cursor{Log: log, Epoch: 1, Position: at.Position + 1},
				Orders: []order.Landed{landed(plain(int(at.Position)))}}
			switch err := f.Land(t.Context(), b); {
			case errors.Is(err, order.ErrFenced):
				if token, err = f.Fence(t.Context(), log); err != nil {
					return err
				}
			case err != nil && !errors.Is(err, order.ErrWatermark):
				return err
			}
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := land(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, "orders", len(f.list(t, order.Query{Activity: "flash", Limit: 500})), total)
	equal(t, "events", len(f.events(t)), total)
}

func watermark(t *testing.T, f *fixture) {
	equal(t, "before any", f.watermark(t, log), stock.Cursor{})
	f.land(t, some(2)...)
	equal(t, "after two", f.watermark(t, log), stock.Cursor{Log: log, Epoch: 1, Position: 2})
	elsewhere := func(epoch uint32, position uint64) {
		t.Helper()
		b := f.batch(t, landed(plain(9)))
		b.From = stock.Cursor{Log: log, Epoch: epoch, Position: position}
		b.To = stock.Cursor{Log: log, Epoch: 9, Position: 99}
		if err := f.Land(t.Context(), b); !errors.Is(err, order.ErrWatermark) {
			t.Errorf("batch from %d.%d: %v", epoch, position, err)
		}
		equal(t, "watermark", f.watermark(t, log), f.at)
		equal(t, "events", len(f.events(t)), 2)
	}
	elsewhere(0, 0)
	elsewhere(1, 1)
	elsewhere(1, 3)
	elsewhere(2, 2)

	f.at.Epoch = 1
	b := f.batch(t)
	b.To = stock.Cursor{Log: log, Epoch: 2, Position: 1} // a new epoch starts over
	if err := f.Land(t.Context(), b); err != nil {
		t.Fatalf("an empty batch: %v", err)
	}
	equal(t, "moved by an empty batch", f.watermark(t, log), b.To)
	back := order.Batch{Log: log, Token: f.token, From: b.To, To: f.at}
	if err := f.Land(t.Context(), back); err == nil {
		t.Error("a batch ran backwards")
	}
}

func logsApart(t *testing.T, f *fixture) {
	f.land(t, some(1)...)
	equal(t, "another log", f.watermark(t, "other"), stock.Cursor{})
	token, err := f.Fence(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	to := stock.Cursor{Log: "other", Epoch: 3, Position: 30}
	if err := f.Land(t.Context(), order.Batch{Log: "other", Token: token, From: stock.Cursor{Log: "other"}, To: to}); err != nil {
		t.Fatal(err)
	}
	equal(t, "other", f.watermark(t, "other"), to)
	equal(t, "wal", f.watermark(t, log), f.at)
	f.land(t, landed(plain(1))) // its fence still holds
}

func largestBatch(t *testing.T, f *fixture) {
	if err := f.Land(t.Context(), f.batch(t, some(order.MaxBatch+1)...)); err == nil {
		t.Error("a batch over the bound landed")
	}
	equal(t, "watermark", f.watermark(t, log), stock.Cursor{})
	f.land(t, some(order.MaxBatch)...)
	equal(t, "events", len(f.events(t)), 1000)
	n := 0
	for q := (order.Query{Activity: "flash", Limit: order.MaxPage}); ; {
		page := f.list(t, q)
		if len(page) == 0 {
			break
		}
		n += len(page)
		q.Before = page[len(page)-1].ID
	}
	equal(t, "orders", n, order.MaxBatch)
}

func eventsInOrder(t *testing.T, f *fixture) {
	batch := some(3)
	batch[0].Order.ID = "5000" // whatever the ids
	batch[1].Events = append(batch[1].Events, event(batch[1].Order, "second"))
	batch[2].Events = nil
	f.land(t, batch...)
	f.land(t, landed(plain(9)))
	equal(t, "events", f.events(t), []string{"1000 landed", "1001 landed", "1001 second", "1009 landed"})
}

func cancelledContext(t *testing.T, f *fixture) {
	b := f.batch(t, some(1)...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("land", f.Land(ctx, b))
	equal(t, "watermark", f.watermark(t, log), stock.Cursor{})
	f.land(t, some(1)...)
	refused("update", f.Update(ctx, "1000", nil))
	_, err := f.Get(ctx, "1000")
	refused("get", err)
	_, err = f.List(ctx, order.Query{Limit: 1})
	refused("list", fmt.Errorf("%w", err))
}
