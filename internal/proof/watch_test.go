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
	"sluice/internal/stock/stocktest"
)

// watched is an auditor as a task beside books, with a clock of its own.
type watched struct {
	*books
	watch  *proof.Watch
	clock  time.Time
	took   time.Duration // of an audit
	kept   map[stock.ActivityID]proof.Report
	proved []stock.ActivityID
	away   bool // the ledger never heard of it
	subs   []proof.Subject
	alarms []string
	broken error
}

func newWatched(t *testing.T, activities ...stock.ActivityID) *watched {
	t.Helper()
	w := &watched{books: newBooks(t), clock: time.Unix(1_800_000_000, 0), kept: map[stock.ActivityID]proof.Report{}}
	for _, a := range activities {
		w.subs = append(w.subs, proof.Subject{Activity: a})
	}
	w.restart()
	return w
}

// restart builds the task anew.
func (w *watched) restart() {
	now := func() time.Time { return w.clock }
	w.watch = proof.NewWatch(proof.Watching{
		Auditor: proof.New(w, w, "log", now), Ledger: w, Archive: w, Now: now,
		Subjects: func(context.Context) ([]proof.Subject, error) { return w.subs, nil },
		Alarm:    func(_ stock.ActivityID, v string) { w.alarms = append(w.alarms, v) },
		Proved:   func(a stock.ActivityID) { w.proved = append(w.proved, a) },
	})
}

func (w *watched) Proof(_ context.Context, activity stock.ActivityID) (proof.Report, bool, error) {
	r, ok := w.kept[activity]
	return r, ok, nil
}

func (w *watched) SaveProof(_ context.Context, r proof.Report) error {
	if w.broken != nil {
		return w.broken
	}
	w.kept[r.Activity] = r
	return nil
}

func (w *watched) Dead(ctx context.Context, after int64, limit int) (page []outbox.Message, err error) {
	w.clock = w.clock.Add(w.took)
	if w.broken != nil {
		return nil, w.broken
	}
	return w.books.Dead(ctx, after, limit)
}

func (w *watched) Counts(_ context.Context, activity stock.ActivityID) (stock.Counts, error) {
	if activity != "a" || w.away {
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

// end closes the activity and lets everything of it come to rest.
func (w *watched) end() {
	w.t.Helper()
	for i := 2; i < users; i++ {
		w.orders[i].State = order.Cancelled
		w.settle(i, stock.Expired)
	}
	if _, err := w.book.Adjust(stock.Adjustment{ID: "close", Activity: "a", Phase: stock.Closed}); err != nil {
		w.t.Fatal(err)
	}
	w.subs[0].Closed = true
}

// The final proof is kept when an activity is over, and not before.
func TestFinalProof(t *testing.T) {
	f := func(what string, want bool, change func(w *watched)) {
		t.Helper()
		w := newWatched(t, "a")
		change(w)
		if !w.step(0) {
			t.Fatal("not audited")
		}
		is, kept := w.kept["a"]
		if r := w.watch.Reports()[0]; r.Final != want || kept != want || (len(w.proved) > 0) != want {
			t.Errorf("%s: final %v, kept %v, told %v: %v", what, r.Final, kept, w.proved, r.Violations)
		} else if want && (r.Proved == nil || r.Proved.Position != is.Position || !r.Proved.At.Equal(w.clock)) {
			t.Errorf("%s: %+v", what, r.Proved)
		}
	}
	refund := func(s order.RefundState) func(w *watched) {
		return func(w *watched) {
			w.end()
			o := &w.orders[1]
			o.Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: o.Terms.Money(), Late: true}}
			o.Money.Refunds = []order.Refund{{ID: "r", Capture: "l", Amount: o.Terms.Money(), State: s}}
		}
	}
	f("selling", false, func(*watched) {})
	f("over", true, (*watched).end)
	f("not closed", false, func(w *watched) {
		b := w.book
		w.end()
		w.book, _, _ = stock.NewBook(b.Allocation())
		w.orders = nil
	})
	f("an order waits for money", false, func(w *watched) {
		w.reserve("patient", "k")
		w.end()
	})
	f("a refund was requested", false, refund(order.RefundRequested))
	f("a refund is stuck", false, refund(order.RefundStuck))
	f("a refund is done", true, refund(order.RefundDone))
	f("a refund of a paid order is under way", false, func(w *watched) {
		w.end()
		w.orders[0].Reason = "operator"
		w.orders[0].Money.Captures[0].Pays = ""
		w.orders[0].Money.Refunds = []order.Refund{{ID: "r", Capture: "c0", Amount: w.orders[0].Terms.Money(), State: order.RefundRequested}}
	})
	f("late money is being decided about", false, func(w *watched) {
		w.end()
		w.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: w.orders[1].Terms.Money(), Late: true}}
	})
	f("an event is undelivered", false, func(w *watched) {
		w.end()
		w.undelivered = []outbox.Message{{Key: string(w.orders[2].ID), Topic: order.TopicFulfilled}}
	})
	f("a dead letter", false, func(w *watched) {
		w.end()
		w.undelivered = []outbox.Message{{ID: 3, Key: string(w.orders[2].ID), Topic: order.TopicCancelled, Reason: "dead"}}
	})
	f("something stands behind the position", false, func(w *watched) { w.end(); w.head = 10 })
	f("a violation", false, func(w *watched) { w.end(); w.orders[0].Money.Captures = nil })
	f("closed before it had units", true, func(w *watched) { w.end(); w.book, w.orders, w.away = nil, nil, true })
	w := newWatched(t, "a") // its units are allocated, and that has not landed
	w.end()
	w.book, w.orders = nil, nil
	if w.step(0); len(w.kept) != 0 {
		t.Errorf("not landed: %+v", w.kept)
	}
}

// A final proof stands over restarts, is looked after every hour, gives way to
// another when money moves again, and stays when a later audit finds a fault.
func TestFinalProofStands(t *testing.T) {
	w := newWatched(t, "a")
	w.end()
	w.step(0)
	first := w.kept["a"]
	f := func(d time.Duration, audited bool, at time.Time) {
		t.Helper()
		if got := w.step(d); got != audited || !w.kept["a"].CheckedAt.Equal(at) {
			t.Errorf("after another %v: audited %v, the proof is of %v, want %v and %v", d, got, w.kept["a"].CheckedAt, audited, at)
		}
		if r := w.watch.Reports(); len(r) == 1 && (r[0].Proved == nil || !r[0].Proved.At.Equal(at)) {
			t.Errorf("after another %v the report says %+v", d, r[0].Proved)
		}
	}
	f(proof.ProvedSweep-1, false, first.CheckedAt)
	f(1, true, first.CheckedAt)
	w.restart()
	w.subs[0].Proved = true
	f(proof.Sweep, true, first.CheckedAt)
	if len(w.proved) != 3 {
		t.Errorf("told %v", w.proved)
	}
	// The order that was paid is refunded.
	o := &w.orders[0]
	o.State, o.Money.Captures[0].Pays = order.Refunded, ""
	o.Money.Refunds = []order.Refund{{ID: "r", Capture: "c0", Amount: o.Terms.Money(), State: order.RefundRequested}}
	f(proof.ProvedSweep, true, first.CheckedAt)
	o.Money.Refunds[0].State = order.RefundDone
	f(proof.ProvedSweep, true, w.clock.Add(proof.ProvedSweep).Truncate(time.Millisecond))
	second := w.kept["a"].CheckedAt
	o.Money.Refunds = append(o.Money.Refunds, o.Money.Refunds[0])
	f(proof.ProvedSweep, true, second)
	if r := w.watch.Reports()[0]; r.OK || r.Final || len(w.alarms) != 1 {
		t.Errorf("%+v %v", r, w.alarms)
	}
}

// An acceptance past a limit is a violation of the report.
func TestLimitIsProved(t *testing.T) {
	s := newBooks(t)
	a := stocktest.Allocation("a", 10, 1)
	for i := range 9 {
		e := stock.Entry{Activity: "a", Sequence: uint64(i) + 1, Kind: stock.EntryOpened, Allocation: &a}
		if i > 0 {
			e.Kind, e.Reservation = stock.EntryReserved, &stock.Reservation{
				ID: stock.ID{Activity: "a", Epoch: 1, Number: uint64(i)}, User: "u0", Order: "o", Key: "k", Lines: []stock.Line{{SKU: "s", Quantity: 1}}, State: stock.Held,
			}
		}
		s.log = append(s.log, e)
	}
	if r := s.check(); r.OK || !strings.Contains(strings.Join(r.Violations, "\n"), "left user u0 with 2 units of s, at its acceptance a user could have 1") {
		t.Errorf("%q", r.Violations)
	}
}
