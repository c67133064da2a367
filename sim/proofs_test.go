package sim

import (
	"context"
	"maps"
	"slices"

	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// keepLog is how much of the log a seed keeps for trails: all of it, or so
// little that the log of a long run goes past it.
func keepLog(seed uint64) int64 {
	if seed/20%2 == 0 {
		return 1 << 30
	}
	return segmentSize
}

// watch is the auditor as a task.
func (w *world) watch(e *engine, ledger *pump) *proof.Watch {
	return proof.NewWatch(proof.Watching{
		Auditor: e.auditor, Ledger: ledger, Archive: e.store, Now: e.clock.Now,
		Subjects: func(ctx context.Context) ([]proof.Subject, error) {
			return e.store.Subjects(ctx, stock.MillisOf(e.clock.Now().Add(-proof.ProvedKept)))
		},
		Alarm: func(activity stock.ActivityID, violation string) {
			if dead, err := w.store.Dead(context.Background(), 0, 1); err == nil && len(dead) == 0 && !w.faults.dark {
				w.violate("the auditor of %s: %s", activity, violation)
			}
		},
		Proved: func(activity stock.ActivityID) {
			w.oracle.once("final proof", string(activity))
			e.ledger.Release(activity)
		},
	})
}

// prove lets the auditor look at what is due.
func (w *world) prove() { w.run("prove", w.e.proofs.Step) }

// trim is a step of the snapshot task, judged by what it did to the log's start.
func (w *world) trim(ctx context.Context) (worked bool, err error) {
	l, o := w.e.ledger, w.oracle
	was, size := l.Start().Position, l.LogSize()
	o.mayCut = l.Full() != nil || size > w.keepLog
	worked, err = l.Compact(ctx)
	start, lost := l.Start().Position, l.Lost()
	if start == was {
		return worked, err
	}
	w.tell("  the log starts behind %d; lost %v", start, lost)
	for _, id := range lost {
		o.cut[id] = true
	}
	if len(lost) == 0 {
		w.fire("log trimmed behind proofs")
	} else if w.fire("trail cut"); !o.mayCut {
		w.violate("the trails of %v are cut, though the log takes %d of %d bytes", lost, size, w.keepLog)
	}
	return worked, err
}

// unheard finds the activities whose trails were cut by a process that died
// before it said so.
func (o *oracle) unheard() {
	if !o.mayCut {
		return
	}
	start := o.w.e.ledger.Start().Position
	for id, at := range o.opened {
		if _, ok, err := o.w.store.Proof(context.Background(), id); at <= start && err == nil && !ok {
			o.cut[id] = true
		}
	}
	o.mayCut = false
}

// trails: the log reaches back to the first entry of every activity that has no
// final proof, unless it was said that it does not.
func (o *oracle) trails() {
	w := o.w
	if w.keepLog == 0 {
		return
	}
	start := w.e.ledger.Start().Position
	for _, id := range slices.Sorted(maps.Keys(o.opened)) {
		if o.opened[id] > start || o.cut[id] {
			continue
		}
		if r, ok, err := w.store.Proof(context.Background(), id); err != nil || !ok || !r.OK || r.Position.Position < o.opened[id] {
			w.violate("%s was opened at %d and has no final proof (%v), and the log starts behind %d", id, o.opened[id], err, start)
		}
	}
}

// over: every activity that is at rest has a final proof, and has it by the
// position of its last entry.
func (o *oracle) over(a sale.Activity) {
	w := o.w
	r, ok, err := w.store.Proof(context.Background(), a.ID)
	if err != nil || !ok || !r.OK || !r.Final {
		w.violate("at rest %s has no final proof: %+v, %v", a.ID, r, err)
		return
	}
	sold := 0
	for _, row := range o.rows {
		if row.Activity == a.ID {
			sold++
		}
	}
	for _, n := range r.Orders {
		sold -= n
	}
	if sold != 0 {
		w.violate("at rest the final proof of %s counts other orders: %+v", a.ID, r.Orders)
	}
}

// final: nothing is accepted behind the final proof of its activity.
func (o *oracle) final(e stock.Entry) {
	if e.Kind != stock.EntryReserved || o.w.store == nil {
		return
	}
	if r, ok, err := o.w.store.Proof(context.Background(), e.Activity); err == nil && ok && r.Position.Position < e.Cursor.Position {
		o.w.violate("entry %d reserves in %s, which was proved for good at %d", e.Cursor.Position, e.Activity, r.Position.Position)
	}
}

// The store's proofs, with faults.

func (s *tap) SaveProof(ctx context.Context, r proof.Report) error {
	return s.write(func() error { return s.Store.SaveProof(ctx, r) })
}

func (s *tap) Proof(ctx context.Context, activity stock.ActivityID) (proof.Report, bool, error) {
	if err := s.read(); err != nil {
		return proof.Report{}, false, err
	}
	return s.Store.Proof(ctx, activity)
}

func (s *tap) Subjects(ctx context.Context, since stock.Millis) ([]proof.Subject, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Store.Subjects(ctx, since)
}

func (s *tap) Proved(ctx context.Context) ([]stock.ActivityID, error) {
	return s.Store.Proved(ctx)
}

func (s *tap) Select(ctx context.Context, q sale.Query) ([]sale.Activity, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Store.Select(ctx, q)
}
