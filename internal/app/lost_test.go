package app_test

import (
	"testing"
	"time"

	"sluice/test/servers"
)

// A receipt says pending, and then everything is lost that knew of it: the
// ledger's engine, before the store could be told, and the process that gave the
// receipt. Its order is not a 404 to its owner for a moment, and refused in the end.
func TestLostOrderIsRefused(t *testing.T) {
	redis, sql := servers.Redis(t), servers.MariaDB(t)
	c := shared(t, redis, sql)
	s := start(t, c)
	s.sell("cup", 10, `,"hold_seconds":600`)
	_, _, kept := s.buy("cup", "ann", "k", 1)
	s.eventually("ann's is held", func() bool {
		_, _, again := s.buy("cup", "ann", "k", 1)
		return again["state"] == "held"
	})

	sql.Kill()
	status, _, lost := s.buy("cup", "bob", "k", 1)
	if status != 202 || lost["state"] != "pending" {
		t.Fatalf("bob: %d %v", status, lost)
	}
	redis.Kill()
	if err := redis.RestartEmpty(); err != nil {
		t.Fatal(err)
	}
	if err := sql.Restart(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s = start(t, c)

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for refused := false; !refused; {
		status, _, v := s.call("GET", s.shopper+"/v1/orders/"+lost["order"].(string), s.token("bob"), "")
		refused = status == 200 && v["state"] == "refused" && v["reason"] == "lost" && v["total"] == nil
		if !refused && status != 503 {
			t.Fatalf("bob's order: %d %v", status, v)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("bob's order is never refused")
		}
	}
	_, _, r := s.call("GET", s.shopper+"/v1/reservations/"+lost["reservation"].(string), s.token("bob"), "")
	if r["state"] != "refused" {
		t.Errorf("bob's reservation: %v", r)
	}
	if status, _, v := s.call("POST", s.shopper+"/v1/orders/"+lost["order"].(string)+"/cancel", s.token("bob"), ""); status != 409 || v["code"] != "order_state" {
		t.Errorf("bob cancels: %d %v", status, v)
	}
	for _, theirs := range []any{lost["order"], kept["order"]} {
		if status, _, v := s.call("GET", s.shopper+"/v1/orders/"+theirs.(string), s.token("eve"), ""); status != 404 {
			t.Errorf("eve reads %v: %d %v", theirs, status, v)
		}
	}
	if is := s.order("ann", kept["order"])["state"]; is != "created" {
		t.Errorf("ann's order is %v", is)
	}
	s.eventually("bob buys", func() bool {
		status, _, v := s.buy("cup", "bob", "k", 1)
		return status == 202 && v["order"] != lost["order"]
	})
}
