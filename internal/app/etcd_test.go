package app_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/lib/cluster"
	"sluice/test/servers"
)

// A process whose leases are an etcd's sells, is on the list of members while it
// serves, and goes on after etcd was away.
func TestLeasesInEtcd(t *testing.T) {
	etcd := servers.Etcd(t)
	c := shared(t, servers.Redis(t), servers.MariaDB(t))
	c.Lease = fmt.Sprintf("etcd://%s/shop", etcd.Addr)
	e, err := etcdlease.Open(t.Context(), c.Lease, etcdlease.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	members := func() []cluster.Member {
		t.Helper()
		list, err := e.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	s := start(t, c)
	s.sell("cup", 10, `,"hold_seconds":60`)
	buy := func(user string) map[string]any {
		t.Helper()
		status, _, receipt := s.buy("cup", user, "k1", 1)
		if status != 202 {
			t.Fatalf("buy: %d %v", status, receipt)
		}
		return receipt
	}
	held := func(user string, receipt map[string]any) {
		t.Helper()
		s.inTime("held", func() bool {
			_, _, r := s.call("GET", s.shopper+"/v1/reservations/"+receipt["reservation"].(string), s.token(user), "")
			return r["state"] == "held"
		})
	}
	held("ann", buy("ann"))
	s.inTime("listed, and well", func() bool { list := members(); return len(list) == 1 && list[0].Ailing == "" })
	if m := members()[0]; m.Role != "all" || "http://"+m.Addresses["shopper"] != s.shopper {
		t.Errorf("%+v", m)
	}

	// Purchases do not ask for leases. What is accepted without etcd lands, at the
	// latest when it is back.
	etcd.Kill()
	bob := buy("bob")
	if err := etcd.Restart(); err != nil {
		t.Fatal(err)
	}
	held("bob", bob)
	held("cyn", buy("cyn"))

	s.stop()
	if left := members(); len(left) != 0 {
		t.Errorf("after a stop: %+v", left)
	}
}

// inTime is eventually for what comes after leases have run out, on a machine
// that is busy with etcd's beats and everything else.
func (s *server) inTime(what string, right func() bool) {
	s.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !right() {
		if <-tick.C; time.Since(began) > 30*time.Second {
			s.t.Fatalf("not within 30 s: %s", what)
		}
	}
	s.t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
}
