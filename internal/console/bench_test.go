package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/console"
	"sluice/internal/gate"
	"sluice/internal/lib/id"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/payment/sandbox"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

const token = "correct horse battery staple"

// bench is a console before the real embedded parts: log, store, sale, orders
// and a payment provider on loopback.
type bench struct {
	t        *testing.T
	server   *httptest.Server
	store    *sqlstore.Store
	ledger   *walstock.Ledger
	shop     *sale.Shop
	desk     *order.Desk
	lander   *order.Lander
	cashier  *order.Cashier
	provider *sandbox.Client
	clock    time.Time
	ready    error
	refused  string // the last refusal of everybody
	byRule   string // and its rule
	config   console.Config
}

// audit fits the store to the console, as the composition does.
type audit struct{ *sqlstore.Store }

func (a audit) Audit(ctx context.Context, e console.AuditEntry) error {
	return a.Store.Audit(ctx, sqlstore.AuditEntry(e))
}

func (a audit) AuditLog(ctx context.Context, before int64, limit int) ([]console.AuditEntry, error) {
	found, err := a.Store.AuditLog(ctx, before, limit)
	entries := make([]console.AuditEntry, len(found))
	for i, e := range found {
		entries[i] = console.AuditEntry(e)
	}
	return entries, err
}

// editions fits it to the rulebook.
type editions struct{ *sqlstore.Store }

func (s editions) RulesVersion(ctx context.Context) (int64, error) { return s.GateRulesVersion(ctx) }

func (s editions) SaveRules(ctx context.Context, e gate.Edition) error {
	doc, err := json.Marshal(e.Rules)
	if err != nil {
		return err
	}
	saved, err := s.SaveGateRules(ctx, sqlstore.GateRules{Version: e.Version, At: e.At, Actor: e.By, Note: e.Note, Body: doc})
	if err == nil && !saved {
		err = gate.ErrRulesChanged
	}
	return err
}

func (s editions) RuleEditions(ctx context.Context, before int64, limit int) (all []gate.Edition, err error) {
	found, err := s.GateRules(ctx, before, limit)
	for _, r := range found {
		e := gate.Edition{RuleSet: gate.RuleSet{Version: r.Version}, At: r.At, By: r.Actor, Note: r.Note}
		err = errors.Join(err, json.Unmarshal(r.Body, &e.Rules))
		all = append(all, e)
	}
	return all, err
}

// newBench serves a console; change may say more of it.
func newBench(t *testing.T, change ...func(*console.Config)) *bench {
	t.Helper()
	b := &bench{t: t, clock: time.Date(2025, 11, 11, 10, 0, 0, 0, time.UTC)}
	now := func() time.Time { return b.clock }
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if b.store, err = sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "shop.db"), sqlstore.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, b.store.Close()) })
	if b.ledger, err = walstock.Open(filepath.Join(t.TempDir(), "stock"), walstock.Options{Log: quiet, SegmentSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, b.ledger.Close()) })
	b.commits()
	b.providers(now)
	b.shop = sale.NewShop(b.ledger, b.ledger.Board(), sale.OpenGate{}, id.NewSource(1, now), b.store, b.store, now)
	alarms := order.NewAlarms(quiet)
	b.cashier = order.NewCashier(b.store, []payment.Provider{b.provider}, func(string) string { return "http://127.0.0.1:1/callback" }, alarms, quiet, now)
	b.lander = order.NewLander(order.Landing{
		Store: b.store, Log: b.ledger, LogID: walstock.LogID, Alarms: alarms, Logger: quiet, Now: now,
		Snapshots: order.NewSnapshots(func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
			p, err := b.store.Product(ctx, sku, version)
			if err != nil {
				return nil, err
			}
			return json.Marshal(p)
		}),
	})
	b.desk = order.NewDesk(b.store, b.ledger, b.cashier, nil, now)
	b.config = console.Config{
		Token: token, Version: "test", Log: quiet, Now: now, Metrics: prometheus.NewRegistry(),
		Ready: func(context.Context) error { return b.ready },
		Sale:  sale.NewDesk(b.shop), Orders: b.desk, Products: b.store, OrderRows: b.store, Ledger: b.ledger,
		Proof: proof.New(b.store, b.ledger, walstock.LogID, now).Check, Proofs: func() []proof.Report { return nil },
		Trail: proof.NewTrail(b.ledger, walstock.LogID),
		LastRefusal: func(stock.ActivityID, stock.UserID) (gate.Refusal, bool) {
			return gate.Refusal{Code: b.refused, Rule: b.byRule, At: b.clock}, b.refused != ""
		},
		Rules:       gate.NewRulebook(editions{b.store}, gate.NewDoor(now(), gate.NewSeal([]byte("the secret of a shop, for tests")), nil), now),
		Lists:       gate.NewListbook(listings{b.store}, gate.NewLists(), now),
		DeadLetters: b.store, Audit: audit{b.store},
	}
	for _, f := range change {
		f(&b.config)
	}
	b.server = httptest.NewServer(console.New(b.config))
	t.Cleanup(b.server.Close)
	return b
}

// commits runs the ledger's committer until the test ends.
func (b *bench) commits() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := b.ledger.Commit(ctx); err != nil && ctx.Err() == nil {
				b.t.Error(err)
				return
			}
			select {
			case <-b.ledger.Wake():
			case <-ctx.Done():
				return
			}
		}
	})
	b.t.Cleanup(func() { stop(); wg.Wait() })
}

func (b *bench) providers(now func() time.Time) {
	b.t.Helper()
	secret := []byte("sixteen bytes at least")
	server, err := sandbox.Open(filepath.Join(b.t.TempDir(), "sandbox"), sandbox.Options{Secret: secret, Now: now})
	if err != nil {
		b.t.Fatal(err)
	}
	front := httptest.NewServer(server.Handler())
	if b.provider, err = sandbox.NewClient(front.URL, sandbox.ClientOptions{Secret: secret, Now: now}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		b.provider.Close()
		front.Close()
		must(b.t, server.Close())
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
}

// at finds a value in the JSON body by a path such as "items.0.sku".
func (a answer) at(path string) any {
	var v any
	if json.Unmarshal(a.raw, &v) != nil {
		return nil
	}
	for step := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

func (b *bench) send(method, path, body string, header http.Header) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, strings.NewReader(body))
	must(b.t, err)
	req.Header = header
	resp, err := b.server.Client().Do(req)
	must(b.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return answer{resp.StatusCode, resp.Header, bytes.TrimSpace(raw)}
}

// call sends JSON with the token.
func (b *bench) call(method, path, body string) answer {
	b.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + token}}
	if body != "" {
		h.Set("Content-Type", "application/json")
	}
	return b.send(method, path, body, h)
}

// want calls and checks status and, for an error, its code.
func (b *bench) want(status int, code, method, path, body string) answer {
	b.t.Helper()
	a := b.call(method, path, body)
	if a.status != status {
		b.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.raw, status)
	}
	if code == "" {
		if ct := a.header.Get("Content-Type"); ct != "application/json" {
			b.t.Errorf("%s %s: content type %q", method, path, ct)
		}
		return a
	}
	if a.at("code") != code || a.at("status") != float64(status) || a.header.Get("Content-Type") != "application/problem+json" {
		b.t.Errorf("%s %s %s: %s as %s, want code %s", method, path, body, a.raw, a.header.Get("Content-Type"), code)
	}
	return a
}

// equal checks values in a body: path, value, path, value, ….
func (b *bench) equal(a answer, pairs ...any) {
	b.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		want := pairs[i+1]
		if n, ok := want.(int); ok {
			want = float64(n)
		}
		if got := a.at(pairs[i].(string)); got != want {
			b.t.Errorf("%s is %v, want %v, in %s", pairs[i], got, want, a.raw)
		}
	}
}

// sale creates a SKU and an activity of 10 units that is open now.
func (b *bench) sale() {
	b.t.Helper()
	b.want(201, "", "POST", "/v1/skus", `{"id":"CUP","title":"Cup","price":{"amount":1200,"currency":"CNY"}}`)
	b.want(201, "", "POST", "/v1/activities", `{"id":"drop","title":"Drop","items":[{"sku":"CUP","units":10,"per_user":2}]}`)
	b.want(200, "", "POST", "/v1/activities/drop/open", "")
}

// buy reserves for a user and lands the order.
func (b *bench) buy(user string, quantity int) stock.OrderID {
	b.t.Helper()
	r, err := b.shop.Purchase(b.t.Context(), sale.PurchaseRequest{
		Activity: "drop", User: stock.UserID(user), Key: "key-" + user, Lines: []stock.Line{{SKU: "CUP", Quantity: quantity}},
	})
	must(b.t, err)
	_, err = b.lander.Step(b.t.Context())
	must(b.t, err)
	return r.Order
}

// pay pays a user's order at the provider and takes its report.
func (b *bench) pay(user string, o stock.OrderID) {
	b.t.Helper()
	payURL, err := b.desk.Pay(b.t.Context(), stock.UserID(user), o, "http://127.0.0.1:1/back")
	must(b.t, err)
	req, err := http.NewRequestWithContext(b.t.Context(), "POST", payURL, strings.NewReader("action=pay"))
	must(b.t, err)
	req.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	resp, err := b.server.Client().Do(req)
	must(b.t, err)
	must(b.t, resp.Body.Close())
	st, err := b.provider.Query(b.t.Context(), string(o)+"-1")
	must(b.t, err)
	_, err = b.cashier.Apply(b.t.Context(), o, st)
	must(b.t, err)
}
