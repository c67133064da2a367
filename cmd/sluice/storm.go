package main

import (
	"context"
	"errors"
	"os"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/storm"
)

type stormCommand struct {
	storm.Options
}

func (s *stormCommand) Run(ctx context.Context) error {
	s.Solve = solver(s.Data)
	report, err := storm.Run(ctx, s.Options, os.Stderr)
	if report.Attempts > 0 { // a storm that could not be audited has still been one
		err = errors.Join(err, report.Write(os.Stdout, s.JSON))
	}
	if err != nil {
		return err
	}
	if !report.Proof.OK {
		return errViolation
	}
	return nil
}

// solver lends the storm's people, who have no eyes, the shop's secret to read
// challenges by. Its bots do not ask. nil where there is no secret: that storm has
// no tokens either, and says so.
func solver(data string) func(token, activity, user string) (int, bool) {
	secret, err := gate.ReadKey(data)
	if err != nil {
		return nil
	}
	return func(token, activity, user string) (int, bool) { return challenge.Solve(secret, activity, user, token) }
}
