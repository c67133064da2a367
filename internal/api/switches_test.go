package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// switchedBench serves with switches, and a way to turn them.
func switchedBench(t testing.TB) (b *bench, pull func(steps ...gate.PlaybookStep)) {
	t.Helper()
	active := gate.NewActive(nil, noon.Time())
	b = newBench(t, func(c *Config) { c.Switches = active })
	return b, func(steps ...gate.PlaybookStep) {
		t.Helper()
		var pulled []gate.Pulled
		if len(steps) > 0 {
			pulled = []gate.Pulled{{Playbook: "test", Steps: steps}}
		}
		if err := active.Apply(pulled); err != nil {
			t.Fatal(err)
		}
	}
}

func every(s gate.Switches) gate.PlaybookStep { return gate.PlaybookStep{Switches: s} }

// With stale_detail a page is made again only when it has got so old, and at
// the moments that count: when a switch turns, and when the sale opens or ends.
func TestStaleDetail(t *testing.T) {
	b, pull := switchedBench(t)
	b.views[0].OpensAt, b.views[0].ClosesAt = noon+3_000, noon+10_000
	show := func(level stock.Level) {
		t.Helper()
		b.views[0].Levels[0] = level
	}
	see := func(want stock.Level) {
		t.Helper()
		for _, path := range []string{"/v1/activities", "/v1/activities/act"} {
			if a := b.do(t, "GET", path, ""); a.status != 200 || !strings.Contains(a.body, `"level":"`+string(want)+`"`) {
				t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
			}
		}
	}
	see(stock.Few)
	pull(every(gate.Switches{StaleDetail: "2s"}))
	show(stock.AllHeld)
	see(stock.AllHeld) // a switch has turned: nothing from before is shown
	show(stock.SoldOut)
	b.clock.pass(999 * time.Millisecond)
	see(stock.AllHeld)
	b.clock.pass(time.Second)
	see(stock.SoldOut) // from half of the time on, one makes it again; here there is one
	show(stock.Few)
	b.clock.pass(500 * time.Millisecond)
	see(stock.SoldOut)
	b.clock.pass(501 * time.Millisecond) // the sale opens
	see(stock.Few)
	show(stock.AllHeld)
	b.clock.pass(999 * time.Millisecond)
	see(stock.Few)
	pull()
	see(stock.AllHeld)
	show(stock.SoldOut)
	b.clock.pass(staleAt)
	see(stock.SoldOut)
}

// Levels and numbers are told as far as the switches let them be, for the
// activities that they are about, and pages say so.
func TestStockIsTold(t *testing.T) {
	b, pull := switchedBench(t)
	f := func(path string, level stock.Level, shown, degraded string) {
		t.Helper()
		b.views[0].Levels[0] = level
		b.clock.pass(staleAt)
		a := b.do(t, "GET", path, "")
		if !strings.Contains(a.body, `"level":"`+shown+`"`) || strings.Contains(a.body, "degraded") != (degraded != "") || !strings.Contains(a.body, degraded) {
			t.Errorf("%s is told as %s, want %s %s", level, a.body, shown, degraded)
		}
	}
	buys := func(want string) {
		t.Helper()
		b.set(func() { b.fail = &stock.Refusal{Err: stock.ErrInsufficient, SKU: "s1", Available: 3} })
		b.buy(t, oneLamp).wants(t, 409, `{"title":"Fewer units are free than asked for","status":409,"code":"insufficient","sku":"s1"`+want+`}`)
		b.set(func() { b.fail = nil })
	}
	f("/v1/activities/act", stock.Plenty, "plenty", "")
	buys(`,"available":3`)
	pull(gate.PlaybookStep{Activity: "act", Switches: gate.Switches{StockTight: true, HideCounts: true}})
	for _, path := range []string{"/v1/activities/act", "/v1/activities"} {
		f(path, stock.Plenty, "few", `"degraded":["hide_counts","stock_tight"]`)
		f(path, stock.Few, "few", `"stock_tight"`)
		f(path, stock.AllHeld, "all_held", `"stock_tight"`)
		f(path, stock.SoldOut, "sold_out", `"stock_tight"`)
	}
	buys("")
	pull(gate.PlaybookStep{Activity: "else", Switches: gate.Switches{StockTight: true, HideCounts: true}})
	f("/v1/activities/act", stock.Plenty, "plenty", "")
	buys(`,"available":3`)
	pull(every(gate.Switches{Captcha: true, Queue: true, LimitPercent: 10, CloseRegistration: true, ReadOnlyOrders: true}))
	f("/v1/activities/act", stock.Plenty, "plenty", `"degraded":["close_registration","read_only_orders"]`)
}

// While orders are read-only nobody begins a payment or cancels, of all
// activities or of some; reads and callbacks go on.
func TestReadOnlyOrders(t *testing.T) {
	b, pull := switchedBench(t)
	other := someOrders(1)[0]
	other.ID, other.Activity = "7", "else"
	b.orders = append(b.orders, other)
	change := func(id string, refused bool) {
		t.Helper()
		for _, path := range []string{"/payments", "/cancel"} {
			before := b.lastAsked()
			a := b.do(t, "POST", "/v1/orders/"+id+path, "")
			if !refused {
				if a.status/100 != 2 {
					t.Errorf("%s%s: %d %s", id, path, a.status, a.body)
				}
				continue
			}
			a.is(t, 503, "read_only")
			if a.header.Get("Retry-After") == "" || a.fields["rule"] != "playbook:test" || b.lastAsked() != before {
				t.Errorf("%s%s: %v %s, asked %s", id, path, a.header, a.body, b.lastAsked())
			}
		}
	}
	change("100", false)
	pull(every(gate.Switches{ReadOnlyOrders: true}))
	change("100", true)
	change("7", true)
	for _, path := range []string{"/v1/orders", "/v1/orders/100", "/v1/reservations/act.0.1.7", "/v1/activities/act"} {
		if a := b.do(t, "GET", path, ""); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := b.do(t, "POST", "/v1/payments/callbacks/sandbox", "{}"); a.status != 200 {
		t.Errorf("callback: %d %s", a.status, a.body)
	}
	b.do(t, "POST", "/v1/orders/100/cancel", "", "Authorization: ").is(t, 401, "unauthenticated")
	pull(gate.PlaybookStep{Activity: "act", Switches: gate.Switches{ReadOnlyOrders: true}})
	change("100", true)
	change("7", false)
	b.do(t, "POST", "/v1/orders/1/cancel", "").is(t, 404, "no_such_order")
	b.set(func() { b.fail = order.ErrNotReady })
	b.do(t, "POST", "/v1/orders/7/cancel", "").is(t, 503, "not_ready")
	b.set(func() { b.fail = nil })
	pull()
	change("100", false)
}

// BenchmarkActivityPage is what a page costs that is in memory.
func BenchmarkActivityPage(b *testing.B) {
	for _, stale := range []string{"", "2s"} {
		b.Run(fmt.Sprintf("stale %q", stale), func(b *testing.B) {
			active := gate.NewActive(nil, noon.Time())
			if stale != "" {
				if err := active.Apply([]gate.Pulled{{Playbook: "calm", Steps: []gate.PlaybookStep{every(gate.Switches{StaleDetail: stale})}}}); err != nil {
					b.Fatal(err)
				}
			}
			s, _ := newServer(b, &business{views: someViews()}, &clock{now: noon.Time()}, func(c *Config) { c.Switches = active })
			var ctx fasthttp.RequestCtx
			ctx.Request.SetRequestURI("/v1/activities/act")
			b.ReportAllocs()
			for b.Loop() {
				s.handle(&ctx)
			}
		})
	}
}
