package gate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/lib/limit"
)

// shared is a rule whose keys have budgets. It survives edits of the rule.
type shared struct {
	of    *sharing
	rule  string
	parts part
	low   atomic.Int64 // in reserve, when to ask for more

	mu      sync.Mutex // opening, closing and editing accounts
	rate    limit.Rate // of all processes together, in force
	version int64
	now     atomic.Pointer[open]
}

// open are the accounts of a rule. Immutable.
type open struct {
	of  map[limit.Key]*account
	all []*account // in the order in which they were opened
}

// account is one key's.
type account struct {
	key    limit.Key
	name   string
	budget *limit.Budget
	pool   *edited
	asked  atomic.Int64 // when last, to a second; Unix ns
}

// edited is a pool whose rate changes under a budget.
type edited struct {
	now atomic.Pointer[limit.Pool]
}

// Grant fulfils limit.Pool.
func (p *edited) Grant(ctx context.Context, id string, want int64) (limit.Lease, error) {
	return (*p.now.Load()).Grant(ctx, id, want)
}

// Return fulfils limit.Pool.
func (p *edited) Return(ctx context.Context, id string, unspent int64) error {
	return (*p.now.Load()).Return(ctx, id, unspent)
}

// sweep answers the accounts of a rule, less those that nobody asks for.
func (s *shared) sweep(l *Limits, now int64) []*account {
	idle := func(a *account) bool { return a.asked.Load()+int64(unasked) < now }
	if had := s.now.Load(); !slices.ContainsFunc(had.all, idle) {
		return had.all
	}
	l.editing.Lock()
	defer l.editing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &open{of: map[limit.Key]*account{}}
	var gone []*account
	for _, a := range s.now.Load().all {
		if idle(a) {
			gone = append(gone, a)
			continue
		}
		next.of[a.key], next.all = a, append(next.all, a)
	}
	s.now.Store(next)
	l.leave(gone, now)
	return next.all
}

func newShared(of *sharing, rule string, parts part) *shared {
	s := &shared{of: of, rule: rule, parts: parts}
	s.now.Store(&open{})
	return s
}

// edit changes the rate of all accounts, and of those to come. What was drawn
// before stands.
func (s *shared) edit(r limit.Rate, version int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == r && s.version == version {
		return nil
	}
	s.rate, s.version = r, version
	lease, low := s.lease()
	s.low.Store(low)
	var faults []error
	for _, a := range s.now.Load().all {
		faults = append(faults, s.reach(a), a.budget.Resize(lease, low))
	}
	return errors.Join(faults...)
}

// reach leads an account to its pool at the rate in force.
func (s *shared) reach(a *account) error {
	pool, err := s.of.Open(a.name, s.version, s.rate)
	if err == nil {
		a.pool.now.Store(&pool)
	}
	return err
}

// lease is how much to draw at a time, and when.
func (s *shared) lease() (lease, low int64) {
	lease = max(capacity(s.rate)/int64(12*s.of.Processes), 1)
	return lease, lease / 2
}

// overshoot is by how much all processes together can pass the rate.
func (s *shared) overshoot() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease, _ := s.lease()
	return 3 * lease * int64(s.of.Processes)
}

// find answers the budget that a key has now, nil if there is none to go by.
func (s *shared) find(k limit.Key, now int64) *account {
	if s.of.away(now) {
		return nil
	}
	return s.now.Load().of[k]
}

// ask has the budget of the ask's key asked instead of the limiter, and opens one
// if there is none and there is room.
func (s *shared) ask(ask *limit.Ask, k *keys, now int64) {
	a := s.find(ask.Key, now)
	if a == nil {
		if s.of.accounts.Load() >= maxBudgets || s.of.away(now) {
			return
		}
		if a = s.open(k.facts, ask.Key, now); a == nil {
			return
		}
	}
	if now-a.asked.Load() > int64(time.Second) { // not at each request: other cores read it
		a.asked.Store(now)
	}
	ask.Limiter, ask.Budget = nil, a.budget
}

// open opens an account, unless somebody has, or there is no room.
func (s *shared) open(f *Facts, key limit.Key, now int64) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.now.Load()
	if a := had.of[key]; a != nil {
		return a
	}
	if s.of.accounts.Add(1) > maxBudgets {
		s.of.accounts.Add(-1)
		return nil
	}
	a, err := s.account(f, key, now)
	if err != nil {
		s.of.accounts.Add(-1)
		return nil
	}
	next := &open{of: maps.Clone(had.of), all: append(slices.Clip(had.all), a)}
	if next.of == nil {
		next.of = map[limit.Key]*account{}
	}
	next.of[key] = a
	s.now.Store(next)
	s.of.wake()
	return a
}

func (s *shared) account(f *Facts, key limit.Key, now int64) (*account, error) {
	a := &account{key: key, name: s.name(f), pool: &edited{}}
	a.asked.Store(now)
	err := s.reach(a)
	if err != nil {
		return nil, err
	}
	lease, low := s.lease()
	a.budget, err = limit.NewBudget(a.pool, limit.BudgetOptions{
		Holder: fmt.Sprintf("%s/%x", s.of.Holder, s.of.serial.Add(1)),
		Lease:  lease, Low: low, Advance: lease, Every: s.of.Every, Timeout: s.of.Timeout,
	}, s.of.Now)
	return a, err
}

// name is what all processes call a key's pool. Shoppers make up paths of any
// length, so it is a digest of them.
func (s *shared) name(f *Facts) string {
	if s.parts == 0 {
		return s.rule
	}
	var text []byte
	for _, p := range []struct {
		part part
		text string
	}{{byActivity, f.Activity}, {byPath, f.Path}} {
		if s.parts&p.part != 0 {
			text = binary.AppendUvarint(text, uint64(p.part))
			text = binary.AppendUvarint(text, uint64(len(p.text)))
			text = append(text, p.text...)
		}
	}
	digest := sha256.Sum256(text)
	return s.rule + ":" + hex.EncodeToString(digest[:16])
}
