package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
)

// clock is a time that the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// recorder is a handler that fails on demand and records what it took.
type recorder struct {
	mu    sync.Mutex
	took  []string
	fails func(m outbox.Message) error
}

func (r *recorder) handle(_ context.Context, m outbox.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails != nil {
		if err := r.fails(m); err != nil {
			return err
		}
	}
	r.took = append(r.took, m.Key+"/"+m.Topic)
	return nil
}

func newRelay(q outbox.Queue, c *clock, o outbox.Options, handlers ...outbox.Named) *outbox.Relay {
	return outbox.New(q, handlers, c.now, func() float64 { return 0 }, slog.New(slog.DiscardHandler), o)
}

// drain steps until there is no work, and bounds how often.
func drain(t *testing.T, r *outbox.Relay) {
	t.Helper()
	for range 1000 {
		worked, err := r.Step(t.Context())
		must(t, err)
		if !worked {
			return
		}
	}
	t.Fatal("the relay still works after 1000 steps")
}

func relayOrder(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("b", 2), message("a", 3), message("b", 4), message("c", 5))
	refuse := "b"
	rec := &recorder{fails: func(m outbox.Message) error {
		if m.Key == refuse {
			return errors.New("not now")
		}
		return nil
	}}
	c := &clock{time.UnixMilli(0)}
	r := newRelay(q, c, outbox.Options{Batch: 2, Workers: 1}, outbox.Named{Name: "rec", Handle: rec.handle})
	drain(t, r)
	want(t, "b blocked alone", rec.took, []string{"a/t.1", "a/t.3", "c/t.5"})
	refuse, rec.took = "", nil
	c.at = c.at.Add(time.Second)
	drain(t, r)
	want(t, "then b in order", rec.took, []string{"b/t.2", "b/t.4"})
	stats, err := r.Stats(t.Context())
	if err != nil || stats != (outbox.Stats{Delivered: 5, Failed: 1}) {
		t.Errorf("stats %+v, %v", stats, err)
	}
}

func relayTopics(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2))
	all, some := &recorder{}, &recorder{}
	r := newRelay(q, &clock{}, outbox.Options{},
		outbox.Named{Name: "all", Handle: all.handle},
		outbox.Named{Name: "some", Topics: []string{"t.2"}, Handle: some.handle})
	drain(t, r)
	want(t, "all", all.took, []string{"a/t.1", "a/t.2"})
	want(t, "some", some.took, []string{"a/t.2"})
}

func relayPanic(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("b", 2))
	rec := &recorder{fails: func(m outbox.Message) error {
		if m.Key == "a" {
			panic("handler bug")
		}
		return nil
	}}
	drain(t, newRelay(q, &clock{}, outbox.Options{MaxAttempts: 1}, outbox.Named{Name: "buggy", Handle: rec.handle}))
	want(t, "others", rec.took, []string{"b/t.2"})
	dead, err := q.Dead(t.Context(), 0, 10)
	must(t, err)
	if len(dead) != 1 || !strings.Contains(dead[0].Reason, "buggy") || !strings.Contains(dead[0].Reason, "handler bug") {
		t.Errorf("dead letters %+v", dead)
	}
}

func relayBackoff(t *testing.T, q Queue) {
	q.Put(t, message("a", 1))
	rec := &recorder{fails: func(outbox.Message) error { return errors.New(strings.Repeat("long ", 1000)) }}
	c := &clock{time.UnixMilli(0)}
	r := newRelay(q, c, outbox.Options{MaxAttempts: 6, BackoffMin: time.Second, BackoffMax: 5 * time.Second},
		outbox.Named{Name: "rec", Handle: rec.handle})
	for i, wait := range []time.Duration{1, 2, 4, 5, 5} {
		drain(t, r)
		at := c.at.Add(wait * time.Second)
		if n := len(pending(t, q, at.UnixMilli()-1, 1)); n != 0 {
			t.Errorf("failure %d: due before %ds", i+1, wait)
		}
		if got := pending(t, q, at.UnixMilli(), 1); len(got) != 1 || got[0].Attempts != i+1 || len(got[0].Reason) > 500 {
			t.Fatalf("failure %d: after %ds %+v", i+1, wait, got)
		}
		c.at = at
	}
	drain(t, r)
	dead, err := q.Dead(t.Context(), 0, 10)
	if err != nil || len(dead) != 1 || dead[0].Attempts != 6 {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
	if s, err := r.Stats(t.Context()); err != nil || s.Failed != 6 || s.Buried != 1 || s.Unfinished != 1 || s.Oldest != 1 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// What a handler needs is away for two hours: its messages are tried all the
// time, soon at first, and never given up, and are delivered within half a minute of its
// return.
func relayAway(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2))
	away := true
	rec := &recorder{fails: func(outbox.Message) error {
		if away {
			return fmt.Errorf("%w: no route", outbox.ErrAway)
		}
		return nil
	}}
	c := &clock{time.UnixMilli(0)}
	worst := func() float64 { return 0.999 }
	r := outbox.New(q, []outbox.Named{{Name: "rec", Handle: rec.handle}}, c.now, worst, slog.New(slog.DiscardHandler),
		outbox.Options{MaxAttempts: 2, Buried: func(m outbox.Message, reason string) { t.Errorf("gave up %v: %s", m, reason) }})
	drain(t, r)
	if got := pending(t, q, c.at.UnixMilli()+125, 1); len(got) != 1 {
		t.Error("what is away for a moment is not asked again soon")
	}
	for range 240 {
		drain(t, r)
		c.at = c.at.Add(30 * time.Second)
		if got := pending(t, q, c.at.UnixMilli(), 1); len(got) != 1 {
			t.Fatalf("at %s nothing is due within half a minute", c.at)
		}
	}
	drain(t, r)
	away = false
	c.at = c.at.Add(30 * time.Second)
	drain(t, r)
	want(t, "back again", rec.took, []string{"a/t.1", "a/t.2"})
}

func relayBuried(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("b", 2))
	rec := &recorder{fails: func(m outbox.Message) error {
		if m.Key == "a" {
			return errors.New("broken")
		}
		return nil
	}}
	var told []string
	c := &clock{time.UnixMilli(0)}
	r := newRelay(q, c, outbox.Options{Workers: 1, MaxAttempts: 2, Buried: func(m outbox.Message, reason string) {
		told = append(told, fmt.Sprintf("%s/%s after %d: %s", m.Key, m.Topic, m.Attempts, reason))
	}}, outbox.Named{Name: "rec", Handle: rec.handle})
	for range 5 {
		drain(t, r)
		c.at = c.at.Add(time.Minute)
	}
	want(t, "told", told, []string{"a/t.1 after 2: rec: broken"})
}

func relayRedrive(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2))
	broken := true
	rec := &recorder{fails: func(outbox.Message) error {
		if broken {
			return errors.New("broken")
		}
		return nil
	}}
	r := newRelay(q, &clock{}, outbox.Options{MaxAttempts: 1}, outbox.Named{Name: "rec", Handle: rec.handle})
	drain(t, r)
	dead, err := q.Dead(t.Context(), 0, 10)
	must(t, err)
	want(t, "only the first is dead", topics(dead), []string{"a/t.1"})
	broken = false
	drain(t, r)
	want(t, "blocked", rec.took, nil)
	must(t, q.Redrive(t.Context(), dead[0].ID))
	drain(t, r)
	want(t, "all, in order", rec.took, []string{"a/t.1", "a/t.2"})
}

// Two keys whose handlers wait for each other: only side by side do they end.
func relaySideBySide(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("b", 2))
	var both sync.WaitGroup
	both.Add(2)
	meet := func(ctx context.Context, m outbox.Message) error {
		both.Done()
		met := make(chan struct{})
		go func() { both.Wait(); close(met) }()
		select {
		case <-met:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r := newRelay(q, &clock{}, outbox.Options{Workers: 2}, outbox.Named{Name: "meet", Handle: meet})
	drain(t, r)
	if s, err := r.Stats(t.Context()); err != nil || s.Delivered != 2 || s.Failed != 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// A stop in the middle keeps what was done, and counts no failure.
func relayStopping(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2), message("a", 3))
	ctx, stop := context.WithCancel(t.Context())
	r := newRelay(q, &clock{}, outbox.Options{}, outbox.Named{Name: "stopping", Handle: func(ctx context.Context, m outbox.Message) error {
		if m.Topic == "t.2" {
			stop()
			return ctx.Err()
		}
		return nil
	}})
	if _, err := r.Step(ctx); err != nil {
		t.Error(err)
	}
	left := pending(t, q, 0, 10)
	want(t, "left", topics(left), []string{"a/t.2", "a/t.3"})
	if left[0].Attempts != 0 {
		t.Errorf("stopping counted as %d attempts", left[0].Attempts)
	}
}

// forgetful loses the record of deliveries, as a crash right after them does.
type forgetful struct{ outbox.Queue }

func (forgetful) Done(context.Context, []int64) error { return fmt.Errorf("power cut") }

func relayFedAgain(t *testing.T, q Queue) {
	q.Put(t, message("a", 1))
	rec := &recorder{}
	h := outbox.Named{Name: "rec", Handle: rec.handle}
	if _, err := newRelay(forgetful{q}, &clock{}, outbox.Options{}, h).Step(t.Context()); err == nil {
		t.Error("a lost record is no error")
	}
	drain(t, newRelay(q, &clock{}, outbox.Options{}, h))
	want(t, "delivered", rec.took, []string{"a/t.1", "a/t.1"})
}
