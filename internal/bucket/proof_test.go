package bucket_test

import (
	"context"
	"time"

	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

func (w *world) newInspector() *proof.Inspector {
	return proof.NewInspector(proof.Inspecting{
		Store:  w.store,
		Engine: func(_ context.Context, p stock.Place) (stock.Counts, error) { return w.engine.Counts(p) },
		Lookup: func(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
			if ref.ID == (stock.ID{}) {
				return stock.Receipt{}, stock.ErrNotReady // by order, this engine finds nothing
			}
			return w.engine.Lookup(ctx, ref.ID)
		},
		Now: w.now,
	})
}

func (w *world) newFleet() *proof.Fleet {
	return proof.NewFleet(proof.FleetOptions{
		Store: w.store, Archive: w.store, Now: w.now,
		Subjects: func(context.Context) ([]proof.Subject, error) {
			return []proof.Subject{{Activity: w.sale.Activity, Proved: w.final}}, nil
		},
		Alarm: w.alarms.Violation,
		Wait: func(_ context.Context, d time.Duration) error { // whoever waits lets the others work
			w.clock = w.clock.Add(d)
			for _, k := range w.workers {
				k.step()
				k.inspect()
			}
			return nil
		},
	})
}

// inspect is a step of a worker's auditor; whatever it finds is a fault, since
// nothing was planted.
func (k *worker) inspect() (worked bool) {
	if k.dead {
		return false
	}
	worked, err := k.proof.Step(k.w.ctx)
	k.w.must(err)
	if worked {
		g, err := k.w.store.Ground(k.w.ctx, k.w.sale.Activity)
		k.w.must(err)
		for _, p := range g.Parts {
			if p.Report.Found > 0 && !k.w.planted {
				k.w.Fatalf("a false alarm: %+v", p)
			}
		}
	}
	return worked
}

// check is an audit on demand.
func (w *world) check() proof.Report {
	w.Helper()
	r, err := w.fleet.Check(w.ctx, w.sale.Activity)
	w.must(err)
	return r
}

// proved checks that the books agree, all of them, once everything has come to rest.
func (w *world) proved() {
	w.Helper()
	r := w.check()
	if !r.OK || len(r.Buckets) != len(w.places()) {
		w.Fatalf("at rest: %+v", r)
	}
	units := r.Ledger[0]
	if units.InTransit != 0 || units.Free+units.Held+units.Confirmed != units.Allocated {
		w.Fatalf("at rest: %+v", units)
	}
	for _, b := range r.Buckets {
		if b.Engine == nil || *b.Engine != b.Position {
			w.Fatalf("at rest, the engine's counts were not compared: %+v", b)
		}
	}
	if r.Orders[order.Created] > units.Held {
		w.Fatalf("%v orders, %+v", r.Orders, units)
	}
}
