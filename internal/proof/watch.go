package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/internal/stock"
)

// counter tells where an activity stands in the log.
type counter interface {
	Counts(ctx context.Context, activity stock.ActivityID) (stock.Counts, error)
}

// Bounds of the auditor as a task.
const (
	// Interval is the least time between two audits of one activity.
	Interval = 5 * time.Second
	// Sweep is how often an activity is audited in which nothing has moved as
	// far as its ledger tells: rows can change without leaving a trace there.
	Sweep = time.Minute
	// share bounds the cost: after an audit that took t there is none for
	// (share-1) × t, so that all of them together take 1/share of a core.
	share = 10
	// maxKnown bounds the violations of an activity that an alarm was raised for.
	maxKnown = 10 * MaxViolations
)

// Watch audits the activities in turn, keeps the newest report of each, and
// raises an alarm once for each new violation. Step belongs to one goroutine;
// Reports is safe for concurrent use.
type Watch struct {
	auditor    *Auditor
	activities func(context.Context) ([]stock.ActivityID, error)
	ledger     counter
	alarm      func(stock.ActivityID, string)
	now        func() time.Time

	resting time.Time // no audit before it

	mu    sync.Mutex
	files map[stock.ActivityID]*file
}

// file is what is kept of one activity.
type file struct {
	report *Report // nil before the first
	tried  time.Time
	known  map[string]bool // violations told of, since the books last agreed
}

// NewWatch takes activities, which lists those to audit, and alarm, which is
// told of each new violation. It starts nothing.
func NewWatch(a *Auditor, activities func(context.Context) ([]stock.ActivityID, error), ledger counter, alarm func(activity stock.ActivityID, violation string), now func() time.Time) *Watch {
	return &Watch{auditor: a, activities: activities, ledger: ledger, alarm: alarm, now: now, files: map[stock.ActivityID]*file{}}
}

// Step audits the activity that has been due for the longest, if one is. An
// audit that could not be made is an error, and is due again after Interval.
func (w *Watch) Step(ctx context.Context) (worked bool, err error) {
	began := w.now()
	if began.Before(w.resting) {
		return false, nil
	}
	activities, err := w.activities(ctx)
	if err != nil {
		return false, fmt.Errorf("proof: activities: %w", err)
	}
	w.forgetAllBut(activities)
	next, f := w.mostDue(ctx, activities, began)
	if f == nil {
		return false, nil
	}
	report, err := w.auditor.Check(ctx, next)
	f.tried = w.now()
	w.resting = f.tried.Add((share - 1) * f.tried.Sub(began))
	if errors.Is(err, stock.ErrNoSuchActivity) {
		return true, nil // nothing was ever allocated to it
	}
	if err != nil {
		return false, fmt.Errorf("activity %s: %w", next, err)
	}
	w.mu.Lock()
	f.report = &report
	w.mu.Unlock()
	w.tell(f, report)
	return true, nil
}

// mostDue picks the activity to audit now, or nil.
func (w *Watch) mostDue(ctx context.Context, activities []stock.ActivityID, now time.Time) (next stock.ActivityID, picked *file) {
	var since time.Time
	for _, activity := range activities {
		w.mu.Lock()
		f := w.files[activity]
		if f == nil {
			f = &file{known: map[string]bool{}}
			w.files[activity] = f
		}
		w.mu.Unlock()
		due := f.tried // at once, when never tried
		if !f.tried.IsZero() {
			due = f.tried.Add(w.rest(ctx, activity, f))
		}
		if !due.After(now) && (picked == nil || due.Before(since)) {
			next, picked, since = activity, f, due
		}
	}
	return next, picked
}

// rest is how long an activity is left alone after an audit.
func (w *Watch) rest(ctx context.Context, activity stock.ActivityID, f *file) time.Duration {
	switch counts, err := w.ledger.Counts(ctx, activity); {
	case f.report == nil && errors.Is(err, stock.ErrNoSuchActivity):
		return Sweep
	case err != nil, f.report == nil, !f.report.OK, counts.Position.Position > f.report.Position.Position:
		return Interval
	}
	return Sweep
}

// tell raises the alarms.
func (w *Watch) tell(f *file, r Report) {
	if r.OK {
		clear(f.known)
		return
	}
	for _, v := range r.Violations {
		if !f.known[v] && len(f.known) < maxKnown {
			f.known[v] = true
			w.alarm(r.Activity, v)
		}
	}
}

func (w *Watch) forgetAllBut(activities []stock.ActivityID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.files) <= len(activities) {
		return
	}
	for a := range w.files {
		if !slices.Contains(activities, a) {
			delete(w.files, a)
		}
	}
}

// Reports are the newest of all activities, by id. They must not be changed.
func (w *Watch) Reports() []Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Report, 0, len(w.files))
	for _, f := range w.files {
		if f.report != nil {
			all = append(all, *f.report)
		}
	}
	slices.SortFunc(all, func(a, b Report) int { return cmp.Compare(a.Activity, b.Activity) })
	return all
}
