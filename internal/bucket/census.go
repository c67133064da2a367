package bucket

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"sluice/internal/lib/lease"
)

// hold is a lease that this worker was given. It is renewed and never acquired
// again: a bucket whose lease was lost is begun anew, by whoever gets it.
//
// While the leases do not answer it stands on: a keeper that stopped then would
// leave every order unlanded for as long, though nobody can take its place. If
// somebody can, who reaches the leases, the fence ends this one's work.
type hold struct {
	leases lease.Leases
	grant  lease.Grant
	ttl    time.Duration
	now    func() time.Time

	mu     sync.Mutex
	until  time.Time // our clock: it stands at least until then
	silent bool      // the leases were asked before that and have not answered
}

// acquire answers nil when somebody else holds the lease.
func acquire(ctx context.Context, o *Options, name string) (*hold, error) {
	asked := o.Now() // it is granted later than this, so it ends later too
	g, err := o.Leases.Acquire(ctx, name, o.Holder, o.TTL)
	if errors.Is(err, lease.ErrHeld) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &hold{leases: o.Leases, grant: g, ttl: o.TTL, now: o.Now, until: asked.Add(o.TTL)}, nil
}

func (h *hold) stands() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silent || h.now().Before(h.until)
}

// asking notes that the leases are being asked about it.
func (h *hold) asking() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = h.silent || h.now().Before(h.until)
}

func (h *hold) renew(ctx context.Context) error {
	h.asking()
	if !h.stands() {
		return nil // whoever works under it finds out
	}
	asked := h.now()
	err := h.leases.Renew(ctx, h.grant, h.ttl)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.until, h.silent = asked.Add(h.ttl), false
	case errors.Is(err, lease.ErrLost):
		h.until, h.silent, err = time.Time{}, false, nil
	}
	return err
}

func (h *hold) release(ctx context.Context) error {
	h.mu.Lock()
	h.until, h.silent = time.Time{}, false
	h.mu.Unlock()
	return h.leases.Release(ctx, h.grant)
}

// census counts the workers by what they have in common, the leases. Each has a
// numbered seat, the lowest it finds free, so the number of the first free seat
// is the number of workers. What disturbs it for a moment (two look at one free
// seat at once, a worker has died) only shifts shares for as long.
type census struct {
	*Options
	seat   *hold
	number int
}

// maxWorkers bounds a walk over the seats.
const maxWorkers = 1024

// step renews this worker's seat, moves to a lower one that is free, and
// answers how many workers there are, ≥ 1.
func (c *census) step(ctx context.Context) (workers int, err error) {
	if c.seat != nil {
		if err := c.seat.renew(ctx); err != nil {
			return 0, err
		}
		if !c.seat.stands() {
			c.seat = nil
		}
	}
	for n := range maxWorkers {
		if c.seat != nil && n == c.number {
			continue
		}
		seat, err := acquire(ctx, c.Options, "bucket-worker/"+strconv.Itoa(n))
		switch {
		case err != nil:
			return 0, err
		case seat == nil:
			continue
		case c.seat != nil && n > c.number:
			return n, seat.release(ctx)
		}
		old := c.seat
		c.seat, c.number = seat, n
		if old != nil {
			if err := old.release(ctx); err != nil {
				return 0, err
			}
		}
	}
	return maxWorkers, nil
}

// leave gives the seat back.
func (c *census) leave(ctx context.Context) error {
	if c.seat == nil {
		return nil
	}
	seat := c.seat
	c.seat = nil
	return seat.release(ctx)
}
