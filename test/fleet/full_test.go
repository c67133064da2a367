package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/id"
	"sluice/test/fleet"
)

// A sale with orders in two databases, leases in etcd and events over Kafka:
// shoppers of both shards buy and pay, and what follows from that comes by the bus.
func TestFullFleet(t *testing.T) {
	s := open(t, fleet.Options{Shards: 2, Etcd: 1, Kafka: 1})
	s.sell("cups", 10, `,"hold_seconds":600`)
	users := []string{userOf(0), userOf(1)}
	orders := map[string]any{}
	for _, user := range users {
		r := s.buy(s.URL(), "cups", user, "k1", 2)
		if r.status != 202 {
			t.Fatalf("%s: %s", user, r)
		}
		orders[user] = r.body["order"]
		s.eventually("the order of "+user, func() bool { return s.order(s.URL(), user, r.body["order"])["state"] == "created" })
	}
	// One pays, the other thinks better of it: what was sold and what is free again
	// is for the ledger to hear.
	s.pay(s.URL(), users[0], orders[users[0]])
	if r := s.call("POST", s.URL()+"/v1/orders/"+orders[users[1]].(string)+"/cancel", s.token(users[1]), "{}"); r.status != 200 {
		t.Fatalf("cancel: %s", r)
	}
	within(s, time.Minute, "counts", func() bool {
		c := s.operate(200, "GET", "/v1/activities/cups", "")["counts"].(map[string]any)["items"].([]any)[0].(map[string]any)
		return c["confirmed"] == 2.0 && c["held"] == 0.0 && c["free"] == 8.0
	})
	for i, user := range users {
		topic := []string{"order.paid", "order.cancelled"}[i]
		within(s, time.Minute, "the notification of "+topic, func() bool {
			return strings.Contains(s.call("GET", s.URL()+"/v1/notifications", s.token(user), "").text, topic)
		})
	}
	s.landedIn(2)
	s.carried()
	s.probes()
}

// userOf is a user whose orders are in a shard of two.
func userOf(shard int) string {
	for n := 0; ; n++ {
		if user := fmt.Sprint("u", n); int(id.GeneOf(user))*2/id.Genes == shard {
			return user
		}
	}
}

// within is eventually for what comes by way of several servers.
func within(s *shop, limit time.Duration, what string, right func() bool) {
	s.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !right(); <-tick.C {
		if time.Since(began) > limit {
			s.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// landedIn: each database has one of the orders, and no lease by which anybody works.
func (s *shop) landedIn(shards int) {
	s.Helper()
	if len(s.Shards) != shards {
		s.Fatalf("%d shards", len(s.Shards))
	}
	for i, shard := range s.Shards {
		row, err := shard.SQL.Query(s.Context(), "SELECT (SELECT count(*) FROM sluice.orders) AS orders, (SELECT count(*) FROM sluice.leases WHERE name LIKE 'task/%') AS leases")
		if err != nil || row["orders"] != "1" || row["leases"] != "0" {
			s.Errorf("shard %d: %v, %v", i, row, err)
		}
	}
}

// carried: the topic has what became of the orders, and the workers have read it.
func (s *shop) carried() {
	s.Helper()
	ends, err := s.Kafka.Ends(s.Context(), "sluice.events")
	sent := int64(0)
	for _, end := range ends {
		sent += end
	}
	if err != nil || sent < 2 {
		s.Errorf("the topic has %d events, %v", sent, err)
	}
	within(s, 20*time.Second, "the group has read all of it", func() bool {
		at, err := s.Kafka.Committed(s.Context(), "sluice", "sluice.events")
		n := int64(0)
		for _, offset := range at {
			n += offset
		}
		return err == nil && n >= sent
	})
}
