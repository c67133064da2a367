package storm

import (
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// The bugs of a stall's till.
const (
	chargesTwice   fault = "charges twice"            // pay is booked twice, the second time with a refund
	keepsSecond    fault = "keeps second captures"    // what came twice is not given back
	refundsAnother fault = "refunds another"          // one gets two refunds and the next one none: the sums are right
	sellsShort     fault = "sells for a wrong amount" // any money pays
	neverAsks      fault = "never asks"               // cancels without asking about payments
	keepsLate      fault = "keeps late money"         // it buys nothing and is not given back
	keepsBoth      fault = "refunds what it sold"     // late money buys again and is given back
	lateUnpaid     fault = "sells late, unpaid"       // the order that late money bought is to be paid
	failCloses     fault = "cancels on a failure"     // a failed payment ends the order
	failRefuses    fault = "refuses after a failure"  // a failed payment was the only one
	failHolds      fault = "holds on after a failure" // a failed payment postpones the time-out
	failSticks     fault = "sticks to a failure"      // leads to the page of the failed payment again
)

// stallPage is one payment at the till, which is shop and provider in one: a
// capture is booked at once, or, after never_call_back, when the shop asks.
type stallPage struct {
	id      string
	order   *stallOrder
	pressed button
	due     time.Time // of late money that has not arrived; zero = none
	silent  bool      // captured, and the shop does not know
}

// pageOf is the page of an order's open payment.
func (s *stall) pageOf(o *stallOrder) *stallPage {
	n := 1
	for _, p := range s.pages {
		if p.order == o {
			if p.pressed != buttonFail || s.fault == failSticks || s.fault == failHolds {
				return p
			}
			n++
		}
	}
	p := &stallPage{id: fmt.Sprintf("%s-%d", o.ID, n), order: o}
	s.pages = append(s.pages, p)
	return p
}

// press does what a button of a page does. The same one again is no change.
func (s *stall) press(ctx *fasthttp.RequestCtx, id string) {
	var page *stallPage
	for _, p := range s.pages {
		if p.id == id {
			page = p
		}
	}
	b := button(ctx.FormValue("action"))
	switch {
	case page == nil:
		s.refuse(ctx, 404, "no_such_payment")
		return
	case page.pressed == b:
		s.reply(ctx, 200, map[string]any{})
		return
	case page.pressed != "":
		s.refuse(ctx, 409, "already_decided")
		return
	}
	page.pressed = b
	switch b {
	case buttonSilent:
		page.silent = true
	case buttonLate:
		page.due = time.Now().Add(time.Duration(ctx.Request.PostArgs().GetUintOrZero("seconds")) * time.Second)
	case buttonFail:
		if s.fault == failCloses || s.fault == failRefuses {
			s.release(page.order)
		}
		if s.fault == failHolds {
			page.order.expires = page.order.expires.Add(time.Hour)
		}
		if s.fault == failRefuses {
			page.order.ended, page.order.expires = time.Time{}, time.Now()
		}
	default:
		s.take(page, b)
	}
	s.reply(ctx, 200, map[string]any{})
}

func (s *stall) take(page *stallPage, b button) {
	for _, m := range b.takes(page.order.Total) {
		s.receive(page, m)
		if s.fault == chargesTwice && b == buttonPay {
			s.receive(page, m)
		}
	}
}

// receive books a capture: it pays the order, or buys the same again when it
// came too late and a unit is free, or is given back.
func (s *stall) receive(page *stallPage, m Money) {
	if s.fault == ignoresMoney {
		return
	}
	o := page.order
	c := Capture{ID: fmt.Sprintf("c-%s-%d", page.id, len(o.Captures)+1), Amount: m}
	late := o.State == "cancelled"
	switch {
	case o.State == "created" && (m == o.Total || s.fault == sellsShort):
		o.State, c.Pays = "paid", o.ID
	case late && m == o.Total && o.ReplacedBy == "" && s.free > 0 && !s.has(o.User) && s.fault != keepsLate:
		next := s.accept(o.User, o.User+" late:"+page.id, time.Now())
		next.LateOf, next.State = page.id, "paid"
		if s.fault == lateUnpaid {
			next.State = "created"
		}
		o.ReplacedBy, c.Pays = next.ID, next.ID
	}
	o.Captures = append(o.Captures, c)
	if c.Pays == "" || late && s.fault == keepsBoth {
		s.giveBack(o, c, late)
	}
}

func (s *stall) giveBack(o *stallOrder, c Capture, late bool) {
	if s.fault == keepsLate && late || s.fault == keepsSecond && !late {
		return
	}
	back := Refund{ID: "r" + c.ID, Capture: c.ID, Amount: c.Amount, Reason: "second_capture", State: "done"}
	if late {
		back.Reason = "late"
	}
	if s.fault == refundsAnother && !late {
		if s.owed = append(s.owed, o); len(s.owed)%2 == 1 {
			return
		}
		o.Refunds = append(o.Refunds, back)
	}
	o.Refunds = append(o.Refunds, back)
}

func (s *stall) has(user string) bool {
	for _, o := range s.orders {
		if o.User == user && o.State != "cancelled" {
			return true
		}
	}
	return false
}

// arrive books late money that is due.
func (s *stall) arrive(now time.Time) {
	for _, p := range s.pages {
		if !p.due.IsZero() && now.After(p.due) {
			p.due = time.Time{}
			s.take(p, p.pressed)
		}
		if p.silent && p.order.State == "cancelled" && s.fault != neverAsks { // paid a moment too late
			p.silent = false
			s.take(p, p.pressed)
		}
	}
}

// asked asks about an order's payments and says whether that paid it.
func (s *stall) asked(o *stallOrder) bool {
	for _, p := range s.pages {
		if p.order == o && p.silent && s.fault != neverAsks {
			p.silent = false
			s.take(p, p.pressed)
		}
	}
	return o.State == "paid"
}

func (s *stall) payments() map[string]int64 {
	sums := map[string]int64{}
	for _, o := range s.listed() {
		for _, c := range o.Captures {
			sums["captured"] += c.Amount.Amount
		}
		for _, back := range o.Refunds {
			sums["refunded"] += back.Amount.Amount
		}
	}
	return sums
}

// shown is what the owner sees.
func (s *stall) shown(o *stallOrder) shownOrder {
	if o.gone {
		return shownOrder{State: o.State} // nobody knows any more what it was
	}
	shown := shownOrder{State: o.State, Total: o.Total, ReplacedBy: o.ReplacedBy}
	for _, back := range o.Refunds {
		shown.Refunded.Currency, shown.Refunded.State = back.Amount.Currency, back.State
		shown.Refunded.Amount += back.Amount.Amount
	}
	if strings.HasPrefix(o.Key, "late:") && s.fault == lateUnpaid {
		shown.State = "created"
	}
	return shown
}
