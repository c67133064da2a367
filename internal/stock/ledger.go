package stock

import (
	"context"
	"iter"
)

// Ledger decides. Only durable entries are ever visible through it: an answer
// that rests on an entry waits until that entry is safe, and is ErrUnknown
// when it cannot be made safe.
//
// Every method is safe for concurrent use and applies atomically: all of an
// operation or nothing, in one order per bucket.
type Ledger interface {
	// Open starts an activity's bucket. Idempotent by allocation id; another
	// allocation for the same bucket is ErrConflict.
	Open(ctx context.Context, a Allocation) error
	// Adjust edits a live activity. Idempotent by adjustment id. Taking back
	// more than is free is a *Refusal of ErrInsufficient with what can be taken.
	Adjust(ctx context.Context, a Adjustment) error
	// Reserve holds units, marks the user, consumes claims and appends the
	// entry in one step. A known (activity, user, key) gets its receipt again,
	// or ErrMismatch when the fingerprint differs, before any other check; then
	// phase and window, per-order limit, per-user limits, stock.
	Reserve(ctx context.Context, r Request) (Receipt, error)
	// Settle ends a reservation and answers the outcome that stands. The same
	// outcome again is no change; another one is ErrOutcome with the standing one.
	Settle(ctx context.Context, s Settlement) (Outcome, error)
	// Lookup finds a reservation, whatever its state, or ErrNoSuchReservation.
	Lookup(ctx context.Context, ref Ref) (Receipt, error)
	// Counts are the units of an activity, at one log position.
	Counts(ctx context.Context, activity ActivityID) (Counts, error)
}

// Ref names a reservation in one of three ways: by ID; by User and Order; or
// by Activity, User and Key.
type Ref struct {
	ID       ID
	User     UserID
	Order    OrderID
	Activity ActivityID
	Key      string
}

// LogID names one ordered log. An embedded ledger has one for all its
// activities; a ledger of buckets has one for each.
type LogID string

// Cursor is a place in a log. The zero Position is before its first entry.
// Epochs order before positions.
type Cursor struct {
	Log      LogID
	Epoch    uint32
	Position uint64
}

// Log is what landing, settlement checks and the proof read.
type Log interface {
	// Tail yields the durable entries after the cursor in order, at least
	// once, and ends at the durable head as it was at the call: it never
	// blocks for new ones. A cursor before the start yields ErrTruncated.
	Tail(ctx context.Context, after Cursor) iter.Seq2[Entry, error]
	// Trim lets entries up to and including the cursor go. Only behind every
	// consumer's durable watermark; what a snapshot does not cover is kept.
	Trim(ctx context.Context, upTo Cursor) error
}

// EntryKind says which field of an Entry is set.
type EntryKind uint8

const (
	EntryOpened   EntryKind = iota + 1 // Allocation
	EntryAdjusted                      // Adjustment
	EntryReserved                      // Reservation
	EntrySettled                       // Settlement
)

// Entry is the effect of one accepted operation. Replaying entries rebuilds a
// Book without deciding anything again.
type Entry struct {
	Cursor      Cursor // where it stands in its log; not part of its encoding
	Activity    ActivityID
	Bucket      uint16
	Sequence    uint64 // 1, 2, … within the bucket, without gaps
	Kind        EntryKind
	Allocation  *Allocation
	Adjustment  *Adjustment
	Reservation *Reservation
	Settlement  *Settlement
}
