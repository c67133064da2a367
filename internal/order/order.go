// Package order owns what happens after the ledger accepted: landing log
// entries as order rows, payment, cancellation, timeout, refund. From landing
// on, the order row is the authority: pay, cancel and timeout are conditional
// updates of it, and the ledger follows by events.
//
// Invariants: one order per reservation; the landing watermark is in the
// transaction of its rows; state and its events are saved by one call; every
// captured minor unit either pays an order or is refunded.
//
// It refuses to decide about stock, and never imports sale: the reservation
// carries its terms, so history cannot change under an order.
package order

import (
	"errors"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// State of an order: created → paid → fulfilled, or cancelled, refunded.
// Refused is a reservation that the lander would not honour (a lost ledger).
type State string

const (
	Created   State = "created"
	Paid      State = "paid"
	Fulfilled State = "fulfilled"
	Cancelled State = "cancelled"
	Refunded  State = "refunded"
	Refused   State = "refused"
)

// Errors of the store and of transitions.
var (
	ErrNoSuchOrder = errors.New("no such order")
	// ErrState: the order's state does not allow what was asked.
	ErrState = errors.New("order state does not allow this")
	// ErrFenced: a newer owner holds the log; this one must stop landing.
	ErrFenced = errors.New("landing fenced by a newer owner")
	// ErrWatermark: the batch does not start where the store's watermark stands.
	ErrWatermark = errors.New("batch does not start at the watermark")
	// ErrNotReady: the order is not landed yet; try again soon.
	ErrNotReady = errors.New("order not ready yet")
)

// Order is the row. Everything a book needs to be rebuilt is in it.
type Order struct {
	ID          stock.OrderID
	Reservation stock.ID
	Activity    stock.ActivityID
	User        stock.UserID
	Key         string
	Fingerprint stock.Fingerprint
	Claims      []string
	Terms       pricing.Terms // quote and policies as granted
	Products    []byte        // JSON array, one immutable product snapshot per quote line
	Position    stock.Cursor  // of its entry in the log

	State     State
	Version   int    // 1 at landing, +1 with each update; updates are conditional on it
	Reason    string // why cancelled or refunded: timeout, shopper, operator, …; set on a paid or fulfilled order, its refund is under way
	CreatedAt stock.Millis
	ExpiresAt stock.Millis
	PaidAt    stock.Millis
	ClosedAt  stock.Millis

	LateOf     string        // payment id of the cancelled order whose late money pays this one
	ReplacedBy stock.OrderID // the order that this order's late money paid
	Money      Money
	CheckAt    stock.Millis // when the worker must look at this order next; 0 = never
}

// Money is all payment traffic of an order, kept as one JSON column: it is
// read and written only together with its order.
type Money struct {
	Payments []Payment `json:"payments,omitempty"`
	Captures []Capture `json:"captures,omitempty"`
	Refunds  []Refund  `json:"refunds,omitempty"`
	Reminded bool      `json:"reminded,omitempty"` // the shopper was told that payment is due
	// Chases and ChaseAt drive the refund of an order that late money paid: how
	// often, and when next, to look at the order that the money lies with.
	Chases  int          `json:"chases,omitempty"`
	ChaseAt stock.Millis `json:"chase_at,omitempty"`
}

// PaymentState of one attempt to pay.
type PaymentState string

const (
	PaymentStarting PaymentState = "starting" // saved, provider not yet known to have it
	PaymentStarted  PaymentState = "started"  // the shopper can pay
	PaymentCaptured PaymentState = "captured"
	PaymentFailed   PaymentState = "failed"
)

// Payment is one attempt to pay. ID is "<order>-<n>", saved before the provider is called.
type Payment struct {
	ID       string        `json:"id"`
	Provider string        `json:"provider"`
	Amount   pricing.Money `json:"amount"`
	State    PaymentState  `json:"state"`
	PayURL   string        `json:"pay_url,omitempty"`
	// ReturnURL is part of what the provider is asked, so a start that is
	// repeated after a crash asks for the very same thing.
	ReturnURL string       `json:"return_url,omitempty"`
	At        stock.Millis `json:"at"`
	Checks    int          `json:"checks,omitempty"`   // polls so far
	CheckAt   stock.Millis `json:"check_at,omitempty"` // next poll; 0 = final
}

// Capture is money that arrived. Pays is the order that it pays; empty means
// that it is to be given back.
type Capture struct {
	ID      string        `json:"id"` // the provider's
	Payment string        `json:"payment"`
	Amount  pricing.Money `json:"amount"`
	At      stock.Millis  `json:"at"`
	Pays    stock.OrderID `json:"pays,omitempty"`
	Late    bool          `json:"late,omitempty"` // arrived after cancellation; Pays or a refund is being decided
	// Attempts and CheckAt drive that decision while the ledger cannot answer.
	Attempts int          `json:"attempts,omitempty"`
	CheckAt  stock.Millis `json:"check_at,omitempty"`
}

// RefundState of one refund.
type RefundState string

const (
	RefundRequested RefundState = "requested" // saved, being asked of the provider
	RefundDone      RefundState = "done"
	RefundStuck     RefundState = "stuck" // the provider refused for good; needs a person
)

// Refund gives one capture back. ID is "<payment>-r<n>", saved before the call.
type Refund struct {
	ID       string        `json:"id"`
	Payment  string        `json:"payment"`
	Capture  string        `json:"capture"`
	Amount   pricing.Money `json:"amount"`
	Reason   string        `json:"reason"` // operator, late, second_capture, wrong_amount, wrong_currency
	State    RefundState   `json:"state"`
	At       stock.Millis  `json:"at"`
	Attempts int           `json:"attempts,omitempty"`
	CheckAt  stock.Millis  `json:"check_at,omitempty"`
}
