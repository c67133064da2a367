package lease

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Local is the leases of a single process. Its tokens end with it, so they
// fence nothing that outlives it: use it where the process is alone, as the
// embedded ledger and store are.
type Local struct {
	now func() time.Time

	mu     sync.Mutex
	leases map[string]held
}

type held struct {
	Grant
	until time.Time
}

// NewLocal starts with nothing held.
func NewLocal(now func() time.Time) *Local {
	return &Local{now: now, leases: map[string]held{}}
}

var _ Leases = (*Local)(nil)

// Acquire implements Leases.
func (l *Local) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (Grant, error) {
	if err := Check(name, holder, ttl); err != nil {
		return Grant{}, err
	}
	if err := ctx.Err(); err != nil {
		return Grant{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h, now := l.leases[name], l.now()
	if h.until.After(now) && h.Holder != holder {
		return Grant{}, fmt.Errorf("%w: %s by %s", ErrHeld, name, h.Holder)
	}
	g := Grant{name, holder, h.Token + 1}
	l.leases[name] = held{g, now.Add(ttl)}
	return g, nil
}

// Renew implements Leases.
func (l *Local) Renew(ctx context.Context, g Grant, ttl time.Duration) error {
	if err := Check(g.Name, g.Holder, ttl); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h, now := l.leases[g.Name], l.now()
	if h.Grant != g || !h.until.After(now) {
		return fmt.Errorf("%w: %s, token %d", ErrLost, g.Name, g.Token)
	}
	l.leases[g.Name] = held{g, now.Add(ttl)}
	return nil
}

// Release implements Leases.
func (l *Local) Release(ctx context.Context, g Grant) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.leases[g.Name]; h.Grant == g {
		l.leases[g.Name] = held{Grant: g} // the token stays, and will never be granted again
	}
	return nil
}
