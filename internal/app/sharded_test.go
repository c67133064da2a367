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

// A storm with the orders over two servers, each in two tables, while now one of
// them and now the other is killed: what was decided in one reaches the other,
// and the books agree.
func TestStormOverShards(t *testing.T) {
	dbs := []*servers.Database{servers.MariaDB(t), servers.MariaDB(t)}
	f := func(name string, prepare func(t *testing.T) *server) {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			s := prepare(t)
			var faults sync.WaitGroup
			faults.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					case <-time.After(900 * time.Millisecond):
					}
					d := dbs[n%len(dbs)]
					d.Kill()
					if err := d.Restart(); err != nil {
						t.Error(err)
					}
				}
			})
			report, err := storm.Run(t.Context(), storm.Options{
				Target: s.shopper, Ops: s.ops, OpsToken: opsToken, Data: s.data, Users: 800, Stock: 60, Duration: 5 * time.Second,
				Rate: 300, Connections: 32, Hold: 1, Pay: 60, Abandon: 20, Cancel: 20, DoubleClick: 5, Replay: 50, Greedy: 20, Lose: 5, Seed: 3,
			}, io.Discard)
			close(over)
			faults.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if !report.Proof.OK || report.Sold != 60 {
				text, _ := json.MarshalIndent(report, "", "  ")
				t.Errorf("%s", text)
			}
			for i, d := range dbs {
				row, err := d.Query(t.Context(), "SELECT (SELECT count(*) FROM sluice.orders) * (SELECT count(*) FROM sluice.orders_0001) AS both_tables")
				if err != nil || row["both_tables"] == "0" {
					t.Errorf("server %d has a table without orders: %v, %v", i, row, err)
				}
			}
		})
	}
	store := dbs[0].URL(servers.SQLDatabase) + "?tables=2," + dbs[1].URL(servers.SQLDatabase) + "?tables=2"
	f("ledger of its own", func(t *testing.T) *server {
		c := config(t.TempDir())
		c.Store = store
		return start(t, c)
	})
	f("ledger on redis", func(t *testing.T) *server {
		for _, d := range dbs {
			if err := d.Create(t.Context(), servers.SQLDatabase); err != nil {
				t.Fatal(err)
			}
		}
		c := shared(t, servers.Redis(t), dbs[0])
		c.Store = store
		return start(t, c)
	})
}
