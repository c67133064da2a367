package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/lease"
)

// Processes with their leases in two places do not run side by side: who comes
// with another one is refused while the others live, and for some minutes after.
func TestLeasesInOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Leases: lease.NewLocal(time.Now)}
		etcd, away := "etcd:sluice@1", error(nil)
		asEtcd := func(context.Context) (string, error) { return etcd, away }
		asSQL := func(context.Context) (string, error) { return "sql:", nil }
		f := func(d *leaseDoor, want error) {
			t.Helper()
			if _, err := d.Step(t.Context()); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		begin := func(where func(context.Context) (string, error)) *leaseDoor {
			return &leaseDoor{store: store, where: where}
		}
		first, second := begin(asEtcd), begin(asEtcd)
		f(first, nil)
		f(second, nil)
		f(begin(asSQL), errMixed)
		pass(placedTTL - time.Second)
		f(second, nil)
		pass(placedTTL - time.Second)
		f(begin(asSQL), errMixed)

		away = errCut // etcd does not answer: it is the place nevertheless
		f(first, nil)
		f(begin(asEtcd), errCut)
		pass(placedTTL - time.Second)
		f(begin(asSQL), errMixed)
		away = nil

		store.off.Store(true)
		f(first, errCut)
		store.off.Store(false)
		f(first, nil)

		etcd = "etcd:sluice@2" // it was emptied: each process finds that out, in some order
		f(first, nil)
		f(second, nil)
		f(first, nil)
		f(begin(asEtcd), nil)
		f(begin(asSQL), errMixed)

		pass(placedTTL) // all were stopped
		moved := begin(asSQL)
		f(moved, nil)
		f(begin(asEtcd), errMixed)
		f(first, errMixed)
	})
}

// Without the check both would begin, each first in its own place.
func TestLeasesInTwoPlaces(t *testing.T) {
	a, b := lease.NewLocal(time.Now), lease.NewLocal(time.Now)
	for _, leases := range []lease.Leases{a, b} {
		if _, err := leases.Acquire(t.Context(), "task/outbox relay", "somebody", time.Minute); err != nil {
			t.Errorf("places exclude each other by themselves: what is the check for? %v", err)
		}
	}
}
