package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	// ProvedSweep is that of an activity whose final proof is written, and
	// ProvedKept for how long it is looked after still: a payment is asked about
	// for 7 days, and a refund may be made later.
	ProvedSweep = time.Hour
	ProvedKept  = 30 * 24 * time.Hour
	// share bounds the cost: after an audit that took t there is none for
	// (share-1) × t, so that all of them together take 1/share of a core.
	share = 10
	// maxKnown bounds the violations of an activity that an alarm was raised for.
	maxKnown = 10 * MaxViolations
)

// Subject is an activity to audit.
type Subject struct {
	Activity stock.ActivityID
	Closed   bool // for good
	Proved   bool // its final proof is kept
}

// Watching is what a Watch works with; all fields are needed.
type Watching struct {
	Auditor  *Auditor
	Subjects func(context.Context) ([]Subject, error) // whom to audit
	Ledger   counter
	Archive  archive
	Alarm    func(activity stock.ActivityID, violation string) // told of each new violation
	Proved   func(activity stock.ActivityID)                   // told, at least once, that a final proof is kept
	Now      func() time.Time
}

// Watch audits the activities in turn, keeps the newest report of each and the
// final ones for good, and raises an alarm once for each new violation. Step
// belongs to one goroutine; Reports is safe for concurrent use.
type Watch struct {
	o       Watching
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

// NewWatch starts nothing.
func NewWatch(o Watching) *Watch { return &Watch{o: o, files: map[stock.ActivityID]*file{}} }

// Step audits the activity that has been due for the longest, if one is. An
// audit that could not be made is an error, and is due again after Interval.
func (w *Watch) Step(ctx context.Context) (worked bool, err error) {
	began := w.o.Now()
	if began.Before(w.resting) {
		return false, nil
	}
	subjects, err := w.o.Subjects(ctx)
	if err != nil {
		return false, fmt.Errorf("proof: activities: %w", err)
	}
	w.forgetAllBut(subjects)
	next, f := w.mostDue(ctx, subjects, began)
	if f == nil {
		return false, nil
	}
	report, err := w.o.Auditor.Check(ctx, next.Activity)
	if errors.Is(err, stock.ErrNoSuchActivity) { // nothing was ever allocated to it
		if _, missing := w.o.Ledger.Counts(ctx, next.Activity); !next.Closed || !errors.Is(missing, stock.ErrNoSuchActivity) {
			f.tried = w.o.Now()
			return true, nil
		}
		report, err = nothing(next.Activity, w.o.Auditor.log, w.o.Now()), nil // and nothing will be
	}
	if err == nil && (report.Final || next.Proved) {
		report, err = shelve(ctx, w.o.Archive, w.o.Proved, report)
	}
	f.tried = w.o.Now()
	w.resting = f.tried.Add((share - 1) * f.tried.Sub(began))
	if err != nil {
		return false, fmt.Errorf("activity %s: %w", next.Activity, err)
	}
	w.mu.Lock()
	f.report = &report
	w.mu.Unlock()
	f.tell(report, w.o.Alarm)
	return true, nil
}

// mostDue picks the activity to audit now; nil, if none is due.
func (w *Watch) mostDue(ctx context.Context, subjects []Subject, now time.Time) (next Subject, picked *file) {
	var since time.Time
	for _, s := range subjects {
		w.mu.Lock()
		f := w.files[s.Activity]
		if f == nil {
			f = &file{known: map[string]bool{}}
			w.files[s.Activity] = f
		}
		w.mu.Unlock()
		due := f.tried // at once, when never tried
		if !f.tried.IsZero() {
			due = f.tried.Add(w.rest(ctx, s.Activity, f))
		}
		if !due.After(now) && (picked == nil || due.Before(since)) {
			next, picked, since = s, f, due
		}
	}
	return next, picked
}

// rest is how long an activity is left alone after an audit.
func (w *Watch) rest(ctx context.Context, activity stock.ActivityID, f *file) time.Duration {
	switch counts, err := w.o.Ledger.Counts(ctx, activity); {
	case errors.Is(err, stock.ErrNoSuchActivity) && f.report == nil:
		return Sweep
	case errors.Is(err, stock.ErrNoSuchActivity) && f.report.Proved != nil:
		return ProvedSweep
	case err != nil, f.report == nil, !f.report.OK, counts.Position.Position > f.report.Position.Position:
		return Interval
	case f.report.Proved != nil:
		return ProvedSweep
	}
	return Sweep
}

// tell raises an alarm for each violation that is new.
func (f *file) tell(r Report, alarm func(stock.ActivityID, string)) {
	if r.OK {
		clear(f.known)
		return
	}
	for _, v := range r.Violations {
		if !f.known[v] && len(f.known) < maxKnown {
			f.known[v] = true
			alarm(r.Activity, v)
		}
	}
}

func (w *Watch) forgetAllBut(subjects []Subject) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.files) <= len(subjects) {
		return
	}
	kept := make(map[stock.ActivityID]bool, len(subjects))
	for _, s := range subjects {
		kept[s.Activity] = true
	}
	maps.DeleteFunc(w.files, func(a stock.ActivityID, _ *file) bool { return !kept[a] })
}

// Reports are the newest of all activities looked after, by id. They must not be changed.
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
