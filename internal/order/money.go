package order

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Why a capture is given back without anybody asking for it.
const (
	refundLate          = "late"
	refundSecond        = "second_capture"
	refundWrongAmount   = "wrong_amount"
	refundWrongCurrency = "wrong_currency"
)

// Balance says where the captured money of one currency is, in minor units.
// Captured = Paying + Owed + Refunded + Undecided, always.
type Balance struct {
	Captured  int64
	Paying    int64 // pays an order (this one, or the one that replaced it)
	Owed      int64 // to be given back: requested of the provider, or stuck
	Refunded  int64 // given back
	Undecided int64 // late; the ledger is being asked whether it may pay
}

// Balances are m's captures by currency.
func (m *Money) Balances() map[string]Balance {
	all := make(map[string]Balance)
	for i := range m.Captures {
		c := &m.Captures[i]
		b := all[c.Amount.Currency]
		b.Captured += c.Amount.Amount
		r := m.refundOf(c.ID)
		switch {
		case c.Pays != "":
			b.Paying += c.Amount.Amount
		case r == nil:
			b.Undecided += c.Amount.Amount
		case r.State == RefundDone:
			b.Refunded += c.Amount.Amount
		default:
			b.Owed += c.Amount.Amount
		}
		all[c.Amount.Currency] = b
	}
	return all
}

func (m *Money) payment(id string) *Payment {
	i := slices.IndexFunc(m.Payments, func(p Payment) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return &m.Payments[i]
}

func (m *Money) capture(id string) *Capture {
	i := slices.IndexFunc(m.Captures, func(c Capture) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &m.Captures[i]
}

func (m *Money) refundOf(capture string) *Refund {
	i := slices.IndexFunc(m.Refunds, func(r Refund) bool { return r.Capture == capture })
	if i < 0 {
		return nil
	}
	return &m.Refunds[i]
}

// watched says whether p is still polled: what it may report must be known
// before its order is closed.
func (p *Payment) watched() bool { return p.open() || p.CheckAt != 0 }

// open says whether the provider may still report something new of p.
func (p *Payment) open() bool { return p.State == PaymentStarting || p.State == PaymentStarted }

// undecided says whether c is late money whose use is not settled yet.
func (m *Money) undecided(c *Capture) bool {
	return c.Late && c.Pays == "" && m.refundOf(c.ID) == nil
}

// orderOf reads the order out of our payment id "<order>-<n>".
func orderOf(paymentID string) (stock.OrderID, error) {
	order, n, ok := cutLast(paymentID, '-')
	if v, err := strconv.ParseUint(n, 10, 16); !ok || order == "" || len(order) > stock.MaxID || err != nil || v == 0 {
		return "", fmt.Errorf("%w: %.80q is no payment of ours", ErrNoSuchOrder, paymentID)
	}
	return stock.OrderID(order), nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// receive records what a provider says of one payment. It is pure, and calling
// it again with the same or an older status is no change: a capture id is
// counted once, and money is never un-received.
//
// The first capture of the right amount and currency pays an order that is
// created. Every other one is to be given back, except late money that the
// ledger may still find units for.
func (o *Order) receive(st payment.Status, now stock.Millis) (events []outbox.Message, alarms []alarm, err error) {
	p := o.Money.payment(st.PaymentID)
	if p == nil {
		return nil, nil, fmt.Errorf("%w: order %s never started payment %.80q", ErrNoSuchOrder, o.ID, st.PaymentID)
	}
	if err := sane(st); err != nil {
		return nil, nil, err
	}
	for _, c := range st.Captures {
		if o.Money.capture(c.ID) != nil {
			continue
		}
		if p.State != PaymentCaptured {
			// One more look later: of two captures, one callback may be lost.
			p.State, p.CheckAt = PaymentCaptured, now+recheck
		}
		e, why, err := o.capture(p, Capture{ID: c.ID, Payment: p.ID, Amount: c.Amount, At: now}, now)
		if err != nil {
			return nil, nil, err
		}
		events = append(events, e...)
		if why != "" && why != refundLate {
			alarms = append(alarms, alarm{why, []any{"order", o.ID, "payment", p.ID, "capture", c.ID, "amount", c.Amount.String()}})
		}
	}
	if st.State == payment.Failed && p.open() {
		p.State, p.CheckAt = PaymentFailed, 0
	}
	return events, alarms, nil
}

// sane refuses a status whose captures could not be kept, before any is.
func sane(st payment.Status) error {
	if len(st.Captures) > payment.MaxCaptures {
		return fmt.Errorf("%w: %d captures of one payment", payment.ErrMalformed, len(st.Captures))
	}
	for _, c := range st.Captures {
		if c.ID == "" || len(c.ID) > 64 || c.Amount.Amount == 0 || c.Amount.Validate() != nil {
			return fmt.Errorf("%w: capture %.80q of %.40q", payment.ErrMalformed, c.ID, c.Amount.String())
		}
	}
	return nil
}

// capture adds new money and says why it is given back, "" if it is not.
func (o *Order) capture(p *Payment, c Capture, now stock.Millis) (events []outbox.Message, why string, err error) {
	late := o.State == Cancelled
	decided := o.ReplacedBy != "" || slices.ContainsFunc(o.Money.Captures, func(c Capture) bool { return o.Money.undecided(&c) })
	switch {
	case c.Amount.Currency != p.Amount.Currency:
		why = refundWrongCurrency
	case c.Amount.Amount != p.Amount.Amount:
		why = refundWrongAmount
	case o.State == Created:
		c.Pays = o.ID
		if events, err = Transition(o, ActionPay, "", now); err != nil {
			return nil, "", err
		}
	case late && decided:
		why = refundSecond
	case late && o.Terms.LatePayment == pricing.RereserveOrRefund:
		c.Late, c.CheckAt = true, now
	case late, o.State == Refused:
		c.Late, why = true, refundLate
	default:
		why = refundSecond
	}
	o.Money.Captures = append(o.Money.Captures, c)
	if why != "" {
		o.giveBack(c.ID, why, now)
	}
	return events, why, nil
}

// giveBack requests the refund of a capture. The request is saved with the
// order before the provider is asked, and made once for each capture.
func (o *Order) giveBack(capture, reason string, now stock.Millis) {
	c := o.Money.capture(capture)
	if c == nil || o.Money.refundOf(capture) != nil {
		return
	}
	n := 1
	for _, r := range o.Money.Refunds {
		if r.Payment == c.Payment {
			n++
		}
	}
	c.Pays, c.CheckAt = "", 0
	o.Money.Refunds = append(o.Money.Refunds, Refund{
		ID:      fmt.Sprintf("%s-r%d", c.Payment, n),
		Payment: c.Payment,
		Capture: c.ID,
		Amount:  c.Amount,
		Reason:  reason,
		State:   RefundRequested,
		At:      now,
		CheckAt: now,
	})
}

// refunded ends an order whose refund was asked for, once everything that
// paid it has been given back. Money of a late order lies with the order that
// it was meant for (late.go).
func (o *Order) refunded(now stock.Millis) ([]outbox.Message, error) {
	if !o.Refunding() || o.LateOf != "" {
		return nil, nil
	}
	for _, r := range o.Money.Refunds {
		if r.Reason == ReasonOperator && r.State != RefundDone {
			return nil, nil
		}
	}
	return Transition(o, ActionRefund, o.Reason, now)
}

// Refunding says whether the whole order is being refunded: the reason is
// saved with the request, the state changes when the money has been given back.
// Meanwhile its captures have a refund each and pay nothing any more.
func (o *Order) Refunding() bool {
	return o.Reason != "" && (o.State == Paid || o.State == Fulfilled)
}

// Times between looks at an order, in milliseconds.
const (
	recheck   stock.Millis = 60_000 // at a captured payment, once
	postponed stock.Millis = 15_000 // at a time-out whose provider did not answer
	// pollsEnd is how long after its order was paid or closed a payment that
	// nobody makes is still polled. An order that may yet be paid waits for its
	// provider however long that takes.
	pollsEnd stock.Millis = 7 * 24 * 3_600_000
)

// polls are the pauses after the 1st, 2nd, … look at a started payment. The
// last one repeats until the provider calls the payment final, or pollsEnd.
var polls = [...]time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, time.Minute, time.Minute, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour}

func pollAfter(checks int, now stock.Millis) stock.Millis {
	return now + stock.Millis(polls[min(checks, len(polls)-1)].Milliseconds())
}

// backOff is 1, 2, 4, … s, at most five minutes.
func backOff(attempts int, now stock.Millis) stock.Millis {
	return now + min(stock.Millis(1000)<<min(max(attempts-1, 0), 20), 300_000)
}

// shortestReminded is the hold, in milliseconds, up to which nobody is
// reminded: who has so little time is still looking at the page.
const shortestReminded stock.Millis = 60_000

// remindAt is when the shopper is told that payment is due: when a third of
// the time to pay is left, and 10 minutes before its end at the earliest. 0 = never.
func (o *Order) remindAt() stock.Millis {
	hold := o.ExpiresAt - o.CreatedAt
	if hold <= shortestReminded {
		return 0
	}
	return o.ExpiresAt - min(hold/3, 600_000)
}

// schedule sets when the order must be looked at next: the soonest of its
// time-out and whatever its money waits for. delay holds time-outs back (a
// clock that jumped). A time-out that has passed is due at once, or after rest
// when its provider did not answer.
func (o *Order) schedule(now, delay, rest stock.Millis) {
	next := stock.Millis(0)
	due := func(at stock.Millis) {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	if o.State == Created {
		at := max(o.ExpiresAt+delay, 1)
		if at <= now {
			at = now + rest
		}
		due(at)
		if remind := o.remindAt(); !o.Money.Reminded && remind > now {
			due(remind)
		}
	}
	for _, p := range o.Money.Payments {
		due(p.CheckAt)
	}
	for _, r := range o.Money.Refunds {
		due(r.CheckAt)
	}
	for i := range o.Money.Captures {
		c := &o.Money.Captures[i]
		if c.CheckAt == 0 && o.Money.undecided(c) { // a row from elsewhere: nobody would look at it
			c.CheckAt = now
		}
		due(c.CheckAt)
	}
	due(o.Money.ChaseAt)
	o.CheckAt = next
}
