// Package outbox relays messages that were saved in the transaction that
// caused them (the transactional outbox). It owns delivery: at least once, in
// id order within a key, parallel across keys, with attempts, exponential
// back-off and dead letters. It knows nothing of what messages mean.
//
// Invariants: a message is done only after every handler returned nil; a
// message that failed or is dead blocks later messages of its key and no others.
package outbox

import (
	"context"
	"errors"
)

// ErrNoSuchMessage: the queue holds no message with this id in the state that
// the call is about.
var ErrNoSuchMessage = errors.New("no such message")

// ErrAway: something that a handler needs (a store, a ledger, another server)
// does not answer now and is expected back. A message whose handler's error
// wraps it is tried for as long as it takes, about every half minute at last,
// and never becomes a dead letter by it. Its attempts are counted all the same:
// a failure of another kind after many of them may be the last.
var ErrAway = errors.New("not answering at present")

// Message is one event. ID is given by the queue and never used again; within a
// key, ids ascend in commit order.
type Message struct {
	ID       int64
	Key      string // ordering key, 1..64 bytes
	Topic    string // "order.paid", …
	Body     []byte // JSON
	At       int64  // when it happened, Unix ms
	Attempts int    // failed deliveries so far
	Reason   string // of the last failure

	// NotBefore holds the message, and later ones of its key, back until then
	// (Unix ms); 0 is at once. What is sent over a bus keeps it and its readers
	// observe it; a queue in a store delivers at once.
	NotBefore int64
}

// Waiting is a message that was taken from a bus and is delivered later.
type Waiting struct {
	Message
	Next int64 // its next try, Unix ms; 0 as soon as nothing blocks its key; Never for a dead letter
}

// Never is the next try of a dead letter.
const Never = -1

// Queue is where messages wait. Messages enter it inside the transactions of
// its store, not through this interface.
type Queue interface {
	// Pending yields due messages (next try ≤ now, Unix ms) in id order, at most
	// limit, leaving out every message behind an unfinished failed or dead one
	// of its key.
	Pending(ctx context.Context, now int64, limit int) ([]Message, error)
	// Done forgets delivered messages.
	Done(ctx context.Context, ids []int64) error
	// Retry counts a failed attempt and hides the message until at (Unix ms).
	// ErrNoSuchMessage when it is unknown or dead.
	Retry(ctx context.Context, id int64, at int64, reason string) error
	// Bury counts a failed attempt and makes the message a dead letter: kept,
	// never tried, blocking its key. ErrNoSuchMessage when it is unknown or dead.
	Bury(ctx context.Context, id int64, reason string) error
	// Dead lists dead letters with id > after, at most limit.
	Dead(ctx context.Context, after int64, limit int) ([]Message, error)
	// Redrive makes a dead letter due again with no attempts counted, in its old
	// place. ErrNoSuchMessage when there is no such dead letter.
	Redrive(ctx context.Context, id int64) error
	// Backlog is how many messages are unfinished and when the oldest of them
	// happened (Unix ms, 0 if none).
	Backlog(ctx context.Context) (n int, oldest int64, err error)
}

// Handler takes one message. It is called again for the same message after a
// crash or an error, so its effect must be idempotent.
type Handler func(ctx context.Context, m Message) error
