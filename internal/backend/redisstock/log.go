package redisstock

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"sluice/internal/stock"
)

// page is how many entries Tail asks for at once.
const page = 512

// Tail implements stock.Log for the log of one bucket (stock.Place.Log). Entries
// that do not follow one another are ErrCorrupt. A later epoch follows an earlier
// one from its first entry on; whether it should is for the keeper to say.
func (l *Ledger) Tail(ctx context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		p, err := stock.PlaceOf(after.Log)
		if err != nil {
			yield(stock.Entry{}, err)
			return
		}
		b, end := l.at(p), "+"
		for {
			entries, err := l.page(ctx, b, after, end)
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				after = e.Cursor
			}
			if err == nil && len(entries) == page && end == "+" {
				end, err = l.head(ctx, b)
			}
			if err != nil {
				yield(stock.Entry{}, err)
				return
			}
			if len(entries) < page {
				return
			}
		}
	}
}

// page reads the entries after the cursor, up to an id; those before a bad place
// come with its error.
func (l *Ledger) page(ctx context.Context, b *bucket, after stock.Cursor, end string) ([]stock.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	found, err := l.client.Do(ctx, l.client.B().Xrange().Key(b.s).Start("("+entryID(after.Epoch, after.Position)).End(end).Count(page).Build()).AsXRange()
	if err != nil {
		return nil, asRead(fault(err))
	}
	entries := make([]stock.Entry, 0, len(found))
	wanted := make([]digest, 0, len(found))
	var bad error
	for _, f := range found {
		var c change
		if c, bad = decode(b.place, f.ID, f.FieldValues); bad == nil {
			bad = l.follows(ctx, b, after, c.Cursor, len(entries) == 0)
		}
		if bad != nil {
			break
		}
		after = c.Cursor
		entries, wanted = append(entries, c.Entry), append(wanted, c.terms)
	}
	texts, err := l.wording(ctx, b, wanted...)
	if err != nil {
		return nil, err
	}
	for i, text := range texts {
		if entries[i].Reservation != nil {
			entries[i].Reservation.Terms = text
		}
	}
	return entries, bad
}

// follows checks that no entry is missing between two. One missing where the
// stream begins was trimmed.
func (l *Ledger) follows(ctx context.Context, b *bucket, after, next stock.Cursor, first bool) error {
	if next.Epoch == after.Epoch && next.Position == after.Position+1 || next.Epoch > after.Epoch && next.Position == 1 {
		return nil
	}
	if first {
		oldest, err := l.client.Do(ctx, l.client.B().Xrange().Key(b.s).Start("-").End("+").Count(1).Build()).AsXRange()
		if err != nil {
			return asRead(fault(err))
		}
		if len(oldest) == 1 && oldest[0].ID == entryID(next.Epoch, next.Position) {
			return fmt.Errorf("%w: %s begins with entry %s, asked for what follows %s", stock.ErrTruncated, after.Log,
				entryID(next.Epoch, next.Position), entryID(after.Epoch, after.Position))
		}
	}
	return fmt.Errorf("%w: %s has entry %s after %s", stock.ErrCorrupt, after.Log, entryID(next.Epoch, next.Position), entryID(after.Epoch, after.Position))
}

// head is the id of the newest entry in the stream.
func (l *Ledger) head(ctx context.Context, b *bucket) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	newest, err := l.client.Do(ctx, l.client.B().Xrevrange().Key(b.s).End("+").Start("-").Count(1).Build()).AsXRange()
	if err == nil && len(newest) == 0 {
		err = errors.New("the stream is gone")
	}
	if err != nil {
		return "", asRead(fault(err))
	}
	return newest[0].ID, nil
}

// Trim implements stock.Log: entries of the cursor's epoch go, but for the
// newest Slack up to it, by which followers catch up.
func (l *Ledger) Trim(ctx context.Context, upTo stock.Cursor) error {
	p, err := stock.PlaceOf(upTo.Log)
	if err != nil || upTo.Position <= l.o.Slack {
		return err
	}
	first := entryID(upTo.Epoch, upTo.Position-l.o.Slack)
	for { // Redis trims some thousand entries at a time, so that others get their turn
		trimmed, err := l.trim(ctx, l.at(p), first)
		if err != nil || trimmed == 0 {
			return err
		}
	}
}

func (l *Ledger) trim(ctx context.Context, b *bucket, first string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	trimmed, err := l.client.Do(ctx, l.client.B().Xtrim().Key(b.s).Minid().Almost().Threshold(first).Build()).AsInt64()
	if err != nil {
		return 0, fault(err)
	}
	return trimmed, nil
}
