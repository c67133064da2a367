package console

import (
	"context"
	"net/http"

	"sluice/internal/proof"
	"sluice/internal/stock"
)

type repairInput struct {
	ID   stock.ActivityID `path:"id" maxLength:"64"`
	Body struct {
		ID          string           `json:"id" minLength:"1" maxLength:"64" doc:"The operator's own; the same id again is the same repair"`
		Kind        proof.RepairKind `json:"kind" enum:"resettle,refund,redrive,reland,rebuild"`
		Order       stock.OrderID    `json:"order,omitempty" maxLength:"64" doc:"An order, or a reservation, as the proof names it"`
		Reservation string           `json:"reservation,omitempty" maxLength:"128"`
		Log         stock.LogID      `json:"log,omitempty" maxLength:"72" doc:"Or the log of a bucket, activity/number"`
		Reason      string           `json:"reason" minLength:"1" maxLength:"200"`
	}
}

func (in *repairInput) asked() (string, any) { return string(in.ID), in.Body }

func (c *console) serveRepairs() {
	mutate(c, route("activity.repair", http.MethodPost, "/v1/activities/{id}/repairs", "End a drift that the proof has found", http.StatusOK),
		func(ctx context.Context, in *repairInput) (*reply[proof.Repair], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return body(c.Repair(ctx, in.ID, proof.RepairRequest(in.Body)))
		})
}
