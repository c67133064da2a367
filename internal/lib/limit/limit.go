// Package limit decides how often something may happen: four algorithms, a
// table of keys with a bound on its memory, decisions over several limits at
// once, and budgets that several processes share.
//
// A request takes n permits of a key at a time. The time is a parameter, so a
// test needs no clock and a request reads it once for all its limits.
//
//	fixed window    at most Limit in each window; up to 2 × Limit across a boundary
//	sliding window  the last window counts by the part of it still in view;
//	                at most Limit × (1 + x/Per) in any interval of x ≤ Per
//	token bucket    Burst saved up, refilled at Limit/Per; the same bound with Burst
//	leaky bucket    one each Per/Limit, in order: an allowed request is told how
//	                long to wait, and no more than Burst of them wait
//
// Invariants:
//   - A refusal changes nothing, and names the exact time at which the same
//     request would be allowed if nobody else came.
//   - Memory is what it was at construction. Where a table has no place for
//     another key, it forgets the one with the least to forget; that key may
//     then get too much, nobody gets too little (see table.go).
//   - All takes everything or nothing, and any number of them in any order
//     neither lock each other out nor pass a limit together (see group.go).
//   - A clock that goes back neither refills nor locks out (see limiter.go).
//   - An edit of a rate refills nothing (see edit.go).
//   - Processes that share a budget never spend a permit that was not granted,
//     and pass the plain limit by no more than they hold (see budget.go).
//
// Costs: a decision takes one lock of up to 256 and one look into 16 places,
// writes only when it allows, and allocates nothing. A key costs 24 bytes.
//
// It refuses to know who is limited and why, HTTP, and the store behind a Pool.
package limit

import (
	"math"
	"time"
)

// Never is the RetryAfter of a request that no waiting will help: it asks for
// more permits at once than the limit ever has.
const Never = time.Duration(math.MaxInt64)

// Decision is the answer to one request at one limit. Times are from the now
// of the request.
type Decision struct {
	Allowed bool
	// Remaining permits could be taken at this moment, after this request: ≥ 0.
	Remaining int64
	// RetryAfter is 0 if allowed, otherwise the time after which the same request
	// is allowed if nobody else takes of this key; exact to the nanosecond, and
	// not a nanosecond earlier. Never if there is no such time.
	RetryAfter time.Duration
	// Delay is how long an allowed request has to wait before it goes on; only a
	// leaky bucket asks for it. Its place in the queue is taken either way.
	Delay time.Duration
	// Reset is the time until the key is as one never used, if nothing more is
	// taken; 0 if it already is.
	Reset time.Duration
}

// refused is the answer that has no time to offer yet.
func refused(remaining int64, retry, reset int64) Decision {
	return Decision{Remaining: max(remaining, 0), RetryAfter: time.Duration(retry), Reset: time.Duration(reset)}
}

// later moves a decision made for a moment d after the caller's now.
func (d Decision) later(by time.Duration) Decision {
	if by == 0 {
		return d
	}
	if !d.Allowed && d.RetryAfter != Never {
		d.RetryAfter += by
	}
	if d.Delay > 0 {
		d.Delay += by
	}
	if d.Reset > 0 {
		d.Reset += by
	}
	return d
}

// cell is what is known of one key; what its fields mean is up to the
// algorithm. The zero cell is that of a key never used, at any time.
type cell struct {
	at   int64  // windows: start of the one last used; buckets: when the debt is paid
	used uint32 // windows: permits taken in it; buckets: 1/Limit ns on top of at
	last uint32 // sliding window: permits taken in the window before it
}

// algorithm is the whole difference between the four limits: pure functions of
// a cell and a time. Times never go back from one call to the next for a cell.
type algorithm interface {
	// take answers a request for n ≥ 1 permits, and the cell after it: the same
	// one where it refuses.
	take(c cell, n, now int64) (cell, Decision)
	// fresh is when the cell will be as one never used.
	fresh(c cell) int64
	// charged is what counts against the limit now, rounded up.
	charged(c cell, now int64) charge
	// charge makes the cell of a key that took so much just now.
	charge(used charge, now int64) cell
}

// charge counts permits in 1/2³²; it is the currency in which state is carried
// from one rate to another.
type charge uint64

const onePermit charge = 1 << 32
