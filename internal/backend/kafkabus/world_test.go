package kafkabus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// world is a store with an outbox and an inbox, and a bus. What consumers do is
// a row in its table "applied", in the transaction that the inbox guards.
type world struct {
	t     testing.TB
	path  string
	store *sqlstore.Store
	bus   *Bus
	relay *outbox.Relay // from the outbox to the bus
	queue *puts
}

// puts is a queue that stands for the outbox: an inbox that nobody reads into,
// for it passes the suite of queues and lets a test save messages as it likes.
type puts struct {
	*sqlstore.Inbox
	last int64
}

func (p *puts) put(t testing.TB, messages ...outbox.Message) {
	t.Helper()
	waiting := make([]outbox.Waiting, len(messages))
	for i, m := range messages {
		p.last++
		m.ID = p.last
		waiting[i] = outbox.Waiting{Message: m}
	}
	must(t, p.Keep(t.Context(), nil, waiting))
}

// newWorld is on brokers at an address. Everything has a topic of its own.
func newWorld(t testing.TB, address string) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "shop.db")}
	var err error
	w.store, err = sqlstore.Open(t.Context(), w.path, sqlstore.Options{})
	must(t, err)
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.sql("CREATE TABLE applied (n INTEGER PRIMARY KEY AUTOINCREMENT, msg_key TEXT NOT NULL, id INTEGER NOT NULL)")
	w.bus, err = Open(t.Context(), address, Options{Session: 6 * time.Second})
	must(t, err)
	t.Cleanup(w.bus.Close)
	w.queue = &puts{Inbox: w.store.Inbox("outbox of the test")}
	w.relay = outbox.New(w.queue, []outbox.Named{{Name: "bus", Handle: w.bus.Send}}, time.Now, func() float64 { return 0 }, quiet,
		outbox.Options{Workers: 256})
	return w
}

// raw is the database beside the store.
func (w *world) raw() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path+"?_pragma=busy_timeout(5000)")
	must(w.t, err)
	return db
}

func (w *world) sql(statement string) {
	w.t.Helper()
	db := w.raw()
	defer db.Close()
	_, err := db.Exec(statement)
	must(w.t, err)
}

// effect counts a message, once: what a consumer with SQL does.
func (w *world) effect(group string) outbox.Handler {
	in := w.store.Inbox(group)
	return func(ctx context.Context, m outbox.Message) error {
		_, err := in.Apply(ctx, m.ID, func(tx sqlstore.Tx) error { return count(tx, m) })
		return err
	}
}

func count(tx sqlstore.Tx, m outbox.Message) error {
	_, err := tx.Exec("INSERT INTO applied (msg_key, id) VALUES (?, ?)", m.Key, m.ID)
	return err
}

// careless counts without asking whether it has.
func (w *world) careless() outbox.Handler {
	var serial atomic.Int64
	in := w.store.Inbox("nobody")
	return func(ctx context.Context, m outbox.Message) error {
		_, err := in.Apply(ctx, serial.Add(1), func(tx sqlstore.Tx) error { return count(tx, m) })
		return err
	}
}

// verdict reads what was applied: how often more than once, how often out of
// the order of its key, and how many messages at all.
func (w *world) verdict() (distinct, repeated, disordered int) {
	w.t.Helper()
	db := w.raw()
	defer db.Close()
	rows, err := db.Query("SELECT msg_key, id FROM applied ORDER BY n")
	must(w.t, err)
	defer rows.Close()
	last, seen := map[string]int64{}, map[int64]bool{}
	for rows.Next() {
		var key string
		var id int64
		must(w.t, rows.Scan(&key, &id))
		switch {
		case seen[id]:
			repeated++
		case id < last[key]:
			disordered++
		}
		seen[id], last[key] = true, max(last[key], id)
	}
	must(w.t, rows.Err())
	return len(seen), repeated, disordered
}

// wantApplied checks invariant 11: every message once, in the order of its key.
func (w *world) wantApplied(n int) {
	w.t.Helper()
	distinct, repeated, disordered := w.verdict()
	if distinct != n || repeated != 0 || disordered != 0 {
		w.t.Errorf("applied %d of %d messages, %d more than once, %d out of order", distinct, n, repeated, disordered)
	}
}

func (w *world) reader(group string, o ReaderOptions, handlers ...outbox.Named) *Reader {
	w.t.Helper()
	in := w.store.Inbox(group)
	return w.readerOf(group, in, relayOf(in, time.Now, outbox.Options{}, handlers...), o)
}

// relayOf is a relay without jitter.
func relayOf(in outbox.Queue, now func() time.Time, o outbox.Options, handlers ...outbox.Named) *outbox.Relay {
	return outbox.New(in, handlers, now, func() float64 { return 0 }, quiet, o)
}

func (w *world) readerOf(group string, in Inbox, relay *outbox.Relay, o ReaderOptions) *Reader {
	w.t.Helper()
	r, err := w.bus.NewReader(group, in, relay, time.Now, o)
	must(w.t, err)
	w.t.Cleanup(r.Close)
	return r
}

// until steps till something is so.
func until(t testing.TB, what string, is func() bool, steps ...func(context.Context) (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !is() {
		for _, step := range steps {
			if _, err := step(t.Context()); err != nil {
				t.Logf("%s: %v", what, err) // brokers come and go
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func message(key string, n int) outbox.Message {
	return outbox.Message{Key: key, Topic: "t.x", Body: fmt.Appendf(nil, `{"n":%d}`, n), At: int64(n)}
}

// batch is n messages of so many keys.
func batch(n, keys int) (list []outbox.Message) {
	for i := range n {
		list = append(list, message(fmt.Sprint("key-", i%keys), i))
	}
	return list
}

// fake is a Kafka that is not one: it proves nothing about durability.
func fake(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, options...)...)
	must(t, err)
	t.Cleanup(c.Close)
	return c, "kafka://" + strings.Join(c.ListenAddrs(), ",")
}

// runBus is the suite that the embedded outbox passes, over a bus.
func runBus(t *testing.T, address func(topic string) string) {
	n := 0
	outboxtest.RunBus(t, func(t *testing.T, s outboxtest.Setup) outboxtest.Bus {
		n++
		w := newWorld(t, address(fmt.Sprint("suite-", n)))
		in := w.store.Inbox("suite")
		r, err := w.bus.NewReader("suite-"+fmt.Sprint(n), in, relayOf(in, s.Now, s.Options, s.Handlers...), s.Now, ReaderOptions{Workers: s.Options.Workers})
		must(t, err)
		t.Cleanup(r.Close)
		return outboxtest.Bus{
			Put:  func(t *testing.T, messages ...outbox.Message) { t.Helper(); w.queue.put(t, messages...) },
			Left: in,
			Step: func(ctx context.Context) (bool, error) {
				sent, err1 := w.relay.Step(ctx)
				read, err2 := r.Step(ctx)
				again, err3 := r.Relay.Step(ctx)
				return sent || read || again, errors.Join(err1, err2, err3)
			},
		}
	})
}
