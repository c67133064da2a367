package fleet_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/test/fleet"
)

// A sale over two gateways: who buys at one is known at the other, sees there
// what becomes of it, and pays through the front.
func TestSale(t *testing.T) {
	s := open(t, fleet.Options{})
	one, other := "http://"+s.Gateways[0].Addr, "http://"+s.Gateways[1].Addr
	s.sell("cups", 3, `,"hold_seconds":600`)

	bought := s.buy(one, "cups", "ann", "k1", 2)
	if bought.status != 202 || bought.body["state"] != "pending" {
		t.Fatalf("ann: %s", bought)
	}
	events := s.follow(other, "ann", bought.body["reservation"])
	state := s.next(events)
	if state == "pending/created" { // unless it has landed already
		state = s.next(events)
	}
	if state != "held/created" {
		t.Errorf("after pending: %s", state)
	}
	again := s.buy(other, "cups", "ann", "k1", 2)
	if again.status != 202 || again.body["order"] != bought.body["order"] || again.body["reservation"] != bought.body["reservation"] {
		t.Errorf("the same key at another gateway: %s, first %s", again, bought)
	}
	if r := s.buy(other, "cups", "ann", "k1", 1); r.body["code"] != "idempotency_mismatch" {
		t.Errorf("the same key for something else: %s", r)
	}
	s.pay(s.URL(), "ann", bought.body["order"])
	if state := s.next(events); state != "confirmed/paid" {
		t.Errorf("after paying: %s", state)
	}
	if state := s.next(events); state != "end" {
		t.Errorf("after the end: %s", state)
	}
	if o := s.order(one, "ann", bought.body["order"]); o["state"] != "paid" {
		t.Errorf("ann's order: %v", o)
	}

	// The last unit, and then none: both gateways say so, and it is not sold out
	// while it is held.
	if r := s.buy(s.URL(), "cups", "bob", "k1", 1); r.status != 202 {
		t.Fatalf("bob: %s", r)
	}
	for _, at := range []string{one, other, s.URL()} {
		s.eventually("all held at "+at, func() bool { return s.buy(at, "cups", "cyn", "k1", 1).body["code"] == "all_held" })
	}
	counts := s.operate(200, "GET", "/v1/activities/cups", "")["counts"].(map[string]any)["items"].([]any)[0].(map[string]any)
	if counts["confirmed"] != 2.0 || counts["held"] != 1.0 || counts["free"] != 0.0 {
		t.Errorf("counts: %v", counts)
	}
	s.probes()
}

// probes: each process says of itself what its role has.
func (s *shop) probes() {
	s.Helper()
	for _, p := range s.Processes() {
		if r := s.call("GET", p.Ops+"/livez", "", ""); r.status != 200 {
			s.Errorf("%s /livez: %s", p.Name, r)
		}
		if r := s.call("GET", p.Ops+"/metrics", "", ""); r.status != 200 {
			s.Errorf("%s /metrics: %s", p.Name, r)
		}
		if r := s.call("GET", p.Ops+"/debug/pprof/", "", ""); r.status != 401 {
			s.Errorf("%s shows its profiles to anybody: %s", p.Name, r)
		}
	}
}

// Every process is restarted in turn, in order, while shoppers buy without
// pause: each purchase is answered in the end, each answer stays true, and
// exactly what was there is sold.
func TestRollingRestart(t *testing.T) {
	s := open(t, fleet.Options{Workers: 2})
	const units, shoppers = 150, 4
	s.sell("cups", units, `,"hold_seconds":600`)

	over := make(chan struct{})
	var mu sync.Mutex
	orders := map[string]string{} // user → order
	odd := map[string]int{}       // answers that are neither accepted nor refused
	var all sync.WaitGroup
	for n := range shoppers {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				user := fmt.Sprintf("u%d-%d", n, i)
				for {
					r := s.buy(s.URL(), "cups", user, "k", 1)
					if r.status == 202 {
						mu.Lock()
						orders[user] = r.body["order"].(string)
						mu.Unlock()
					}
					if r.status == 202 || r.body["code"] == "all_held" || r.body["code"] == "sold_out" {
						break
					}
					mu.Lock()
					odd[r.String()]++
					mu.Unlock()
					if code := r.body["code"]; code != "not_ready" && code != "unknown" {
						t.Errorf("%s was told %s", user, r)
						return
					}
				}
				tick := time.NewTimer(50 * time.Millisecond)
				<-tick.C
			}
		})
	}
	for _, p := range s.Processes() {
		began := time.Now()
		if err := p.Restart(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was back after %v", p.Name, time.Since(began).Round(time.Millisecond))
	}
	mu.Lock()
	sold := len(orders)
	mu.Unlock()
	t.Logf("%d sold while all were restarted; to be asked again: %v", sold, odd)
	s.eventually("all are sold", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(orders) == units
	})
	close(over)
	all.Wait()
	for user, id := range orders {
		s.eventually("the order of "+user, func() bool { return s.order(s.URL(), user, id)["state"] == "created" })
		if r := s.buy(s.URL(), "cups", user, "k", 1); r.body["order"] != id {
			t.Errorf("%s asks again: %s, had order %s", user, r, id)
		}
	}
	listed := s.operate(200, "GET", "/v1/orders?activity=cups&limit=500", "")["orders"].([]any)
	if len(listed) != units || len(orders) != units {
		t.Errorf("%d orders, %d receipts, %d units", len(listed), len(orders), units)
	}
}

// While the store does not answer, purchases go on: they are pending, and land
// when it does again.
func TestPurchaseAsksNoStore(t *testing.T) {
	s := open(t, fleet.Options{Buckets: 2})
	s.sell("cups", 40, `,"hold_seconds":600`)
	s.SQL.Pause()
	bought := map[string]reply{}
	for i := range 10 {
		user := fmt.Sprint("u", i)
		began := time.Now()
		r := s.buy("http://"+s.Gateways[i%2].Addr, "cups", user, "k", 1)
		if r.status != 202 || r.body["state"] != "pending" || time.Since(began) > time.Second {
			t.Errorf("%s: %s after %v", user, r, time.Since(began))
		}
		bought[user] = r
	}
	s.SQL.Resume()
	for user, r := range bought {
		s.eventually("the order of "+user, func() bool { return s.order(s.URL(), user, r.body["order"])["state"] == "created" })
		s.eventually("held by "+user, func() bool {
			return s.call("GET", s.URL()+"/v1/reservations/"+r.body["reservation"].(string), s.token(user), "").body["state"] == "held"
		})
	}
}
