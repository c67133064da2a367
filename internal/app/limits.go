package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/lib/run"
	"sluice/internal/sale"
)

// admission is what a purchase passes before the ledger: what the process itself
// needs in order to sell, then the rules.
type admission struct {
	first  sale.Gate
	limits *gate.Limits
}

// Admit implements sale.Gate.
func (a admission) Admit(ctx context.Context, r sale.PurchaseRequest) error {
	if err := a.first.Admit(ctx, r); err != nil {
		return err
	}
	return a.limits.Enter(ctx, time.Now(), &gate.Facts{
		Class: gate.Purchases, Activity: string(r.Activity), User: string(r.User),
		Path: r.Origin.Path, Phone: r.Origin.Phone, IP: r.Origin.IP,
	})
}

// follow takes up rules that another process has saved. A change is in force
// everywhere within a second; see the pace of failing, too.
func (e *engine) follow() run.Task {
	return steady(e.log, run.Task{Name: "rules", Step: e.rules.Step, Idle: 300 * time.Millisecond})
}

// editions are the store's rules in the gate's words.
type editions struct{ store *sqlstore.Store }

// RulesVersion is the version saved last.
func (s editions) RulesVersion(ctx context.Context) (int64, error) {
	return s.store.GateRulesVersion(ctx)
}

// SaveRules saves an edition.
func (s editions) SaveRules(ctx context.Context, e gate.Edition) error {
	doc, err := json.Marshal(e.Rules)
	if err != nil {
		return err
	}
	saved, err := s.store.SaveGateRules(ctx, sqlstore.GateRules{Version: e.Version, At: e.At, Actor: e.By, Note: e.Note, Body: doc})
	if err == nil && !saved {
		err = gate.ErrRulesChanged
	}
	return err
}

// RuleEditions pages through editions, newest first. A field that this program
// does not know is an error: without it a rule would mean something else.
func (s editions) RuleEditions(ctx context.Context, before int64, limit int) ([]gate.Edition, error) {
	found, err := s.store.GateRules(ctx, before, limit)
	all := make([]gate.Edition, len(found))
	for i, r := range found {
		all[i] = gate.Edition{RuleSet: gate.RuleSet{Version: r.Version}, At: r.At, By: r.Actor, Note: r.Note}
		d := json.NewDecoder(bytes.NewReader(r.Body))
		d.DisallowUnknownFields()
		if err := d.Decode(&all[i].Rules); err != nil {
			return nil, fmt.Errorf("rules of version %d: %w", r.Version, err)
		}
	}
	return all, err
}

// network reads an address or a network.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// proxies are the networks of a valid configuration's trusted proxies.
func (c Config) proxies() (all []netip.Prefix) {
	for _, text := range c.Proxies {
		if p, err := network(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}
