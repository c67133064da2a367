package proof

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/internal/stock"
)

// A final proof is the report on an activity in which nothing will happen any
// more: it is closed, no order waits for money, none is being refunded, no event
// of it is undelivered, and nothing of it stands in the log behind the position
// compared at. A report with violations is never final. Once it is written
// nobody needs the activity's log entries any more for what they tell.

// Proved is where and when the final proof of an activity was taken.
type Proved struct {
	Position Position  `json:"position"`
	At       time.Time `json:"at"`
}

// archive keeps the final proofs.
type archive interface {
	// Proof answers the final proof of an activity, if there is one.
	Proof(ctx context.Context, activity stock.ActivityID) (Report, bool, error)
	// SaveProof keeps one, in place of an earlier one.
	SaveProof(ctx context.Context, r Report) error
}

// over says whether the ledger accepts nothing of an activity any more, and has
// taken nothing of it behind the position compared at.
func (a *Auditor) over(ctx context.Context, book *stock.Book, mark stock.Cursor) bool {
	if book == nil || book.Phase() != stock.Closed {
		return false
	}
	counts, err := a.ledger.Counts(ctx, book.Allocation().Activity)
	return err == nil && !after(counts.Position, mark)
}

// Beside answers a report with the place of the final proof that is kept of its
// activity, if one is.
func Beside(ctx context.Context, kept archive, r Report) (Report, error) {
	was, ok, err := kept.Proof(ctx, r.Activity)
	if err != nil {
		return r, fmt.Errorf("proof: final proof of %s: %w", r.Activity, err)
	}
	if ok {
		r.Proved = &Proved{was.Position, was.CheckedAt}
	}
	return r, nil
}

// shelve keeps a report that is final and says the same as none before it, and
// answers it with the place of the proof that stands, of which it tells.
func shelve(ctx context.Context, kept archive, proved func(stock.ActivityID), r Report) (Report, error) {
	was, ok, err := kept.Proof(ctx, r.Activity)
	if err == nil && r.Final && !(ok && same(was, r)) {
		was, ok, err = r, true, kept.SaveProof(ctx, r)
	}
	if err != nil {
		return r, fmt.Errorf("proof: final proof of %s: %w", r.Activity, err)
	}
	if ok {
		r.Proved = &Proved{was.Position, was.CheckedAt}
		proved(r.Activity)
	}
	return r, nil
}

// same says whether two final reports differ in where and when they were made only.
func same(a, b Report) bool {
	return slices.Equal(a.Ledger, b.Ledger) && maps.Equal(a.Orders, b.Orders) && a.Payments == b.Payments
}
