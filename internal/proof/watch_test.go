package proof_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// watched is an auditor as a task beside books, with a clock of its own.
type watched struct {
	*books
	watch  *proof.Watch
	clock  time.Time
	took   time.Duration // of an audit
	head   uint64        // of the activity in the log
	alarms []string
	broken error
}

func newWatched(t *testing.T, activities ...stock.ActivityID) *watched {
	t.Helper()
	w := &watched{books: newBooks(t), clock: time.Unix(1_800_000_000, 0), head: 9}
	now := func() time.Time { return w.clock }
	list := func(context.Context) ([]stock.ActivityID, error) { return activities, nil }
	w.watch = proof.NewWatch(proof.New(w, w, "log", now), list, w, func(_ stock.ActivityID, v string) { w.alarms = append(w.alarms, v) }, now)
	return w
}

func (w *watched) Dead(ctx context.Context, after int64, limit int) (page []outbox.Message, err error) {
	w.clock = w.clock.Add(w.took)
	if w.broken != nil {
		return nil, w.broken
	}
	return w.books.Dead(ctx, after, limit)
}

func (w *watched) Counts(_ context.Context, activity stock.ActivityID) (stock.Counts, error) {
	if activity != "a" {
		return stock.Counts{}, stock.ErrNoSuchActivity
	}
	return stock.Counts{Position: stock.Cursor{Log: "log", Epoch: 1, Position: w.head}}, nil
}

// step goes on by d and says whether something was audited then.
func (w *watched) step(d time.Duration) bool {
	w.t.Helper()
	w.clock = w.clock.Add(d)
	worked, err := w.watch.Step(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return worked
}

// An activity is audited when its ledger moved, at most every five seconds,
// and every minute when nothing seems to have moved.
func TestWatchPace(t *testing.T) {
	w := newWatched(t, "a")
	f := func(d time.Duration, want bool) {
		t.Helper()
		if got := w.step(d); got != want {
			t.Errorf("after another %v: audited %v, want %v", d, got, want)
		}
	}
	f(0, true)
	f(proof.Interval, false) // nothing moved
	w.head = 10              // past the position of the audit
	f(0, true)
	f(proof.Interval-1, false)
	f(1, true)
	w.head = 9
	f(proof.Sweep-1, false)
	f(1, true)
	if r := w.watch.Reports(); len(r) != 1 || !r[0].OK || r[0].Activity != "a" || !r[0].CheckedAt.Equal(w.clock) {
		t.Errorf("%+v", r)
	}
	// An audit that takes long is followed by a long rest.
	w.took, w.head = 3*time.Second, 10
	f(proof.Sweep, true)
	f(26*time.Second, false)
	f(time.Second, true)
}

// Each violation is told once, for as long as it stands.
func TestWatchAlarms(t *testing.T) {
	w := newWatched(t, "a")
	f := func(want ...string) {
		t.Helper()
		w.alarms = nil
		if !w.step(proof.Interval) {
			t.Fatal("not audited")
		}
		if len(w.alarms) != len(want) || !slices.EqualFunc(w.alarms, want, strings.Contains) {
			t.Errorf("alarms %q, want %q", w.alarms, want)
		}
	}
	f()
	w.head = 10
	w.orders[2].State = order.Cancelled
	f("reservation a.0.1.3 is held")
	f()
	w.orders[3].State = order.Cancelled
	f("reservation a.0.1.4 is held")
	if r := w.watch.Reports()[0]; r.OK || r.Found != 2 {
		t.Errorf("%+v", r)
	}
	w.orders[2].State, w.orders[3].State = order.Created, order.Created
	f()
	w.orders[2].State = order.Cancelled
	f("reservation a.0.1.3 is held")
}

// An audit that cannot be made is an error and no report, and is made later.
func TestWatchTrouble(t *testing.T) {
	w := newWatched(t, "a")
	w.broken = errors.New("the store does not answer")
	if _, err := w.watch.Step(t.Context()); !errors.Is(err, w.broken) {
		t.Errorf("%v", err)
	}
	if len(w.watch.Reports()) != 0 || len(w.alarms) != 0 {
		t.Errorf("%+v %v", w.watch.Reports(), w.alarms)
	}
	w.broken = nil
	if w.step(proof.Interval-1) || !w.step(1) || len(w.watch.Reports()) != 1 {
		t.Errorf("after the trouble: %+v", w.watch.Reports())
	}
}
