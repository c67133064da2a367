package call

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// BulkheadOptions of a Bulkhead. The zero value is usable.
type BulkheadOptions struct {
	Name     string        // in errors
	InFlight int           // calls at a time; default 64, at least 1
	Waiting  int           // callers that may wait for a place; default 0: none waits
	MaxWait  time.Duration // bound on a wait, besides the caller's context; default 1 s
}

func (o BulkheadOptions) withDefaults() (BulkheadOptions, error) {
	o.InFlight = cmp.Or(o.InFlight, 64)
	o.MaxWait = cmp.Or(o.MaxWait, time.Second)
	return o, faults("bulkhead "+o.Name,
		check(o.InFlight >= 1, "in flight %d is below 1", o.InFlight),
		check(o.Waiting >= 0, "waiting %d is negative", o.Waiting),
		check(o.MaxWait > 0, "max wait %v is not above 0", o.MaxWait))
}

// Bulkhead bounds the calls to one dependency that are in flight, so that a slow
// one takes up its own places and not the process. Callers beyond may wait in a
// bounded queue, first come first served; callers beyond that are refused at
// once, for a long queue in front of a slow dependency only makes everybody late.
// It is safe for concurrent use.
type Bulkhead struct {
	places  chan struct{} // one element for each call in flight
	waiting atomic.Int64
	queue   int64
	maxWait time.Duration
	full    error
}

// NewBulkhead is empty. The error wraps ErrOptions and names all faults.
func NewBulkhead(o BulkheadOptions) (*Bulkhead, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	full := ErrFull
	if o.Name != "" {
		full = fmt.Errorf("%s: %w", o.Name, ErrFull) // made once: refusing must cost nothing
	}
	return &Bulkhead{places: make(chan struct{}, o.InFlight), queue: int64(o.Waiting), maxWait: o.MaxWait, full: full}, nil
}

// Enter takes a place, waiting for one if it must and may. It answers ErrFull
// when the queue is full or the wait too long, or the context's error. Every nil
// must be matched by one Leave.
func (b *Bulkhead) Enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // nobody would hear the answer
	}
	select {
	case b.places <- struct{}{}:
		return nil
	default:
	}
	// Adding first may refuse one while another refused one is on its way out
	// again; it never lets one too many wait, and needs no loop.
	if b.waiting.Add(1) > b.queue {
		b.waiting.Add(-1)
		return b.full
	}
	defer b.waiting.Add(-1)
	late := time.NewTimer(b.maxWait)
	defer late.Stop()
	select {
	case b.places <- struct{}{}:
		return nil
	case <-late.C:
		return b.full
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave gives a place back. One too many panics.
func (b *Bulkhead) Leave() {
	select {
	case <-b.places:
	default:
		panic("call: bulkhead left more often than entered")
	}
}

// InFlight and Waiting are counts of this moment.
func (b *Bulkhead) InFlight() int { return len(b.places) }
func (b *Bulkhead) Waiting() int  { return int(b.waiting.Load()) }
