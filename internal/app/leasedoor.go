package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/lib/lease"
	"sluice/internal/lib/run"
)

// leaseDoor keeps the processes of a fleet from having their leases in different
// places: each singleton would have a leader in each, and keepers would take
// every bucket from each other for ever. What they all share is the store. There
// the place is a lease of its own, held in the place's name by all who use it.
//
// Step is for one goroutine.
type leaseDoor struct {
	store lease.Leases
	where func(context.Context) (string, error) // the place's name, from the place
	is    string                                // what was written last; "": nothing so far
}

// placedTTL is for how long a fleet has to be stopped before it can begin with
// its leases elsewhere; and the store must not be away longer while a process
// with another line is being started.
const (
	placedName  = "fleet/leases"
	placedTTL   = 5 * time.Minute
	placedEvery = 20 * time.Second
)

// errMixed: other processes have their leases elsewhere.
var errMixed = errors.New("other processes of this fleet have their leases elsewhere; write the same lease: line in all of them " +
	"(to move the leases: stop all processes for 5 minutes, then start them with the new line)")

// Step says again where this process has its leases, or answers errMixed.
func (d *leaseDoor) Step(ctx context.Context) (worked bool, err error) {
	at, err := d.where(ctx)
	switch {
	case err != nil && d.is == "":
		return false, err
	case err != nil: // it does not answer, and is the place nevertheless
		at = d.is
	case d.is != "" && d.is != at: // it was emptied, or replaced, under the whole fleet
		if err := d.leave(ctx); err != nil {
			return false, err
		}
	}
	if _, err := d.store.Acquire(ctx, placedName, at, placedTTL); errors.Is(err, lease.ErrHeld) {
		return false, fmt.Errorf("%w: %w, not %s", errMixed, err, at)
	} else if err != nil {
		return false, fmt.Errorf("say where leases are: %w", err)
	}
	d.is = at
	return false, nil
}

// leave gives up the former name, which is somebody else's by now if another
// process has noticed first.
func (d *leaseDoor) leave(ctx context.Context) error {
	g, err := d.store.Acquire(ctx, placedName, d.is, placedTTL)
	if errors.Is(err, lease.ErrHeld) {
		return nil
	}
	if err == nil {
		err = d.store.Release(ctx, g)
	}
	return err
}

// openLeaseDoor refuses to begin beside processes whose leases are elsewhere. An
// etcd that does not answer is believed in by a process that has known it in an
// earlier life; another one may have a wrong address, and does not begin.
func (d *doors) openLeaseDoor(ctx context.Context, log *slog.Logger) error {
	d.placed = &leaseDoor{store: d.store, where: func(context.Context) (string, error) { return "sql:", nil }}
	if d.etcd != nil {
		d.placed.where = d.etcd.Identity
	}
	_, err := d.placed.Step(ctx)
	if errors.Is(err, etcdlease.ErrAway) && d.crew.before() {
		log.Warn("this process begins without leases", "error", err)
		return nil
	}
	return err
}

// placing goes on saying where the leases are, and asks every second while that
// is not known. A process that learns only now that they are elsewhere ends, but
// leaves the others the time to notice that their etcd was emptied: the place
// that they named is then not theirs any more. One that was right before is not
// the one to go.
func (d *doors) placing(g *run.Group, log *slog.Logger) run.Task {
	var said, mixed time.Time
	return steady(log, run.Task{Name: "place of leases", Idle: time.Second, Step: func(ctx context.Context) (bool, error) {
		now := time.Now()
		if d.placed.is != "" && now.Sub(said) < placedEvery {
			return false, nil
		}
		worked, err := d.placed.Step(ctx)
		switch {
		case err == nil:
			said, mixed = now, time.Time{}
		case d.placed.is != "" || !errors.Is(err, errMixed):
		case mixed.IsZero():
			mixed = now
		case now.Sub(mixed) > 2*placedEvery:
			g.Fail(err)
		}
		return worked, err
	}})
}
