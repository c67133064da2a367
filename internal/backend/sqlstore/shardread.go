package sqlstore

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"slices"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// What a rebuilding and the proof read: everything of a bucket or an activity,
// from all databases, each at one moment of its own. Between these moments a
// batch may have reached some databases and not others, so what lies behind the
// least of their watermarks is left out: the rest is what one database would
// have had at that place of the log.

// moments runs f while a moment of each database is fixed.
func (s *Sharded) moments(ctx context.Context, what string, f func(cs []*conn) error) error {
	cs := make([]*conn, 0, len(s.dbs))
	var open func(i int) error
	open = func(i int) error {
		if i == len(s.dbs) {
			return f(cs)
		}
		return s.dbs[i].moment(ctx, what, func(c *conn) error {
			cs = append(cs[:i], c)
			return open(i + 1)
		})
	}
	return open(0)
}

const markOfLog = "SELECT epoch, position FROM watermarks WHERE log = ?"

// marksOf are the watermarks of a log in all databases.
func marksOf(cs []*conn, log stock.LogID) (marks []stock.Cursor, err error) {
	for _, c := range cs {
		row, ok, err := c.one(markOfLog, string(log))
		if err != nil {
			return nil, err
		}
		at := stock.Cursor{}
		if ok {
			at = cursor(log, integer(row[0]), integer(row[1]))
		}
		marks = append(marks, at)
	}
	return marks, nil
}

func least(marks []stock.Cursor) stock.Cursor {
	return slices.MinFunc(marks, func(a, b stock.Cursor) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Position, b.Position))
	})
}

// keptTries is how often Kept looks for a moment at which no batch is half-way.
const keptTries = 8

// Kept implements order.Buckets. What a lander has decided is kept, so a batch
// that has not reached all databases is completed first.
func (s *Sharded) Kept(ctx context.Context, log stock.LogID) (k order.Kept, err error) {
	if s.lone() {
		return s.Store.Kept(ctx, log)
	}
	p, err := stock.PlaceOf(log)
	if err != nil {
		return k, fmt.Errorf("store: kept: %w", err)
	}
	for range keptTries {
		whole := false
		err := s.moments(ctx, "kept", func(cs []*conn) error {
			marks, err := marksOf(cs, log)
			if err != nil {
				return err
			}
			if whole = !before(least(marks), marks[0]); !whole {
				return nil
			}
			k, err = s.keptAt(ctx, cs, log, p, marks[0])
			return err
		})
		if err != nil {
			return order.Kept{}, err
		}
		if whole {
			return k, nil
		}
		if err := s.complete(ctx, log); err != nil {
			return order.Kept{}, err
		}
	}
	return order.Kept{}, fmt.Errorf("store: kept: %w: batches of log %s keep landing", stock.ErrUnknown, log)
}

func (s *Sharded) keptAt(ctx context.Context, cs []*conn, log stock.LogID, p stock.Place, at stock.Cursor) (k order.Kept, err error) {
	k.Watermark = at
	if k.Rules, err = readRules(ctx, cs[0], log); err != nil {
		return k, err
	}
	for _, g := range s.groups {
		some, err := g.orders.reservations(ctx, cs[g.database], p, at.Epoch)
		if err != nil {
			return k, err
		}
		k.Reservations = append(k.Reservations, some...)
	}
	slices.SortFunc(k.Reservations, func(a, b stock.Reservation) int { return byReservation(a.ID, b.ID) })
	return k, nil
}

func byReservation(a, b stock.ID) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Number, b.Number))
}

// reading of orders from all databases: what is ahead of the marks is left out.
type scan struct {
	s       *Sharded
	cs      []*conn
	marks   map[stock.LogID]stock.Cursor
	skipped map[string]bool // orders left out, by their messages' key
	terms   termsCache
}

// ahead says that an order has landed behind the place that is looked at.
func (n *scan) ahead(o *order.Order) bool {
	at, known := n.marks[o.Position.Log]
	return known && before(at, o.Position)
}

// each visits orders of all databases in reservation order.
func (n *scan) each(ctx context.Context, where string, visit func(o order.Order) error, values ...any) error {
	var heads []func() (order.Order, error, bool)
	for i, c := range n.cs {
		next, stop := iter.Pull2(n.rows(ctx, c, n.s.dbs[i].tables, where, values))
		defer stop()
		heads = append(heads, next)
	}
	return mergeOrders(heads, func(o order.Order) error {
		if n.ahead(&o) {
			n.skipped[string(o.ID)] = true
			return nil
		}
		return visit(o)
	})
}

// mergeOrders takes the first of all heads, again and again.
func mergeOrders(heads []func() (order.Order, error, bool), visit func(o order.Order) error) error {
	first := make([]*order.Order, len(heads))
	advance := func(i int) error {
		o, err, ok := heads[i]()
		first[i] = nil
		if ok {
			first[i] = &o
		}
		return err
	}
	for i := range heads {
		if err := advance(i); err != nil {
			return err
		}
	}
	for {
		next := -1
		for i, o := range first {
			if o != nil && (next < 0 || byReservation(o.Reservation, first[next].Reservation) < 0) {
				next = i
			}
		}
		if next < 0 {
			return nil
		}
		if err := visit(*first[next]); err != nil {
			return err
		}
		if err := advance(next); err != nil {
			return err
		}
	}
}

// errEnough ends a reading that nobody wants more of.
var errEnough = fmt.Errorf("enough")

func (n *scan) rows(ctx context.Context, c *conn, tables []*ordersTable, where string, values []any) iter.Seq2[order.Order, error] {
	return func(yield func(order.Order, error) bool) {
		err := c.query(ctx, ordersOf(snapshotColumns, where, "epoch, bucket, number", tables...), func(row []driver.Value) error {
			o, err := scanOrder(row, &n.terms)
			if err == nil && !yield(o, nil) {
				err = errEnough
			}
			return err
		}, times(len(tables), values)...)
		if err != nil && err != errEnough {
			yield(order.Order{}, err)
		}
	}
}

// times repeats values, for as many tables.
func times(n int, values []any) (all []any) {
	for range n {
		all = append(all, values...)
	}
	return all
}

// undelivered are the waiting messages of orders that a condition selects, but
// for those of orders that were left out.
func (n *scan) undelivered(ctx context.Context, where string, values ...any) (all []outbox.Message, err error) {
	for i, c := range n.cs {
		db := n.s.dbs[i]
		var some []outbox.Message
		err := c.query(ctx, undeliveredOf(c.d, where, db.tables...), func(row []driver.Value) error {
			if m := scanMessage(row); !n.skipped[m.Key] {
				some = append(some, m)
			}
			return nil
		}, times(undeliveredTimes*len(db.tables), values)...)
		if err != nil {
			return nil, err
		}
		all = append(all, db.numbered(some)...)
	}
	return all, nil
}

// Snapshot reads one activity for the proof, see Store.Snapshot.
func (s *Sharded) Snapshot(ctx context.Context, activity stock.ActivityID, visit func(o order.Order) error) (marks map[stock.LogID]stock.Cursor, undelivered []outbox.Message, err error) {
	if s.lone() {
		return s.Store.Snapshot(ctx, activity, visit)
	}
	err = s.moments(ctx, "snapshot", func(cs []*conn) error {
		if marks, err = allMarks(ctx, cs); err != nil {
			return err
		}
		n := &scan{s: s, cs: cs, marks: marks, skipped: map[string]bool{}}
		if err := n.each(ctx, "activity = ?", visit, string(activity)); err != nil {
			return err
		}
		undelivered, err = n.undelivered(ctx, "o.activity = ?", string(activity))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return marks, undelivered, nil
}

// allMarks are the least watermarks of all logs. A log that some database has not
// heard of has landed nothing there.
func allMarks(ctx context.Context, cs []*conn) (map[stock.LogID]stock.Cursor, error) {
	marks := map[stock.LogID]stock.Cursor{}
	heard := map[stock.LogID]int{}
	for _, c := range cs {
		err := c.query(ctx, "SELECT log, epoch, position FROM watermarks", func(row []driver.Value) error {
			log := stock.LogID(text(row[0]))
			at := cursor(log, integer(row[1]), integer(row[2]))
			if have, known := marks[log]; !known || before(at, have) {
				marks[log] = at
			}
			heard[log]++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for log, n := range heard {
		if n < len(cs) {
			marks[log] = stock.Cursor{}
		}
	}
	return marks, nil
}

// Inspect reads one bucket for the proof, see Store.Inspect.
func (s *Sharded) Inspect(ctx context.Context, log stock.LogID, begun func(stock.Cursor) error, visit func(order.Order) error) (rules []stock.Entry, undelivered []outbox.Message, err error) {
	if s.lone() {
		return s.Store.Inspect(ctx, log, begun, visit)
	}
	p, err := stock.PlaceOf(log)
	if err != nil {
		return nil, nil, fmt.Errorf("store: inspect: %w", err)
	}
	err = s.moments(ctx, "inspect", func(cs []*conn) error {
		marks, err := marksOf(cs, log)
		if err != nil {
			return err
		}
		at := least(marks)
		if err := begun(at); err != nil {
			return err
		}
		if rules, err = readRules(ctx, cs[0], log); err != nil {
			return err
		}
		rules = slices.DeleteFunc(rules, func(e stock.Entry) bool { return before(at, e.Cursor) })
		n := &scan{s: s, cs: cs, marks: map[stock.LogID]stock.Cursor{log: at}, skipped: map[string]bool{}}
		for epoch := int64(1); epoch <= int64(marks[0].Epoch); epoch++ {
			if err := n.each(ctx, ofBucket, visit, string(p.Activity), epoch, int64(p.Bucket), string(log)); err != nil {
				return err
			}
		}
		undelivered, err = n.undelivered(ctx, "o.activity = ? AND o.bucket = ?", string(p.Activity), int64(p.Bucket))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return rules, undelivered, nil
}
