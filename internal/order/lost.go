package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// Recall finds reservations in a ledger that many processes share and that may
// lose what is pending. Such a ledger looks for an order where this process
// knows of sales; Recall knows when that is not enough, and what to say when
// nothing is left: a Receipt of which only Order, User and State (Refused) are
// set. So an order id on a receipt is never a 404 to its owner.
//
// It needs all its fields. Safe for concurrent use.
type Recall struct {
	Ledger lookups
	// Living are all activities in which a reservation may be pending, read
	// after the call began: an activity may have been opened a moment ago, and
	// sold by another process.
	Living func(ctx context.Context) ([]stock.ActivityID, error)
	// Minted says when an order id was made for this user, and whether it can
	// have been. It goes by the id alone, and by no means by whether there is
	// such an order: what it answers about others' orders and about ids that
	// were never given out is the same, so nobody learns anything from it.
	Minted func(user stock.UserID, id stock.OrderID) (at time.Time, ok bool)
	Now    func() time.Time
}

// lostAfter is how old an order must be to be called lost. An engine that comes
// back without its tail is found out within 50 ms, which is to be more than that
// although clocks differ.
const lostAfter = 5 * time.Second

// Lookup is stock.Ledger's. Call it after the order was not found in the store:
// whatever has landed is found there, for ever, and what has not is in an
// activity that lives.
func (r *Recall) Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	receipt, err := r.Ledger.Lookup(ctx, ref)
	if ref.Order == "" || ref.Activity != "" || !errors.Is(err, stock.ErrNoSuchReservation) {
		return receipt, err
	}
	at, ok := r.Minted(ref.User, ref.Order)
	if !ok {
		return receipt, err
	}
	living, err := r.Living(ctx)
	if err != nil {
		return stock.Receipt{}, fmt.Errorf("%w: activities in which %s may be pending: %w", stock.ErrNotReady, ref.Order, err)
	}
	for _, activity := range living {
		receipt, err := r.Ledger.Lookup(ctx, stock.Ref{Activity: activity, User: ref.User, Order: ref.Order})
		if !errors.Is(err, stock.ErrNoSuchReservation) {
			return receipt, err
		}
	}
	if r.Now().Sub(at) < lostAfter {
		return stock.Receipt{}, fmt.Errorf("%w: %s is found nowhere, and too young to be lost", stock.ErrNotReady, ref.Order)
	}
	return stock.Receipt{Reservation: stock.Reservation{Order: ref.Order, User: ref.User, State: stock.Refused}, Replayed: true}, nil
}
