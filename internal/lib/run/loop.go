// Package run keeps the parts of a process going. It owns the thin loop around
// a background task's Step, and the order in which parts start and stop.
//
// Invariants: parts start in the order they were added and stop in reverse,
// each stop with a deadline; the first error stops all; a failing step is
// retried for ever, at most once per pause, and is logged once per change of
// its error text rather than once per attempt.
//
// It refuses to recover panics (an impossible state must end the process, not
// hide in a log) and to decide anything: a simulation calls Step itself.
package run

import (
	"context"
	"log/slog"
	"time"
)

const (
	// defaultIdle is the pause of a task that names none.
	defaultIdle = time.Second
	// maxPause bounds the back-off between failing steps, so that a task whose
	// cause has gone resumes within it.
	maxPause = 15 * time.Second
)

// Task is one background activity.
type Task struct {
	Name string
	// Step does one bounded piece of work. worked says that there may be more.
	Step func(context.Context) (worked bool, err error)
	// Idle is the pause after a step that had no work, and the first pause
	// after one that failed; 0 means a second.
	Idle time.Duration
	// Wake, optional, ends an idle pause early. It does not shorten the pause
	// after a failure: a busy producer must not turn back-off into a spin.
	Wake <-chan struct{}
}

// Loop calls the task's Step until ctx is done: again at once while it worked,
// after Idle when it had nothing to do, after a doubling pause (from Idle up to
// 15 s) while it fails.
func Loop(ctx context.Context, log *slog.Logger, t Task) {
	idle := t.Idle
	if idle <= 0 {
		idle = defaultIdle
	}
	wake := t.Wake
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing, pause := "", idle
	for ctx.Err() == nil {
		worked, err := t.Step(ctx)
		switch {
		case ctx.Err() != nil:
			return // what a step says of its own interruption is not news
		case err != nil:
			if text := err.Error(); text != failing {
				failing = text
				log.Error("task is failing", "task", t.Name, "err", err, "retry_in", pause)
			}
			timer.Reset(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			pause = max(idle, min(2*pause, maxPause))
			continue
		case failing != "":
			log.Info("task has recovered", "task", t.Name)
			failing, pause = "", idle
		}
		if worked {
			continue
		}
		timer.Reset(idle)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case _, open := <-wake:
			if !open {
				wake = nil // a closed channel would be always ready
			}
		}
	}
}
