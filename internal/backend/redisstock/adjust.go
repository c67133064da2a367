package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// Adjust implements stock.Ledger. Units are given to and taken from the first
// bucket, for which free units of the others are gathered when it has too few;
// rules are said to all. It answers once every bucket's entry has landed, else
// ErrUnknown; the same adjustment again finds out, or finishes.
func (l *Ledger) Adjust(ctx context.Context, a stock.Adjustment) error {
	if _, _, move := stock.MoveOf(0, &a); move {
		return fmt.Errorf("%w: %q is the id of a move", stock.ErrInvalid, a.ID)
	}
	act, err := l.meet(ctx, a.Activity)
	if err != nil {
		return err
	}
	if err := a.Check(); err != nil {
		return l.misadjusted(ctx, act, &a, err)
	}
	type told struct {
		b        *bucket
		e        *epoch
		sequence uint64
	}
	var all []told
	for i, b := range act.buckets {
		part := a
		if i > 0 {
			part.Delta = 0
			if part.Limits == nil && part.PerUser == nil && part.OpensAt == 0 && part.ClosesAt == 0 && part.Hold == 0 && part.Phase == 0 {
				break // units only
			}
		}
		e, sequence, err := l.adjustIn(ctx, b, part)
		var short *shortage
		if errors.As(err, &short) {
			e, sequence, err = l.gatherAndAdjust(ctx, act, part, short)
		}
		if err != nil {
			return err
		}
		all = append(all, told{b, e, sequence})
	}
	for _, t := range all {
		if err := l.awaitLanded(ctx, t.b, t.e, t.sequence); err != nil {
			return err
		}
	}
	return nil
}

// misadjusted answers an adjustment out of shape, which cannot be the one that
// its id was used for.
func (l *Ledger) misadjusted(ctx context.Context, act *activity, a *stock.Adjustment, why error) error {
	used, err := l.adjusted(ctx, act.buckets[0], a.ID)
	switch {
	case err != nil:
		return err
	case used:
		return fmt.Errorf("%w: adjustment %s", stock.ErrConflict, a.ID)
	}
	return why
}

// adjusted says whether a bucket has applied an adjustment.
func (l *Ledger) adjusted(ctx context.Context, b *bucket, id string) (bool, error) {
	if err := l.enter(ctx); err != nil {
		return false, err
	}
	defer l.leave()
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	used, err := l.client.Do(ctx, l.client.B().Hexists().Key(b.d).Field(id).Build()).AsBool()
	if err != nil {
		return false, asRead(fault(err))
	}
	return used, nil
}

// Credit gives the units of a move to the bucket they are for. Idempotent; only
// once the debit is in the store. It does not wait for landing, which is that
// bucket's keeper's.
func (l *Ledger) Credit(ctx context.Context, m stock.Move, at stock.Millis) error {
	credit := m.Credit(at)
	if err := credit.Check(); err != nil {
		return err
	}
	_, _, err := l.adjustIn(ctx, l.at(stock.Place{Activity: m.Activity, Bucket: m.To}), credit)
	return err
}

// adjustIn asks one bucket and answers the place of the entry, or of a later
// one if the adjustment was made before.
func (l *Ledger) adjustIn(ctx context.Context, b *bucket, a stock.Adjustment) (*epoch, uint64, error) {
	e, err := l.accepts(ctx, b)
	if err != nil {
		return nil, 0, err
	}
	move := ""
	if _, debit, ok := stock.MoveOf(b.place.Bucket, &a); ok && debit {
		move = "out"
	} else if ok {
		move = "in"
	}
	perUser, perOrder, overall := "", "", ""
	if a.Limits != nil {
		perUser, perOrder = strconv.Itoa(a.Limits.PerUser), strconv.Itoa(a.Limits.PerOrder)
	}
	if a.PerUser != nil {
		overall = strconv.Itoa(*a.PerUser)
	}
	entry := stock.AppendEntry(nil, &stock.Entry{Activity: a.Activity, Bucket: b.place.Bucket, Kind: stock.EntryAdjusted, Adjustment: &a})
	tag, reply, _, err := l.run(ctx, b, e, adjust, []string{b.m, b.d, b.s}, []string{
		a.ID, strconv.FormatUint(a.Digest(), 16), string(entry), l.timeOf(a.At), e.seenText(), string(a.SKU), strconv.Itoa(a.Delta),
		perUser, perOrder, overall, number(a.OpensAt), number(a.ClosesAt), number(a.Hold), strconv.Itoa(int(a.Phase)), move,
	})
	if err != nil {
		return nil, 0, err
	}
	if tag != "DONE" && tag != "SAME" {
		return nil, 0, unadjusted(&a, tag, reply)
	}
	sequence, err := reply[0].AsUint64()
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", stock.ErrUnknown, err)
	}
	e.note(sequence)
	return e, sequence, nil
}

func number(m stock.Millis) string { return strconv.FormatInt(int64(m), 10) }

// unadjusted words what adjust.lua answers.
func unadjusted(a *stock.Adjustment, tag string, reply []rueidis.RedisMessage) error {
	switch tag {
	case "CONFLICT":
		return fmt.Errorf("%w: adjustment %s", stock.ErrConflict, a.ID)
	case "MANY":
		return fmt.Errorf("%w: too many adjustments of one activity", stock.ErrOverloaded)
	case "WINDOW":
		return fmt.Errorf("%w: the window would close before it opens", stock.ErrInvalid)
	case "PHASE":
		phase, _ := reply[0].ToInt64()
		return fmt.Errorf("%w: the activity is %s, which is not undone", stock.ErrEnded, stock.Phase(phase))
	case "UNITS":
		return fmt.Errorf("%w: %s would have more than %d units", stock.ErrInvalid, a.SKU, stock.MaxUnits)
	}
	return refusal(&stock.Request{Lines: []stock.Line{{SKU: a.SKU}}}, tag, reply)
}
