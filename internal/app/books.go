package app

import (
	"context"
	"fmt"

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
func (a *alone) hands() proof.Hands {
	return proof.Hands{
		Order: a.store.Get,
		Resettle: func(ctx context.Context, o order.Order) error {
			return order.Resettle(ctx, a.ledger, o, stock.MillisOf(a.clock.Now()))
		},
		GiveBack: func(ctx context.Context, id stock.OrderID, capture string) error {
			_, err := a.orders.GiveBack(ctx, id, capture)
			return err
		},
		Redrive: a.store.Redrive,
		Reland: func(ctx context.Context, id stock.ID) error {
			r, err := a.ledger.Lookup(ctx, stock.Ref{ID: id})
			if err != nil {
				return fmt.Errorf("reland %s: %w", id, err)
			}
			_, err = a.lander.Reland(ctx, a.store, id, r.State)
			return err
		},
	}
}

// errNotCompared: of an activity that is not over, the books of its buckets are
// compared nowhere yet, and nothing is made up.
var errNotCompared = fmt.Errorf("%w: the books of this activity's buckets have not been compared", stock.ErrNotReady)

// books of a fleet are those that workers have proved and the store keeps. The
// logs of the buckets are let go as they land, so there is no trail of units.
func (f *fleet) books() books {
	return books{
		check: func(ctx context.Context, activity stock.ActivityID) (proof.Report, error) {
			r, kept, err := f.store.Proof(ctx, activity)
			if err == nil && !kept {
				err = errNotCompared
			}
			return r, err
		},
		reports: func() []proof.Report { return nil },
		repair: func(context.Context, stock.ActivityID, proof.RepairRequest) (proof.Repair, error) {
			return proof.Repair{}, errNotCompared
		},
		trail: noTrail{},
	}
}

// noTrail answers that the log has been let go.
type noTrail struct{}

func (noTrail) Units(context.Context, stock.ActivityID, stock.SKU, int, int) (proof.Units, error) {
	return proof.Units{}, stock.ErrTruncated
}

func (noTrail) Unit(context.Context, stock.ActivityID, stock.SKU, int) (proof.Units, error) {
	return proof.Units{}, stock.ErrTruncated
}

func (noTrail) User(context.Context, stock.ActivityID, stock.UserID) (proof.UserTrail, error) {
	return proof.UserTrail{}, stock.ErrTruncated
}
