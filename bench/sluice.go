package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"sluice/internal/gate"
	"sluice/test/servers"
)

const opsToken = "bench-ops-token"

// engine is a running `sluice serve` on one core.
type engine struct {
	subject
	ops    string // address of the ops API
	secret []byte // that signs shoppers' tokens
}

// startEngine runs the binary on a fresh data directory, with all its roles. env
// may configure it otherwise.
func startEngine(t servers.TB, binary string, env ...string) (*engine, error) {
	ops, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := servers.Start(t, servers.Program{
		Name: "sluice",
		Path: binary,
		Args: func(addr, dir string) ([]string, error) {
			return []string{"serve", "--data", filepath.Join(dir, "data"), "--listen", addr, "--ops", ops}, nil
		},
		Env: append([]string{"GOMAXPROCS=1", "SLUICE_OPS_TOKEN=" + opsToken}, env...),
		Ready: func(ctx context.Context, _ string) error {
			r, err := call(ctx, http.MethodGet, "http://"+ops+"/readyz", nil, nil)
			if err == nil && r.status != http.StatusOK {
				err = fmt.Errorf("not ready: %d %s", r.status, r.body)
			}
			return err
		},
	}, servers.OnCore(serverCore))
	e := &engine{subject: subject{name: "Sluice", addr: s.Addr, servers: []*servers.Server{s}}, ops: ops}
	e.secret, err = gate.ReadKey(filepath.Join(s.Dir, "data"))
	return e, err
}

// operate calls the ops API and reads the answer into out unless it is nil.
func (e *engine) operate(ctx context.Context, method, path string, in, out any) error {
	r, err := call(ctx, method, "http://"+e.ops+path, map[string]string{"Authorization": "Bearer " + opsToken}, in)
	if err != nil {
		return err
	}
	if r.status >= 300 {
		return fmt.Errorf("%s %s: %d %s", method, path, r.status, r.body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(r.body, out)
}

// sell creates and opens an activity with units of bench-sku. A price of 0
// makes an order paid at once, so that what is held becomes sold.
func (e *engine) sell(ctx context.Context, activity string, units, price, perUser int) error {
	money := map[string]any{"amount": price, "currency": "EUR"}
	now := time.Now().UTC()
	for _, step := range []struct {
		path string
		body any
	}{
		{"/v1/skus", map[string]any{"id": "bench-sku", "title": "Bench", "price": map[string]any{"amount": 100, "currency": "EUR"}}},
		{"/v1/activities", map[string]any{
			"id": activity, "kind": "flash", "title": "Bench",
			"opens_at":  now.Add(-time.Minute).Format(time.RFC3339),
			"closes_at": now.Add(24 * time.Hour).Format(time.RFC3339), "hold_seconds": 3600,
			"items": []any{map[string]any{"sku": "bench-sku", "price": money, "units": units, "per_user": perUser, "per_order": 1}},
		}},
		{"/v1/activities/" + activity + "/open", nil},
	} {
		if err := e.operate(ctx, http.MethodPost, step.path, step.body, nil); err != nil {
			return err
		}
	}
	return nil
}

// standing is what the proof of an activity says of its only SKU.
type standing struct {
	OK         bool
	Violations []string
	Ledger     []struct{ Allocated, Free, Held, Confirmed int }
	Orders     map[string]int
}

func (e *engine) proof(ctx context.Context, activity string) (s standing, err error) {
	err = e.operate(ctx, http.MethodGet, "/v1/activities/"+activity+"/proof", nil, &s)
	if err == nil && len(s.Ledger) != 1 {
		err = fmt.Errorf("proof of %s has %d SKUs", activity, len(s.Ledger))
	}
	return s, err
}

// taken is how many units have been given out.
func (s standing) taken() int { return s.Ledger[0].Held + s.Ledger[0].Confirmed }

// landed is how many orders there are, whatever became of them.
func (s standing) landed() (n int) {
	for _, count := range s.Orders {
		n += count
	}
	return n
}

// awaitLanded waits until every unit given out has its order, and there are so
// many at least, or the limit.
func (e *engine) awaitLanded(ctx context.Context, activity string, least int, limit time.Duration) (s standing, err error) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); ; {
		s, err = e.proof(ctx, activity)
		if err == nil && s.landed() >= max(s.taken(), least) || time.Now().After(deadline) || ctx.Err() != nil {
			return s, err
		}
		<-ticker.C
	}
}

// sellOut opens an activity of one unit, sells it, and answers the refusal that
// everybody gets from then on with its code: sold_out once the order is paid.
func (e *engine) sellOut(ctx context.Context, activity string) (reply, string, error) {
	if err := e.sell(ctx, activity, 1, 0, 1); err != nil {
		return reply{}, "", err
	}
	buyer, err := gate.Mint(e.secret, "bench-first-buyer", time.Now(), tokenLife)
	if err != nil {
		return reply{}, "", err
	}
	r, code, err := attempt(ctx, e.addr, purchases(activity), buyer, "first")
	if err == nil {
		err = expectCode(r, code, "held")
	}
	if err != nil {
		return r, code, fmt.Errorf("the only unit: %w", err)
	}
	late, err := gate.Mint(e.secret, "bench-late-shopper", time.Now(), tokenLife)
	if err != nil {
		return r, "", err
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range int(patience / (50 * time.Millisecond)) {
		if r, code, err = attempt(ctx, e.addr, purchases(activity), late, "late"); err != nil || code == "sold_out" {
			return r, code, err
		}
		<-ticker.C
	}
	return r, code, fmt.Errorf("still %q, not sold_out, after %v", code, patience)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
