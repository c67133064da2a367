// Package sale owns activities and the purchase. An activity is one promotion
// with a window, items and rules; the purchase is the one story that
// everything else serves (purchase.go).
//
// Invariants: intent is saved in the store before the ledger is told; a live
// sale is edited by deltas, never by overwriting a count; the window is
// enforced by the ledger, so no timer can open a sale early.
package sale

import (
	"context"
	"errors"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// State of an activity: draft → scheduled → warm → open ⇄ paused → draining → closed.
type State string

const (
	Draft     State = "draft"     // being written; invisible to shoppers
	Scheduled State = "scheduled" // announced; no stock allocated yet
	Warm      State = "warm"      // stock allocated in the ledger, before the window
	Open      State = "open"
	Paused    State = "paused"
	Draining  State = "draining" // no new reservations; held ones may be paid
	Closed    State = "closed"
)

var (
	ErrNoSuchActivity = errors.New("no such activity")
	ErrExists         = errors.New("an activity with this id exists")
	ErrInvalid        = errors.New("invalid activity")
	// ErrTransition: the activity's state does not allow what was asked.
	ErrTransition = errors.New("activity state does not allow this")
)

// Activity is the operator's definition, as stored.
type Activity struct {
	ID          stock.ActivityID   `json:"id"`
	Kind        string             `json:"kind"` // flash
	Title       string             `json:"title"`
	State       State              `json:"state"`
	OpensAt     stock.Millis       `json:"opens_at"`
	ClosesAt    stock.Millis       `json:"closes_at"`
	HoldSeconds int                `json:"hold_seconds"`
	PerUser     int                `json:"per_user,omitempty"` // activity-wide, 0 = none
	LatePayment pricing.LatePolicy `json:"late_payment"`
	Restock     bool               `json:"restock"`
	Items       []Item             `json:"items"`
	// Buckets is over how many buckets the ledger spreads the activity, fixed
	// when it gets its units; 0 = 1. An embedded ledger has one whatever it says.
	Buckets  uint16 `json:"buckets,omitempty"`
	Epoch    uint32 `json:"epoch"`
	Revision int    `json:"revision"` // +1 with each save; saves are conditional on it
}

// Item is one SKU on sale.
type Item struct {
	SKU      stock.SKU     `json:"sku"`
	Price    pricing.Money `json:"price"`
	Units    int           `json:"units"` // as first allocated; live counts are the ledger's
	PerUser  int           `json:"per_user"`
	PerOrder int           `json:"per_order"`
	Version  int           `json:"version"` // product version shown
}

// Store keeps activities and the adjustments asked of the ledger.
type Store interface {
	CreateActivity(ctx context.Context, a Activity) error
	// UpdateActivity loads, lets change edit, and saves with Revision + 1.
	UpdateActivity(ctx context.Context, id stock.ActivityID, change func(*Activity) error) (Activity, error)
	// Activities lists all that were ever defined, by id; there are at most
	// MaxActivities that are not closed.
	Activities(ctx context.Context) ([]Activity, error)
	// Select lists some, by id. Those that live are found without a look at the
	// others.
	Select(ctx context.Context, q Query) ([]Activity, error)
	// SaveAdjustment records an adjustment before the ledger is told. The same
	// id with the same content again answers what is recorded; with other
	// content, stock.ErrConflict.
	SaveAdjustment(ctx context.Context, a stock.Adjustment) (Adjusted, error)
	// FinishAdjustment records how the ledger answered; "" = applied.
	FinishAdjustment(ctx context.Context, activity stock.ActivityID, id string, refusal string) error
	// OpenAdjustments lists those saved but not finished, oldest first.
	OpenAdjustments(ctx context.Context) ([]stock.Adjustment, error)
}

// Query selects activities; zero fields do not restrict.
type Query struct {
	ID     stock.ActivityID
	Living bool             // not closed, or closed and its final proof not written so far
	After  stock.ActivityID // page: ids above this one
	Limit  int
}

// Adjusted is a recorded adjustment and how it ended.
type Adjusted struct {
	Finished bool
	Refusal  string // set when the ledger refused
}

// MaxActivities bounds the activities that are not closed.
const MaxActivities = 1000
