package order

import (
	"encoding/json"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Action is what is asked of an order.
type Action string

// The actions. Late and repeated money is no action: it changes Money, not State.
const (
	ActionPay     Action = "pay"     // a capture of the right amount arrived
	ActionCancel  Action = "cancel"  // by the shopper or an operator
	ActionTimeout Action = "timeout" // unpaid past ExpiresAt
	ActionFulfil  Action = "fulfil"
	ActionRefund  Action = "refund" // all money that paid the order has been given back
)

// Topics of the events. The key of a message is the order's id, so that one
// order's events are handled in the order in which they happened; a reminder
// has a key of its own, so that nothing waits for it.
const (
	TopicPaymentDue = "order.payment_due" // once, while there is still time to pay
	TopicPaid       = "order.paid"
	TopicCancelled  = "order.cancelled"
	TopicFulfilled  = "order.fulfilled"
	TopicRefunded   = "order.refunded"
)

// Reasons that the code itself gives. An operator's reason is free text.
const (
	ReasonTimeout  = "timeout"
	ReasonShopper  = "shopper"
	ReasonOperator = "operator"
	ReasonLost     = "lost" // by the ledger, while it was pending; never of a row
)

type step struct {
	from State
	do   Action
}

type arrival struct {
	to    State
	topic string
}

// transitions is the whole machine; what is not listed is ErrState.
var transitions = map[step]arrival{
	{Created, ActionPay}:      {Paid, TopicPaid},
	{Created, ActionCancel}:   {Cancelled, TopicCancelled},
	{Created, ActionTimeout}:  {Cancelled, TopicCancelled},
	{Paid, ActionFulfil}:      {Fulfilled, TopicFulfilled},
	{Paid, ActionRefund}:      {Refunded, TopicRefunded},
	{Fulfilled, ActionRefund}: {Refunded, TopicRefunded},
}

// Transition moves o and answers the events to save with it, or ErrState and
// leaves o alone. It is pure: at is the time of the change. reason is kept on
// cancel and refund; a timeout gives its own.
func Transition(o *Order, do Action, reason string, at stock.Millis) ([]outbox.Message, error) {
	next, ok := transitions[step{o.State, do}]
	if !ok {
		return nil, fmt.Errorf("%w: %s of an order that is %s", ErrState, do, o.State)
	}
	o.State = next.to
	switch do {
	case ActionPay:
		o.PaidAt = at
	case ActionTimeout:
		o.Reason, o.ClosedAt = ReasonTimeout, at
	case ActionCancel, ActionRefund:
		o.Reason, o.ClosedAt = reason, at
	case ActionFulfil:
		o.ClosedAt = at
	}
	// The store adds one to Version with this very update.
	return []outbox.Message{message(o, next.topic, o.Version+1, at)}, nil
}

// Event is the body of every order.* message, as JSON:
//
//	{"order":"…","reservation":"…","activity":"…","user":"…","state":"paid",
//	 "version":2,"reason":"…","at":"2026-01-02T15:04:05.000Z",
//	 "total":{"amount":5900,"currency":"EUR"},"restock":true}
//
// version is that of the order row after the change, so a consumer can refuse
// what is older than what it has. reason and restock are left out when empty;
// restock says that a refund of this order returns its units to the sale.
type Event struct {
	Order       stock.OrderID    `json:"order"`
	Reservation string           `json:"reservation"`
	Activity    stock.ActivityID `json:"activity"`
	User        stock.UserID     `json:"user"`
	State       State            `json:"state"`
	Version     int              `json:"version"`
	Reason      string           `json:"reason,omitempty"`
	At          string           `json:"at"`
	Total       pricing.Money    `json:"total"`
	Restock     bool             `json:"restock,omitempty"`
}

func message(o *Order, topic string, version int, at stock.Millis) outbox.Message {
	body, err := json.Marshal(Event{
		Order:       o.ID,
		Reservation: o.Reservation.String(),
		Activity:    o.Activity,
		User:        o.User,
		State:       o.State,
		Version:     version,
		Reason:      o.Reason,
		At:          at.Time().Format("2006-01-02T15:04:05.000Z"),
		Total:       o.Terms.Money(),
		Restock:     o.Terms.Restock,
	})
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	return outbox.Message{Key: string(o.ID), Topic: topic, Body: body, At: int64(at)}
}

// reminder is the event of a payment that is due. No state follows from it: a
// shopper who cannot be reminded must not keep the ledger from what happens next.
func reminder(o *Order, at stock.Millis) outbox.Message {
	m := message(o, TopicPaymentDue, o.Version+1, at)
	m.Key = "due-" + m.Key
	return m
}

// readEvent reads an order.* message, or fails for good.
func readEvent(m outbox.Message) (Event, stock.ID, error) {
	var e Event
	if err := json.Unmarshal(m.Body, &e); err != nil {
		return Event{}, stock.ID{}, fmt.Errorf("event %d of %s: %w", m.ID, m.Key, err)
	}
	switch e.State {
	case Created, Paid, Fulfilled, Cancelled, Refunded, Refused:
	default:
		return Event{}, stock.ID{}, fmt.Errorf("event %d of %s: unknown state %q", m.ID, m.Key, e.State)
	}
	id, err := stock.ParseID(e.Reservation)
	if err != nil {
		return Event{}, stock.ID{}, fmt.Errorf("event %d of %s: %w", m.ID, m.Key, err)
	}
	return e, id, nil
}
