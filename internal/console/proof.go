package console

import (
	"context"
	"net/http"

	"sluice/internal/proof"
)

func (c *console) serveProof() {
	read(c, route("activity.proof", http.MethodGet, "/v1/activities/{id}/proof", "Every book side by side, at one log position", http.StatusOK),
		func(ctx context.Context, in *activityPath) (*reply[proof.Report], error) {
			if _, err := c.Sale.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return body(c.Proof(ctx, in.ID))
		})
}
