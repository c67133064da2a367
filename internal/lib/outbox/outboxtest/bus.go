package outboxtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/lib/outbox"
)

// Bus is the whole way from an empty outbox to handlers, whatever lies between.
type Bus struct {
	Put  func(t *testing.T, messages ...outbox.Message) // as Queue.Put
	Step func(ctx context.Context) (worked bool, err error)
	// Left is where what the handlers have refused waits.
	Left outbox.Queue
}

// Setup is what a bus is to be made of. The back-off is short.
type Setup struct {
	Now      func() time.Time
	Handlers []outbox.Named
	Options  outbox.Options
}

// RunBus checks that messages are delivered at least once, in the order of
// their keys, whatever fails. open is called once a test.
func RunBus(t *testing.T, open func(t *testing.T, s Setup) Bus) {
	for name, f := range map[string]func(*testing.T, func(*testing.T, Setup) Bus){
		"order":             busOrder,
		"fields":            busFields,
		"failing key":       busFailingKey,
		"away":              busAway,
		"dead and redriven": busRedrive,
		"panic":             busPanic,
		"side by side":      busSideBySide,
	} {
		t.Run(name, func(t *testing.T) { f(t, open) })
	}
}

// until steps till something is so, which takes as long as it takes to come by.
func (b Bus) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if _, err := b.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// movable is a clock that a test moves while others read it.
type movable struct {
	mu sync.Mutex
	at time.Time
}

func (c *movable) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *movable) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newMovable() *movable { return &movable{at: time.UnixMilli(1_790_000_000_000)} }

// taker takes messages unless told otherwise, and keeps first deliveries.
type taker struct {
	mu      sync.Mutex
	refuses func(m outbox.Message) error
	took    []outbox.Message
	ids     map[int64]bool
}

func (k *taker) handle(_ context.Context, m outbox.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuses != nil {
		if err := k.refuses(m); err != nil {
			return err
		}
	}
	if k.ids == nil {
		k.ids = map[int64]bool{}
	}
	if !k.ids[m.ID] {
		k.ids[m.ID] = true
		k.took = append(k.took, m)
	}
	return nil
}

func (k *taker) refuse(f func(m outbox.Message) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuses = f
}

func (k *taker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.took)
}

// of a key, its topics in the order of delivery.
func (k *taker) of(key string) (list []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.took {
		if m.Key == key {
			list = append(list, m.Topic)
		}
	}
	return list
}

func setup(c *movable, handlers ...outbox.Named) Setup {
	return Setup{Now: c.now, Handlers: handlers, Options: outbox.Options{MaxAttempts: 3, BackoffMin: time.Second}}
}

// taking is a bus to one taker.
func taking(t *testing.T, open func(*testing.T, Setup) Bus) (b Bus, k *taker, c *movable) {
	t.Helper()
	k, c = &taker{}, newMovable()
	return open(t, setup(c, outbox.Named{Name: "taker", Handle: k.handle})), k, c
}

func busOrder(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, _ := taking(t, open)
	wants := map[string][]string{}
	n := 0
	for range 20 {
		var batch []outbox.Message
		for key := range 10 {
			n++
			m := message(fmt.Sprint("key-", key), n)
			batch = append(batch, m)
			wants[m.Key] = append(wants[m.Key], m.Topic)
		}
		b.Put(t, batch...)
	}
	b.until(t, "all delivered", func() bool { return k.count() == n })
	for key, topics := range wants {
		want(t, key, k.of(key), topics)
	}
}

func busFields(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, _ := taking(t, open)
	body, err := json.Marshal(strings.Repeat("名✓", 5000))
	must(t, err)
	in := []outbox.Message{
		{Key: "k", Topic: "order.paid", Body: body, At: 1_790_000_000_123},
		{Key: strings.Repeat("l", 64), Topic: strings.Repeat("t", 255)},
	}
	b.Put(t, in...)
	b.until(t, "delivered", func() bool { return k.count() == len(in) })
	got := slices.SortedFunc(slices.Values(k.took), func(a, b outbox.Message) int { return int(a.ID - b.ID) })
	for i := range got {
		if got[i].ID <= 0 {
			t.Errorf("id %d", got[i].ID)
		}
		got[i].ID = 0
		if len(got[i].Body) == 0 {
			got[i].Body = nil
		}
	}
	if d := cmp.Diff(in, got); d != "" {
		t.Errorf("delivered (-want +got):\n%s", d)
	}
}

func busFailingKey(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, c := taking(t, open)
	k.refuse(func(m outbox.Message) error {
		if m.Key == "b" {
			return errors.New("not now")
		}
		return nil
	})
	b.Put(t, message("a", 1), message("b", 2), message("a", 3), message("b", 4), message("c", 5))
	b.until(t, "the others", func() bool { return k.count() == 3 && left(t, b.Left) > 0 })
	b.Put(t, message("b", 6), message("a", 7))
	b.until(t, "later ones of others", func() bool { return k.count() == 4 })
	k.refuse(nil)
	b.until(t, "the key that failed", func() bool { c.add(time.Second); return k.count() == 7 })
	want(t, "a", k.of("a"), []string{"t.1", "t.3", "t.7"})
	want(t, "b", k.of("b"), []string{"t.2", "t.4", "t.6"})
	b.until(t, "nothing left", func() bool { return left(t, b.Left) == 0 })
}

func left(t *testing.T, q outbox.Queue) int {
	t.Helper()
	n, _, err := q.Backlog(t.Context())
	must(t, err)
	return n
}

func dead(t *testing.T, q outbox.Queue) []outbox.Message {
	t.Helper()
	page, err := q.Dead(t.Context(), 0, 10)
	must(t, err)
	return page
}

func busAway(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, c := taking(t, open)
	asked := 0
	k.refuse(func(outbox.Message) error { asked++; return fmt.Errorf("%w: no route", outbox.ErrAway) })
	b.Put(t, message("a", 1), message("a", 2))
	b.until(t, "tried often", func() bool {
		c.add(30 * time.Second)
		k.mu.Lock()
		defer k.mu.Unlock()
		return asked > 20
	})
	if d := dead(t, b.Left); len(d) > 0 {
		t.Errorf("given up: %v", d)
	}
	k.refuse(nil)
	b.until(t, "back again", func() bool { c.add(30 * time.Second); return k.count() == 2 })
	want(t, "a", k.of("a"), []string{"t.1", "t.2"})
}

func busRedrive(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, c := taking(t, open)
	k.refuse(func(m outbox.Message) error {
		if m.Topic == "t.1" {
			return errors.New("broken")
		}
		return nil
	})
	b.Put(t, message("a", 1), message("a", 2), message("b", 3))
	b.until(t, "dead", func() bool { c.add(time.Minute); return len(dead(t, b.Left)) == 1 && k.count() == 1 })
	want(t, "b", k.of("b"), []string{"t.3"})
	letter := dead(t, b.Left)[0]
	if letter.Topic != "t.1" || letter.Attempts != 3 || letter.Reason != "taker: broken" {
		t.Errorf("dead letter %+v", letter)
	}
	b.Put(t, message("a", 4), message("b", 5))
	b.until(t, "b goes on", func() bool { c.add(time.Minute); return k.count() == 2 })
	k.refuse(nil)
	must(t, b.Left.Redrive(t.Context(), letter.ID))
	b.until(t, "redriven", func() bool { return k.count() == 5 })
	want(t, "a", k.of("a"), []string{"t.1", "t.2", "t.4"})
	if d := dead(t, b.Left); len(d) > 0 {
		t.Errorf("still dead: %v", d)
	}
}

func busPanic(t *testing.T, open func(*testing.T, Setup) Bus) {
	b, k, c := taking(t, open)
	k.refuse(func(m outbox.Message) error {
		if m.Key == "a" {
			panic("handler bug")
		}
		return nil
	})
	b.Put(t, message("a", 1), message("b", 2))
	b.until(t, "dead", func() bool { c.add(time.Minute); return len(dead(t, b.Left)) == 1 && k.count() == 1 })
	if reason := dead(t, b.Left)[0].Reason; !strings.Contains(reason, "handler bug") {
		t.Errorf("reason %q", reason)
	}
}

// Handlers of many keys wait for another to come: only side by side do they
// end, for time stands still and none is tried again.
func busSideBySide(t *testing.T, open func(*testing.T, Setup) Bus) {
	var mu sync.Mutex
	inside, met := 0, make(chan struct{})
	done := 0
	meet := func(ctx context.Context, _ outbox.Message) error {
		mu.Lock()
		if inside++; inside == 2 {
			close(met)
		}
		mu.Unlock()
		select {
		case <-met:
			mu.Lock()
			done++
			mu.Unlock()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s := setup(newMovable(), outbox.Named{Name: "meet", Handle: meet})
	s.Options.Workers = 2
	b := open(t, s)
	const keys = 40
	for n := range keys {
		b.Put(t, message(fmt.Sprint("key-", n), n))
	}
	b.until(t, "met", func() bool { mu.Lock(); defer mu.Unlock(); return done == keys })
}
