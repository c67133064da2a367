package bucket_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"sluice/internal/bucket"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// serve steps the workers until every bucket is served and nothing is to do.
func (w *world) serve() {
	w.Helper()
	for calm := 0; calm < 3; calm++ {
		w.clock = w.clock.Add(60 * time.Millisecond)
		for _, k := range w.workers {
			if k.step() {
				calm = 0
			}
		}
		if w.serving() < len(w.places()) {
			calm = 0
		}
	}
}

func (w *world) watermark(p stock.Place) stock.Cursor {
	w.Helper()
	at, err := w.store.Watermark(w.ctx, p.Log())
	w.must(err)
	return at
}

// is checks how a purchase stands, in the store and in the engine.
func (w *world) is(b *bought, want stock.State) {
	w.Helper()
	if got, err := w.look(b); err != nil || got != want {
		w.Fatalf("%s is %s, %v; want %s", b.id, got, err, want)
	}
	if r, err := w.engine.Lookup(w.ctx, b.id); err != nil || r.State != want {
		w.Fatalf("%s is %s in the engine, %v; want %s", b.id, r.State, err, want)
	}
}

func (w *world) sell(users ...stock.UserID) (first int) {
	w.Helper()
	first = len(w.bought)
	for _, u := range users {
		if _, err := w.buy(u, fmt.Sprint("k", len(w.bought)), 1); err != nil {
			w.Fatalf("%s buys: %v", u, err)
		}
	}
	return first
}

func TestOpening(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 3, 10, 0)
	if _, err := w.buy("ann", "k", 1); !errors.Is(err, stock.ErrNotReady) {
		t.Errorf("before it was opened: %v", err)
	}
	w.hire()
	w.serve()
	units := 0
	for _, p := range w.places() {
		c, err := w.engine.Counts(p)
		w.must(err)
		units += c.Items[0].Free
		if at := w.watermark(p); at.Epoch != 1 || at.Position != 0 {
			t.Errorf("%s starts at %v", p.Log(), at)
		}
		kept, err := w.store.Kept(t.Context(), p.Log())
		w.must(err)
		if len(kept.Rules) != 1 || kept.Rules[0].Allocation.Buckets != 3 || kept.Rules[0].Allocation.Bucket != p.Bucket {
			t.Errorf("%s keeps %+v", p.Log(), kept.Rules)
		}
	}
	if units != 10 {
		t.Errorf("%d units in all buckets, want 10", units)
	}
	first := w.sell("ann", "bob")
	if r, _ := w.engine.Lookup(t.Context(), w.bought[first].id); r.State != stock.Pending {
		t.Errorf("before landing it is %s", r.State)
	}
	w.serve()
	w.is(w.bought[first], stock.Held)
	w.settled()
}

// A bucket that changes hands without a loss goes on in its epoch, and the
// numbers of its reservations go on.
func TestHandover(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 1, 10, 0)
	old := w.hire()
	w.serve()
	w.sell("ann", "bob")
	w.serve()
	w.sell("cy")
	w.must(old.Close(t.Context()))
	old.dead = true
	w.sell("dee")
	next := w.hire()
	w.serve()
	w.sell("eve")
	w.serve()
	for i, b := range w.bought {
		w.is(b, stock.Held)
		if b.id.Epoch != 1 || b.id.Number != uint64(i+1) {
			t.Errorf("%s is number %d of epoch 1", b.id, i+1)
		}
	}
	if s := next.Stats()[0]; s.Recoveries != 0 || s.Epoch != 1 {
		t.Errorf("%+v", s)
	}
	w.settled()
}

func TestWhatSurvivesLands(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 1, 10, 0)
	k := w.hire()
	place := w.places()[0]
	w.serve()
	held := w.sell("ann", "bob")
	w.serve()
	f := func(lose func(), want ...stock.State) {
		t.Helper()
		epoch := w.watermark(place).Epoch
		first := w.sell("cy", "dee")
		lose()
		if _, err := w.buy("eve", "k", 1); !errors.Is(err, stock.ErrNotReady) {
			t.Errorf("before the rebuilding: %v", err)
		}
		w.serve()
		if at := w.watermark(place); at != (stock.Cursor{Log: place.Log(), Epoch: epoch + 1}) {
			t.Errorf("the store stands at %v after epoch %d", at, epoch)
		}
		for i, s := range want {
			w.is(w.bought[first+i], s)
		}
		w.is(w.bought[held], stock.Held)
		w.is(w.bought[held+1], stock.Held)
		w.settled()
	}
	f(w.engine.Restart, stock.Held, stock.Held)
	f(func() { w.engine.Back(place, 1) }, stock.Held, stock.Refused)
	f(func() { w.engine.Back(place, 2) }, stock.Refused, stock.Refused)
	f(func() { w.engine.Back(place, 9) }, stock.Refused, stock.Refused)
	f(func() { w.engine.Back(place, 1000) }, stock.Refused, stock.Refused)
	f(w.engine.Flush, stock.Refused, stock.Refused)
	if s := k.Stats()[0]; s.Recoveries != 6 || len(s.Times) != 6 || s.Times[0].Why == "" || s.Times[5].Epoch != s.Epoch {
		t.Errorf("%+v", s)
	}
	// The key of one that was lost buys again; the key of one that was not, the same.
	if r, err := w.buy("cy", fmt.Sprint("k", len(w.bought)-2), 1); err != nil || r.Replayed {
		t.Errorf("again with a key that was lost: %+v, %v", r, err)
	}
	if r, err := w.buy("ann", "k0", 1); err != nil || !r.Replayed || r.Order != w.bought[held].order {
		t.Errorf("again with a key that was kept: %+v, %v", r, err)
	}
}

// An engine that goes on in its epoch without what has landed does so until the
// keeper's next look, whoever the keeper is.
func TestBackBehindTheWatermark(t *testing.T) {
	f := func(another bool) {
		t.Helper()
		w := newWorld(t, t.Context(), openStore(t), 1, 10, 0)
		k := w.hire()
		w.serve()
		w.sell("ann", "bob", "cy")
		w.serve()
		if another {
			w.must(k.Close(t.Context()))
			k.dead = true
			k = w.hire()
		}
		for at := (stock.Cursor{Position: 3}); at.Position == 3; {
			w.engine.Forget(w.places()[0], 1)
			c, err := w.engine.Counts(w.places()[0])
			w.must(err)
			at = c.Position
			w.engine.Forget(w.places()[0], 1) // the look itself
		}
		w.serve()
		for _, b := range w.bought {
			w.is(b, stock.Held)
		}
		if s := k.Stats()[0]; s.Recoveries != 1 || s.Refused != 0 {
			t.Errorf("%+v", s)
		}
		w.settled()
	}
	f(false)
	f(true)
}

// An engine that cannot be asked has lost nothing yet: nothing is rebuilt for a
// while, whoever the keeper is, and gateways go on selling. But not for ever.
func TestEngineThatCannotBeAsked(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 1, 10, 0)
	k := w.hire()
	w.serve()
	away := ""
	w.engine.Before = func(operation string, _ stock.Place) error {
		if away == "all" || away == operation {
			return errors.New("no route")
		}
		return nil
	}
	pass := func(d time.Duration) {
		for end := w.clock.Add(d); w.clock.Before(end); w.clock = w.clock.Add(250 * time.Millisecond) {
			for _, k := range w.workers {
				k.step()
			}
		}
	}
	stats := func() (s bucket.Stats) {
		for _, s = range k.Stats() {
			return s
		}
		return s // it has not looked at anything yet
	}
	f := func(what string, silence time.Duration, rebuilt bool, lastly bucket.State) {
		t.Helper()
		before := stats().Recoveries
		away = what
		if what != "all" {
			defer func(i int) { w.is(w.bought[i], stock.Held) }(w.sell("ann"))
		}
		pass(silence)
		if s := stats(); s.State != lastly || s.Reason == "" {
			t.Errorf("%s is silent for %v: %+v", what, silence, s)
		}
		away = ""
		pass(time.Second) // more than the longest pause
		w.serve()
		s := stats()
		if got := s.Recoveries - before; got > 1 || (got == 1) != rebuilt || s.State != bucket.Serving {
			t.Errorf("%s was silent for %v: rebuilt %d times; %+v", what, silence, got, s)
		}
		if rebuilt && s.Times[len(s.Times)-1].Took < 10*time.Second {
			t.Errorf("%s was silent for %v: %+v", what, silence, s.Times)
		}
		w.settled()
	}
	f("head", 9*time.Second, false, bucket.Serving)
	f("all", 9*time.Second, false, bucket.Serving)
	f("head", 12*time.Second, true, bucket.Serving)
	f("all", 30*time.Second, true, bucket.Recovering)
	w.must(k.Close(t.Context()))
	k.dead = true
	k = w.hire()
	f("head", 9*time.Second, false, bucket.Opening)
	f("all", 30*time.Second, true, bucket.Recovering)
}

// What the book would not have lands as refused, or does not land; the engine,
// which believes it, is rebuilt before anybody is told that it is held.
func TestBookHasTheLastWord(t *testing.T) {
	forge := func(e stock.Entry, edit func(e *stock.Entry)) stock.Entry {
		if e.Reservation != nil {
			r := *e.Reservation
			e.Reservation = &r
		}
		edit(&e)
		return e
	}
	f := func(name string, want stock.State, alarm string, spoil func(e *stock.Entry)) {
		t.Helper()
		w := newWorld(t, t.Context(), openStore(t), 1, 2, 0)
		k := w.hire()
		w.serve()
		w.sell("ann")
		w.serve()
		i := w.sell("bob")
		k.spoil = func(stream []stock.Entry) []stock.Entry {
			if len(stream) > 0 {
				k.spoil = nil
				stream = slices.Clone(stream)
				stream[len(stream)-1] = forge(stream[len(stream)-1], spoil)
			}
			return stream
		}
		w.serve()
		w.is(w.bought[i], want)
		w.is(w.bought[0], stock.Held)
		if w.alarms.Counts()[alarm] == 0 {
			t.Errorf("%s: no alarm: %v", name, w.alarms.Counts())
		}
		if s := k.Stats()[0]; s.Recoveries != 1 || s.Epoch != 2 {
			t.Errorf("%s: %+v", name, s)
		}
		w.settled()
		if want != stock.Refused {
			return
		}
		o, err := w.store.Get(t.Context(), w.bought[i].order)
		if errors.Is(err, order.ErrNoSuchOrder) {
			return
		}
		if err != nil || o.State != order.Refused || o.Reason == "" || o.CheckAt != 0 {
			t.Errorf("%s: order %+v, %v", name, o, err)
		}
	}
	f("more than there is", stock.Refused, order.AlarmRefused, func(e *stock.Entry) {
		e.Reservation.Lines = []stock.Line{{SKU: "cup", Quantity: 2}}
		e.Reservation.Terms = []byte(`{"currency":"EUR","total":200,"lines":[{"sku":"cup","version":1,"quantity":2,"unit":100,"total":200}]}`)
	})
	f("another's key", stock.Refused, order.AlarmRefused, func(e *stock.Entry) { e.Reservation.User, e.Reservation.Key = "ann", "k0" })
	f("a gap", stock.Held, order.AlarmLanding, func(e *stock.Entry) { e.Sequence++; e.Cursor.Position++ })
	f("terms of something else", stock.Held, order.AlarmLanding, func(e *stock.Entry) { e.Reservation.Terms = []byte("{}") })
	f("an order that is there", stock.Held, order.AlarmLanding, func(e *stock.Entry) {
		e.Reservation.User, e.Reservation.Key, e.Reservation.Order = "ann", "k0", stock.OrderID(fmt.Sprint(worlds*1_000_000+1))
	})
	f("a settlement of nothing", stock.Refused, order.AlarmDisagreed, func(e *stock.Entry) {
		id := e.Reservation.ID
		id.Number = 9
		e.Kind, e.Reservation, e.Settlement = stock.EntrySettled, nil, &stock.Settlement{ID: id, Outcome: stock.Confirmed}
	})
}

// A keeper that dies between landing a refusal and the rebuilding leaves its
// successor to find it.
func TestRefusalOutlivesItsKeeper(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 1, 1, 0)
	k := w.hire()
	w.serve()
	i := w.sell("ann")
	k.spoil = func(stream []stock.Entry) []stock.Entry {
		stream = slices.Clone(stream)
		for n := range stream {
			r := *stream[n].Reservation
			r.Lines, stream[n].Reservation = []stock.Line{{SKU: "cup", Quantity: 2}}, &r
			r.Terms = []byte(`{"currency":"EUR","total":200,"lines":[{"sku":"cup","version":1,"quantity":2,"unit":100,"total":200}]}`)
		}
		return stream
	}
	for w.watermark(w.places()[0]).Position == 0 {
		w.clock = w.clock.Add(60 * time.Millisecond)
		k.step()
	}
	k.dead = true
	w.clock = w.clock.Add(2 * ttl)
	next := w.hire()
	w.serve()
	w.is(w.bought[i], stock.Refused)
	if s := next.Stats()[0]; s.Recoveries != 1 {
		t.Errorf("%+v", s)
	}
	w.settled()
}

func TestRetire(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 2, 4, 0)
	k := w.hire()
	w.serve()
	i := w.sell("ann", "bob", "cy")
	w.serve()
	for _, p := range w.places() {
		w.must(w.engine.Adjust(t.Context(), p, stock.Adjustment{ID: "close", Activity: w.sale.Activity, Phase: stock.Closed}))
	}
	w.final = true
	w.serve() // not yet: units are held
	for _, b := range w.bought[i:] {
		w.change(b, order.ActionTimeout)
		w.handle()
	}
	for range 60 {
		w.clock = w.clock.Add(60 * time.Millisecond)
		k.step()
	}
	for _, p := range w.places() {
		if over, err := w.store.Retired(t.Context(), p.Log()); err != nil || !over {
			t.Errorf("%s is retired: %v, %v", p.Log(), over, err)
		}
		if _, err := w.engine.Counts(p); !errors.Is(err, stock.ErrNotReady) {
			t.Errorf("%s: %v", p.Log(), err)
		}
	}
	next := w.hire() // nobody opens them again
	k.dead = true
	w.clock = w.clock.Add(2 * ttl)
	for range 60 {
		w.clock = w.clock.Add(60 * time.Millisecond)
		next.step()
	}
	for _, s := range next.Stats() {
		if s.State != bucket.Retired || s.Token != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// Whoever takes over a bucket with a long history looks at all of its moves at
// once, and lets nobody wait for that who needs units now.
func TestMovesOfLongAgo(t *testing.T) {
	const old = 3*order.MaxAdjusted/2 - 10
	w := newWorld(t, t.Context(), openStore(t), 2, 4000, 0)
	first := w.hire()
	w.serve()
	for range old {
		w.pull(0, 1, 1)
	}
	w.rest()
	w.must(first.Close(t.Context()))
	first.dead = true
	next := w.hire()
	w.clock = w.clock.Add(2 * ttl)
	asked, needed := 0, "in-0-m"+strconv.Itoa(old+1)
	next.adjusted = func(ids []string) {
		asked++
		if slices.Contains(ids, needed) {
			t.Error("the credit of a move that was just made was looked for")
		}
	}
	w.pull(0, 1, 1)
	given := false
	next.credited = func(m stock.Move) { given = given || m.Credit(0).ID == needed }
	for steps := 0; !given; steps++ {
		if steps > 20 {
			t.Fatal("new units wait behind old ones")
		}
		w.clock = w.clock.Add(5 * time.Millisecond)
		next.step()
	}
	if asked > 1 {
		t.Errorf("%d looks at the store before units arrive that are needed now", asked)
	}
	next.credited, needed = nil, ""
	unsettled := func() (n int) {
		for _, s := range next.Stats() {
			n += s.InTransit
		}
		return n
	}
	for steps := 0; unsettled() > 0; steps++ {
		if steps > 10 {
			t.Fatalf("%d of %d moves are still to be looked at", unsettled(), old)
		}
		w.clock = w.clock.Add(60 * time.Millisecond)
		next.step()
	}
	w.rest()
	w.settled()
}
