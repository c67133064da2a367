package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/waiting"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// failure is what a room answers, and what the specification makes of it.
type failure struct {
	err    error
	status int
	code   string
}

var ofPurchases = []failure{
	{stock.ErrInvalid, 400, "invalid_request"},
	{pricing.ErrMoney, 400, "invalid_request"},
	{gate.ErrUnauthenticated, 401, "unauthenticated"},
	{stock.ErrClaimUsed, 403, "not_eligible"},
	{stock.ErrNoSuchActivity, 404, "no_such_activity"},
	{sale.ErrNoSuchActivity, 404, "no_such_activity"},
	{stock.ErrNoSuchSKU, 404, "no_such_sku"},
	{catalog.ErrNoSuchSKU, 404, "no_such_sku"},
	{stock.ErrNotOpen, 409, "not_open"},
	{stock.ErrEnded, 409, "ended"},
	{stock.ErrSoldOut, 409, "sold_out"},
	{stock.ErrAllHeld, 409, "all_held"},
	{stock.ErrInsufficient, 409, "insufficient"},
	{stock.ErrLimit, 409, "limit_reached"},
	{stock.ErrMismatch, 422, "idempotency_mismatch"},
	{gate.ErrRateLimited, 429, "rate_limited"},
	{stock.ErrCorrupt, 500, "internal"},
	{errors.New("never heard of"), 500, "internal"},
	{stock.ErrOverloaded, 503, "overloaded"},
	{gate.ErrOverloaded, 503, "overloaded"},
	{stock.ErrPaused, 503, "paused"},
	{stock.ErrNotReady, 503, "not_ready"},
	{stock.ErrStale, 503, "not_ready"},
	{stock.ErrUnknown, 503, "unknown"},
	{context.Canceled, 503, "unknown"},
	{&gate.Refused{Rule: "r", Err: gate.ErrQueued}, 429, "queued"},
	{&gate.Refused{Rule: "r", Err: gate.ErrTicketRequired}, 403, "ticket_required"},
	{&gate.Refused{Rule: "r", Err: gate.ErrChallengeRequired}, 403, "challenge_required"},
	{&gate.Refused{Rule: "r", Err: gate.ErrNotEligible}, 403, "not_eligible"},
	{&gate.Refused{Rule: "r", Err: gate.ErrReadOnly}, 503, "read_only"},
}

// ofPayments is the same of paying, cancelling and callbacks alike.
var ofPayments = []failure{
	{payment.ErrForged, 401, "unauthenticated"},
	{payment.ErrMalformed, 400, "invalid_request"},
	{payment.ErrNoSuchPayment, 404, "no_such_order"},
	{payment.ErrProvider, 503, "unknown"},
	{fmt.Errorf("%w: %w", payment.ErrProvider, payment.ErrAway), 503, "overloaded"},
	{payment.ErrRefused, 409, "order_state"},
	{order.ErrNoSuchOrder, 404, "no_such_order"},
	{order.ErrState, 409, "order_state"},
	{order.ErrNotReady, 503, "not_ready"},
	{context.DeadlineExceeded, 503, "unknown"},
}

// ofQueues is the same of joining a waiting room.
var ofQueues = []failure{
	{waiting.ErrFull, 503, "queue_full"},
	{waiting.ErrNoRoom, 409, "no_queue"},
	{waiting.ErrNotWaiting, 404, "not_queued"},
	{challenge.ErrFailed, 403, "challenge_failed"},
	{gate.ErrNoTicketNeeded, 409, "no_ticket_needed"},
	{&gate.Refused{Rule: "r", Err: gate.ErrRegistrationClosed}, 409, "registration_closed"},
	{&gate.Refused{Rule: "r", Err: gate.ErrChallengeRequired}, 403, "challenge_required"},
}

// TestEveryCodeByHTTP asks for every row of the error table over the wire.
func TestEveryCodeByHTTP(t *testing.T) {
	b := newBench(t, nil)
	seen := map[string]bool{}
	see := func(a answer, status int, code string) {
		t.Helper()
		a.is(t, status, code)
		if a.fields["status"] == nil || fmt.Sprint(a.fields["status"]) != strconv.Itoa(status) || a.fields["title"] == "" {
			t.Errorf("%s: title or status missing: %s", code, a.body)
		}
		wait, _ := strconv.Atoi(a.header.Get("Retry-After"))
		if (status == 503 || status == 429) != (wait > 0) || wait > 15 {
			t.Errorf("%s: Retry-After %q", code, a.header.Get("Retry-After"))
		}
		if (status == 401) != (a.header.Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%s: WWW-Authenticate %q", code, a.header.Get("WWW-Authenticate"))
		}
		if (status == 405) != (a.header.Get("Allow") != "") {
			t.Errorf("%s: Allow %q", code, a.header.Get("Allow"))
		}
		seen[code] = true
	}
	for _, want := range ofPurchases {
		for _, err := range []error{want.err, fmt.Errorf("purchase: %w", want.err)} {
			b.set(func() { b.fail = err })
			see(b.buy(t, oneLamp), want.status, want.code)
		}
	}
	for _, want := range ofPayments {
		b.set(func() { b.fail = want.err })
		see(b.do(t, "POST", "/v1/orders/42/payments", ""), want.status, want.code)
		see(b.do(t, "POST", "/v1/orders/42/cancel", ""), want.status, want.code)
		see(b.do(t, "POST", "/v1/payments/callbacks/sandbox", "{}", "Authorization: "), want.status, want.code)
	}
	for _, want := range ofQueues {
		b.set(func() { b.fail = want.err })
		see(b.do(t, "POST", "/v1/activities/act/queue", ""), want.status, want.code)
	}
	b.set(func() { b.fail = nil })

	// What the API itself finds.
	see(b.do(t, "POST", purchasePath, oneLamp), 400, "idempotency_key_missing")
	see(b.buy(t, oneLamp, "Content-Type: text/plain"), 415, "unsupported_media_type")
	see(b.buy(t, oneLamp, "Content-Type: "), 415, "unsupported_media_type")
	see(b.buy(t, `{}`), 400, "invalid_request")
	see(b.buy(t, `{"sku":"`+strings.Repeat("x", maxBody)+`"}`), 413, "too_large")
	see(b.buy(t, oneLamp, "X-Long: "+strings.Repeat("x", maxHeader)), 413, "too_large")
	see(b.do(t, "GET", "/v1/nowhere", ""), 404, "not_found")
	see(b.do(t, "GET", "/v1/reservations/act.0.1.8", ""), 404, "no_such_reservation")
	see(b.do(t, "GET", "/v1/reservations/nonsense", ""), 404, "no_such_reservation")
	see(b.do(t, "DELETE", "/v1/orders/42", ""), 405, "method_not_allowed")

	for c := range codes {
		if !seen[problems[c].name] {
			t.Errorf("%s was never answered", problems[c].name)
		}
		if b.server.Metrics().Refused[problems[c].name] == 0 {
			t.Errorf("%s was not counted", problems[c].name)
		}
	}
}

func TestRefusalsTellTheDetail(t *testing.T) {
	b := newBench(t, nil)
	const two = `{"items":[{"sku":"s1","quantity":1},{"sku":"s2","quantity":1}]}`
	f := func(body string, refusal stock.Refusal, want string) {
		t.Helper()
		b.set(func() { b.fail = fmt.Errorf("buy: %w", &refusal) })
		b.buy(t, body).wants(t, 409, want)
		b.set(func() { b.fail = &refusal })
		b.buy(t, body).wants(t, 409, want)
	}
	f(oneLamp, stock.Refusal{Err: stock.ErrSoldOut, SKU: "s1"}, `{"title":"Sold out","status":409,"code":"sold_out"}`)
	f(two, stock.Refusal{Err: stock.ErrSoldOut, SKU: "s2"}, `{"title":"Sold out","status":409,"code":"sold_out","sku":"s2"}`)
	f(two, stock.Refusal{Err: stock.ErrAllHeld, SKU: "s2"}, `{"title":"All units are held; some may return","status":409,"code":"all_held","sku":"s2"}`)
	f(oneLamp, stock.Refusal{Err: stock.ErrInsufficient, SKU: "s1", Available: 3},
		`{"title":"Fewer units are free than asked for","status":409,"code":"insufficient","sku":"s1","available":3}`)
	f(oneLamp, stock.Refusal{Err: stock.ErrLimit, SKU: "s1", Limit: 2, Scope: "per_user"},
		`{"title":"Purchase limit reached","status":409,"code":"limit_reached","sku":"s1","limit":2,"scope":"per_user"}`)
	f(oneLamp, stock.Refusal{Err: stock.ErrLimit, Limit: 0, Scope: "per_activity"},
		`{"title":"Purchase limit reached","status":409,"code":"limit_reached","limit":0,"scope":"per_activity"}`)
	f(oneLamp, stock.Refusal{Err: stock.ErrNotOpen, OpensAt: noon},
		`{"title":"Not open yet","status":409,"code":"not_open","opens_at":"2030-01-01T12:00:00.123Z"}`)
}

// TestEveryErrorHasARow reads the sources: an exported Err… of a business room
// that errors.go does not mention would be answered as internal, unnoticed.
func TestEveryErrorHasARow(t *testing.T) {
	listed := map[string]bool{}
	table, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(table, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			listed[fmt.Sprint(s.X)+"."+s.Sel.Name] = true
		}
		return true
	})
	found := 0
	for _, room := range []string{"stock", "sale", "order", "payment", "pricing", "catalog", "gate"} {
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", room, files, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range errorsIn(parsed) {
				found++
				if !listed[room+"."+name] {
					t.Errorf("%s.%s of %s has no row in errors.go", room, name, file)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d errors found: is this test looking in the right place?", found)
	}
}

// errorsIn lists the package variables of a file called Err….
func errorsIn(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				if strings.HasPrefix(name.Name, "Err") {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// TestUnreadableRequests speaks to the port without an HTTP client: whatever
// comes, the answer is a problem document, and it arrives although the sender
// is still sending.
func TestUnreadableRequests(t *testing.T) {
	b := newBench(t, nil)
	f := func(name, request string, status int, code string) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != status || !strings.Contains(string(body), `"code":"`+code+`"`) {
			t.Errorf("%s: %d %s %v", name, response.StatusCode, body, err)
		}
	}
	post := "POST " + purchasePath + " HTTP/1.1\r\nHost: x\r\n"
	f("not HTTP", "hello\r\n\r\n", 400, "invalid_request")
	f("no such version", "GET / HTTP/9\r\n\r\n", 400, "invalid_request")
	f("two lengths", post+"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "invalid_request")
	f("broken chunks", post+"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_request")
	f("large body", post+"Content-Length: 200000\r\n\r\n"+strings.Repeat("x", 200000), 413, "too_large")
	f("large chunked body", post+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 9)+"0\r\n\r\n", 413, "too_large")
	f("large header", "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 100000)+"\r\n\r\n", 413, "too_large")
	f("large path", "GET /"+strings.Repeat("x", 100000)+" HTTP/1.1\r\nHost: x\r\n\r\n", 413, "too_large")
}

// TestSilentConnectionsAreClosed: one that says nothing, or stops half-way, is
// closed without an answer and counted as no refusal.
func TestSilentConnectionsAreClosed(t *testing.T) {
	s, _ := newServer(t, &business{}, &clock{now: noon.Time()}, nil)
	s.http.ReadTimeout = 30 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	f := func(said string, hangUp bool) {
		t.Helper()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
		if hangUp {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		got, err := io.ReadAll(conn)
		if slow := net.Error(nil); len(got) > 0 || errors.As(err, &slow) && slow.Timeout() {
			t.Errorf("%q: %q, %v", said, got, err)
		}
	}
	f("", false)
	f("GET / HT", false)
	f("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", false)
	f("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", true)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	for name, n := range s.Metrics().Refused {
		if n > 0 {
			t.Errorf("%d %s counted", n, name)
		}
	}
}
