package sale

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/stock"
)

// Stock adds units to a live SKU or takes free ones back. Idempotent by id:
// the same id answers what it answered the first time. Errors: ErrTransition,
// stock.ErrInsufficient with what can be taken, stock.ErrConflict.
func (d *Desk) Stock(ctx context.Context, activity stock.ActivityID, id string, sku stock.SKU, delta int, reason string) (stock.Counts, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.Get(ctx, activity)
	if err != nil {
		return stock.Counts{}, err
	}
	switch {
	case a.State == Draft || a.State == Closed:
		return stock.Counts{}, fmt.Errorf("%w: %s is %s", ErrTransition, a.ID, a.State)
	case a.item(sku) == nil:
		return stock.Counts{}, &stock.Refusal{Err: stock.ErrNoSuchSKU, SKU: sku}
	case delta == 0:
		return stock.Counts{}, fmt.Errorf("%w: delta must not be 0", ErrInvalid)
	}
	if d.board.Face(a.ID) == nil { // units of an activity exist once they are allocated
		if err := d.allocate(ctx, a); err != nil {
			return stock.Counts{}, err
		}
	}
	counts, err := d.apply(ctx, stock.Adjustment{
		ID: "stock-" + id, Activity: activity, SKU: sku, Delta: delta, Reason: reason, At: stock.MillisOf(d.now()),
	})
	return counts, err
}

// apply records an adjustment, asks the ledger, and records the answer.
func (d *Desk) apply(ctx context.Context, a stock.Adjustment) (stock.Counts, error) {
	had, err := d.store.SaveAdjustment(ctx, a)
	if err != nil {
		return stock.Counts{}, err
	}
	if had.Finished && had.Refusal != "" {
		return stock.Counts{}, readRefusal(had.Refusal, a.SKU)
	}
	if !had.Finished {
		err := d.ledger.Adjust(ctx, a)
		refusal := ""
		switch {
		case final(err):
			refusal = writeRefusal(err)
		case err != nil:
			return stock.Counts{}, err
		}
		if saved := d.store.FinishAdjustment(ctx, a.Activity, a.ID, refusal); saved != nil {
			return stock.Counts{}, saved
		}
		if err != nil {
			return stock.Counts{}, err
		}
	}
	return d.ledger.Counts(ctx, a.Activity)
}

// finals are the ledger's answers to an adjustment that will stay the same,
// with the words they are recorded by.
var finals = map[string]error{
	"insufficient": stock.ErrInsufficient, "invalid": stock.ErrInvalid, "no_such_sku": stock.ErrNoSuchSKU,
	"conflict": stock.ErrConflict, "ended": stock.ErrEnded,
}

func final(err error) bool { return writeRefusal(err) != "" }

// writeRefusal is how a final refusal is recorded: its word, and what could
// have been taken. Other errors are "".
func writeRefusal(err error) string {
	for word, sentinel := range finals {
		if !errors.Is(err, sentinel) {
			continue
		}
		available := 0
		var r *stock.Refusal
		if errors.As(err, &r) {
			available = r.Available
		}
		return fmt.Sprintf("%s %d", word, available)
	}
	return ""
}

// readRefusal answers what was recorded as it was answered the first time.
func readRefusal(text string, sku stock.SKU) error {
	var word string
	var available int
	if _, err := fmt.Sscanf(text, "%s %d", &word, &available); err != nil || finals[word] == nil {
		return fmt.Errorf("%w: refused before: %s", stock.ErrInvalid, text)
	}
	return &stock.Refusal{Err: finals[word], SKU: sku, Available: available}
}
