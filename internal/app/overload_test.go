package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/lib/call"
	"sluice/internal/lib/run"
	"sluice/internal/order"
)

// stage stands before the sandbox provider and makes it slow or dead.
type stage struct {
	provider http.Handler
	dead     atomic.Bool
	slow     atomic.Pointer[chan struct{}] // closed when the provider is to go on
	calls    atomic.Int64
	arrived  chan struct{} // one for each call that hangs
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	if s.dead.Load() {
		panic(http.ErrAbortHandler) // the connection ends without an answer
	}
	if until := s.slow.Load(); until != nil {
		s.arrived <- struct{}{}
		<-*until
	}
	s.provider.ServeHTTP(w, r)
}

// running is an engine that serves, inside the test.
type running struct {
	t        testing.TB
	engine   *engine
	key      []byte
	url, ops string
	provider *stage
	log      *lines
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(of string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), of)
}

// openShop serves everything but the storefront's pages; change may replace
// parts before anything runs.
func openShop(t testing.TB, pay call.Options, change func(*engine)) *running {
	t.Helper()
	s := &running{t: t, provider: &stage{arrived: make(chan struct{}, 256)}, log: &lines{}}
	c := Default()
	c.Data, c.OpsToken = t.TempDir(), "token"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	pays := httptest.NewUnstartedServer(s.provider)
	log := slog.New(slog.NewTextHandler(s.log, nil))
	d, err := openDoors(t.Context(), c, log)
	s.must(err)
	s.engine, err = newEngineCalling(pay, c, d, Addresses{Shopper: listener.Addr(), Pay: pays.Listener.Addr()}, log)
	s.must(err)
	if change != nil {
		change(s.engine)
	}
	s.provider.provider = s.engine.sandbox.Handler()
	pays.Start()
	gateway, err := s.engine.gateway(c)
	s.must(err)
	ops := httptest.NewServer(s.engine.operations(c, gateway))
	s.url, s.ops = "http://"+listener.Addr().String(), ops.URL
	s.key, err = gate.ReadKey(c.Data)
	s.must(err)

	g := &run.Group{Log: quiet}
	for _, task := range append(s.engine.tasks(), gateway.Tasks()...) {
		g.Task(log, task, workerDeadline)
	}
	g.Add("activities", func(ctx context.Context) error { return s.engine.show(ctx, c) }, nil, workerDeadline)
	g.Go("shopper API", func(ctx context.Context) error { return untilTold(ctx, gateway.Serve(listener)) }, listenerDeadline)
	up := make(chan struct{})
	g.Add("draining", func(context.Context) error { close(up); return nil }, gateway.Shutdown, listenerDeadline)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	<-up
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ops.Close()
		stop()
		s.must(<-ended)
		pays.Close()
		s.must(s.engine.close())
	})
	return s
}

func (s *running) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a request and answers status and body.
func (s *running) ask(method, url, token, body string) (int, map[string]any) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Idempotency-Key", "k")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Error(err)
	}
	var v map[string]any
	_ = json.Unmarshal(text, &v)
	return resp.StatusCode, v
}

func (s *running) operate(method, path, body string) map[string]any {
	s.t.Helper()
	status, v := s.ask(method, s.ops+path, "token", body)
	if status/100 != 2 {
		s.t.Fatalf("%s %s: %d %v", method, path, status, v)
	}
	return v
}

func (s *running) shopper(user, method, path, body string) (int, map[string]any) {
	token, err := gate.Mint(s.key, user, time.Now(), time.Hour)
	if err != nil {
		s.t.Error(err)
	}
	return s.ask(method, s.url+path, token, body)
}

func (s *running) sell(activity string, hold int) {
	s.t.Helper()
	s.operate("POST", "/v1/skus", fmt.Sprintf(`{"id":%q,"title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`, activity))
	opens := time.Now().Add(-time.Second).UTC().Format(time.RFC3339Nano)
	s.operate("POST", "/v1/activities", fmt.Sprintf(
		`{"id":%q,"kind":"flash","title":"Cups","opens_at":%q,"hold_seconds":%d,"items":[{"sku":%q,"units":1000000}]}`, activity, opens, hold, activity))
	s.operate("POST", "/v1/activities/"+activity+"/open", "")
}

// buy answers the order.
func (s *running) buy(activity, user string) string {
	s.t.Helper()
	status, receipt := s.shopper(user, "POST", "/v1/activities/"+activity+"/purchases", fmt.Sprintf(`{"sku":%q,"quantity":1}`, activity))
	if status != 202 {
		s.t.Fatalf("%s buys: %d %v", user, status, receipt)
	}
	return receipt["order"].(string)
}

func (s *running) pay(user, order string) (status int, code any) {
	status, v := s.shopper(user, "POST", "/v1/orders/"+order+"/payments", "")
	return status, v["code"]
}

func (s *running) state(user, order string) any {
	s.t.Helper()
	status, v := s.shopper(user, "GET", "/v1/orders/"+order, "")
	if status != 200 {
		s.t.Fatalf("order %s: %d %v", order, status, v)
	}
	return v["state"]
}

// measures reads the metrics and looks for lines.
func (s *running) measures(lines ...string) {
	s.t.Helper()
	resp, err := http.Get(s.ops + "/metrics")
	s.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	for _, line := range lines {
		if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
			s.t.Errorf("metrics lack %s", line)
		}
	}
}

// eventually asks until the answer is right or ten seconds have passed.
func (s *running) eventually(what string, right func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	over := time.After(10 * time.Second)
	for !right() {
		select {
		case <-tick.C:
		case <-over:
			s.t.Fatalf("never: %s", what)
		}
	}
}

func (s *running) circuit() any {
	s.t.Helper()
	list := s.operate("GET", "/v1/dependencies", "")["dependencies"].([]any)
	return list[0].(map[string]any)["state"]
}

// patient is the breaker's own clock, so that a test need not wait for it.
func patient() (o call.Options, pass func(time.Duration)) {
	var ahead atomic.Int64
	o = paymentOptions()
	o.Breaker.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	o.Retry.Backoff = time.Millisecond
	return o, func(d time.Duration) { ahead.Add(int64(d)) }
}

// TestSlowProvider: shoppers who hang at the provider take up their own places
// and nobody else's; one more is told at once to come again.
func TestSlowProvider(t *testing.T) {
	o, _ := patient()
	s := openShop(t, o, nil)
	s.sell("cup", 600)
	const places = 64
	orders := make([]string, places+1)
	for i := range orders {
		orders[i] = s.buy("cup", fmt.Sprint("user", i))
	}
	goOn := make(chan struct{})
	s.provider.slow.Store(&goOn)
	var hanging sync.WaitGroup
	for i := range places {
		hanging.Go(func() {
			if status, code := s.pay(fmt.Sprint("user", i), orders[i]); status != 201 {
				t.Errorf("a payment that took long: %d %v", status, code)
			}
		})
	}
	for range places {
		<-s.provider.arrived
	}
	// All of this is answered while every call to the provider hangs.
	if status, code := s.pay(fmt.Sprint("user", places), orders[places]); status != 503 || code != "overloaded" {
		t.Errorf("one payment more: %d %v", status, code)
	}
	if state := s.state("user1", orders[1]); state != "created" {
		t.Errorf("its order is %v", state)
	}
	s.buy("cup", "somebody")
	if state := s.circuit(); state != "closed" {
		t.Errorf("circuit is %v", state)
	}
	s.provider.slow.Store(nil)
	close(goOn)
	hanging.Wait()
}

// TestDeadProvider: after a few failures paying is refused at once and nobody
// calls; an order stays open while its provider cannot be asked; trials find out
// that it is back.
func TestDeadProvider(t *testing.T) {
	o, pass := patient()
	s := openShop(t, o, nil)
	s.sell("cup", 600)
	s.sell("brief", 1)
	brief := s.buy("brief", "ann")
	if status, code := s.pay("ann", brief); status != 201 {
		t.Fatalf("pay: %d %v", status, code)
	}
	orders := make([]string, 20)
	for i := range orders {
		orders[i] = s.buy("cup", fmt.Sprint("user", i))
	}
	s.provider.dead.Store(true)
	i := 0
	pay := func() (status int, code any) {
		i++
		return s.pay(fmt.Sprint("user", i%20), orders[i%20])
	}
	s.eventually("the breaker opens", func() bool {
		status, code := pay()
		if status != 503 || code != "unknown" && code != "overloaded" {
			t.Fatalf("pay at a dead provider: %d %v", status, code)
		}
		return code == "overloaded"
	})
	before := s.provider.calls.Load()
	if before > 25 {
		t.Errorf("opened after %d calls", before)
	}
	for range 30 {
		if status, code := pay(); status != 503 || code != "overloaded" {
			t.Errorf("pay while open: %d %v", status, code)
		}
	}
	s.buy("cup", "somebody")
	asked := s.engine.dependencies[0].refused()["open"]
	expired := time.Now().Add(time.Second)
	s.eventually("the keeper has asked about the order after its end", func() bool {
		return time.Now().After(expired) && s.engine.dependencies[0].refused()["open"] > asked
	})
	if state := s.state("ann", brief); state != "created" {
		t.Errorf("an order whose provider cannot be asked is %v", state)
	}
	if n := s.provider.calls.Load(); n != before || s.circuit() != "open" {
		t.Errorf("%d calls of a dead provider, circuit %v", n-before, s.circuit())
	}

	s.provider.dead.Store(false)
	pass(6 * time.Second)
	s.eventually("trials close the breaker", func() bool {
		status, code := pay()
		if status != 201 {
			t.Fatalf("pay at a provider that is back: %d %v", status, code)
		}
		return s.circuit() == "closed"
	})
	s.engine.clock.Floor(s.engine.clock.Now().Add(16 * time.Second)) // a time-out is postponed by 15 s at most
	s.eventually("the order is closed once its provider has been asked", func() bool { return s.state("ann", brief) == "cancelled" })
	for _, move := range []string{"circuit open", "circuit half-open", "circuit closed"} {
		if n := s.log.count(`msg="` + move + `" dependency=payment`); n != 1 {
			t.Errorf("%d lines of %s", n, move)
		}
	}
}

// TestHeldProvider: what an operator holds open nobody calls, until auto.
func TestHeldProvider(t *testing.T) {
	o, _ := patient()
	s := openShop(t, o, nil)
	s.sell("cup", 600)
	order := s.buy("cup", "ann")
	s.operate("POST", "/v1/dependencies/payment/hold", `{"state":"open","reason":"maintenance"}`)
	if status, code := s.pay("ann", order); status != 503 || code != "overloaded" || s.provider.calls.Load() != 0 {
		t.Errorf("pay while held open: %d %v, %d calls", status, code, s.provider.calls.Load())
	}
	s.measures(`sluice_dependency_state{dependency="payment",state="open"} 1`, `sluice_dependency_state{dependency="payment",state="closed"} 0`,
		`sluice_dependency_held{dependency="payment"} 1`, `sluice_dependency_refusals_total{dependency="payment",reason="open"} 1`,
		`sluice_shedding_limit 256`, `sluice_shedding_bound{work="browsing"} 153`, `sluice_shedding_refusals_total{work="paying"} 0`)
	s.operate("POST", "/v1/dependencies/payment/auto", "")
	if status, code := s.pay("ann", order); status != 201 {
		t.Errorf("pay after auto: %d %v", status, code)
	}
}

// slowLists is a store that does not answer lists until it is told.
type slowLists struct {
	order.Store
	until   chan struct{}
	arrived chan struct{}
}

func (s *slowLists) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	if q.User != "" {
		s.arrived <- struct{}{}
		<-s.until
	}
	return s.Store.List(ctx, q)
}

// TestReadsAreShedAndPaymentsAreNot: a flood of reads of a slow store fills
// its own share of the limit and is refused; who pays gets through.
func TestReadsAreShedAndPaymentsAreNot(t *testing.T) {
	o, _ := patient()
	slow := &slowLists{until: make(chan struct{}), arrived: make(chan struct{}, 1024)}
	s := openShop(t, o, func(e *engine) { slow.Store, e.rows = e.rows, slow })
	s.sell("cup", 600)
	bought := s.buy("cup", "ann")
	bound := s.engine.shedding.Status().Bounds["browsing"]
	var hanging sync.WaitGroup
	for i := range bound {
		hanging.Go(func() {
			if status, v := s.shopper(fmt.Sprint("user", i), "GET", "/v1/orders", ""); status != 200 {
				t.Errorf("an admitted read: %d %v", status, v)
			}
		})
	}
	for range bound {
		<-slow.arrived
	}
	for range 10 {
		if status, v := s.shopper("bob", "GET", "/v1/orders", ""); status != 503 || v["code"] != "overloaded" {
			t.Errorf("a read beyond the limit: %d %v", status, v)
		}
	}
	if status, code := s.pay("ann", bought); status != 201 {
		t.Errorf("pay meanwhile: %d %v", status, code)
	}
	s.buy("cup", "bob")
	is := s.engine.shedding.Status()
	if is.InFlight != bound || is.Refused["browsing"] < 10 || is.Refused["paying"] != 0 {
		t.Errorf("meanwhile %+v", is)
	}
	close(slow.until)
	hanging.Wait()
	if status, v := s.shopper("bob", "GET", "/v1/orders", ""); status != 200 {
		t.Errorf("a read afterwards: %d %v", status, v)
	}
	if n := s.engine.shedding.Status().InFlight; n != 0 {
		t.Errorf("%d in flight at the end", n)
	}
}
