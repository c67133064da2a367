package main

import (
	"context"
	"errors"
	"os"

	"sluice/storm"
)

type stormCommand struct {
	storm.Options
}

func (s *stormCommand) Run(ctx context.Context) error {
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
