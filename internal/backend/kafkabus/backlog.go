package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Backlog is how many records a group has not committed yet; one that has never
// been has all before it. What it has taken and parked is in its inbox, not here.
func (b *Bus) Backlog(ctx context.Context, group string) (n int64, err error) {
	from, until, err := b.span(ctx, group, time.Time{})
	if err != nil {
		return 0, fmt.Errorf("backlog of %s: %w", group, err)
	}
	for partition, end := range until {
		n += max(end-from[partition], 0)
	}
	return n, nil
}

// Rewind sets a group, of which no process may be running, to what was sent
// since a time. Its inbox passes over what it has consumed: to have effects
// again, let a group of another name read.
func (b *Bus) Rewind(ctx context.Context, group string, since time.Time) error {
	from, err := b.admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), b.place.topic)
	if err == nil {
		err = from.Error()
	}
	if err == nil {
		err = b.admin.CommitAllOffsets(ctx, group, from.Offsets())
	}
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.NonEmptyGroup) {
		return fmt.Errorf("rewind %s: stop the processes of the group first: %w", group, err)
	} else if err != nil {
		return fmt.Errorf("rewind %s: %w", group, err)
	}
	return nil
}

// span is where an export begins and ends in each partition.
func (b *Bus) span(ctx context.Context, group string, since time.Time) (from, until map[int32]int64, err error) {
	from, until = map[int32]int64{}, map[int32]int64{}
	began, err := b.admin.ListOffsetsAfterMilli(ctx, max(since.UnixMilli(), 0), b.place.topic)
	if err == nil {
		err = began.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	ends, err := b.admin.ListEndOffsets(ctx, b.place.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	began.Each(func(o kadm.ListedOffset) { from[o.Partition] = o.Offset })
	ends.Each(func(o kadm.ListedOffset) { until[o.Partition] = o.Offset })
	if group == "" {
		return from, until, nil
	}
	committed, err := b.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil, err
	}
	committed.Each(func(o kadm.OffsetResponse) {
		if o.Topic == b.place.topic {
			from[o.Partition] = max(from[o.Partition], o.At)
		}
	})
	return from, until, nil
}
