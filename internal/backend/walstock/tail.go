package walstock

import (
	"context"
	"fmt"
	"iter"

	"sluice/internal/stock"
)

// Tail implements stock.Log.
func (l *Ledger) Tail(ctx context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		if after.Position+1 < l.log.First() {
			yield(stock.Entry{}, fmt.Errorf("%w: it starts at %d, the cursor stands at %d", stock.ErrTruncated, l.log.First(), after.Position))
			return
		}
		var d stock.Decoder
		for rec, err := range l.log.Read(after.Position + 1) {
			if err == nil {
				err = ctx.Err()
			}
			var e stock.Entry
			if err == nil {
				e, err = d.Entry(rec.Data)
				e.Cursor = stock.Cursor{Log: LogID, Epoch: Epoch, Position: rec.Seq}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Trim implements stock.Log. Entries go when Compact has written a snapshot
// that covers them.
func (l *Ledger) Trim(_ context.Context, upTo stock.Cursor) error {
	if upTo.Log != LogID || upTo.Position > l.log.Durable() {
		return fmt.Errorf("%w: trim to %d of log %q", stock.ErrInvalid, upTo.Position, upTo.Log)
	}
	for {
		had := l.trimmed.Load()
		if upTo.Position <= had || l.trimmed.CompareAndSwap(had, upTo.Position) {
			return nil
		}
	}
}
