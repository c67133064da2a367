package bucket_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/bucket"
	"sluice/internal/bucket/brittle"
	"sluice/internal/lib/lease"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// TestEveryCrashPoint kills a keeper before and after each call that it makes in
// a story with everything in it, and lets it sleep past its lease there while
// another one takes over.
func TestEveryCrashPoint(t *testing.T) {
	store := openStore(t)
	// story runs one life of a sale; the first worker's call number at is special.
	story := func(at int, how func(w *world) string) (calls int) {
		w := newWorld(t, t.Context(), store, 2, 6, 0)
		k := w.hire()
		k.at, k.happens = at, func() string { return how(w) }
		try := func(users ...stock.UserID) {
			for _, u := range users {
				_, _ = w.buy(u, fmt.Sprint("k", len(w.bought)), 1)
			}
		}
		step := func(n int) {
			for range n {
				w.clock = w.clock.Add(60 * time.Millisecond)
				for _, one := range w.workers {
					one.step()
				}
				w.sound()
			}
		}
		step(3)
		try("ann", "bob", "cy")
		step(2)
		if len(w.bought) > 0 {
			w.change(w.bought[0], order.ActionPay)
			w.handle()
		}
		w.add("more", 3)
		w.pull(0, 1, 1)
		step(2)
		try("dee", "eve")
		w.engine.Restart()
		step(3)
		try("fay", "gus")
		w.engine.Back(w.places()[1], 3)
		step(3)
		w.engine.Flush()
		step(4)
		calls = k.calls
		w.rest()
		w.settled()
		if got := w.alarms.Counts(); got[order.AlarmRefused]+got[order.AlarmDisagreed] != 0 {
			t.Fatalf("at call %d: %v", at, got)
		}
		return calls
	}
	calls := story(0, nil)
	if calls < 60 {
		t.Errorf("the story has %d calls only", calls)
	}
	for at := 1; at <= calls; at++ {
		for _, how := range []string{"before", "after"} {
			story(at, func(w *world) string { w.hire(); return how })
		}
		story(at, func(w *world) string {
			w.clock = w.clock.Add(2 * ttl)
			other := w.hire()
			for range 6 {
				w.clock = w.clock.Add(60 * time.Millisecond)
				other.step()
				_, _ = w.buy("hal", fmt.Sprint("h", w.orders), 1)
			}
			return ""
		})
	}
	t.Logf("%d calls, each in three ways", calls)
}

// Workers share the buckets evenly, a newcomer gets its part, and what a dead
// one leaves is taken within its lease.
func TestWorkersShare(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 7, 70, 0)
	rounds := func(n int) {
		for range n * 20 {
			w.clock = w.clock.Add(60 * time.Millisecond)
			for _, k := range w.workers {
				k.step()
			}
		}
	}
	served := func(k *worker) (n int) {
		for _, s := range k.Stats() {
			if s.State == bucket.Serving && !k.dead {
				n++
			}
		}
		return n
	}
	check := func(most int) {
		t.Helper()
		all := 0
		for _, k := range w.workers {
			n := served(k)
			all += n
			if n > most {
				t.Errorf("one of %d serves %d buckets, at most %d", len(w.workers), n, most)
			}
		}
		if all != 7 {
			t.Errorf("%d buckets are served, want 7", all)
		}
		for _, p := range w.places() {
			if at := w.watermark(p); at.Epoch != 1 {
				t.Errorf("%s was rebuilt: %v", p.Log(), at)
			}
		}
	}
	first := w.hire()
	rounds(2)
	check(7)
	w.hire()
	rounds(10)
	check(4)
	w.hire()
	rounds(10)
	check(3)
	first.dead = true
	rounds(10)
	check(4)
}

// While the leases do not answer, who has a bucket goes on landing; who comes has
// none. One that alone is cut off from them is fenced by whoever takes over, and
// one that was asleep when its lease ran out does nothing more under it.
func TestLeasesAway(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 2, 40, 0)
	rounds := func(n int) {
		for range n {
			w.clock = w.clock.Add(60 * time.Millisecond)
			for _, k := range w.workers {
				k.step()
			}
			w.sound()
		}
	}
	states := func(k *worker, want bucket.State) {
		t.Helper()
		for _, s := range k.Stats() {
			if s.State != want {
				t.Errorf("%s is %s, want %s", s.Place.Log(), s.State, want)
			}
		}
	}
	sells := func(what string) {
		t.Helper()
		for range 4 {
			user := stock.UserID(fmt.Sprint("user", len(w.bought)))
			if _, err := w.buy(user, "k", 1); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		rounds(10)
		for _, b := range w.bought {
			if is, err := w.look(b); err != nil || is != stock.Held {
				t.Errorf("%s: %s is %s, %v", what, b.id, is, err)
			}
		}
	}
	mute := func(are bool) {
		for _, k := range w.workers {
			k.mute = are
		}
	}
	first := w.hire()
	rounds(5)
	sells("at first")
	mute(true)
	rounds(200) // four times a lease
	sells("without leases")
	states(first, bucket.Serving)
	late := w.hire()
	late.mute = true
	rounds(60)
	states(late, bucket.Waiting)

	late.mute = false // only the first is cut off: it is taken for dead, and learns from the store that it is late
	rounds(120)
	states(late, bucket.Serving)
	sells("after another took over")
	states(first, bucket.Fenced)
	states(late, bucket.Serving)

	mute(false)
	rounds(60)
	w.clock = w.clock.Add(2 * ttl) // all were asleep
	for _, k := range w.workers {
		k.mute = true
	}
	rounds(3)
	for _, k := range w.workers {
		for _, s := range k.Stats() {
			if s.State == bucket.Serving {
				t.Errorf("%s is served under a lease that ran out in its sleep", s.Place.Log())
			}
		}
	}
	mute(false)
	rounds(120)
	sells("at last")
	if n := w.alarms.Counts(); n[order.AlarmRefused]+n[order.AlarmDisagreed] != 0 {
		t.Errorf("alarms: %v", n)
	}
}

// One bucket whose engine does not answer keeps nobody else waiting. The leases
// are real ones, the steps run side by side.
func TestSlowBucketKeepsNobodyWaiting(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 8, 80, 0)
	stuck := make(chan struct{})
	var free sync.Once
	defer free.Do(func() { close(stuck) })
	slow := w.places()[3]
	w.engine = brittle.New(func() stock.Millis { return stock.MillisOf(time.Now()) })
	w.engine.Before = func(_ string, p stock.Place) error {
		if p == slow {
			<-stuck
		}
		return nil
	}
	k := bucket.New(bucket.Options{
		Engine: w.engine, Log: w.engine, Store: w.store, Buckets: w.store,
		Credit: func(context.Context, stock.Move, stock.Millis) error { return nil },
		Leases: lease.NewLocal(time.Now), Holder: "one",
		Allocations: func(context.Context) ([]stock.Allocation, error) { return []stock.Allocation{w.sale}, nil },
		Snapshots:   order.NewSnapshots(func(context.Context, stock.SKU, int) ([]byte, error) { return []byte("{}"), nil }),
		Alarms:      w.alarms, Logger: w.logger, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	serving := func(want int) {
		t.Helper()
		for until := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			if _, err := k.Step(ctx); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, s := range k.Stats() {
				if s.State == bucket.Serving {
					n++
				}
			}
			if n == want {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%d buckets are served, want %d", n, want)
			}
			select {
			case <-k.Woken():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	serving(7)
	free.Do(func() { close(stuck) })
	serving(8)
	cancel()
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// hung is leases that let whoever wants a new one wait for ever once they hang,
// and give no answer about one that is to be renewed.
type hung struct {
	lease.Leases
	hangs  atomic.Bool
	asked  atomic.Int64
	hungUp chan struct{}
}

func (h *hung) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (lease.Grant, error) {
	if h.hangs.Load() {
		<-h.hungUp
		return lease.Grant{}, errMute
	}
	return h.Leases.Acquire(ctx, name, holder, ttl)
}

func (h *hung) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if h.hangs.Load() {
		h.asked.Add(1)
		return errMute
	}
	return h.Leases.Renew(ctx, g, ttl)
}

// A question about one lease that hangs does not keep the others from being asked
// for in time: buckets are served on.
func TestHungLeases(t *testing.T) {
	w := newWorld(t, t.Context(), openStore(t), 4, 40, 0)
	w.engine = brittle.New(func() stock.Millis { return stock.MillisOf(time.Now()) })
	leases := &hung{Leases: lease.NewLocal(time.Now), hungUp: make(chan struct{})}
	k := bucket.New(bucket.Options{
		Engine: w.engine, Log: w.engine, Store: w.store, Buckets: w.store,
		Credit: func(context.Context, stock.Move, stock.Millis) error { return nil },
		Leases: leases, Holder: "one", TTL: ttl,
		Allocations: func(context.Context) ([]stock.Allocation, error) { return []stock.Allocation{w.sale}, nil },
		Snapshots:   order.NewSnapshots(func(context.Context, stock.SKU, int) ([]byte, error) { return []byte("{}"), nil }),
		Alarms:      w.alarms, Logger: w.logger, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	serving := func() (n int) {
		for _, s := range k.Stats() {
			if s.State == bucket.Serving {
				n++
			}
		}
		return n
	}
	until := func(what string, right func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !right(); {
			if _, err := k.Step(ctx); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
			select {
			case <-k.Woken():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	until("all are served", func() bool { return serving() == 4 })
	leases.hangs.Store(true)
	until("asked again and again", func() bool { return leases.asked.Load() >= 6 }) // for twice as long as a lease lasts
	if n := serving(); n != 4 {
		t.Errorf("%d buckets are served", n)
	}
	cancel()
	close(leases.hungUp)
	leases.hangs.Store(false)
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
