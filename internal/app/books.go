package app

import (
	"context"
	"fmt"
	"time"

	"sluice/internal/backend/walstock"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// books are what the ops API says of the books: how they agree, and where each
// unit went.
type books struct {
	check   func(context.Context, stock.ActivityID) (proof.Report, error)
	reports func() []proof.Report
	repair  func(context.Context, stock.ActivityID, proof.RepairRequest) (proof.Repair, error)
	trail   interface {
		Units(ctx context.Context, activity stock.ActivityID, sku stock.SKU, from, limit int) (proof.Units, error)
		Unit(ctx context.Context, activity stock.ActivityID, sku stock.SKU, number int) (proof.Units, error)
		User(ctx context.Context, activity stock.ActivityID, user stock.UserID) (proof.UserTrail, error)
	}
}

func (e *engine) newBooks() books {
	if e.alone == nil {
		return e.fleet.books()
	}
	return books{
		check:   e.alone.proof,
		reports: e.alone.proofs.Reports,
		repair:  proof.NewRepairer(e.alone.auditor, e.alone.hands(), e.store, e.clock.Now).Repair,
		trail:   proof.NewTrail(e.wal, walstock.LogID).Beside(e.store),
	}
}

// subjects are the activities that the auditor looks after.
func (e *engine) subjects(ctx context.Context) ([]proof.Subject, error) {
	return e.store.Subjects(ctx, stock.MillisOf(e.clock.Now().Add(-proof.ProvedKept)))
}

// proof audits one activity now, and says where its final proof was taken.
func (a *alone) proof(ctx context.Context, activity stock.ActivityID) (proof.Report, error) {
	r, err := a.auditor.Check(ctx, activity)
	if err != nil {
		return r, err
	}
	return proof.Beside(ctx, a.store, r)
}

// hands are what repairs are made with: the engine's own operations.
func (e *engine) hands() proof.Hands {
	return proof.Hands{
		Order: e.store.Get,
		Resettle: func(ctx context.Context, o order.Order) error {
			return order.Resettle(ctx, e.ledger, o, stock.MillisOf(e.clock.Now()))
		},
		GiveBack: func(ctx context.Context, id stock.OrderID, capture string) error {
			_, err := e.orders.GiveBack(ctx, id, capture)
			return err
		},
		Redrive: e.letters().Redrive,
	}
}

// hands of the process that is alone: its log can make a lost row again.
func (a *alone) hands() proof.Hands {
	h := a.engine.hands()
	h.Reland = func(ctx context.Context, id stock.ID) error {
		r, err := a.ledger.Lookup(ctx, stock.Ref{ID: id})
		if err != nil {
			return fmt.Errorf("reland %s: %w", id, err)
		}
		_, err = a.lander.Reland(ctx, a.store, id, r.State)
		return err
	}
	return h
}

// reportsWithin bounds reading the newest reports for the ops API's list and for
// metrics; past it, the list is empty rather than late.
const reportsWithin = 2 * time.Second

// books of a fleet: each bucket is inspected where its keeper is, and what came
// of it is put together from the store, in any process.
func (f *fleet) books() books {
	return books{
		check: f.proofs.Check,
		reports: func() []proof.Report {
			ctx, cancel := context.WithTimeout(context.Background(), reportsWithin)
			defer cancel()
			all, err := f.proofs.Reports(ctx)
			if err != nil {
				f.log.Warn("reports of buckets cannot be read", "error", err)
			}
			return all
		},
		repair: proof.NewRepairer(f.proofs, f.hands(), f.store, f.clock.Now).Repair,
		trail:  proof.NewFleetTrail(f.store, f.store),
	}
}

// hands: a row that is lost cannot be made again from a log that has been let
// go; a bucket's engine can be made again from the rows.
func (f *fleet) hands() proof.Hands {
	h := f.engine.hands()
	h.Reland = func(context.Context, stock.ID) error { return stock.ErrTruncated }
	h.Rebuild = f.proofs.Rebuild
	return h
}
