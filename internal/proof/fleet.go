package proof

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// grounds is the store's side of a Fleet.
type grounds interface {
	// Ground reads what the store has of an activity in buckets, at one moment.
	Ground(ctx context.Context, activity stock.ActivityID) (Ground, error)
	// Ask asks the workers that keep buckets, and answers the Ask that stands now.
	Ask(ctx context.Context, a Ask) (Ask, error)
	Asks(ctx context.Context) ([]Ask, error)
	Answered(ctx context.Context, a Ask) error
	Snapshot(ctx context.Context, activity stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error)
	Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error)
}

// FleetOptions is what a Fleet works with; all are needed where nothing else is said.
type FleetOptions struct {
	Store    grounds
	Archive  archive
	Subjects func(context.Context) ([]Subject, error)          // of Step and Reports
	Alarm    func(activity stock.ActivityID, violation string) // told of each new violation by Step
	Now      func() time.Time
	Wait     func(ctx context.Context, pause time.Duration) error // nil: by a timer
}

// Fleet is the proof of activities whose buckets are kept by several workers:
// it puts together what their Inspectors leave in the store, in any process that
// has the store. Step, which raises the alarms and files the final proofs, is
// for one process at a time; a second one does the same again, and no harm. Step
// belongs to one goroutine; everything else is safe for concurrent use.
type Fleet struct {
	o     FleetOptions
	files map[stock.ActivityID]*file
	empty map[stock.ActivityID]time.Time // closed and without units, since when that was seen
}

// Bounds of waiting for workers.
const (
	FreshWithin   = 5 * time.Second // Check waits for reports that began after it
	RebuiltWithin = 10 * time.Second
	poll          = 50 * time.Millisecond
	// emptyFor is how long a closed activity has to be without units before it
	// is proved to have had none: a keeper may be about to open it.
	emptyFor = time.Minute
)

// NewFleet starts nothing.
func NewFleet(o FleetOptions) *Fleet {
	if o.Wait == nil {
		o.Wait = pause
	}
	return &Fleet{o: o, files: map[stock.ActivityID]*file{}, empty: map[stock.ActivityID]time.Time{}}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Check audits one activity now: it asks for a report on each bucket and waits
// for those, at most FreshWithin. Buckets that have none by then are Incomplete,
// and what is said of them is what was known before. One that has no buckets is
// stock.ErrNoSuchActivity; one that is over for good is compared by its orders,
// with the counts of its final proof.
func (f *Fleet) Check(ctx context.Context, activity stock.ActivityID) (Report, error) {
	r, _, err := f.audit(ctx, activity)
	return r, err
}

func (f *Fleet) audit(ctx context.Context, activity stock.ActivityID) (Report, []Drift, error) {
	g, err := f.ground(ctx, activity)
	if err != nil {
		return Report{}, nil, err
	}
	kept, proved, err := f.o.Archive.Proof(ctx, activity)
	switch {
	case err != nil:
		return Report{}, nil, fmt.Errorf("proof: final proof of %s: %w", activity, err)
	case proved && (len(g.opened()) == 0 || g.ending()):
		return f.settled(ctx, kept)
	case len(g.opened()) == 0:
		return Report{}, nil, stock.ErrNoSuchActivity
	}
	asked, err := f.o.Store.Ask(ctx, Ask{AskProof, string(activity), g.next(f.o.Now())})
	if err != nil {
		return Report{}, nil, fmt.Errorf("proof: ask: %w", err)
	}
	answers := func(p *Part, _ stock.Cursor) bool { return p.Answers >= asked.Number }
	for until := f.o.Now().Add(FreshWithin); ; {
		if g, err = f.ground(ctx, activity); err != nil {
			return Report{}, nil, err
		}
		r, drifts := merge(activity, g, f.o.Now(), answers)
		if proved {
			r.Proved = &Proved{kept.Position, kept.CheckedAt}
		}
		if len(r.Incomplete) == 0 || !f.o.Now().Before(until) {
			// One that nobody answers is let go too: whoever asks next asks anew.
			return r, drifts, f.o.Store.Answered(ctx, asked)
		}
		if err := f.o.Wait(ctx, poll); err != nil {
			return Report{}, nil, err
		}
	}
}

func (f *Fleet) ground(ctx context.Context, activity stock.ActivityID) (Ground, error) {
	g, err := f.o.Store.Ground(ctx, activity)
	if err != nil {
		return g, fmt.Errorf("proof: reports of buckets: %w", err)
	}
	return g, nil
}

// next is a number that no report is an answer to yet.
func (g *Ground) next(now time.Time) int64 {
	n := now.UnixMilli()
	for _, p := range g.Parts {
		n = max(n, p.Answers+1)
	}
	return n
}

// Report is the newest there is of an activity, without asking anybody: parts
// that are older than they should be are Incomplete.
func (f *Fleet) Report(ctx context.Context, activity stock.ActivityID) (Report, error) {
	g, err := f.ground(ctx, activity)
	if err != nil {
		return Report{}, err
	}
	kept, proved, err := f.o.Archive.Proof(ctx, activity)
	switch {
	case err != nil:
		return Report{}, fmt.Errorf("proof: final proof of %s: %w", activity, err)
	case proved && (len(g.opened()) == 0 || g.ending()):
		kept.Proved = &Proved{kept.Position, kept.CheckedAt}
		return kept, nil
	case len(g.opened()) == 0:
		return Report{}, stock.ErrNoSuchActivity
	}
	r := f.merged(activity, g)
	if proved {
		r.Proved = &Proved{kept.Position, kept.CheckedAt}
	}
	return r, nil
}

func (f *Fleet) merged(activity stock.ActivityID, g Ground) Report {
	now := f.o.Now()
	r, _ := merge(activity, g, now, func(p *Part, mark stock.Cursor) bool { return now.Sub(p.At.CheckedAt) <= p.age(mark) })
	return r
}

// Reports are the newest of all activities looked after, by id; those that
// nothing was ever sold of are left out.
func (f *Fleet) Reports(ctx context.Context) ([]Report, error) {
	subjects, err := f.o.Subjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("proof: activities: %w", err)
	}
	all := make([]Report, 0, len(subjects))
	for _, s := range subjects {
		r, err := f.Report(ctx, s.Activity)
		if isNothing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Report) int { return cmp.Compare(a.Activity, b.Activity) })
	return all, nil
}

// settled is the report on an activity whose buckets are gone: its orders and
// its money as they are, its units as the final proof has them.
func (f *Fleet) settled(ctx context.Context, kept Report) (Report, []Drift, error) {
	c := newComparison(kept.Activity)
	_, undelivered, err := f.o.Store.Snapshot(ctx, kept.Activity, func(o order.Order) error {
		c.take(o)
		return ctx.Err()
	})
	if err != nil {
		return Report{}, nil, fmt.Errorf("proof: orders: %w", err)
	}
	if err := c.travelling(ctx, f.o.Store.Dead, undelivered); err != nil {
		return Report{}, nil, err
	}
	c.followMoney(func(stock.UserID, stock.OrderID) bool { return false })
	r := c.report
	r.Position, r.Ledger, r.Buckets = kept.Position, kept.Ledger, kept.Buckets
	r.Proved = &Proved{kept.Position, kept.CheckedAt}
	r.CheckedAt = f.o.Now().UTC().Truncate(time.Millisecond)
	r.OK = r.Found == 0
	r.Final = r.OK && !c.moving && len(undelivered) == 0
	r.Drifts = c.drifts[:min(len(c.drifts), MaxViolations)]
	return r, c.drifts, nil
}

// Rebuild has the keeper of a bucket make its engine again from the store, and
// waits until it has, at most RebuiltWithin; stock.ErrNotReady after that, when
// it is still asked for. Hands call it.
func (f *Fleet) Rebuild(ctx context.Context, log stock.LogID) error {
	asked, err := f.o.Store.Ask(ctx, Ask{AskRebuild, string(log), f.o.Now().UnixMilli()})
	if err != nil {
		return fmt.Errorf("proof: ask: %w", err)
	}
	for until := f.o.Now().Add(RebuiltWithin); ; {
		if err := f.o.Wait(ctx, poll); err != nil {
			return err
		}
		asks, err := f.o.Store.Asks(ctx)
		if err != nil {
			return fmt.Errorf("proof: asks: %w", err)
		}
		if !slices.ContainsFunc(asks, func(a Ask) bool { return a.Kind == AskRebuild && a.Name == asked.Name && a.Number <= asked.Number }) {
			return nil
		}
		if !f.o.Now().Before(until) {
			return fmt.Errorf("%w: the keeper of %s has not rebuilt it yet, and goes on trying", stock.ErrNotReady, log)
		}
	}
}
