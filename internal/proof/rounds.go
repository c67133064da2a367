package proof

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// Step puts the report of one activity together that is due, if one is, raises
// the alarms for what is new in it, and files it when it is final.
func (f *Fleet) Step(ctx context.Context) (worked bool, err error) {
	subjects, err := f.o.Subjects(ctx)
	if err != nil {
		return false, fmt.Errorf("proof: activities: %w", err)
	}
	now := f.o.Now()
	var next Subject
	var picked *file
	known := map[stock.ActivityID]bool{}
	for _, s := range subjects {
		known[s.Activity] = true
		one := f.files[s.Activity]
		if one == nil {
			one = &file{known: map[string]bool{}}
			f.files[s.Activity] = one
		}
		every := Interval
		if s.Proved {
			every = ProvedSweep
		}
		if !one.tried.IsZero() && now.Before(one.tried.Add(every)) {
			continue
		}
		if picked == nil || one.tried.Before(picked.tried) {
			next, picked = s, one
		}
	}
	for activity := range f.files {
		if !known[activity] {
			delete(f.files, activity)
			delete(f.empty, activity)
		}
	}
	if picked == nil {
		return false, nil
	}
	picked.tried = now
	r, err := f.round(ctx, next)
	if isNothing(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("activity %s: %w", next.Activity, err)
	}
	picked.tell(r, f.o.Alarm)
	return true, nil
}

// isNothing says that there is nothing to report on.
func isNothing(err error) bool { return errors.Is(err, stock.ErrNoSuchActivity) }

// round makes the report on one activity.
func (f *Fleet) round(ctx context.Context, s Subject) (r Report, err error) {
	g, err := f.ground(ctx, s.Activity)
	if err != nil {
		return r, err
	}
	switch opened := len(g.opened()) > 0; {
	case s.Proved && (!opened || g.ending()):
		kept, _, err := f.o.Archive.Proof(ctx, s.Activity)
		if err != nil {
			return r, fmt.Errorf("proof: final proof of %s: %w", s.Activity, err)
		}
		if r, _, err = f.settled(ctx, kept); err != nil {
			return r, err
		}
	case !opened && !s.Closed:
		return r, stock.ErrNoSuchActivity
	case !opened:
		since, seen := f.empty[s.Activity]
		if !seen {
			since = f.o.Now()
			f.empty[s.Activity] = since
		}
		if f.o.Now().Sub(since) < emptyFor {
			return r, stock.ErrNoSuchActivity
		}
		r = nothing(s.Activity, stock.LogID(s.Activity), f.o.Now())
	default:
		r = f.merged(s.Activity, g)
	}
	return shelve(ctx, f.o.Archive, func(stock.ActivityID) {}, r)
}

// nothing is the final report on an activity that was closed before it had
// units: the ledger never heard of it.
func nothing(activity stock.ActivityID, log stock.LogID, now time.Time) Report {
	r := newComparison(activity).report
	r.Position.Log, r.Ledger = log, []stock.Count{}
	r.OK, r.Final, r.CheckedAt = true, true, now.UTC().Truncate(time.Millisecond)
	return r
}
