package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
)

// tracked is a world whose outbox keeps what it has sent.
type tracked struct {
	*world
	out   sqlstore.Sending
	relay *outbox.Relay
}

func newTracked(t *testing.T, address string) *tracked {
	t.Helper()
	w := newWorld(t, address)
	out := sqlstore.Sending{Sharded: sqlstore.Single(w.store)}
	return &tracked{w, out, outbox.New(out, []outbox.Named{{Name: "bus", Handle: w.bus.Send}}, time.Now, func() float64 { return 0 }, quiet, outbox.Options{})}
}

// tracker of group g.
func (w *tracked) tracker() *Tracker {
	return NewTracker(func() *Bus { return w.bus }, "g", w.out, w.store.Inbox("g"), time.Now, quiet)
}

// send puts n messages of as many keys into the outbox, and on the bus.
func (w *tracked) send(n int) {
	w.t.Helper()
	for i := range n {
		w.sql(fmt.Sprintf("INSERT INTO outbox (msg_key, topic, at, body) VALUES ('key-%d', 't.x', 7, '{}')", i))
	}
	w.sent()
}

// sent relays until nothing waits in the outbox.
func (w *tracked) sent() {
	w.t.Helper()
	until(w.t, "sent", func() bool { n, _, _ := w.out.Backlog(w.t.Context()); return n == 0 }, w.relay.Step)
}

func (w *tracked) wantTravelling(want int) {
	w.t.Helper()
	n, oldest, err := w.out.Travelling(w.t.Context())
	must(w.t, err)
	if n != want || (oldest == 7) != (want > 0) {
		w.t.Errorf("%d messages travel, the oldest of %d; want %d", n, oldest, want)
	}
}

// steps a tracker until it has judged all that it has seen.
func (w *tracked) steps(tr *Tracker) {
	w.t.Helper()
	for i := 0; i < 3 || tr.ends != nil && i < 6; i++ {
		_, err := tr.Step(w.t.Context())
		must(w.t, err)
	}
}

// What was sent is kept until it is consumed: not when it is read, and neither
// while it waits nor when it is dead.
func TestTracker(t *testing.T) {
	_, address := fake(t)
	w := newTracked(t, address+"?partitions=3")
	tr := w.tracker()
	broken := true
	in := w.store.Inbox("g")
	relay := relayOf(in, time.Now, outbox.Options{MaxAttempts: 1}, outbox.Named{Name: "count", Handle: func(ctx context.Context, m outbox.Message) error {
		if m.Key == "key-4" && broken {
			return errors.New("broken")
		}
		return w.effect("g")(ctx, m)
	}})
	r := w.readerOf("g", in, relay, ReaderOptions{})
	w.send(10)
	w.steps(tr)
	w.wantTravelling(10)
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	w.steps(tr)
	w.wantTravelling(1)
	broken = false
	must(t, w.store.Inbox("g").Redrive(t.Context(), 5))
	until(t, "redriven", func() bool { n, _, _ := w.verdict(); return n == 10 }, r.Relay.Step)
	w.steps(tr)
	w.wantTravelling(0)
	w.wantApplied(10)
	if tr.Resent() != 0 {
		t.Errorf("%d messages sent again", tr.Resent())
	}
}

// What a topic has lost, in part or with itself, is sent again; what it has not is
// not.
func TestTrackerOfLost(t *testing.T) {
	_, address := fake(t)
	w := newTracked(t, address+"?partitions=1&topic=lossy")
	tr := w.tracker()
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.effect("g")})
	w.send(5)
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	r.Close()
	w.steps(tr)
	w.send(5)
	w.steps(tr)
	if n := w.wait(); n != 0 || tr.Resent() != 0 {
		t.Fatalf("%d of messages that were only not read yet are sent again", tr.Resent())
	}
	// The group skips what nobody has read, as it does when that was forgotten.
	must(t, w.bus.Rewind(t.Context(), "g", time.Now().Add(time.Hour)))
	w.steps(tr)
	if n := w.wait(); n != 5 || tr.Resent() != 5 {
		t.Fatalf("%d messages wait to be sent again, %d counted; want 5", n, tr.Resent())
	}
	w.sent()
	r = w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.effect("g")})
	until(t, "read again", func() bool { n, _, _ := w.verdict(); return n == 10 }, r.Step)
	r.Close()
	w.steps(tr)
	w.wantTravelling(0)

	// The topic is made anew.
	w.send(5)
	w.steps(tr)
	_, err := w.bus.admin.DeleteTopics(t.Context(), "lossy")
	must(t, err)
	w.bus, err = Open(t.Context(), address+"?partitions=1&topic=lossy", Options{}) // as restarted processes do
	must(t, err)
	t.Cleanup(w.bus.Close)
	w.relay = outbox.New(w.out, []outbox.Named{{Name: "bus", Handle: w.bus.Send}}, time.Now, func() float64 { return 0 }, quiet, outbox.Options{})
	until(t, "lost", func() bool { return w.wait() == 5 }, tr.Step)
	w.sent()
	r = w.reader("h", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.effect("g")})
	until(t, "read anew", func() bool { n, _, _ := w.verdict(); return n == 15 }, r.Step)
	w.wantApplied(15)
}

// wait is how many messages wait in the outbox.
func (w *tracked) wait() int {
	w.t.Helper()
	n, _, err := w.out.Backlog(w.t.Context())
	must(w.t, err)
	return n
}

// More than a page of which some are dead, and before them more than a page that
// are stuck: what is behind them is let go too, brokers or not.
func TestTrackerPages(t *testing.T) {
	c, address := fake(t)
	w := newTracked(t, address+"?partitions=1")
	in := w.store.Inbox("g")
	var consumed []int64
	var dead []outbox.Waiting
	for id := int64(1201); id <= 3500; id++ {
		if id <= 2400 {
			dead = append(dead, outbox.Waiting{Message: outbox.Message{ID: id, Key: "k", Topic: "t"}, Next: outbox.Never})
		} else {
			consumed = append(consumed, id)
		}
	}
	w.send(1) // which nobody reads
	w.sql("INSERT INTO outbox_sent (id, msg_key, topic, at) WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i+1 FROM n WHERE i < 3500) SELECT i, 'k', 't', 7 FROM n")
	must(t, in.Keep(t.Context(), consumed[:500], dead))
	tr := w.tracker()
	walk := func() (failed error) {
		for range 10 {
			if _, err := tr.Step(t.Context()); err != nil {
				failed = err
			}
		}
		return failed
	}
	must(t, walk())
	w.wantTravelling(3000)
	c.Close() // the brokers are gone, after they were there
	must(t, in.Keep(t.Context(), consumed[500:900], nil))
	if walk() == nil {
		t.Error("nothing is said of brokers that do not answer")
	}
	w.wantTravelling(2600)
	tr.bus = func() *Bus { return nil } // they were never there
	must(t, in.Keep(t.Context(), consumed[900:], nil))
	must(t, walk())
	w.wantTravelling(2400)
}

// What one tracker suspected before another took its place, and gave it back, is
// not lost for it: the other may have sent it again since.
func TestTrackerOfOldSuspects(t *testing.T) {
	_, address := fake(t)
	w := newTracked(t, address+"?partitions=1")
	now := time.Now()
	first, second := w.tracker(), w.tracker()
	first.now = func() time.Time { return now }
	step := func(tr *Tracker) {
		t.Helper()
		_, err := tr.Step(t.Context())
		must(t, err)
	}
	w.send(5)
	step(first) // suspects them
	step(first)
	step(second)
	must(t, w.bus.Rewind(t.Context(), "g", now.Add(time.Hour))) // nobody will read them
	step(second)
	if second.Resent() != 5 {
		t.Fatalf("%d sent again, want 5", second.Resent())
	}
	w.sent()
	now = now.Add(suspectFor + time.Second)
	step(first)
	step(first) // the group is not beyond the end of now
	if first.Resent() != 0 || w.wait() != 0 {
		t.Errorf("%d sent again for the second time", first.Resent())
	}
	// Both suspect the same at once: each counts what it has moved.
	step(second)
	must(t, w.bus.Rewind(t.Context(), "g", now.Add(time.Hour)))
	step(first)
	step(second)
	if first.Resent() != 5 || second.Resent() != 5 {
		t.Errorf("%d and %d sent again, want 5 by the first and no more by the second", first.Resent(), second.Resent())
	}
}
