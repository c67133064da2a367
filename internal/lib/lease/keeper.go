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

	mu     sync.Mutex
	grant  Grant     // of which we have heard; zero: none
	until  time.Time // our clock: the grant stands at least until then
	next   time.Time // our clock: when to renew
	silent bool      // the leases were asked and have not answered
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

// Unrefuted answers the grant if nobody has denied it: as Held does, and past its
// end while the leases do not answer, provided that they were asked before it. Who
// can reach them may get the lease meanwhile, so it is for work that is harmless
// beside a successor's. A process that stood still past the end has nothing, unless
// it was asking when it was stopped: it goes on until the leases answer.
func (k *Keeper) Unrefuted() (Grant, error) {
	if g, err := k.Held(); err == nil {
		return g, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.grant.Token == 0 || !k.silent {
		return Grant{}, fmt.Errorf("%w: %s", ErrLost, k.name)
	}
	return k.grant, nil
}

// Silent says that the leases were asked last and have not answered, or not yet.
func (k *Keeper) Silent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.silent
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
		k.ask(asked)
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
	k.ask(asked)
	grant, err = k.leases.Acquire(ctx, k.name, k.holder, k.ttl)
	if errors.Is(err, ErrHeld) {
		k.set(Grant{}, asked)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("acquire %s: %w", k.name, err)
	}
	k.set(grant, asked)
	return true, nil
}

// ask notes that the leases are being asked. A grant that has run out by then,
// with nobody to blame, ran out while this process stood still.
func (k *Keeper) ask(asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.silent && !asked.Before(k.until) {
		k.grant = Grant{}
	}
	k.silent = true
}

// set is what the leases have answered.
func (k *Keeper) set(g Grant, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grant, k.until, k.next, k.silent = g, asked.Add(k.ttl), asked.Add(k.ttl/3), false
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
