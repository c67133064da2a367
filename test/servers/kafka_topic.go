package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicWithin bounds one question about a topic.
const topicWithin = 10 * time.Second

// ask is one question to whichever brokers answer.
func (c *KafkaCluster) ask(ctx context.Context, question func(context.Context, *kadm.Client) error, more ...kgo.Opt) error {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Addrs()...), kgo.DialTimeout(time.Second), kgo.MetadataMinAge(100 * time.Millisecond)}, more...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, topicWithin)
	defer cancel()
	return question(ctx, kadm.NewClient(client))
}

// Ends is where a topic ends, by partition.
func (c *KafkaCluster) Ends(ctx context.Context, topic string) (ends map[int32]int64, err error) {
	err = c.ask(ctx, func(ctx context.Context, admin *kadm.Client) error {
		listed, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		ends = offsetsOf(listed)
		return listed.Error()
	})
	return ends, err
}

func offsetsOf(listed kadm.ListedOffsets) map[int32]int64 {
	at := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { at[o.Partition] = o.Offset })
	return at
}

// Committed is how far a group has come in a topic, by partition; those where
// it has not begun are left out.
func (c *KafkaCluster) Committed(ctx context.Context, group, topic string) (at map[int32]int64, err error) {
	at = map[int32]int64{}
	err = c.ask(ctx, func(ctx context.Context, admin *kadm.Client) error {
		read, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		read.Each(func(o kadm.OffsetResponse) {
			if o.Topic == topic && o.At >= 0 {
				at[o.Partition] = o.At
			}
		})
		return read.Error()
	})
	return at, err
}

// Rewind sets a group in which nobody is back to what a topic was sent since a
// time.
func (c *KafkaCluster) Rewind(ctx context.Context, group, topic string, to time.Time) error {
	return c.ask(ctx, func(ctx context.Context, admin *kadm.Client) error {
		from, err := admin.ListOffsetsAfterMilli(ctx, to.UnixMilli(), topic)
		if err == nil {
			err = from.Error()
		}
		if err != nil {
			return err
		}
		return admin.CommitAllOffsets(ctx, group, from.Offsets())
	})
}

// Again puts what a topic was sent since a time into it once more, in another
// order, each record into the partition that it was in. It answers how many
// there were.
func (c *KafkaCluster) Again(ctx context.Context, topic string, since time.Time) (n int, err error) {
	records, err := c.records(ctx, topic, since)
	if err != nil || len(records) == 0 {
		return 0, err
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	copies := make([]*kgo.Record, len(records))
	for i, r := range records {
		copies[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	ctx, cancel := context.WithTimeout(ctx, topicWithin)
	defer cancel()
	return len(copies), client.ProduceSync(ctx, copies...).FirstErr()
}

// records are those that a topic has by now since a time.
func (c *KafkaCluster) records(ctx context.Context, topic string, since time.Time) (all []*kgo.Record, err error) {
	left, start := map[int32]int64{}, map[int32]kgo.Offset{} // by partition: where it ends, and begins
	err = c.ask(ctx, func(ctx context.Context, admin *kadm.Client) error {
		from, err := admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topic)
		if err == nil {
			err = from.Error()
		}
		if err != nil {
			return err
		}
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		end := offsetsOf(ends)
		for p, at := range offsetsOf(from) {
			if at >= 0 && at < end[p] {
				left[p], start[p] = end[p], kgo.NewOffset().At(at)
			}
		}
		return ends.Error()
	})
	if err != nil || len(left) == 0 {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, topicWithin)
	defer cancel()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, wanted := left[r.Partition]; wanted {
				all = append(all, r)
				if r.Offset+1 >= end {
					delete(left, r.Partition)
				}
			}
		})
	}
	return all, nil
}
