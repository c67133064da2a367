package proof

import (
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// move is late money of one order that pays another.
type move struct {
	from, to stock.OrderID
	user     stock.UserID
	amount   pricing.Money
}

// money: every captured minor unit pays one order or goes back, and a paid
// order has been paid exactly its total.
func (c *comparison) money(o order.Order) {
	refunded, asked := map[string]bool{}, map[string]bool{}
	for _, r := range o.Money.Refunds {
		asked[r.Capture] = true
		c.moving = c.moving || r.State != order.RefundDone
		if r.State == order.RefundDone {
			c.report.Payments.Refunded += r.Amount.Amount
			if refunded[r.Capture] {
				c.violated("order %s: capture %s was refunded twice", o.ID, r.Capture)
			}
			refunded[r.Capture] = true
		}
	}
	var paid int64
	for _, m := range o.Money.Captures {
		c.report.Payments.Captured += m.Amount.Amount
		switch {
		case m.Pays == o.ID:
			paid += m.Amount.Amount
			if m.Amount.Currency != o.Terms.Currency {
				c.violated("order %s is paid in %s, its total is in %s", o.ID, m.Amount.Currency, o.Terms.Currency)
			}
		case m.Pays != "":
			c.moved[m.Payment] = move{o.ID, m.Pays, o.User, m.Amount}
		case !refunded[m.ID]:
			c.moving = true
			c.report.Payments.Owed += m.Amount.Amount
			c.deciding[m.Payment] = c.deciding[m.Payment] || m.Late // whatever else came by the same payment
			switch {
			case asked[m.ID]:
			case !m.Late:
				c.violated("order %s: capture %s of %d pays nothing, and no refund of it was requested", o.ID, m.ID, m.Amount.Amount)
				c.drifted(Drift{Kind: Refund, Order: o.ID, Capture: m.ID})
			case m.CheckAt == 0 || o.CheckAt == 0 || o.CheckAt > m.CheckAt:
				// Late money is looked at when it is due, and its order no later: an edit
				// of the order, whichever, sets both again, so that is what mends it.
				c.violated("order %s: late capture %s of %d pays nothing, and nobody will decide about it", o.ID, m.ID, m.Amount.Amount)
			}
		}
	}
	if o.LateOf != "" && o.State != order.Refunded && !o.Refunding() { // else the money was taken from it again
		c.lateOf[o.LateOf] = o.ID
	}
	settled := (o.State == order.Paid || o.State == order.Fulfilled) && !o.Refunding()
	if settled && o.LateOf == "" && paid != o.Terms.Total {
		c.violated("order %s is %s with %d captured for a total of %d", o.ID, o.State, paid, o.Terms.Total)
	}
	if (o.State == order.Created || o.State == order.Cancelled || o.State == order.Refunded) && paid != 0 {
		c.violated("order %s is %s although %d of captures pay it", o.ID, o.State, paid)
	}
}

// followMoney checks late money from both ends: what left one order for
// another arrived there, and an order paid by late money was given it. reserved
// tells whether an order that has not landed yet is in the ledger.
func (c *comparison) followMoney(reserved func(stock.UserID, stock.OrderID) bool) {
	for payment, m := range c.moved {
		at, landed := c.byID[m.to]
		switch to := c.orders[at]; {
		case !landed && reserved(m.user, m.to):
		case !landed:
			c.violated("late payment %s of order %s is said to pay order %s, which does not exist", payment, m.from, m.to)
		case to.lateOf != payment || to.total != m.amount || to.user != m.user:
			c.violated("late payment %s of order %s is said to pay order %s, which it does not fit", payment, m.from, m.to)
		}
	}
	for payment, id := range c.lateOf {
		if m, said := c.moved[payment]; m.to != id && (said || !c.deciding[payment]) {
			c.violated("order %s says that late payment %s pays it, and no order gave it that money", id, payment)
		}
	}
}
