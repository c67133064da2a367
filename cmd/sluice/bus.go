package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"sluice/internal/app"
)

type busCommand struct {
	Export busExport `cmd:"" help:"Write messages of the bus to standard output, a line of JSON each."`
	Import busImport `cmd:"" help:"Send the messages on standard input, as export wrote them. What the workers have consumed they pass over."`
	Rewind busRewind `cmd:"" help:"Have the workers read again from a time on. Stop all of them first; what they have consumed they pass over."`
}

// busFlags are where the bus is, and how long a command may take.
type busFlags struct {
	settings
	Within time.Duration `default:"10m" help:"Give up after so long."`
}

type busExport struct {
	busFlags
	Since  time.Time `help:"Only what was sent since then: 2025-11-11T20:00:00Z."`
	Unread bool      `help:"Only what no worker has taken yet."`
}

func (e busExport) Run(ctx context.Context) error {
	return e.do(ctx, func(ctx context.Context, c app.Config) error {
		n, err := app.ExportBus(ctx, c, c.Logger(os.Stderr), e.Since, e.Unread, os.Stdout)
		fmt.Fprintln(os.Stderr, n, "messages written")
		return err
	})
}

type busImport struct{ busFlags }

func (i busImport) Run(ctx context.Context) error {
	return i.do(ctx, func(ctx context.Context, c app.Config) error {
		n, err := app.ImportBus(ctx, c, c.Logger(os.Stderr), os.Stdin)
		fmt.Fprintln(os.Stderr, n, "messages sent")
		return err
	})
}

type busRewind struct {
	busFlags
	Since time.Time `required:"" help:"When: 2025-11-11T20:00:00Z."`
}

func (r busRewind) Run(ctx context.Context) error {
	return r.do(ctx, func(ctx context.Context, c app.Config) error {
		n, err := app.RewindBus(ctx, c, c.Logger(os.Stderr), r.Since)
		if err == nil {
			fmt.Fprintln(os.Stderr, n, "messages are in front of the workers")
		}
		return err
	})
}

func (f busFlags) do(ctx context.Context, what func(context.Context, app.Config) error) error {
	c, err := f.load(nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.Within)
	defer cancel()
	return what(ctx, c)
}
