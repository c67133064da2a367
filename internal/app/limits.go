package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/sale"
)

// admission is what a purchase passes before the ledger: what the process itself
// needs in order to sell, then the rules.
type admission struct {
	first sale.Gate
	door  *gate.Door
}

// Admit implements sale.Gate.
func (a admission) Admit(ctx context.Context, r sale.PurchaseRequest) (claims []string, err error) {
	if _, err := a.first.Admit(ctx, r); err != nil {
		return nil, err
	}
	if o, ok := r.Origin.(gate.Origin); ok {
		return a.door.Enter(ctx, time.Now(), o.Facts())
	}
	return a.door.Enter(ctx, time.Now(), &gate.Facts{Class: gate.Purchases, Activity: string(r.Activity), User: string(r.User)})
}

// editions are the store's rules in the gate's words.
type editions struct {
	store *sqlstore.Store
	bells *bells
}

// RulesVersion is the version saved last.
func (s editions) RulesVersion(ctx context.Context) (int64, error) {
	return s.store.GateRulesVersion(ctx)
}

// SaveRules saves an edition.
func (s editions) SaveRules(ctx context.Context, e gate.Edition) error {
	doc, err := json.Marshal(e.RuleSet)
	if err != nil {
		return err
	}
	saved, err := s.store.SaveGateRules(ctx, sqlstore.GateRules{Version: e.Version, At: e.At, Actor: e.By, Note: e.Note, Body: doc})
	if err == nil && !saved {
		err = gate.ErrRulesChanged
	}
	s.bells.saved(bellRules)
	return err
}

// RuleEditions pages through editions, newest first. A field that this program
// does not know is an error: without it a rule would mean something else.
func (s editions) RuleEditions(ctx context.Context, before int64, limit int) ([]gate.Edition, error) {
	found, err := s.store.GateRules(ctx, before, limit)
	all := make([]gate.Edition, len(found))
	for i, r := range found {
		all[i] = gate.Edition{At: r.At, By: r.Actor, Note: r.Note}
		if err := known(r.Body, &all[i].RuleSet); err != nil {
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
