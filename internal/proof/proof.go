// Package proof is the auditor: it holds the books side by side (ledger,
// orders, money) and says whether they agree, on demand and as a task
// (watch.go). It also answers from the log where each unit went (trail.go).
// None of that changes anything; a repair (repair.go) is an ordinary operation
// of the engine, asked for by an operator, and never a count written over. When
// an activity is over, its last report is kept (final.go).
//
// Of a ledger of its own there is one log, and one Auditor proves every activity
// from it. Of a ledger in buckets an Inspector in each worker proves those that
// the worker keeps (inspect.go), and a Fleet puts their reports together, in any
// process that has the store (fleet.go, merge.go).
//
// The comparison is made at one log position, so that work in flight is never
// taken for a fault: one store transaction reads the landing watermark and the
// orders, and a replica of the ledger is replayed to just that position. A
// difference is a violation only if the pair of states is not in the table of
// allowed ones and no settle event on its way explains it.
package proof

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// orders is the store's read side.
type orders interface {
	// Snapshot visits every order of an activity in one transaction, and answers
	// the landing watermarks and the events of these orders not yet delivered.
	Snapshot(ctx context.Context, activity stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error)
	// Dead lists dead letters with id > after.
	Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error)
}

// ledger answers what stands now, and how it came to that.
type ledger interface {
	history
	counter
	Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error)
}

// Auditor compares on demand, one activity at a time. Safe for concurrent use.
type Auditor struct {
	mu       sync.Mutex
	orders   orders
	ledger   ledger
	standing replica
	log      stock.LogID
	now      func() time.Time
}

// New builds an auditor of the activities whose entries stand in log.
func New(o orders, l ledger, log stock.LogID, now func() time.Time) *Auditor {
	return &Auditor{orders: o, ledger: l, standing: replica{ledger: l}, log: log, now: now}
}

// Check audits one activity. An activity that nothing was ever sold of is
// proved by its ledger alone; one that the ledger does not know is
// stock.ErrNoSuchActivity.
func (a *Auditor) Check(ctx context.Context, activity stock.ActivityID) (Report, error) {
	r, drifts, err := a.audit(ctx, activity)
	r.Drifts = drifts[:min(len(drifts), MaxViolations)]
	return r, err
}

// audit also answers every drift that was found.
func (a *Auditor) audit(ctx context.Context, activity stock.ActivityID) (Report, []Drift, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := newComparison(activity)
	marks, undelivered, err := a.orders.Snapshot(ctx, activity, func(o order.Order) error {
		c.take(o)
		return ctx.Err()
	})
	if err != nil {
		return Report{}, nil, fmt.Errorf("proof: orders: %w", err)
	}
	mark := marks[a.log]
	mark.Log = a.log
	books, err := a.standing.advance(ctx, mark)
	if err != nil {
		return Report{}, nil, fmt.Errorf("proof: ledger: %w", err)
	}
	if err := c.travelling(ctx, a.orders.Dead, undelivered); err != nil {
		return Report{}, nil, err
	}
	switch book := books[activity]; {
	case book != nil:
		if err := book.Check(); err != nil {
			c.violated("%v", err)
		}
		c.report.Ledger = book.Counts().Items
		c.compare(enteredIn(book), func(o row) (stock.State, error) {
			r, err := a.ledger.Lookup(ctx, stock.Ref{ID: o.reservation, User: o.user})
			return r.State, err
		})
		c.withinLimits(a.standing.limits[activity])
	case len(c.orders) > 0:
		c.violated("%d orders of an activity that the ledger does not know", len(c.orders))
	default:
		return Report{}, nil, stock.ErrNoSuchActivity
	}
	c.followMoney(func(user stock.UserID, id stock.OrderID) bool {
		_, err := a.ledger.Lookup(ctx, stock.Ref{Activity: activity, User: user, Order: id})
		return !errors.Is(err, stock.ErrNoSuchReservation) // a ledger that cannot be asked denies nothing
	})
	c.report.Position = Position{a.log, mark.Epoch, mark.Position}
	c.report.CheckedAt = a.now().UTC().Truncate(time.Millisecond)
	c.report.OK = c.report.Found == 0
	c.report.Final = c.report.OK && !c.moving && len(undelivered) == 0 && a.over(ctx, books[activity], mark)
	return c.report, c.drifts, nil
}

// travelling notes which orders a settle event is on its way for. A dead
// letter is going nowhere: that is a violation until somebody redrives it.
func (c *comparison) travelling(ctx context.Context, list func(ctx context.Context, after int64, limit int) ([]outbox.Message, error), undelivered []outbox.Message) error {
	dead := map[int64]bool{}
	for after := int64(0); ; {
		page, err := list(ctx, after, deadPage)
		if err != nil {
			return fmt.Errorf("proof: dead letters: %w", err)
		}
		for _, m := range page {
			dead[m.ID], after = true, m.ID
		}
		if len(page) < deadPage {
			break
		}
	}
	for _, m := range undelivered {
		switch {
		case !settles(m.Topic):
		case dead[m.ID]:
			c.violated("dead letter %d keeps %s of order %s from the ledger; redrive it", m.ID, m.Topic, m.Key)
			c.drifted(Drift{Kind: Redrive, Order: stock.OrderID(m.Key), Letter: m.ID})
			c.onTheWay[m.Key] = true // the dead letter is what keeps them apart
		default:
			c.onTheWay[m.Key] = true
		}
	}
	return nil
}

const deadPage = 500

// settles says whether the messages of a topic end reservations.
func settles(topic string) bool {
	return topic == order.TopicPaid || topic == order.TopicCancelled || topic == order.TopicRefunded
}

// comparison is one audit under way.
type comparison struct {
	report   Report
	drifts   []Drift
	orders   map[number]row // by reservation
	byID     map[stock.OrderID]number
	onTheWay map[string]bool
	moved    map[string]move          // late payment id → where its money went
	deciding map[string]bool          // late payment ids whose money is still being decided about
	lateOf   map[string]stock.OrderID // late payment id → the order that says it was paid by it
	moving   bool                     // an order waits for money, or its money is on its way back
}

// row is what the comparison keeps of an order.
type row struct {
	id          stock.OrderID
	user        stock.UserID
	state       order.State
	reason      string
	reservation stock.ID
	units       int
	restock     bool
	lateOf      string
	total       pricing.Money
}

// number is a reservation's id within its activity.
type number struct {
	bucket uint16
	epoch  uint32
	number uint64
}

func numberOf(id stock.ID) number { return number{id.Bucket, id.Epoch, id.Number} }

// entered is what the comparison needs of a reservation in the ledger.
type entered struct {
	id    stock.ID
	order stock.OrderID
	user  stock.UserID
	units int
	state stock.State
}

// enteredIn yields the reservations of a book, oldest first.
func enteredIn(book *stock.Book) iter.Seq[entered] {
	return func(yield func(entered) bool) {
		book.Reservations(func(r *stock.Reservation) bool {
			units := 0
			for _, l := range r.Lines {
				units += l.Quantity
			}
			return yield(entered{r.ID, r.Order, r.User, units, r.State})
		})
	}
}

func newComparison(activity stock.ActivityID) *comparison {
	return &comparison{
		report:   Report{Activity: activity, Violations: []string{}, Orders: map[order.State]int{}},
		orders:   map[number]row{},
		byID:     map[stock.OrderID]number{},
		onTheWay: map[string]bool{},
		moved:    map[string]move{},
		deciding: map[string]bool{},
		lateOf:   map[string]stock.OrderID{},
	}
}

func (c *comparison) violated(format string, args ...any) {
	c.report.Found++
	if len(c.report.Violations) < MaxViolations {
		c.report.Violations = append(c.report.Violations, fmt.Sprintf(format, args...))
	}
}

// take counts an order and checks its money.
func (c *comparison) take(o order.Order) {
	c.report.Orders[o.State]++
	at := numberOf(o.Reservation)
	if other, twice := c.orders[at]; twice {
		c.violated("orders %s and %s share reservation %s", other.id, o.ID, o.Reservation)
	}
	units := 0
	for _, l := range o.Terms.Lines {
		units += l.Quantity
	}
	c.orders[at] = row{o.ID, o.User, o.State, o.Reason, o.Reservation, units, o.Terms.Restock, o.LateOf, o.Terms.Money()}
	c.byID[o.ID] = at
	c.moving = c.moving || o.State == order.Created || o.Refunding()
	c.money(o)
}

// agrees lists which state of a reservation goes with which state of its order.
var agrees = map[order.State][]stock.State{
	order.Created:   {stock.Held},
	order.Paid:      {stock.Confirmed},
	order.Fulfilled: {stock.Confirmed},
	order.Cancelled: {stock.Released, stock.Expired},
	order.Refunded:  {stock.Confirmed, stock.Returned},
	order.Refused:   {stock.Refused},
}

// compare holds the orders against the reservations of the ledger at the same
// position. now answers how the reservation of an order stands at the head of
// the log.
func (c *comparison) compare(ledger iter.Seq[entered], now func(row) (stock.State, error)) {
	seen := 0
	for r := range ledger {
		o, landed := c.orders[numberOf(r.id)]
		if !landed {
			c.violated("reservation %s of order %s has no order though it is behind the landing watermark", r.id, r.order)
			c.drifted(Drift{Kind: Reland, Order: r.order, Reservation: r.id.String()})
			continue
		}
		seen++
		if o.id != r.order || o.user != r.user || o.units != r.units || o.reservation != r.id {
			c.violated("order %s (%s of user %s, %d units) is not reservation %s (order %s of user %s, %d units)",
				o.id, o.reservation, o.user, o.units, r.id, r.order, r.user, r.units)
			continue
		}
		c.pair(o, r.state, now)
	}
	if seen != len(c.orders) {
		c.violated("%d orders have no reservation in the ledger", len(c.orders)-seen)
	}
}

// withinLimits takes over what was found while the entries were replayed.
func (c *comparison) withinLimits(l *limits) {
	for _, sentence := range l.sentences {
		c.violated("%s", sentence)
	}
	c.report.Found += l.found - len(l.sentences)
	c.report.LimitsFrom = l.since
}

// pair judges one order beside its reservation. A book that lags behind the
// order is right as long as the settle event is on its way, or its entry is
// behind the position compared at.
func (c *comparison) pair(o row, was stock.State, now func(row) (stock.State, error)) {
	if contains(agrees[o.state], was) && !(o.state == order.Refunded && o.restock && was == stock.Confirmed) {
		return
	}
	if c.onTheWay[string(o.id)] {
		return
	}
	is, err := now(o)
	if err != nil && !errors.Is(err, stock.ErrNoSuchReservation) {
		return // the ledger cannot be asked now; the next audit will tell
	}
	if err == nil && is != was && (contains(agrees[o.state], is) || is == stock.Returned && contains(agrees[o.state], stock.Confirmed)) {
		return // returned: confirmed behind the position, and refunded since
	}
	c.violated("order %s is %s, its reservation %s is %s, and no event is on its way", o.id, o.state, o.reservation, was)
	if err == nil && reachable(o.state, is) {
		c.drifted(Drift{Kind: Resettle, Order: o.id, Reservation: o.reservation.String()})
	}
}

func contains(states []stock.State, s stock.State) bool {
	for _, x := range states {
		if x == s {
			return true
		}
	}
	return false
}
