package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Two that fasthttp lets sleep on: one per process for the Date header,
		// and the worker pool's, which ends within 10 s of the server.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

var secret = []byte(strings.Repeat("s", 32))

// business stands for the rooms behind the API, at their consumer interfaces:
// it answers what a test tells it to, so that every row of the error table can
// be asked for. Whole stories are tested on the real engine, elsewhere.
type business struct {
	mu        sync.Mutex
	fail      error // what every call answers, if set
	purchase  func(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error)
	asked     []string // what was called, in short
	state     stock.State
	termsGone bool // of the reservation
	views     []sale.View
	orders    []order.Order
}

func (b *business) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fail
}

func (b *business) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *business) note(format string, args ...any) {
	b.set(func() { b.asked = append(b.asked, fmt.Sprintf(format, args...)) })
}

func (b *business) lastAsked() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		return ""
	}
	return b.asked[len(b.asked)-1]
}

var (
	noon        = stock.Millis(1893499200123) // 2030-01-01T12:00:00.123Z
	terms       = []byte(`{"currency":"CNY","total":1990,"lines":[],"late_payment":"refund","restock":false}`)
	reservation = stock.ID{Activity: "act", Epoch: 1, Number: 7}
)

func receiptOf(state stock.State) stock.Receipt {
	return stock.Receipt{Reservation: stock.Reservation{
		ID: reservation, User: "alice", Order: "42", Terms: terms, State: state, At: noon, Expires: noon + 60_000,
	}}
}

func (b *business) Purchase(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error) {
	if err := b.failure(); err != nil {
		return stock.Receipt{}, err
	}
	if b.purchase != nil {
		return b.purchase(ctx, r)
	}
	shows := r.Origin.(gate.Origin).Facts().Shows
	b.note("%s buys %v at %s with key %s pass %s ticket %s", r.User, r.Lines, r.Activity, r.Key, shows.Pass, shows.Ticket)
	return receiptOf(stock.Held), nil
}

func (b *business) Views() []sale.View { return b.views }

func (b *business) View(id stock.ActivityID) (sale.View, error) {
	if err := b.failure(); err != nil {
		return sale.View{}, err
	}
	for _, v := range b.views {
		if v.ID == id {
			return v, nil
		}
	}
	return sale.View{}, sale.ErrNoSuchActivity
}

func (b *business) Get(_ context.Context, user stock.UserID, id stock.OrderID) (order.Order, error) {
	if err := b.failure(); err != nil {
		return order.Order{}, err
	}
	for _, o := range b.orders {
		if o.ID == id && o.User == user {
			return o, nil
		}
	}
	return order.Order{}, order.ErrNoSuchOrder
}

func (b *business) List(_ context.Context, user stock.UserID, before stock.OrderID, limit int) ([]order.Order, error) {
	b.note("%s lists %d before %q", user, limit, before)
	return b.orders[:min(limit, len(b.orders))], b.failure()
}

func (b *business) Reservation(_ context.Context, user stock.UserID, id stock.ID) (order.Reservation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return order.Reservation{}, b.fail
	}
	if user != "alice" || id != reservation {
		return order.Reservation{}, stock.ErrNoSuchReservation
	}
	if b.state == stock.Refused { // lost with a ledger: nothing else is known of it
		return order.Reservation{Reservation: stock.Reservation{ID: id, User: user, State: stock.Refused}, OrderState: order.Refused}, nil
	}
	r := receiptOf(b.state).Reservation
	if b.termsGone {
		r.Terms = nil
	}
	return order.Reservation{Reservation: r, OrderState: orderStateOf(b.state)}, nil
}

func orderStateOf(s stock.State) order.State {
	if s == stock.Confirmed {
		return order.Paid
	}
	return order.Created
}

func (b *business) Pay(_ context.Context, user stock.UserID, id stock.OrderID, returnURL string) (string, error) {
	b.note("%s pays %s, back to %q", user, id, returnURL)
	return "http://pay.example/42-1", b.failure()
}

func (b *business) Cancel(_ context.Context, user stock.UserID, id stock.OrderID) (order.Order, error) {
	b.note("%s cancels %s", user, id)
	if err := b.failure(); err != nil {
		return order.Order{}, err
	}
	return b.orders[0], nil
}

func (b *business) Callback(_ context.Context, provider string, header func(string) string, body []byte) error {
	b.note("%s says %q signed %s", provider, body, header("x-signature"))
	return b.failure()
}

func someOrders(n int) []order.Order {
	var all []order.Order
	for i := range n {
		all = append(all, order.Order{
			ID: stock.OrderID(fmt.Sprint(100 - i)), User: "alice", Reservation: reservation, Activity: "act",
			Terms: pricing.Terms{Quote: pricing.Quote{Currency: "CNY", Total: 1990,
				Lines: []pricing.QuoteLine{{SKU: "s1", Version: 1, Quantity: 1, Unit: 1990, Total: 1990}}}},
			Products: []byte(`[{"id":"s1","title":"A <lamp>","image":"/images/lamp.svg"}]`),
			State:    order.Created, CreatedAt: noon, ExpiresAt: noon + 60_000,
		})
	}
	return all
}

func someViews() []sale.View {
	return []sale.View{{
		Activity: sale.Activity{ID: "act", Kind: "flash", Title: "Lamps", State: sale.Open, OpensAt: noon, ClosesAt: noon + 3_600_000,
			Items: []sale.Item{{SKU: "s1", Price: pricing.Money{Amount: 1990, Currency: "CNY"}, Units: 10, PerUser: 1, PerOrder: 1}}},
		Levels:   []stock.Level{stock.Few},
		Products: []catalog.Product{{ID: "s1", Title: "A lamp", Description: "Gives light", Image: "/images/lamp.svg"}},
	}}
}

// bench is a server on a loopback port and a client for it.
type bench struct {
	*business
	server   *Server
	watchers *order.Watchers
	clock    *clock
	url      string
	client   *http.Client
	token    string
}

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newServer(t testing.TB, b *business, at *clock, change func(*Config)) (*Server, *order.Watchers) {
	t.Helper()
	verifier, err := gate.NewVerifier(at.Now, 1024, gate.VerifyingKey{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	watched := order.NewWatchers(100)
	c := Config{
		Shop: b, Orders: b, Payments: b, Slips: nobody{b}, Queue: nobody{b}, Watchers: watched, Verifier: verifier, Now: at.Now,
		Log:    slog.New(slog.DiscardHandler),
		Shell:  Asset{ContentType: "text/html; charset=utf-8", Body: []byte("<!doctype html>shell"), Gzip: []byte("zipped shell"), ETag: `"s"`},
		Assets: map[string]Asset{"/assets/app.1.js": {ContentType: "text/javascript", Body: []byte("let a"), ETag: `"a"`, Immutable: true}},
		Images: fstest.MapFS{
			"lamp.svg":   {Data: []byte("<svg>" + strings.Repeat("<g/>", 100) + "</svg>")},
			"secret.txt": {Data: []byte("not a picture")},
		},
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s, watched
}

func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &business{state: stock.Held, views: someViews(), orders: someOrders(3)}
	at := &clock{now: noon.Time()}
	server, watched := newServer(t, b, at, change)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &bench{b, server, watched, at, "http://" + ln.Addr().String(),
		&http.Client{Transport: transport, Timeout: 10 * time.Second}, mint(t, "alice", at.Now())}
}

func mint(t testing.TB, user string, now time.Time) string {
	t.Helper()
	token, err := gate.Mint(secret, user, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// answer is a reply, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	fields map[string]any // of a JSON body
}

// do sends a request as alice. headers are "Name: value"; a later one of the
// same name replaces an earlier one, and an empty value removes it.
func (b *bench) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	response, err := b.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{response.StatusCode, response.Header, string(got), nil}
	if strings.Contains(response.Header.Get("Content-Type"), "json") && method != "HEAD" {
		d := json.NewDecoder(bytes.NewReader(got))
		d.UseNumber()
		if err := d.Decode(&a.fields); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, got)
		}
	}
	return a
}

const purchasePath = "/v1/activities/act/purchases"

func (b *bench) buy(t testing.TB, body string, headers ...string) answer {
	t.Helper()
	return b.do(t, "POST", purchasePath, body, append([]string{"Idempotency-Key: k1"}, headers...)...)
}

// is checks status and code of a problem.
func (a answer) is(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status || a.fields["code"] != code || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %s, want %d %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
}

func (a answer) wants(t testing.TB, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("got  %d %s\nwant %d %s", a.status, a.body, status, body)
	}
}

const oneLamp = `{"sku":"s1","quantity":1}`

func TestPurchaseIsAnsweredWithItsReceipt(t *testing.T) {
	b := newBench(t, nil)
	got := b.buy(t, `{"sku":"s1","quantity":2,"pass":"p-1","ticket":"t-1"}`)
	got.wants(t, 202, `{"reservation":"act.0.1.7","order":"42","state":"held","expires_at":"2030-01-01T12:01:00.123Z","total":{"amount":1990,"currency":"CNY"}}`)
	if got.header.Get("Location") != "/v1/reservations/act.0.1.7" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", got.header)
	}
	if want := "alice buys [{s1 2}] at act with key k1 pass p-1 ticket t-1"; b.lastAsked() != want {
		t.Errorf("asked %q, want %q", b.lastAsked(), want)
	}
	b.buy(t, `{"items":[{"quantity":1,"sku":"s1"},{"sku":"s2","quantity":10000}]}`, "Content-Type: Application/JSON; charset=utf-8")
	if want := "alice buys [{s1 1} {s2 10000}] at act with key k1 pass  ticket "; b.lastAsked() != want {
		t.Errorf("asked %q, want %q", b.lastAsked(), want)
	}
	m := b.server.Metrics()
	if m.Accepted != 2 || m.Replayed != 0 {
		t.Errorf("metrics %+v", m)
	}
}

func TestPurchasesInFlightAreBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Limits.Purchases = 1 })
	inside, leave := make(chan struct{}), make(chan struct{})
	b.purchase = func(context.Context, sale.PurchaseRequest) (stock.Receipt, error) {
		close(inside)
		<-leave
		return stock.Receipt{}, stock.ErrSoldOut
	}
	first := make(chan answer)
	go func() { first <- b.buy(t, oneLamp) }()
	<-inside
	b.buy(t, oneLamp).is(t, 503, "overloaded")
	close(leave)
	(<-first).is(t, 409, "sold_out")
	b.set(func() { b.fail = stock.ErrAllHeld })
	b.buy(t, oneLamp).is(t, 409, "all_held")
}

// TestShutdownFinishesWhatIsInFlight stops the server while a purchase is
// being decided: the buyer still gets the receipt.
func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	b := newBench(t, nil)
	inside, leave := make(chan struct{}), make(chan struct{})
	b.purchase = func(ctx context.Context, _ sale.PurchaseRequest) (stock.Receipt, error) {
		close(inside)
		<-leave
		return receiptOf(stock.Held), ctx.Err() // must not have been cancelled
	}
	got := make(chan answer)
	go func() { got <- b.buy(t, oneLamp) }()
	<-inside
	if !b.server.Ready() {
		t.Error("not ready before the shutdown")
	}
	down := make(chan error)
	go func() { down <- b.server.Shutdown(context.Background()) }()
	for b.server.Ready() { // false first of all
		select {
		case err := <-down:
			t.Fatalf("shutdown did not wait: %v", err)
		default:
		}
	}
	close(leave)
	if a := <-got; a.status != 202 {
		t.Errorf("in flight: %d %s", a.status, a.body)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestNothingOfARequestIsKept buys many times over one connection, so that its
// buffers are reused, and looks whether what was copied stays as it was.
func TestNothingOfARequestIsKept(t *testing.T) {
	b := newBench(t, nil)
	for i := range 20 {
		b.buy(t, fmt.Sprintf(`{"sku":"s%d","quantity":1}`, i), fmt.Sprintf("Idempotency-Key: key-%d", i))
		b.do(t, "POST", fmt.Sprintf("/v1/orders/%d/cancel", i), "")
	}
	for i := range 20 {
		want := []string{fmt.Sprintf("alice buys [{s%d 1}] at act with key key-%d pass  ticket ", i, i), fmt.Sprintf("alice cancels %d", i)}
		if got := b.asked[2*i : 2*i+2]; got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTokensAreNeverLogged(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	b.set(func() { b.fail = errors.New("something broke") })
	b.buy(t, oneLamp).is(t, 500, "internal")
	if !strings.Contains(log.String(), "something broke") || strings.Contains(log.String(), b.token) {
		t.Errorf("log: %s", log.String())
	}
	if a := b.buy(t, oneLamp); strings.Contains(a.body, "broke") {
		t.Errorf("the cause was told outside: %s", a.body)
	}
}

// A server that is told to stop before it has begun does not begin: a process that
// is ended in its first moment ends.
func TestShutdownBeforeServe(t *testing.T) {
	b := &business{views: someViews()}
	server, _ := newServer(t, b, &clock{now: noon.Time()}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("serves after its shutdown")
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the listener is open")
	}
}
