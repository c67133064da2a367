package sale

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/internal/lib/id"
	"sluice/internal/stock"
)

// PurchaseRequest is one attempt to buy by an authenticated user. Its strings
// may be views of a buffer that lives only as long as the call: what is kept
// is copied.
type PurchaseRequest struct {
	Activity stock.ActivityID
	User     stock.UserID
	Key      string // Idempotency-Key, 1..64 printable ASCII bytes
	Lines    []stock.Line
	// Origin is what the gate goes by: where the attempt comes from, what the
	// user's token says, which passes and tickets are shown. Nothing else looks at
	// it; nil is nothing of all that.
	Origin any
}

// Purchase is the story that everything serves: known key → gate → offer →
// quote → reserve. Deducting, marking the user and recording the intent are
// the one step Reserve, so there is nothing to send afterwards: landing tails
// the ledger's log.
//
// A receipt returned is a promise. Errors are the ledger's refusals,
// ErrNoSuchActivity, ErrInvalid, and stock.ErrUnknown, after which the same
// key finds out.
func (s *Shop) Purchase(ctx context.Context, r PurchaseRequest) (stock.Receipt, error) {
	onSale := s.find(r.Activity)
	if onSale == nil {
		return stock.Receipt{}, ErrNoSuchActivity
	}
	now := stock.MillisOf(s.now())
	face := s.board.Face(onSale.ID)
	if face == nil {
		return stock.Receipt{}, onSale.unknown(now)
	}
	if face.Holds(r.User) {
		// A retry gets its receipt before any other check: a buyer who asks
		// again is never limited, nor told that the sale is sold out.
		receipt, err := s.known(ctx, r)
		if !errors.Is(err, stock.ErrNoSuchReservation) {
			return receipt, err
		}
	} else if err := face.Refuses(r.User, r.Lines, now); err != nil {
		return stock.Receipt{}, err // the flood ends here: no lock, no log, no store
	}
	claims, err := s.gate.Admit(ctx, r)
	if err != nil {
		return stock.Receipt{}, err
	}
	offer, err := onSale.promotion.Offer(r)
	if err != nil {
		return stock.Receipt{}, err
	}
	minted, err := s.ids.Mint(string(r.User))
	if err != nil {
		return stock.Receipt{}, fmt.Errorf("%w: %w", stock.ErrNotReady, err)
	}
	receipt, err := s.ledger.Reserve(ctx, stock.Request{
		Activity:    onSale.ID,
		User:        r.User,
		Key:         r.Key,
		Fingerprint: fingerprint(r.Lines),
		Order:       stock.OrderID(id.Format(minted)),
		Lines:       r.Lines,
		Claims:      claims,
		Terms:       offer.Terms,
		At:          stock.MillisOf(s.now()), // the gate may have let it wait
	})
	if err == nil && !face.Holds(r.User) {
		// A face that mirrors a ledger elsewhere may yet show a moment before this one,
		// with nothing free. Who has a receipt is not told that.
		face.Holder(r.User)
	}
	return receipt, err
}

// unknown is the answer about an activity of which the ledger shows nothing: no
// stock is allocated yet, or what it has is not known here at this moment, or it
// is long over and has been let go.
func (a *onSale) unknown(now stock.Millis) error {
	switch {
	case a.State == Closed || now >= a.ClosesAt:
		return stock.ErrEnded
	case now >= a.OpensAt:
		return stock.ErrNotReady
	}
	return a.notOpen
}

// known answers the receipt of an earlier acceptance under the same key.
func (s *Shop) known(ctx context.Context, r PurchaseRequest) (stock.Receipt, error) {
	receipt, err := s.ledger.Lookup(ctx, stock.Ref{Activity: r.Activity, User: r.User, Key: r.Key})
	if err != nil {
		return stock.Receipt{}, err
	}
	if receipt.Fingerprint != fingerprint(r.Lines) {
		return stock.Receipt{}, stock.ErrMismatch
	}
	return receipt, nil
}

// fingerprint digests the terms asked for: the lines in any order, and never
// passes or tickets, which a retry may have to renew.
func fingerprint(lines []stock.Line) (f stock.Fingerprint) {
	if len(lines) > 1 {
		lines = slices.SortedFunc(slices.Values(lines), func(a, b stock.Line) int {
			if a.SKU < b.SKU {
				return -1
			}
			return 1
		})
	}
	var room [128]byte
	p := room[:0]
	for _, l := range lines {
		p = binary.AppendUvarint(p, uint64(len(l.SKU)))
		p = append(p, l.SKU...)
		p = binary.AppendUvarint(p, uint64(l.Quantity))
	}
	sum := sha256.Sum256(p)
	copy(f[:], sum[:])
	return f
}
