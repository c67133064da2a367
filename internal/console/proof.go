package console

import (
	"context"
	"net/http"

	"sluice/internal/proof"
)

type proofList struct {
	Proofs []proof.Report `json:"proofs" nullable:"false"`
}

const aboutProof = "final: this proof is the activity's last, as it is closed, everything of it has ended, and the books agree. " +
	"proved: where and when a final proof was taken and kept, perhaps an earlier one than this; absent until then. " +
	"buckets: of an activity that is spread over buckets of a ledger on Redis, where and when the books of each were compared; " +
	"position then says only which activity, and incomplete names the buckets of which nothing is known now, so that ok is false."

func (c *console) serveProof() {
	read(c, about(route("proof.list", http.MethodGet, "/v1/proofs", "The newest proof that the auditor made of each activity", http.StatusOK), aboutProof),
		func(context.Context, *none) (*reply[proofList], error) {
			return body(proofList{orEmpty(c.Proofs())}, nil)
		})
	read(c, about(route("activity.proof", http.MethodGet, "/v1/activities/{id}/proof", "Every book side by side, at one log position", http.StatusOK), aboutProof),
		func(ctx context.Context, in *activityPath) (*reply[proof.Report], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return body(c.Proof(ctx, in.ID))
		})
}
