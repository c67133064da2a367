package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"sluice/internal/backend/kafkabus"
)

// What operators do with the messages on a bus, beside the processes of the
// fleet. Each needs the brokers, and nothing else.

// withBus opens the bus of a configuration.
func withBus(ctx context.Context, c Config, log *slog.Logger, do func(*kafkabus.Bus) error) error {
	if !c.onKafka() {
		return fmt.Errorf("%w: bus: %q has no messages of its own; with it they are in the store", ErrConfig, redacted(c.Bus))
	}
	b, err := kafkabus.Open(ctx, c.Bus, kafkabus.Options{Log: log})
	if err != nil {
		return err
	}
	defer b.Close()
	return do(b)
}

// ExportBus writes the messages sent since a time, as a line of JSON each; with
// unread, only those that no worker has taken. It answers how many.
func ExportBus(ctx context.Context, c Config, log *slog.Logger, since time.Time, unread bool, to io.Writer) (n int, err error) {
	group := ""
	if unread {
		group = busReader
	}
	err = withBus(ctx, c, log, func(b *kafkabus.Bus) error {
		n, err = b.Export(ctx, group, since, to)
		return err
	})
	return n, err
}

// ImportBus sends what ExportBus wrote, and answers how many messages the brokers
// have acknowledged.
func ImportBus(ctx context.Context, c Config, log *slog.Logger, from io.Reader) (n int, err error) {
	err = withBus(ctx, c, log, func(b *kafkabus.Bus) error {
		n, err = b.Import(ctx, from)
		return err
	})
	return n, err
}

// RewindBus has the workers, of which none may be running, read again from a
// time on, and answers how many messages are in front of them then.
func RewindBus(ctx context.Context, c Config, log *slog.Logger, since time.Time) (backlog int64, err error) {
	err = withBus(ctx, c, log, func(b *kafkabus.Bus) error {
		if err := b.Rewind(ctx, busReader, since); err != nil {
			return err
		}
		backlog, err = b.Backlog(ctx, busReader)
		return err
	})
	return backlog, err
}
