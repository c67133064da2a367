package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/id"
	"sluice/internal/lib/lease"
	"sluice/internal/lib/run"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

var quiet = slog.New(slog.DiscardHandler)

// pass lets time go by in a bubble of synctest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// worker is a process with one singleton, whose steps last until they are let
// go or told to end.
type worker struct {
	name  string
	steps atomic.Int64
	ended atomic.Int64 // steps that were told to end
	*singleton
	stop context.CancelFunc
}

func hire(ctx context.Context, leases lease.Leases, name string, goesOn bool) *worker {
	w := &worker{name: name}
	d := &doors{leases: leases, holder: name}
	w.singleton = d.singleton(quiet, run.Task{Name: "count", Idle: 10 * time.Millisecond, Step: func(ctx context.Context) (bool, error) {
		w.steps.Add(1)
		select {
		case <-time.After(1700 * time.Millisecond):
			return true, nil
		case <-ctx.Done():
			w.ended.Add(1)
			return false, ctx.Err()
		}
	}})
	w.goesOn = goesOn
	ctx, w.stop = context.WithCancel(ctx)
	for _, t := range w.tasks() {
		go run.Loop(ctx, quiet, t)
	}
	return w
}

// cut makes leases that do not answer while it is true.
type cut struct {
	lease.Leases
	off atomic.Bool
}

var errCut = errors.New("the store does not answer")

func (c *cut) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (lease.Grant, error) {
	if c.off.Load() {
		return lease.Grant{}, errCut
	}
	return c.Leases.Acquire(ctx, name, holder, ttl)
}

func (c *cut) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if c.off.Load() {
		return errCut
	}
	return c.Leases.Renew(ctx, g, ttl)
}

// A task that needs nothing of the store goes on while the store is away, in the
// process that had it; if another gets it meanwhile, both do, until the store is
// back.
func TestSingletonGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := lease.NewLocal(time.Now)
		broken, away := &cut{Leases: leases}, &cut{Leases: leases}
		first := hire(t.Context(), broken, "first", true)
		pass(time.Second)
		other := hire(t.Context(), away, "other", true)
		pass(5 * time.Second)
		f := func(what string, one, two bool) {
			t.Helper()
			was, were := first.steps.Load(), other.steps.Load()
			pass(5 * time.Second)
			if (first.steps.Load() > was) != one || (other.steps.Load() > were) != two {
				t.Errorf("%s: first did %d steps more, other %d", what, first.steps.Load()-was, other.steps.Load()-were)
			}
		}
		broken.off.Store(true)
		away.off.Store(true)
		pass(singletonTTL)
		f("away from both", true, false)
		away.off.Store(false)
		pass(singletonTTL)
		f("away from the first", true, true)
		broken.off.Store(false)
		pass(singletonTTL)
		f("back", false, true)
		if first.ended.Load() > 1 || other.ended.Load() > 0 {
			t.Errorf("told to end: %d and %d times", first.ended.Load(), other.ended.Load())
		}
		first.stop()
		other.stop()
	})
}

// One of two does the task. Cut off from the leases it ends its work before the
// other begins; given back, the other begins at once.
func TestSingleton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := lease.NewLocal(time.Now)
		broken := &cut{Leases: leases}
		first := hire(t.Context(), broken, "first", false)
		pass(time.Second)
		other := hire(t.Context(), leases, "other", false)
		pass(10 * time.Second)
		if first.steps.Load() < 5 || first.ended.Load() != 0 || other.steps.Load() != 0 {
			t.Fatalf("first: %d steps, %d ended; other: %d steps", first.steps.Load(), first.ended.Load(), other.steps.Load())
		}
		broken.off.Store(true)
		pass(singletonTTL + time.Second)
		if first.ended.Load() != 1 || first.held() || !other.held() {
			t.Fatalf("cut off: first has ended %d, holds %v; other holds %v", first.ended.Load(), first.held(), other.held())
		}
		broken.off.Store(false)
		was := first.steps.Load()
		pass(10 * time.Second)
		if first.steps.Load() != was || other.steps.Load() < 4 || other.ended.Load() != 0 {
			t.Fatalf("back: first did %d steps more; other: %d steps, %d ended", first.steps.Load()-was, other.steps.Load(), other.ended.Load())
		}
		other.stop()
		synctest.Wait()
		if err := other.lease.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(singletonTTL/6 + 200*time.Millisecond)
		if first.steps.Load() == was {
			t.Error("given back, and nobody took it")
		}
		first.stop()
	})
}

// What fails is tried again at one pace, and is logged once.
func TestSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		var well atomic.Bool
		var tries atomic.Int64
		task := steady(slog.New(slog.NewTextHandler(&said, nil)), run.Task{Name: "count", Idle: 10 * time.Millisecond, Step: func(context.Context) (bool, error) {
			if tries.Add(1); !well.Load() {
				return false, errCut
			}
			return false, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go run.Loop(ctx, quiet, task)
		pass(time.Minute)
		if n := tries.Load(); n < 100 || n > 200 {
			t.Errorf("%d tries in a minute", n)
		}
		well.Store(true)
		pass(time.Second)
		cancel()
		synctest.Wait()
		if strings.Count(said.String(), "\n") != 2 || !strings.Contains(said.String(), "recovered") {
			t.Errorf("log: %s", said.String())
		}
	})
}

func TestWaits(t *testing.T) {
	f := func(err error, want bool) {
		t.Helper()
		if waits(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
	bucket := fmt.Errorf("activity a: %w", stock.ErrNotReady)
	f(bucket, true)
	f(errors.Join(bucket, stock.ErrNotReady), true)
	f(errCut, false)
	f(errors.Join(bucket, errCut), false)
}

// No two processes have one number, and one that may have lost it accepts
// nothing: it has it back when nobody took it, and is done for otherwise.
func TestNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := lease.NewLocal(time.Now)
		broken := &cut{Leases: leases}
		k, err := takeNumber(t.Context(), broken, "first")
		if err != nil {
			t.Fatal(err)
		}
		taken := map[int]bool{k.n: true}
		for i := range id.Workers - 1 {
			other, err := takeNumber(t.Context(), leases, fmt.Sprint("other", i))
			if err != nil || taken[other.n] {
				t.Fatalf("after %d: number %v, %v", i, other, err)
			}
			taken[other.n] = true
		}
		if _, err := takeNumber(t.Context(), leases, "one too many"); err == nil {
			t.Error("one more than there are was given")
		}
		step := func(want, admits error) {
			t.Helper()
			if _, err := k.Step(t.Context()); !errors.Is(err, want) {
				t.Errorf("step: %v, want %v", err, want)
			}
			if _, err := k.Admit(t.Context(), sale.PurchaseRequest{}); !errors.Is(err, admits) {
				t.Errorf("admit: %v, want %v", err, admits)
			}
		}
		step(nil, nil)
		pass(numberTTL / 2)
		step(nil, nil) // renewed
		broken.off.Store(true)
		pass(numberTTL - time.Second)
		step(errCut, nil)
		pass(2 * time.Second)
		step(errCut, stock.ErrNotReady)
		broken.off.Store(false)
		step(nil, nil)
		broken.off.Store(true)
		pass(numberTTL + time.Second)
		if _, err := leases.Acquire(t.Context(), fmt.Sprint("id/", k.n), "somebody", numberTTL); err != nil {
			t.Fatal(err)
		}
		broken.off.Store(false)
		step(errTaken, stock.ErrNotReady)
	})
}

// Who watches a reservation that its ledger has lost is told so, and nobody is
// told anything wrong about one that is on its way.
func TestMissedChanges(t *testing.T) {
	s, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "shop.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	store := sqlstore.Single(s)
	f := &fleet{engine: &engine{doors: &doors{store: store}, shown: store.Shown(), watchers: order.NewWatchers(10)}, asked: make(chan struct{}, 1), looks: map[stock.Place]uint32{}}
	watch := func(id stock.ID) <-chan order.Change {
		t.Helper()
		c, stop, err := f.watchers.Subscribe(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return c
	}
	lost := watch(stock.ID{Activity: "a", Bucket: 1, Epoch: 3, Number: 7})
	coming := watch(stock.ID{Activity: "a", Bucket: 1, Epoch: 4, Number: 1})
	elsewhere := watch(stock.ID{Activity: "a", Bucket: 2, Epoch: 3, Number: 1})
	f.missed(stock.Place{Activity: "a", Bucket: 1}, 4)
	<-f.asked
	if worked, err := f.look(t.Context()); !worked || err != nil {
		t.Fatal(worked, err)
	}
	if worked, err := f.look(t.Context()); worked || err != nil {
		t.Fatal(worked, err)
	}
	select {
	case c := <-lost:
		if c.State != stock.Refused || c.OrderState != order.Refused {
			t.Errorf("lost: %+v", c)
		}
	default:
		t.Error("nobody says that it is lost")
	}
	for name, c := range map[string]<-chan order.Change{"coming": coming, "elsewhere": elsewhere} {
		select {
		case c := <-c:
			t.Errorf("%s: %+v", name, c)
		default:
		}
	}
}
