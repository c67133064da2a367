package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sluice/internal/backend/kafkabus"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/run"
	"sluice/internal/proof"
)

// bus is the way of events from the outbox to their handlers, where that is over
// Kafka: one worker at a time hands them over, and all workers take them, each
// its share of the keys. Where there is none (nil), the relay calls the handlers.
//
// Only workers speak to the brokers. Nobody waits for them: while they are away,
// orders land and their events wait in the outbox.
type bus struct {
	address string
	log     *slog.Logger
	inbox   *sqlstore.Inbox
	sending sqlstore.Sending
	relay   *outbox.Relay     // of what waits in the inbox
	tracker *kafkabus.Tracker // of what was sent
	atBoot  *kafkabus.Bus     // opened, and not yet used
	on      atomic.Pointer[carrier]
	trimmed time.Time // of the task that trims alone

	stuck  atomic.Uint64
	saidAt atomic.Int64 // Unix ms; when the log last said so
}

// carrier is what there is of the bus once its brokers have answered. What needs
// only the store does not wait for it.
type carrier struct {
	bus    *kafkabus.Bus
	reader *kafkabus.Reader
}

const (
	busReader = "sluice" // the group, and the name of its inbox
	// A worker that was killed is replaced by then as a reader; the brokers allow
	// no less by default.
	busSession = 6 * time.Second
	bootWithin = 5 * time.Second
	// consumedKept is how long a message that had its effect is known as such:
	// four times as long as Kafka keeps messages by default, so nothing that is
	// read again, or was exported lately, has its effect again. And if it did: the
	// ledger answers the outcome that stands, a notification has the message's id.
	consumedKept = 28 * 24 * time.Hour
	trimEvery    = time.Minute
	// saidEvery is how often the log says that messages cannot be sent: the metric
	// has the others.
	saidEvery = time.Minute
)

// openBus is for every process; a worker also looks whether the brokers are
// there and the topic is fit. One that is not is an error that says what to
// do; brokers that are away are none.
func openBus(ctx context.Context, c Config, store *sqlstore.Sharded, log *slog.Logger) (*bus, error) {
	b := &bus{address: c.Bus, log: log, inbox: store.Inbox(busReader), sending: sqlstore.Sending{Sharded: store}}
	if !roles[c.Role].worker {
		return b, nil
	}
	ctx, cancel := context.WithTimeout(ctx, bootWithin)
	defer cancel()
	var err error
	if b.atBoot, err = b.open(ctx); errors.Is(err, outbox.ErrAway) {
		log.Warn("the bus is away; orders land, and their events wait for it", "reason", err)
		err = nil
	}
	return b, err
}

func (b *bus) open(ctx context.Context) (*kafkabus.Bus, error) {
	return kafkabus.Open(ctx, b.address, kafkabus.Options{Log: b.log, Session: busSession, Stuck: b.cannotSend})
}

// cannotSend is told of each message that was tried in vain for long.
func (b *bus) cannotSend(m outbox.Message, err error) {
	b.stuck.Add(1)
	now, said := time.Now().UnixMilli(), b.saidAt.Load()
	if now-said >= saidEvery.Milliseconds() && b.saidAt.CompareAndSwap(said, now) {
		b.log.Error("message cannot be sent", "message", m.ID, "key", m.Key, "topic", m.Topic, "attempts", m.Attempts+1, "reason", err)
	}
}

// reached is the bus, nil until its brokers have answered.
func (b *bus) reached() *kafkabus.Bus {
	if c := b.on.Load(); c != nil {
		return c.bus
	}
	return nil
}

// connect gets the bus going, once its brokers answer.
func (b *bus) connect(ctx context.Context, e *engine) (err error) {
	if b.on.Load() != nil {
		return nil
	}
	c := &carrier{bus: b.atBoot}
	if b.atBoot = nil; c.bus == nil {
		if c.bus, err = b.open(ctx); err != nil {
			return err
		}
	}
	c.reader, err = c.bus.NewReader(busReader, b.inbox, b.relay, e.clock.Now, kafkabus.ReaderOptions{})
	if err != nil {
		c.bus.Close()
		return err
	}
	b.on.Store(c)
	return nil
}

// close leaves the group, after every task has ended.
func (b *bus) close() {
	if c := b.on.Load(); c != nil {
		c.reader.Close()
		c.bus.Close()
	} else if b.atBoot != nil {
		b.atBoot.Close()
	}
}

// send is the relay's only handler.
func (b *bus) send(ctx context.Context, m outbox.Message) error {
	to := b.reached()
	if to == nil {
		return fmt.Errorf("the bus: %w", outbox.ErrAway)
	}
	return to.Send(ctx, m)
}

// over is a step that needs the bus, and waits until it is there.
func (b *bus) over(step func(*carrier) func(context.Context) (bool, error)) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		c := b.on.Load()
		if c == nil {
			return false, nil
		}
		return step(c)(ctx)
	}
}

// track lets go of what was consumed: what was sent as soon as it is, and that it
// was after long.
func (b *bus) track(ctx context.Context, now time.Time) (worked bool, err error) {
	worked, err = b.tracker.Step(ctx)
	if now.Sub(b.trimmed) < trimEvery {
		return worked, err
	}
	more, failed := b.inbox.Trim(ctx, now.Add(-consumedKept).UnixMilli(), trimSize)
	if !more && failed == nil {
		b.trimmed = now
	}
	return worked || more, errors.Join(err, failed)
}

// openRelay builds what takes the messages out of the outbox.
func (e *engine) openRelay(handlers []outbox.Named) {
	queue, o := outbox.Queue(e.store), outbox.Options{Buried: e.alarms.DeadLetter}
	if b := e.bus; b != nil {
		b.relay = outbox.New(b.inbox, handlers, e.clock.Now, rand.Float64, e.log.With("reader", busReader), o)
		b.tracker = kafkabus.NewTracker(b.reached, busReader, b.sending, b.inbox, e.clock.Now, e.log)
		queue, o.Workers = b.sending, 256
		handlers = []outbox.Named{{Name: "kafka", Handle: b.send}}
	}
	e.relay = outbox.New(queue, handlers, e.clock.Now, rand.Float64, e.log, o)
}

// letters are all dead letters: of messages that could not be sent, and of those
// that could not be taken.
func (e *engine) letters() outbox.Letters {
	if e.bus == nil {
		return outbox.Letters{e.store}
	}
	return outbox.Letters{e.store, e.bus.inbox}
}

// provable is the store as the auditor reads it.
type provable struct {
	*sqlstore.Sharded
	letters outbox.Letters
}

var _ = proof.FleetOptions{Store: provable{}}

// Dead lists dead letters with id > after.
func (p provable) Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error) {
	return p.letters.Dead(ctx, after, limit)
}

// onBus are the tasks of each worker.
func (f *fleet) onBus() []run.Task {
	if f.bus == nil {
		return nil
	}
	return []run.Task{
		steady(f.log, run.Task{Name: "bus", Idle: time.Second, Step: func(ctx context.Context) (bool, error) { return false, f.bus.connect(ctx, f.engine) }}),
		steady(f.log, run.Task{Name: "bus reader", Idle: 10 * time.Millisecond,
			Step: f.bus.over(func(c *carrier) func(context.Context) (bool, error) { return c.reader.Step })}),
	}
}

// onBusAlone are those of one worker at a time.
func (f *fleet) onBusAlone() []run.Task {
	relay := run.Task{Name: "outbox relay", Step: f.relay.Step, Idle: 50 * time.Millisecond, Wake: f.outgoing}
	if f.bus == nil {
		return []run.Task{relay, {Name: "messages sent before", Step: f.takeBack, Idle: 5 * time.Second}}
	}
	relay.Step = f.bus.over(func(*carrier) func(context.Context) (bool, error) { return f.relay.Step })
	return []run.Task{
		relay,
		{Name: "bus inbox", Idle: 50 * time.Millisecond, Step: f.bus.relay.Step},
		{Name: "bus tracking", Idle: 200 * time.Millisecond,
			Step: func(ctx context.Context) (bool, error) { return f.bus.track(ctx, f.clock.Now()) }},
	}
}

// takeBack is for a fleet that had its bus on Kafka before: what was sent and is
// not known to be consumed goes back to the outbox.
func (f *fleet) takeBack(ctx context.Context) (worked bool, err error) {
	return takeBack(ctx, f.store, f.log)
}

func takeBack(ctx context.Context, store *sqlstore.Sharded, log *slog.Logger) (worked bool, err error) {
	sending, inbox := sqlstore.Sending{Sharded: store}, store.Inbox(busReader)
	page, err := sending.Sent(ctx, 0, trimSize)
	if err != nil || len(page) == 0 {
		return false, err
	}
	consumed, _, err := inbox.Known(ctx, page)
	if err != nil {
		return false, err
	}
	var arrived, again []int64
	for _, id := range page {
		if consumed[id] {
			arrived = append(arrived, id)
		} else {
			again = append(again, id)
		}
	}
	if err := sending.Arrived(ctx, arrived); err != nil {
		return false, err
	}
	// First out of the inbox: what stayed in it would be delivered from there, too,
	// or block its key, once the fleet is on Kafka again.
	if err := inbox.Forget(ctx, again); err != nil {
		return false, err
	}
	n, err := sending.Again(ctx, again)
	if n > 0 {
		log.Warn("messages were on Kafka, which this fleet has left; they are delivered from the outbox", "messages", n)
	}
	return err == nil, err
}
