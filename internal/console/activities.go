package console

import (
	"context"
	"errors"
	"net/http"

	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// counter is the part of stock.Ledger that operators look at.
type counter interface {
	Counts(ctx context.Context, activity stock.ActivityID) (stock.Counts, error)
}

type activityPath struct {
	ID stock.ActivityID `path:"id" maxLength:"64"`
}

type activityInput struct {
	Overriding
	Body struct {
		ID          stock.ActivityID   `json:"id" pattern:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" example:"double-eleven"`
		Kind        string             `json:"kind,omitempty" enum:"flash" doc:"Default flash"`
		Title       string             `json:"title" minLength:"1" maxLength:"200"`
		OpensAt     instant            `json:"opens_at,omitzero" doc:"Absent: a draft until it is opened"`
		ClosesAt    instant            `json:"closes_at,omitzero" doc:"Absent: 24 h after opens_at"`
		HoldSeconds int                `json:"hold_seconds,omitempty" minimum:"1" doc:"How long a shopper may take to pay; default 900"`
		PerUser     int                `json:"per_user,omitempty" minimum:"0" doc:"Units a user may have over the whole activity; absent: no limit"`
		LatePayment pricing.LatePolicy `json:"late_payment,omitempty" enum:"rereserve_or_refund,refund" doc:"Money that arrives after cancellation; default rereserve_or_refund"`
		Restock     bool               `json:"restock,omitempty" doc:"A refund returns the units to the sale; default false"`
		Buckets     uint16             `json:"buckets,omitempty" minimum:"0" maximum:"256" doc:"Over how many buckets a ledger on Redis spreads the units, each for the users that hash to it; fixed when the activity is opened; absent: the ledger's default. An embedded ledger has one"`
		Items       []itemInput        `json:"items" minItems:"1" maxItems:"200" nullable:"false"`
	}
}

type itemInput struct {
	SKU      stock.SKU      `json:"sku" minLength:"1" maxLength:"64"`
	Price    *pricing.Money `json:"price,omitempty" doc:"In minor units; absent: the catalogue's"`
	Units    int            `json:"units" minimum:"0"`
	PerUser  int            `json:"per_user,omitempty" minimum:"0" doc:"Absent: no limit of its own"`
	PerOrder int            `json:"per_order,omitempty" minimum:"1" doc:"Absent: per_user, or 1"`
}

func (in *activityInput) asked() (string, any) { return string(in.Body.ID), in.Body }

// activity is what Create takes; what is absent stays zero, which it fills.
func (in *activityInput) activity() sale.Activity {
	b := in.Body
	a := sale.Activity{
		ID: b.ID, Kind: b.Kind, Title: b.Title, OpensAt: stock.Millis(b.OpensAt), ClosesAt: stock.Millis(b.ClosesAt),
		HoldSeconds: b.HoldSeconds, PerUser: b.PerUser, LatePayment: b.LatePayment, Restock: b.Restock, Buckets: b.Buckets,
	}
	for _, it := range b.Items {
		item := sale.Item{SKU: it.SKU, Units: it.Units, PerUser: it.PerUser, PerOrder: it.PerOrder}
		if it.Price != nil {
			item.Price = *it.Price
		}
		a.Items = append(a.Items, item)
	}
	return a
}

// activityBody is sale.Activity with its times as people write them.
type activityBody struct {
	ID          stock.ActivityID   `json:"id"`
	Kind        string             `json:"kind"`
	Title       string             `json:"title"`
	State       sale.State         `json:"state" enum:"draft,scheduled,warm,open,paused,draining,closed"`
	OpensAt     instant            `json:"opens_at,omitzero"`
	ClosesAt    instant            `json:"closes_at,omitzero"`
	HoldSeconds int                `json:"hold_seconds"`
	PerUser     int                `json:"per_user,omitempty"`
	LatePayment pricing.LatePolicy `json:"late_payment"`
	Restock     bool               `json:"restock"`
	Buckets     uint16             `json:"buckets,omitempty" doc:"Of a ledger on Redis; absent: 1"`
	Items       []sale.Item        `json:"items" nullable:"false"`
	Revision    int                `json:"revision"`
}

func bodyOf(a sale.Activity) activityBody {
	return activityBody{
		ID: a.ID, Kind: a.Kind, Title: a.Title, State: a.State, OpensAt: instant(a.OpensAt), ClosesAt: instant(a.ClosesAt),
		HoldSeconds: a.HoldSeconds, PerUser: a.PerUser, LatePayment: a.LatePayment, Restock: a.Restock, Buckets: a.Buckets,
		Items: orEmpty(a.Items), Revision: a.Revision,
	}
}

func activityReply(a sale.Activity, err error) (*reply[activityBody], error) {
	return body(bodyOf(a), err)
}

type activityList struct {
	Activities []activityBody   `json:"activities" nullable:"false"`
	Next       stock.ActivityID `json:"next,omitempty" doc:"Ask again with after= this for more"`
}

// countsBody is where the units are, at one log position.
type countsBody struct {
	Activity stock.ActivityID `json:"activity"`
	Phase    string           `json:"phase" doc:"What the ledger obeys; empty while no stock is allocated"`
	Position positionBody     `json:"position"`
	Items    []stock.Count    `json:"items" nullable:"false"`
}

type positionBody struct {
	Log      stock.LogID `json:"log"`
	Epoch    uint32      `json:"epoch"`
	Position uint64      `json:"position"`
}

func countsOf(n stock.Counts) countsBody {
	b := countsBody{
		Activity: n.Activity, Items: orEmpty(n.Items),
		Position: positionBody{n.Position.Log, n.Position.Epoch, n.Position.Position},
	}
	if n.Phase != 0 {
		b.Phase = n.Phase.String()
	}
	return b
}

// activityDetail is a definition with its live counts.
type activityDetail struct {
	activityBody
	Counts countsBody `json:"counts"`
}

type activityQuery struct {
	Living bool             `query:"living" doc:"Only those that are not closed, or have no final proof yet"`
	After  stock.ActivityID `query:"after" maxLength:"64" doc:"Ids above this one"`
	Limit  int              `query:"limit" minimum:"0" maximum:"1000" doc:"Of a page; 0: all"`
}

func (c *console) serveActivities() {
	mutate(c, route("activity.create", http.MethodPost, "/v1/activities", "Create an activity", http.StatusCreated),
		func(ctx context.Context, in *activityInput) (*reply[activityBody], error) {
			return activityReply(c.Sale.Create(ctx, in.activity()))
		})
	read(c, about(route("activity.list", http.MethodGet, "/v1/activities", "List activities by id", http.StatusOK),
		"Pages are by id: with limit, next stands in the answer while there may be more, and is the after of the next page. "+
			"An activity that is created meanwhile is on its page by its id. living selects what still needs looking after."),
		func(ctx context.Context, in *activityQuery) (*reply[activityList], error) {
			found, err := c.Sale.Page(ctx, sale.Query{Living: in.Living, After: in.After, Limit: in.Limit})
			list := activityList{Activities: make([]activityBody, len(found))}
			for i, a := range found {
				list.Activities[i] = bodyOf(a)
			}
			if in.Limit > 0 && len(found) == in.Limit {
				list.Next = found[len(found)-1].ID
			}
			return body(list, err)
		})
	read(c, route("activity.get", http.MethodGet, "/v1/activities/{id}", "An activity's definition and live counts", http.StatusOK),
		func(ctx context.Context, in *activityPath) (*reply[activityDetail], error) {
			a, err := c.Sale.Get(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			n, err := c.Ledger.Counts(ctx, in.ID)
			if errors.Is(err, stock.ErrNoSuchActivity) { // nothing is allocated yet
				n, err = stock.Counts{Activity: in.ID}, nil
			}
			return body(activityDetail{bodyOf(a), countsOf(n)}, err)
		})
}
