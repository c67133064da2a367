package app_test

import (
	"encoding/json"
	"io"
	"sync"
	"testing"
	"time"

	"sluice/storm"
	"sluice/test/servers"
)

// The whole engine with its orders on a MariaDB that is killed in the middle:
// purchases go on, since they wait for no row; what was sold meanwhile lands
// when the server is back, and the books agree.
func TestOrdersOnAServer(t *testing.T) {
	d := servers.MariaDB(t)
	c := config(t.TempDir())
	c.Store = d.URL(servers.SQLDatabase)
	s := start(t, c)
	s.sell("cup", 40, "")
	buy := func(user string) map[string]any {
		t.Helper()
		status, _, receipt := s.buy("cup", user, "k", 1)
		if status != 202 {
			t.Fatalf("%s: %d %v", user, status, receipt)
		}
		return receipt
	}
	created := func(n float64) {
		t.Helper()
		s.eventually("landing", func() bool { return s.proved("cup")["orders"].(map[string]any)["created"] == n })
	}
	ann := buy("ann")
	created(1)
	d.Kill()
	buy("bob")
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	buy("cyn")
	created(3)

	s.stop()
	s = start(t, c)
	if again := buy("ann"); again["order"] != ann["order"] {
		t.Errorf("after a restart: %v, first %v", again, ann)
	}
	created(3)
}

// A storm while every connection to the store is killed, and now and then the
// whole server: no shopper is told anything wrong, and the books agree.
func TestStormOnAServer(t *testing.T) {
	d := servers.MariaDB(t)
	c := config(t.TempDir())
	c.Store = d.URL(servers.SQLDatabase)
	s := start(t, c)
	s.storm(storm.Options{Users: 1000, Stock: 50, Duration: 4 * time.Second, Rate: 500, Seed: 1}, 600*time.Millisecond, func(n int) error {
		if n%3 != 2 {
			return d.Exec(t.Context(), "KILL USER "+servers.SQLUser)
		}
		d.Kill()
		return d.Restart()
	})
}

// storm lets every kind of user come at once, and finds nothing to complain of.
// Meanwhile fault happens again and again, counted from 0; it may be nil.
func (s *server) storm(o storm.Options, every time.Duration, fault func(n int) error) {
	s.t.Helper()
	o.Target, o.Ops, o.OpsToken, o.Data = s.shopper, s.ops, opsToken, s.data
	o.Connections, o.Hold, o.Pay, o.Abandon, o.Cancel = 32, 1, 60, 20, 20
	o.DoubleClick, o.Replay, o.Greedy, o.Forge, o.Lose, o.Misbehave = 5, 50, 20, 2, 5, 20
	over := make(chan struct{})
	var faults sync.WaitGroup
	faults.Go(func() {
		for n := 0; fault != nil; n++ {
			select {
			case <-over:
				return
			case <-time.After(every):
			}
			if err := fault(n); err != nil {
				s.t.Error(err)
			}
		}
	})
	report, err := storm.Run(s.t.Context(), o, io.Discard)
	close(over)
	faults.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	if !report.Proof.OK || report.Sold != o.Stock {
		text, _ := json.MarshalIndent(report, "", "  ")
		s.t.Errorf("%s", text)
	}
}
