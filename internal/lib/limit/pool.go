package limit

import (
	"context"
	"errors"
	"time"
)

// ErrPool: a request to a pool is out of bounds.
var ErrPool = errors.New("invalid request to a pool")

// MaxLeaseID bounds the id of a lease, in bytes; at least 1.
const MaxLeaseID = 128

// Lease is permits that a pool has set aside for one process.
type Lease struct {
	Permits int64 // 0..as many as were wanted
	// ValidFor is how long they may be spent, from the pool's answer on; > 0 if
	// there are any.
	ValidFor time.Duration
	// Again is when it is worth asking for more, if fewer were granted than
	// wanted; 0 if that is at once.
	Again time.Duration
}

// Pool is one limit of all processes together, from which each draws leases. It
// keeps a token bucket of Rate{Limit, Per, Burst} on its own clock, and needs
// no other clock to agree with it. Every call ends with its context, may be
// repeated, and an error leaves open whether it took effect.
type Pool interface {
	// Grant takes up to want permits, 1..MaxLimit, out of the bucket under an id
	// of 1..MaxLeaseID bytes, as many as there are. Taking them and remembering
	// the id with them is one atomic step. A repeated Grant of an id takes nothing
	// and answers what it took the first time, ValidFor being what is left of it;
	// of an id whose lease was returned it answers no permits. When the lease has
	// run out, and not earlier, the pool may forget the id; a Grant of it is then
	// a new one. A Grant that took nothing need not be remembered. What a lease
	// still has when it runs out is spent as far as the pool knows, since nobody
	// can tell it otherwise.
	//
	// A pool that loses its memory begins with a full bucket and lets all leases
	// that were granted run out, so each loss lets at most Burst more through.
	Grant(ctx context.Context, id string, want int64) (Lease, error)
	// Return ends a lease and puts unspent permits of it back, at most what it
	// had and never above Burst. The caller has stopped spending before it calls.
	// Of an id that is unknown, has run out or was returned it does nothing,
	// without an error.
	Return(ctx context.Context, id string, unspent int64) error
}

// CheckLease answers ErrPool if an id or a number of permits, at least from, is
// out of bounds.
func CheckLease(id string, permits, from int64) error {
	if len(id) < 1 || len(id) > MaxLeaseID || permits < from || permits > MaxLimit {
		return ErrPool
	}
	return nil
}
