package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/app"
	"sluice/internal/backend/kafkabus"
	"sluice/storm"
	"sluice/test/servers"
)

// Which bus goes with what, and which line to change.
func TestBusDoor(t *testing.T) {
	f := func(bus, stock, store string, want ...string) {
		t.Helper()
		_, err := app.Load("", map[string]any{"bus": bus, "stock": stock, "store": store})
		if len(want) == 0 && err != nil {
			t.Errorf("%s %s: %v", bus, stock, err)
		}
		for _, w := range want {
			if !errors.Is(err, app.ErrConfig) || !strings.Contains(err.Error(), "\n"+w) || strings.Contains(err.Error(), "do-not-show") {
				t.Errorf("%s %s: %v, want %q", bus, stock, err, w)
			}
		}
	}
	const kafka = "kafka://u:do-not-show@a:9092,b:9092?topic=x&tls=true"
	f("outbox:", "wal:", "sqlite:")
	f("", redis, mysql)
	f(kafka, redis, mysql)
	f(kafka, "wal:", "sqlite:", `bus: "kafka://u:xxxxx@a:9092,b:9092?topic=x&tls=true" is of no use`)
	f(kafka, redis, "sqlite:", "store: ")
	f("kafka://u:do-not-show@a", redis, "sqlite:", "bus: ", "store: ")
	f("kafka://a:9092?replicas=2", redis, mysql, "bus: ")
	f("nats://u:do-not-show@a:4222", redis, mysql, `bus: "nats://u:xxxxx@a:4222" has no backend`)
	c := app.Default()
	if c.Bus = kafka; !strings.Contains(c.Print(), `bus: "kafka://u:xxxxx@a:9092`) || strings.Contains(c.Print(), "do-not-show") {
		t.Error(c.Print())
	}
}

// overKafka is a fleet's configuration with a topic on these brokers.
func overKafka(t *testing.T, k *servers.KafkaCluster, sql *servers.Database, topic string) app.Config {
	t.Helper()
	c := shared(t, servers.Redis(t), sql)
	c.Bus = fmt.Sprintf("kafka://%s?topic=%s&partitions=4&replicas=1", strings.Join(k.Addrs(), ","), topic)
	return c
}

// notices counts the notifications of a user by topic.
func (s *server) notices(user string) map[string]int {
	s.t.Helper()
	_, _, list := s.call("GET", s.shopper+"/v1/notifications", s.token(user), "")
	n := map[string]int{}
	all, _ := list["notifications"].([]any)
	for _, one := range all {
		n[one.(map[string]any)["topic"].(string)]++
	}
	return n
}

// A fleet whose events go over Kafka: what was paid is confirmed and told of once;
// what is paid while the brokers are away as soon as they are back, and until then
// the proof knows that it is on its way.
func TestBusOnKafka(t *testing.T) {
	k := servers.Kafka(t, 1)
	c := overKafka(t, k, servers.MariaDB(t), "shop")
	k.Brokers[0].Kill()
	s := start(t, c) // the brokers are away already
	s.sell("cup", 20, `,"hold_seconds":600`)
	paid := func(user string) {
		t.Helper()
		status, _, receipt := s.buy("cup", user, "k", 1)
		if status != 202 {
			t.Fatalf("buy: %d %v", status, receipt)
		}
		s.inTime("held", func() bool {
			_, _, r := s.call("GET", s.shopper+"/v1/reservations/"+receipt["reservation"].(string), s.token(user), "")
			return r["state"] == "held"
		})
		if status := s.pay(user, receipt["order"].(string), "pay"); status != 200 {
			t.Fatalf("pay: %d", status)
		}
		s.inTime("paid", func() bool { return s.order(user, receipt["order"])["state"] == "paid" })
	}
	told := func(user string) {
		t.Helper()
		s.inTime(user+" told", func() bool { return s.notices(user)["order.paid"] == 1 })
	}
	paid("ann")
	if status, _, v := s.call("GET", s.ops+"/readyz", "", ""); status != 200 {
		t.Errorf("without the brokers: %d %v", status, v)
	}
	if m := s.metrics(); !strings.Contains(m, "sluice_bus_up 0") {
		t.Error("the gauge does not say that the brokers are away")
	}
	if n := s.notices("ann"); len(n) != 0 {
		t.Errorf("told without brokers: %v", n)
	}
	back := func() {
		t.Helper()
		if err := errors.Join(k.Brokers[0].Restart(), k.Await()); err != nil {
			t.Fatal(err)
		}
	}
	back()
	told("ann")
	k.Brokers[0].Kill()
	paid("bob")
	s.proved("cup") // a paid order with a reservation that perhaps is not confirmed is no violation
	back()
	told("bob")
	paid("cyn")
	told("cyn")
	if s.proved("cup"); s.notices("ann")["order.paid"] != 1 {
		t.Error("ann was told more than once")
	}
	s.inTime("all of it known to be consumed", func() bool { return strings.Contains(s.metrics(), "sluice_bus_unconsumed 0") })
	s.stop()

	// What operators do beside it: messages that are read again have no effect again.
	log := slog.New(slog.DiscardHandler)
	var all bytes.Buffer
	n, err := app.ExportBus(t.Context(), c, log, time.Time{}, false, &all)
	if err != nil || n < 3 || n != strings.Count(all.String(), "\n") {
		t.Errorf("exported %d messages, %v: %s", n, err, all.String())
	}
	if n, err := app.ExportBus(t.Context(), c, log, time.Time{}, true, io.Discard); err != nil || n != 0 {
		t.Errorf("exported %d messages that nobody has taken, %v", n, err)
	}
	if backlog, err := app.RewindBus(t.Context(), c, log, time.Unix(0, 0)); err != nil || backlog != int64(n) {
		t.Errorf("%d messages after rewinding, %v", backlog, err)
	}
	if sent, err := app.ImportBus(t.Context(), c, log, &all); err != nil || sent != n {
		t.Errorf("imported %d messages, %v", sent, err)
	}
	s = start(t, c)
	s.inTime("read again", func() bool {
		_, rest, _ := strings.Cut(s.metrics(), `sluice_bus_messages_total{what="passed"} `)
		passed := 0 // more, where the reader lost its group in between and read again
		_, _ = fmt.Sscan(rest, &passed)
		return passed >= 2*n
	})
	for _, user := range []string{"ann", "bob", "cyn"} {
		told(user)
	}
	s.stop()

	// The fleet leaves Kafka: nothing is left behind.
	c.Bus = "outbox:"
	s = start(t, c)
	paid("dan")
	told("dan")
}

// A topic that can lose what it has acknowledged keeps a worker from starting, and
// says what to do.
func TestUnsafeBus(t *testing.T) {
	k := servers.Kafka(t, 1)
	c := overKafka(t, k, servers.MariaDB(t), "unsafe")
	c.Bus = strings.Replace(c.Bus, "&replicas=1", "", 1)
	err := app.Run(t.Context(), c, io.Discard, slog.New(slog.DiscardHandler), nil)
	if !errors.Is(err, kafkabus.ErrUnsafe) || !strings.Contains(err.Error(), "start more") {
		t.Errorf("%v", err)
	}
	// A gateway asks no broker.
	c.Role, c.Payment, c.Secrets = "gateway", "sandbox://127.0.0.1:1", t.TempDir()
	work(t, c)()
}

// A storm over Kafka, the orders on two servers, while the broker is killed, and a
// second worker comes and goes: every order is settled, and the books agree all the time.
func TestStormOverKafka(t *testing.T) {
	k := servers.Kafka(t, 1)
	sql, other := servers.MariaDB(t), servers.MariaDB(t)
	c := overKafka(t, k, sql, "storm")
	c.Store += "?tables=2," + other.URL(servers.SQLDatabase) + "?tables=2"
	s := start(t, c)
	helper := c
	helper.Role, helper.Data, helper.Secrets, helper.Payment = "worker", t.TempDir(), c.SecretsPath(), "sandbox://127.0.0.1:1"
	stop := work(t, helper)
	fault := func(n int) (err error) {
		switch n {
		case 1:
			k.Brokers[0].Kill()
			err = errors.Join(k.Brokers[0].Restart(), k.Await())
		case 3:
			stop()
		case 5:
			stop = work(t, helper)
		}
		return err
	}
	audits := s.auditing()
	s.storm(storm.Options{Users: 800, Stock: 60, Duration: 14 * time.Second, Rate: 150, Seed: 5}, 700*time.Millisecond, fault)
	stop()
	t.Logf("%d audits while it went on", audits())
	s.inTime("all consumed", func() bool {
		m := s.metrics()
		return strings.Contains(m, "sluice_bus_unconsumed 0") && strings.Contains(m, "sluice_outbox_backlog 0")
	})
	row, err := sql.Query(t.Context(), `SELECT count(*) AS told, count(DISTINCT topic, body) AS events, sum(topic = 'order.paid') >= 60 AS enough,
		(SELECT count(*) FROM sluice.consumed) >= count(*) AS noted FROM sluice.notifications`)
	if err != nil || row["told"] != row["events"] || row["enough"] != "1" || row["noted"] != "1" {
		t.Errorf("notifications: %v, %v", row, err)
	}
}

// work runs a worker until it is told to stop.
func work(t *testing.T, c app.Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- app.Run(ctx, c, io.Discard, slog.New(slog.DiscardHandler), func(app.Addresses) { close(up) })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("worker: %v", err)
		}
	})
	select {
	case <-up:
	case err := <-ended:
		ended <- err
	}
	t.Cleanup(stop)
	return stop
}
