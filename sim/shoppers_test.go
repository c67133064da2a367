package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// shoppers are everybody who buys. They remember every reply.
type shoppers struct {
	w        *world
	keys     int
	attempts []*attempt // under way
	asked    []*intent  // everything ever asked for, by key
}

// intent is one purchase that a shopper wants, under one key.
type intent struct {
	activity stock.ActivityID
	user     stock.UserID
	key      string
	lines    []stock.Line
	receipt  *stock.Receipt // once it was answered
}

// attempt is one call for an intent.
type attempt struct {
	*intent
	lines  []stock.Line
	cancel context.CancelFunc
	lost   bool // the reply will not arrive
	done   bool
	got    stock.Receipt
	err    error
	watch  *watch
}

const users = 12

func newShoppers(w *world) *shoppers { return &shoppers{w: w} }

// wish makes up a purchase.
func (s *shoppers) wish() *intent {
	w := s.w
	s.keys++
	a := w.ops.current()
	in := &intent{activity: a.ID, user: stock.UserID(fmt.Sprint("u", w.rng.IntN(users)) + w.tail), key: fmt.Sprint("k", s.keys) + w.tail}
	in.lines = s.lines(a)
	s.asked = append(s.asked, in)
	return in
}

func (s *shoppers) lines(a sale.Activity) (lines []stock.Line) {
	w := s.w
	for _, i := range w.rng.Perm(len(a.Items))[:1+w.rng.IntN(min(2, len(a.Items)))] {
		lines = append(lines, stock.Line{SKU: a.Items[i].SKU, Quantity: 1 + w.rng.IntN(3)*w.rng.IntN(2)})
	}
	return lines
}

// call starts an attempt and lets it run until it waits for a commit.
func (s *shoppers) call(in *intent, lines []stock.Line) *attempt {
	w := s.w
	ctx, cancel := context.WithCancel(parked(context.Background()))
	a := &attempt{intent: in, lines: lines, cancel: cancel, lost: w.chance(1, 10)}
	a.watch = w.oracle.watch(in, lines, w.now())
	s.attempts = append(s.attempts, a)
	shop := w.e.shop
	go func() {
		a.got, a.err = shop.Purchase(ctx, sale.PurchaseRequest{Activity: in.activity, User: in.user, Key: in.key, Lines: slices.Clone(lines)})
		a.done = true
	}()
	synctest.Wait()
	w.tell("  %s asks for %v under %s", in.user, lines, in.key)
	return a
}

// replies takes the answers that have arrived, in the order of asking.
func (s *shoppers) replies() {
	w := s.w
	for i := 0; i < len(s.attempts); {
		a := s.attempts[i]
		if !a.done {
			i++
			continue
		}
		s.attempts = slices.Delete(s.attempts, i, i+1)
		a.cancel()
		w.oracle.unwatch(a.watch)
		switch {
		case w.faults.dark:
			w.tell("  %s %s: nothing is heard", a.user, a.key)
		case a.err == nil && a.lost:
			w.fire("reply lost")
		default:
			w.tell("  %s %s: %s %v", a.user, a.key, a.got.Order, a.err)
			w.oracle.answered(a)
		}
	}
}

// hangUp ends all calls: their process is going down.
func (s *shoppers) hangUp() {
	s.replies()
	for _, a := range s.attempts {
		a.cancel()
	}
	synctest.Wait()
	for _, a := range s.attempts {
		if !a.done {
			s.w.violate("purchase %s of %s does not end when its caller goes", a.key, a.user)
		}
		s.w.oracle.unwatch(a.watch)
	}
	s.attempts = nil
}

func (s *shoppers) buy() {
	for range 1 + s.w.rng.IntN(4) {
		in := s.wish()
		s.call(in, in.lines)
	}
	s.replies()
}

// again picks an earlier intent, mostly a recent one.
func (s *shoppers) again() *intent {
	if len(s.asked) == 0 {
		return s.wish()
	}
	last := s.asked[max(0, len(s.asked)-12):]
	if s.w.chance(1, 3) {
		last = s.asked
	}
	return pick(s.w, last)
}

func (s *shoppers) retry() {
	in := s.again()
	if in.receipt == nil {
		s.w.fire("retry of an unknown")
	} else {
		s.w.fire("retry of a receipt")
	}
	s.call(in, in.lines)
}

// mismatch sends other lines under a known key.
func (s *shoppers) mismatch() {
	in := s.again()
	lines := slices.Clone(in.lines)
	lines[0].Quantity++
	s.w.fire("same key, other body")
	s.call(in, lines)
}

func (s *shoppers) doubleClick() {
	s.w.fire("double click")
	in := s.wish()
	s.call(in, in.lines)
	s.call(in, in.lines)
	if s.w.chance(1, 2) {
		s.call(in, in.lines)
	}
}

// giveUp closes the connection of somebody who waits.
func (s *shoppers) giveUp() {
	in := s.wish()
	a := s.call(in, in.lines)
	if a.done {
		return
	}
	s.w.fire("gave up waiting")
	a.cancel()
	synctest.Wait()
	if !errors.Is(a.err, stock.ErrUnknown) {
		s.w.violate("%s gave up waiting for %s and is told %v", a.user, a.key, a.err)
	}
}

// nonsense is out of shape. It must change nothing.
func (s *shoppers) nonsense() {
	w := s.w
	in := s.wish()
	in.lines = pick(w, [][]stock.Line{
		{{SKU: in.lines[0].SKU, Quantity: 0}},
		{{SKU: "nothing", Quantity: 1}},
		{{SKU: in.lines[0].SKU, Quantity: 1}, {SKU: in.lines[0].SKU, Quantity: 1}},
		{},
	})
	s.asked = s.asked[:len(s.asked)-1]
	if a := s.call(in, in.lines); !a.done {
		return // a refusal that rests on an entry under way
	}
}

// meanwhile is called in the middle of a sync of the log.
func (s *shoppers) meanwhile() {
	w := s.w
	w.oracle.counts()
	for range 1 + w.rng.IntN(3) {
		in := s.wish()
		if w.chance(1, 3) {
			in = s.again()
		}
		if a := s.call(in, in.lines); !a.done {
			w.fire("refused while syncing")
		}
	}
	w.oracle.counts()
}

// mine is an order that some shopper knows of.
func (s *shoppers) mine() *intent {
	var have []*intent
	for _, in := range s.asked {
		if in.receipt != nil {
			have = append(have, in)
		}
	}
	if len(have) == 0 {
		return nil
	}
	if len(have) > 15 && s.w.chance(3, 4) {
		have = have[len(have)-15:]
	}
	return pick(s.w, have)
}

// unheard says whether an error says nothing about the engine: the machine was
// going down, or the store was made to fail.
func (w *world) unheard(err error) bool {
	return w.faults.dark || errors.Is(err, errStore) || errors.Is(err, errPower) || errors.Is(err, stock.ErrUnknown) ||
		errors.Is(err, stock.ErrNotReady) || w.e.ledger.Failed() != nil || w.e.ledger.Full() != nil
}

func (s *shoppers) pay() {
	w, in := s.w, s.mine()
	if in == nil {
		return
	}
	url, err := w.e.orders.Pay(context.Background(), in.user, in.receipt.Order, "")
	w.tell("  %s pays %s: %s %v", in.user, in.receipt.Order, url, err)
	switch {
	case errors.Is(err, order.ErrNotReady):
		w.fire("order not landed")
	case errors.Is(err, order.ErrNoSuchOrder) && !w.unheard(err):
		w.violate("order %s of %s is not there for its owner to pay", in.receipt.Order, in.user)
	}
}

// payPage is a shopper at the provider, now or later.
func (s *shoppers) payPage() {
	w := s.w
	if len(w.provider.ids) == 0 {
		return
	}
	recent := w.provider.ids[max(0, len(w.provider.ids)-10):]
	id := pick(w, recent)
	what := pick(w, []string{"pay", "pay", "pay", "pay", "pay", "fail", "wrong amount", "wrong currency", "twice"})
	if w.chance(1, 4) {
		w.provider.later = append(w.provider.later, visit{id, what, w.elapsed() + time.Duration(w.rng.IntN(1200))*time.Second})
		return
	}
	w.provider.visit(id, what)
}

func (s *shoppers) cancel() {
	w, in := s.w, s.mine()
	if in == nil {
		return
	}
	o, err := w.e.orders.Cancel(context.Background(), in.user, in.receipt.Order)
	w.tell("  %s cancels %s: %v", in.user, in.receipt.Order, err)
	switch {
	case w.faults.dark:
	case err == nil:
		w.fire("cancelled")
		if o.State != order.Cancelled {
			w.violate("cancelling order %s answers it as %s", o.ID, o.State)
		}
		w.oracle.promise(in.receipt.Order, order.Cancelled)
	case errors.Is(err, order.ErrNotReady):
		w.fire("order not landed")
	case errors.Is(err, order.ErrNoSuchOrder) && !w.unheard(err):
		w.violate("order %s of %s is not there for its owner to cancel", in.receipt.Order, in.user)
	}
}

// look reads what a shopper may always read.
func (s *shoppers) look() {
	w, in := s.w, s.mine()
	if in == nil {
		return
	}
	ctx := context.Background()
	o, err := w.e.orders.Get(ctx, in.user, in.receipt.Order)
	switch {
	case err != nil && !w.unheard(err):
		w.violate("order %s on a receipt of %s: %v", in.receipt.Order, in.user, err)
	case err == nil && (o.Reservation != in.receipt.ID || o.User != in.user || o.ExpiresAt != in.receipt.Expires):
		w.violate("order %s reads %s of %s, its receipt said %s", o.ID, o.Reservation, o.User, in.receipt.ID)
	}
	r, err := w.e.orders.Reservation(ctx, in.user, in.receipt.ID)
	switch {
	case err != nil && !w.unheard(err):
		w.violate("reservation %s on a receipt of %s: %v", in.receipt.ID, in.user, err)
	case err == nil && (r.Order != in.receipt.Order || r.Expires != in.receipt.Expires || !slices.Equal(r.Lines, in.receipt.Lines)):
		w.violate("reservation %s reads %+v, its receipt said %+v", in.receipt.ID, r.Reservation, in.receipt.Reservation)
	}
	stranger := in.user + "x"
	if _, err := w.e.orders.Get(ctx, stranger, in.receipt.Order); !errors.Is(err, order.ErrNoSuchOrder) && !w.unheard(err) {
		w.violate("a stranger reads order %s: %v", in.receipt.Order, err)
	}
	if _, err := w.e.orders.List(ctx, in.user, "", 50); err != nil && !w.unheard(err) {
		w.violate("orders of %s: %v", in.user, err)
	}
}
