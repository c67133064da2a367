package limit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// LocalPool is a Pool within one process: what a single server uses, and the
// plainest statement of what a Pool does.
type LocalPool struct {
	validity time.Duration
	now      func() time.Time

	mu     sync.Mutex
	plan   plan
	cell   cell
	latest int64
	leases map[string]*granted // all that have not run out
}

type granted struct {
	permits  int64
	until    int64
	returned bool
}

// NewLocalPool grants leases valid for so long, ≥ 1 ms, out of a token bucket.
// Any other algorithm is ErrRate: a window has no permits to set aside for
// later, and a queue is of one process.
func NewLocalPool(r Rate, validity time.Duration, now func() time.Time) (*LocalPool, error) {
	p, err := poolPlan(r)
	if err != nil {
		return nil, err
	}
	if validity < time.Millisecond {
		return nil, fmt.Errorf("%w: leases valid for %s", ErrPool, validity)
	}
	return &LocalPool{validity: validity, now: now, plan: p, leases: map[string]*granted{}}, nil
}

func poolPlan(r Rate) (plan, error) {
	if r.Algorithm != TokenBucket {
		return plan{}, fmt.Errorf("%w: a pool is a token bucket, not %s", ErrRate, r.Algorithm)
	}
	return newPlan(r)
}

// Edit changes the rate as Limiter.Edit does. Leases already granted stand.
func (p *LocalPool) Edit(r Rate) error {
	to, err := poolPlan(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.time()
	if !p.plan.keeps(to) {
		p.cell = to.charge(p.plan.charged(p.cell, now), now)
	}
	p.plan = to
	return nil
}

// time forgets the leases that have run out. There are as many others as the
// processes hold, a few each. The pool is locked.
func (p *LocalPool) time() int64 {
	p.latest = max(p.latest, p.now().UnixNano())
	for id, g := range p.leases {
		if g.until <= p.latest {
			delete(p.leases, id)
		}
	}
	return p.latest
}

// Grant fulfils Pool.
func (p *LocalPool) Grant(ctx context.Context, id string, want int64) (Lease, error) {
	if err := CheckLease(id, want, 1); err != nil {
		return Lease{}, err
	}
	if err := ctx.Err(); err != nil {
		return Lease{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.time()
	g := p.leases[id]
	if g == nil {
		g = &granted{permits: p.draw(want, now), until: now + int64(p.validity)}
		if g.permits > 0 {
			p.leases[id] = g
		}
	}
	var l Lease
	if !g.returned && g.permits > 0 {
		l = Lease{Permits: g.permits, ValidFor: time.Duration(g.until - now)}
	}
	if l.Permits < want {
		// Worth a call is a quarter of what was wanted: not each single permit
		// as it comes, nor so late that others have it all.
		_, d := p.plan.take(p.cell, min(want/4+1, p.plan.rate.capacity()), now)
		l.Again = d.RetryAfter
	}
	return l, nil
}

// draw takes up to want permits out of the bucket.
func (p *LocalPool) draw(want, now int64) int64 {
	next, d := p.plan.take(p.cell, want, now)
	if !d.Allowed {
		want = d.Remaining
		if want == 0 {
			return 0
		}
		next, _ = p.plan.take(p.cell, want, now)
	}
	p.cell = next
	return want
}

// Return fulfils Pool.
func (p *LocalPool) Return(ctx context.Context, id string, unspent int64) error {
	if err := CheckLease(id, unspent, 0); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.time()
	g := p.leases[id]
	if g == nil || g.returned {
		return nil
	}
	g.returned = true
	owed := p.plan.charged(p.cell, now)
	p.cell = p.plan.charge(owed-min(owed, charge(min(unspent, g.permits))*onePermit), now)
	return nil
}
