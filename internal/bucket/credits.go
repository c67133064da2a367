package bucket

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// transit is a move whose debit is in the store, and whose credit may not be.
type transit struct {
	stock.Move
	next  time.Time
	wait  time.Duration
	fresh bool // debited under our eyes: nobody can have given the credit yet
}

// Bounds of passing units on. A keeper that begins finds every move that the
// bucket has ever made, and each return of a unit to a bucket where nobody asks
// makes one more: there are thousands.
const (
	creditsPerStep = order.MaxAdjusted
	creditsAtOnce  = 16
	creditWait     = 100 * time.Millisecond // for the other bucket, whose engine may be away
	firstCredit    = 50 * time.Millisecond  // until it is looked whether a credit has landed
	lastCredit     = 2 * time.Second
)

// debited notes the debit of a move.
func (t *tenure) debited(e *stock.Entry, fresh bool) {
	if e.Kind != stock.EntryAdjusted || t.moves == nil {
		return
	}
	m, debit, ok := stock.MoveOf(t.place.Bucket, e.Adjustment)
	if ok && debit && t.moves[e.Adjustment.ID] == nil {
		t.moves[e.Adjustment.ID] = &transit{Move: m, fresh: fresh}
	}
}

// credit gives units in transit to the buckets they are for, again and again
// until they have landed there. A debit whose credit was given before this
// worker came is found to have landed, and no more.
func (t *tenure) credit(ctx context.Context) error {
	now := t.Now()
	due := t.due(now)
	if err := t.arrived(ctx, due); err != nil {
		return err
	}
	var give sync.WaitGroup
	free := make(chan struct{}, creditsAtOnce)
	for _, m := range due {
		if t.moves[m.Debit(0).ID] == nil {
			continue // it has landed
		}
		m.fresh, m.wait = false, min(max(2*m.wait, firstCredit), lastCredit)
		m.next = now.Add(m.wait)
		free <- struct{}{}
		give.Go(func() {
			defer func() { <-free }()
			call, cancel := context.WithTimeout(ctx, creditWait)
			defer cancel()
			err := t.Credit(call, m.Move, stock.MillisOf(now))
			if err != nil && m.wait == lastCredit {
				// Its bucket may be in the middle of a rebuilding, so the first few are no news.
				t.Logger.Warn("units in transit wait for their bucket", "log", t.log, "to", m.To, "move", m.ID, "error", err)
			}
		})
	}
	give.Wait()
	return nil
}

// due are the moves to look after now: those first for which somebody is
// waiting, and then those that have been left alone longest.
func (t *tenure) due(now time.Time) (due []*transit) {
	for _, m := range t.moves {
		if !now.Before(m.next) {
			due = append(due, m)
		}
	}
	slices.SortFunc(due, func(a, b *transit) int {
		if a.fresh != b.fresh {
			if a.fresh {
				return -1
			}
			return 1
		}
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.ID, b.ID))
	})
	return due[:min(len(due), creditsPerStep)]
}

// arrived forgets those moves whose credit has landed, by one look at each
// bucket that they are for.
func (t *tenure) arrived(ctx context.Context, due []*transit) error {
	to := make(map[uint16][]*transit)
	for _, m := range due {
		if !m.fresh {
			to[m.To] = append(to[m.To], m)
		}
	}
	for bucket, list := range to {
		ids := make([]string, len(list))
		for i, m := range list {
			ids[i] = m.Credit(0).ID
		}
		there := stock.Place{Activity: t.place.Activity, Bucket: bucket}.Log()
		landed, err := t.Buckets.Adjusted(ctx, there, ids)
		if err != nil {
			return fmt.Errorf("moves to %s: %w", there, err)
		}
		for i, m := range list {
			if landed[i] {
				delete(t.moves, m.Debit(0).ID)
			}
		}
	}
	return nil
}
