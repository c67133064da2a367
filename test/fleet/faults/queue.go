package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/test/fleet"
)

// callerKilled: another worker goes on to call people from the waiting room, where
// the one before stopped.
func callerKilled(ctx context.Context, s *scene, a *act) error {
	caller, err := s.caller()
	if err != nil {
		return err
	}
	if err := s.fire(a, func() error { caller.Kill(); return nil }); err != nil {
		return err
	}
	within, stop := context.WithTimeout(ctx, heals)
	defer stop()
	taken := s.await(within, func(context.Context) error {
		now, err := s.caller()
		if err == nil && now == caller {
			err = fmt.Errorf("nobody calls but %s", caller.Name)
		}
		return err
	})
	a.mark("taken over after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(taken, s.sleep(ctx, 3*time.Second), caller.Restart())
}

// callerFrozen: when it wakes another calls, and for a moment both do.
func callerFrozen(ctx context.Context, s *scene, a *act) error {
	caller, err := s.caller()
	if err != nil {
		return err
	}
	return s.frozen(ctx, a, 5*time.Second, caller.Server)
}

// caller is the worker that calls people from waiting rooms: who was the last to
// log that he does.
func (s *stage) caller() (last *fleet.Process, err error) {
	since := ""
	for _, w := range s.Workers {
		text, err := os.ReadFile(filepath.Join(w.Dir, w.Name+".log"))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, `msg="this process does it now" task="calls from waiting rooms"`) {
				continue
			}
			if at, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " "); at > since {
				last, since = w, at
			}
		}
	}
	if last == nil {
		return nil, errors.New("no worker calls people from waiting rooms")
	}
	return last, nil
}
