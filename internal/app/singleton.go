package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sluice/internal/lib/lease"
	"sluice/internal/lib/run"
	"sluice/internal/stock"
)

// singleton is a task that one process of a fleet does at a time, by a lease of
// its name. The lease only spares the others the work: one that was stopped
// in the middle goes on for a moment when it wakes, beside its successor, so each
// of these tasks has to be harmless when two do it (roles.go says why).
type singleton struct {
	run.Task
	lease *lease.Keeper
	log   *slog.Logger

	// goesOn: while the leases do not answer, whoever had this one goes on, for a
	// task that needs nothing of where the leases are.
	goesOn bool
}

// singletonTTL is how long a dead worker's tasks wait for another worker.
const singletonTTL = 3 * time.Second

func (d *doors) singleton(log *slog.Logger, t run.Task) *singleton {
	return &singleton{
		Task: t, lease: lease.NewKeeper(d.leases, "task/"+t.Name, d.holder, singletonTTL, time.Now), log: log,
		goesOn: d.etcd != nil,
	}
}

// tasks are the keeping of the lease and the work under it.
func (s *singleton) tasks() []run.Task {
	work := s.Task
	work.Step = s.step
	return []run.Task{
		steady(s.log, run.Task{Name: "lease of " + s.Name, Step: s.keep, Idle: singletonTTL / 6}),
		steady(s.log, work),
	}
}

func (s *singleton) keep(ctx context.Context) (worked bool, err error) {
	worked, err = s.lease.Step(ctx)
	if worked {
		s.log.Info("this process does it now", "task", s.Name)
	}
	return worked, err
}

// held says whether this process may work.
func (s *singleton) held() bool {
	standing := s.lease.Held
	if s.goesOn {
		standing = s.lease.Unrefuted
	}
	_, err := standing()
	return err == nil
}

// step works while the lease is held, and is told to end when it is not.
func (s *singleton) step(ctx context.Context) (worked bool, err error) {
	if !s.held() {
		return false, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.watch(ctx, cancel)
	worked, err = s.Step(ctx)
	if err != nil && !s.held() {
		s.log.Warn("the lease was lost in the middle of the work", "task", s.Name)
		return false, nil
	}
	return worked, err
}

func (s *singleton) watch(ctx context.Context, cancel func()) {
	look := time.NewTicker(singletonTTL / 10)
	defer look.Stop()
	for s.held() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
	cancel()
}

// steadyPace is the longest pause of a task that must not back off.
const steadyPace = 500 * time.Millisecond

// steady is a task that tries again at one pace while it fails. A fleet comes
// back in seconds from what has failed for minutes, and these tasks are what it
// comes back by.
func steady(log *slog.Logger, t run.Task) run.Task {
	step, failing := t.Step, ""
	t.Step = func(ctx context.Context) (worked bool, err error) {
		worked, err = step(ctx)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil && failing != "":
			failing = ""
			log.Info("task has recovered", "task", t.Name)
		case err != nil:
			if text := err.Error(); text != failing {
				failing = text
				if waits(err) {
					log.Info("task is waiting", "task", t.Name, "for", err)
				} else {
					log.Error("task is failing", "task", t.Name, "err", err)
				}
			}
			pause := time.NewTimer(steadyPace)
			defer pause.Stop()
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			return false, nil
		}
		return worked, nil
	}
	return t
}

// waits says that an error, and each of those joined in it, is that the ledger
// is not ready: a bucket is being opened, or rebuilt.
func waits(err error) bool {
	all, joined := err.(interface{ Unwrap() []error })
	if !joined {
		return errors.Is(err, stock.ErrNotReady)
	}
	for _, e := range all.Unwrap() {
		if !waits(e) {
			return false
		}
	}
	return true
}
