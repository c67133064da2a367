package gate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// shelf stands for the store at the rulebook's own interface, so that it can be
// away; the real one is behind it in the console's and the whole program's tests.
type shelf struct {
	editions []Edition
	away     error
}

func (s *shelf) RulesVersion(context.Context) (int64, error) {
	return int64(len(s.editions)), s.away
}

func (s *shelf) RuleEditions(_ context.Context, before int64, limit int) (page []Edition, err error) {
	for i := len(s.editions) - 1; i >= 0 && len(page) < limit; i-- {
		if before == 0 || s.editions[i].Version < before {
			page = append(page, s.editions[i])
		}
	}
	return page, s.away
}

func (s *shelf) SaveRules(_ context.Context, e Edition) error {
	if s.away == nil && e.Version != int64(len(s.editions))+1 {
		return ErrRulesChanged
	}
	if s.away == nil {
		s.editions = append(s.editions, e)
	}
	return s.away
}

// Gateways over one store follow it, keep what they last knew while it is away
// or says what they cannot read, and go on when it is back.
// doorOf is a door as a shop opens it.
func doorOf() *Door { return NewDoor(noon, NewSeal([]byte("a secret of this shop, long enough")), nil) }

func TestRulebooksFollowTheStore(t *testing.T) {
	store, ctx := &shelf{}, t.Context()
	now := func() time.Time { return noon }
	here, there := NewRulebook(store, doorOf(), now), NewRulebook(store, doorOf(), now)
	step := func(want int64, fails bool) {
		t.Helper()
		_, err := there.Step(ctx)
		if e := there.Limits.Edition(); (err != nil) != fails || e.Version != want {
			t.Errorf("version %d, %v; want %d", e.Version, err, want)
		}
	}
	step(0, false)
	saved, err := here.Save(ctx, 0, RuleSet{Rules: []Rule{rule("a", upTo(1))}}, "ops", "first")
	if err != nil || saved.Version != 1 || here.Limits.Edition().Version != 1 {
		t.Fatalf("%+v, %v", saved, err)
	}
	step(1, false)
	there.Limits.Admit(noon, buys("ann"))
	if _, err := there.Save(ctx, 0, RuleSet{}, "ops", ""); !errors.Is(err, ErrRulesChanged) || there.Limits.Edition().Version != 1 {
		t.Errorf("from what others have changed: %v", err)
	}
	if _, err := there.Save(ctx, 1, RuleSet{Rules: []Rule{rule("")}}, "ops", ""); !errors.Is(err, ErrRules) || len(store.editions) != 1 {
		t.Errorf("a faulty rule: %v", err)
	}

	store.away = fmt.Errorf("the store is away")
	step(1, true)
	if v := there.Limits.Admit(noon, buys("ann")); v.Rule != "a" {
		t.Errorf("without the store: %+v", v)
	}
	if _, err := here.Save(ctx, 1, RuleSet{}, "ops", ""); err == nil || here.Limits.Edition().Version != 1 {
		t.Errorf("saved without the store: %v", err)
	}
	store.away = nil
	store.editions = append(store.editions, edition(2, rule("a", func(r *Rule) { r.Mode = "of a later program" })))
	step(1, true)
	if _, err := here.Rollback(ctx, 1, "ops", ""); err != nil {
		t.Fatal(err)
	}
	step(3, false)
	if v := there.Limits.Admit(noon, buys("ann")); v.Rule != "a" {
		t.Errorf("a rollback refilled: %+v", v)
	}
	if _, err := here.Rollback(ctx, 7, "ops", ""); !errors.Is(err, ErrNoSuchRules) {
		t.Errorf("to what never was: %v", err)
	}
}
