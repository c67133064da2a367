package console

import (
	"context"
	"net/http"
	"time"

	"sluice/internal/proof"
	"sluice/internal/stock"
)

// trail tells where units went: *proof.Trail.
type trail interface {
	Units(ctx context.Context, activity stock.ActivityID, sku stock.SKU, from, limit int) (proof.Units, error)
	Unit(ctx context.Context, activity stock.ActivityID, sku stock.SKU, number int) (proof.Units, error)
	User(ctx context.Context, activity stock.ActivityID, user stock.UserID) (proof.UserTrail, error)
}

type unitsQuery struct {
	ID    stock.ActivityID `path:"id" maxLength:"64"`
	SKU   stock.SKU        `query:"sku" maxLength:"64" doc:"May be left out when the activity has only one"`
	From  int              `query:"from" minimum:"1" maximum:"1000000000" default:"1" doc:"The first number of the page"`
	Limit int              `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Units of a page"`
	Unit  int              `query:"unit" minimum:"1" maximum:"1000000000" doc:"Only this one, with its history"`
}

type userPath struct {
	ID   stock.ActivityID `path:"id" maxLength:"64"`
	User stock.UserID     `path:"user" maxLength:"64"`
}

// noRecord is what stands where a refusal has been forgotten, or never was.
const noRecord = "no_record"

type userTrailBody struct {
	proof.UserTrail
	LastRefusal refusalBody `json:"last_refusal"`
}

type refusalBody struct {
	Code string  `json:"code" doc:"As the shopper was told; no_record: there was none, or it has been forgotten"`
	Rule string  `json:"rule,omitempty" doc:"With rate_limited: the rule that refused"`
	At   instant `json:"at,omitzero"`
}

func (c *console) serveTrail() {
	read(c, route("activity.trail.units", http.MethodGet, "/v1/activities/{id}/trail/units", "Where each unit went, by replay of the log", http.StatusOK),
		func(ctx context.Context, in *unitsQuery) (*reply[proof.Units], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			if in.Unit > 0 {
				return body(c.Trail.Unit(ctx, in.ID, in.SKU, in.Unit))
			}
			return body(c.Trail.Units(ctx, in.ID, in.SKU, in.From, in.Limit))
		})
	read(c, route("activity.trail.user", http.MethodGet, "/v1/activities/{id}/trail/users/{user}", "A user's reservations and last refusal", http.StatusOK),
		func(ctx context.Context, in *userPath) (*reply[userTrailBody], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			found, err := c.Trail.User(ctx, in.ID, in.User)
			out := userTrailBody{UserTrail: found, LastRefusal: refusalBody{Code: noRecord}}
			if last, ok := c.LastRefusal(in.ID, in.User); ok {
				out.LastRefusal = refusalBody{last.Code, last.Rule, instant(stock.MillisOf(last.At.Truncate(time.Millisecond)))}
			}
			return body(out, err)
		})
}
