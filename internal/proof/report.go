package proof

import (
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Report is the outcome of one audit.
type Report struct {
	Activity   stock.ActivityID    `json:"activity"`
	Position   Position            `json:"position"`
	OK         bool                `json:"ok"`
	Violations []string            `json:"violations"`       // at most MaxViolations
	Found      int                 `json:"found"`            // violations in all
	Drifts     []Drift             `json:"drifts,omitempty"` // those that a repair is known for, at most MaxViolations
	Ledger     []stock.Count       `json:"ledger"`
	Orders     map[order.State]int `json:"orders"`
	Payments   Payments            `json:"payments"`
	CheckedAt  time.Time           `json:"checked_at"`
	// LimitsFrom is the log position behind which acceptances could be held
	// against the limits in force at them: 0, all of them, unless the log had
	// forgotten the activity's first entry when the auditor began.
	LimitsFrom uint64  `json:"limits_from,omitempty"`
	Final      bool    `json:"final"`            // OK, and nothing of the activity is left to happen: it is closed and at rest
	Proved     *Proved `json:"proved,omitempty"` // where its final proof was taken, if one is kept
}

// Position is the place in the log at which the books were compared.
type Position struct {
	Log      stock.LogID `json:"log"`
	Epoch    uint32      `json:"epoch"`
	Position uint64      `json:"position"`
}

// Payments are sums over all orders in minor units: what came in, what went
// back, and what came in without paying for anything and is still to go back.
type Payments struct {
	Captured int64 `json:"captured"`
	Refunded int64 `json:"refunded"`
	Owed     int64 `json:"owed"`
}

// MaxViolations bounds the sentences of a report.
const MaxViolations = 100
