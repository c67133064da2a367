// Package kafkabus carries the messages of an outbox over Kafka. It owns the
// way from the outbox to a topic (Send) and from there to readers: groups whose
// processes share the messages (Reader), and processes that each see all of
// them (Listener). It knows nothing of what messages mean.
//
// Invariants: a message leaves the outbox only after all in-sync replicas have
// it; of one key, each reader sees first deliveries in the order of their ids,
// and a message that fails, or is dead, holds back its key and no other; a
// reader's position is committed only after the effects before it are durable.
// Delivery is at least once: a message has the id that the outbox gave it,
// however often it comes, and a reader's inbox knows those that had their
// effect. Nothing here is exactly once.
// What was sent the store keeps until a group has consumed it (Tracker), and what
// was lost is sent again.
//
// It refuses to start on a topic that can lose what it has acknowledged. One
// bus carries the messages of one queue: ids of two would be mixed up. The
// number of partitions of a topic never changes: keys would move and overtake
// themselves. DESIGN.md says why it is as it is.
package kafkabus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/internal/lib/outbox"
)

// Errors of Open. Both say in their text what to do.
var (
	ErrAddress = errors.New("not the address of a Kafka bus")
	ErrUnsafe  = errors.New("the topic can lose what it has acknowledged")
)

// Options of a bus; zero values are the defaults.
type Options struct {
	Log *slog.Logger // nil: discarded
	// AlarmAfter failed attempts to send a message, Stuck is told of it; default
	// 10, about two minutes after the brokers went away. Default: it is logged.
	AlarmAfter int
	Stuck      func(m outbox.Message, err error)
	// Session is how long a reader may be silent until its partitions are given
	// to others; default 15 s. Within it a process that was killed is replaced.
	Session time.Duration
	// Stall is how long a batch of a reader may take while others want its
	// partitions, until they get them all the same; default 1 min. What the
	// stalled one then still does, others may have done: see Inbox.
	Stall time.Duration
}

// Bus is a topic and what this process has to do with it. Safe for concurrent use.
type Bus struct {
	place place
	o     Options
	admin *kadm.Client
	out   *kgo.Client

	mu      sync.Mutex
	flights map[int64]*flight // what Send has given to the client, by message id
}

// Open reaches the brokers, makes the topic where it is missing, and checks
// that it keeps what it acknowledges: at least 3 replicas of which 2 in sync,
// and no leader that was not in sync. ErrAddress and ErrUnsafe say what to do.
// Brokers that do not answer within ctx, or 20 s, are outbox.ErrAway: try again.
func Open(ctx context.Context, address string, o Options) (*Bus, error) {
	p, err := parse(address)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.AlarmAfter = cmp.Or(max(0, o.AlarmAfter), 10)
	o.Session = cmp.Or(max(0, o.Session), 15*time.Second)
	o.Stall = cmp.Or(max(0, o.Stall), time.Minute)
	if o.Stuck == nil {
		o.Stuck = func(m outbox.Message, err error) {
			o.Log.Error("message cannot be sent", "message", m.ID, "key", m.Key, "topic", m.Topic, "attempts", m.Attempts+1, "reason", err)
		}
	}
	b := &Bus{place: p, o: o, flights: map[int64]*flight{}}
	b.out, err = b.producer()
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	b.admin = kadm.NewClient(b.out)
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	err = b.out.Ping(ctx) // which says why they do not answer; what is tried again and again does not
	if err == nil {
		err = b.check(ctx)
	}
	if err != nil {
		b.Close()
		if away(err) {
			err = fmt.Errorf("%w: %w", outbox.ErrAway, err)
		}
		return nil, fmt.Errorf("bus %s: %w", strings.Join(p.brokers, ","), err)
	}
	return b, nil
}

// producer has acknowledged only what all in-sync replicas have, and numbers
// its batches, so that a broker knows one that is repeated.
func (b *Bus) producer(more ...kgo.Opt) (*kgo.Client, error) {
	return b.client(append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), // with idempotence, which is the default
		kgo.DefaultProduceTopic(b.place.topic),
		kgo.RecordDeliveryTimeout(deliverWithin),
		kgo.ProducerLinger(lingers),
		kgo.MaxBufferedRecords(maxFlights),
		kgo.UnknownTopicRetries(-1), // Open saw it; a broker that starts may not know yet
	}, more...)...)
}

// away says that nobody who knows has answered: what brokers refuse for good,
// they say.
func away(err error) bool {
	var said *kerr.Error
	return !errors.Is(err, ErrUnsafe) && !(errors.As(err, &said) && !said.Retriable)
}

func (b *Bus) client(more ...kgo.Opt) (*kgo.Client, error) {
	more = append(b.place.secured(), more...)
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.place.brokers...),
		kgo.ClientID("sluice"),
		kgo.DialTimeout(3 * time.Second),
		// After a broker was killed its partitions are led by another within seconds;
		// what is known of them should not be older.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(30 * time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration {
			return min(50*time.Millisecond<<min(n, 6), time.Second)
		}),
	}, more...)...)
}

// check makes the topic if needed and refuses one that is not safe.
func (b *Bus) check(ctx context.Context) error {
	p := b.place
	insync := strconv.Itoa(p.insync)
	never := "false"
	made, err := b.admin.CreateTopic(ctx, p.partitions, p.replicas,
		map[string]*string{"min.insync.replicas": &insync, "unclean.leader.election.enable": &never}, p.topic)
	switch {
	case err == nil:
		b.o.Log.Info("topic made", "topic", p.topic, "partitions", p.partitions, "replicas", p.replicas)
	case errors.Is(err, kerr.TopicAlreadyExists):
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return fmt.Errorf("%w: topic %s is to have %d replicas and there are fewer brokers (%s): start more, or, to try it on one, add replicas=1 to the bus's address",
			ErrUnsafe, p.topic, p.replicas, made.ErrMessage)
	default:
		return fmt.Errorf("make topic %s: %w", p.topic, err)
	}
	// A broker hears of a new topic a little later, and each is asked by chance.
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := b.judge(ctx)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.LeaderNotAvailable) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// judge looks at the topic as a broker knows it.
func (b *Bus) judge(ctx context.Context) error {
	p := b.place
	topics, err := b.admin.ListTopics(ctx, p.topic)
	if err == nil {
		err = topics[p.topic].Err
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", p.topic, err)
	}
	for _, t := range topics[p.topic].Partitions.Sorted() {
		if have := len(t.Replicas); have < int(p.replicas) {
			return fmt.Errorf("%w: partition %d of %s has %d replicas of %d: raise them with kafka-reassign-partitions, or, to try it on one broker, add replicas=1 to the bus's address",
				ErrUnsafe, t.Partition, p.topic, have, p.replicas)
		}
	}
	configs, err := b.admin.DescribeTopicConfigs(ctx, p.topic)
	if err != nil {
		return err
	}
	config, err := configs.On(p.topic, nil)
	if err == nil {
		err = config.Err
	}
	if err != nil {
		return fmt.Errorf("configuration of topic %s: %w", p.topic, err)
	}
	for _, c := range config.Configs {
		n, _ := strconv.Atoi(c.MaybeValue())
		switch {
		case c.Key == "min.insync.replicas" && n < p.insync:
			return fmt.Errorf("%w: %s has min.insync.replicas=%d: kafka-configs --alter --topic %s --add-config min.insync.replicas=%d",
				ErrUnsafe, p.topic, n, p.topic, p.insync)
		case c.Key == "unclean.leader.election.enable" && c.MaybeValue() == "true":
			return fmt.Errorf("%w: %s may be led by a replica that was not in sync: kafka-configs --alter --topic %s --add-config unclean.leader.election.enable=false",
				ErrUnsafe, p.topic, p.topic)
		}
	}
	return nil
}

// Close ends the connections of the bus. Readers and listeners have their own.
// What Send was not told of may or may not be in the topic: it is sent again.
func (b *Bus) Close() { b.out.Close() }
