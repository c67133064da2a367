package console

import (
	"context"
	"net/http"

	"sluice/internal/proof"
)

type proofList struct {
	Proofs []proof.Report `json:"proofs" nullable:"false"`
}

func (c *console) serveProof() {
	read(c, route("proof.list", http.MethodGet, "/v1/proofs", "The newest proof that the auditor made of each activity", http.StatusOK),
		func(context.Context, *none) (*reply[proofList], error) {
			return body(proofList{orEmpty(c.Proofs())}, nil)
		})
	read(c, route("activity.proof", http.MethodGet, "/v1/activities/{id}/proof", "Every book side by side, at one log position", http.StatusOK),
		func(ctx context.Context, in *activityPath) (*reply[proof.Report], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return body(c.Proof(ctx, in.ID))
		})
}
