// Package payment is the contract with payment providers. It owns no money
// and no state: orders keep our payment and refund ids, saved before each
// call, and a provider answers by those ids.
//
// Invariants a provider keeps: Start and Refund are idempotent by our id;
// Query tells all captures of a payment; a callback is genuine or ErrForged.
package payment

import (
	"context"
	"errors"

	"sluice/internal/pricing"
)

var (
	// ErrForged: a callback's signature does not match its body, or is too old.
	ErrForged = errors.New("callback is not genuine")
	// ErrMalformed: a genuine or unsigned callback that cannot be read.
	ErrMalformed = errors.New("callback is malformed")
	// ErrNoSuchPayment: the provider has never heard of the id.
	ErrNoSuchPayment = errors.New("provider knows no such payment")
	// ErrProvider: the provider failed or did not answer; what it did is not known.
	ErrProvider = errors.New("payment provider failed")
	// ErrAway: the provider was not asked, for it has not been answering; nothing
	// was done. It comes together with ErrProvider.
	ErrAway = errors.New("payment provider is not being asked")
	// ErrRefused: the provider understood and will not do it; final.
	ErrRefused = errors.New("payment provider refused")
)

// Provider moves money. Calls may be repeated with the same ids and take
// effect once. Errors wrap ErrProvider (try again) or ErrRefused (final).
type Provider interface {
	// Name is the provider's part of the callback path, [a-z0-9-]{1,32}.
	Name() string
	// Start asks for a payment and answers where the shopper pays.
	Start(ctx context.Context, r StartRequest) (payURL string, err error)
	// Query tells where a payment stands, or ErrNoSuchPayment.
	Query(ctx context.Context, paymentID string) (Status, error)
	// Refund gives a capture's money back, all of it. Idempotent by refund id.
	Refund(ctx context.Context, r RefundRequest) (RefundState, error)
	// Parse checks and reads a callback. header is case-insensitive.
	Parse(header func(name string) string, body []byte) (Status, error)
}

// StartRequest describes a payment. ID is ours: "<order>-<n>", n = 1, 2, ….
type StartRequest struct {
	ID          string
	Amount      pricing.Money
	Description string // ≤ 128 bytes, shown to the shopper
	ReturnURL   string // where the shopper goes afterwards; empty = stays at the provider
	CallbackURL string // where the provider reports
}

// State of a payment at its provider.
type State string

const (
	Open   State = "open"   // may still be captured
	Paid   State = "paid"   // has at least one capture
	Failed State = "failed" // final, nothing captured
)

// Status is what a provider says of one payment: all that has arrived so far.
// A callback may tell less than a query (only its own capture).
type Status struct {
	PaymentID string    `json:"payment"`
	State     State     `json:"state"`
	Captures  []Capture `json:"captures"` // ≤ MaxCaptures
}

// MaxCaptures bounds the captures of one payment that are read.
const MaxCaptures = 8

// Capture is money that arrived. ID is the provider's, unique for ever: the
// same id again is the same money, another id is more money.
type Capture struct {
	ID     string        `json:"id"` // 1..64 bytes
	Amount pricing.Money `json:"amount"`
}

// RefundRequest gives back one capture. ID is ours: "<payment>-r<n>".
type RefundRequest struct {
	ID        string
	PaymentID string
	CaptureID string
	Amount    pricing.Money
}

// RefundState of a refund at its provider.
type RefundState string

const (
	RefundPending RefundState = "pending" // ask again by repeating the refund
	RefundDone    RefundState = "done"
)
