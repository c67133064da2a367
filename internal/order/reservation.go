package order

import (
	"encoding/json"
	"errors"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// errEntry: a reserved entry that cannot be an order. It stops landing.
var errEntry = errors.New("log entry cannot become an order")

// FromReservation makes the order of a reserved entry and the events of its
// landing. It is pure. An order is created, to be paid until it expires; but
// one whose total is 0, or whose money has already arrived (Late), is paid from
// the start and says so by an event. Products are left to the lander.
//
// An entry whose terms do not describe its lines is an error, never an order.
func FromReservation(e stock.Entry) (Order, []outbox.Message, error) {
	return fromReservation(e, readTerms)
}

// fromReservation takes the decoder of terms; what it answers is not changed.
func fromReservation(e stock.Entry, read func(raw []byte) (pricing.Terms, error)) (Order, []outbox.Message, error) {
	bad := func(why string, args ...any) (Order, []outbox.Message, error) {
		return Order{}, nil, fmt.Errorf("%w: %s", errEntry, fmt.Sprintf(why, args...))
	}
	r := e.Reservation
	if r == nil || r.Order == "" || r.User == "" {
		return bad("it names no reservation, order or user")
	}
	terms, err := read(r.Terms)
	if err != nil {
		return bad("terms of %s: %v", r.ID, err)
	}
	if err := terms.Money().Validate(); err != nil {
		return bad("terms of %s: %v", r.ID, err)
	}
	if len(terms.Lines) != len(r.Lines) {
		return bad("%s holds %d lines, its quote has %d", r.ID, len(r.Lines), len(terms.Lines))
	}
	sum := int64(0)
	for i, l := range r.Lines {
		q := terms.Lines[i]
		if q.SKU != string(l.SKU) || q.Quantity != l.Quantity {
			return bad("%s holds %d of %s, its quote says %d of %s", r.ID, l.Quantity, l.SKU, q.Quantity, q.SKU)
		}
		sum += q.Total
	}
	if sum != terms.Total {
		return bad("lines of %s come to %d, its total is %d", r.ID, sum, terms.Total)
	}
	o := Order{
		ID:          r.Order,
		Reservation: r.ID,
		Activity:    r.ID.Activity,
		User:        r.User,
		Key:         r.Key,
		Fingerprint: r.Fingerprint,
		Claims:      r.Claims,
		Terms:       terms,
		Position:    e.Cursor,
		State:       Created,
		Version:     1,
		CreatedAt:   r.At,
		ExpiresAt:   r.Expires,
		LateOf:      r.Late,
	}
	if terms.Total > 0 && r.Late == "" {
		// max: 0 would mean "never", and an unpaid order must be looked at.
		o.CheckAt = max(r.Expires, 1)
		if remind := o.remindAt(); remind > 0 {
			o.CheckAt = remind
		}
		return o, nil, nil
	}
	o.State, o.PaidAt = Paid, r.At
	return o, []outbox.Message{message(&o, TopicPaid, 1, r.At)}, nil
}

// refuse makes of an order what remains when the book would not have it: no
// events, nothing to pay, nothing to look at again. If the book has another
// reservation under its key, that one keeps the key.
func (l *Landed) refuse(why error) {
	o := &l.Order
	o.State, o.Reason, o.PaidAt, o.CheckAt, o.ClosedAt = Refused, fmt.Sprintf("%.100v", why), 0, 0, o.CreatedAt
	if errors.Is(why, stock.ErrMismatch) {
		o.Key = fmt.Sprintf("refused:%d.%d", o.Reservation.Epoch, o.Reservation.Number)
	}
	l.Events = nil
}

// Reservation is what a shopper sees of one: its State is as it is now, by
// whoever has the last word (the ledger until landing, the order after it).
type Reservation struct {
	stock.Reservation
	OrderState State
	Landed     bool
}

// reservationOf shows a landed order as its reservation.
func reservationOf(o Order) (Reservation, error) {
	terms, err := json.Marshal(o.Terms)
	if err != nil {
		return Reservation{}, fmt.Errorf("terms of order %s: %w", o.ID, err)
	}
	return Reservation{Reservation: ReservationOf(&o, terms), OrderState: o.State, Landed: true}, nil
}

// ReservationOf is the reservation of a landed order in its present state;
// terms are the order's as JSON.
func ReservationOf(o *Order, terms []byte) stock.Reservation {
	return stock.Reservation{
		ID:          o.Reservation,
		User:        o.User,
		Key:         o.Key,
		Fingerprint: o.Fingerprint,
		Order:       o.ID,
		Lines:       linesOf(o.Terms),
		Claims:      o.Claims,
		Terms:       terms,
		Late:        o.LateOf,
		State:       stateOf(o.State, o.Reason, o.Terms.Restock),
		At:          o.CreatedAt,
		Expires:     o.ExpiresAt,
	}
}

// linesOf: FromReservation has made sure that the quote's lines are the
// reservation's, in the same order.
func linesOf(t pricing.Terms) []stock.Line {
	lines := make([]stock.Line, len(t.Lines))
	for i, l := range t.Lines {
		lines[i] = stock.Line{SKU: stock.SKU(l.SKU), Quantity: l.Quantity}
	}
	return lines
}

// stateOf is the state a reservation has, or is about to be settled to, when
// its order has the last word. Settlement and event streams share it, so that
// what a shopper is told is what the ledger will be told.
func stateOf(s State, reason string, restock bool) stock.State {
	switch s {
	case Created:
		return stock.Held
	case Paid, Fulfilled:
		return stock.Confirmed
	case Cancelled:
		if reason == ReasonTimeout {
			return stock.Expired
		}
		return stock.Released
	case Refunded:
		if restock {
			return stock.Returned
		}
		return stock.Confirmed
	case Refused:
		return stock.Refused
	}
	panic("order state " + string(s))
}
