package console

import (
	"context"
	"net/http"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// orderRows is the part of order.Store that operators read.
type orderRows interface {
	Get(ctx context.Context, id stock.OrderID) (order.Order, error)
	List(ctx context.Context, q order.Query) ([]order.Order, error)
}

type orderPath struct {
	ID stock.OrderID `path:"id" maxLength:"64"`
}

func (in *orderPath) asked() (string, any) { return string(in.ID), struct{}{} }

type refundInput struct {
	ID   stock.OrderID `path:"id" maxLength:"64"`
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"200"`
	}
}

func (in *refundInput) asked() (string, any) { return string(in.ID), in.Body }

type retryInput struct {
	ID     stock.OrderID `path:"id" maxLength:"64"`
	Refund string        `path:"refund" maxLength:"128"`
}

func (in *retryInput) asked() (string, any) { return string(in.ID), struct{ Refund string }{in.Refund} }

type orderQuery struct {
	User     string `query:"user" maxLength:"64"`
	Activity string `query:"activity" maxLength:"64"`
	State    string `query:"state" enum:"created,paid,fulfilled,cancelled,refunded,refused"`
	Before   string `query:"before" maxLength:"64" doc:"Only orders with a smaller id"`
	Limit    int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"Orders of a page"`
}

type orderList struct {
	Orders []orderBody   `json:"orders" nullable:"false"`
	Next   stock.OrderID `json:"next,omitempty" doc:"Ask again with before= this for more"`
}

// orderBody is order.Order for operators, its times as people write them.
type orderBody struct {
	ID          stock.OrderID       `json:"id"`
	Reservation string              `json:"reservation"`
	Activity    stock.ActivityID    `json:"activity"`
	User        stock.UserID        `json:"user"`
	Key         string              `json:"key" doc:"The shopper's Idempotency-Key"`
	State       order.State         `json:"state" enum:"created,paid,fulfilled,cancelled,refunded,refused"`
	Reason      string              `json:"reason,omitempty" doc:"Why it was cancelled or refunded"`
	Version     int                 `json:"version"`
	Total       pricing.Money       `json:"total"`
	Lines       []pricing.QuoteLine `json:"lines" nullable:"false"`
	CreatedAt   instant             `json:"created_at,omitzero"`
	ExpiresAt   instant             `json:"expires_at,omitzero"`
	PaidAt      instant             `json:"paid_at,omitzero"`
	ClosedAt    instant             `json:"closed_at,omitzero"`
	LateOf      string              `json:"late_of,omitempty" doc:"The payment whose late money paid this order"`
	ReplacedBy  stock.OrderID       `json:"replaced_by,omitempty" doc:"The order that this order's late money paid"`
	Payments    []paymentBody       `json:"payments" nullable:"false"`
	Captures    []captureBody       `json:"captures" nullable:"false"`
	Refunds     []refundBody        `json:"refunds" nullable:"false"`
}

// paymentBody leaves the pay page out: its address lets the holder pay.
type paymentBody struct {
	ID       string             `json:"id"`
	Provider string             `json:"provider"`
	Amount   pricing.Money      `json:"amount"`
	State    order.PaymentState `json:"state"`
	At       instant            `json:"at"`
	Checks   int                `json:"checks,omitempty" doc:"Times that the provider was asked"`
}

type captureBody struct {
	ID      string        `json:"id"`
	Payment string        `json:"payment"`
	Amount  pricing.Money `json:"amount"`
	At      instant       `json:"at"`
	Pays    stock.OrderID `json:"pays,omitempty" doc:"Empty: to be given back"`
	Late    bool          `json:"late,omitempty"`
}

type refundBody struct {
	ID       string            `json:"id"`
	Payment  string            `json:"payment"`
	Capture  string            `json:"capture"`
	Amount   pricing.Money     `json:"amount"`
	Reason   string            `json:"reason"`
	State    order.RefundState `json:"state"`
	At       instant           `json:"at"`
	Attempts int               `json:"attempts,omitempty"`
}

func orderOf(o order.Order) orderBody {
	b := orderBody{
		ID: o.ID, Reservation: o.Reservation.String(), Activity: o.Activity, User: o.User, Key: o.Key, State: o.State, Reason: o.Reason,
		Version: o.Version, Total: o.Terms.Money(), Lines: orEmpty(o.Terms.Lines),
		CreatedAt: instant(o.CreatedAt), ExpiresAt: instant(o.ExpiresAt), PaidAt: instant(o.PaidAt), ClosedAt: instant(o.ClosedAt),
		LateOf: o.LateOf, ReplacedBy: o.ReplacedBy,
		Payments: []paymentBody{}, Captures: []captureBody{}, Refunds: []refundBody{},
	}
	for _, p := range o.Money.Payments {
		b.Payments = append(b.Payments, paymentBody{p.ID, p.Provider, p.Amount, p.State, instant(p.At), p.Checks})
	}
	for _, t := range o.Money.Captures {
		b.Captures = append(b.Captures, captureBody{t.ID, t.Payment, t.Amount, instant(t.At), t.Pays, t.Late})
	}
	for _, r := range o.Money.Refunds {
		b.Refunds = append(b.Refunds, refundBody{r.ID, r.Payment, r.Capture, r.Amount, r.Reason, r.State, instant(r.At), r.Attempts})
	}
	return b
}

func orderReply(o order.Order, err error) (*reply[orderBody], error) { return body(orderOf(o), err) }

func (c *console) serveOrders() {
	read(c, route("order.list", http.MethodGet, "/v1/orders", "Page through orders, newest first", http.StatusOK),
		func(ctx context.Context, in *orderQuery) (*reply[orderList], error) {
			found, err := c.OrderRows.List(ctx, order.Query{
				User: stock.UserID(in.User), Activity: stock.ActivityID(in.Activity), State: order.State(in.State),
				Before: stock.OrderID(in.Before), Limit: in.Limit,
			})
			list := orderList{Orders: make([]orderBody, len(found))}
			for i, o := range found {
				list.Orders[i] = orderOf(o)
			}
			if len(found) == in.Limit {
				list.Next = found[len(found)-1].ID
			}
			return body(list, err)
		})
	read(c, route("order.get", http.MethodGet, "/v1/orders/{id}", "One order with its money", http.StatusOK),
		func(ctx context.Context, in *orderPath) (*reply[orderBody], error) {
			return orderReply(c.OrderRows.Get(ctx, in.ID))
		})
	mutate(c, route("order.fulfil", http.MethodPost, "/v1/orders/{id}/fulfil", "Mark a paid order as handed over", http.StatusOK),
		func(ctx context.Context, in *orderPath) (*reply[orderBody], error) {
			return orderReply(c.Orders.Fulfil(ctx, in.ID))
		})
	mutate(c, route("order.refund", http.MethodPost, "/v1/orders/{id}/refund", "Give all money of an order back", http.StatusOK),
		func(ctx context.Context, in *refundInput) (*reply[orderBody], error) {
			reason := "" // the desk's own word for it
			if in.Body != nil {
				reason = in.Body.Reason
			}
			return orderReply(c.Orders.Refund(ctx, in.ID, reason))
		})
	mutate(c, route("order.refund.retry", http.MethodPost, "/v1/orders/{id}/refunds/{refund}/retry",
		"Ask the provider once more for one refund that is stuck; the order stays what it is", http.StatusOK),
		func(ctx context.Context, in *retryInput) (*reply[orderBody], error) {
			return orderReply(c.Orders.RetryRefund(ctx, in.ID, in.Refund))
		})
}
