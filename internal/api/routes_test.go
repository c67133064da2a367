package api

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/gate"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

func TestPathsFindTheirRoutes(t *testing.T) {
	f := func(path string, want route, param string) {
		t.Helper()
		if to, got, found := match(path); !found || to != want || got != param {
			t.Errorf("%s: %d %q %v, want %d %q", path, to, got, found, want, param)
		}
	}
	f("/v1/time", routeTime, "")
	f("/v1/activities", routeActivities, "")
	f("/v1/activities/a", routeActivity, "a")
	f("/v1/activities/a/purchases", routePurchase, "a")
	f("/v1/reservations/a.0.1.2", routeReservation, "a.0.1.2")
	f("/v1/reservations/a.0.1.2/events", routeEvents, "a.0.1.2")
	f("/v1/orders", routeOrders, "")
	f("/v1/orders/7", routeOrder, "7")
	f("/v1/orders/7/payments", routePay, "7")
	f("/v1/orders/7/cancel", routeCancel, "7")
	f("/v1/payments/callbacks/sandbox", routeCallback, "sandbox")
	f("/demo/token", routeDemo, "")
	f("/openapi.json", routeOpenAPI, "")
	f("/", routeShell, "")
	f("/a/act", routeShellOf, "act")
	f("/assets/app.js", routeAsset, "/assets/app.js")
	f("/images/b/c.svg", routeImage, "/images/b/c.svg")
	for _, path := range []string{"", "x", "/v1", "/v1/", "/v1/time/", "/v2/time", "/v1/activities/", "/v1/activities//purchases",
		"/v1/activities/a/", "/v1/activities/a/b", "/v1/activities/a/purchases/", "/v1/reservations", "/v1/reservations/", "/v1/reservations//events",
		"/v1/reservations/x/", "/v1/orders/", "/v1/orders//cancel", "/v1/orders/7/refund", "/v1/orders/7/cancel/x", "/v1/payments", "/v1/payments/callbacks",
		"/v1/payments/callbacks/", "/v1/payments/callbacks/a/b", "/v1/payments/other/a", "/assets/", "/images/", "/a/", "/a/b/c", "/a/%", "/demo", "/livez"} {
		if to, _, found := match(path); found {
			t.Errorf("%q leads to %s", path, endpoints[to].pattern)
		}
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	b := newBench(t, nil)
	for _, e := range endpoints {
		path := strings.NewReplacer("{id}", "a", "{provider}", "p", "{name}", "n").Replace(e.pattern)
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if strings.Contains(e.allowed(), method) {
				continue
			}
			a := b.do(t, method, path, "")
			a.is(t, 405, "method_not_allowed")
			if a.header.Get("Allow") != e.allowed() {
				t.Errorf("%s %s: Allow %q", method, path, a.header.Get("Allow"))
			}
		}
	}
	if a := b.do(t, "HEAD", "/v1/time", ""); a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: %d %q %v", a.status, a.body, a.header)
	}
}

// TestTheDocumentIsTheAPI compares openapi.json with the routes and the error
// table, both ways.
func TestTheDocumentIsTheAPI(t *testing.T) {
	b := newBench(t, nil)
	served := b.do(t, "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref        string `json:"$ref"`
						Properties map[string]struct{ Enum []string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(served.body), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("openapi %q, %v", doc.OpenAPI, err)
	}
	status := map[string]int{}
	for _, p := range problems {
		status[p.name] = p.status
	}
	documented := doc.Components.Schemas["Problem"].Properties["code"].Enum
	if got, want := slices.Sorted(slices.Values(documented)), slices.Sorted(maps.Keys(status)); !slices.Equal(got, want) {
		t.Errorf("codes of Problem: %v, of the table: %v", got, want)
	}
	used, operations := map[string]bool{}, map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			operations[strings.ToUpper(method)+" "+path] = true
			for answered, r := range op.Responses {
				n, _ := strconv.Atoi(answered)
				problem, ok := r.Content["application/problem+json"]
				if ok != (n >= 400) {
					t.Errorf("%s %s: %d is not a problem document", method, path, n)
				}
				for _, c := range problem.Schema.Properties["code"].Enum {
					used[c] = true
					if status[c] != n {
						t.Errorf("%s %s: %s stands under %d, the table says %d", method, path, c, n, status[c])
					}
				}
			}
		}
	}
	for name := range status {
		if !used[name] {
			t.Errorf("no operation answers %s", name)
		}
	}
	for _, e := range endpoints {
		if !operations[e.method+" "+e.pattern] {
			t.Errorf("%s %s is not documented", e.method, e.pattern)
		}
		delete(operations, e.method+" "+e.pattern)
	}
	if len(operations) > 0 {
		t.Errorf("documented, but not served: %v", operations)
	}
	checkReferences(t, served.fields, served.fields)
}

// checkReferences follows every $ref of the document.
func checkReferences(t *testing.T, doc map[string]any, node any) {
	t.Helper()
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			checkReferences(t, doc, child)
		}
	case map[string]any:
		if to, ok := n["$ref"].(string); ok {
			var at any = doc
			for _, step := range strings.Split(strings.TrimPrefix(to, "#/"), "/") {
				object, _ := at.(map[string]any)
				at = object[step]
			}
			if at == nil {
				t.Errorf("%s leads nowhere", to)
			}
		}
		for _, child := range n {
			checkReferences(t, doc, child)
		}
	}
}

func TestTimeAndActivities(t *testing.T) {
	b := newBench(t, nil)
	b.do(t, "GET", "/v1/time", "", "Authorization: ").wants(t, 200, `{"now":1893499200123}`)
	const act = `{"id":"act","kind":"flash","title":"Lamps","state":"open","opens_at":"2030-01-01T12:00:00.123Z","closes_at":"2030-01-01T13:00:00.123Z",` +
		`"items":[{"sku":"s1","title":"A lamp","description":"Gives light","image":"/images/lamp.svg","price":{"amount":1990,"currency":"CNY"},"level":"few","per_user":1,"per_order":1}]}`
	b.do(t, "GET", "/v1/activities", "", "Authorization: ").wants(t, 200, `{"activities":[`+act+`]}`)
	b.do(t, "GET", "/v1/activities/act", "").wants(t, 200, act)

	// A change shows within 50 ms, and no sooner is anything rendered again.
	b.views[0].Levels[0] = stock.SoldOut
	b.do(t, "GET", "/v1/activities/act", "").wants(t, 200, act)
	b.clock.pass(staleAt)
	b.do(t, "GET", "/v1/activities/act", "").wants(t, 200, strings.Replace(act, "few", "sold_out", 1))
	if a := b.do(t, "GET", "/v1/activities", ""); !strings.Contains(a.body, "sold_out") {
		t.Errorf("list is stale: %s", a.body)
	}

	for i := range 100 {
		b.do(t, "GET", fmt.Sprintf("/v1/activities/x%d", i), "").is(t, 404, "no_such_activity")
	}
	b.do(t, "GET", "/v1/activities/"+strings.Repeat("x", 65), "").is(t, 404, "no_such_activity")
	if n := len(b.server.bodies.byID); n != 1 {
		t.Errorf("%d bodies remembered: outsiders fill the memory", n)
	}
}

// TestOneRendersWhileOthersAreServed: between fresh and stale, the old body is
// good enough for everybody but the one who renders the new one.
func TestOneRendersWhileOthersAreServed(t *testing.T) {
	const freshFor = staleAt / 2
	var r renderedBody
	now, in := noon.Time(), (*gate.Active)(nil).Now()
	get := func(at time.Duration, render func() ([]byte, error)) string {
		t.Helper()
		body, err := r.get(now.Add(at), in, "act", func() ([]byte, stock.Millis, error) {
			body, err := render()
			return body, never, err
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	nobody := func() ([]byte, error) { t.Error("rendered"); return nil, nil }
	give := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(get(0, give("one")), "one")
	f(get(freshFor-1, nobody), "one")
	f(get(freshFor, func() ([]byte, error) {
		f(get(staleAt-1, nobody), "one")
		return []byte("two"), nil
	}), "two")
	f(get(freshFor+staleAt, give("three")), "three")
	f(get(0, give("back in time")), "back in time")
}

func TestReservationsAndOrders(t *testing.T) {
	b := newBench(t, nil)
	a := b.do(t, "GET", "/v1/reservations/act.0.1.7", "")
	a.wants(t, 200, `{"reservation":"act.0.1.7","order":"42","state":"held","order_state":"created","expires_at":"2030-01-01T12:01:00.123Z","total":{"amount":1990,"currency":"CNY"}}`)
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a personal answer may be cached: %v", a.header)
	}
	mallory := "Authorization: Bearer " + mint(t, "mallory", b.clock.Now())
	b.do(t, "GET", "/v1/reservations/act.0.1.7", "", mallory).is(t, 404, "no_such_reservation")
	b.do(t, "GET", "/v1/orders/100", "", mallory).is(t, 404, "no_such_order")
	for _, path := range []string{"/v1/reservations/act.0.1.7", "/v1/orders", "/v1/orders/100"} {
		b.do(t, "GET", path, "", "Authorization: ").is(t, 401, "unauthenticated")
	}
	for _, path := range []string{"/v1/orders/100/payments", "/v1/orders/100/cancel"} {
		b.do(t, "POST", path, "", "Authorization: ").is(t, 401, "unauthenticated")
	}

	const one = `{"id":"100","reservation":"act.0.1.7","activity":"act","state":"created","created_at":"2030-01-01T12:00:00.123Z","expires_at":"2030-01-01T12:01:00.123Z",` +
		`"total":{"amount":1990,"currency":"CNY"},"lines":[{"sku":"s1","title":"A \u003clamp\u003e","image":"/images/lamp.svg","quantity":1,"unit":1990,"total":1990}]}`
	b.do(t, "GET", "/v1/orders/100", "").wants(t, 200, one)
	b.do(t, "POST", "/v1/orders/100/cancel", "").wants(t, 200, one)
	b.do(t, "POST", "/v1/orders/100/cancel", "{}").wants(t, 200, one)
	b.do(t, "POST", "/v1/orders/100/cancel", `{"why":"x"}`).is(t, 400, "invalid_request")
	b.do(t, "POST", "/v1/orders/100/cancel", "{}", "Content-Type: text/plain").is(t, 415, "unsupported_media_type")

	page := func(query string, ids []string, next any, asked string) {
		t.Helper()
		a := b.do(t, "GET", "/v1/orders"+query, "")
		var got []string
		for _, o := range a.fields["orders"].([]any) {
			got = append(got, o.(map[string]any)["id"].(string))
		}
		if !slices.Equal(got, ids) || a.fields["next"] != next || b.lastAsked() != asked {
			t.Errorf("%s: %v next %v, asked %q", query, got, a.fields["next"], b.lastAsked())
		}
	}
	page("", []string{"100", "99", "98"}, nil, `alice lists 21 before ""`)
	page("?limit=2", []string{"100", "99"}, "99", `alice lists 3 before ""`)
	page("?before=101&limit=3", []string{"100", "99", "98"}, nil, `alice lists 4 before "101"`)
	for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?limit=1&limit=2", "?before=", "?before=" + strings.Repeat("1", 65), "?user=bob"} {
		b.do(t, "GET", "/v1/orders"+query, "").is(t, 400, "invalid_request")
	}
}

func TestOrdersShowWhatBecameOfTheMoney(t *testing.T) {
	cny := func(n int64) pricing.Money { return pricing.Money{Amount: n, Currency: "CNY"} }
	f := func(refunds []order.Refund, want string) {
		t.Helper()
		o := someOrders(1)[0]
		o.Money.Refunds = refunds
		o.LateOf, o.ReplacedBy, o.PaidAt, o.Reason = "77-2", "78", noon, "late"
		shown, err := showOrder(&o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		_, tail, _ := strings.Cut(string(got), `"replaced_by"`)
		if want = `:"78","late_of":"77"` + want + "}"; tail != want || shown.PaidAt == "" || shown.Reason != "late" {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f(nil, "")
	f([]order.Refund{{Amount: cny(5), State: order.RefundDone}, {Amount: cny(7), State: order.RefundDone}}, `,"refunded":{"amount":12,"currency":"CNY","state":"done"}`)
	f([]order.Refund{{Amount: cny(5), State: order.RefundDone}, {Amount: cny(7), State: order.RefundRequested}}, `,"refunded":{"amount":12,"currency":"CNY","state":"pending"}`)
	f([]order.Refund{{Amount: pricing.Money{Amount: 9, Currency: "USD"}, State: order.RefundDone}}, `,"refunded":{"amount":9,"currency":"USD","state":"done"}`)
	f([]order.Refund{{Amount: pricing.Money{Amount: 9, Currency: "USD"}, State: order.RefundDone}, {Amount: cny(1), State: order.RefundDone}}, `,"refunded":{"amount":1,"currency":"CNY","state":"done"}`)

	before := someOrders(1)[0]
	before.Products = nil // not landed yet
	if shown, err := showOrder(&before); err != nil || shown.Lines[0].Title != "s1" {
		t.Errorf("%+v, %v", shown, err)
	}
}

func TestPaymentsAndCallbacks(t *testing.T) {
	b := newBench(t, nil)
	f := func(body, asked string) {
		t.Helper()
		b.do(t, "POST", "/v1/orders/42/payments", body).wants(t, 201, `{"pay_url":"http://pay.example/42-1"}`)
		if b.lastAsked() != asked {
			t.Errorf("asked %q, want %q", b.lastAsked(), asked)
		}
	}
	f("", `alice pays 42, back to ""`)
	f("{}", `alice pays 42, back to ""`)
	f(`{"return_url":"https://shop.example/a/act?order=42"}`, `alice pays 42, back to "https://shop.example/a/act?order=42"`)
	for _, body := range []string{"[]", `{"return_url":1}`, `{"return_url":""}`, `{"return_url":"/a/act"}`, `{"return_url":"javascript:alert(1)"}`,
		`{"return_url":"ftp://x/"}`, `{"return_url":"http://"}`, `{"return_url":"http://a:b@x/"}`, `{"return_url":"http://x/ y"}`, `{"return_url":"http://x/\u0000"}`,
		`{"return_url":"http://x/` + strings.Repeat("x", maxURL) + `"}`, `{"url":"http://x/"}`, `{"return_url":"http://x/","return_url":"http://y/"}`} {
		b.do(t, "POST", "/v1/orders/42/payments", body).is(t, 400, "invalid_request")
	}
	if b.lastAsked() != `alice pays 42, back to "https://shop.example/a/act?order=42"` {
		t.Errorf("a refused body reached the orders: %q", b.lastAsked())
	}
	// Callbacks need no token and are no JSON of ours.
	b.do(t, "POST", "/v1/payments/callbacks/sandbox", "a=b", "Authorization: ", "Content-Type: x/y", "X-Signature: s1g").wants(t, 200, `{"received":true}`)
	if want := `sandbox says "a=b" signed s1g`; b.lastAsked() != want {
		t.Errorf("asked %q, want %q", b.lastAsked(), want)
	}
}

func TestDemoHandsOutShoppers(t *testing.T) {
	newBench(t, nil).do(t, "POST", "/demo/token", "").is(t, 404, "not_found")

	b := newBench(t, func(c *Config) { c.Demo = &Demo{Key: secret, TTL: time.Hour} })
	f := func(body, user string) {
		t.Helper()
		a := b.do(t, "POST", "/demo/token", body, "Authorization: ")
		got, _ := a.fields["user"].(string)
		id, err := b.server.verifier.Verify([]byte(fmt.Sprint(a.fields["token"])))
		if a.status != 200 || err != nil || string(id.User) != got || (user != "" && user != got) || a.fields["expires_at"] != "2030-01-01T13:00:00.123Z" {
			t.Errorf("%s: %s, %+v, %v", body, a.body, id, err)
		}
	}
	f("", "")
	f("{}", "")
	f(`{"user":"bob"}`, "bob")
	b.do(t, "POST", "/demo/token", `{"user":"a b"}`).is(t, 400, "invalid_request")
	b.do(t, "POST", "/demo/token", `{"role":"admin"}`).is(t, 400, "invalid_request")
	if one, two := b.do(t, "POST", "/demo/token", ""), b.do(t, "POST", "/demo/token", ""); one.fields["user"] == two.fields["user"] {
		t.Errorf("the same shopper twice: %v", one.fields["user"])
	}
}

func TestStaticFiles(t *testing.T) {
	b := newBench(t, nil)
	f := func(path, accept, body, encoding, tag, cache, policy string) {
		t.Helper()
		a := b.do(t, "GET", path, "", "Authorization: ", "Accept-Encoding: "+accept)
		h := a.header
		if a.status != 200 || a.body != body || h.Get("Content-Encoding") != encoding || h.Get("ETag") != tag || h.Get("Cache-Control") != cache ||
			!strings.Contains(h.Get("Content-Security-Policy"), policy) || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" || h.Get("Server") != "" {
			t.Errorf("%s: %d %q %v", path, a.status, a.body, h)
		}
		for _, known := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, "*"} {
			if a := b.do(t, "GET", path, "", "If-None-Match: "+known, "Accept-Encoding: "+accept); a.status != 304 || a.body != "" || a.header.Get("ETag") != tag {
				t.Errorf("%s with %s: %d %q", path, known, a.status, a.body)
			}
		}
		if a := b.do(t, "GET", path, "", `If-None-Match: "other"`, "Accept-Encoding: "+accept); a.status != 200 {
			t.Errorf("%s with another tag: %d", path, a.status)
		}
	}
	const forever = "public, max-age=31536000, immutable"
	f("/", "identity", "<!doctype html>shell", "", `"s"`, "no-cache", "default-src 'self'")
	f("/a/act", "gzip, br", "zipped shell", "gzip", `W/"s"`, "no-cache", "default-src 'self'")
	f("/assets/app.1.js", "gzip", "let a", "", `"a"`, forever, "")
	svg := b.do(t, "GET", "/images/lamp.svg", "", "Accept-Encoding: identity")
	f("/images/lamp.svg", "identity", svg.body, "", svg.header.Get("ETag"), "public, max-age=300", "default-src 'none'")
	zipped, err := gzip.NewReader(strings.NewReader(b.do(t, "GET", "/images/lamp.svg", "", "Accept-Encoding: gzip").body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(zipped); err != nil || string(body) != svg.body || svg.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("%q, %v, %v", body, err, svg.header)
	}
	for _, path := range []string{"/images/secret.txt", "/images/../server.go", "/images/%2e%2e/server.go", "/images/", "/assets/none.js", "/assets/../images/lamp.svgx"} {
		if a := b.do(t, "GET", path, ""); a.status != 404 {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

func TestTooManyImages(t *testing.T) {
	big := make([]byte, maxImages/2+1)
	_, err := newFiles(Asset{}, nil, fstest.MapFS{"a.png": {Data: big}, "b.png": {Data: big}})
	if err == nil || !strings.Contains(err.Error(), "64 MB") {
		t.Error(err)
	}
}

func FuzzPath(f *testing.F) {
	for _, e := range endpoints {
		f.Add(e.pattern)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if to, param, found := match(path); found && strings.Contains(endpoints[to].pattern, "{") && param == "" {
			t.Fatalf("%q: %s without its parameter", path, endpoints[to].pattern)
		}
	})
}

// FuzzTokenHeader: no header but the one with our token lets anyone in.
func FuzzTokenHeader(f *testing.F) {
	s, _ := newServer(f, &business{}, &clock{now: noon.Time()}, nil)
	token := mint(f, "alice", noon.Time())
	f.Add("Bearer " + token)
	f.Add("Bearer " + token + ".")
	f.Add("bearer")
	f.Add("Basic " + token)
	f.Fuzz(func(t *testing.T, header string) {
		id, err := s.identifyHeader([]byte(header))
		good := len(header) > 7 && strings.EqualFold(header[:7], "Bearer ") && header[7:] == token
		if (err == nil) != good || (err != nil && id != (gate.Identity{})) {
			t.Fatalf("%q: %+v, %v", header, id, err)
		}
	})
}
