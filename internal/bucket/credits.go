package bucket

import (
	"context"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// transit is a move whose debit is in the store, and whose credit may not be.
type transit struct {
	stock.Move
	next  time.Time
	wait  time.Duration
	fresh bool // debited under our eyes: nobody can have given the credit yet
}

// Bounds of passing units on.
const (
	creditsPerStep = 16
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
	now, tried := t.Now(), 0
	for id, m := range t.moves {
		if now.Before(m.next) {
			continue
		}
		if tried++; tried > creditsPerStep {
			break
		}
		if !m.fresh {
			there := stock.Place{Activity: m.Activity, Bucket: m.To}.Log()
			landed, err := t.Buckets.Adjusted(ctx, there, m.Move.Credit(0).ID)
			if err != nil {
				return fmt.Errorf("move %s: %w", m.ID, err)
			}
			if landed {
				delete(t.moves, id)
				continue
			}
		}
		m.fresh, m.wait = false, min(max(2*m.wait, firstCredit), lastCredit)
		m.next = now.Add(m.wait)
		call, cancel := context.WithTimeout(ctx, creditWait)
		err := t.Credit(call, m.Move, stock.MillisOf(now))
		cancel()
		if err != nil && m.wait == lastCredit {
			// Its bucket may be in the middle of a rebuilding, so the first few are no news.
			t.Logger.Warn("units in transit wait for their bucket", "log", t.log, "to", m.To, "move", m.ID, "error", err)
		}
	}
	return nil
}
