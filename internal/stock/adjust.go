package stock

import "fmt"

// Adjustments remembered of one activity are bounded. Deltas meet their bound
// first, so that a sale whose stock is synced too eagerly can still be paused.
const (
	maxDeltas      = 100_000
	maxAdjustments = 2 * maxDeltas
)

// maxAdjustmentID leaves room for a prefix before an operator's id.
const maxAdjustmentID = MaxID + 8

// Adjust edits the live activity. A nil entry with a nil error means that this
// adjustment was applied before.
func (b *Book) Adjust(a Adjustment) (*Entry, error) {
	digest := digestAdjustment(a)
	if had, ok := b.adjusted[a.ID]; ok {
		if had != digest {
			return nil, fmt.Errorf("%w: adjustment %s", ErrConflict, a.ID)
		}
		return nil, nil
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	if n := len(b.adjusted); n >= maxAdjustments || a.Delta != 0 && n >= maxDeltas {
		return nil, fmt.Errorf("%w: %d adjustments of one activity", ErrOverloaded, n)
	}
	if err := b.adjustable(a); err != nil {
		return nil, err
	}
	a.At = max(a.At, b.last)
	b.adjust(a)
	e := b.entry(EntryAdjusted, func(e *Entry) { e.Adjustment = &a })
	return &e, nil
}

func (b *Book) adjustable(a Adjustment) error {
	opens, closes := b.allocation.OpensAt, b.allocation.ClosesAt
	if a.OpensAt != 0 {
		opens = a.OpensAt
	}
	if a.ClosesAt != 0 {
		closes = a.ClosesAt
	}
	if opens >= closes {
		return fmt.Errorf("%w: the window would close before it opens", ErrInvalid)
	}
	if a.Phase != 0 && a.Phase < b.phase && b.phase >= Draining {
		return fmt.Errorf("%w: the activity is %s, which is not undone", ErrEnded, b.phase)
	}
	if a.SKU == "" {
		return nil
	}
	at := b.find(a.SKU)
	if at < 0 {
		return &Refusal{Err: ErrNoSuchSKU, SKU: a.SKU}
	}
	it := &b.items[at]
	if a.Delta < 0 && it.free < -a.Delta {
		return &Refusal{Err: ErrInsufficient, SKU: it.SKU, Available: it.free}
	}
	if a.Delta > 0 && it.allocated > MaxUnits-a.Delta {
		return fmt.Errorf("%w: %s would have more than %d units", ErrInvalid, a.SKU, MaxUnits)
	}
	return nil
}

func (b *Book) adjust(a Adjustment) {
	b.sequence++
	b.last = a.At
	b.adjusted[a.ID] = digestAdjustment(a)
	if a.SKU != "" {
		it := &b.items[b.find(a.SKU)]
		it.allocated += a.Delta
		it.free += a.Delta
		it.moved(b.allocation.Bucket, &a)
		if a.Limits != nil {
			it.PerUser, it.PerOrder = a.Limits.PerUser, a.Limits.PerOrder
		}
	}
	if a.PerUser != nil {
		b.allocation.PerUser = *a.PerUser
	}
	if a.OpensAt != 0 {
		b.allocation.OpensAt = a.OpensAt
	}
	if a.ClosesAt != 0 {
		b.allocation.ClosesAt = a.ClosesAt
	}
	if a.Hold != 0 {
		b.allocation.Hold = a.Hold
	}
	if a.Phase != 0 {
		b.phase = a.Phase
	}
}
