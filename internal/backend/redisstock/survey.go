package redisstock

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// maxBetween is how many entries of a bucket are read to learn what happened
// between two readings of it, which are a round trip apart.
const maxBetween = 256

// survey is what is known of an activity's buckets together. They cannot be read
// at one instant: while one is read a unit may be freed in another that was read
// before, or move. So each is read twice, with what happened in between. What
// holds of a bucket all the time from its first to its second reading held of
// all buckets at the moment between the first round of readings and the second.
type survey struct {
	states []state   // by the second reading
	items  []outlook // in the order of each state's items
}

// outlook bounds where the units of an item were at that moment, over all buckets.
type outlook struct {
	most int  // were free, at most
	held int  // were held, at most; of use only where none was free
	lost bool // units were moved meanwhile, or it is not known what happened
}

// exact is the survey of a reading that was taken at one instant.
func exact(states []state) *survey {
	s := &survey{states: states, items: make([]outlook, len(states[0].items))}
	for i := range s.items {
		it := total(states, i)
		s.items[i] = outlook{most: it.free, held: it.held}
	}
	return s
}

// missing is the refusal of the first line for which all buckets together had
// too few free units at one moment, or nil. ErrNotReady says that there may be
// no such moment, because units were in transit or changed hands meanwhile.
//
// Where none was free, units that are held can only be confirmed: so nothing was
// held at that moment if nothing was by the first readings, and something was if
// something still is by the second.
func (s *survey) missing(lines []stock.Line) error {
	for _, line := range lines {
		at := s.find(line.SKU)
		if at < 0 {
			return &stock.Refusal{Err: stock.ErrNoSuchSKU, SKU: line.SKU}
		}
		it, o := total(s.states, at), s.items[at]
		switch {
		case it.free >= line.Quantity:
			continue
		case it.out != it.in:
			return fmt.Errorf("%w: units of %s are on their way between buckets", stock.ErrNotReady, line.SKU)
		case o.lost, o.most >= line.Quantity, o.most > 0 && it.free == 0, o.held > 0 && it.held == 0:
			return fmt.Errorf("%w: units of %s change hands", stock.ErrNotReady, line.SKU)
		}
		return (&shortage{it.sku, it.free, it.held}).refusal()
	}
	return nil
}

func (s *survey) find(sku stock.SKU) int {
	for i := range s.states[0].items {
		if s.states[0].items[i].sku == sku {
			return i
		}
	}
	return -1
}

// count is where the units of an item are, by the second reading. Its level is
// sold_out only where that was so at one moment.
func (s *survey) count(at int) stock.Count {
	c := countOf(s.states, at)
	if o := s.items[at]; c.Level == stock.SoldOut && (o.lost || o.most > 0 || o.held > 0) {
		c.Level = stock.AllHeld
	}
	return c
}

// look makes a survey.
func (l *Ledger) look(ctx context.Context, act *activity) (*survey, error) {
	first, err := l.states(ctx, act)
	if err != nil {
		return nil, err
	}
	s := exact(first)
	if len(first) == 1 {
		return s, nil
	}
	if s.states, err = l.states(ctx, act); err != nil {
		return nil, err
	}
	return s, l.compare(ctx, act, s, first)
}

// compare takes into the outlook what happened between the readings, which the
// entries of the buckets tell that have any.
func (l *Ledger) compare(ctx context.Context, act *activity, s *survey, first []state) error {
	var commands rueidis.Commands
	var where []int
	for i, b := range act.buckets {
		from, to := first[i].at, s.states[i].at
		switch {
		case from == to:
		case from.Epoch != to.Epoch || to.Position < from.Position || to.Position-from.Position > maxBetween || len(first[i].items) != len(s.states[i].items):
			s.lose()
		default:
			commands = append(commands, l.client.B().Xrange().Key(b.s).Start("("+entryID(from.Epoch, from.Position)).
				End(entryID(to.Epoch, to.Position)).Count(maxBetween).Build())
			where = append(where, i)
		}
	}
	if len(commands) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	for n, result := range l.client.DoMulti(ctx, commands...) {
		i := where[n]
		found, err := result.AsXRange()
		if err != nil {
			return asRead(fault(err))
		}
		if uint64(len(found)) != s.states[i].at.Position-first[i].at.Position {
			s.lose() // trimmed
			continue
		}
		var after []item
		for _, f := range found {
			c, err := decode(act.buckets[i].place, f.ID, f.FieldValues)
			if err != nil {
				return fmt.Errorf("%w: %w", stock.ErrNotReady, err)
			}
			after = append(after, c.after...)
		}
		s.happened(first[i].items, after)
	}
	return nil
}

// happened widens the outlook by what the items of one bucket were in between.
func (s *survey) happened(first, after []item) {
	for i := range first {
		o, had := &s.items[i], &first[i]
		most := had.free
		for _, it := range after {
			if it.sku == had.sku {
				most = max(most, it.free)
				o.lost = o.lost || it.out != had.out || it.in != had.in
			}
		}
		o.most += most - had.free
	}
}

func (s *survey) lose() {
	for i := range s.items {
		s.items[i].lost = true
	}
}

// round is one survey that several callers wait for.
type round struct {
	done   chan struct{}
	survey *survey
	err    error
}

// survey is look for many: all who ask while one survey is under way share the
// next, which begins after each of them has asked. So a flood at a sale that is
// sold out costs one survey at a time.
func (l *Ledger) survey(ctx context.Context, act *activity) (*survey, error) {
	act.mu.Lock()
	if act.next == nil {
		act.next = &round{done: make(chan struct{})}
	}
	r := act.next
	if !act.running {
		act.running = true
		go l.rounds(context.WithoutCancel(ctx), act)
	}
	act.mu.Unlock()
	select {
	case <-r.done:
		return r.survey, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", stock.ErrNotReady, ctx.Err())
	}
}

// rounds goes on until nobody asks any more.
func (l *Ledger) rounds(ctx context.Context, act *activity) {
	for {
		act.mu.Lock()
		r := act.next
		act.next = nil
		act.running = r != nil
		act.mu.Unlock()
		if r == nil {
			return
		}
		r.survey, r.err = l.look(ctx, act)
		close(r.done)
	}
}
