package app

import (
	"context"
	"time"
)

// Metrics of a worker whose bus is on Kafka. The numbers of the group and of the
// store are the same on every worker.
var (
	busUpDesc       = describe("bus_up", "1 while the brokers of the bus answer.")
	busBacklogDesc  = describe("bus_backlog", "Messages on the bus that no worker has taken yet.")
	busSentDesc     = describe("bus_unconsumed", "Messages that were sent and are not known to be consumed: on the bus, or waiting or dead in the inbox.")
	busOldestDesc   = describe("bus_unconsumed_oldest_seconds", "Age of the oldest of them; 0 = none.")
	busTakenDesc    = describe("bus_messages_total", "Messages that this worker took from the bus: delivered, passed over because they were consumed, or parked in the inbox.", "what")
	busResentDesc   = describe("bus_resent_total", "Messages that the bus had lost and that were sent again.")
	busStuckDesc    = describe("bus_stuck_total", "Messages that this worker tried to send ten times in vain, for about two minutes; they are tried on.")
	inboxDesc       = describe("inbox_backlog", "Messages that wait in the inbox, dead ones included.")
	inboxOldestDesc = describe("inbox_oldest_seconds", "Age of the oldest message in the inbox; 0 = none.")
	inboxDeadDesc   = describe("inbox_dead", "Dead letters in the inbox; 1000 stands for more.")
	inboxFailedDesc = describe("inbox_failures_total", "Attempts of this worker to deliver what came over the bus that failed.")
	inboxBuriedDesc = describe("inbox_buried_total", "Messages from the bus that this worker gave up, which are dead letters until they are redriven.")
)

// busWithin bounds asking the brokers and the store for gauges.
const busWithin = 2 * time.Second

// collect tells of the bus. What cannot be asked now is left out.
func (b *bus) collect(m meter, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), busWithin)
	defer cancel()
	if n, oldest, err := b.sending.Travelling(ctx); err == nil {
		m.gauge(busSentDesc, float64(n))
		m.gauge(busOldestDesc, age(now, oldest))
	}
	if n, oldest, err := b.inbox.Backlog(ctx); err == nil {
		m.gauge(inboxDesc, float64(n))
		m.gauge(inboxOldestDesc, age(now, oldest))
	}
	if dead, err := b.inbox.Dead(ctx, 0, 1000); err == nil {
		m.gauge(inboxDeadDesc, float64(len(dead)))
	}
	m.counter(busStuckDesc, float64(b.stuck.Load()))
	m.counter(busResentDesc, float64(b.tracker.Resent()))
	if s, err := b.relay.Stats(ctx); err == nil {
		m.counter(inboxFailedDesc, float64(s.Failed))
		m.counter(inboxBuriedDesc, float64(s.Buried))
	}
	c := b.on.Load()
	if c == nil {
		m.gauge(busUpDesc, 0)
		return
	}
	n, err := c.bus.Backlog(ctx, busReader)
	m.gauge(busUpDesc, truth(err == nil))
	if err == nil {
		m.gauge(busBacklogDesc, float64(n))
	}
	taken := c.reader.Stats()
	for what, n := range map[string]uint64{"delivered": taken.Delivered, "passed": taken.Passed, "parked": taken.Parked} {
		m.counter(busTakenDesc, float64(n), what)
	}
}
