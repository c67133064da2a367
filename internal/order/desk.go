package order

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// lookups is the part of stock.Ledger that answers before landing.
type lookups interface {
	Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error)
}

// Desk serves shoppers and operators. What a shopper asks about is the
// shopper's own: anybody else's order does not exist for them. Until an order
// has landed, reads answer from the ledger. Safe for concurrent use.
type Desk struct {
	store   Store
	ledger  lookups
	cashier *Cashier
	changed func() <-chan struct{}
	now     func() time.Time
	copies  bool // see OfCopies

	blind atomic.Int64 // Unix ms until which the store is not asked for a courtesy
}

const (
	// landingWait is how long Pay and Cancel wait for an order to land.
	landingWait = 2 * time.Second
	// landingPoll is how often they look when nothing wakes them: the order
	// may be landed by another process.
	landingPoll = 100 * time.Millisecond
)

// NewDesk takes changed, the Changed of this process's lander, or nil when
// landing is done elsewhere.
func NewDesk(store Store, ledger lookups, cashier *Cashier, changed func() <-chan struct{}, now func() time.Time) *Desk {
	if changed == nil {
		changed = func() <-chan struct{} { return nil }
	}
	return &Desk{store: store, ledger: ledger, cashier: cashier, changed: changed, now: now}
}

// OfCopies says, before the desk is used, that what its store answers may be a
// little old, or not be true at all: good to be shown, and not to decide about
// stock by. The ledger is then told of what the cashier's store has.
func (d *Desk) OfCopies() *Desk {
	d.copies = true
	return d
}

// Get answers a shopper's order, or ErrNoSuchOrder. One that has not landed
// has Version 0, no products, and is created. When its ledger lost it it is
// refused for ReasonLost, and of everything else only ID and User are sure to be
// there.
func (d *Desk) Get(ctx context.Context, user stock.UserID, id stock.OrderID) (Order, error) {
	o, err := d.landed(ctx, user, id)
	if !errors.Is(err, ErrNoSuchOrder) {
		d.tellLedger(ctx, o)
		return o, err
	}
	r, err := d.ledger.Lookup(ctx, stock.Ref{User: user, Order: id})
	if errors.Is(err, stock.ErrNoSuchReservation) || (err == nil && r.User != user) {
		return Order{}, noSuchOrder(id)
	}
	if err != nil {
		return Order{}, fmt.Errorf("order %s: %w", id, err)
	}
	if o, err = unlandedOrder(&r.Reservation); err != nil {
		return Order{}, fmt.Errorf("order %s: %w", id, err)
	}
	return o, nil
}

// unlandedOrder is the order of which there is only a reservation. Its terms may
// be gone, and are then nothing to guess at: Terms.Currency is "".
func unlandedOrder(r *stock.Reservation) (o Order, err error) {
	if len(r.Terms) == 0 {
		o = Order{ID: r.Order, Reservation: r.ID, Activity: r.ID.Activity, User: r.User, CreatedAt: r.At, ExpiresAt: r.Expires, LateOf: r.Late}
	} else if o, _, err = FromReservation(stock.Entry{Kind: stock.EntryReserved, Reservation: r}); err != nil {
		return Order{}, err
	}
	o.Version, o.State, o.PaidAt, o.CheckAt = 0, unlanded(r.State), 0, 0
	if r.ID == (stock.ID{}) {
		o.Reason = ReasonLost
	}
	return o, nil
}

// unlanded is the state of an order of which there is only a reservation.
func unlanded(s stock.State) State {
	if s == stock.Refused {
		return Refused
	}
	return Created
}

// tellLedger makes sure, before a shopper reads that an order has just been
// paid or closed, that the ledger knows: the next purchase of this shopper must
// not be refused for the sake of what was read to be over. Older changes have
// long been told by their event.
func (d *Desk) tellLedger(ctx context.Context, o Order) {
	if stock.MillisOf(d.now())-max(o.PaidAt, o.ClosedAt) >= recentChange {
		return
	}
	if !d.cashier.settler.hastens(o) {
		return
	}
	if d.copies {
		if d.now().UnixMilli() < d.blind.Load() {
			return
		}
		call, cancel := context.WithTimeout(ctx, hastenWait)
		defer cancel()
		var err error
		if o, err = d.cashier.store.Get(call, o.ID); err != nil {
			if call.Err() != nil && ctx.Err() == nil {
				d.blind.Store(d.now().Add(hastenSleep).UnixMilli())
			}
			return // its event stays the guarantee, see hasten
		}
	}
	d.cashier.settler.hasten(ctx, o)
}

// recentChange is how long after a change, in milliseconds, reading it makes
// sure of the ledger.
const recentChange stock.Millis = 30_000

// landed reads the row. Another user's is no such order, and from there on
// nothing may come out otherwise than if there were none.
func (d *Desk) landed(ctx context.Context, user stock.UserID, id stock.OrderID) (Order, error) {
	o, err := d.store.Get(ctx, id)
	if err == nil && o.User != user {
		return Order{}, noSuchOrder(id)
	}
	return o, err
}

func noSuchOrder(id stock.OrderID) error { return fmt.Errorf("%w: %.80q", ErrNoSuchOrder, string(id)) }

// List pages through a shopper's landed orders, newest first; before "" starts
// at the newest, limit is 1..MaxPage.
func (d *Desk) List(ctx context.Context, user stock.UserID, before stock.OrderID, limit int) ([]Order, error) {
	return d.store.List(ctx, Query{User: user, Before: before, Limit: min(max(limit, 1), MaxPage)})
}

// Reservation answers a shopper's reservation in its present state, or
// stock.ErrNoSuchReservation.
func (d *Desk) Reservation(ctx context.Context, user stock.UserID, id stock.ID) (Reservation, error) {
	none := fmt.Errorf("%w: %s", stock.ErrNoSuchReservation, id)
	found, err := d.store.List(ctx, Query{Reservation: &id, Limit: 1})
	if err != nil {
		return Reservation{}, fmt.Errorf("reservation %s: %w", id, err)
	}
	if len(found) > 0 {
		if found[0].User != user {
			return Reservation{}, none
		}
		d.tellLedger(ctx, found[0])
		return reservationOf(found[0])
	}
	r, err := d.ledger.Lookup(ctx, stock.Ref{ID: id, User: user})
	if err != nil {
		return Reservation{}, fmt.Errorf("reservation %s: %w", id, err)
	}
	if r.User != user {
		return Reservation{}, none
	}
	return Reservation{Reservation: r.Reservation, OrderState: unlanded(r.State)}, nil
}

// Bounds of Standing: how long it waits for the store, and how long it then
// leaves a store alone that did not answer.
const (
	standingWait  = 250 * time.Millisecond
	standingSleep = time.Second
)

// Standing is what a reservation is by its order, which has the last word once
// it has landed. It is for who has only asked the ledger, and the ledger follows
// the order by events: a busy relay is a second behind. ok is false when the
// order has not landed, and also when the store does not say so at once: then
// what the ledger says has to do, as a replay of a key must not need the store.
func (d *Desk) Standing(ctx context.Context, id stock.ID) (state stock.State, ok bool) {
	now := d.now()
	if now.UnixMilli() < d.blind.Load() {
		return 0, false
	}
	call, cancel := context.WithTimeout(ctx, standingWait)
	defer cancel()
	found, err := d.store.List(call, Query{Reservation: &id, Limit: 1})
	if err != nil && ctx.Err() == nil {
		d.blind.Store(now.Add(standingSleep).UnixMilli())
	}
	if err != nil || len(found) == 0 {
		return 0, false
	}
	o := &found[0]
	d.tellLedger(ctx, *o)
	return stateOf(o.State, o.Reason, o.Terms.Restock), true
}

// Pay starts a payment, or finds the open one, and answers where to pay. It
// waits up to 2 s for landing, then ErrNotReady. Other errors as Cashier.Start.
func (d *Desk) Pay(ctx context.Context, user stock.UserID, id stock.OrderID, returnURL string) (payURL string, err error) {
	if err := d.await(ctx, user, id); err != nil {
		return "", err
	}
	return d.cashier.Start(ctx, id, returnURL)
}

// Cancel releases an unpaid order at once, without asking the provider: money
// that arrives afterwards is a late payment. Again is no change. It waits up
// to 2 s for landing, then ErrNotReady; ErrState when the order is paid or ended.
func (d *Desk) Cancel(ctx context.Context, user stock.UserID, id stock.OrderID) (Order, error) {
	if err := d.await(ctx, user, id); err != nil {
		return Order{}, err
	}
	now := stock.MillisOf(d.now())
	o, err := edit(ctx, d.store, id, now, 0, func(o *Order) ([]outbox.Message, error) {
		if o.State == Cancelled && o.Reason == ReasonShopper {
			return nil, errUnchanged
		}
		return Transition(o, ActionCancel, ReasonShopper, now)
	})
	if err != nil {
		return Order{}, err
	}
	// Whoever cancels often wants to buy something else at once.
	d.cashier.settler.hasten(ctx, o)
	return o, nil
}

// await returns once the shopper's order has landed.
func (d *Desk) await(ctx context.Context, user stock.UserID, id stock.OrderID) error {
	over := time.NewTimer(landingWait)
	defer over.Stop()
	poll := time.NewTicker(landingPoll)
	defer poll.Stop()
	for known := false; ; {
		changed := d.changed()
		_, err := d.landed(ctx, user, id)
		if !errors.Is(err, ErrNoSuchOrder) {
			return err
		}
		if !known { // an id that was never given out is not worth waiting for
			o, err := d.Get(ctx, user, id)
			if err == nil && o.State == Refused { // it will never land
				err = fmt.Errorf("%w: it was refused", ErrState)
			}
			if err != nil {
				return err
			}
			known = true
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-over.C:
			return fmt.Errorf("order %s: %w", id, ErrNotReady)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Callback takes a provider's report. payment.ErrForged and
// payment.ErrMalformed as the provider finds; ErrNoSuchOrder for a provider,
// payment or order that is not known here. The same report again is no change.
func (d *Desk) Callback(ctx context.Context, provider string, header func(string) string, body []byte) error {
	at := d.cashier.provider(provider)
	if at == nil {
		return fmt.Errorf("%w: no provider %.40q", ErrNoSuchOrder, provider)
	}
	st, err := at.Parse(header, body)
	if err != nil {
		return fmt.Errorf("callback of %s: %w", provider, err)
	}
	id, err := orderOf(st.PaymentID)
	if err != nil {
		return err
	}
	o, err := d.store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("callback of %s about %.80q: %w", provider, st.PaymentID, err)
	}
	if p := o.Money.payment(st.PaymentID); p == nil || p.Provider != provider {
		return fmt.Errorf("%w: payment %.80q of %s", ErrNoSuchOrder, st.PaymentID, provider)
	}
	_, err = d.cashier.Apply(ctx, id, st)
	return err
}

// Fulfil marks a paid order as handed over. Again is no change; ErrState for
// one that is not paid, or whose money is being given back.
func (d *Desk) Fulfil(ctx context.Context, id stock.OrderID) (Order, error) {
	now := stock.MillisOf(d.now())
	return edit(ctx, d.store, id, now, 0, func(o *Order) ([]outbox.Message, error) {
		switch {
		case o.State == Fulfilled:
			return nil, errUnchanged
		case o.Refunding():
			return nil, fmt.Errorf("%w: it is being refunded", ErrState)
		}
		return Transition(o, ActionFulfil, "", now)
	})
}

// Refund gives back all money of a paid or fulfilled order. It asks the
// provider at once; if that does not succeed, the worker goes on asking, and
// the answered order is still paid, with its refund requested.
func (d *Desk) Refund(ctx context.Context, id stock.OrderID, reason string) (Order, error) {
	o, err := d.cashier.Refund(ctx, id, reason)
	if err != nil {
		return Order{}, err
	}
	if o.LateOf != "" && o.Refunding() {
		return d.cashier.follow(ctx, o, true)
	}
	return d.cashier.pursue(ctx, o)
}

// RetryRefund asks the provider once more for one refund that is stuck, and
// leaves the order what it is.
func (d *Desk) RetryRefund(ctx context.Context, id stock.OrderID, refund string) (Order, error) {
	o, err := d.cashier.RetryRefund(ctx, id, refund)
	if err != nil {
		return Order{}, err
	}
	return d.cashier.pursue(ctx, o)
}
