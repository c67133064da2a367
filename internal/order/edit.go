package order

import (
	"context"
	"errors"
	"slices"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// errUnchanged makes an edit save nothing and succeed.
var errUnchanged = errors.New("order is as it should be")

// edit is Update that also answers the order as it now is, with its next look
// scheduled. change may end with errUnchanged.
func edit(ctx context.Context, s Store, id stock.OrderID, now, delay stock.Millis, change func(o *Order) ([]outbox.Message, error)) (Order, error) {
	return editAndRest(ctx, s, id, now, delay, func(o *Order) ([]outbox.Message, stock.Millis, error) {
		events, err := change(o)
		return events, 0, err
	})
}

// editAndRest is edit whose change also says how long a time-out that has
// passed is left alone.
func editAndRest(ctx context.Context, s Store, id stock.OrderID, now, delay stock.Millis, change func(o *Order) ([]outbox.Message, stock.Millis, error)) (Order, error) {
	var is Order
	err := s.Update(ctx, id, func(o *Order) ([]outbox.Message, error) {
		version := o.Version
		events, rest, err := change(o)
		if err == nil {
			o.schedule(now, delay, rest)
		}
		is = o.clone() // the store may reuse what o points to
		if err == nil {
			is.Version = version + 1
		}
		return events, err
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return Order{}, err
	}
	return is, nil
}

func (o *Order) clone() Order {
	c := *o
	c.Claims = slices.Clone(o.Claims)
	c.Terms.Lines = slices.Clone(o.Terms.Lines)
	c.Products = slices.Clone(o.Products)
	c.Money.Payments = slices.Clone(o.Money.Payments)
	c.Money.Captures = slices.Clone(o.Money.Captures)
	c.Money.Refunds = slices.Clone(o.Money.Refunds)
	return c
}
