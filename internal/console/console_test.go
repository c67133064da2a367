package console_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/console"
	"sluice/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestToken(t *testing.T) {
	b := newBench(t)
	f := func(authorization string, status int, code string) {
		t.Helper()
		for _, path := range []string{"/v1/skus", "/v1/activities/x/open", "/v1/nowhere", "//v1/skus", "/x/../v1/skus", "/%761/skus"} {
			a := b.send("GET", path, "", http.Header{"Authorization": {authorization}})
			if a.status != status || a.at("code") != code {
				t.Errorf("%q on %s: %d %s, want %d %s", authorization, path, a.status, a.raw, status, code)
			}
		}
	}
	f("", 401, "unauthenticated")
	f("Bearer", 401, "unauthenticated")
	f("Bearer ", 401, "unauthenticated")
	f("Bearer wrong", 401, "unauthenticated")
	f("Basic "+token, 401, "unauthenticated")
	f(token, 401, "unauthenticated")
	if a := b.send("GET", "/v1/skus", "", http.Header{}); a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("headers of a 401: %v", a.header)
	}
	if a := b.send("GET", "/v1/skus", "", http.Header{"Authorization": {"bearer " + token}}); a.status != 200 {
		t.Errorf("the right token: %d %s", a.status, a.raw)
	}

	b.config.Token = ""
	b.server.Close()
	b.server = httptest.NewServer(console.New(b.config))
	t.Cleanup(b.server.Close)
	f("Bearer ", 403, "ops_disabled")
	f("Bearer "+token, 403, "ops_disabled")
	if a := b.call("GET", "/v1/skus", ""); !strings.Contains(string(a.raw), "SLUICE_OPS_TOKEN") {
		t.Errorf("the answer does not say how to turn the API on: %s", a.raw)
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t)
	f := func(path string, status int) answer {
		t.Helper()
		a := b.send("GET", path, "", http.Header{})
		if a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.raw, status)
		}
		return a
	}
	f("/livez", 200)
	f("/readyz", 200)
	f("/metrics", 200)
	b.ready = errors.New("replaying the log")
	f("/livez", 200)
	a := f("/readyz", 503)
	b.equal(a, "code", "not_ready", "detail", "replaying the log")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestNoRoute(t *testing.T) {
	b := newBench(t)
	b.want(404, "not_found", "GET", "/v1/nowhere", "")
	b.want(404, "not_found", "GET", "/", "")
	a := b.want(405, "method_not_allowed", "DELETE", "/v1/skus", "")
	if allow := a.header.Get("Allow"); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
		t.Errorf("Allow: %q", allow)
	}
}

func TestOpenAPI(t *testing.T) {
	b := newBench(t)
	a := b.send("GET", "/openapi.json", "", http.Header{})
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]json.RawMessage
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(a.raw, &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%v: %.200s", err, a.raw)
	}
	if doc.Components.Schemas["Problem"].Properties["code"] == nil || len(doc.Components.Schemas["ErrorModel"].Properties) != 0 {
		t.Errorf("schemas: %v", doc.Components.Schemas)
	}
	for _, route := range []string{
		"POST /v1/skus", "GET /v1/skus", "POST /v1/activities", "GET /v1/activities", "GET /v1/activities/{id}",
		"PATCH /v1/activities/{id}", "POST /v1/activities/{id}/open", "POST /v1/activities/{id}/pause",
		"POST /v1/activities/{id}/resume", "POST /v1/activities/{id}/drain", "POST /v1/activities/{id}/close",
		"POST /v1/activities/{id}/stock", "GET /v1/activities/{id}/proof", "GET /v1/proofs",
		"POST /v1/activities/{id}/repairs", "GET /v1/activities/{id}/trail/units", "GET /v1/activities/{id}/trail/users/{user}", "GET /v1/orders", "GET /v1/orders/{id}",
		"POST /v1/orders/{id}/fulfil", "POST /v1/orders/{id}/refund", "POST /v1/orders/{id}/refunds/{refund}/retry", "GET /v1/dead-letters",
		"POST /v1/dead-letters/{id}/redrive", "GET /v1/audit",
		"GET /v1/dependencies", "POST /v1/dependencies/{name}/hold", "POST /v1/dependencies/{name}/auto",
		"PUT /v1/lists/entries", "DELETE /v1/lists/entries", "GET /v1/lists/entries", "POST /v1/lists/standing",
		"GET /v1/rules", "PUT /v1/rules", "GET /v1/rules/history", "POST /v1/rules/rollback", "POST /v1/rules/explain",
	} {
		method, path, _ := strings.Cut(route, " ")
		op, ok := doc.Paths[path][strings.ToLower(method)]
		if !ok || op.OperationID == "" || len(op.Security) == 0 || !strings.Contains(string(op.Responses["default"]), "schemas/Problem") {
			t.Errorf("%s is not or not well described: %+v", route, op)
		}
	}
	if strings.Contains(string(a.raw), "schemas/ErrorModel") {
		t.Error("the document refers to a schema that it does not have")
	}
}

func TestInvalidRequests(t *testing.T) {
	b := newBench(t)
	b.sale()
	f := func(method, path, body, field string) {
		t.Helper()
		a := b.want(400, "invalid_request", method, path, body)
		if got, _ := a.at("field").(string); got != field {
			t.Errorf("%s %s: field %q, want %q: %s", path, body, got, field, a.raw)
		}
	}
	sku := `"title":"T","price":{"amount":1,"currency":"CNY"}`
	f("POST", "/v1/skus", ``, "")
	f("POST", "/v1/skus", `{`, "")
	f("POST", "/v1/skus", `{"id":"A",`+sku+`,"colour":"red"}`, "colour")
	f("POST", "/v1/skus", `{`+sku+`}`, "id")
	f("POST", "/v1/skus", `{"id":"../x",`+sku+`}`, "id")
	f("POST", "/v1/skus", `{"id":"A","title":"T","price":{"amount":1.5,"currency":"CNY"}}`, "price.amount")
	f("POST", "/v1/skus", `{"id":"A","title":"T","price":{"amount":-1,"currency":"CNY"}}`, "")
	f("POST", "/v1/activities", `{"id":"a","title":"T","items":[{"sku":"CUP","units":1,"unit":1}]}`, "items[0].unit")
	f("POST", "/v1/activities", `{"id":"a","title":"T","items":[]}`, "items")
	f("POST", "/v1/activities", `{"id":"a","title":"T","items":[{"sku":"CUP"}]}`, "items[0].units")
	f("POST", "/v1/activities", `{"id":"a","title":"T","kind":"raffle","items":[{"sku":"CUP","units":1}]}`, "kind")
	f("POST", "/v1/activities", `{"id":"a","title":"T","opens_at":"tomorrow","items":[{"sku":"CUP","units":1}]}`, "opens_at")
	f("POST", "/v1/activities", `{"id":"a","title":"T","hold_seconds":99999999,"items":[{"sku":"CUP","units":1}]}`, "")
	f("POST", "/v1/activities/drop/stock", `{"id":"d","sku":"CUP","delta":0}`, "")
	f("PATCH", "/v1/activities/drop", `{"units":5}`, "units")
	f("PATCH", "/v1/activities/drop", `{"items":[{"sku":"HAT","per_user":1}]}`, "")
	f("GET", "/v1/orders?state=lost", "", "query.state")
	f("GET", "/v1/orders?limit=501", "", "query.limit")
	f("GET", "/v1/orders?usr=alice", "", "query.usr")
	f("POST", "/v1/dead-letters/x/redrive", "", "path.id")

	if a := b.call("POST", "/v1/skus", `{"id":"A","title":"`+strings.Repeat("x", 64<<10)+`"}`); a.status != 413 || a.at("code") != "too_large" {
		t.Errorf("a large body: %d %.200s", a.status, a.raw)
	}
	h := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"text/plain"}}
	if a := b.send("POST", "/v1/skus", `{}`, h); a.status != 415 || a.at("code") != "unsupported_media_type" {
		t.Errorf("text/plain: %d %s", a.status, a.raw)
	}
	if a := b.call("POST", "/v1/skus", `{"id":"A","title":"`+strings.Repeat("s3cret", 50)+`",`+sku[12:]+`}`); strings.Contains(string(a.raw), "s3cret") {
		t.Errorf("a refused value is repeated: %s", a.raw)
	}
}

func TestSKUs(t *testing.T) {
	b := newBench(t)
	cup := `{"id":"CUP","title":"杯","description":"blue","image":"/cup.svg","price":{"amount":1200,"currency":"CNY"}}`
	b.equal(b.want(201, "", "POST", "/v1/skus", cup), "id", "CUP", "version", 1, "price.amount", 1200, "title", "杯")
	b.equal(b.want(201, "", "POST", "/v1/skus", cup), "version", 1)
	b.equal(b.want(201, "", "POST", "/v1/skus", strings.Replace(cup, "1200", "1300", 1)), "version", 2)
	b.want(201, "", "POST", "/v1/skus", strings.Replace(cup, "CUP", "HAT", 1))
	b.equal(b.want(200, "", "GET", "/v1/skus", ""), "skus.0.id", "CUP", "skus.0.version", 2, "skus.1.id", "HAT", "skus.2", nil, "next", nil)
	page := b.want(200, "", "GET", "/v1/skus?limit=1", "")
	b.equal(page, "skus.0.id", "CUP", "skus.1", nil, "next", "CUP")
	b.equal(b.want(200, "", "GET", "/v1/skus?limit=1&after=CUP", ""), "skus.0.id", "HAT")
	if a := b.want(200, "", "GET", "/v1/skus?after=Z", ""); !strings.Contains(string(a.raw), `"skus":[]`) {
		t.Errorf("an empty page: %s", a.raw)
	}
}

func TestActivityDefaults(t *testing.T) {
	b := newBench(t)
	b.want(201, "", "POST", "/v1/skus", `{"id":"CUP","title":"Cup","price":{"amount":1200,"currency":"CNY"}}`)
	a := b.want(201, "", "POST", "/v1/activities", `{"id":"late","title":"Later","opens_at":"2025-11-12T00:00:00+08:00","items":[{"sku":"CUP","units":10}]}`)
	b.equal(a, "state", "scheduled", "kind", "flash", "hold_seconds", 900, "late_payment", "rereserve_or_refund", "restock", false,
		"opens_at", "2025-11-11T16:00:00.000Z", "closes_at", "2025-11-12T16:00:00.000Z",
		"items.0.price.amount", 1200, "items.0.per_order", 1)
	draft := b.want(201, "", "POST", "/v1/activities",
		`{"id":"draft","title":"Draft","restock":true,"late_payment":"refund","items":[{"sku":"CUP","units":5,"per_user":3,"price":{"amount":0,"currency":"CNY"}}]}`)
	b.equal(draft, "state", "draft", "opens_at", nil, "restock", true, "late_payment", "refund", "items.0.price.amount", 0, "items.0.per_order", 3)
	b.equal(b.want(200, "", "GET", "/v1/activities/draft", ""), "state", "draft", "counts.phase", "", "counts.activity", "draft")
	b.equal(b.want(200, "", "GET", "/v1/activities", ""), "activities.0.id", "draft", "activities.1.id", "late", "activities.2", nil)

	b.want(409, "exists", "POST", "/v1/activities", `{"id":"draft","title":"Draft","items":[{"sku":"CUP","units":5}]}`)
	b.want(404, "no_such_sku", "POST", "/v1/activities", `{"id":"x","title":"X","items":[{"sku":"HAT","units":5}]}`)
	b.want(404, "no_such_activity", "GET", "/v1/activities/x", "")
	b.want(404, "no_such_activity", "GET", "/v1/activities/x/proof", "")
	b.want(404, "no_such_activity", "POST", "/v1/activities/x/open", "")
	b.want(404, "no_such_activity", "PATCH", "/v1/activities/x", `{}`)
	b.want(404, "no_such_activity", "POST", "/v1/activities/x/stock", `{"id":"1","sku":"CUP","delta":1}`)
}

func TestActivityLife(t *testing.T) {
	b := newBench(t)
	b.sale()
	f := func(verb, state string) {
		t.Helper()
		b.equal(b.want(200, "", "POST", "/v1/activities/drop/"+verb, ""), "id", "drop", "state", state)
	}
	f("open", "open")
	f("pause", "paused")
	b.want(409, "activity_state", "POST", "/v1/activities/drop/open", "")
	f("resume", "open")
	a := b.want(200, "", "PATCH", "/v1/activities/drop", `{"title":"New","closes_at":"2025-11-11T11:00:00.5Z","hold_seconds":60,"per_user":4,"items":[{"sku":"CUP","per_user":3,"per_order":3}]}`)
	b.equal(a, "title", "New", "closes_at", "2025-11-11T11:00:00.500Z", "hold_seconds", 60, "per_user", 4, "items.0.per_user", 3, "items.0.per_order", 3, "state", "open")
	f("drain", "draining")
	b.want(409, "activity_state", "POST", "/v1/activities/drop/resume", "")
	f("close", "closed")
	b.want(409, "activity_state", "PATCH", "/v1/activities/drop", `{"title":"Again"}`)
	b.want(409, "activity_state", "POST", "/v1/activities/drop/stock", `{"id":"1","sku":"CUP","delta":1}`)
}

func TestStock(t *testing.T) {
	b := newBench(t)
	b.sale()
	b.buy("alice", 1)
	path := "/v1/activities/drop/stock"
	b.equal(b.want(200, "", "POST", path, `{"id":"d1","sku":"CUP","delta":5,"reason":"found a box"}`),
		"activity", "drop", "phase", "live", "items.0.allocated", 15, "items.0.free", 14, "items.0.held", 1)
	b.equal(b.want(200, "", "POST", path, `{"id":"d1","sku":"CUP","delta":5,"reason":"found a box"}`), "items.0.allocated", 15)
	b.want(409, "conflict", "POST", path, `{"id":"d1","sku":"CUP","delta":6}`)
	b.equal(b.want(409, "insufficient", "POST", path, `{"id":"d2","sku":"CUP","delta":-15}`), "available", 14, "sku", "CUP")
	b.equal(b.want(200, "", "POST", path, `{"id":"d3","sku":"CUP","delta":-14}`), "items.0.allocated", 1, "items.0.free", 0, "items.0.level", "all_held")
	b.want(404, "no_such_sku", "POST", path, `{"id":"d4","sku":"HAT","delta":1}`)
	b.equal(b.want(200, "", "GET", "/v1/activities/drop", ""), "counts.items.0.allocated", 1, "counts.items.0.held", 1, "items.0.units", 10)
}

func TestOrders(t *testing.T) {
	b := newBench(t)
	b.sale()
	alice, bob := b.buy("alice", 2), b.buy("bob", 1)
	b.pay("alice", alice)
	got := b.want(200, "", "GET", "/v1/orders/"+string(alice), "")
	b.equal(got, "id", string(alice), "user", "alice", "key", "key-alice", "state", "paid", "total.amount", 2400, "total.currency", "CNY",
		"lines.0.sku", "CUP", "lines.0.quantity", 2, "created_at", "2025-11-11T10:00:00.000Z", "expires_at", "2025-11-11T10:15:00.000Z",
		"payments.0.state", "captured", "captures.0.amount.amount", 2400)
	if strings.Contains(string(got.raw), "/pay/") {
		t.Errorf("the order shows its pay page: %s", got.raw)
	}
	list := func(query string, want ...stock.OrderID) answer {
		t.Helper()
		a := b.want(200, "", "GET", "/v1/orders"+query, "")
		for i, o := range want {
			b.equal(a, "orders."+string(rune('0'+i))+".id", string(o))
		}
		if a.at("orders."+string(rune('0'+len(want)))) != nil {
			t.Errorf("%s: more than %d orders: %s", query, len(want), a.raw)
		}
		return a
	}
	newest, oldest := max(alice, bob), min(alice, bob)
	list("", newest, oldest)
	list("?user=alice", alice)
	list("?state=created", bob)
	list("?activity=drop&user=bob&state=created", bob)
	list("?activity=other")
	b.equal(list("?limit=1", newest), "next", string(newest))
	list("?limit=1&before="+string(newest), oldest)

	b.want(404, "no_such_order", "GET", "/v1/orders/404", "")
	b.want(404, "no_such_order", "POST", "/v1/orders/404/fulfil", "")
	b.want(404, "no_such_order", "POST", "/v1/orders/404/refund", "")
	b.want(409, "order_state", "POST", "/v1/orders/"+string(bob)+"/fulfil", "")
	b.want(409, "order_state", "POST", "/v1/orders/"+string(bob)+"/refund", "")
	b.equal(b.want(200, "", "POST", "/v1/orders/"+string(alice)+"/fulfil", ""), "state", "fulfilled")
	b.equal(b.want(200, "", "POST", "/v1/orders/"+string(alice)+"/refund", `{"reason":"cracked"}`), "state", "refunded", "refunds.0.state", "done", "refunds.0.amount.amount", 2400)
	b.equal(b.want(200, "", "POST", "/v1/orders/"+string(alice)+"/refund", ""), "state", "refunded", "refunds.1", nil)
	b.want(409, "order_state", "POST", "/v1/orders/"+string(alice)+"/refunds/1-1-r1/retry", "") // nothing of it is stuck
}

func TestProof(t *testing.T) {
	b := newBench(t)
	b.sale()
	b.buy("alice", 2)
	a := b.want(200, "", "GET", "/v1/activities/drop/proof", "")
	b.equal(a, "activity", "drop", "ok", true, "ledger.0.held", 2, "ledger.0.free", 8, "orders.created", 1, "position.log", "wal", "violations.0", nil)
	if a.at("violations") == nil {
		t.Errorf("violations must be a list: %s", a.raw)
	}
}

func TestDeadLetters(t *testing.T) {
	b := newBench(t)
	b.sale()
	if a := b.want(200, "", "GET", "/v1/dead-letters", ""); string(a.raw) != `{"dead_letters":[]}` {
		t.Errorf("no dead letters: %s", a.raw)
	}
	b.pay("alice", b.buy("alice", 1))
	waiting, err := b.store.Pending(t.Context(), b.clock.Add(time.Hour).UnixMilli(), 10)
	if err != nil || len(waiting) == 0 {
		t.Fatalf("paying left %d events, %v", len(waiting), err)
	}
	must(t, b.store.Bury(t.Context(), waiting[0].ID, "nobody home"))
	a := b.want(200, "", "GET", "/v1/dead-letters", "")
	b.equal(a, "dead_letters.0.topic", waiting[0].Topic, "dead_letters.0.reason", "nobody home", "dead_letters.0.at", "2025-11-11T10:00:00.000Z")
	letter, _ := a.at("dead_letters.0.id").(string)
	b.equal(b.want(200, "", "POST", "/v1/dead-letters/"+letter+"/redrive", ""), "id", letter)
	b.want(404, "no_such_dead_letter", "POST", "/v1/dead-letters/"+letter+"/redrive", "")
	b.want(404, "no_such_dead_letter", "POST", "/v1/dead-letters/999/redrive", "")
	if left, err := b.store.Dead(t.Context(), 0, 10); err != nil || len(left) != 0 {
		t.Errorf("%d dead letters left, %v", len(left), err)
	}
}

// TestAudit: every changing call leaves one entry, before it is tried, and no
// other call leaves any.
func TestAudit(t *testing.T) {
	b := newBench(t)
	b.sale()
	b.want(200, "", "POST", "/v1/activities/drop/resume", "")
	b.want(200, "", "POST", "/v1/activities/drop/stock", `{"id":"d1","sku":"CUP","delta":5,"reason":"found a box"}`)
	b.want(200, "", "PATCH", "/v1/activities/drop", `{"title":"New","closes_at":"2025-11-12T00:00:00Z"}`)
	b.want(404, "no_such_order", "POST", "/v1/orders/404/refund", `{"reason":"why not"}`)
	b.want(404, "no_such_order", "POST", "/v1/orders/405/refund", "")
	b.want(404, "no_such_order", "POST", "/v1/orders/404/fulfil", "")
	b.want(404, "no_such_dead_letter", "POST", "/v1/dead-letters/7/redrive", "")
	b.want(400, "invalid_request", "POST", "/v1/skus", `{}`)
	b.want(200, "", "GET", "/v1/activities/drop", "")
	a := b.want(200, "", "GET", "/v1/audit", "")
	want := []struct{ action, subject string }{
		{"dead_letter.redrive", "7"}, {"order.fulfil", "404"}, {"order.refund", "405"}, {"order.refund", "404"},
		{"activity.edit", "drop"}, {"activity.stock", "drop"}, {"activity.resume", "drop"},
		{"activity.open", "drop"}, {"activity.create", "drop"}, {"sku.save", "CUP"},
	}
	entries, _ := a.at("entries").([]any)
	if len(entries) != len(want) {
		t.Fatalf("%d entries, want %d: %s", len(entries), len(want), a.raw)
	}
	for i, w := range want {
		at := "entries." + string(rune('0'+i))
		b.equal(a, at+".actor", "ops", at+".action", w.action, at+".subject", w.subject, at+".at", "2025-11-11T10:00:00.000Z")
	}
	b.equal(a, "entries.3.detail.reason", "why not", "entries.4.detail.closes_at", "2025-11-12T00:00:00.000Z", "entries.5.detail.delta", 5)
	page := b.want(200, "", "GET", "/v1/audit?limit=2", "")
	next, _ := page.at("next").(string)
	b.equal(page, "entries.1.action", "order.fulfil", "entries.2", nil)
	b.equal(b.want(200, "", "GET", "/v1/audit?limit=2&before="+next, ""), "entries.0.action", "order.refund")

	// What cannot be recorded is not done.
	must(t, b.store.Close())
	b.want(500, "internal", "POST", "/v1/activities/drop/close", "")
	if n, err := b.ledger.Counts(t.Context(), "drop"); err != nil || n.Phase != stock.Live {
		t.Errorf("an unrecorded close reached the ledger: %v, %v", n.Phase, err)
	}
}
