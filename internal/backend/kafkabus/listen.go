package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/internal/lib/outbox"
)

// Listener sees every message from a moment on, whoever else does: what is told
// to every process. It keeps no position and no inbox: after a restart it begins
// anew, a message that fails is tried twice more and given up, and delays are
// not observed. So it is for what another look makes good again, such as
// telling open streams.
type Listener struct {
	client *kgo.Client
	relay  *outbox.Relay
	wait   time.Duration
	lost   func(m outbox.Message, err error)
}

// NewListener listens from a time on. lost is told of messages that were given
// up; nil logs them. The caller runs Step from one goroutine, and closes.
func (b *Bus) NewListener(since time.Time, handlers []outbox.Named, lost func(m outbox.Message, err error)) (*Listener, error) {
	client, err := b.client(
		kgo.ConsumeTopics(b.place.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(since.UnixMilli())),
		kgo.FetchMaxWait(time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	if lost == nil {
		lost = func(m outbox.Message, err error) {
			b.o.Log.Warn("message given up by listener", "message", m.ID, "key", m.Key, "topic", m.Topic, "reason", err)
		}
	}
	return &Listener{client: client, wait: 100 * time.Millisecond, lost: lost,
		relay: outbox.New(nil, handlers, time.Now, func() float64 { return 0 }, b.o.Log, outbox.Options{})}, nil
}

// Close ends the listener's connections.
func (l *Listener) Close() { l.client.Close() }

const tries = 3

// Step delivers what has come, partitions side by side and each in order.
func (l *Listener) Step(ctx context.Context) (worked bool, err error) {
	poll, cancel := context.WithTimeout(ctx, l.wait)
	fetches := l.client.PollRecords(poll, 1000)
	cancel()
	var errs []error
	fetches.EachError(func(_ string, partition int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("listener: partition %d: %w", partition, err))
		}
	})
	var wg sync.WaitGroup
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		wg.Go(func() {
			for _, record := range p.Records {
				l.deliver(ctx, record)
			}
		})
	})
	wg.Wait()
	return fetches.NumRecords() > 0, errors.Join(errs...)
}

func (l *Listener) deliver(ctx context.Context, record *kgo.Record) {
	m, err := messageOf(record)
	if err != nil {
		l.lost(m, err)
		return
	}
	for range tries {
		if ctx.Err() != nil {
			break
		}
		if err = l.relay.Try(ctx, m); err == nil {
			return
		}
	}
	if ctx.Err() == nil {
		l.lost(m, err)
	}
}
