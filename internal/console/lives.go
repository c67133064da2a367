package console

import (
	"context"
	"net/http"

	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

func (in *activityPath) asked() (string, any) { return string(in.ID), struct{}{} }

// publication puts something new before shoppers; what moves an activity that is
// there already is for emergencies, and no freeze forbids it.
type publication struct {
	Overriding
	ID stock.ActivityID `path:"id" maxLength:"64"`
}

func (in *publication) asked() (string, any) { return string(in.ID), struct{}{} }

type editInput struct {
	Overriding
	ID   stock.ActivityID `path:"id" maxLength:"64"`
	Body struct {
		Title       *string             `json:"title,omitempty" minLength:"1" maxLength:"200"`
		OpensAt     *instant            `json:"opens_at,omitempty"`
		ClosesAt    *instant            `json:"closes_at,omitempty"`
		HoldSeconds *int                `json:"hold_seconds,omitempty" minimum:"1"`
		PerUser     *int                `json:"per_user,omitempty" minimum:"0" doc:"0: no limit"`
		LatePayment *pricing.LatePolicy `json:"late_payment,omitempty" enum:"rereserve_or_refund,refund"`
		Restock     *bool               `json:"restock,omitempty"`
		Buckets     *uint16             `json:"buckets,omitempty" minimum:"0" maximum:"256" doc:"Only of a draft; see creation"`
		Items       []itemEdit          `json:"items,omitempty" maxItems:"200"`
	}
}

type itemEdit struct {
	SKU      stock.SKU `json:"sku" minLength:"1" maxLength:"64"`
	PerUser  *int      `json:"per_user,omitempty" minimum:"0"`
	PerOrder *int      `json:"per_order,omitempty" minimum:"1"`
}

func (in *editInput) asked() (string, any) { return string(in.ID), in.Body }

func (in *editInput) edit() sale.Edit {
	b := in.Body
	e := sale.Edit{
		Title: b.Title, OpensAt: (*stock.Millis)(b.OpensAt), ClosesAt: (*stock.Millis)(b.ClosesAt),
		HoldSeconds: b.HoldSeconds, PerUser: b.PerUser, LatePayment: b.LatePayment, Restock: b.Restock, Buckets: b.Buckets,
	}
	for _, it := range b.Items {
		e.Items = append(e.Items, sale.ItemEdit{SKU: it.SKU, PerUser: it.PerUser, PerOrder: it.PerOrder})
	}
	return e
}

type stockInput struct {
	ID   stock.ActivityID `path:"id" maxLength:"64"`
	Body struct {
		ID     string    `json:"id" minLength:"1" maxLength:"48" doc:"Yours; the same id again is the same delta"`
		SKU    stock.SKU `json:"sku" minLength:"1" maxLength:"64"`
		Delta  int       `json:"delta" doc:"Units to add (> 0) or to take back from the free ones (< 0)"`
		Reason string    `json:"reason,omitempty" maxLength:"200"`
	}
}

func (in *stockInput) asked() (string, any) { return string(in.ID), in.Body }

// serveLives registers what moves a live activity: its states, its terms, its units.
func (c *console) serveLives() {
	for _, move := range []struct {
		verb, summary string
		do            func(context.Context, stock.ActivityID) (sale.Activity, error)
	}{
		{"pause", "Refuse new reservations for now", c.Sale.Pause},
		{"resume", "Take reservations again", c.Sale.Resume},
		{"drain", "End the sale; what is held may still be paid", c.Sale.Drain},
		{"close", "End the activity for good", c.Sale.Close},
	} {
		mutate(c, route("activity."+move.verb, http.MethodPost, "/v1/activities/{id}/"+move.verb, move.summary, http.StatusOK),
			func(ctx context.Context, in *activityPath) (*reply[activityBody], error) {
				return activityReply(move.do(ctx, in.ID))
			})
	}
	mutate(c, route("activity.open", http.MethodPost, "/v1/activities/{id}/open", "Publish a draft; the window opens the sale", http.StatusOK),
		func(ctx context.Context, in *publication) (*reply[activityBody], error) {
			return activityReply(c.Sale.Open(ctx, in.ID))
		})
	mutate(c, route("activity.edit", http.MethodPatch, "/v1/activities/{id}", "Change terms; orders taken before keep theirs", http.StatusOK),
		func(ctx context.Context, in *editInput) (*reply[activityBody], error) {
			return activityReply(c.Sale.Edit(ctx, in.ID, in.edit()))
		})
	mutate(c, route("activity.stock", http.MethodPost, "/v1/activities/{id}/stock", "Add units, or take free ones back", http.StatusOK),
		func(ctx context.Context, in *stockInput) (*reply[countsBody], error) {
			b := in.Body
			n, err := c.Sale.Stock(ctx, in.ID, b.ID, b.SKU, b.Delta, b.Reason)
			return body(countsOf(n), err)
		})
}
