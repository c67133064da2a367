package limit

import (
	"fmt"
	"sync"
	"time"
)

// MaxGroup is the most limits that one All decides.
const MaxGroup = 16

// Ask is one limit of a group: a key of a Limiter, or a Budget.
type Ask struct {
	Limiter *Limiter // exactly one of
	Budget  *Budget  // these two
	Key     Key      // of the Limiter
	N       int64    // permits, ≥ 1
	// Shadow is for trying a rule: it is charged like any other, but its refusal
	// refuses nothing. It is answered in Decision.
	Shadow bool
	// Decision is written by All and PeekAll: this limit's own answer. Where
	// another one refused the group, it tells what would have been.
	Decision Decision
}

// Verdict is the answer of a group.
type Verdict struct {
	Allowed bool
	Refused int // lowest index of an ask that refused and is no shadow; -1 if allowed
	// RetryAfter is the longest of those that refused: the time after which all
	// of them would allow.
	RetryAfter time.Duration
	Delay      time.Duration // the longest, if allowed
}

// All takes from all asks or from none: a group that is refused leaves every
// limit as if it had not been asked. The same key may occur more than once. The
// decision is atomic: it holds the locks of all its keys at once, so no other
// request sees a part of it. More than MaxGroup asks, or an ask without a limit
// or permits, panic; no asks are allowed.
//
// Locks are taken in one order for everybody, by the number of the Limiter or
// Budget and then by stripe, and each once. So groups cannot wait for one
// another in a circle. Nothing blocks while they are held.
func All(asks []Ask, now int64) Verdict { return decide(asks, now, true) }

// PeekAll is All that takes nothing, for asking which rule would refuse.
func PeekAll(asks []Ask, now int64) Verdict { return decide(asks, now, false) }

func decide(asks []Ask, now int64, charge bool) Verdict {
	var held locks
	held.take(asks)
	v := Verdict{Allowed: true, Refused: -1}
	var undo [MaxGroup]taken
	for i := range asks {
		a := &asks[i]
		// Charged at once, so that the next ask of the same key sees it; nobody
		// else can.
		a.charge(now, &undo[i])
		switch {
		case a.Shadow:
		case a.Decision.Allowed:
			v.Delay = max(v.Delay, a.Decision.Delay)
		default:
			if v.Allowed {
				v.Allowed, v.Refused = false, i
			}
			v.RetryAfter = max(v.RetryAfter, a.Decision.RetryAfter)
		}
	}
	if !v.Allowed || !charge {
		for i := len(asks) - 1; i >= 0; i-- { // backwards: the first charge of a key is the last to go
			undo[i].restore()
		}
	}
	if !v.Allowed {
		v.Delay = 0
	}
	held.release()
	return v
}

// taken is how to take the charge of one ask back.
type taken struct {
	stripe *stripe // nil: nothing was charged in a table
	entry  entry
	budget *Budget // nil: nothing was charged to a budget
	purse  purse
}

// charge decides one ask, and notes what it took. Its locks are held.
func (a *Ask) charge(now int64, t *taken) {
	if b := a.Budget; b != nil {
		t.purse = b.purse
		if a.Decision = b.spend(a.N, now); a.Decision.Allowed {
			t.budget = b
		}
		return
	}
	k := max(a.Key, 1)
	set, at := a.Limiter.home(k)
	st := &a.Limiter.stripes[at]
	when := a.Limiter.time(at, now)
	a.Decision = st.charge(set, k, a.N, when, &t.entry).later(time.Duration(when - max(now, 0)))
	if a.Decision.Allowed {
		t.stripe = st
	}
}

func (t *taken) restore() {
	if t.stripe != nil {
		t.stripe.restore(t.entry)
	}
	if t.budget != nil {
		t.budget.purse = t.purse
	}
}

// locks is a set of mutexes in the order in which they are locked.
type locks struct {
	n  int
	of [MaxGroup]ranked
}

type ranked struct {
	rank uint64 // number of the Limiter or Budget, then of the stripe
	mu   *sync.Mutex
}

func (l *locks) take(asks []Ask) {
	if len(asks) > MaxGroup {
		panic(fmt.Sprintf("limit: a group of %d", len(asks)))
	}
	for i := range asks {
		l.insert(asks[i].lock())
	}
	for i := range l.n {
		l.of[i].mu.Lock()
	}
}

// insert keeps the order, and one of each. There are few.
func (l *locks) insert(r ranked) {
	at := l.n
	for at > 0 && l.of[at-1].rank > r.rank {
		at--
	}
	if at > 0 && l.of[at-1].rank == r.rank {
		return
	}
	copy(l.of[at+1:l.n+1], l.of[at:l.n])
	l.of[at] = r
	l.n++
}

func (l *locks) release() {
	for i := l.n - 1; i >= 0; i-- {
		l.of[i].mu.Unlock()
	}
}

func (a *Ask) lock() ranked {
	check(a.N)
	switch {
	case (a.Limiter == nil) == (a.Budget == nil):
		panic("limit: an ask needs a Limiter or a Budget")
	case a.Budget != nil:
		return ranked{a.Budget.number * maxStripes, &a.Budget.mu}
	}
	_, at := a.Limiter.home(max(a.Key, 1))
	return ranked{a.Limiter.number*maxStripes + uint64(at), &a.Limiter.stripes[at].mu}
}
