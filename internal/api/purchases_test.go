package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/gate/entrance"
	"sluice/internal/gate/waiting"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

func TestPurchaseBodiesThatAreRefused(t *testing.T) {
	var a attempt
	f := func(body, field, why string) {
		t.Helper()
		err := a.parse([]byte(body))
		var bad *fieldError
		if !errors.As(err, &bad) || bad.field != field || !strings.Contains(bad.why, why) {
			t.Errorf("%s: got %v, want %s … %s", body, err, field, why)
		}
	}
	f("", "body", "is empty")
	f("  ", "body", "not valid JSON")
	f("null", "body", "must be a JSON object")
	f("[]", "body", "must be a JSON object")
	f(`"sku"`, "body", "must be a JSON object")
	f("{}", "sku", "is missing")
	f(`{"sku":"s1"}`, "quantity", "is missing")
	f(`{"quantity":1}`, "sku", "is missing")
	f(`{"sku":"s1","quantity":1`, "body", "not valid JSON")
	f(`{"sku":"s1","quantity":1,}`, "body", "not valid JSON")
	f(`{"sku":"s1","quantity":1} x`, "body", "not valid JSON")
	f(`{"sku":"s1","quantity":1}{}`, "body", "not valid JSON")
	f(`{'sku':"s1","quantity":1}`, "body", "not valid JSON")
	f(`{"sku":"s1","quantity":1,"colour":"red"}`, "colour", "not a known field")
	f(`{"sku":"s1","quantity":1,"Sku":"s2"}`, "Sku", "not a known field")
	f(`{"sku":"s1","quantity":1,"sku":"s2"}`, "sku", "stands twice")
	f(`{"sku":"s1","quantity":1,"sk\u0075":"s1"}`, "sku", "stands twice")
	f(`{"sku":"s1","quantity":1,"quantity":1}`, "quantity", "stands twice")
	f(`{"sku":"s1","quantity":1,"pass":"p","pass":"p"}`, "pass", "stands twice")
	f(`{"sku":"s1","quantity":1,"ticket":"p","ticket":"q"}`, "ticket", "stands twice")

	for _, sku := range []string{`""`, `1`, `null`, `["s1"]`, `"a b"`, `"a/b"`, `"-a"`, `"é"`, `"a\u0000"`, `"` + strings.Repeat("a", 65) + `"`} {
		f(`{"sku":`+sku+`,"quantity":1}`, "sku", "letters, digits")
	}
	for _, quantity := range []string{`0`, `-1`, `-0`, `10001`, `1.0`, `1.5`, `1e0`, `"1"`, `null`, `true`, `{}`, `9223372036854775808`, `18446744073709551617`} {
		f(`{"sku":"s1","quantity":`+quantity+`}`, "quantity", "integer 1..10000")
	}
	for _, quantity := range []string{`01`, `+1`, `.5`, `1.`, `nan`, `Infinity`, `0x1`, `1_0`, `--1`} {
		f(`{"sku":"s1","quantity":`+quantity+`}`, "body", "not valid JSON")
	}
	for _, pass := range []string{`""`, `7`, `null`, `"a b"`, `"\n"`, `"` + strings.Repeat("p", maxSlip+1) + `"`} {
		f(`{"sku":"s1","quantity":1,"pass":`+pass+`}`, "pass", "must be")
	}
	f("{\"sku\":\"s1\",\"quantity\":1,\"pass\":\"a\x01b\"}", "body", "not valid JSON")
	f(`{"sku":"s1","quantity":1,"pass":"\x"}`, "body", "not valid JSON")
	f("{\"sku\":\"s1\",\"quantity\":1,\"\xff\":1}", "\uFFFD", "not a known field")

	f(`{"items":[]}`, "items", "1..16 items")
	f(`{"items":{}}`, "items", "must be an array")
	f(`{"items":null}`, "items", "must be an array")
	f(`{"items":[1]}`, "items[0]", "must be an object")
	f(`{"items":[{"sku":"s1","quantity":1}],"sku":"s2"}`, "items", "beside")
	f(`{"quantity":1,"items":[{"sku":"s1","quantity":1}]}`, "items", "beside")
	f(`{"items":[{"sku":"s1","quantity":1}],"items":[]}`, "items", "stands twice")
	f(`{"items":[{"sku":"s1","quantity":1},{"sku":"s2"}]}`, "items[1].quantity", "is missing")
	f(`{"items":[{"sku":"s1","quantity":1},{"sku":"s1","quantity":2}]}`, "items[1].sku", "stands twice")
	f(`{"items":[{"sku":"s1","quantity":1,"pass":"p"}]}`, "items[0].pass", "not a known field")
	f(`{"items":[{"sku":"s1","sku":"s1","quantity":1}]}`, "items[0].sku", "stands twice")
	f(`{"items":[`+strings.Repeat(`{"sku":"s1","quantity":1},`, 16)+`{"sku":"s1","quantity":1}]}`, "items", "1..16 items")
	f(`{"items":[{"sku":[[1]],"quantity":1}]}`, "body", "nests deeper")
	f(strings.Repeat("[", maxBody), "body", "nests deeper")

	// What was read before does not show through.
	if err := a.parse([]byte(`{"quantity":3,"sku":"s9"}`)); err != nil || len(a.lines) != 1 || a.lines[0] != (stock.Line{SKU: "s9", Quantity: 3}) || a.shows.Pass != "" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestPurchaseHeadersThatAreRefused(t *testing.T) {
	b := newBench(t, nil)
	field := func(a answer, name string) {
		t.Helper()
		a.is(t, 400, "invalid_request")
		if a.fields["field"] != name {
			t.Errorf("field %v, want %s", a.fields["field"], name)
		}
	}
	field(b.buy(t, oneLamp, "Idempotency-Key: a b"), "Idempotency-Key")
	field(b.buy(t, oneLamp, "Idempotency-Key: "+strings.Repeat("k", 65)), "Idempotency-Key")
	field(b.buy(t, oneLamp, "Idempotency-Key: kéy"), "Idempotency-Key")
	field(b.buy(t, oneLamp, "Idempotency-Key: late:42-1"), "Idempotency-Key")
	b.buy(t, oneLamp, "Idempotency-Key: ").is(t, 400, "idempotency_key_missing")

	other := mint(t, "alice", b.clock.Now().Add(-2*time.Hour))
	for _, header := range []string{"Authorization: ", "Authorization: Bearer", "Authorization: Basic " + b.token,
		"Authorization: " + b.token, "Authorization: Bearer " + other, "Authorization: Bearer  " + b.token} {
		b.buy(t, oneLamp, header).is(t, 401, "unauthenticated")
	}
	if b.buy(t, oneLamp, "Authorization: bearer "+b.token).status != 202 {
		t.Error("the scheme's name is not case-sensitive")
	}
	// The token is judged before anything else, the activity's id before the body.
	b.do(t, "POST", "/v1/activities/-/purchases", "{", "Authorization: ").is(t, 401, "unauthenticated")
	b.do(t, "POST", "/v1/activities/-/purchases", "{").is(t, 404, "no_such_activity")
	if b.lastAsked() != "alice buys [{s1 1}] at act with key k1 pass  ticket " || len(b.asked) != 1 {
		t.Errorf("a refused request reached the shop: %q", b.asked)
	}
}

// FuzzPurchaseBody holds the parser against the standard library's: what is
// accepted must mean the same there, field for field.
func FuzzPurchaseBody(f *testing.F) {
	for _, seed := range []string{oneLamp, `{"items":[{"sku":"a","quantity":2},{"sku":"b","quantity":3}],"pass":"p"}`,
		`{"sku":"s1","quantity":1,"sku":"s1"}`, `{"sku":"\u0061","quantity":1}`, `{"quantity":1e1,"sku":"a"}`, `[[[[`, `{"a":{"b":{"c":"]"}}}`} {
		f.Add([]byte(seed))
	}
	var a attempt
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := a.parse(bytes.Clone(body)); err != nil {
			var bad *fieldError
			if !errors.As(err, &bad) {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		var want struct {
			SKU          string       `json:"sku"`
			Quantity     int          `json:"quantity"`
			Items        []stock.Line `json:"items"`
			Pass, Ticket string
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil || d.More() {
			t.Fatalf("%q was accepted: %v", body, err)
		}
		if want.Items == nil {
			want.Items = []stock.Line{{SKU: stock.SKU(want.SKU), Quantity: want.Quantity}}
		}
		if !reflect.DeepEqual(a.lines, want.Items) || a.shows.Pass != want.Pass || a.shows.Ticket != want.Ticket {
			t.Fatalf("%q: got %+v %q %q, want %+v", body, a.lines, a.shows.Pass, a.shows.Ticket, want)
		}
	})
}

// FuzzProblemStrings: whatever is echoed stays one JSON string.
func FuzzProblemStrings(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\x00\n\xff\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		b := appendString(nil, s)
		if err := json.Unmarshal(b, &got); err != nil || got != strings.ToValidUTF8(s, "\uFFFD") && !strings.Contains(got, "\uFFFD") {
			t.Fatalf("%q became %s: %q, %v", s, b, got, err)
		}
	})
}

// wire is a connection in memory that sends the same request again and again
// and throws the answers away.
type wire struct {
	net.Conn
	request []byte
	left    int // requests still to send
	rest    []byte
	last    []byte // the last answer, if kept
	keep    bool
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.rest) == 0 {
		if w.left == 0 {
			return 0, io.EOF
		}
		w.left--
		w.rest = w.request
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.keep {
		w.last = append(w.last[:0], p...)
	}
	return len(p), nil
}

// shopper is made once, as a real connection's address is.
var shopper = &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4711}

func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return shopper }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// floodBench is a server whose shop is sold out, and the wire of one attempt.
func floodBench(t testing.TB) (*Server, *wire) {
	t.Helper()
	return floodOf(t, &stock.Refusal{Err: stock.ErrSoldOut, SKU: "s1"})
}

// floodOf is a server whose shop refuses every purchase so.
func floodOf(t testing.TB, refusal error) (*Server, *wire) {
	t.Helper()
	b := &business{purchase: func(context.Context, sale.PurchaseRequest) (stock.Receipt, error) { return stock.Receipt{}, refusal }}
	at := &clock{now: noon.Time()}
	s, _ := newServer(t, b, at, nil)
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n"+
		"Idempotency-Key: 3e0a3c4e-0d6c-4a57\r\nContent-Length: %d\r\n\r\n%s", purchasePath, mint(t, "user-123456", at.Now()), len(oneLamp), oneLamp)
	return s, &wire{request: []byte(request)}
}

// waits is a queue in which everybody stands 7th.
type waits struct{ nobody }

func (waits) Known(string, string) (entrance.Place, bool) {
	return entrance.Place{Place: waiting.Place{State: waiting.Waiting, Position: 7, ETA: time.Minute}}, true
}

// TestARefusalAllocatesNothing serves whole requests, parsing and writing
// included, and counts what each one leaves for the collector.
func TestARefusalAllocatesNothing(t *testing.T) {
	f := func(refusal error, want string) {
		t.Helper()
		s, w := floodOf(t, refusal)
		s.queue = waits{}
		w.left, w.keep = 1, true
		if err := s.http.ServeConn(w); err != nil || !bytes.Contains(w.last, []byte(want)) {
			t.Fatalf("%s, %v", w.last, err)
		}
		w.keep = false
		const requests = 1000
		perConnection := testing.AllocsPerRun(5, func() { w.left = 1; _ = s.http.ServeConn(w) })
		perFlood := testing.AllocsPerRun(5, func() { w.left = 1 + requests; _ = s.http.ServeConn(w) })
		// A collection in between may empty a pool; a request that allocates would show 1,000.
		if extra := perFlood - perConnection; pooled && extra > 20 {
			t.Errorf("%v allocations in %d refusals", extra, requests)
		}
	}
	f(&stock.Refusal{Err: stock.ErrSoldOut, SKU: "s1"}, `"code":"sold_out"`)
	f(&gate.Refused{Rule: "room", Err: gate.ErrQueued}, `"rule":"room","queue":"/v1/activities/act/queue","position":7,"eta_seconds":60}`)
}

// BenchmarkRefuse is a whole sold-out attempt in process: HTTP parsed, token
// checked, body read, problem written.
func BenchmarkRefuse(b *testing.B) {
	s, w := floodBench(b)
	b.ReportAllocs()
	w.left = b.N
	b.ResetTimer()
	if err := s.http.ServeConn(w); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConstant is the same request answered with a constant: what the
// HTTP server costs by itself.
func BenchmarkConstant(b *testing.B) {
	s, w := floodBench(b)
	s.http.Handler = func(ctx *fasthttp.RequestCtx) {
		ctx.Response.SetStatusCode(409)
		ctx.Response.Header.SetContentTypeBytes(problemJSON)
		ctx.Response.SetBodyRaw(problems[soldOut].body)
	}
	b.ReportAllocs()
	w.left = b.N
	b.ResetTimer()
	if err := s.http.ServeConn(w); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead is the reading of the body alone.
func BenchmarkRead(b *testing.B) {
	var a attempt
	body := []byte(oneLamp)
	b.ReportAllocs()
	for b.Loop() {
		if err := a.parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

// Every code has to fit into the table of last refusals.
var _ = [gate.RuleCode - codes]struct{}{}

// The last refusal of a user in an activity is remembered, and nobody else's.
func TestLastRefusal(t *testing.T) {
	b := newBench(t, nil)
	f := func(user stock.UserID, want string) {
		t.Helper()
		last, ok := b.server.LastRefusal("act", user)
		if last.Code != want || last.Rule != "" || ok != (want != "") || ok && time.Since(last.At) > time.Minute {
			t.Errorf("%s: %+v, %v; want %q", user, last, ok, want)
		}
	}
	f("alice", "")
	if a := b.buy(t, oneLamp); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	f("alice", "")
	b.set(func() { b.fail = stock.ErrSoldOut })
	b.buy(t, oneLamp).is(t, 409, "sold_out")
	f("alice", "sold_out")
	f("bob", "")
	b.set(func() { b.fail = sale.ErrNoSuchActivity })
	b.buy(t, oneLamp).is(t, 404, "no_such_activity")
	f("alice", "sold_out")
	b.buy(t, `{}`).is(t, 400, "invalid_request")
	f("alice", "invalid_request")
}

// A replay of the key tells what has become of the order, where the ledger may
// not have heard of it yet; and nothing else is asked about.
func TestReplayTellsWhatStands(t *testing.T) {
	asked, known := 0, true
	b := newBench(t, func(c *Config) {
		c.Standing = func(_ context.Context, id stock.ID) (stock.State, bool) {
			if asked++; id != reservation {
				t.Errorf("asked about %s", id)
			}
			return stock.Released, known
		}
	})
	f := func(replayed bool, ledger stock.State, want string, asks int) {
		t.Helper()
		asked = 0
		b.set(func() {
			b.purchase = func(context.Context, sale.PurchaseRequest) (stock.Receipt, error) {
				r := receiptOf(ledger)
				r.Replayed = replayed
				return r, nil
			}
		})
		if a := b.buy(t, oneLamp); a.status != 202 || a.fields["state"] != want || asked != asks {
			t.Errorf("%d %v, asked %d times; want %s and %d", a.status, a.fields, asked, want, asks)
		}
	}
	f(true, stock.Held, "released", 1)
	f(false, stock.Held, "held", 0)
	f(true, stock.Pending, "pending", 0)
	f(true, stock.Expired, "expired", 0)
	known = false
	f(true, stock.Held, "held", 1)
}
