package limit

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// Budget spends, in this process, from leases that it draws from a Pool which
// all processes share. A request is answered from what is held, so neither a
// grant nor a refusal waits for the network; Step draws ahead of need.
//
// What is promised, for P processes whose leases are of at most L permits, with
// an advance of A (see BudgetOptions; 0 unless asked for):
//
//   - In all: no permit is spent that the pool did not grant, but for A at a time
//     that the next leases pay for, and none twice, whatever calls fail, stall, or
//     lose their answers.
//   - In any interval of length x: at most Burst + Limit × x/Per + P × (2 L + A).
//     The pool alone would let through the first two; the rest is what processes
//     held when the interval began, having drawn it earlier and not spent it, or
//     have not yet paid for when it ends. Without an advance it is reached, less a
//     permit each, if all spend all they hold at once.
//   - A process spends nothing beyond the validity of its lease as the pool sees
//     it, since it counts from before it asked. So what it can hold over is no
//     older than that.
//   - Too little: what a process that died held is lost, at most 2 L, and what
//     others hold is not there for one who needs it. So L is to be well below
//     Burst / 2P, and above what a process spends between two Steps.
//
// A budget is for limits that are large against P × L: a whole sale, an
// activity, a big address block. One permit a second for each user is better
// limited where the user's requests arrive.
type Budget struct {
	number uint64
	pool   Pool
	now    func() time.Time

	mu     sync.Mutex
	o      BudgetOptions
	purse  purse      // of the two leases, what is left
	held   [2]holding // the older first
	short  bool       // somebody was refused since the last grant
	owed   int64      // of the advance: spent, and no lease has paid for it
	latest int64      // no time before it
	heard  int64      // when the pool last answered
	again  int64      // the pool has nothing before then

	// Of Step alone:
	serial  uint64
	pending string  // id of a lease that was asked for, and not answered
	want    int64   // with it
	back    holding // to be returned,
	unspent int64   // with so many
}

// purse is what a charge changes, so that a group can take it back.
type purse [2]int64

// holding is a lease without its permits.
type holding struct {
	id    string // "": none, or the advance
	until int64  // by our clock, not later than by the pool's
	span  int64  // its validity when it was granted; of the advance, how much it was
}

// BudgetOptions say how a Budget draws. All fields but Advance are required.
type BudgetOptions struct {
	// Holder begins the ids of leases: 1..100 bytes, of this budget in this life
	// of this process alone.
	Holder string
	// Lease is how many permits to draw at a time, and the most that one request
	// can take; 1..MaxLimit.
	Lease int64
	// Low draws the next lease when no more than so many are left, 0..Lease-1:
	// at least what is spent between two Steps and during one call.
	Low int64
	// Advance can be spent before the pool has ever answered, so that whoever
	// comes first need not be refused; 0..Lease. The first leases pay for it. A
	// budget that never hears from its pool, or stops before, has spent it for nothing.
	Advance int64
	// Every is how often Step runs. A refusal tells it as RetryAfter, unless the
	// pool named a later time.
	Every time.Duration
	// Timeout bounds one call of the pool.
	Timeout time.Duration
}

// ErrBudget: options of a budget are out of bounds.
var ErrBudget = errors.New("invalid budget")

func (o BudgetOptions) validate() error {
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("%w: %s", ErrBudget, fmt.Sprintf(format, args...)))
		}
	}
	fault(len(o.Holder) >= 1 && len(o.Holder) <= 100, "holder of %d bytes: 1 to 100", len(o.Holder))
	fault(o.Lease >= 1 && o.Lease <= MaxLimit, "lease %d: 1 to %d permits", o.Lease, MaxLimit)
	fault(o.Low >= 0 && o.Low < o.Lease, "low %d: 0 to below the lease of %d", o.Low, o.Lease)
	fault(o.Advance >= 0 && o.Advance <= o.Lease, "advance %d: 0 to the lease of %d", o.Advance, o.Lease)
	fault(o.Every > 0, "every %s: above 0", o.Every)
	fault(o.Timeout > 0, "timeout %s: above 0", o.Timeout)
	return errors.Join(faults...)
}

// NewBudget holds nothing but its advance until its first Step. now is the clock from which
// callers of Take read UnixNano. The error is ErrBudget.
func NewBudget(pool Pool, o BudgetOptions, now func() time.Time) (*Budget, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	start := now().UnixNano()
	b := &Budget{number: numbers.Add(1), pool: pool, o: o, now: now, latest: start, heard: start}
	if o.Advance > 0 {
		b.held[0], b.purse[0] = holding{until: math.MaxInt64, span: o.Advance}, o.Advance
	}
	return b, nil
}

// Resize changes Lease and Low from the next lease on; the bound then is that
// of the larger Lease until the leases drawn before have run out.
func (b *Budget) Resize(lease, low int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.o
	o.Lease, o.Low, o.Advance = lease, low, 0 // what was advanced stays
	if err := o.validate(); err != nil {
		return err
	}
	b.o = o
	return nil
}

// Take asks for n permits of what this process holds; n < 1 panics. RetryAfter
// of a refusal is an estimate, since other processes take part; Remaining is of
// this process, and Reset the end of its last lease.
func (b *Budget) Take(n, now int64) Decision {
	check(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spend(n, now)
}

// Silence is how long ago the pool last answered. A budget whose pool is away
// refuses once its leases are spent; whoever would rather go on without the
// others sees it here, and keeps the limit by a Limiter of Limit/P until then.
func (b *Budget) Silence(now int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Duration(max(now-b.heard, 0))
}

// tick keeps time from going back, which would make a lease last longer here
// than at the pool. The budget is locked, here and below.
func (b *Budget) tick(now int64) int64 {
	b.latest = max(b.latest, now)
	return b.latest
}

// spend takes from the lease that ends first, then from the other.
func (b *Budget) spend(n, now int64) Decision {
	now = b.tick(now)
	var can purse
	var end int64
	for i, c := range b.held {
		if c.until > now {
			can[i] = b.purse[i]
			if c.id != "" {
				end = c.until
			}
		}
	}
	d := Decision{Remaining: can[0] + can[1], Reset: nanos(max(end-now, 0))}
	switch {
	case n <= d.Remaining:
		first := min(n, can[0])
		b.purse[0] -= first
		b.purse[1] -= n - first
		d.Allowed, d.Remaining = true, d.Remaining-n
	case n > b.o.Lease:
		d.RetryAfter = Never
	default:
		b.short = true
		d.RetryAfter = max(b.o.Every, nanos(b.again-now))
	}
	return d
}
