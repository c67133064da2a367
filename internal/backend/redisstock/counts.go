package redisstock

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/stock"
)

// state is what m has of a bucket.
type state struct {
	at     stock.Cursor
	rules  rules
	opened string
	items  []item // in the allocation's order
}

func decodeState(p stock.Place, epoch uint32, fields map[string]string) (state, error) {
	place, packedRules := unpacker{p: fields["place"]}, unpacker{p: fields["rules"]}
	s := state{
		at:     stock.Cursor{Log: p.Log(), Epoch: epoch, Position: uint64(place.int())},
		rules:  packedRules.rules(),
		opened: fields["opened"],
	}
	failed := place.failed || packedRules.failed
	for name, packed := range fields {
		if sku, ok := strings.CutPrefix(name, "i:"); ok {
			u := unpacker{p: packed}
			s.items = append(s.items, u.item(stock.SKU(sku)))
			failed = failed || u.failed
		}
	}
	if failed || len(s.items) == 0 {
		return state{}, fmt.Errorf("%w: bucket %d of %s does not decode", stock.ErrNotReady, p.Bucket, p.Activity)
	}
	slices.SortFunc(s.items, func(a, b item) int { return a.index - b.index })
	return s, nil
}

// states reads all buckets of an activity, each at a time of its own.
func (l *Ledger) states(ctx context.Context, act *activity) ([]state, error) {
	answers, err := l.runAll(ctx, act.buckets, readState, func(b *bucket, e *epoch) ([]string, []string) {
		return []string{b.m}, []string{e.seenText()}
	})
	if err != nil {
		return nil, err
	}
	states := make([]state, len(answers))
	for i, a := range answers {
		if a.err != nil {
			return nil, a.err
		}
		fields, err := a.reply[0].AsStrMap()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", stock.ErrNotReady, err)
		}
		if states[i], err = decodeState(act.buckets[i].place, a.epoch.number, fields); err != nil {
			return nil, err
		}
		a.epoch.note(states[i].at.Position)
	}
	return states, nil
}

// total is where the units of a SKU are over all buckets. In transit is what
// one bucket has given and no other has got yet.
func total(states []state, at int) item {
	sum := states[0].items[at]
	for _, s := range states[1:] {
		it := s.items[at]
		sum.allocated += it.allocated
		sum.free += it.free
		sum.held += it.held
		sum.confirmed += it.confirmed
		sum.returned += it.returned
		sum.out += it.out
		sum.in += it.in
	}
	return sum
}

// countOf is total as others are told.
func countOf(states []state, at int) stock.Count {
	it := total(states, at)
	transit := max(it.out-it.in, 0)
	units := it.allocated + transit
	return stock.Count{
		SKU: it.sku, Allocated: units, Free: it.free, Held: it.held, Confirmed: it.confirmed,
		InTransit: transit, Returned: it.returned, Level: stock.LevelOf(units, it.free, it.held+transit),
	}
}

// Counts implements stock.Ledger. Held includes what is pending. Over several
// buckets the counts are sums of readings that were not taken at one instant,
// and there is no one position; a level of sold_out is true all the same.
func (l *Ledger) Counts(ctx context.Context, id stock.ActivityID) (stock.Counts, error) {
	act, err := l.meet(ctx, id)
	if err != nil {
		return stock.Counts{}, err
	}
	s, err := l.survey(ctx, act)
	if err != nil {
		return stock.Counts{}, err
	}
	c := stock.Counts{Activity: act.id, Phase: s.states[0].rules.phase}
	if len(s.states) == 1 {
		c.Position = s.states[0].at
	}
	for i := range s.items {
		c.Items = append(c.Items, s.count(i))
	}
	return c, nil
}
