package app

import (
	"context"
	"errors"

	"sluice/internal/api"
	"sluice/internal/gate"
	"sluice/internal/lib/call"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// shed is the store of orders as shoppers read it: reads beyond what it can do
// are refused with gate.ErrOverloaded, by the kind of work they are for. Writes
// share a commit, so that more of them at a time are done faster and not slower;
// they have bounds of their own and pass (docs/decisions/0016).
type shed struct {
	order.Store
	by   *gate.Shedding
	work gate.Work
}

// Get implements order.Store. Whoever looks at an order has one, and may be waiting
// to hear that it is paid: that is not browsing.
func (s shed) Get(ctx context.Context, id stock.OrderID) (order.Order, error) {
	return admitted(ctx, s.by, min(s.work, gate.Buying), func() (order.Order, error) { return s.Store.Get(ctx, id) })
}

// List implements order.Store.
func (s shed) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	return admitted(ctx, s.by, s.work, func() ([]order.Order, error) { return s.Store.List(ctx, q) })
}

// admitted does one read, if there is room.
func admitted[T any](ctx context.Context, by *gate.Shedding, work gate.Work, read func() (T, error)) (T, error) {
	permit, err := by.Enter(work)
	if err != nil {
		var none T
		return none, err
	}
	outcome := call.Unmeasured // of a panic
	defer func() { permit.Leave(outcome) }()
	found, err := read()
	outcome = outcomeOf(ctx, err)
	return found, err
}

// outcomeOf says what the time of a read is worth. Not to find anything takes as
// long as to find it; an error is no measure, unless time was up.
func outcomeOf(ctx context.Context, err error) call.Outcome {
	switch {
	case err == nil, errors.Is(err, order.ErrNoSuchOrder):
		return call.Served
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return call.TimedOut
	default:
		return call.Unmeasured
	}
}

// deskFor serves shoppers' work of one kind. It is as the operators' desk, e.orders,
// whose reads are never refused.
func (e *engine) deskFor(work gate.Work) *order.Desk {
	desk := func(rows order.Store) *order.Desk {
		return order.NewDesk(shed{rows, e.shedding, work}, e.reads(), e.cashier, e.changed, e.clock.Now)
	}
	switch {
	case e.shown.Replicated() && work == gate.Browsing:
		return desk(e.shown).OfCopies()
	case e.shown.Replicated() && work == gate.Buying: // a receipt shows what the store said
		return desk(e.shown.OfPrimary())
	}
	return desk(e.rows)
}

// Notifications pages through a user's notifications, if there is room.
func (n shedNotices) Notifications(ctx context.Context, user stock.UserID, before int64, limit int) ([]api.Notification, error) {
	return admitted(ctx, n.by, gate.Browsing, func() ([]api.Notification, error) {
		return n.notices.Notifications(ctx, user, before, limit)
	})
}

// shedNotices are the notifications as shoppers read them.
type shedNotices struct {
	notices
	by *gate.Shedding
}
