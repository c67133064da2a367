package app_test

import (
	"fmt"
	"testing"

	"sluice/internal/app"
	"sluice/test/servers"
)

// shared is a configuration of a process that others may join: its ledger is on
// a Redis, its orders are on a MariaDB.
func shared(t *testing.T, redis *servers.Server, sql *servers.Database) app.Config {
	t.Helper()
	c := config(t.TempDir())
	c.Stock, c.Store = fmt.Sprintf("redis://%s?buckets=3", redis.Addr), sql.URL(servers.SQLDatabase)
	return c
}

// One process does everything on a Redis and a MariaDB: from pending to held, to
// paid, and over a restart.
func TestPurchaseOnServers(t *testing.T) {
	s := start(t, shared(t, servers.Redis(t), servers.MariaDB(t)))
	s.sell("cup", 10, `,"hold_seconds":60`)
	status, _, receipt := s.buy("cup", "ann", "k1", 1)
	if status != 202 || receipt["state"] != "pending" {
		t.Fatalf("buy: %d %v", status, receipt)
	}
	s.eventually("held", func() bool {
		_, _, r := s.call("GET", s.shopper+"/v1/reservations/"+receipt["reservation"].(string), s.token("ann"), "")
		return r["state"] == "held"
	})
	if status := s.pay("ann", receipt["order"].(string), "pay"); status != 200 {
		t.Fatalf("pay: %d", status)
	}
	s.eventually("paid", func() bool { return s.order("ann", receipt["order"])["state"] == "paid" })
}
