package storm

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// button is one of the provider's pay page, by the value of its form field
// "action".
type button string

// The buttons. All but the first are what goes wrong with payments.
const (
	buttonPay    button = "pay"
	buttonTwice  button = "duplicate"       // captures twice
	buttonWrong  button = "wrong_amount"    // captures another amount than was asked for
	buttonSilent button = "never_call_back" // captures, and tells only who asks
	buttonLate   button = "pay_late"        // captures after a number of seconds
	buttonFail   button = "fail"            // captures nothing
)

var mishaps = [...]button{buttonTwice, buttonWrong, buttonSilent, buttonLate, buttonFail}

// takes are the amounts that a button captures of a total.
func (b button) takes(total Money) []Money {
	switch b {
	case buttonTwice:
		return []Money{total, total}
	case buttonWrong:
		total.Amount--
		return []Money{total}
	case buttonFail:
		return nil
	}
	return []Money{total}
}

// buys says whether the button takes the price, and so may pay an order.
func (b button) buys() bool { return b != buttonFail && b != buttonWrong }

// press is one button pressed on one page, for one payment: the storm's own
// record of money, beside which the shop's is held.
type press struct {
	button button
	page   string
	sent   time.Time     // when it was pressed first
	delay  time.Duration // of pay_late
	// answered is when the provider said that it was done. Zero: the answer
	// was lost each time, and the money may or may not have moved.
	answered time.Time
}

// moved says whether the money of the press has moved for certain by now.
func (p press) moved(now time.Time) bool {
	return !p.answered.IsZero() && !now.Before(p.answered.Add(p.delay))
}

// priced says whether the price may have been taken for r, whether it has been
// for certain by now, and whether that was before r's expiry for certain.
func (r *receipt) priced(now time.Time) (may, must, inTime bool) {
	for _, p := range r.presses {
		if p.button.buys() {
			may = true
			must = must || p.moved(now)
			inTime = inTime || p.moved(r.expires.Add(-expiryMargin))
		}
	}
	return may, must, inTime
}

// charges counts r's captures by amount: those that must have happened by now,
// and those that may have besides.
func (r *receipt) charges(now time.Time) (must, may map[Money]int) {
	must, may = map[Money]int{}, map[Money]int{}
	for _, p := range r.presses {
		to := may
		if p.moved(now) {
			to = must
		}
		for _, m := range p.button.takes(r.given.Total) {
			to[m]++
		}
	}
	return must, may
}

// pressing must be called before a button is pressed, each time.
func (o *oracle) pressing(r *receipt, b button, page string, delay time.Duration, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Only money that comes in time can turn the held unit into a sold one.
	if b.buys() && b != buttonLate {
		o.press(r)
	}
	if b.buys() {
		o.await(r, true)
	}
	for _, p := range r.presses {
		if p.page == page {
			return
		}
	}
	r.presses = append(r.presses, press{button: b, page: page, sent: now, delay: delay})
	o.pressed[string(b)]++
}

// press ends the certainty that nobody has paid for the unit of r.
func (o *oracle) press(r *receipt) {
	if r.counts && !r.pressed {
		o.unpaid.Add(-1)
	}
	r.pressed = true
}

// await says whether the price may have been taken for r without its buyer
// having been shown what came of it. Such money may take a unit at any moment.
func (o *oracle) await(r *receipt, open bool) {
	if r.awaits != open {
		r.awaits = open
		o.awaited += map[bool]int{true: 1, false: -1}[open]
	}
}

// charged: the provider says that what the button does is done.
func (o *oracle) charged(r *receipt, page string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range r.presses {
		if p := &r.presses[i]; p.page == page && p.answered.IsZero() {
			p.answered = now
		}
	}
}

// fate of money that may have been taken for an order that has ended.
type fate uint8

const (
	fateNone    fate = iota // no money was taken that could have bought anything
	fateOpen                // it was taken; what became of it is not shown yet
	fateBought              // it bought the same again, or nobody can tell that it did not
	fateGivenUp             // it was given back
)

// fateOf reads what the shop shows the buyer of an order that has ended.
func (o *oracle) fateOf(r *receipt, shown shownOrder, now time.Time) fate {
	o.mu.Lock()
	defer o.mu.Unlock()
	may, must, _ := r.priced(now)
	switch {
	case !may:
		return fateNone
	case shown.ReplacedBy != "":
		r.replaced = true
		o.await(r, false)
		return fateBought
	case !must:
		return fateBought
	case shown.Refunded.State == "done" && shown.Refunded.Amount >= r.given.Total.Amount:
		o.await(r, false)
		return fateGivenUp
	}
	return fateOpen
}

// failedStill: the shop still leads to the page of a payment of r that failed
// a grace ago, though it has heard of a payment that was made later.
func (o *oracle) failedStill(r *receipt, page string, grace time.Duration, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.expire(now); !r.counts {
		return
	}
	for _, p := range r.presses {
		if p.page == page && now.Sub(p.answered) > grace && o.heard.After(p.answered) {
			o.broken.add("%s cannot pay for order %s: %s after its payment failed the shop still leads to that one", userName(r.try.user), r.given.Order,
				now.Sub(p.answered).Round(time.Millisecond))
			return
		}
	}
}

// taken sums up what was captured by the presses: at least and at most.
func (o *oracle) taken(now time.Time) (least, most int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.order {
		if len(r.presses) == 0 {
			continue
		}
		must, may := r.charges(now)
		for m, n := range must {
			least += m.Amount * int64(n)
		}
		for m, n := range may {
			most += m.Amount * int64(n)
		}
	}
	return least, least + most
}

// claimed counts the units that somebody has bought or may still buy: those of
// orders that are paid, or whose price may have been taken, or that have not
// expired a grace ago. A slow server has many of these, and none is stranded.
func (o *oracle) claimed(now time.Time, grace time.Duration) (units int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.order {
		open := r.ended.IsZero() && (r.pressed || now.Before(r.expires.Add(grace)))
		if r.paid || open || r.replaced || r.awaits {
			units++
		}
	}
	return units
}

// moneyKept: the shop knows of exactly the money that was taken for an order.
// It pays the order, or another one in its place, or is given back once, and
// each capture has one of these fates for itself.
func (o *oracle) moneyKept(r *receipt, row Order, byID map[string]Order, now time.Time) {
	who := userName(r.try.user)
	must, may := r.charges(now)
	got := map[Money]int{}
	for _, c := range row.Captures {
		got[c.Amount]++
	}
	for m, n := range must {
		if got[m] < n {
			o.broken.add("%s was charged %d × %s for order %s, and the shop knows of %d", who, n, m, row.ID, got[m])
		}
	}
	for m, n := range got {
		if most := must[m] + may[m]; n > most {
			o.broken.add("order %s of %s has %d captures of %s, and %d were made", row.ID, who, n, m, most)
		}
	}
	paying, moved := o.fates(row)
	o.priceKept(r, row, paying, now)
	switch {
	case moved > 1 || (moved == 1) != (row.ReplacedBy != ""):
		o.broken.add("order %s of %s is replaced by order %q, and %d of its captures pay another order", row.ID, who, row.ReplacedBy, moved)
	case row.ReplacedBy != "":
		o.replacedRightly(row, byID)
	}
}

// priceKept: an order is paid by one capture of its price and nothing else,
// and an order whose price was taken in time is paid.
func (o *oracle) priceKept(r *receipt, row Order, paying []Capture, now time.Time) {
	who := userName(r.try.user)
	may, must, inTime := r.priced(now)
	paid := row.State == "paid" || row.State == "fulfilled"
	switch {
	case paid && !may:
		o.broken.add("order %s of %s is %s although nobody paid for it", row.ID, who, row.State)
	case paid && (len(paying) != 1 || paying[0].Amount != row.Total):
		o.broken.add("order %s of %s is %s by %d captures %v, not by one of %s", row.ID, who, row.State, len(paying), paying, row.Total)
	case !paid && len(paying) != 0:
		o.broken.add("order %s of %s is %s, and %d captures pay it", row.ID, who, row.State, len(paying))
	case must && row.State == "created":
		o.broken.add("order %s of %s was paid for and is still unpaid", row.ID, who)
	case inTime && !r.ending && row.State == "cancelled":
		o.broken.add("order %s of %s was paid for before its expiry and is cancelled", row.ID, who)
	}
}

// fates checks that each capture of an order either pays an order or is given
// back once, in full. It answers those that pay this one, and how many pay another.
func (o *oracle) fates(row Order) (paying []Capture, moved int) {
	refunds := map[string][]Refund{}
	for _, f := range row.Refunds {
		refunds[f.Capture] = append(refunds[f.Capture], f)
	}
	for _, c := range row.Captures {
		if first, twice := o.captures[c.ID]; twice {
			o.broken.add("capture %s is listed with order %s and with order %s", c.ID, first, row.ID)
		}
		o.captures[c.ID] = row.ID
		want := 0
		switch c.Pays {
		case "":
			want = 1
		case row.ID:
			paying = append(paying, c)
		default:
			if moved++; c.Pays != row.ReplacedBy {
				o.broken.add("capture %s of order %s pays order %s, which does not replace it", c.ID, row.ID, c.Pays)
			}
		}
		back := refunds[c.ID]
		delete(refunds, c.ID)
		if len(back) != want {
			o.broken.add("capture %s of %s for order %s (%s) pays %q and was refunded %d times instead of %d", c.ID, c.Amount, row.ID, row.State, c.Pays, len(back), want)
		}
		for _, f := range back {
			if f.State != "done" || f.Amount != c.Amount {
				o.broken.add("the refund of capture %s of %s for order %s is %s, of %s", c.ID, c.Amount, row.ID, cmp.Or(f.State, "stateless"), f.Amount)
			}
		}
	}
	for capture := range refunds {
		o.broken.add("order %s has a refund of capture %s, which it does not have", row.ID, capture)
	}
	return paying, moved
}

// replacedRightly: the order that late money bought is the same user's, at the
// same price, paid, says so, and was bought by this order's money only.
func (o *oracle) replacedRightly(row Order, byID map[string]Order) {
	next, ok := byID[row.ReplacedBy]
	switch {
	case !ok || next.User != row.User || next.Total != row.Total:
		o.broken.add("order %s of %s points to order %s, which is not the same user's at the same price", row.ID, row.User, row.ReplacedBy)
	case next.State != "paid" && next.State != "fulfilled":
		o.broken.add("late money for order %s of %s bought order %s, which is %s", row.ID, row.User, next.ID, next.State)
	case !strings.HasPrefix(next.LateOf, row.ID+"-"):
		o.broken.add("late money for order %s of %s bought order %s, which says that payment %q paid it", row.ID, row.User, next.ID, next.LateOf)
	case len(next.Captures)+len(next.Refunds) > 0:
		o.broken.add("order %s was bought by late money for order %s and has %d captures and %d refunds of its own", next.ID, row.ID, len(next.Captures), len(next.Refunds))
	}
	if first, twice := o.replaces[row.ReplacedBy]; twice {
		o.broken.add("order %s replaces order %s and order %s", row.ReplacedBy, first, row.ID)
	}
	o.replaces[row.ReplacedBy] = row.ID
}

func (m Money) String() string { return fmt.Sprintf("%d %s", m.Amount, m.Currency) }
