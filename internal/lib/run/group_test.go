package run

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary notes what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

func (d *diary) want(t *testing.T, want string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if got := strings.Join(d.lines, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// part gives start and stop functions that note "+name" and "-name".
func (d *diary) part(name string, startErr, stopErr error) (start, stop func(context.Context) error) {
	return func(context.Context) error { d.note("+" + name); return startErr },
		func(context.Context) error { d.note("-" + name); return stopErr }
}

var errBoom = errors.New("boom")

func TestGroupOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var d diary
		var g Group
		for _, name := range []string{"doors", "workers", "listener"} {
			start, stop := d.part(name, nil, nil)
			g.Add(name, start, stop, time.Second)
		}
		g.Add("bare", nil, nil, time.Second)
		if err := g.Run(ctx); err != nil {
			t.Errorf("Run = %v after an ordinary stop", err)
		}
		d.want(t, "+doors +workers +listener -listener -workers -doors")
	})
}

func TestGroupStartFails(t *testing.T) {
	var d diary
	var g Group
	start, stop := d.part("a", nil, nil)
	g.Add("a", start, stop, time.Second)
	start, stop = d.part("b", errBoom, nil)
	g.Add("b", start, stop, time.Second)
	start, stop = d.part("c", nil, nil)
	g.Add("c", start, stop, time.Second)
	err := g.Run(t.Context())
	if !errors.Is(err, errBoom) || !strings.Contains(err.Error(), "start b") {
		t.Errorf("Run = %v", err)
	}
	d.want(t, "+a +b -a")
}

func TestGroupStopsOnFirstFailure(t *testing.T) {
	f := func(ending error, want string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var d diary
			var g Group
			start, stop := d.part("door", nil, nil)
			g.Add("door", start, stop, time.Second)
			g.Go("server", func(ctx context.Context) error {
				select {
				case <-time.After(time.Minute):
					return ending
				case <-ctx.Done():
					return ctx.Err()
				}
			}, time.Second)
			g.Go("bystander", func(ctx context.Context) error {
				<-ctx.Done()
				d.note("bystander")
				return ctx.Err()
			}, time.Second)
			err := g.Run(t.Context())
			if err == nil || err.Error() != want {
				t.Errorf("Run = %v, want %s", err, want)
			}
			d.want(t, "+door bystander -door")
		})
	}
	f(errBoom, "server: boom")
	f(nil, "server: ended by itself")
}

func TestGroupKeepsLaterPartsAliveWhileEarlierTurnsCome(t *testing.T) {
	// A listener drains requests that need the worker: the worker's context
	// must not end with the group's, but only when its own turn comes.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var g Group
		var worker context.Context
		g.Add("worker", func(ctx context.Context) error { worker = ctx; return nil }, nil, time.Second)
		g.Add("listener", nil, func(context.Context) error {
			if worker.Err() != nil {
				t.Error("the worker was told to stop before the listener had drained")
			}
			return nil
		}, time.Second)
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		if worker.Err() == nil {
			t.Error("the worker's context is still alive after Run")
		}
	})
}

func TestGroupStopDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var d diary
		var g Group
		start, stop := d.part("door", nil, errBoom)
		g.Add("door", start, stop, time.Second)
		release := make(chan struct{})
		g.Add("stuck", nil, func(context.Context) error { <-release; return nil }, 10*time.Second)
		began := time.Now()
		err := g.Run(ctx)
		if took := time.Since(began); took != time.Hour+10*time.Second {
			t.Errorf("Run took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errBoom) {
			t.Errorf("Run = %v, want both the deadline and the door's error", err)
		}
		d.want(t, "+door -door")
		close(release)
	})
}

func TestGroupInterruptsAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var d diary
		var g Group
		start, stop := d.part("a", nil, nil)
		g.Add("a", start, stop, time.Second)
		g.Add("long replay", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil, time.Second)
		start, stop = d.part("c", nil, nil)
		g.Add("c", start, stop, time.Second)
		if err := g.Run(ctx); err != nil {
			t.Errorf("Run = %v: being told to stop is no failure", err)
		}
		d.want(t, "+a -a")
	})
}

func TestGroupRunsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var g Group
		steps := 0
		g.Task(slog.New(slog.DiscardHandler), Task{Name: "count", Idle: time.Second, Step: func(context.Context) (bool, error) {
			steps++
			return false, nil
		}}, time.Second)
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		if steps < 10 {
			t.Errorf("%d steps in 10 s", steps)
		}
	})
}

func TestGroupBodyThatFailsWhileStopping(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var g Group
	g.Go("server", func(ctx context.Context) error { cancel(); <-ctx.Done(); return errBoom }, time.Second)
	if err := g.Run(ctx); !errors.Is(err, errBoom) {
		t.Errorf("Run = %v", err)
	}
}
