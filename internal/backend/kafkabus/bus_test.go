package kafkabus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/internal/lib/outbox"
)

// These tests run on kfake: they are about what this package does, not about
// what Kafka keeps. See kafka_test.go for that.

func TestBusOnFake(t *testing.T) {
	_, address := fake(t)
	runBus(t, func(topic string) string { return address + "?partitions=3&topic=" + topic })
}

func TestAddress(t *testing.T) {
	f := func(address, want string) {
		t.Helper()
		p, err := parse(address)
		if err != nil {
			if want != "" || !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), "kafka://host:9092") {
				t.Errorf("%s: %v", address, err)
			}
			return
		}
		if got := fmt.Sprintln(p.brokers, p.topic, p.partitions, p.replicas, p.insync); strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	f("kafka://a:1,b:2", "[a:1 b:2] sluice.events 12 3 2")
	f("kafka://a:1/?topic=x&partitions=3&replicas=1", "[a:1] x 3 1 1")
	f("kafka://a:1?replicas=5", "[a:1] sluice.events 12 5 2")
	for _, bad := range []string{"", "kafka://", "kafka://a", "redis://a:1", "kafka://u@a:1", "kafka://a:1,", "kafka://a:1?replicas=2",
		"kafka://a:1?replicas=x", "kafka://a:1?partitions=0", "kafka://a:1?topic=", "kafka://a:1?acks=1", "kafka://a:1?%"} {
		f(bad, "")
	}
}

// A topic that can lose what it has acknowledged is refused, with what to do.
func TestUnsafeTopics(t *testing.T) {
	c, address := fake(t)
	lone, loneAddress := fake(t, kfake.NumBrokers(1))
	make := func(c *kfake.Cluster, topic string, replicas int16, config map[string]string) {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
		must(t, err)
		defer client.Close()
		b := &Bus{admin: kadm.NewClient(client)}
		values := map[string]*string{}
		for k, v := range config {
			values[k] = &v
		}
		_, err = b.admin.CreateTopic(t.Context(), 3, replicas, values, topic)
		must(t, err)
	}
	make(c, "two", 2, map[string]string{"min.insync.replicas": "2"})
	make(c, "one-insync", 3, map[string]string{"min.insync.replicas": "1"})
	make(c, "unclean", 3, map[string]string{"min.insync.replicas": "2", "unclean.leader.election.enable": "true"})
	make(c, "good", 3, map[string]string{"min.insync.replicas": "2"})
	make(lone, "lone", 1, nil)
	f := func(address string, wants ...string) {
		t.Helper()
		b, err := Open(t.Context(), address, Options{})
		if err == nil {
			b.Close()
		}
		if len(wants) == 0 && err != nil || len(wants) > 0 && !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", address, err)
			return
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q in it", address, err, want)
			}
		}
	}
	f(address + "?topic=good")
	f(address + "?topic=new")
	f(address+"?topic=two", "2 replicas of 3", "kafka-reassign-partitions")
	f(address+"?topic=one-insync", "min.insync.replicas=1", "kafka-configs --alter --topic one-insync --add-config min.insync.replicas=2")
	f(address+"?topic=unclean", "unclean.leader.election.enable=false")
	f(loneAddress+"?topic=lone", "1 replicas of 3", "replicas=1")
	f(loneAddress+"?topic=new", "fewer brokers", "replicas=1")
	f(loneAddress + "?topic=lone&replicas=1")
}

// deaf is a connection that loses every other answer to a produce request: the
// broker has done what it was asked, and nobody hears of it.
type deaf struct {
	net.Conn
	lost *atomic.Int32
	sent atomic.Bool // the last request was one to produce
}

func (d *deaf) Write(p []byte) (int, error) {
	d.sent.Store(len(p) > 6 && binary.BigEndian.Uint16(p[4:]) == uint16(kmsg.Produce))
	return d.Conn.Write(p)
}

func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if err == nil && d.sent.Load() && d.lost.Add(1)%2 == 1 {
		d.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// The brokers have the records and their answers are lost, again and again:
// the client sends them again, and each message is there once, because a batch
// is known by its number. Without numbers the same makes duplicates.
func TestProducerRetries(t *testing.T) {
	_, address := fake(t)
	f := func(topic string, wantRepeated bool, more ...kgo.Opt) {
		t.Helper()
		w := newWorld(t, address+"?partitions=3&topic="+topic)
		var lost atomic.Int32
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &deaf{Conn: conn, lost: &lost}, err
		}
		w.bus.out.Close()
		var err error
		w.bus.out, err = w.bus.producer(append(more, kgo.Dialer(dial))...)
		must(t, err)
		w.bus.admin = kadm.NewClient(w.bus.out)
		w.queue.put(t, batch(60, 7)...)
		until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
		group := "g-" + topic
		in := forgetful{w.store.Inbox(group)}
		r := w.readerOf(group, in, relayOf(in, time.Now, outbox.Options{}, outbox.Named{Name: "count", Handle: w.careless()}), ReaderOptions{Workers: 1, Batch: 1})
		until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), group); return n == 0 }, r.Step)
		distinct, repeated, disordered := w.verdict()
		if distinct != 60 || disordered != 0 || repeated > 0 != wantRepeated || lost.Load() < 2 {
			t.Errorf("%s: %d distinct, %d repeated, %d out of order, after %d answers lost or not", topic, distinct, repeated, disordered, lost.Load())
		}
	}
	f("numbered", false)
	f("unnumbered", true, kgo.DisableIdempotentWrite())
}

// While the brokers are away nothing is given up, somebody is told, and a
// message that is on its way is not sent twice.
func TestSendWhileAway(t *testing.T) {
	c, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	var mu sync.Mutex
	var told []int64
	w.bus.o.AlarmAfter, w.bus.o.Stuck = 3, func(m outbox.Message, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, m.ID)
	}
	away := true
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if away {
			return nil, errors.New("connection lost"), true
		}
		return nil, nil, false
	})
	m := message("k", 1)
	m.ID = 7
	for m.Attempts = range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := w.bus.Send(ctx, m)
		cancel()
		if !errors.Is(err, outbox.ErrAway) {
			t.Fatalf("attempt %d: %v", m.Attempts, err)
		}
	}
	mu.Lock()
	away = false
	mu.Unlock()
	must(t, w.bus.Send(t.Context(), m))
	if !slices.Equal(told, []int64{7}) {
		t.Errorf("told of %v", told)
	}
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.careless()})
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	w.wantApplied(1)

	big := outbox.Message{ID: 8, Key: "k", Topic: "t", Body: bytes.Repeat([]byte("x"), 2<<20)}
	if err := w.bus.Send(t.Context(), big); !errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, outbox.ErrAway) {
		t.Errorf("too large a message: %v", err)
	}
}

// redeliver writes messages again, as a relay does whose record of a delivery
// was lost, or one that was frozen and goes on after another took its place.
func (w *world) redeliver(messages ...outbox.Message) {
	w.t.Helper()
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = recordOf(m)
	}
	must(w.t, w.bus.out.ProduceSync(w.t.Context(), records...).FirstErr())
}

// Duplicates, in order and out of it: applied once each, in order. The same
// with the guard off shows that they were there.
func TestDuplicates(t *testing.T) {
	_, address := fake(t)
	f := func(topic string, guarded bool, wantRepeated bool) {
		t.Helper()
		w := newWorld(t, address+"?partitions=2&topic="+topic)
		handler := w.careless()
		if guarded {
			handler = w.effect("g-" + topic)
		}
		in := Inbox(w.store.Inbox("g-" + topic))
		if !guarded {
			in = forgetful{in}
		}
		r := w.readerOf("g-"+topic, in, relayOf(in, time.Now, outbox.Options{}, outbox.Named{Name: "count", Handle: handler}), ReaderOptions{Batch: 3})
		all := batch(30, 3)
		for i := range all {
			all[i].ID = int64(i + 1)
		}
		w.redeliver(all[:10]...)
		w.redeliver(all[:10]...)
		w.redeliver(all[10:20]...)
		w.redeliver(all[5], all[2], all[19], all[8], all[8]) // reordered
		w.redeliver(all[20:]...)
		w.redeliver(all[:5]...)
		until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g-"+topic); return n == 0 }, r.Step)
		distinct, repeated, disordered := w.verdict()
		if distinct != 30 || disordered != 0 || repeated > 0 != wantRepeated {
			t.Errorf("guarded %v: %d distinct, %d repeated, %d out of order", guarded, distinct, repeated, disordered)
		}
	}
	f("guarded", true, false)
	f("unguarded", false, true)
}

// forgetful never knows what was consumed.
type forgetful struct{ Inbox }

func (f forgetful) Look(ctx context.Context, m []outbox.Message) (map[int64]bool, map[string]bool, error) {
	_, waiting, err := f.Inbox.Look(ctx, m)
	return nil, waiting, err
}

// A reader whose brokers have gone says so at each step, and not only where a fetch
// happens to tell: whoever looks at its log would take it for well every second.
func TestReaderWithoutBrokers(t *testing.T) {
	c, address := fake(t)
	w := newWorld(t, address)
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.careless()})
	w.queue.put(t, message("k", 1))
	until(t, "read", func() bool { return w.applied() == 1 }, w.relay.Step, r.Step)
	c.Close()
	var err error
	until(t, "failing", func() bool { return err != nil }, func(ctx context.Context) (bool, error) {
		_, err = r.Step(ctx)
		return false, nil
	})
	for i := range 10 {
		if _, err := r.Step(t.Context()); err == nil {
			t.Fatalf("step %d after the first failure is well", i)
		}
	}
}

// broken is an inbox that does not keep, as when the store is away.
type broken struct {
	Inbox
	mu   sync.Mutex
	away bool
}

func (b *broken) Keep(ctx context.Context, consumed []int64, parked []outbox.Waiting) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errors.New("store is away")
	}
	return b.Inbox.Keep(ctx, consumed, parked)
}

// A position is committed only after what is before it is noted: while the
// store is away it stays, and everything is read again.
func TestPositionWaitsForTheStore(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=2")
	in := &broken{Inbox: w.store.Inbox("g"), away: true}
	r := w.readerOf("g", in, relayOf(in, time.Now, outbox.Options{}, outbox.Named{Name: "count", Handle: w.effect("g")}), ReaderOptions{})
	w.queue.put(t, batch(20, 4)...)
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	failures := 0
	until(t, "fails", func() bool { return failures >= 3 }, func(ctx context.Context) (bool, error) {
		worked, err := r.Step(ctx)
		if err != nil {
			failures++
		}
		if worked {
			t.Error("worked without a store")
		}
		return worked, nil
	})
	if n, err := w.bus.Backlog(t.Context(), "g"); n != 20 {
		t.Errorf("backlog %d, %v; want all 20", n, err)
	}
	in.mu.Lock()
	in.away = false
	in.mu.Unlock()
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	w.wantApplied(20)
}

// A position that could not be committed is committed by a later step, though no
// record comes after it; nothing is delivered twice for it.
func TestCommitIsMadeGood(t *testing.T) {
	c, address := fake(t)
	w := newWorld(t, address+"?partitions=2")
	var refused atomic.Int32
	c.ControlKey(int16(kmsg.OffsetCommit), func(q kmsg.Request) (kmsg.Response, error, bool) {
		if refused.Add(1) > 3 {
			return nil, nil, false
		}
		c.KeepControl()
		r := q.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range q.(*kmsg.OffsetCommitRequest).Topics {
			rt := kmsg.OffsetCommitResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
			for _, p := range topic.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.UnknownServerError.Code})
			}
			r.Topics = append(r.Topics, rt)
		}
		return r, nil, true
	})
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.careless()})
	w.queue.put(t, batch(20, 4)...)
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	until(t, "committed", func() bool { n, err := w.bus.Backlog(t.Context(), "g"); return n == 0 && err == nil }, r.Step)
	if refused.Load() < 4 {
		t.Errorf("%d commits, of which none was refused", refused.Load())
	}
	w.wantApplied(20)
}

// Brokers that will not let somebody read say so.
func TestExportRefused(t *testing.T) {
	c, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	w.queue.put(t, message("k", 1))
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	c.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		r := q.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range q.(*kmsg.FetchRequest).Topics {
			rt := kmsg.FetchResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
			for _, p := range topic.Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.TopicAuthorizationFailed.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			r.Topics = append(r.Topics, rt)
		}
		return r, nil, true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := w.bus.Export(ctx, "", time.Time{}, io.Discard); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("export without the right to read: %v", err)
	}
}

// A batch that takes longer than its budget is committed as far as it got, and
// its rest is read again, with nothing lost, doubled or overtaken.
func TestBudget(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	r := w.reader("g", ReaderOptions{Budget: time.Nanosecond}, outbox.Named{Name: "count", Handle: w.effect("g")})
	w.queue.put(t, batch(10, 2)...)
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	for range 5 {
		if worked, err := r.Step(t.Context()); worked || err != nil {
			t.Errorf("step without time: %v, %v", worked, err)
		}
	}
	r.o.Budget = time.Minute
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	w.wantApplied(10)
}

// A full inbox stops the reading; the backlog stays in Kafka.
func TestFullInbox(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	refuse := true
	r := w.reader("g", ReaderOptions{Batch: 2, MaxWaiting: 3}, outbox.Named{Name: "count", Handle: func(ctx context.Context, m outbox.Message) error {
		if refuse {
			return errors.New("no")
		}
		return w.effect("g")(ctx, m)
	}})
	w.queue.put(t, batch(20, 20)...)
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	until(t, "parked", func() bool { return r.Stats().Parked >= 4 }, r.Step)
	for range 5 {
		_, err := r.Step(t.Context())
		must(t, err)
	}
	if n, err := w.bus.Backlog(t.Context(), "g"); n != 16 || r.Stats().Parked != 4 {
		t.Errorf("backlog %d, %v, %d parked; want 16 and 4", n, err, r.Stats().Parked)
	}
	refuse = false
	until(t, "all", func() bool { n, _, _ := w.verdict(); return n == 20 }, r.Step, r.Relay.Step)
	w.wantApplied(20)
}

// A delayed message comes when it is due and holds back its key.
func TestDelayed(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	at := time.UnixMilli(1000)
	now := func() time.Time { return at }
	in := w.store.Inbox("g")
	r, err := w.bus.NewReader("g", in, relayOf(in, now, outbox.Options{}, outbox.Named{Name: "count", Handle: w.effect("g")}), now, ReaderOptions{})
	must(t, err)
	t.Cleanup(r.Close)
	due := message("k", 1)
	due.ID, due.NotBefore = 1, 5000
	behind, other := message("k", 2), message("l", 3)
	behind.ID, other.ID = 2, 3
	w.redeliver(due, behind, other)
	until(t, "the other key", func() bool { n, _, _ := w.verdict(); return n == 1 }, r.Step, r.Relay.Step)
	at = time.UnixMilli(4999)
	if worked, err := r.Relay.Step(t.Context()); worked || err != nil {
		t.Errorf("too early: %v, %v", worked, err)
	}
	at = time.UnixMilli(5000)
	until(t, "due", func() bool { n, _, _ := w.verdict(); return n == 3 }, r.Step, r.Relay.Step)
	w.wantApplied(3)
}

// What is no message is a dead letter with where it stands, and blocks nobody.
func TestAliens(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=1")
	r := w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.effect("g")})
	good := message("k", 1)
	good.ID = 1
	unnumbered := recordOf(good)
	unnumbered.Headers[0].Value = []byte("one")
	must(t, w.bus.out.ProduceSync(t.Context(), &kgo.Record{Value: []byte("hello")}, unnumbered, recordOf(good)).FirstErr())
	until(t, "read", func() bool { n, _ := w.bus.Backlog(t.Context(), "g"); return n == 0 }, r.Step)
	w.wantApplied(1)
	letters, err := w.store.Inbox("g").Dead(t.Context(), 0, 10)
	must(t, err)
	if len(letters) != 2 || !strings.Contains(letters[0].Reason, "at 0 of partition 0") || string(letters[0].Body) != "hello" {
		t.Errorf("dead letters %+v", letters)
	}
}

// Every listener hears everything, beside a group that shares it.
func TestBroadcast(t *testing.T) {
	_, address := fake(t)
	w := newWorld(t, address+"?partitions=3")
	w.redeliver(func() outbox.Message { m := message("old", 0); m.ID = 99; return m }())
	began := time.Now().Add(time.Millisecond)
	heard := make([][]int64, 2)
	var lost []int64
	var steps []func(context.Context) (bool, error)
	var mu sync.Mutex
	for i := range heard {
		l, err := w.bus.NewListener(began, []outbox.Named{{Name: "hear", Handle: func(_ context.Context, m outbox.Message) error {
			if m.ID == 5 {
				return errors.New("deaf")
			}
			mu.Lock()
			defer mu.Unlock()
			heard[i] = append(heard[i], m.ID)
			return nil
		}}}, func(m outbox.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, m.ID)
		})
		must(t, err)
		t.Cleanup(l.Close)
		steps = append(steps, l.Step)
	}
	until(t, "a moment later", func() bool { return time.Now().After(began) })
	w.queue.put(t, batch(10, 10)...)
	until(t, "heard", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard[0]) >= 9 && len(heard[1]) >= 9 && len(lost) >= 2
	},
		append(steps, w.relay.Step)...)
	for i := range heard {
		slices.Sort(heard[i])
		if !slices.Equal(heard[i], []int64{1, 2, 3, 4, 6, 7, 8, 9, 10}) {
			t.Errorf("listener %d heard %v", i, heard[i])
		}
	}
	if !slices.Equal(lost, []int64{5, 5}) {
		t.Errorf("lost %v", lost)
	}
}

// A backlog is counted, exported, and replayed into another cluster, or by a
// group that is set back.
func TestBacklog(t *testing.T) {
	_, address := fake(t)
	_, elsewhere := fake(t)
	w, other := newWorld(t, address+"?partitions=3"), newWorld(t, elsewhere+"?partitions=2")
	r := w.reader("g", ReaderOptions{Batch: 10}, outbox.Named{Name: "count", Handle: w.effect("g")})
	w.queue.put(t, batch(50, 5)...)
	until(t, "sent", func() bool { n, _, _ := w.queue.Backlog(t.Context()); return n == 0 }, w.relay.Step)
	backlog := func(w *world) int64 {
		t.Helper()
		n, err := w.bus.Backlog(t.Context(), "g")
		must(t, err)
		return n
	}
	if n := backlog(w); n != 50 {
		t.Errorf("backlog %d before the group has read", n)
	}
	until(t, "some read", func() bool { return backlog(w) < 50 }, r.Step)
	left := backlog(w)
	if err := w.bus.Rewind(t.Context(), "g", time.UnixMilli(0)); err == nil || !strings.Contains(err.Error(), "stop the processes") {
		t.Errorf("rewind of a group that runs: %v", err)
	}
	r.Close()

	var all, rest bytes.Buffer
	n, err := w.bus.Export(t.Context(), "", time.Time{}, &all)
	if err != nil || n != 50 {
		t.Fatalf("export %d, %v", n, err)
	}
	if n, err := w.bus.Export(t.Context(), "g", time.Time{}, &rest); err != nil || int64(n) != left {
		t.Fatalf("export of the backlog %d, %v; want %d", n, err, left)
	}
	if n, err := w.bus.Export(t.Context(), "", time.Now().Add(time.Hour), &rest); err != nil || n != 0 {
		t.Errorf("export of the future %d, %v", n, err)
	}
	for range 2 { // again does no harm
		if n, err := other.bus.Import(t.Context(), bytes.NewReader(all.Bytes())); err != nil || n != 50 {
			t.Fatalf("import %d, %v", n, err)
		}
	}
	far := other.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: other.effect("g")})
	until(t, "replayed elsewhere", func() bool { return backlog(other) == 0 }, far.Step)
	other.wantApplied(50)
	if _, err := other.bus.Import(t.Context(), strings.NewReader("{}\n")); err == nil {
		t.Error("imported what is no message")
	}

	must(t, w.bus.Rewind(t.Context(), "g", time.UnixMilli(0)))
	if n := backlog(w); n != 50 {
		t.Errorf("backlog %d after rewinding", n)
	}
	r = w.reader("g", ReaderOptions{}, outbox.Named{Name: "count", Handle: w.effect("g")})
	until(t, "replayed", func() bool { return backlog(w) == 0 }, r.Step)
	w.wantApplied(50)
}
