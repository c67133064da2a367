package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/lease"
)

// cut is leases that do not answer while off is set.
type cut struct {
	lease.Leases
	off bool
}

var errCut = errors.New("the leases do not answer")

func (c *cut) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (lease.Grant, error) {
	if c.off {
		return lease.Grant{}, errCut
	}
	return c.Leases.Acquire(ctx, name, holder, ttl)
}

func (c *cut) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if c.off {
		return errCut
	}
	return c.Leases.Renew(ctx, g, ttl)
}

// A grant is certain until its end, and nobody has denied it for as long as the
// leases do not answer; unless nobody asked them in time.
func TestUnrefuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 3 * time.Second
		local := lease.NewLocal(time.Now)
		leases := &cut{Leases: local}
		k := lease.NewKeeper(leases, "n", "me", ttl, time.Now)
		f := func(what string, wait time.Duration, step, held, unrefuted error, silent bool) {
			t.Helper()
			<-time.After(wait) // of the bubble: no time passes outside
			if _, err := k.Step(t.Context()); !errors.Is(err, step) {
				t.Errorf("%s: step: %v, want %v", what, err, step)
			}
			if _, err := k.Held(); !errors.Is(err, held) {
				t.Errorf("%s: held: %v, want %v", what, err, held)
			}
			if _, err := k.Unrefuted(); !errors.Is(err, unrefuted) {
				t.Errorf("%s: unrefuted: %v, want %v", what, err, unrefuted)
			}
			if k.Silent() != silent {
				t.Errorf("%s: silent: %v", what, !silent)
			}
		}
		ran := lease.ErrLost
		leases.off = true
		f("never had", 0, errCut, ran, ran, true)
		leases.off = false
		f("granted", 0, nil, nil, nil, false)
		leases.off = true
		f("not to be asked yet", time.Second/2, nil, nil, nil, false)
		f("asked in time", time.Second, errCut, nil, nil, true)
		f("past the end", 10*time.Second, errCut, ran, nil, true)
		leases.off = false
		f("back, and nobody came", time.Second, nil, nil, nil, false)
		leases.off = true
		f("asked in time again", time.Second, errCut, nil, nil, true)
		<-time.After(ttl)
		if _, err := local.Acquire(t.Context(), "n", "another", ttl); err != nil {
			t.Fatal(err)
		}
		f("another has it, and nobody says so", 0, errCut, ran, nil, true)
		leases.off = false
		f("refuted", 0, nil, ran, ran, false)
		f("free again", ttl, nil, nil, nil, false)
		leases.off = true
		f("asked too late", ttl, errCut, ran, ran, true) // the process stood still
	})
}
