package redisstock

import (
	"context"
	"fmt"

	"sluice/internal/stock"
)

// Standing is where the units of one bucket are, all read at one instant, and
// the place of its newest entry then. It is for whoever compares the bucket with
// a book: nothing is added up, and units in transit are not told.
func (l *Ledger) Standing(ctx context.Context, p stock.Place) (stock.Counts, error) {
	b := l.at(p)
	e, err := l.accepts(ctx, b)
	if err != nil {
		return stock.Counts{}, err
	}
	_, reply, _, err := l.run(ctx, b, e, readState, []string{b.m}, []string{e.seenText()})
	if err != nil {
		return stock.Counts{}, asRead(err)
	}
	fields, err := reply[0].AsStrMap()
	if err != nil {
		return stock.Counts{}, fmt.Errorf("%w: %w", stock.ErrNotReady, err)
	}
	s, err := decodeState(p, e.number, fields)
	if err != nil {
		return stock.Counts{}, err
	}
	e.note(s.at.Position)
	c := stock.Counts{Activity: p.Activity, Position: s.at, Phase: s.rules.phase}
	for _, it := range s.items {
		c.Items = append(c.Items, stock.Count{
			SKU: it.sku, Allocated: it.allocated, Free: it.free, Held: it.held, Confirmed: it.confirmed, Returned: it.returned,
			Level: stock.LevelOf(it.allocated, it.free, it.held),
		})
	}
	return c, nil
}
