package redisstock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/internal/stock"
)

// pollEvery is how often a bucket is asked how far it has landed, while anybody waits.
const pollEvery = 2 * time.Millisecond

// landing is how far a bucket has landed in an epoch, as far as is known. Of
// all who wait one asks for all.
type landing struct {
	mu   sync.Mutex
	upTo uint64
	poll chan struct{} // closed when the one who asks has an answer; nil when nobody does
}

// reached answers whether the entry is known to have landed. If not, either the
// caller has become the one who asks, or there is a channel to wait for.
func (g *landing) reached(sequence uint64) (yes bool, wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.upTo >= sequence {
		return true, nil
	}
	if g.poll != nil {
		return false, g.poll
	}
	g.poll = make(chan struct{})
	return false, nil
}

func (g *landing) note(upTo uint64) {
	g.mu.Lock()
	g.upTo = max(g.upTo, upTo)
	g.mu.Unlock()
}

func (g *landing) answered() {
	g.mu.Lock()
	close(g.poll)
	g.poll = nil
	g.mu.Unlock()
}

// awaitLanded waits until the entry is in the store, or answers ErrUnknown: it
// may still get there, unless the epoch ends first.
func (l *Ledger) awaitLanded(ctx context.Context, b *bucket, e *epoch, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.LandWithin)
	defer cancel()
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	for {
		yes, wait := e.landed.reached(sequence)
		if yes {
			return nil
		}
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return fmt.Errorf("%w: entry %s of %s has not landed yet: %w", stock.ErrUnknown, entryID(e.number, sequence), b.place.Log(), ctx.Err())
			}
		}
		timer.Reset(pollEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		err := l.pollLanded(ctx, b, e)
		e.landed.answered()
		if err != nil {
			return err
		}
	}
}

func (l *Ledger) pollLanded(ctx context.Context, b *bucket, e *epoch) error {
	values, err := l.client.Do(ctx, l.client.B().Hmget().Key(b.m).Field("epoch", "landed").Build()).ToArray()
	if err != nil {
		return fmt.Errorf("%w: redis: %w", stock.ErrUnknown, err)
	}
	number, err1 := values[0].AsInt64()
	upTo, err2 := values[1].AsInt64()
	if err1 != nil || err2 != nil || uint32(number) != e.number {
		b.forget(e)
		return fmt.Errorf("%w: bucket %d of %s is being restored", stock.ErrUnknown, b.place.Bucket, b.place.Activity)
	}
	e.landed.note(uint64(upTo))
	return nil
}
