package order

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/payment"
	"sluice/internal/stock"
)

// Refund asks for all money of a paid or fulfilled order to be given back; the
// order is refunded once what paid it has been. Refunds that are stuck are tried
// again with it, whatever the order's state. Asked again meanwhile or afterwards
// it answers the order as it is. ErrState when there is nothing to give back.
func (c *Cashier) Refund(ctx context.Context, id stock.OrderID, reason string) (Order, error) {
	if reason == "" {
		reason = ReasonOperator
	}
	o, err := c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		retried := o.retryStuck(now)
		switch rest := (o.State == Paid || o.State == Fulfilled) && !o.Refunding(); {
		case rest:
		case retried:
			return nil, nil, nil
		case o.Refunding(), o.State == Refunded:
			return nil, nil, errUnchanged
		default:
			return nil, nil, fmt.Errorf("%w: it is %s", ErrState, o.State)
		}
		o.Reason = reason
		if o.LateOf != "" {
			o.Money.Chases, o.Money.ChaseAt = 0, now
		}
		for _, paid := range o.Money.Captures {
			if paid.Pays == o.ID {
				o.giveBack(paid.ID, ReasonOperator, now)
			}
		}
		events, err := o.refunded(now) // at once when there was nothing to pay
		return events, nil, err
	})
	if err != nil {
		return Order{}, fmt.Errorf("refund order %s: %w", id, err)
	}
	return o, nil
}

// RetryRefund tries one refund again that is stuck, and nothing else: the order
// stays what it is. One that is under way or done is no change; ErrState when
// the order has no such refund.
func (c *Cashier) RetryRefund(ctx context.Context, id stock.OrderID, refund string) (Order, error) {
	o, err := c.edit(ctx, id, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		for i := range o.Money.Refunds {
			if r := &o.Money.Refunds[i]; r.ID == refund {
				if !r.retry(now) {
					return nil, nil, errUnchanged
				}
				return nil, nil, nil
			}
		}
		return nil, nil, fmt.Errorf("%w: it has no refund %.80q", ErrState, refund)
	})
	if err != nil {
		return Order{}, fmt.Errorf("retry refund of order %s: %w", id, err)
	}
	return o, nil
}

func (o *Order) retryStuck(now stock.Millis) (any bool) {
	for i := range o.Money.Refunds {
		any = o.Money.Refunds[i].retry(now) || any
	}
	return any
}

func (r *Refund) retry(now stock.Millis) bool {
	if r.State != RefundStuck {
		return false
	}
	r.State, r.Attempts, r.CheckAt = RefundRequested, 0, now
	return true
}

// pursue asks the provider for every refund of o that is due.
func (c *Cashier) pursue(ctx context.Context, o Order) (Order, error) {
	now := stock.MillisOf(c.now())
	for _, r := range o.Money.Refunds {
		if r.State != RefundRequested || r.CheckAt > now {
			continue
		}
		is, err := c.refund(ctx, o, r)
		if err != nil {
			return o, err
		}
		o = is
	}
	return o, nil
}

// refund makes one call and saves what came of it.
func (c *Cashier) refund(ctx context.Context, o Order, r Refund) (Order, error) {
	var got payment.RefundState
	failed := fmt.Errorf("%w: the provider of %s is not configured", payment.ErrProvider, r.Payment)
	if p := o.Money.payment(r.Payment); p != nil && c.provider(p.Provider) != nil {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		got, failed = c.provider(p.Provider).Refund(call, payment.RefundRequest{
			ID: r.ID, PaymentID: r.Payment, CaptureID: r.Capture, Amount: r.Amount,
		})
		cancel()
	}
	final := errors.Is(failed, payment.ErrRefused) || errors.Is(failed, payment.ErrNoSuchPayment)
	if failed != nil && !final {
		c.log.Warn("refund is not through yet", "order", o.ID, "refund", r.ID, "attempts", r.Attempts+1, "error", failed)
	}
	return c.edit(ctx, o.ID, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		is := o.Money.refundOf(r.Capture)
		if is == nil || is.State != RefundRequested {
			return nil, nil, errUnchanged // somebody else asked too, and was first
		}
		is.Attempts++
		switch {
		case failed == nil && got == payment.RefundDone:
			is.State, is.CheckAt = RefundDone, 0
			events, err := o.refunded(now)
			return events, nil, err
		case final:
			is.State, is.CheckAt = RefundStuck, 0
			return nil, []alarm{{AlarmRefundStuck, []any{"order", o.ID, "refund", r.ID, "amount", r.Amount.String(), "error", failed.Error()}}}, nil
		}
		is.CheckAt = backOff(is.Attempts, now)
		return nil, nil, nil
	})
}

// follow drives the refund of an order that late money paid. That money lies
// with the order it was meant for, so two orders change, one after the other:
// the old one requests the refund, and when it is done the new one ends. Each
// half is idempotent, and ChaseAt brings the worker back until both are done.
// asked says that an operator asks (again): a refund that is stuck with the old
// order is then tried again.
func (c *Cashier) follow(ctx context.Context, late Order, asked bool) (Order, error) {
	first, err := orderOf(late.LateOf)
	if err != nil {
		return late, err
	}
	old, err := c.edit(ctx, first, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		for _, paid := range o.Money.Captures {
			if paid.Pays == late.ID {
				o.giveBack(paid.ID, ReasonOperator, now)
				return nil, nil, nil
			}
		}
		if asked && o.retryStuck(now) {
			return nil, nil, nil
		}
		return nil, nil, errUnchanged
	})
	if err != nil {
		return late, err
	}
	if old, err = c.pursue(ctx, old); err != nil {
		return late, err
	}
	return c.edit(ctx, late.ID, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
		if !o.Refunding() {
			return nil, nil, errUnchanged
		}
		m := &o.Money
		if !old.gaveBack(late.LateOf) {
			if asked {
				m.Chases = 0
			}
			m.Chases++
			m.ChaseAt = backOff(m.Chases, now)
			return nil, nil, nil
		}
		m.ChaseAt = 0
		events, err := Transition(o, ActionRefund, o.Reason, now)
		return events, nil, err
	})
}

// gaveBack says whether the late money of a payment has been returned on an
// operator's request. ReplacedBy is saved with Pays: before it is there, the
// money is not yet assigned, and the refund waits.
func (o *Order) gaveBack(paymentID string) bool {
	for _, r := range o.Money.Refunds {
		if r.Payment == paymentID && r.Reason == ReasonOperator && r.State == RefundDone {
			return true
		}
	}
	return false
}
