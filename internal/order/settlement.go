package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// settles is the part of stock.Ledger that ends reservations.
type settles interface {
	Settle(ctx context.Context, s stock.Settlement) (stock.Outcome, error)
}

// Settler makes the ledger follow the orders: it handles order.* messages by
// settling their reservations. Settling the same outcome again is no change,
// so a repeated message does no harm.
type Settler struct {
	ledger settles
	alarms *Alarms
	now    func() time.Time

	mu         sync.Mutex
	violations []Violation
	count      int
}

// Violation is a settlement that the ledger will never accept, because the
// reservation has ended otherwise.
type Violation struct {
	Order       stock.OrderID
	Reservation stock.ID
	Asked       stock.Outcome
	Stands      stock.Outcome
	At          stock.Millis
}

// maxViolations bounds the violations kept in detail; all are counted, and
// the comparison of orders with the ledger finds each of them again.
const maxViolations = 100

// NewSettler needs all its arguments.
func NewSettler(ledger settles, alarms *Alarms, now func() time.Time) *Settler {
	return &Settler{ledger: ledger, alarms: alarms, now: now}
}

// Settle is an outbox.Handler for order.paid (confirm), order.cancelled
// (release, or expire when the reason is a timeout) and order.refunded (return,
// if the terms restock). Other topics are no concern of the ledger.
//
// A contradiction is an alarm and counts as handled: trying again cannot help,
// and the message must not block what follows. Every other failure is returned.
func (s *Settler) Settle(ctx context.Context, m outbox.Message) error {
	switch m.Topic {
	case TopicPaid, TopicCancelled, TopicRefunded:
	default:
		return nil
	}
	e, id, err := readEvent(m)
	if err != nil {
		return err
	}
	if e.State == Refunded && !e.Restock {
		return nil // confirmed when it was paid, and stays so
	}
	var asked stock.Outcome
	switch e.State {
	case Paid, Cancelled, Refunded:
		asked = stateOf(e.State, e.Reason, e.Restock)
	default:
		return fmt.Errorf("event %d of %s: %s says state %q", m.ID, m.Key, m.Topic, e.State)
	}
	stands, err := s.ledger.Settle(ctx, stock.Settlement{ID: id, Outcome: asked, At: stock.MillisOf(s.now())})
	if errors.Is(err, stock.ErrOutcome) {
		s.violated(Violation{e.Order, id, asked, stands, stock.MillisOf(s.now())})
		return nil
	}
	if err != nil {
		return fmt.Errorf("settle %s of order %s as %s: %w", id, e.Order, asked, err)
	}
	return nil
}

func (s *Settler) violated(v Violation) {
	s.mu.Lock()
	s.count++
	if len(s.violations) < maxViolations {
		s.violations = append(s.violations, v)
	}
	s.mu.Unlock()
	s.alarms.raise(AlarmSettlement, "order", v.Order, "reservation", v.Reservation.String(),
		"asked", v.Asked.String(), "stands", v.Stands.String())
}

// Violations are those seen since the process started: the first hundred, and
// how many there were in all.
func (s *Settler) Violations() (first []Violation, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations), s.count
}
