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
	over := make(chan struct{})
	var faults sync.WaitGroup
	faults.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-over:
				return
			case <-time.After(600 * time.Millisecond):
			}
			if n%3 == 0 {
				d.Kill()
				if err := d.Restart(); err != nil {
					t.Error(err)
				}
			} else if err := d.Exec(t.Context(), "KILL USER "+servers.SQLUser); err != nil {
				t.Error(err)
			}
		}
	})
	report, err := storm.Run(t.Context(), storm.Options{
		Target: s.shopper, Ops: s.ops, OpsToken: opsToken, Data: s.data, Users: 1000, Stock: 50, Duration: 4 * time.Second,
		Rate: 500, Connections: 32, Hold: 1, Pay: 60, Abandon: 20, Cancel: 20, DoubleClick: 5, Replay: 50, Greedy: 20, Forge: 2, Lose: 5, Misbehave: 20, Seed: 1,
	}, io.Discard)
	close(over)
	faults.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !report.Proof.OK || report.Sold != 50 {
		text, _ := json.MarshalIndent(report, "", "  ")
		t.Errorf("%s", text)
	}
}
