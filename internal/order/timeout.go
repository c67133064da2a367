package order

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Keeper looks at orders when they are due: it closes unpaid ones that have
// expired, polls payments, drives refunds and decides about late money.
//
// A time-out asks the provider first about every payment it may have: money
// that is found pays the order, and a provider that does not answer postpones
// the time-out, for late is better than wrong. Then the order is cancelled on
// the condition that it is still unpaid and has no payment nobody asked about.
//
// Safe to run in several processes: every change is conditional.
type Keeper struct {
	store   Store
	cashier *Cashier
	late    *Late
	alarms  *Alarms
	now     func() time.Time
	jump    func() time.Duration
	jumped  bool
}

const (
	keeperPage = 256 // orders looked at in one step
	quickHands = 16  // at once, of those that need the store only
	askHands   = 8   // at once, of those that need a provider or the ledger
	maxSilence = 8   // calls in a row without an answer, then the step asks no more
	maxJump    = 5 * time.Second
	maxDelay   = 10 * time.Minute // of time-outs by a clock that jumped
)

// NewKeeper takes jump, which tells by how much the wall clock has leapt ahead
// of the elapsed time, or nil when that is not watched. While it is more than
// 5 s, time-outs are held back by as much, but at most 10 min: a machine that
// slept for a weekend must not keep units from others for another one.
func NewKeeper(store Store, cashier *Cashier, late *Late, alarms *Alarms, now func() time.Time, jump func() time.Duration) *Keeper {
	return &Keeper{store: store, cashier: cashier, late: late, alarms: alarms, now: now, jump: jump}
}

// turn is one step's shared state.
type turn struct {
	delay  stock.Millis // of time-outs
	silent atomic.Int32 // calls in a row that the provider did not answer
}

// Step looks at one page of due orders. One slow call to a provider occupies
// one of eight hands; orders that need no provider do not wait for any.
func (k *Keeper) Step(ctx context.Context) (worked bool, err error) {
	now := stock.MillisOf(k.now())
	due, err := k.store.List(ctx, Query{DueBy: now, Limit: keeperPage})
	if err != nil {
		return false, fmt.Errorf("orders due: %w", err)
	}
	t := &turn{delay: k.delay()}
	var quick, slow []Order
	for _, o := range due {
		if o.needsAnswers(now) {
			slow = append(slow, o)
		} else {
			quick = append(quick, o)
		}
	}
	var failed [2]error
	var both sync.WaitGroup
	both.Go(func() { failed[0] = k.each(ctx, quick, quickHands, t) })
	both.Go(func() { failed[1] = k.each(ctx, slow, askHands, t) })
	both.Wait()
	return len(due) > 0, errors.Join(failed[:]...)
}

func (o *Order) needsAnswers(now stock.Millis) bool {
	for _, p := range o.Money.Payments {
		if p.watched() {
			return true
		}
	}
	for _, r := range o.Money.Refunds {
		if r.State == RefundRequested {
			return true
		}
	}
	for _, c := range o.Money.Captures {
		if c.CheckAt != 0 && c.CheckAt <= now {
			return true
		}
	}
	return o.Refunding()
}

// delay is by how much time-outs are held back, with an alarm when it begins.
func (k *Keeper) delay() stock.Millis {
	var by time.Duration
	if k.jump != nil {
		by = k.jump()
	}
	if by <= maxJump {
		k.jumped = false
		return 0
	}
	if !k.jumped {
		k.jumped = true
		k.alarms.raise(AlarmClockJump, "by", by.String())
	}
	return stock.Millis(min(by, maxDelay).Milliseconds())
}

// each keeps orders with n hands and answers the first error; one order that
// fails does not stop the others.
func (k *Keeper) each(ctx context.Context, orders []Order, n int, t *turn) error {
	var next atomic.Int64
	var once sync.Once
	var first error
	var hands sync.WaitGroup
	for range min(n, len(orders)) {
		hands.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(orders) {
					return
				}
				if err := k.keep(ctx, orders[i], t); err != nil {
					once.Do(func() { first = fmt.Errorf("keep order %s: %w", orders[i].ID, err) })
				}
			}
		})
	}
	hands.Wait()
	return first
}

// keep does everything that one order is due for.
func (k *Keeper) keep(ctx context.Context, o Order, t *turn) error {
	o, answered, err := k.ask(ctx, o, t)
	if err != nil {
		return err
	}
	if o.State == Created {
		if o, err = k.expire(ctx, o.ID, answered, t); err != nil {
			return err
		}
		if o.State == Cancelled {
			k.cashier.settler.hasten(ctx, o)
		}
	}
	if o, err = k.late.decide(ctx, o); err != nil {
		return err
	}
	if o, err = k.cashier.pursue(ctx, o); err != nil {
		return err
	}
	if o.Refunding() && o.LateOf != "" {
		if o, err = k.cashier.follow(ctx, o, false); err != nil {
			return err
		}
	}
	return k.rest(ctx, o, t)
}

// rest schedules an order anew that was due for nothing.
func (k *Keeper) rest(ctx context.Context, o Order, t *turn) error {
	now := stock.MillisOf(k.now())
	if o.CheckAt == 0 || o.CheckAt > now {
		return nil
	}
	_, err := edit(ctx, k.store, o.ID, now, t.delay, func(o *Order) ([]outbox.Message, error) {
		if o.CheckAt == 0 || o.CheckAt > now {
			return nil, errUnchanged
		}
		return nil, nil
	})
	return err
}

// ask polls the payments that are due, or all that are watched when the order
// has expired, and answers which of them the provider has spoken about.
func (k *Keeper) ask(ctx context.Context, o Order, t *turn) (is Order, answered map[string]bool, err error) {
	answered = make(map[string]bool)
	now := stock.MillisOf(k.now())
	expired := o.State == Created && now >= o.ExpiresAt+t.delay
	is = o
	for _, p := range o.Money.Payments {
		if !p.watched() || (p.CheckAt > now && !expired) {
			continue
		}
		if t.silent.Load() >= maxSilence {
			is, err = k.cashier.edit(ctx, o.ID, func(o *Order, now stock.Millis) ([]outbox.Message, []alarm, error) {
				return nil, o.looked(p.ID, false, false, now), nil
			})
		} else {
			is, answered[p.ID], err = k.cashier.poll(ctx, o.ID, p)
			if answered[p.ID] {
				t.silent.Store(0)
			} else {
				t.silent.Add(1)
			}
		}
		if err != nil {
			return o, nil, err
		}
	}
	return is, answered, nil
}

// expire cancels an order whose time is over; before that it reminds the
// shopper once, or only schedules the next look. The
// condition is checked in the transaction that cancels: a payment that won
// meanwhile stands, and one that was started meanwhile is asked about first.
func (k *Keeper) expire(ctx context.Context, id stock.OrderID, answered map[string]bool, t *turn) (Order, error) {
	now := stock.MillisOf(k.now())
	return editAndRest(ctx, k.store, id, now, t.delay, func(o *Order) ([]outbox.Message, stock.Millis, error) {
		if o.State != Created {
			return nil, 0, errUnchanged
		}
		if now < o.ExpiresAt+t.delay {
			if remind := o.remindAt(); remind != 0 && now >= remind && !o.Money.Reminded {
				o.Money.Reminded = true
				return []outbox.Message{reminder(o, now)}, 0, nil
			}
			if o.CheckAt > now {
				return nil, 0, errUnchanged
			}
			return nil, 0, nil
		}
		for _, p := range o.Money.Payments {
			if p.watched() && !answered[p.ID] {
				return nil, postponed, nil
			}
		}
		events, err := Transition(o, ActionTimeout, "", now)
		return events, 0, err
	})
}
