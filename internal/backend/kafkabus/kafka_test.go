package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/test/servers"
)

// TestOnKafka is on real brokers: one, or as many as KAFKA_BROKERS says, 1 or 3.
// They are started once, for each is a Java process.
func TestOnKafka(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("KAFKA_BROKERS"))
	if err != nil {
		n = 1
	}
	began := time.Now()
	c := servers.Kafka(t, n)
	t.Logf("%d brokers up after %v", n, time.Since(began).Round(time.Millisecond))
	address := func(topic string) string {
		return fmt.Sprintf("kafka://%s?topic=%s&partitions=4&replicas=%d", strings.Join(c.Addrs(), ","), topic, n)
	}
	t.Run("suite", func(t *testing.T) { runBus(t, address) })
	t.Run("rebalance", func(t *testing.T) { rebalance(t, address("rebalance")) })
	t.Run("stalled", func(t *testing.T) {
		stalled(t, address("guarded"), true)
		stalled(t, address("unguarded"), false)
	})
	t.Run("broker killed", func(t *testing.T) { brokerKilled(t, c, address("killed"), "killed") })
}

// load puts 500 messages a second while f runs, unless many are under way, and
// answers how many it was.
func (w *world) load(keys int, f func()) (n int) {
	w.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return n
		case <-tick.C:
			if n%500 == 0 && n > w.applied()+2000 {
				continue
			}
			var list []outbox.Message
			for range 10 {
				list = append(list, message(fmt.Sprint("key-", n%keys), n))
				n++
			}
			w.queue.put(w.t, list...)
		}
	}
}

// loop runs steps until it is told to stop, with a pause where there is nothing
// to do; their errors are expected where brokers die. stop waits for the step
// under way.
func loop(steps ...func(context.Context) (bool, error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		pause := time.NewTicker(10 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			idle := true
			for _, step := range steps {
				worked, err := step(ctx)
				idle = idle && (!worked || err != nil)
			}
			if idle {
				<-pause.C
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (w *world) applied() int {
	w.t.Helper()
	n, _, _ := w.verdict()
	return n
}

// await waits until n messages have been applied.
func (w *world) await(n int) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(60 * time.Second)
	for w.applied() < n {
		if time.Now().After(deadline) {
			w.t.Errorf("applied %d of %d within a minute", w.applied(), n)
			return
		}
		<-tick.C
	}
}

// member is a process of the group.
func (w *world) member(group string) (leave func()) {
	w.t.Helper()
	r := w.reader(group, ReaderOptions{Batch: 50}, outbox.Named{Name: "count", Handle: w.effect(group)})
	stop := loop(r.Step)
	return func() { stop(); r.Close() }
}

// Members join and leave under load, one of them in the middle of its work.
func rebalance(t *testing.T, address string) {
	w := newWorld(t, address)
	defer loop(w.relay.Step)()
	first := w.member("g-rebalance")
	var leaves []func()
	n := w.load(40, func() {
		w.await(100)
		second := w.member("g-rebalance")
		w.await(400)
		first() // its part goes to the second
		w.await(700)
		third, fourth := w.member("g-rebalance"), w.member("g-rebalance")
		w.await(1000)
		second()
		leaves = append(leaves, third, fourth)
	})
	w.await(n)
	for _, leave := range leaves {
		leave()
	}
	w.wantApplied(n)
	t.Logf("%d messages through four joins and two leaves", n)
}

// A reader stalls in the middle of a message for so long that its partitions
// are given to another, which does the same message and the ones after; then it
// goes on. The inbox tells it that all is done; without it the message is
// applied once more, after what follows it.
func stalled(t *testing.T, address string, guarded bool) {
	w := newWorld(t, address)
	w.bus.o.Stall = 2 * time.Second
	group := fmt.Sprint("g-stalled-", guarded)
	apply := w.effect(group)
	in := Inbox(w.store.Inbox(group))
	if !guarded {
		apply, in = w.careless(), forgetful{in}
	}
	var stalling atomic.Bool
	stuck, goOn := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(stuck) })
	newReader := func(handle outbox.Handler) *Reader {
		relay := relayOf(in, time.Now, outbox.Options{Timeout: time.Minute}, outbox.Named{Name: "count", Handle: handle})
		return w.readerOf(group, in, relay, ReaderOptions{Workers: 1})
	}
	slow := newReader(func(ctx context.Context, m outbox.Message) error {
		if m.ID == 1 {
			stalling.Store(true)
			once()
			<-goOn
		}
		return apply(ctx, m)
	})
	var list []outbox.Message
	for i := range 5 {
		m := message("k", i)
		m.ID = int64(i + 1)
		list = append(list, m)
	}
	w.redeliver(list...)
	stop := loop(slow.Step)
	<-stuck
	quick := newReader(apply)
	until(t, "the other applies all", func() bool { return w.applied() == 5 }, quick.Step)
	close(goOn)
	until(t, "the stalled one is through", func() bool { return slow.Stats().Delivered > 0 || slow.Stats().Passed > 0 })
	stop()
	distinct, repeated, disordered := w.verdict()
	if distinct != 5 || disordered != 0 || repeated > 0 == guarded {
		t.Errorf("guarded %v: %d distinct, %d repeated, %d out of order", guarded, distinct, repeated, disordered)
	}
}

// A broker is killed under load, with requests on their way: of three, the
// others go on; one alone is started again. Nothing that the outbox has
// forgotten is missing.
func brokerKilled(t *testing.T, c *servers.KafkaCluster, address, topic string) {
	w := newWorld(t, address)
	defer loop(w.relay.Step)()
	leave := w.member("g-killed")
	defer leave()
	rounds := 1 // each waits for a Java process
	if len(c.Brokers) > 1 {
		rounds = 3
	}
	var gaps []time.Duration
	n := w.load(40, func() {
		for range rounds {
			w.await(w.applied() + 300)
			victim, err := c.Leader(topic, 0)
			if err != nil {
				t.Error(err)
				return
			}
			victim.Kill()
			began := time.Now()
			if len(c.Brokers) > 1 {
				w.await(w.applied() + 300) // without it
				gaps = append(gaps, time.Since(began).Round(time.Millisecond))
			}
			if err := errors.Join(victim.Restart(), c.Await()); err != nil {
				t.Error(err)
				return
			}
			if len(c.Brokers) == 1 {
				w.await(w.applied() + 300)
				gaps = append(gaps, time.Since(began).Round(time.Millisecond))
			}
		}
	})
	w.await(n)
	w.wantApplied(n)
	t.Logf("%d messages, %d brokers killed; 300 more applied %v after each kill", n, rounds, gaps)
}

// BenchmarkBus is the way of messages of 1,000 keys on one broker: from an
// outbox in SQLite to the topic, and from there to a handler that does nothing,
// noted in an inbox in SQLite.
func BenchmarkBus(b *testing.B) {
	c := servers.Kafka(b, 1)
	w := newWorld(b, fmt.Sprintf("kafka://%s?partitions=4&replicas=1", c.Addrs()[0]))
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "nothing", Handle: func(context.Context, outbox.Message) error { return nil }})
	left := func() bool { n, _, _ := w.queue.Backlog(b.Context()); return n == 0 }
	w.queue.put(b, batch(1, 1)...)
	until(b, "warm", func() bool { return left() && r.Stats().Delivered == 1 }, w.relay.Step, r.Step)
	w.queue.put(b, batch(b.N, 1000)...)
	b.ResetTimer()
	until(b, "sent", left, w.relay.Step)
	sent := b.Elapsed()
	until(b, "read", func() bool { return r.Stats().Delivered == uint64(b.N)+1 }, r.Step)
	b.ReportMetric(float64(b.N)/sent.Seconds(), "sent/s")
	b.ReportMetric(float64(b.N)/(b.Elapsed()-sent).Seconds(), "read/s")
}
