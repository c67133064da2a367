package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/payment"
	"sluice/internal/stock"
)

// Cashier talks to payment providers on behalf of orders. Our ids are saved
// in the order before each call, so a call that was cut off by a crash is
// repeated with the same id and takes effect once. Safe for concurrent use.
type Cashier struct {
	store     Store
	providers []payment.Provider
	callback  func(provider string) string
	alarms    *Alarms
	log       *slog.Logger
	now       func() time.Time
	places    chan struct{} // calls of waiting shoppers under way
	settler   *Settler      // nil: the ledger hears of orders by their events only
}

// Bounds of the conversation with a provider.
const (
	callTimeout    = 5 * time.Second
	maxStarting    = 64 // shoppers whose payment is being started, at once
	maxPayments    = 16 // attempts to pay one order
	unknownIsFinal = stock.Millis(5 * 60_000)
)

// NewCashier takes the providers, the first of which gets new payments (there
// must be one), and the function that answers our callback URL for a provider.
func NewCashier(store Store, providers []payment.Provider, callback func(provider string) string, alarms *Alarms, log *slog.Logger, now func() time.Time) *Cashier {
	if len(providers) == 0 {
		panic("order: a cashier without a payment provider")
	}
	return &Cashier{store, providers, callback, alarms, log, now, make(chan struct{}, maxStarting), nil}
}

// SettleEarly makes the cashier, and the Desk and Keeper on top of it, settle
// an order's reservation as soon as it is paid or cancelled, as well as they
// can, before its event is relayed. Call it before the cashier is used.
func (c *Cashier) SettleEarly(s *Settler) { c.settler = s }

func (c *Cashier) provider(name string) payment.Provider {
	for _, p := range c.providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// Start answers where the shopper pays an order. While a payment is open at
// the provider it is that one's URL again. ErrState unless the order is created
// and not expired; stock.ErrOverloaded when too many are being started;
// payment.ErrProvider or payment.ErrRefused as the provider says.
func (c *Cashier) Start(ctx context.Context, id stock.OrderID, returnURL string) (payURL string, err error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	default:
		return "", fmt.Errorf("start payment of order %s: %w", id, stock.ErrOverloaded)
	}
	p, unpaid, err := c.intend(ctx, id, returnURL)
	if err != nil || p.State == PaymentStarted {
		return p.PayURL, err
	}
	at := c.provider(p.Provider)
	call, cancel := context.WithTimeout(ctx, callTimeout)
	payURL, failed := at.Start(call, payment.StartRequest{
		ID:          p.ID,
		Amount:      unpaid.Terms.Money(),
		Description: "Order " + string(id),
		ReturnURL:   p.ReturnURL,
		CallbackURL: c.callback(p.Provider),
	})
	cancel()
	if failed != nil && !errors.Is(failed, payment.ErrRefused) {
		// Whether it has started is not known; the same id is used again.
		return "", fmt.Errorf("start payment %s: %w", p.ID, failed)
	}
	o, err := c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		is := o.Money.payment(p.ID)
		switch {
		case is == nil || is.State == PaymentCaptured:
			return nil, nil, errUnchanged
		case failed != nil:
			is.State, is.CheckAt = PaymentFailed, 0
		default:
			is.State, is.PayURL, is.CheckAt = PaymentStarted, payURL, pollAfter(0, now)
		}
		return nil, nil, nil
	})
	switch {
	case err != nil:
		return "", err
	case failed != nil:
		return "", fmt.Errorf("start payment %s: %w", p.ID, failed)
	case o.State != Created:
		// Cancelled meanwhile: the payment is watched, but nobody is sent there.
		return "", fmt.Errorf("%w: it is %s", ErrState, o.State)
	}
	return payURL, nil
}

// intend saves the payment that is about to be started, or finds the open one.
func (c *Cashier) intend(ctx context.Context, id stock.OrderID, returnURL string) (Payment, Order, error) {
	var p Payment
	o, err := c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		switch {
		case o.State != Created:
			return nil, nil, fmt.Errorf("%w: it is %s", ErrState, o.State)
		case now >= o.ExpiresAt:
			return nil, nil, fmt.Errorf("%w: the time to pay is over", ErrState)
		}
		for _, open := range o.Money.Payments {
			if open.open() && c.provider(open.Provider) != nil {
				p = open
				return nil, nil, errUnchanged
			}
		}
		if len(o.Money.Payments) >= maxPayments {
			return nil, nil, fmt.Errorf("%w: %d payments were tried", ErrState, maxPayments)
		}
		p = Payment{
			ID:        string(o.ID) + "-" + strconv.Itoa(len(o.Money.Payments)+1),
			Provider:  c.providers[0].Name(),
			Amount:    o.Terms.Money(),
			State:     PaymentStarting,
			ReturnURL: returnURL,
			At:        now,
			CheckAt:   pollAfter(1, now),
		}
		o.Money.Payments = append(o.Money.Payments, p)
		return nil, nil, nil
	})
	return p, o, err
}

// Apply records what a provider says of a payment of the order. It may be
// called with the same or an older status again. ErrNoSuchOrder when the order
// or the payment is not known here.
func (c *Cashier) Apply(ctx context.Context, id stock.OrderID, st payment.Status) (Order, error) {
	return c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		return unlessSame(o, func() ([]outbox.Message, []alarm, error) { return o.receive(st, now) })
	})
}

// unlessSame answers errUnchanged when change left the money as it was, so
// that a repeated callback costs no write.
func unlessSame(o *Order, change func() ([]outbox.Message, []alarm, error)) ([]outbox.Message, []alarm, error) {
	captures, payments := len(o.Money.Captures), o.clone().Money.Payments
	events, alarms, err := change()
	if err != nil || len(o.Money.Captures) != captures {
		return events, alarms, err
	}
	for i, p := range o.Money.Payments {
		if p != payments[i] {
			return events, alarms, nil
		}
	}
	return nil, nil, errUnchanged
}

// poll asks the provider about one payment and records the answer. answered
// says that what it reports is all there is at this moment.
func (c *Cashier) poll(ctx context.Context, id stock.OrderID, p Payment) (is Order, answered bool, err error) {
	var st payment.Status
	failed := fmt.Errorf("%w: %q is not configured", payment.ErrProvider, p.Provider)
	if at := c.provider(p.Provider); at != nil {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		st, failed = at.Query(call, p.ID)
		cancel()
	}
	unknown := errors.Is(failed, payment.ErrNoSuchPayment)
	if failed == nil && st.PaymentID != p.ID {
		failed = fmt.Errorf("%w: asked about %s, it answers about %.80q", payment.ErrProvider, p.ID, st.PaymentID)
	}
	is, err = c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		var events []outbox.Message
		var alarms []alarm
		if failed == nil {
			events, alarms, failed = o.receive(st, now)
		}
		alarms = append(alarms, o.looked(p.ID, unknown, failed == nil, now)...)
		return events, alarms, nil
	})
	if failed != nil && !unknown {
		c.log.Warn("provider does not tell where a payment stands", "order", id, "payment", p.ID, "error", failed)
	}
	return is, failed == nil || unknown, err
}

// looked sets when a payment is polled next, or that it never is again.
func (o *Order) looked(id string, unknown, answered bool, now stock.Millis) []alarm {
	answered = answered || unknown
	p := o.Money.payment(id)
	switch {
	case p == nil || !p.watched():
		return nil
	case !p.open() && answered:
		if p.CheckAt <= now { // else this very look has found the capture, and there is one more
			p.CheckAt = 0
		}
		return nil
	}
	p.Checks++
	p.CheckAt = pollAfter(p.Checks, now)
	switch {
	case unknown && p.State == PaymentStarting && now-p.At > unknownIsFinal:
		// The call that starts it may be under way; later than that, nobody
		// was ever told where to pay, and it ends.
		p.State, p.CheckAt = PaymentFailed, 0
	case o.State != Created && now-max(p.At, o.PaidAt, o.ClosedAt) >= pollsEnd:
		// Nobody pays any more. A callback that comes after all is still taken.
		p.CheckAt = 0
		if p.open() {
			p.State = PaymentFailed
		}
		if !answered {
			return []alarm{{AlarmUnresolved, []any{"order", o.ID, "payment", p.ID, "provider", p.Provider}}}
		}
	}
	return nil
}

// edit saves a change of an order's money with its events, then raises its alarms.
func (c *Cashier) edit(ctx context.Context, id stock.OrderID, change func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error)) (Order, error) {
	var alarms []alarm
	var was State
	now := stock.MillisOf(c.now())
	is, err := edit(ctx, c.store, id, now, 0, func(o *Order) (events []outbox.Message, err error) {
		was = o.State
		events, alarms, err = change(o, now)
		return events, err
	})
	if err != nil {
		return Order{}, err
	}
	for _, a := range alarms {
		c.alarms.raise(a.kind, a.args...)
	}
	if was == Created && is.State == Paid {
		c.settler.hasten(ctx, is)
	}
	return is, nil
}
