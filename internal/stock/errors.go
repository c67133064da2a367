package stock

import (
	"errors"
	"fmt"
)

// Refusals and failures of the ledger. Those that carry detail are a *Refusal
// that wraps one of these.
var (
	ErrNoSuchActivity    = errors.New("no such activity")
	ErrNoSuchSKU         = errors.New("no such SKU in this activity")
	ErrNoSuchReservation = errors.New("no such reservation")
	ErrInvalid           = errors.New("invalid request")
	ErrNotOpen           = errors.New("not open yet")
	ErrPaused            = errors.New("paused")
	ErrEnded             = errors.New("ended")
	ErrLimit             = errors.New("limit reached")
	ErrSoldOut           = errors.New("sold out")
	ErrAllHeld           = errors.New("all units are held")
	ErrInsufficient      = errors.New("fewer units free than asked for")
	ErrMismatch          = errors.New("the same key came with other terms")
	ErrClaimUsed         = errors.New("pass or ticket already used")

	// ErrOutcome: a settlement asked for an outcome other than the one that
	// stands. A violation: the caller raises an alarm.
	ErrOutcome = errors.New("reservation already ended otherwise")
	// ErrConflict: an id was used again for something else.
	ErrConflict = errors.New("id already used for something else")

	// ErrUnknown: whether the request was accepted is not known (its log entry
	// may or may not be durable). Retrying with the same key finds out.
	ErrUnknown = errors.New("outcome unknown, retry with the same key")
	// ErrOverloaded: a bound on work in flight was reached; nothing was changed.
	ErrOverloaded = errors.New("overloaded")
	// ErrNotReady: the ledger is replaying or fenced; nothing was changed.
	ErrNotReady = errors.New("ledger not ready")

	// ErrStale: a newer keeper of the bucket has taken over; nothing was changed.
	ErrStale = errors.New("a newer keeper has taken over")

	// ErrTruncated: the log no longer reaches back to the cursor.
	ErrTruncated = errors.New("log starts after the cursor")
	// ErrCorrupt: an entry does not decode or does not follow from the state.
	ErrCorrupt = errors.New("corrupt log entry")
)

// Refusal explains an ordinary "no". It wraps the sentinel in Err.
type Refusal struct {
	Err       error
	SKU       SKU
	Available int    // with ErrInsufficient: what can be had
	Limit     int    // with ErrLimit: the limit that was met
	Scope     string // with ErrLimit: per_order, per_user, per_activity, reservations
	OpensAt   Millis // with ErrNotOpen
}

func (r *Refusal) Error() string {
	switch {
	case r.OpensAt != 0:
		return fmt.Sprintf("%v: opens at %s", r.Err, r.OpensAt.Time().Format("2006-01-02T15:04:05.000Z"))
	case r.Scope != "":
		return fmt.Sprintf("%v: %s %d", r.Err, r.Scope, r.Limit)
	case r.Err == ErrInsufficient:
		return fmt.Sprintf("%v: %s has %d", r.Err, r.SKU, r.Available)
	case r.SKU != "":
		return fmt.Sprintf("%v: %s", r.Err, r.SKU)
	}
	return r.Err.Error()
}

func (r *Refusal) Unwrap() error { return r.Err }
