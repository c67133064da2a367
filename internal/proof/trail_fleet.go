package proof

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// rows is the store's side of a FleetTrail.
type rows interface {
	Ground(ctx context.Context, activity stock.ActivityID) (Ground, error)
	Snapshot(ctx context.Context, activity stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error)
	List(ctx context.Context, q order.Query) ([]order.Order, error)
}

// FleetTrail is the Trail of activities in buckets, whose logs are let go as
// they land. It is made of what the store keeps, rules and orders, by the times
// that those tell: units are numbered over all buckets, moves between buckets
// change no number, and what a reservation did happened when its order says.
//
// The clocks of an engine and of the workers may differ. Where a unit would be
// taken before it was given back, the rows do not tell how it was, and that is
// stock.ErrTruncated: nothing is invented. Each question reads all orders; it is
// for people. Safe for concurrent use.
type FleetTrail struct {
	rows rows
	kept *Trail // for its final proofs
}

// NewFleetTrail reads a store.
func NewFleetTrail(r rows, kept archive) *FleetTrail {
	return &FleetTrail{rows: r, kept: &Trail{archive: kept}}
}

// Units answers the units of a SKU from a number on, as Trail does.
func (t *FleetTrail) Units(ctx context.Context, activity stock.ActivityID, sku stock.SKU, from, limit int) (Units, error) {
	all := newShelves()
	if err := t.read(ctx, activity, all); err != nil {
		return Units{}, t.kept.explain(ctx, activity, err)
	}
	return t.kept.page(all, activity, sku, stock.Cursor{Log: stock.LogID(activity)}, from, limit)
}

// Unit answers one unit with all that happened to it.
func (t *FleetTrail) Unit(ctx context.Context, activity stock.ActivityID, sku stock.SKU, number int) (Units, error) {
	all := newShelves()
	var history []UnitEvent
	all.note = func(of stock.SKU, index int, e UnitEvent) {
		if index+1 == number && (sku == "" || of == sku) {
			history = append(history, e)
		}
	}
	if err := t.read(ctx, activity, all); err != nil {
		return Units{}, t.kept.explain(ctx, activity, err)
	}
	page, err := t.kept.page(all, activity, sku, stock.Cursor{Log: stock.LogID(activity)}, number, 1)
	page.Next, page.History = 0, history
	return page, err
}

// happened is one thing that a row tells of. At one instant what gives units
// comes before what takes them.
type happened struct {
	at    stock.Millis
	takes bool
	nth   int // of the activity's rows, in the order of their logs
	apply func(all *shelves) error
}

func (t *FleetTrail) read(ctx context.Context, activity stock.ActivityID, all *shelves) error {
	g, err := t.rows.Ground(ctx, activity)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	var events []happened
	add := func(at stock.Millis, takes bool, apply func(*shelves) error) {
		events = append(events, happened{at, takes, len(events), apply})
	}
	opened := g.opened()
	if len(opened) == 0 {
		return fmt.Errorf("%w: %s", stock.ErrNoSuchActivity, activity)
	}
	if err := all.open(opened); err != nil {
		return err
	}
	for n := range opened {
		for _, e := range g.Rules[stock.Place{Activity: activity, Bucket: uint16(n)}.Log()] {
			if e.Adjustment == nil {
				continue
			}
			if _, _, moved := stock.MoveOf(uint16(n), e.Adjustment); !moved {
				add(e.Adjustment.At, e.Adjustment.Delta < 0, func(all *shelves) error { return all.adjusted(e.Adjustment) })
			}
		}
	}
	number := uint64(0)
	_, _, err = t.rows.Snapshot(ctx, activity, func(o order.Order) error {
		number++
		reservation(o, number, add)
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	slices.SortFunc(events, func(a, b happened) int {
		return cmp.Or(cmp.Compare(a.at, b.at), compareBool(a.takes, b.takes), cmp.Compare(a.nth, b.nth))
	})
	for _, e := range events {
		if err := e.apply(all); err != nil {
			return fmt.Errorf("%w: by the times that the orders tell, %v", stock.ErrTruncated, err)
		}
	}
	return nil
}

// open allots the shares of all buckets as one.
func (s *shelves) open(opened []*stock.Allocation) error {
	for n, a := range opened {
		if a == nil {
			return fmt.Errorf("%w: bucket %d is not open yet", stock.ErrNotReady, n)
		}
		for i, it := range a.Items {
			if n == 0 {
				s.by = append(s.by, &shelf{sku: it.SKU})
			}
			if i < len(s.by) {
				s.add(i, it.Units, a.At)
			}
		}
	}
	return nil
}

// reservation tells what an order's reservation did.
func reservation(o order.Order, number uint64, add func(at stock.Millis, takes bool, apply func(*shelves) error)) {
	r := order.ReservationOf(&o, nil)
	if r.State == stock.Refused {
		return // it never held anything
	}
	add(r.At, true, func(all *shelves) error { return all.takes(number, &r) })
	for _, e := range endings(&o, r.State) {
		add(e.at, false, func(all *shelves) error {
			return all.settled(&stock.Settlement{ID: stock.ID{Number: number}, Outcome: e.outcome, At: e.at})
		})
	}
}

type ending struct {
	outcome stock.Outcome
	at      stock.Millis
}

// endings are the steps of a reservation that came to be in a state, at the
// times of its order; none is before its acceptance.
func endings(o *order.Order, is stock.State) (all []ending) {
	if is == stock.Confirmed || is == stock.Returned {
		all = append(all, ending{stock.Confirmed, max(cmp.Or(o.PaidAt, o.ClosedAt), o.CreatedAt+1)})
	}
	if is == stock.Released || is == stock.Expired || is == stock.Returned {
		all = append(all, ending{is, max(o.ClosedAt, o.CreatedAt+1)})
	}
	return all
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// User answers a user's reservations, oldest first, from their orders. Complete
// is false: when the ledger settled them is not known, only when their orders
// changed; and what was lost before it landed left nothing.
func (t *FleetTrail) User(ctx context.Context, activity stock.ActivityID, user stock.UserID) (UserTrail, error) {
	trail := UserTrail{Activity: activity, User: user, Reservations: []UserReservation{}}
	found, err := t.rows.List(ctx, order.Query{Activity: activity, User: user, Limit: order.MaxPage})
	if err != nil {
		return trail, fmt.Errorf("trail: %w", err)
	}
	for _, o := range slices.Backward(found) {
		r := order.ReservationOf(&o, nil)
		one := reservationOf(&r)
		for _, e := range endings(&o, r.State) {
			one.Settled = append(one.Settled, Settled{e.outcome.String(), e.at.Time()})
		}
		trail.Reservations = append(trail.Reservations, one)
	}
	trail.Proved, err = t.kept.proved(ctx, activity)
	return trail, err
}
