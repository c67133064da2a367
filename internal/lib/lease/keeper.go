package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Keeper holds one lease by steps: it acquires it when it can and renews it
// long before its end. Step belongs to one goroutine, Held to anybody.
type Keeper struct {
	leases Leases
	name   string
	holder string
	ttl    time.Duration
	now    func() time.Time

	mu    sync.Mutex
	grant Grant     // of which we have heard; zero: none
	until time.Time // our clock: the grant stands at least until then
	next  time.Time // our clock: when to renew
}

// NewKeeper holds nothing yet. holder must be of this life of this process
// alone; ttl is how long others wait for a holder that died. now must have
// Go's monotonic reading, as time.Now has: a wall clock that is set would
// otherwise lengthen the lease.
func NewKeeper(leases Leases, name, holder string, ttl time.Duration, now func() time.Time) *Keeper {
	return &Keeper{leases: leases, name: name, holder: holder, ttl: ttl, now: now}
}

// Held answers the grant if it is certain that it stands at this moment, or
// ErrLost. It may end the next moment: what is written carries the token.
func (k *Keeper) Held() (Grant, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.grant.Token == 0 || !k.now().Before(k.until) {
		return Grant{}, fmt.Errorf("%w: %s", ErrLost, k.name)
	}
	return k.grant, nil
}

// Step acquires or renews when it is time to. worked says that a lease was
// acquired anew. That somebody else holds it is no error. Run it several times
// within ttl.
func (k *Keeper) Step(ctx context.Context) (worked bool, err error) {
	asked := k.now() // the lease is granted later than this, so it ends later too
	grant, err := k.Held()
	if err == nil {
		if asked.Before(k.next) {
			return false, nil
		}
		err = k.leases.Renew(ctx, grant, k.ttl)
		switch {
		case err == nil:
			k.set(grant, asked)
			return false, nil
		case !errors.Is(err, ErrLost):
			return false, fmt.Errorf("renew %s: %w", k.name, err) // it stands until its end, and is tried again
		}
		k.set(Grant{}, asked)
	}
	grant, err = k.leases.Acquire(ctx, k.name, k.holder, k.ttl)
	if errors.Is(err, ErrHeld) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("acquire %s: %w", k.name, err)
	}
	k.set(grant, asked)
	return true, nil
}

func (k *Keeper) set(g Grant, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grant, k.until, k.next = g, asked.Add(k.ttl), asked.Add(k.ttl/3)
}

// Stop gives the lease back, so that the next holder need not wait. It is for
// after the last Step.
func (k *Keeper) Stop(ctx context.Context) error {
	grant, err := k.Held()
	if err != nil {
		return nil
	}
	k.set(Grant{}, time.Time{})
	if err := k.leases.Release(ctx, grant); err != nil {
		return fmt.Errorf("release %s: %w", k.name, err)
	}
	return nil
}
