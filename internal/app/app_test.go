package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/app"
	"sluice/internal/gate"
	"sluice/internal/proof"
	"sluice/storm"
	"sluice/web/shop/shoptest"
)

// fasthttp keeps a clock and a cleaner for the life of the process, and its
// worker pools and the storm's clients notice that they have stopped with their next tick.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*TCPDialer).tcpAddrsClean"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*Client).mCleaner"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// server is an engine running inside the test.
type server struct {
	t       testing.TB
	data    string
	shopper string // base URLs
	ops     string
	stop    func()
}

const opsToken = "test-token"

func config(data string) app.Config {
	c := app.Default()
	c.Data, c.Listen, c.Ops, c.Payment, c.OpsToken = data, "127.0.0.1:0", "127.0.0.1:0", "sandbox://127.0.0.1:0", opsToken
	return c
}

func start(t testing.TB, c app.Config) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan app.Addresses, 1)
	ended := make(chan error, 1)
	var log strings.Builder
	go func() {
		ended <- app.Run(ctx, c, io.Discard, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})), func(a app.Addresses) { up <- a })
	}()
	s := &server{t: t, data: c.Data}
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("stop: %v", err)
			}
			if t.Failed() && log.Len() > 0 {
				t.Logf("server log:\n%s", log.String())
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
	select {
	case a := <-up:
		s.shopper, s.ops = url(a.Shopper), url(a.Ops)
	case err := <-ended:
		cancel()
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(s.stop)
	return s
}

func url(a net.Addr) string { return "http://" + a.String() }

func (s *server) token(user string) string {
	s.t.Helper()
	key, err := gate.ReadKey(s.data)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := gate.Mint(key, user, time.Now(), time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// call sends a request and answers status, headers and the body as JSON.
func (s *server) call(method, url, token, body string, header ...string) (int, http.Header, map[string]any) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var v map[string]any
	if len(bytes.TrimSpace(text)) > 0 {
		_ = json.Unmarshal(text, &v)
	}
	return resp.StatusCode, resp.Header, v
}

// operate calls the ops API and expects a status.
func (s *server) operate(want int, method, path, body string) map[string]any {
	s.t.Helper()
	status, _, v := s.call(method, s.ops+path, opsToken, body)
	if status != want {
		s.t.Fatalf("%s %s: %d %v, want %d", method, path, status, v, want)
	}
	return v
}

// sell creates a SKU and an open activity of the same name.
func (s *server) sell(name string, units int, more string) {
	s.t.Helper()
	s.operate(201, "POST", "/v1/skus", fmt.Sprintf(`{"id":%q,"title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`, name))
	opens := time.Now().Add(-time.Second).UTC().Format("2006-01-02T15:04:05.000Z")
	s.operate(201, "POST", "/v1/activities", fmt.Sprintf(
		`{"id":%q,"kind":"flash","title":"Cups","opens_at":%q,"items":[{"sku":%q,"units":%d,"per_user":2,"per_order":2}]%s}`, name, opens, name, units, more))
	s.operate(200, "POST", "/v1/activities/"+name+"/open", "")
}

func (s *server) buy(activity, user, key string, quantity int) (int, http.Header, map[string]any) {
	s.t.Helper()
	return s.call("POST", s.shopper+"/v1/activities/"+activity+"/purchases", s.token(user),
		fmt.Sprintf(`{"sku":%q,"quantity":%d}`, activity, quantity), "Idempotency-Key", key)
}

// eventually asks until the answer is right or five seconds have passed.
func (s *server) eventually(what string, right func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(5 * time.Second)
	for !right() {
		select {
		case <-tick.C:
		case <-timeout:
			s.t.Fatalf("never: %s", what)
		}
	}
}

func (s *server) order(user string, id any) map[string]any {
	s.t.Helper()
	status, _, v := s.call("GET", s.shopper+"/v1/orders/"+id.(string), s.token(user), "")
	if status != 200 {
		s.t.Fatalf("order %v: %d %v", id, status, v)
	}
	return v
}

func (s *server) proved(activity string) map[string]any {
	s.t.Helper()
	v := s.operate(200, "GET", "/v1/activities/"+activity+"/proof", "")
	if v["ok"] != true {
		s.t.Errorf("proof of %s: %v", activity, v["violations"])
	}
	return v
}

// One purchase from click to confirmation, as a shop would do it.
func TestPurchase(t *testing.T) {
	s := start(t, config(t.TempDir()))
	s.sell("cup", 1, `,"hold_seconds":60`)
	status, header, receipt := s.buy("cup", "ann", "k1", 1)
	if status != 202 || receipt["state"] != "held" || header.Get("Location") != "/v1/reservations/"+receipt["reservation"].(string) {
		t.Fatalf("%d %v %v", status, header, receipt)
	}
	// The order is never a 404 to its owner, landed or not; it is to others.
	s.order("ann", receipt["order"])
	if status, _, v := s.call("GET", s.shopper+"/v1/orders/"+receipt["order"].(string), s.token("bob"), ""); status != 404 || v["code"] != "no_such_order" {
		t.Errorf("somebody else's order: %d %v", status, v)
	}
	if status, _, v := s.buy("cup", "bob", "k1", 1); status != 409 || v["code"] != "all_held" {
		t.Errorf("second buyer: %d %v", status, v)
	}
	pay := s.pay("ann", receipt["order"].(string), "pay")
	if pay != 200 {
		t.Fatalf("payment: %d", pay)
	}
	s.eventually("paid", func() bool { return s.order("ann", receipt["order"])["state"] == "paid" })
	s.eventually("confirmed in the ledger", func() bool {
		_, _, v := s.buy("cup", "ann", "k1", 1)
		return v["state"] == "confirmed"
	})
	// The same key is the same answer, though the sale is sold out for everybody else.
	status, _, again := s.buy("cup", "ann", "k1", 1)
	if status != 202 || again["reservation"] != receipt["reservation"] || again["order"] != receipt["order"] || again["expires_at"] != receipt["expires_at"] {
		t.Errorf("replay: %d %v, first %v", status, again, receipt)
	}
	s.eventually("told on the site", func() bool {
		status, _, v := s.call("GET", s.shopper+"/v1/notifications?limit=5", s.token("ann"), "")
		list, _ := v["notifications"].([]any)
		return status == 200 && len(list) == 1 && list[0].(map[string]any)["topic"] == "order.paid"
	})
	s.eventually("sold out", func() bool {
		status, _, v := s.buy("cup", "bob", "k1", 1)
		return status == 409 && v["code"] == "sold_out"
	})
	s.proved("cup")
	s.operate(200, "POST", "/v1/orders/"+receipt["order"].(string)+"/refund", `{"reason":"changed my mind"}`)
	s.eventually("refunded", func() bool { return s.order("ann", receipt["order"])["state"] == "refunded" })
	s.proved("cup")
}

// pay starts a payment and presses a button of the sandbox's page.
func (s *server) pay(user, order, action string) int {
	s.t.Helper()
	status, _, v := s.call("POST", s.shopper+"/v1/orders/"+order+"/payments", s.token(user), "")
	if status != 201 {
		s.t.Fatalf("start payment: %d %v", status, v)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", v["pay_url"].(string), strings.NewReader("action="+action))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// A provider that never calls back is polled; an unpaid order closes by
// itself and its unit is sold again; what a shopper cancels is free at once.
func TestUnpaidUnitsComeBack(t *testing.T) {
	s := start(t, config(t.TempDir()))
	s.sell("cup", 1, `,"hold_seconds":1`)
	_, _, first := s.buy("cup", "ann", "k1", 1)
	s.eventually("the unit is free again", func() bool {
		status, _, _ := s.buy("cup", "bob", "k1", 1)
		return status == 202
	})
	if o := s.order("ann", first["order"]); o["state"] != "cancelled" || o["reason"] != "timeout" {
		t.Errorf("ann's order: %v", o)
	}
	_, _, second := s.buy("cup", "bob", "k1", 1)
	if second["order"] == first["order"] {
		t.Error("two users share an order")
	}
	if status, _, v := s.call("POST", s.shopper+"/v1/orders/"+second["order"].(string)+"/cancel", s.token("bob"), ""); status != 200 {
		t.Fatalf("cancel: %d %v", status, v)
	}
	s.eventually("the cancelled unit is free", func() bool {
		status, _, v := s.buy("cup", "cy", "k1", 1)
		if status == 202 {
			s.pay("cy", v["order"].(string), "never_call_back")
		}
		return status == 202
	})
	_, _, third := s.buy("cup", "cy", "k1", 1)
	s.eventually("a silent capture is found by asking", func() bool { return s.order("cy", third["order"])["state"] == "paid" })
	s.proved("cup")
}

// Shoppers keep what they were promised across a stop and a start.
func TestRestart(t *testing.T) {
	data := t.TempDir()
	s := start(t, config(data))
	s.sell("cup", 10, "")
	_, _, receipt := s.buy("cup", "ann", "k1", 2)
	s.stop()
	s = start(t, config(data))
	status, _, again := s.buy("cup", "ann", "k1", 2)
	if status != 202 || again["reservation"] != receipt["reservation"] || again["order"] != receipt["order"] {
		t.Errorf("after a restart: %d %v, first %v", status, again, receipt)
	}
	s.eventually("proof", func() bool {
		v := s.proved("cup")
		return v["orders"].(map[string]any)["created"] == 1.0
	})
	if _, err := app.Lock(data); err == nil {
		t.Error("the data directory is not locked while a server runs")
	}
}

// Live edits are deltas: stock comes and goes, a pause holds, limits change.
func TestLiveEdits(t *testing.T) {
	s := start(t, config(t.TempDir()))
	s.sell("cup", 1, "")
	s.buy("cup", "ann", "k1", 1)
	v := s.operate(409, "POST", "/v1/activities/cup/stock", `{"id":"d1","sku":"cup","delta":-1,"reason":"broken"}`)
	if v["code"] != "insufficient" || v["available"] != 0.0 {
		t.Errorf("taking what is held: %v", v)
	}
	for range 2 { // the same id twice is once
		s.operate(200, "POST", "/v1/activities/cup/stock", `{"id":"d2","sku":"cup","delta":2,"reason":"found"}`)
	}
	if v := s.proved("cup"); v["ledger"].([]any)[0].(map[string]any)["allocated"] != 3.0 {
		t.Errorf("after two deltas of one id: %v", v["ledger"])
	}
	s.operate(200, "POST", "/v1/activities/cup/pause", "")
	if status, h, v := s.buy("cup", "bob", "k1", 1); status != 503 || v["code"] != "paused" || h.Get("Retry-After") == "" {
		t.Errorf("paused: %d %v", status, v)
	}
	s.operate(200, "POST", "/v1/activities/cup/resume", "")
	s.operate(200, "PATCH", "/v1/activities/cup", `{"items":[{"sku":"cup","per_order":1}]}`)
	if status, _, v := s.buy("cup", "bob", "k1", 2); status != 409 || v["code"] != "limit_reached" {
		t.Errorf("over the new limit: %d %v", status, v)
	}
	if status, _, v := s.buy("cup", "bob", "k1", 1); status != 202 {
		t.Errorf("within it: %d %v", status, v)
	}
	s.operate(200, "POST", "/v1/activities/cup/drain", "")
	if status, _, v := s.buy("cup", "cy", "k1", 1); status != 409 || v["code"] != "ended" {
		t.Errorf("drained: %d %v", status, v)
	}
	s.operate(409, "POST", "/v1/activities/cup/resume", "")
	s.proved("cup")
}

// A storm with every kind of user finds nothing to complain of.
func TestStorm(t *testing.T) {
	s := start(t, config(t.TempDir()))
	audits := s.auditing()
	s.storm(storm.Options{Users: 2000, Stock: 50, Duration: 4 * time.Second, Rate: 1500, Seed: 1}, 0, nil)
	n := audits()
	t.Logf("%d audits while it went on", n)
	if n < 10 {
		t.Errorf("only %d audits while it went on", n)
	}
}

// auditing takes the proof of every activity again and again until it is told
// to stop, and then answers how often. Every violation is a false alarm.
func (s *server) auditing() (stop func() int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ask := func(path string, into any) bool {
		r, err := http.NewRequestWithContext(ctx, "GET", s.ops+path, nil)
		if err != nil {
			return false
		}
		r.Header.Set("Authorization", "Bearer "+opsToken)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(into) == nil && resp.StatusCode == 200
	}
	ended := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			var list struct{ Activities []struct{ ID string } }
			ask("/v1/activities", &list)
			for _, a := range list.Activities {
				var r proof.Report
				if !ask("/v1/activities/"+a.ID+"/proof", &r) {
					continue // not opened yet
				}
				if n++; !r.OK {
					s.t.Errorf("audit %d, at %d: %v", n, r.Position.Position, r.Violations)
				}
			}
		}
		ended <- n
	}()
	return func() int { cancel(); return <-ended }
}

// A shopper clicks through the demo in a real browser.
func TestBrowser(t *testing.T) {
	c := config(t.TempDir())
	c.Demo = true
	s := start(t, c)
	shoptest.BuyAndPay(t, s.shopper, os.Getenv("SLUICE_SHOTS"))
}
