package redisstock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/internal/stock"
)

// pullAndReserve answers a request for which the user's bucket has too few free
// units: by the honest refusal if all buckets together have too few, by units
// of others if they come in time. Never does it say "sold out" of units that
// are free elsewhere or under way.
func (l *Ledger) pullAndReserve(ctx context.Context, act *activity, b *bucket, r *stock.Request, short *shortage) (found, error) {
	if len(act.buckets) == 1 {
		return found{}, short.refusal()
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.PullWithin+l.o.Timeout)
	defer cancel()
	if err := l.pull(ctx, act, b, r.Lines); err != nil {
		return found{}, err
	}
	got, err := l.reserve(ctx, b, r)
	if !errors.As(err, &short) {
		return got, err
	}
	// Somebody else took what came. What the others have left decides.
	if _, err = l.missing(ctx, act, r.Lines); err == nil {
		err = fmt.Errorf("%w: %s is free in other buckets", stock.ErrNotReady, short.sku)
	}
	return found{}, err
}

// missing surveys an activity for what the lines ask for: nil if all buckets
// together have it, else the refusal. While units are in transit or change hands
// it looks again, at most PullWithin; then it is ErrNotReady.
func (l *Ledger) missing(ctx context.Context, act *activity, lines []stock.Line) (*survey, error) {
	within, cancel := context.WithTimeout(ctx, l.o.PullWithin)
	defer cancel()
	for {
		s, err := l.survey(ctx, act)
		if err != nil {
			return nil, err
		}
		err = s.missing(lines)
		if !errors.Is(err, stock.ErrNotReady) || !pause(within) {
			return s, err
		}
	}
}

// pull gets the units that a bucket lacks for the lines from the others, and
// waits until they are there, at most PullWithin. Nil says that it is worth
// trying again. For each bucket and SKU one pull is under way in this process;
// the others who need one wait for it.
func (l *Ledger) pull(ctx context.Context, act *activity, b *bucket, lines []stock.Line) error {
	s, err := l.missing(ctx, act, lines)
	if err != nil {
		return err
	}
	own := s.states[b.place.Bucket]
	for _, line := range lines {
		at := s.find(line.SKU)
		if own.items[at].free >= line.Quantity {
			continue
		}
		done := l.pulling.DoChan(b.m+string(line.SKU), func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.o.PullWithin)
			defer cancel()
			return nil, l.fetch(ctx, act, b, s.states, at, line.Quantity-own.items[at].free)
		})
		select {
		case <-done: // whether it got what it asked for, the bucket says
		case <-ctx.Done():
			return fmt.Errorf("%w: units of other buckets did not arrive in time: %w", stock.ErrNotReady, ctx.Err())
		}
	}
	return nil
}

// pause waits a little before asking again.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// fetch debits the richest buckets and waits for the credits, which their
// keepers give once the debits are in the store. It takes up to half of what
// the richest has, so that the next one here need not ask, and no more than is
// needed of the others.
func (l *Ledger) fetch(ctx context.Context, act *activity, b *bucket, states []state, at, need int) error {
	donors := make([]int, 0, len(states))
	for i := range states {
		if i != int(b.place.Bucket) && states[i].items[at].free > 0 {
			donors = append(donors, i)
		}
	}
	slices.SortFunc(donors, func(x, y int) int { return cmp.Compare(states[y].items[at].free, states[x].items[at].free) })
	var awaited []string
	for i, from := range donors {
		free := states[from].items[at].free
		units := min(need, free)
		if i == 0 {
			units = max(units, free/2)
		}
		move := stock.Move{ID: l.o.NewID(), Activity: act.id, SKU: states[from].items[at].sku, Units: units, From: uint16(from), To: b.place.Bucket}
		_, _, err := l.adjustIn(ctx, act.buckets[from], move.Debit(0))
		var short *shortage
		if errors.As(err, &short) {
			continue // somebody was faster
		}
		if err != nil && !errors.Is(err, stock.ErrUnknown) {
			return err
		}
		awaited = append(awaited, move.Credit(0).ID)
		if need -= units; need <= 0 {
			break
		}
	}
	for len(awaited) > 0 {
		here, err := l.adjusted(ctx, b, awaited[0])
		if err != nil {
			return err
		}
		if here {
			awaited = awaited[1:]
		} else if !pause(ctx) {
			return ctx.Err()
		}
	}
	return nil
}

// gatherAndAdjust takes units back of which the first bucket has too few: it
// gets them from the others first.
func (l *Ledger) gatherAndAdjust(ctx context.Context, act *activity, a stock.Adjustment, short *shortage) (*epoch, uint64, error) {
	lines := []stock.Line{{SKU: a.SKU, Quantity: -a.Delta}}
	ctx, cancel := context.WithTimeout(ctx, l.o.LandWithin)
	defer cancel()
	for range len(act.buckets) + 1 { // others sell on meanwhile
		if len(act.buckets) > 1 {
			if err := l.pull(ctx, act, act.buckets[0], lines); err != nil {
				return nil, 0, untaken(err, a.SKU)
			}
		}
		e, sequence, err := l.adjustIn(ctx, act.buckets[0], a)
		if !errors.As(err, &short) {
			return e, sequence, err
		}
		if len(act.buckets) == 1 {
			return nil, 0, &stock.Refusal{Err: stock.ErrInsufficient, SKU: a.SKU, Available: short.free}
		}
	}
	return nil, 0, fmt.Errorf("%w: free units of %s could not be gathered in time", stock.ErrNotReady, a.SKU)
}

// untaken words the refusal of units that are not there to be taken back.
func untaken(err error, sku stock.SKU) error {
	var r *stock.Refusal
	if errors.As(err, &r) && (r.Err == stock.ErrAllHeld || r.Err == stock.ErrSoldOut) {
		return &stock.Refusal{Err: stock.ErrInsufficient, SKU: sku}
	}
	return err
}
