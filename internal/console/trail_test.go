package console_test

import (
	"testing"

	"sluice/internal/stock"
)

func TestTrail(t *testing.T) {
	b := newBench(t)
	b.sale()
	ann := b.buy("ann", 2)
	b.buy("bob", 1)
	cancelled, err := b.desk.Cancel(t.Context(), "ann", ann)
	must(t, err)
	_, err = b.ledger.Settle(t.Context(), stock.Settlement{ID: cancelled.Reservation, Outcome: stock.Released, At: stock.MillisOf(b.clock)})
	must(t, err)
	b.buy("cy", 1)
	b.want(200, "", "POST", "/v1/activities/drop/stock", `{"id":"d1","sku":"CUP","delta":-2,"reason":"broken"}`)

	a := b.want(200, "", "GET", "/v1/activities/drop/trail/units?limit=4", "")
	b.equal(a, "sku", "CUP", "numbered", 10, "next", 5,
		"units.0.unit", 1, "units.0.state", "held", "units.0.user", "cy", "units.0.reservation", "drop.0.1.3",
		"units.1.state", "free", "units.1.user", nil,
		"units.2.state", "held", "units.2.user", "bob", "units.3.state", "free")
	a = b.want(200, "", "GET", "/v1/activities/drop/trail/units?sku=CUP&from=8", "")
	b.equal(a, "units.0.unit", 8, "units.0.state", "free", "units.1.state", "withdrawn", "units.2.state", "withdrawn", "next", nil)
	a = b.want(200, "", "GET", "/v1/activities/drop/trail/units?unit=1", "")
	b.equal(a, "units.0.unit", 1, "units.1", nil, "history.0.event", "allocated", "history.1.event", "held", "history.1.user", "ann",
		"history.1.order", string(ann), "history.2.event", "released", "history.3.event", "held", "history.3.user", "cy", "history.4", nil)

	a = b.want(200, "", "GET", "/v1/activities/drop/trail/users/ann", "")
	b.equal(a, "user", "ann", "complete", true, "reservations.0.order", string(ann), "reservations.0.state", "released",
		"reservations.0.settled.0.outcome", "released", "reservations.1", nil, "last_refusal.code", "no_record", "last_refusal.at", nil)
	b.refused = "sold_out"
	a = b.want(200, "", "GET", "/v1/activities/drop/trail/users/nobody", "")
	b.equal(a, "reservations.0", nil, "last_refusal.code", "sold_out", "last_refusal.rule", nil, "last_refusal.at", "2025-11-11T10:00:00.000Z")

	b.refused, b.byRule = "rate_limited", "user"
	b.equal(b.want(200, "", "GET", "/v1/activities/drop/trail/users/nobody", ""), "last_refusal.code", "rate_limited", "last_refusal.rule", "user")

	b.want(404, "no_such_sku", "GET", "/v1/activities/drop/trail/units?sku=X", "")
	b.want(404, "no_such_activity", "GET", "/v1/activities/x/trail/units", "")
	b.want(404, "no_such_activity", "GET", "/v1/activities/x/trail/users/ann", "")
	b.want(400, "invalid_request", "GET", "/v1/activities/drop/trail/units?limit=1001", "")
	b.want(201, "", "POST", "/v1/activities", `{"id":"draft","title":"D","items":[{"sku":"CUP","units":1}]}`)
	b.want(404, "no_such_activity", "GET", "/v1/activities/draft/trail/units", "")
}
