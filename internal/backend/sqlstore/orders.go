package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"reflect"
	"strings"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Get implements order.Store. An id that no order can have is not there either.
func (s *Store) Get(ctx context.Context, id stock.OrderID) (o order.Order, err error) {
	err = s.reading(ctx, "get order", func(c *conn) error {
		o, err = s.orders.read(ctx, c, id, "")
		return err
	})
	return o, err
}

// read takes a context for reads alone: inside of a transaction nothing may be
// interrupted, see exec.
func (t *ordersTable) read(ctx context.Context, c *conn, id stock.OrderID, forUpdate string) (o order.Order, err error) {
	n, ok := rowID(id)
	if !ok {
		return order.Order{}, fmt.Errorf("%w: %.32q", order.ErrNoSuchOrder, string(id))
	}
	found := false
	err = c.query(ctx, t.get+forUpdate, func(row []driver.Value) (err error) {
		found = true
		o, err = scanOrder(row, nil)
		return err
	}, n)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s", order.ErrNoSuchOrder, id)
	}
	if err != nil {
		return order.Order{}, err
	}
	return o, nil
}

// Update implements order.Store. What the ledger granted (reservation, user,
// key, terms, products, claims, position) and what landing recorded (creation,
// the payment that a late order is for) is written once: change may not touch
// the identity, and changes of the rest are not saved.
func (s *Store) Update(ctx context.Context, id stock.OrderID, change func(o *order.Order) ([]outbox.Message, error)) error {
	var saved args       // by an earlier run of this
	var seen order.Order // as this has left it, or found it
	err := s.do(ctx, func(c *conn) error {
		o, err := s.orders.read(context.Background(), c, id, c.d.forUpdate)
		if err != nil {
			return err
		}
		if c.doubt && saved != nil {
			if is, err := sameSave(&o, saved); is || err != nil {
				return err
			}
		}
		was := o
		seen = o
		events, err := change(&o)
		if err != nil {
			return refusal{err}
		}
		if o.ID != was.ID || o.Reservation != was.Reservation || o.Activity != was.Activity || o.User != was.User || o.Key != was.Key {
			return fmt.Errorf("%w: an update must not change whose order %s is", stock.ErrInvalid, id)
		}
		if saved, err = saveArgs(&o, was.Version); err != nil {
			return err
		}
		changed, err := c.execArgs(s.orders.update, saved)
		if err != nil {
			return err
		}
		if changed != 1 {
			return fmt.Errorf("%w: order %s is no longer at version %d", errRaced, id, was.Version)
		}
		seen.Version = was.Version + 1
		return insertMessages(c, events)
	})
	if _, refused := err.(refusal); err == nil || refused {
		s.session.note(&seen)
	}
	return asItIs("update order", err)
}

// sameSave says whether a commit without an answer has saved o: it is now as
// that would have left it. An order that has changed again since may have gone
// through that state or not.
func sameSave(o *order.Order, saved args) (bool, error) {
	if int64(o.Version) < saved[1].Value.(int64) {
		return false, nil
	}
	is, err := saveArgs(o, o.Version-1)
	if err != nil || reflect.DeepEqual(is, saved) {
		return true, err
	}
	return false, fmt.Errorf("%w: order %s was changed again meanwhile", stock.ErrUnknown, o.ID)
}

// refusal marks an error of a callback, which its caller gets back as it is.
type refusal struct{ error }

// asItIs unwraps a refusal and names the operation of any other error.
func asItIs(what string, err error) error {
	if r, ok := err.(refusal); ok {
		return r.error
	}
	if err != nil {
		return failed(what, err)
	}
	return nil
}

// saveArgs binds ordersTable.update.
func saveArgs(o *order.Order, version int) (args, error) {
	id, _ := rowID(o.ID)
	a := make(args, 0, 16)
	a.text(string(o.State))
	a.int(int64(version + 1))
	a.optInt(int64(o.ExpiresAt))
	a.optInt(int64(o.CheckAt))
	if err := appendMutable(&a, o); err != nil {
		return nil, err
	}
	a.int(id)
	a.int(int64(version))
	return a, nil
}

// List implements order.Store. A query by state alone walks orders from the
// newest until it has its page; all others follow an index.
func (s *Store) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	if q.Limit < 1 || q.Limit > order.MaxPage {
		return nil, fmt.Errorf("store: list orders: %w: limit %d is not in 1..%d", stock.ErrInvalid, q.Limit, order.MaxPage)
	}
	query, values, err := s.orders.listing(s.d, q)
	if err != nil {
		return nil, fmt.Errorf("store: list orders: %w", err)
	}
	var page []order.Order
	err = s.reading(ctx, "list orders", func(c *conn) error {
		page = make([]order.Order, 0, min(q.Limit, 64))
		return c.query(ctx, query, func(row []driver.Value) error {
			o, err := scanOrder(row, nil)
			page = append(page, o)
			return err
		}, values...)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// filter collects conditions and their values.
type filter struct {
	where  []string
	values []any
}

func (f *filter) and(condition string, values ...any) {
	f.where = append(f.where, condition)
	f.values = append(f.values, values...)
}

func (f *filter) sql() string {
	if len(f.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(f.where, " AND ")
}

// listing writes the statement for a query. Pages are chosen by id inside an
// index first and only then read, so that sorting never carries whole rows.
func (t *ordersTable) listing(d *dialect, q order.Query) (string, []any, error) {
	var f filter
	if q.Reservation != nil {
		r := *q.Reservation
		f.and("activity = ? AND epoch = ? AND bucket = ? AND number = ?",
			string(r.Activity), int64(r.Epoch), int64(r.Bucket), int64(r.Number))
	}
	if q.User != "" {
		f.and("user = ?", string(q.User))
	}
	if q.Activity != "" {
		f.and("activity = ?", string(q.Activity))
	}
	if q.Before != "" {
		id, ok := rowID(q.Before)
		if !ok {
			return "", nil, fmt.Errorf("%w: %.32q is not an order id", stock.ErrInvalid, string(q.Before))
		}
		f.and("id < ?", id)
	}
	sort := " ORDER BY id DESC LIMIT ?"
	if q.DueBy > 0 {
		f.and("check_at BETWEEN 1 AND ?", int64(q.DueBy))
		sort = " ORDER BY check_at, id LIMIT ?"
	}
	page := func(f filter) string { return "SELECT * FROM (SELECT id FROM " + t.name + f.sql() + sort + ") AS p" }
	var ids string
	var values []any
	if q.Activity != "" && q.State == "" && q.User == "" && q.Reservation == nil && q.DueBy == 0 {
		// The index is by activity and state: take the newest of each state,
		// and the newest of those.
		var each []string
		for _, state := range states {
			one := filter{append([]string{"state = '" + string(state) + "'"}, f.where...), f.values}
			each = append(each, page(one))
			values = append(append(values, f.values...), q.Limit)
		}
		ids = strings.Join(each, " UNION ALL ")
	} else {
		switch {
		case q.State == "":
		case q.User != "":
			f.and(d.stateOfUser, string(q.State))
		default:
			f.and("state = ?", string(q.State))
		}
		ids, values = page(f), append(f.values, q.Limit)
	}
	return "SELECT " + orderColumns + " FROM " + t.name + " WHERE id IN (" + ids + ")" + sort, append(values, q.Limit), nil
}

var states = []order.State{order.Created, order.Paid, order.Fulfilled, order.Cancelled, order.Refunded, order.Refused}
