package call

import (
	"cmp"
	"sync"
	"time"
)

// BudgetOptions of a Budget. The zero value is usable.
type BudgetOptions struct {
	Share     float64 // retries for each call; default 0.1, 0..1; negative: none
	PerSecond float64 // retries a second however few calls there are; default 1; negative: none
	Saved     float64 // most retries that can be saved up; default 10 seconds' worth of PerSecond, at least 10
}

func (o BudgetOptions) withDefaults() (BudgetOptions, error) {
	o.Share = max(0, cmp.Or(o.Share, 0.1))
	o.PerSecond = max(0, cmp.Or(o.PerSecond, 1))
	o.Saved = cmp.Or(o.Saved, max(10, 10*o.PerSecond))
	return o, faults("retry budget",
		check(o.Share <= 1, "share %v is above 1", o.Share),
		check(o.Saved >= 1, "saved %v is below 1", o.Saved))
}

// Budget bounds retries by calls. Attempts alone do not: with three of them,
// an outage triples the load on what is already down, and three layers of callers
// make it twenty-seven times. In any span of t seconds with n calls it grants at
// most
//
//	Share × n + PerSecond × t + Saved
//
// retries. It is a bucket of tokens: calls and time fill it, a retry takes one;
// as in Finagle's RetryBudget and gRPC's retry throttling. Share it among all
// callers of one dependency. It is safe for concurrent use.
type Budget struct {
	o      BudgetOptions
	mu     sync.Mutex
	tokens float64
	filled time.Time // until when PerSecond is in tokens; zero: not begun
}

// NewBudget starts with a second's worth: an outage may be there already. The
// error wraps ErrOptions and names all faults.
func NewBudget(o BudgetOptions) (*Budget, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Budget{o: o, tokens: min(o.Saved, o.PerSecond)}, nil
}

// Called tells of one call, not of its retries.
func (b *Budget) Called(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now, b.o.Share)
}

// Take asks for one retry.
func (b *Budget) Take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now, 0)
	// Ten calls of a tenth each are one retry, though not in binary fractions.
	const rounding = 1e-9
	if b.tokens < 1-rounding {
		return false
	}
	b.tokens = max(0, b.tokens-1)
	return true
}

// Left is how many retries it would grant now.
func (b *Budget) Left(now time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now, 0)
	return b.tokens
}

func (b *Budget) fill(now time.Time, more float64) {
	if b.filled.IsZero() {
		b.filled = now
	}
	if passed := now.Sub(b.filled); passed > 0 { // a clock that goes back earns nothing twice
		more += b.o.PerSecond * passed.Seconds()
		b.filled = now
	}
	b.tokens = min(b.o.Saved, b.tokens+more)
}
