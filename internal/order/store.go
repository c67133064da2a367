package order

import (
	"context"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Store keeps orders. State and its events are saved by one call; there is no
// other way to write. Every write is durable when it returns nil.
type Store interface {
	// Fence makes the caller the only lander of a log: it returns a token
	// greater than every earlier one, and Land with an earlier token is ErrFenced.
	Fence(ctx context.Context, log stock.LogID) (token uint64, err error)
	// Watermark is the last landed place in a log; the zero Cursor before any.
	Watermark(ctx context.Context, log stock.LogID) (stock.Cursor, error)
	// Land writes a batch in one transaction: orders that are not there yet (by
	// reservation), the events of those, and the watermark. ErrFenced or
	// ErrWatermark change nothing.
	Land(ctx context.Context, b Batch) error
	// Update loads an order, lets change edit it and saves it with the events
	// returned, in one transaction; an error from change changes nothing and is
	// returned as it is. change may run more than once and must not keep o.
	Update(ctx context.Context, id stock.OrderID, change func(o *Order) ([]outbox.Message, error)) error
	// Get reads one order, or ErrNoSuchOrder.
	Get(ctx context.Context, id stock.OrderID) (Order, error)
	// List pages through orders, newest id first (DueBy: soonest CheckAt first).
	List(ctx context.Context, q Query) ([]Order, error)
}

// Buckets is what a store keeps besides, so that a bucket can be rebuilt whose
// engine has lost it.
type Buckets interface {
	// Kept reads everything of a bucket's log, at one moment; all of it is zero
	// before its opening has landed. Not the log of a bucket: stock.ErrInvalid.
	Kept(ctx context.Context, log stock.LogID) (Kept, error)
	// Adjusted says which of these adjustments have landed in a log: as many
	// answers as ids, of which there are at most MaxAdjusted.
	Adjusted(ctx context.Context, log stock.LogID, ids []string) ([]bool, error)
	// Retired says whether a log is over: see Batch.
	Retired(ctx context.Context, log stock.LogID) (bool, error)
}

// MaxAdjusted is how many adjustments are looked for at once.
const MaxAdjusted = 500

// Kept is a bucket as the store has it: what stock.Restore makes a book of.
type Kept struct {
	Watermark    stock.Cursor
	Rules        []stock.Entry       // opened and adjusted, in the order of the log
	Reservations []stock.Reservation // as they stand now, refused ones too, oldest first; equal terms are shared
}

// Batch is a run of log entries as orders. It moves the watermark From → To
// even when it holds no order.
type Batch struct {
	Log    stock.LogID
	Token  uint64
	From   stock.Cursor
	To     stock.Cursor
	Orders []Landed
	// Rules are the opened and adjusted entries that are to be kept. One whose
	// adjustment is kept already is no change.
	Rules []stock.Entry
	// Retired notes that this log is over and nobody need open its bucket again.
	Retired bool
}

// Landed is one order and the events of its landing.
type Landed struct {
	Order  Order
	Events []outbox.Message
}

// Query selects orders; zero fields do not restrict.
type Query struct {
	User        stock.UserID
	Activity    stock.ActivityID
	State       State
	Reservation *stock.ID
	DueBy       stock.Millis  // CheckAt in 1..DueBy
	Before      stock.OrderID // page: ids below this one
	Limit       int           // 1..MaxPage
}

// MaxPage bounds a page of orders; MaxBatch a landing batch.
const (
	MaxPage  = 500
	MaxBatch = 1000
)
