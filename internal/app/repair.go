package app

import (
	"context"
	"fmt"

	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

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
		Redrive: e.store.Redrive,
		Reland: func(ctx context.Context, id stock.ID) error {
			r, err := e.ledger.Lookup(ctx, stock.Ref{ID: id})
			if err != nil {
				return fmt.Errorf("reland %s: %w", id, err)
			}
			_, err = e.lander.Reland(ctx, e.store, id, r.State)
			return err
		},
	}
}
