package app_test

import (
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
			s := prepare(t)
			s.storm(storm.Options{Users: 800, Stock: 60, Duration: 5 * time.Second, Rate: 300, Seed: 3}, 900*time.Millisecond, func(n int) error {
				d := dbs[n%len(dbs)]
				d.Kill()
				return d.Restart()
			})
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
