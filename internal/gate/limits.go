package gate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/lib/limit"
)

// Limits decides requests by a set of rules that can be replaced while it does.
// It is safe for concurrent use.
//
// A decision takes no lock of its own: the set is one pointer, and each rule's
// table locks a few hundredths of itself. It allocates nothing.
type Limits struct {
	hash    limit.Hash
	now     atomic.Pointer[readySet]
	sharing *sharing   // nil: this process is the fleet
	editing sync.Mutex // one edit at a time, and what is below
	slots   slots
	spare   sync.Pool // of *Limited
	waiting atomic.Int64
}

// readySet is a set made ready for use. Immutable.
type readySet struct {
	edition Edition
	scale   scale
	all     []*ready
	of      [classes][]*ready // those that can decide anything
	needs   [classes]part
}

// ready is one rule with its table and its counts, both of which survive an edit.
type ready struct {
	Rule
	class   Class
	parts   part
	rate    limit.Rate     // in force
	own     limit.Rate     // of the limiter: the rate, or this process's part of it
	limiter *limit.Limiter // nil while it is off
	shared  *shared        // nil unless the fleet keeps it together
	counts  *tally
	slot    uint8
}

// tally has a cache line to itself.
type tally struct {
	allowed, refused, shadow atomic.Uint64
	_                        [40]byte
}

// NewLimits begins with the default rules; now is of the clock of Admit.
func NewLimits(now time.Time) *Limits {
	l := &Limits{hash: limit.NewHash()}
	l.spare.New = func() any { return &Limited{spare: &l.spare} }
	if err := l.Apply(Edition{RuleSet: DefaultRules()}, now); err != nil {
		panic(err) // the default rules are valid, or the program is wrong
	}
	return l
}

// Apply replaces the rules from now on; now is of the clock of Admit. What was
// used of a rule that has the same id and key stays used, at whatever rate; see
// limit.Limiter.Edit. The error is a *RuleError, and then nothing changed.
func (l *Limits) Apply(e Edition, now time.Time) error {
	if err := e.Validate(); err != nil {
		return err
	}
	l.editing.Lock()
	defer l.editing.Unlock()
	all := scale{percent: 100}
	if old := l.now.Load(); old != nil {
		all = old.scale
	}
	return l.put(e, all, now)
}

// put puts a valid edition into force. Editing is locked.
func (l *Limits) put(e Edition, to scale, now time.Time) error {
	had := map[string]*ready{}
	if old := l.now.Load(); old != nil {
		for _, r := range old.all {
			had[r.ID] = r
		}
	}
	inUse := l.slotsInUse(e.slotNames())
	next := &readySet{edition: e, scale: to}
	for _, rule := range e.Rules {
		r, err := l.prepare(rule, had[rule.ID], next, now)
		if err != nil {
			return err
		}
		r.slot = l.slots.take(rule.ID, func(name string) bool { return inUse[name] }, now)
		next.all = append(next.all, r)
		if r.limiter != nil && r.Percent > 0 {
			next.of[r.class] = append(next.of[r.class], r)
			next.needs[r.class] |= r.needs()
		}
	}
	l.now.Store(next)
	for _, r := range next.all {
		if old := had[r.ID]; old != nil && old.shared == r.shared {
			delete(had, r.ID)
		}
	}
	for _, old := range had {
		if old.shared != nil {
			l.give(old.shared)
		}
	}
	return nil
}

// prepare makes a valid rule ready, with what there is of it.
func (l *Limits) prepare(rule Rule, old *ready, in *readySet, now time.Time) (*ready, error) {
	r := &ready{Rule: rule, parts: partsOf(rule.Key), rate: scaled(rule.rate(), in.scale.percent), counts: &tally{}}
	r.class, _ = ClassOf(rule.Class)
	if old != nil {
		r.counts = old.counts
	}
	if rule.Mode == Off {
		return r, nil
	}
	same := old != nil && old.limiter != nil && old.parts == r.parts
	r.own = r.rate
	var err error
	if l.sharing != nil && rule.Scope == Fleet {
		r.own = l.sharing.part(r.rate)
		if same && old.shared != nil {
			r.shared = old.shared
		} else {
			r.shared = newShared(l.sharing, rule.ID, r.parts)
		}
		// The sum rises with each edit of the rules and each change of the scale.
		err = r.shared.edit(r.rate, in.edition.Version+in.scale.version)
	}
	switch {
	case err != nil:
	case !same:
		r.limiter, err = limit.New(r.own, rule.places())
	default:
		r.limiter = old.limiter
		if old.own != r.own {
			err = r.limiter.Edit(r.own, now.UnixNano())
		}
	}
	if err != nil {
		return nil, &RuleError{rule.ID, err.Error()}
	}
	return r, nil
}

// needs are the facts that decide about a rule.
func (r *ready) needs() part {
	if r.Percent < 100 && r.parts&(byUser|byPhone|byIP) == 0 {
		return r.parts | byUser | byIP
	}
	return r.parts
}

// Needs says what rules of a class ask of a request: whether there are any, and
// whether they go by its user (or the user's phone) or its address.
func (l *Limits) Needs(c Class) (any, user, ip bool) {
	set := l.now.Load()
	of := set.needs[c]
	return len(set.of[c]) > 0, of&(byUser|byPhone) != 0, of&byIP != 0
}

// Verdict is the answer to a request. All but Allowed and Delay is of the rule
// that refused, of several the one that takes longest to allow it again.
type Verdict struct {
	Allowed    bool
	Delay      time.Duration // how long an allowed request has to wait
	Rule       string
	Slot       uint8 // stands for the rule in Refusals
	Limit      int64 // of the rule: requests
	Per        time.Duration
	Remaining  int64
	RetryAfter time.Duration
}

// Admit decides a request by all rules that concern it, at once: it is charged
// to each of them or to none.
func (l *Limits) Admit(now time.Time, f *Facts) Verdict {
	rules := l.now.Load().of[f.Class]
	if len(rules) == 0 {
		return Verdict{Allowed: true}
	}
	var asks [limit.MaxGroup]limit.Ask
	var asked [limit.MaxGroup]*ready
	n, nanos := 0, now.UnixNano()
	k := keys{facts: f, hash: l.hash}
	have := f.known()
	for _, r := range rules {
		if r.concerns(f, have) == concerned {
			a := &asks[n]
			a.Limiter, a.Key, a.N, a.Shadow = r.limiter, k.key(r.parts), 1, r.Mode == Shadow
			if r.shared != nil {
				r.shared.ask(a, &k, nanos)
			}
			asked[n] = r
			n++
		}
	}
	v := limit.All(asks[:n], nanos)
	worst := -1
	for i := range n {
		a, count := &asks[i], asked[i].counts
		switch {
		case a.Decision.Allowed:
			if v.Allowed {
				count.allowed.Add(1)
				if a.Budget != nil && a.Decision.Remaining <= asked[i].shared.low.Load() {
					asked[i].shared.of.wake()
				}
			}
		case a.Shadow:
			count.shadow.Add(1)
		default:
			count.refused.Add(1)
			if worst < 0 || a.Decision.RetryAfter > asks[worst].Decision.RetryAfter {
				worst = i
			}
		}
	}
	if v.Allowed {
		return Verdict{Allowed: true, Delay: v.Delay}
	}
	r := asked[worst]
	return Verdict{Rule: r.ID, Slot: r.slot, Limit: r.rate.Limit, Per: r.rate.Per,
		Remaining: asks[worst].Decision.Remaining, RetryAfter: v.RetryAfter}
}

// maxWaiting bounds the purchases that wait for their turn, over all rules and
// keys: they hold places of the API's bound on purchases, and must leave enough
// for those that need not wait.
const maxWaiting = 4096

// Enter is Admit for a request that waits its turn: nil when it may go on,
// otherwise a *Limited, ErrOverloaded when too many wait already, or the end of
// ctx. Whoever gives up waiting has used the turn: it cannot be given to another,
// all of whom have been told when theirs is.
func (l *Limits) Enter(ctx context.Context, now time.Time, f *Facts) error {
	v := l.Admit(now, f)
	if !v.Allowed {
		limited := l.spare.Get().(*Limited)
		limited.Verdict = v
		return limited
	}
	if v.Delay > 0 {
		return l.wait(ctx, v.Delay)
	}
	return nil
}

func (l *Limits) wait(ctx context.Context, delay time.Duration) error {
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > maxWaiting {
		return ErrOverloaded
	}
	turn := time.NewTimer(delay)
	defer turn.Stop()
	select {
	case <-turn.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Limited is the refusal of a request by a rule. It is made once and used
// again, since a flood is answered with it.
type Limited struct {
	Verdict
	spare *sync.Pool
}

// Error names the rule.
func (e *Limited) Error() string {
	return fmt.Sprintf("rule %s: %d per %s, again in %s", e.Rule, e.Limit, e.Per, e.RetryAfter)
}

// Unwrap is ErrRateLimited.
func (e *Limited) Unwrap() error { return ErrRateLimited }

// Free lets the refusal be used for another request. Whoever has answered it
// may call that, once, and must not look at it afterwards.
func (e *Limited) Free() {
	if e.spare != nil {
		e.spare.Put(e)
	}
}

// RuleCount is what one rule has decided in this process, over all its edits.
type RuleCount struct {
	Rule          string `json:"rule"`
	Allowed       uint64 `json:"allowed" doc:"Requests charged to it"`
	Refused       uint64 `json:"refused"`
	ShadowRefused uint64 `json:"shadow_refused" doc:"That it would have refused if it were on"`
	Forgotten     uint64 `json:"forgotten" doc:"Keys that may have got too much, for want of places"`
	Rate          string `json:"rate,omitempty" doc:"In force, unless the rule is off: the rule's, at the percentage that playbooks leave of it" example:"token 1 per 1s, burst 5"`
	Shared        *Held  `json:"shared,omitempty" doc:"Of a rule of scope fleet, where there is a fleet"`
}

// Held is what a process has to do with a rate that it shares.
type Held struct {
	Budgets   int   `json:"budgets" doc:"Keys that this process draws for"`
	Overshoot int64 `json:"overshoot" doc:"By how many requests at most all processes together can pass the rate, over any time in which the pools answer"`
	Away      bool  `json:"away" doc:"The pools do not answer: this process keeps its part of the rate by itself"`
}

// Counts are those of the rules in force, in their order.
func (l *Limits) Counts() []RuleCount {
	set := l.now.Load()
	counts := make([]RuleCount, len(set.all))
	for i, r := range set.all {
		counts[i] = RuleCount{Rule: r.ID, Allowed: r.counts.allowed.Load(), Refused: r.counts.refused.Load(), ShadowRefused: r.counts.shadow.Load()}
		if r.limiter != nil {
			counts[i].Forgotten, counts[i].Rate = r.limiter.Forgotten(), r.rate.String()
		}
		if s := r.shared; s != nil {
			counts[i].Shared = &Held{len(s.now.Load().all), s.overshoot(), s.of.away(s.of.Now().UnixNano())}
		}
	}
	return counts
}

// Edition is the set in force. It must not be changed.
func (l *Limits) Edition() Edition { return l.now.Load().edition }

// slotsInUse are the names that keep their slots: those of the edition in force,
// of the next one, and those that are always there.
func (l *Limits) slotsInUse(next []string) map[string]bool {
	inUse := map[string]bool{}
	for _, name := range append(next, always...) {
		inUse[name] = true
	}
	if now := l.now.Load(); now != nil {
		for _, name := range now.edition.slotNames() {
			inUse[name] = true
		}
	}
	return inUse
}

// slotOf answers the slot of a name of the edition in force, or one that is
// always there.
func (l *Limits) slotOf(name string, now time.Time) uint8 {
	l.editing.Lock()
	defer l.editing.Unlock()
	inUse := l.slotsInUse(nil)
	return l.slots.take(name, func(name string) bool { return inUse[name] }, now)
}

// RuleIn answers the rule that a slot stood for at a time, and why it refuses;
// "" when the slot has been given to another since.
func (l *Limits) RuleIn(slot uint8, at time.Time) (rule string, why error) {
	l.editing.Lock()
	defer l.editing.Unlock()
	return meant(l.slots.name(slot, at))
}
