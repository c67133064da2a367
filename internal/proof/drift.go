package proof

import (
	"sluice/internal/order"
	"sluice/internal/stock"
)

// RepairKind names the operation that ends a drift.
type RepairKind string

// The repairs. None of them writes a count or a state: each one sets going, or
// makes up for, an operation that the engine itself would have made.
const (
	Resettle RepairKind = "resettle" // tell the ledger again how the order ended
	Refund   RepairKind = "refund"   // request the refund of money that pays nothing
	Redrive  RepairKind = "redrive"  // deliver a dead letter again
	Reland   RepairKind = "reland"   // land a reservation again whose order row is lost
	Rebuild  RepairKind = "rebuild"  // have a bucket's engine made again from the store by its keeper
)

// Drift is a violation that a repair is known for. The other violations (money
// that does not add up, orders that nobody reserved) need a person.
type Drift struct {
	Kind        RepairKind    `json:"kind" enum:"resettle,refund,redrive,reland,rebuild"`
	Order       stock.OrderID `json:"order,omitempty"`
	Reservation string        `json:"reservation,omitempty"`
	Capture     string        `json:"capture,omitempty"`
	Letter      int64         `json:"letter,omitempty"` // the dead letter
	Log         stock.LogID   `json:"log,omitempty"`    // of the bucket, "activity/number"
}

// of names what the drift is about.
func (d Drift) of() string {
	if d.Order == "" {
		return "bucket " + string(d.Log)
	}
	return "order " + string(d.Order)
}

// maxDrifts bounds what one audit keeps for repairs.
const maxDrifts = 100_000

func (c *comparison) drifted(d Drift) {
	if len(c.drifts) < maxDrifts {
		c.drifts = append(c.drifts, d)
	}
}

// reachable says whether the ledger can still be settled as the order has it.
func reachable(s order.State, is stock.State) bool {
	switch s {
	case order.Paid, order.Fulfilled, order.Cancelled:
		return is == stock.Held
	case order.Refunded:
		return is == stock.Held || is == stock.Confirmed
	}
	return false
}
