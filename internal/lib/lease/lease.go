// Package lease gives one holder at a time a right for a while: to land a log,
// to run the expiry of an activity. It owns the contract, a keeper that holds a
// lease by steps, and a body for a single process.
//
// A lease alone excludes nobody: a holder that is stopped in the middle of its
// work wakes up behind the end of its lease and goes on. What excludes it is
// the token. Tokens of a name ascend with every grant, and whoever is written
// to refuses a token below one it has seen, or asks, in the transaction of the
// write, whether the grant still stands.
//
// Invariants: no token of a name is granted twice; at any instant of the
// leases' own clock at most one grant of a name stands. It refuses to know what
// a lease is for.
package lease

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrHeld: somebody else holds the lease.
	ErrHeld = errors.New("lease held by somebody else")
	// ErrLost: the grant no longer stands: it ran out, was released, or another
	// one was given for its name.
	ErrLost = errors.New("lease lost")
)

// Bounds of names, holders and times.
const (
	MaxName   = 128 // bytes, at least 1
	MaxHolder = 128 // bytes, at least 1
	MinTTL    = 10 * time.Millisecond
	MaxTTL    = time.Hour
)

// ErrInvalid: a name, a holder or a time is out of bounds.
var ErrInvalid = errors.New("invalid lease")

// Grant is a lease that was given.
type Grant struct {
	Name   string
	Holder string
	Token  uint64 // ≥ 1, greater than every earlier one of this name
}

// Leases gives and takes back. Times are measured by its own clock, the same
// for all who ask; ttl is MinTTL..MaxTTL. An error that wraps none of the
// sentinels leaves open whether the call took effect; each may be repeated.
type Leases interface {
	// Acquire grants a lease that nobody else holds, or ErrHeld. Who holds it
	// already gets a new grant, which ends the earlier one: a holder's name must
	// be of one life of one process.
	Acquire(ctx context.Context, name, holder string, ttl time.Duration) (Grant, error)
	// Renew lets a grant that still stands stand for ttl from now, or ErrLost.
	Renew(ctx context.Context, g Grant, ttl time.Duration) error
	// Release ends a grant, so that nobody has to wait for its end. One that no
	// longer stands is no error.
	Release(ctx context.Context, g Grant) error
}

// Check says what of a request is out of bounds.
func Check(name, holder string, ttl time.Duration) error {
	if len(name) < 1 || len(name) > MaxName || len(holder) < 1 || len(holder) > MaxHolder || ttl < MinTTL || ttl > MaxTTL {
		return ErrInvalid
	}
	return nil
}
