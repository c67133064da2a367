package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/internal/lib/outbox"
)

const (
	// deliverWithin bounds one attempt, where giving up is safe: shorter than the
	// relay's patience with a handler, so that it is the one to say why.
	deliverWithin = 8 * time.Second
	lingers       = time.Millisecond // for others that share a batch
	maxFlights    = 10_000           // messages given to the client and not acknowledged
)

// flight is one message on its way.
type flight struct {
	done chan struct{} // closed once err is set
	err  error
}

// Send is an outbox.Handler that is done when all in-sync replicas have the
// message. The relay in front of it keeps the order of keys, for it sends a
// message only after the one before was acknowledged; it should have many keys
// on their way at once (outbox.Options.Workers 256).
//
// Its error wraps outbox.ErrAway, unless Kafka will never take the message. A
// message whose fate is not known when the caller's patience ends stays on its
// way: sent again, it is waited for and not doubled, as long as this process lives.
func (b *Bus) Send(ctx context.Context, m outbox.Message) error {
	err := b.send(ctx, m)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return err // stopping is nobody's failure
	}
	if !hopeless(err) {
		err = fmt.Errorf("%w: %w", outbox.ErrAway, err)
	}
	if m.Attempts+1 == b.o.AlarmAfter {
		b.o.Stuck(m, err)
	}
	return err
}

func (b *Bus) send(ctx context.Context, m outbox.Message) error {
	f := b.launch(m)
	select {
	case <-f.done:
		b.mu.Lock()
		delete(b.flights, m.ID)
		b.mu.Unlock()
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("not acknowledged yet: %w", ctx.Err())
	}
}

// launch gives a message to the client, unless it has it.
func (b *Bus) launch(m outbox.Message) *flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.flights[m.ID]; f != nil {
		return f
	}
	b.forget()
	f := &flight{done: make(chan struct{})}
	b.flights[m.ID] = f
	// Without the caller's context: what a broker may already have cannot be taken back.
	b.out.TryProduce(context.Background(), recordOf(m), func(_ *kgo.Record, err error) {
		f.err = err
		close(f.done)
	})
	return f
}

// forget drops the answers that nobody came for, since another process does
// what this one did.
func (b *Bus) forget() {
	if len(b.flights) < 2*maxFlights {
		return
	}
	for id, f := range b.flights {
		select {
		case <-f.done:
			delete(b.flights, id)
		default:
		}
	}
}

// hopeless says that Kafka has looked at the message and will never take it.
func hopeless(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord)
}
