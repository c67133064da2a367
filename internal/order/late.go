package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// reserves is the part of stock.Ledger that late money needs.
type reserves interface {
	settles
	Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error)
}

// Late decides about money that arrived after its order was cancelled, where
// the terms allow it to buy the same again: a new reservation at the original
// quote under the key "late:<payment id>", whose order lands as paid. If the
// ledger refuses, the money is given back. While the ledger cannot answer, or
// answers what it may still lose, the same key is asked again, so that a reserve
// whose answer was lost is found.
type Late struct {
	store  Store
	ledger reserves
	newID  func(stock.UserID) (stock.OrderID, error)
	log    *slog.Logger
	now    func() time.Time
}

// NewLate takes newID as the source of order ids for a user. What it refuses is
// tried again later.
func NewLate(store Store, ledger reserves, newID func(stock.UserID) (stock.OrderID, error), log *slog.Logger, now func() time.Time) *Late {
	return &Late{store, ledger, newID, log, now}
}

// refusals are the answers that mean: not accepted, and asking again later is
// no part of the policy. Everything else may be a yes that was lost.
var refusals = []error{
	stock.ErrSoldOut, stock.ErrAllHeld, stock.ErrInsufficient, stock.ErrLimit,
	stock.ErrEnded, stock.ErrNotOpen, stock.ErrNoSuchActivity, stock.ErrNoSuchSKU, stock.ErrInvalid,
	errLost,
}

func refused(err error) bool {
	for _, r := range refusals {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}

// decide takes the late capture of o that is due, if there is one.
func (l *Late) decide(ctx context.Context, o Order) (Order, error) {
	now := stock.MillisOf(l.now())
	for _, c := range o.Money.Captures {
		if o.Money.undecided(&c) && c.CheckAt <= now {
			receipt, err := l.reserve(ctx, o, c)
			if ctx.Err() != nil {
				return o, ctx.Err()
			}
			return l.save(ctx, o.ID, c.ID, receipt, err)
		}
	}
	return o, nil
}

func (l *Late) reserve(ctx context.Context, o Order, c Capture) (stock.Receipt, error) {
	now := stock.MillisOf(l.now())
	// The event of the cancellation may not be handled yet. What it would free
	// is the buyer's own hold, which must not stand in the buyer's way.
	outcome := stateOf(o.State, o.Reason, o.Terms.Restock)
	_, err := l.ledger.Settle(ctx, stock.Settlement{ID: o.Reservation, User: o.User, Outcome: outcome, At: now})
	if err != nil && !errors.Is(err, stock.ErrOutcome) && !errors.Is(err, stock.ErrNoSuchReservation) {
		return stock.Receipt{}, fmt.Errorf("end reservation %s: %w", o.Reservation, err)
	}
	terms, err := json.Marshal(o.Terms)
	if err != nil {
		return stock.Receipt{}, err
	}
	id, err := l.newID(o.User)
	if err != nil {
		return stock.Receipt{}, err
	}
	receipt, err := l.ledger.Reserve(ctx, stock.Request{
		Activity:    o.Activity,
		User:        o.User,
		Key:         "late:" + c.Payment,
		Fingerprint: o.Fingerprint,
		Order:       id,
		Lines:       linesOf(o.Terms),
		Terms:       terms,
		Late:        c.Payment,
		At:          now,
	})
	switch {
	case err == nil && receipt.State == stock.Pending:
		err = errPending
	case err == nil && receipt.State == stock.Refused:
		err = errLost
	}
	return receipt, err
}

// errPending: the ledger may still lose what it has accepted, so the money has
// bought nothing yet. errLost: it has lost it, and says so.
var (
	errPending = errors.New("the reservation is not safe yet")
	errLost    = errors.New("the reservation was refused after it was accepted")
)

// save writes the decision into the cancelled order, where its buyer sees it.
func (l *Late) save(ctx context.Context, id stock.OrderID, capture string, receipt stock.Receipt, asked error) (Order, error) {
	now := stock.MillisOf(l.now())
	is, err := edit(ctx, l.store, id, now, 0, func(o *Order) ([]outbox.Message, error) {
		c := o.Money.capture(capture)
		if c == nil || !o.Money.undecided(c) {
			return nil, errUnchanged
		}
		switch {
		case asked == nil:
			c.Pays, c.CheckAt = receipt.Order, 0
			o.ReplacedBy = receipt.Order
		case refused(asked):
			o.giveBack(capture, refundLate, now)
		default:
			c.Attempts++
			c.CheckAt = backOff(c.Attempts, now)
		}
		return nil, nil
	})
	if err != nil {
		return Order{}, err
	}
	switch {
	case asked == nil:
		l.log.Info("late payment bought the same again", "order", id, "new_order", receipt.Order, "capture", capture)
	case refused(asked):
		l.log.Info("late payment is given back", "order", id, "capture", capture, "why", asked)
	case errors.Is(asked, errPending):
		l.log.Debug("late payment waits for landing", "order", id, "capture", capture)
	default:
		l.log.Warn("late payment waits for the ledger", "order", id, "capture", capture, "error", asked)
	}
	return is, nil
}
