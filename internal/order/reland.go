package order

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// ReasonRepair is why a capture is given back, or an order is closed, that a
// repair found to need it.
const ReasonRepair = "repair"

// relands is the store's way to put back a row that is behind its watermark.
type relands interface {
	// Reland writes an order that has landed before and is not there, with its
	// events. One that is there is no change; ErrWatermark when it has not landed.
	Reland(ctx context.Context, l Landed) error
}

// Reland makes the order of a reservation again from its log entry, where the
// row has been lost, and answers it. is says how the reservation stands now.
//
// While it is held, the order is what landing would make of it. Where it has
// been released or expired, the order is closed in the same way. One that was
// confirmed by a payment is ErrState: the payment was in the row, and cannot be
// made up; the row has to come from a backup of the store.
func (l *Lander) Reland(ctx context.Context, store relands, id stock.ID, is stock.State) (Order, error) {
	e, err := l.reserved(ctx, id)
	if err != nil {
		return Order{}, fmt.Errorf("reland %s: %w", id, err)
	}
	o, events, err := FromReservation(e)
	if err != nil {
		return Order{}, fmt.Errorf("reland %s: %w", id, err)
	}
	if o.Products, err = l.Snapshots.of(ctx, o.Terms.Lines); err != nil {
		return Order{}, fmt.Errorf("reland %s: products: %w", id, err)
	}
	o.Position.Log = l.LogID
	switch {
	case stateOf(o.State, o.Reason, o.Terms.Restock) == is:
	case is == stock.Released, is == stock.Expired:
		o.State, o.Reason, o.PaidAt, o.CheckAt, events = Cancelled, ReasonRepair, 0, 0, nil
		if is == stock.Expired {
			o.Reason = ReasonTimeout
		}
		o.ClosedAt = stock.MillisOf(l.Now())
	case is == stock.Held: // paid from the start: its event confirms it
	default:
		return Order{}, fmt.Errorf("reland %s: %w: the reservation is %s, and what paid its order is lost with the row; restore the store from a backup", id, ErrState, is)
	}
	return o, store.Reland(ctx, Landed{o, events})
}

// reserved finds the entry of a reservation.
func (l *Lander) reserved(ctx context.Context, id stock.ID) (stock.Entry, error) {
	for e, err := range l.Log.Tail(ctx, stock.Cursor{Log: l.LogID}) {
		if err != nil {
			return stock.Entry{}, err
		}
		if e.Kind == stock.EntryReserved && e.Reservation.ID == id {
			return e, nil
		}
	}
	return stock.Entry{}, stock.ErrNoSuchReservation
}

// GiveBack requests the refund of one capture that pays nothing, and asks the
// provider. One that has a refund is no change; ErrState when it pays an order,
// or when it is still being decided whether it may.
func (d *Desk) GiveBack(ctx context.Context, id stock.OrderID, capture string) (Order, error) {
	o, err := d.cashier.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		c := o.Money.capture(capture)
		switch {
		case c == nil:
			return nil, nil, fmt.Errorf("%w: it has no capture %.80q", ErrState, capture)
		case o.Money.refundOf(capture) != nil:
			return nil, nil, errUnchanged
		case c.Pays != "":
			return nil, nil, fmt.Errorf("%w: capture %.80q pays order %s", ErrState, capture, c.Pays)
		case o.Money.undecided(c):
			return nil, nil, fmt.Errorf("%w: it is being decided whether capture %.80q may pay an order", ErrState, capture)
		}
		o.giveBack(capture, ReasonRepair, now)
		return nil, nil, nil
	})
	if err != nil {
		return Order{}, fmt.Errorf("give back %.80q of order %s: %w", capture, id, err)
	}
	return d.cashier.pursue(ctx, o)
}

// Resettle ends a reservation as its order says it has ended, by the steps that
// lead there from where it is. What cannot be reached (the reservation has
// ended otherwise) is stock.ErrOutcome, and nothing is undone.
func Resettle(ctx context.Context, ledger settles, o Order, at stock.Millis) error {
	want := stateOf(o.State, o.Reason, o.Terms.Restock)
	if want == stock.Held || want == stock.Refused {
		return fmt.Errorf("%w: an order that is %s ends no reservation", ErrState, o.State)
	}
	_, err := ledger.Settle(ctx, stock.Settlement{ID: o.Reservation, User: o.User, Outcome: want, At: at})
	if want == stock.Returned && errors.Is(err, stock.ErrOutcome) { // perhaps held still
		if _, err = ledger.Settle(ctx, stock.Settlement{ID: o.Reservation, User: o.User, Outcome: stock.Confirmed, At: at}); err == nil {
			_, err = ledger.Settle(ctx, stock.Settlement{ID: o.Reservation, User: o.User, Outcome: want, At: at})
		}
	}
	return err
}
