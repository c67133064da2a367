package proof

import (
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Report is the outcome of one audit. Of an activity that is spread over
// buckets it is put together from one report of each (merge.go).
type Report struct {
	Activity   stock.ActivityID    `json:"activity"`
	Position   Position            `json:"position"`         // over several buckets only the activity: the positions are in Buckets
	OK         bool                `json:"ok"`               // nothing was found, and nothing is incomplete
	Violations []string            `json:"violations"`       // at most MaxViolations
	Found      int                 `json:"found"`            // violations in all
	Drifts     []Drift             `json:"drifts,omitempty"` // those that a repair is known for, at most MaxViolations
	Ledger     []stock.Count       `json:"ledger"`
	Orders     map[order.State]int `json:"orders"`
	Payments   Payments            `json:"payments"`
	CheckedAt  time.Time           `json:"checked_at"`
	// LimitsFrom is the log position behind which acceptances could be held
	// against the limits in force at them: 0, all of them, unless the log had
	// forgotten the activity's first entry when the auditor began. Of activities in
	// buckets see there.
	LimitsFrom uint64  `json:"limits_from,omitempty"`
	Final      bool    `json:"final"`            // OK, and nothing of the activity is left to happen: it is closed and at rest
	Proved     *Proved `json:"proved,omitempty"` // where its final proof was taken, if one is kept

	Buckets    []Bucket `json:"buckets,omitempty"`    // where the books of each were compared; CheckedAt is the oldest of them
	Incomplete []uint16 `json:"incomplete,omitempty"` // buckets without a report, or with one that is too old: nothing is known of them now
}

// Bucket is where and when the books of one bucket were compared.
type Bucket struct {
	Bucket    uint16    `json:"bucket"`
	Position  Position  `json:"position"`
	CheckedAt time.Time `json:"checked_at"`
	// Engine is where the engine's counts were compared with the book's; nil: they
	// could not be, for the engine did not answer, or has not yet been told all
	// that the book has from the store.
	Engine *Position `json:"engine,omitempty"`
	// LimitsFrom is the place behind which acceptances were held against the limits
	// in force at them; nil: from the bucket's first on. A book that was made from
	// the store does not know the limits of what it came with.
	LimitsFrom *Position `json:"limits_from,omitempty"`
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
