package api

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"

	"sluice/internal/catalog"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// ordersList serves GET /v1/orders?before=&limit=: own orders, newest first.
func (s *Server) ordersList(ctx *fasthttp.RequestCtx, _ string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	p, err := readPage(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	wait, cancel := s.call()
	defer cancel()
	// One more than asked for tells whether there is a next page.
	found, err := s.orders.List(wait, who.User, p.before, p.limit+1)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	shown := struct {
		Orders []shownOrder  `json:"orders"`
		Next   stock.OrderID `json:"next,omitempty"`
	}{Orders: []shownOrder{}}
	if len(found) > p.limit {
		found = found[:p.limit]
		shown.Next = found[p.limit-1].ID
	}
	for i := range found {
		o, err := showOrder(&found[i])
		if err != nil {
			s.refuse(ctx, err, 0)
			return
		}
		shown.Orders = append(shown.Orders, o)
	}
	s.replyJSON(ctx, fasthttp.StatusOK, shown)
}

// order serves GET /v1/orders/{id}. Somebody else's is answered like one that
// does not exist.
func (s *Server) order(ctx *fasthttp.RequestCtx, param string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	wait, cancel := s.call()
	defer cancel()
	o, err := s.orders.Get(wait, who.User, orderID(param))
	s.replyOrder(ctx, o, err)
}

// cancel serves POST /v1/orders/{id}/cancel: 200 with the order as it is then.
func (s *Server) cancel(ctx *fasthttp.RequestCtx, param string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	if _, err := optional(ctx, 1); err != nil { // a body that says something is a mistake
		s.refuse(ctx, err, 0)
		return
	}
	wait, done := s.call()
	defer done()
	id := orderID(param)
	if err := s.changeable(wait, who.User, id); err != nil {
		s.refuseChange(ctx, who.User, err)
		return
	}
	o, err := s.payments.Cancel(wait, who.User, id)
	s.replyOrder(ctx, o, err)
}

// orderID copies the id out of the request. Its form is the business of the
// orders: one that was never given out is simply not found.
func orderID(param string) stock.OrderID { return stock.OrderID(strings.Clone(param)) }

func (s *Server) replyOrder(ctx *fasthttp.RequestCtx, o order.Order, err error) {
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	shown, err := showOrder(&o)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	s.replyJSON(ctx, fasthttp.StatusOK, shown)
}

func (s *Server) replyJSON(ctx *fasthttp.RequestCtx, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, status, b)
}

// shownOrder is what its owner sees of an order. Of one that a ledger lost while
// it was pending only id, state and reason are known, and the rest is not shown;
// total stands and falls with the terms.
type shownOrder struct {
	ID          stock.OrderID    `json:"id"`
	Reservation string           `json:"reservation,omitempty"`
	Activity    stock.ActivityID `json:"activity,omitempty"`
	State       order.State      `json:"state"`
	Reason      string           `json:"reason,omitempty"`
	CreatedAt   string           `json:"created_at,omitempty"`
	ExpiresAt   string           `json:"expires_at,omitempty"`
	PaidAt      string           `json:"paid_at,omitempty"`
	Total       *pricing.Money   `json:"total,omitempty"`
	Lines       []shownLine      `json:"lines"`
	ReplacedBy  stock.OrderID    `json:"replaced_by,omitempty"` // the order that this order's late money paid
	LateOf      stock.OrderID    `json:"late_of,omitempty"`     // the cancelled order whose late money paid this one
	Refunded    *shownRefund     `json:"refunded,omitempty"`
}

type shownLine struct {
	SKU      string `json:"sku"`
	Title    string `json:"title"`
	Image    string `json:"image"`
	Quantity int    `json:"quantity"`
	Unit     int64  `json:"unit"`
	Total    int64  `json:"total"`
}

// shownRefund adds up the refunds: pending until all of it is on its way back.
type shownRefund struct {
	pricing.Money
	State string `json:"state"` // pending, done
}

func showOrder(o *order.Order) (shownOrder, error) {
	shown := shownOrder{
		ID: o.ID, Activity: o.Activity, State: o.State, Reason: o.Reason,
		CreatedAt: rfc3339(o.CreatedAt), ExpiresAt: rfc3339(o.ExpiresAt), PaidAt: rfc3339(o.PaidAt),
		Lines: make([]shownLine, len(o.Terms.Lines)), ReplacedBy: o.ReplacedBy, Refunded: refunded(o),
	}
	if o.Reservation != (stock.ID{}) {
		shown.Reservation = o.Reservation.String()
	}
	if total := o.Terms.Money(); total.Currency != "" {
		shown.Total = &total
	}
	if dash := strings.LastIndexByte(o.LateOf, '-'); dash > 0 { // a payment id is "<order>-<n>"
		shown.LateOf = stock.OrderID(o.LateOf[:dash])
	}
	var products []catalog.Product
	if len(o.Products) > 0 { // none before landing
		if err := json.Unmarshal(o.Products, &products); err != nil {
			return shown, fmt.Errorf("products of order %s: %w", o.ID, err)
		}
	}
	for i, l := range o.Terms.Lines {
		line := shownLine{SKU: l.SKU, Title: l.SKU, Quantity: l.Quantity, Unit: l.Unit, Total: l.Total}
		if i < len(products) {
			line.Title, line.Image = products[i].Title, products[i].Image
		}
		shown.Lines[i] = line
	}
	return shown, nil
}

// refunded adds up an order's refunds in its own currency, or in that of the
// first one when the money came in another.
func refunded(o *order.Order) *shownRefund {
	if len(o.Money.Refunds) == 0 {
		return nil
	}
	sum := &shownRefund{Money: pricing.Money{Currency: o.Money.Refunds[0].Amount.Currency}, State: "done"}
	for _, r := range o.Money.Refunds {
		if r.Amount.Currency == o.Terms.Currency {
			sum.Currency = r.Amount.Currency
		}
	}
	for _, r := range o.Money.Refunds {
		if r.Amount.Currency == sum.Currency {
			sum.Amount += r.Amount.Amount
		}
		if r.State != order.RefundDone {
			sum.State = "pending"
		}
	}
	return sum
}

// rfc3339 formats a time; the zero time is "".
func rfc3339(m stock.Millis) string {
	if m == 0 {
		return ""
	}
	return m.Time().Format(timeLayout)
}
