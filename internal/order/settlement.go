package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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

	asleep atomic.Int64 // Unix ms until which hasten does not ask

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
// and the message must not block what follows. Every other failure is returned;
// it wraps outbox.ErrAway unless the ledger has answered that it cannot be done.
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
	if err := s.end(ctx, e.User, e.Order, id, asked); err != nil {
		err = fmt.Errorf("settle %s of order %s as %s: %w", id, e.Order, asked, err)
		if !hopeless(err) {
			err = fmt.Errorf("%w: %w", outbox.ErrAway, err)
		}
		return err
	}
	return nil
}

// hopeless says that the ledger has answered, and will answer the same again.
// Everything else (it replays its log, has too much to do, cannot write, does
// not answer) passes.
func hopeless(err error) bool {
	return errors.Is(err, stock.ErrNoSuchReservation) || errors.Is(err, stock.ErrNoSuchActivity) || errors.Is(err, stock.ErrInvalid)
}

// end settles one reservation; a contradiction is noted and no error.
func (s *Settler) end(ctx context.Context, user stock.UserID, order stock.OrderID, id stock.ID, asked stock.Outcome) error {
	stands, err := s.ledger.Settle(ctx, stock.Settlement{ID: id, User: user, Outcome: asked, At: stock.MillisOf(s.now())})
	if errors.Is(err, stock.ErrOutcome) {
		s.violated(Violation{order, id, asked, stands, stock.MillisOf(s.now())})
		return nil
	}
	return err
}

// Bounds of hasten: how long it waits for the ledger, and how long it then
// leaves a ledger alone that did not answer.
const (
	hastenWait  = time.Second
	hastenSleep = 5 * time.Second
)

// hasten tells the ledger what has just become of o, before anybody else is
// told: otherwise a replay of the key would still say "held", and a limit would
// count what its owner has given up, until the relay's next round. It is a
// courtesy. The event that was saved with the change stays the guarantee, and
// so a failure is no matter here.
//
// It costs no second write: the relay then asks for the outcome that stands,
// and the ledger answers that without a log entry.
func (s *Settler) hasten(ctx context.Context, o Order) {
	if !s.hastens(o) {
		return
	}
	call, cancel := context.WithTimeout(ctx, hastenWait)
	defer cancel()
	err := s.end(call, o.User, o.ID, o.Reservation, stateOf(o.State, o.Reason, o.Terms.Restock))
	if err == nil || ctx.Err() != nil {
		return
	}
	// What is answered at once costs nobody anything: a bucket that is being rebuilt
	// must not keep the others from hearing.
	if call.Err() != nil || errors.Is(err, stock.ErrOverloaded) {
		s.asleep.Store(s.now().Add(hastenSleep).UnixMilli())
	}
	s.alarms.log.Debug("the ledger hears of an order later", "order", o.ID, "state", o.State, "error", err)
}

// hastens says whether hasten has anything to tell of an order, to a ledger that
// answers.
func (s *Settler) hastens(o Order) bool {
	return s != nil && (o.State == Paid || o.State == Cancelled) && s.now().UnixMilli() >= s.asleep.Load()
}

// violated notes a contradiction once, though hasten and any number of
// deliveries may find it.
func (s *Settler) violated(v Violation) {
	s.mu.Lock()
	for _, known := range s.violations {
		if known.Reservation == v.Reservation && known.Asked == v.Asked {
			s.mu.Unlock()
			return
		}
	}
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
