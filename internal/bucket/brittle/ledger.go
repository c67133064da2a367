package brittle

import (
	"context"

	"sluice/internal/stock"
)

// deciding runs f on the book of a bucket that accepts.
func (e *Engine) deciding(p stock.Place, operation string, f func(b *bucket) (*stock.Entry, error)) error {
	return e.at(p, operation, func(b *bucket) error {
		if err := b.accepting(); err != nil {
			return err
		}
		entry, err := f(b)
		b.add(p, entry)
		return err
	})
}

// Reserve is stock.Ledger's, of one bucket.
func (e *Engine) Reserve(_ context.Context, p stock.Place, r stock.Request) (receipt stock.Receipt, err error) {
	r.At = e.Now()
	err = e.deciding(p, "reserve", func(b *bucket) (*stock.Entry, error) {
		rec, entry, err := b.book.Reserve(&r)
		if err != nil {
			return nil, err
		}
		receipt = stock.Receipt{Reservation: b.seen(rec), Replayed: entry == nil}
		return entry, nil
	})
	return receipt, err
}

// seen is a reservation as readers see it: pending until it has landed.
func (b *bucket) seen(rec *stock.Record) stock.Reservation {
	r := rec.Reservation
	if r.State == stock.Held && r.ID.Epoch == b.epoch && rec.Sequence > b.landed {
		r.State = stock.Pending
	}
	return r
}

// Settle is stock.Ledger's, of one bucket.
func (e *Engine) Settle(_ context.Context, p stock.Place, s stock.Settlement) (is stock.Outcome, err error) {
	s.At = e.Now()
	err = e.deciding(p, "settle", func(b *bucket) (entry *stock.Entry, err error) {
		is, entry, err = b.book.Settle(s)
		return entry, err
	})
	return is, err
}

// Adjust is stock.Ledger's, of one bucket.
func (e *Engine) Adjust(_ context.Context, p stock.Place, a stock.Adjustment) error {
	a.At = e.Now()
	return e.deciding(p, "adjust", func(b *bucket) (*stock.Entry, error) { return b.book.Adjust(a) })
}

// Lookup is stock.Ledger's, by id: one of an older epoch that is found nowhere
// is refused.
func (e *Engine) Lookup(_ context.Context, id stock.ID) (receipt stock.Receipt, err error) {
	err = e.at(stock.Place{Activity: id.Activity, Bucket: id.Bucket}, "lookup", func(b *bucket) error {
		if err := b.accepting(); err != nil {
			return err
		}
		rec, err := b.book.Find(id)
		switch {
		case err == nil:
			receipt.Reservation = b.seen(rec)
		case id.Epoch < b.epoch:
			receipt.Reservation, err = stock.Reservation{ID: id, State: stock.Refused}, nil
		}
		return err
	})
	return receipt, err
}

// Counts are the units of a bucket that accepts.
func (e *Engine) Counts(p stock.Place) (c stock.Counts, err error) {
	err = e.at(p, "counts", func(b *bucket) error {
		if err := b.accepting(); err != nil {
			return err
		}
		c = b.book.Counts()
		c.Position = stock.Cursor{Log: p.Log(), Epoch: b.epoch, Position: b.book.Sequence()}
		for i := range c.Items {
			if it := &c.Items[i]; it.SKU == b.skew.SKU {
				it.Free += b.skew.Free
				it.Held += b.skew.Held
			}
		}
		return nil
	})
	return c, err
}
