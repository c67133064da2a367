package api

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// hourly is a rule of so many an hour, so that no test waits for its end.
func hourly(id, class string, most int64, key ...string) gate.Rule {
	return gate.Rule{ID: id, Class: class, Key: key, Mode: gate.On, Percent: 100, Rate: gate.Rate{Algorithm: "token", Limit: most, Per: "1h"}}
}

func limits(t testing.TB, rules ...gate.Rule) *gate.Limits {
	t.Helper()
	l := gate.NewLimits(time.Now())
	if err := l.Apply(gate.Edition{RuleSet: gate.RuleSet{Version: 1, Rules: rules}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return l
}

// limitedBench serves by rules; its shop asks them as the real one's gate does.
func limitedBench(t testing.TB, change func(*Config), rules ...gate.Rule) *bench {
	t.Helper()
	l := limits(t, rules...)
	b := newBench(t, func(c *Config) {
		c.Rules = l
		if change != nil {
			change(c)
		}
	})
	b.purchase = func(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error) {
		return receiptOf(stock.Held), l.Enter(ctx, time.Now(), r.Origin.(gate.Origin).Facts())
	}
	return b
}

// A refusal by a rule names it, and says how often and when to try again.
func TestRateLimitedReply(t *testing.T) {
	var log bytes.Buffer
	b := limitedBench(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}, hourly("per-user", "purchases", 2, "user"))
	for range 2 {
		if a := b.buy(t, oneLamp); a.status != 202 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	fields := regexp.MustCompile(`^"per-user";r=0;t=(\d+)$`)
	for range 20 {
		a := b.buy(t, oneLamp)
		a.wants(t, 429, `{"title":"Too many requests","status":429,"code":"rate_limited","rule":"per-user"}`)
		if got := a.header.Get("RateLimit-Policy"); got != `"per-user";q=2;w=3600` {
			t.Errorf("RateLimit-Policy: %s", got)
		}
		found := fields.FindStringSubmatch(a.header.Get("RateLimit"))
		if found == nil {
			t.Fatalf("RateLimit: %s", a.header.Get("RateLimit"))
		}
		until, _ := strconv.Atoi(found[1])
		wait, _ := strconv.Atoi(a.header.Get("Retry-After"))
		if until < 1790 || until > 1800 || wait < until || wait > until+190 {
			t.Errorf("RateLimit: %s, Retry-After: %d", found[0], wait)
		}
	}
	last, ok := b.server.LastRefusal("act", "alice")
	if !ok || last.Code != "rate_limited" || last.Rule != "per-user" {
		t.Errorf("last refusal: %+v, %v", last, ok)
	}
	if n := b.server.Metrics().Refused["rate_limited"]; n != 20 {
		t.Errorf("%d counted", n)
	}
	lines := strings.Count(log.String(), `msg="refused by a rule" rule=per-user code=rate_limited path=/v1/activities/act/purchases user=alice`)
	if infos := strings.Count(log.String(), "level=INFO"); lines != 20 || infos < 1 || infos > 3 {
		t.Errorf("%d lines, %d at info:\n%s", lines, infos, log.String())
	}
	other := "Authorization: Bearer " + mint(t, "bob", b.clock.Now())
	if a := b.buy(t, oneLamp, other); a.status != 202 {
		t.Errorf("somebody else: %d %s", a.status, a.body)
	}
}

// Reading and paying are limited by their own rules; callbacks, the clock and
// pages by none.
func TestRoutesAndTheirRules(t *testing.T) {
	b := limitedBench(t, nil, hourly("read", "reads", 3, "user"), hourly("pay", "payments", 1, "user"))
	read := func(path string, status int) {
		t.Helper()
		a := b.do(t, "GET", path, "")
		if a.status != status || status == 429 && a.fields["rule"] != "read" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	read("/v1/orders", 200)
	read("/v1/reservations/act.0.1.7", 200)
	read("/v1/activities/act", 200)
	for _, path := range []string{"/v1/orders", "/v1/orders/100", "/v1/activities", "/v1/activities/act", "/v1/reservations/act.0.1.7", "/v1/reservations/act.0.1.7/events", "/v1/notifications"} {
		read(path, 429)
	}
	read("/v1/time", 200)
	read("/", 200)
	if a := b.do(t, "POST", "/v1/orders/100/payments", ""); a.status != 201 {
		t.Errorf("paying: %d %s", a.status, a.body)
	}
	b.do(t, "POST", "/v1/orders/100/cancel", "").is(t, 429, "rate_limited")
	for range 3 {
		if a := b.do(t, "POST", "/v1/payments/callbacks/sandbox", "{}"); a.status != 200 {
			t.Errorf("callback: %d %s", a.status, a.body)
		}
	}
	// Without a good token nobody's permits are used, and nobody is let in.
	forged := "Authorization: Bearer " + mint(t, "carol", b.clock.Now()) + "x"
	for range 5 {
		b.do(t, "GET", "/v1/orders", "", forged).is(t, 401, "unauthenticated")
	}
	if a := b.do(t, "GET", "/v1/orders", "", "Authorization: Bearer "+mint(t, "carol", b.clock.Now())); a.status != 200 {
		t.Errorf("carol herself: %d %s", a.status, a.body)
	}
	if n := b.server.Metrics().InFlight["read"]; n != 0 {
		t.Errorf("%d reads in flight", n)
	}
}

// TestForwardedFor: the address is the last one that is not ours; what a client
// writes before it changes nothing.
func TestForwardedFor(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f := func(trusted []netip.Prefix, want string, lines ...string) {
		t.Helper()
		b := limitedBench(t, func(c *Config) { c.Trusted = trusted }, hourly("net", "purchases", 100, "ip"))
		var got netip.Addr
		b.purchase = func(_ context.Context, r sale.PurchaseRequest) (stock.Receipt, error) {
			got = r.Origin.(gate.Origin).Facts().IP
			return receiptOf(stock.Held), nil
		}
		r, err := http.NewRequest("POST", b.url+purchasePath, strings.NewReader(oneLamp))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Authorization": {"Bearer " + b.token}, "Content-Type": {"application/json"}, "Idempotency-Key": {"k"}, "X-Forwarded-For": lines}
		response, err := b.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got.String() != want {
			t.Errorf("%q with %v: %s, want %s", lines, trusted, got, want)
		}
	}
	f(nil, "127.0.0.1")
	f(nil, "127.0.0.1", "198.51.100.7")
	f(proxies[1:], "127.0.0.1", "198.51.100.7")
	f(proxies, "127.0.0.1")
	f(proxies, "198.51.100.7", "198.51.100.7")
	f(proxies, "198.51.100.7", "203.0.113.9, 198.51.100.7")                             // forged before the proxy's own
	f(proxies, "198.51.100.7", "203.0.113.9, 198.51.100.7, 10.1.2.3")                   // two proxies
	f(proxies, "198.51.100.7", "203.0.113.9", "198.51.100.7,10.1.2.3")                  // as two lines
	f(proxies, "198.51.100.7", "10.0.0.1, 198.51.100.7")                                // a forged address of ours
	f(proxies, "10.1.2.3", "10.1.2.3")                                                  // a proxy itself asks
	f(proxies, "127.0.0.1", "198.51.100.7, unknown")                                    // what cannot be read ends it
	f(proxies, "10.1.2.3", "198.51.100.7, _hidden, 10.1.2.3")                           //
	f(proxies, "198.51.100.7", "198.51.100.7:4711")                                     // with a port
	f(proxies, "2001:db8::1", "[2001:db8::1]:4711, fd00::2")                            //
	f(proxies, "198.51.100.7", "::ffff:198.51.100.7")                                   //
	f(proxies, "10.0.0.9", "203.0.113.9, "+strings.Repeat("10.0.0.9, ", 40)+"10.0.0.9") // no end of them
	f(proxies, "127.0.0.1", strings.Repeat(",", 1000))
}

// A whole refusal by a rule allocates nothing, as any other.
func TestARateLimitedReplyAllocatesNothing(t *testing.T) {
	l := limits(t, hourly("user", "purchases", 1, "user"), hourly("net", "purchases", 1, "ip"))
	b := &business{purchase: func(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error) {
		return stock.Receipt{}, l.Enter(ctx, time.Now(), r.Origin.(gate.Origin).Facts())
	}}
	at := &clock{now: noon.Time()}
	s, _ := newServer(t, b, at, func(c *Config) { c.Rules = l })
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n"+
		"Idempotency-Key: 3e0a3c4e-0d6c-4a57\r\nContent-Length: %d\r\n\r\n%s", purchasePath, mint(t, "user-123456", at.Now()), len(oneLamp), oneLamp)
	w := &wire{request: []byte(request), left: 3, keep: true}
	if err := s.http.ServeConn(w); err != nil || !bytes.Contains(w.last, []byte(`"code":"rate_limited","rule":"user"`)) {
		t.Fatalf("%s, %v", w.last, err)
	}
	w.keep = false
	const requests = 1000
	perConnection := testing.AllocsPerRun(5, func() { w.left = 1; _ = s.http.ServeConn(w) })
	perFlood := testing.AllocsPerRun(5, func() { w.left = 1 + requests; _ = s.http.ServeConn(w) })
	if extra := perFlood - perConnection; pooled && extra > 20 {
		t.Errorf("%v allocations in %d refusals", extra, requests)
	}
}
