package app

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/backend/walstock"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// alone is what an engine has besides when the ledger is its own: it lands the
// one log, and replays it to prove every book.
type alone struct {
	*engine
	lander  *order.Lander
	auditor *proof.Auditor
	proofs  *proof.Watch
}

func (e *engine) newAlone() *alone {
	now := e.clock.Now
	a := &alone{engine: e}
	a.lander = order.NewLander(order.Landing{
		Store: e.store, Log: e.wal, LogID: walstock.LogID, Alarms: e.alarms, Logger: e.log, Now: now, Snapshots: e.snapshots,
		Landed: func(landed []order.Landed) {
			e.watchers.Landed(landed)
			e.landed()
		},
	})
	a.auditor = proof.New(e.store, e.wal, walstock.LogID, now)
	a.proofs = proof.NewWatch(proof.Watching{
		Auditor: a.auditor, Subjects: e.subjects, Ledger: e.wal, Archive: e.store, Alarm: e.alarms.Violation, Now: now,
		Proved: func(activity stock.ActivityID) { e.wal.Release(activity) },
	})
	return a
}

// compact lets the log go behind what has landed, is in a snapshot, and is
// needed by no trail.
func (a *alone) compact(ctx context.Context) (worked bool, err error) {
	if mark := a.lander.Landed(); mark.Position > 0 {
		if err := a.wal.Trim(ctx, mark); err != nil {
			return false, err
		}
	}
	worked, err = a.wal.Compact(ctx)
	for _, activity := range a.wal.Lost() {
		a.alarms.TrailCut(activity, a.wal.Start().Position)
	}
	return worked, err
}

// show brings the activities to where their clocks are and shows them. One that
// cannot be brought to where it should be must not keep the others closed; its
// task tries again and reports it.
func (a *alone) show(ctx context.Context) {
	if _, err := a.sales.Step(ctx); err != nil {
		a.log.Error("an activity is not as it should be", "error", err)
	}
}

// ready answers nil when shoppers can be served.
func (a *alone) ready(ctx context.Context) error {
	if err := errors.Join(a.wal.Failed(), a.wal.Full()); err != nil {
		return err
	}
	if s := a.lander.Stats(); s.Stopped || s.Fenced {
		return fmt.Errorf("landing stopped: %s", s.Reason)
	}
	return a.store.Ping(ctx)
}
