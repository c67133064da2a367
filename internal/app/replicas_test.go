package app_test

import (
	"strings"
	"testing"

	"sluice/test/servers"
)

// The primary of the store is killed: shoppers and operators go on looking at
// orders. Its replica is promoted: orders land there, with the same address.
func TestOrdersAreShownWithoutPrimary(t *testing.T) {
	p := servers.MariaDBPair(t)
	c := config(t.TempDir())
	c.Store = p.Primary.URL(servers.SQLDatabase) + "?replica=" + p.Replica.Addr
	s := start(t, c)
	s.sell("cup", 40, "")
	token := s.token("ann")
	buy := func(user string) string {
		t.Helper()
		status, _, receipt := s.buy("cup", user, "k", 1)
		if status != 202 {
			t.Fatalf("%s: %d %v", user, status, receipt)
		}
		return receipt["order"].(string)
	}
	created := func(n float64) bool {
		status, _, v := s.call("GET", s.ops+"/v1/activities/cup/proof", opsToken, "") // 503 while there is no primary
		orders, _ := v["orders"].(map[string]any)
		return status == 200 && v["ok"] == true && orders["created"] == n
	}
	order := buy("ann")
	s.inTime("landing", func() bool { return created(1) })
	if err := p.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.inTime("a replica is read", func() bool {
		return strings.Contains(s.metrics(), `sluice_replica_read{database="1",host="`+p.Replica.Addr+`"} 1`)
	})
	p.Primary.Kill()
	f := func(base, token, path string, want int) {
		t.Helper()
		if status, _, body := s.call("GET", base+path, token, ""); status != want {
			t.Errorf("GET %s: %d %v", path, status, body)
		}
	}
	f(s.shopper, token, "/v1/orders/"+order, 200)
	f(s.shopper, token, "/v1/orders", 200)
	f(s.shopper, token, "/v1/notifications", 200)
	f(s.ops, opsToken, "/v1/orders/"+order, 200)
	f(s.ops, opsToken, "/v1/orders?state=created", 200)
	buy("bob") // needs no store
	if err := p.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.inTime("landing on the new primary", func() bool { return created(2) })
	f(s.shopper, token, "/v1/orders/"+order, 200)
}
