package gate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/internal/stock"
)

// Edition is a set of rules as it was saved. Editions are never changed.
type Edition struct {
	RuleSet
	At   stock.Millis
	By   string // an operator
	Note string
}

// rulesStore keeps editions for good.
type rulesStore interface {
	// RulesVersion is the version saved last, 0 if none was.
	RulesVersion(ctx context.Context) (int64, error)
	// RuleEditions pages through editions of versions < before, newest first.
	RuleEditions(ctx context.Context, before int64, limit int) ([]Edition, error)
	// SaveRules saves an edition, which is durable when this returns nil, or
	// answers ErrRulesChanged where its version is not the next one.
	SaveRules(ctx context.Context, e Edition) error
}

// Rulebook keeps a Door on the newest rules, and is where they are changed. Of a
// fleet each process has one, over the same store; it is safe for concurrent use.
type Rulebook struct {
	Door   *Door // what decides by the rules
	Limits *Limits
	store  rulesStore
	now    func() time.Time // the clock of Admit

	mu sync.Mutex // from asking the store until the answer is in force
}

// NewRulebook has the default rules until its first Step.
func NewRulebook(s rulesStore, d *Door, now func() time.Time) *Rulebook {
	return &Rulebook{Door: d, Limits: d.Limits, store: s, now: now}
}

// Step puts into force what another process has saved. While the store is away,
// or holds what this program cannot read, the last known rules stay.
func (b *Rulebook) Step(ctx context.Context) (worked bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest, err := b.store.RulesVersion(ctx)
	if err != nil || newest == b.Limits.Edition().Version {
		return false, err
	}
	e, err := b.edition(ctx, newest)
	if err == nil {
		err = b.Door.Apply(e, b.now())
	}
	if err != nil {
		return false, fmt.Errorf("rules of version %d: %w", newest, err)
	}
	return false, nil
}

// Save puts rules into force in place of those of the version they were made
// from, and answers them as saved. Errors are *RuleError and ErrRulesChanged,
// after which nothing has changed, and the store's.
func (b *Rulebook) Save(ctx context.Context, from int64, set RuleSet, by, note string) (Edition, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.save(ctx, from, set, by, note)
}

func (b *Rulebook) save(ctx context.Context, from int64, set RuleSet, by, note string) (Edition, error) {
	set.Version = from + 1
	e := Edition{RuleSet: set, At: stock.MillisOf(b.now()), By: by, Note: note}
	if err := e.Validate(); err != nil {
		return Edition{}, err
	}
	if err := b.store.SaveRules(ctx, e); err != nil {
		return Edition{}, err
	}
	return e, b.Door.Apply(e, b.now())
}

// Rollback saves the rules of an earlier version again, as the newest. Version 0
// is the default. Errors are ErrNoSuchRules, and those of Save.
func (b *Rulebook) Rollback(ctx context.Context, to int64, by, note string) (Edition, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, err := b.edition(ctx, to)
	if err != nil {
		return Edition{}, err
	}
	newest, err := b.store.RulesVersion(ctx)
	if err != nil {
		return Edition{}, err
	}
	if note == "" {
		note = fmt.Sprintf("rollback to version %d", to)
	}
	return b.save(ctx, newest, old.RuleSet, by, note)
}

// History pages through what was saved with versions < before (0: the newest),
// newest first.
func (b *Rulebook) History(ctx context.Context, before int64, limit int) ([]Edition, error) {
	return b.store.RuleEditions(ctx, before, limit)
}

// Explain is Door.Explain at this moment.
func (b *Rulebook) Explain(f *Facts) Explanation { return b.Door.Explain(b.now(), f) }

// edition reads one version.
func (b *Rulebook) edition(ctx context.Context, version int64) (Edition, error) {
	if version == 0 {
		return Edition{RuleSet: DefaultRules()}, nil
	}
	found, err := b.store.RuleEditions(ctx, version+1, 1)
	if err != nil {
		return Edition{}, err
	}
	if version < 0 || len(found) == 0 || found[0].Version != version {
		return Edition{}, fmt.Errorf("%w: %d", ErrNoSuchRules, version)
	}
	return found[0], nil
}
