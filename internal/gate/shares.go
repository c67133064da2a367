package gate

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/internal/lib/limit"
)

// Sharing is how the processes of a fleet keep rules of scope fleet together:
// each spends from budgets, one for each key, that it draws ahead of need. So
// neither a grant nor a refusal waits for the network.
//
// All processes together pass a rate by no more than P × 3 L, for P Processes and
// leases of L = capacity / 12 P requests, at least one: a quarter of the capacity,
// or 3 P if that is more. It is 2 L that each may hold from earlier, and L that it
// advances to whoever comes first (see limit.Budget).
//
// A process for which the pools are away, or that has no room for another budget,
// keeps a Pth of the rate by itself: a shop that loses its Redis sells on. Each time
// that they are away from all lets at most twice the capacity more through, what
// the parts had saved up and what the pools have when they are back; where they
// are away from some only, the parts of these come on top of the rate that the
// others share: less than twice the rate.
type Sharing struct {
	// Open answers the pool of a name, the same one in all processes: a rule's id,
	// and perhaps a colon and 32 hexadecimal digits. It is called again when the
	// rate changes, with a higher version, of which the pool is to obey the
	// highest. It waits for nothing.
	Open func(name string, version int64, r limit.Rate) (limit.Pool, error)
	// Holder is of this life of this process alone, 1..60 bytes.
	Holder string
	// Processes is how many may draw, 1..1024. With fewer the bound holds all the
	// more; what a process keeps by itself is less than it could be.
	Processes int
	Every     time.Duration // Step runs at least so often
	Timeout   time.Duration // of one call of a pool
	Now       func() time.Time
}

// ErrSharing: what is said of sharing cannot be.
var ErrSharing = errors.New("invalid sharing of limits")

const (
	maxProcesses = 1024
	// maxBudgets bounds the budgets of a process, over all rules: some 700 bytes
	// and a call in each few seconds for each.
	maxBudgets = 256
	// unasked is how long a budget stays that nobody asks for.
	unasked = 30 * time.Second
	// silence is how long pools may be silent until a process goes on by itself.
	silence = time.Second
	// grace is for requests that still have a budget in hand when it is given up.
	grace = time.Second
)

// sharing is the state behind Sharing.
type sharing struct {
	Sharing
	accounts atomic.Int64 // how many
	serial   atomic.Uint64
	heard    atomic.Int64  // when Step last had all it asked for; Unix ns
	woken    chan struct{} // somebody needs more
	leaving  []leaver      // under the lock on editing
	turn     int           // of Step: whose is first
}

type leaver struct {
	budget *limit.Budget
	at     int64
}

// Share keeps rules of scope fleet together with other processes from now on;
// without it, this process is the fleet. It is for the wiring, before Step, once.
func (l *Limits) Share(s Sharing, now time.Time) error {
	switch {
	case s.Open == nil || s.Now == nil:
		return fmt.Errorf("%w: it needs pools and a clock", ErrSharing)
	case len(s.Holder) < 1 || len(s.Holder) > 60:
		return fmt.Errorf("%w: holder of %d bytes: 1 to 60", ErrSharing, len(s.Holder))
	case s.Processes < 1 || s.Processes > maxProcesses:
		return fmt.Errorf("%w: %d processes: 1 to %d", ErrSharing, s.Processes, maxProcesses)
	case s.Every <= 0 || s.Timeout <= 0:
		return fmt.Errorf("%w: a step every %s with calls of %s: above 0", ErrSharing, s.Every, s.Timeout)
	}
	l.editing.Lock()
	defer l.editing.Unlock()
	l.sharing = &sharing{Sharing: s, woken: make(chan struct{}, 1)}
	l.sharing.heard.Store(now.UnixNano())
	set := l.now.Load()
	return l.put(set.edition, set.scale, now)
}

// Woken tells when a Step is worth more than waiting for its turn. It is nil
// where nothing is shared.
func (l *Limits) Woken() <-chan struct{} {
	if l.sharing == nil {
		return nil
	}
	return l.sharing.woken
}

// Step draws for budgets that need more, returns what is left of others, and
// forgets those that nobody asks for: one call for each budget at most, one after
// another. At the first call that fails it stops, as the others would, and begins
// with the next one another time.
func (l *Limits) Step(ctx context.Context) (worked bool, err error) {
	d := l.sharing
	if d == nil {
		return false, nil
	}
	now := d.Now().UnixNano()
	var all []*account
	for _, r := range l.now.Load().all {
		if r.shared != nil {
			all = append(all, r.shared.sweep(l, now)...)
		}
	}
	for i := range all {
		a := all[(i+d.turn)%len(all)]
		did, err := a.budget.Step(ctx)
		if err != nil {
			d.turn = (i + d.turn + 1) % len(all)
			return true, err
		}
		worked = worked || did
	}
	if err := l.dismiss(ctx, now); err != nil {
		return true, err
	}
	d.heard.Store(d.Now().UnixNano())
	return worked, nil
}

// dismiss returns what the budgets hold that were given up a moment ago. If that
// fails their leases run out: fewer requests, never more.
func (l *Limits) dismiss(ctx context.Context, now int64) error {
	d := l.sharing
	l.editing.Lock()
	n := 0
	for n < len(d.leaving) && d.leaving[n].at+int64(grace) <= now {
		n++
	}
	gone := d.leaving[:n:n]
	d.leaving = d.leaving[n:]
	l.editing.Unlock()
	var faults []error
	for _, a := range gone {
		ctx, cancel := context.WithTimeout(ctx, d.Timeout)
		faults = append(faults, a.budget.Stop(ctx))
		cancel()
	}
	return errors.Join(faults...)
}

// Leave returns all that is held, for others to use. It is for after the last
// Step, when nobody is admitted any more.
func (l *Limits) Leave(ctx context.Context) error {
	if l.sharing == nil {
		return nil
	}
	l.editing.Lock()
	for _, r := range l.now.Load().all {
		if r.shared != nil {
			l.give(r.shared)
		}
	}
	l.editing.Unlock()
	return l.dismiss(ctx, l.sharing.Now().UnixNano()+int64(grace))
}

// give gives up all accounts of a rule. Editing is locked.
func (l *Limits) give(s *shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.leave(s.now.Load().all, s.of.Now().UnixNano())
	s.now.Store(&open{})
}

// leave has accounts returned that nobody will find any more. Editing is locked.
func (l *Limits) leave(gone []*account, now int64) {
	for _, a := range gone {
		l.sharing.leaving = append(l.sharing.leaving, leaver{a.budget, now})
		l.sharing.accounts.Add(-1)
	}
}

// away says that the pools do not answer, or that Step does not run.
func (d *sharing) away(now int64) bool { return now-d.heard.Load() > int64(silence) }

// wake has Step run soon.
func (d *sharing) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// part is what each of so many processes keeps by itself: a longer Per rather
// than a rounded Limit, where there is room for one.
func (d *sharing) part(r limit.Rate) limit.Rate {
	n := int64(d.Processes)
	r.Burst = max(capacity(r)/n, 1)
	if r.Per <= limit.MaxPer/time.Duration(n) {
		r.Per *= time.Duration(n)
	} else {
		r.Limit = max(r.Limit/n, 1)
	}
	return r
}
