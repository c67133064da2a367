package main

import (
	"context"
	"os"

	"sluice/storm"
)

type stormCommand struct {
	storm.Options
}

func (s *stormCommand) Run(ctx context.Context) error {
	report, err := storm.Run(ctx, s.Options, os.Stderr)
	if err != nil {
		return err
	}
	if err := report.Write(os.Stdout, s.JSON); err != nil {
		return err
	}
	if !report.Proof.OK {
		return errViolation
	}
	return nil
}
