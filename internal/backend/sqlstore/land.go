package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Fence implements order.Store.
func (s *Store) Fence(ctx context.Context, log stock.LogID) (token uint64, err error) {
	err = s.writing(ctx, "fence", func(c *conn) error {
		if _, err := c.exec(c.d.fence, string(log)); err != nil {
			return err
		}
		row, _, err := c.one("SELECT token FROM watermarks WHERE log = ?", string(log))
		if err == nil {
			token = uint64(integer(row[0]))
		}
		return err
	})
	return token, err
}

// Watermark implements order.Store.
func (s *Store) Watermark(ctx context.Context, log stock.LogID) (at stock.Cursor, err error) {
	err = s.reading(ctx, "watermark", func(c *conn) error {
		row, ok, err := c.one("SELECT epoch, position FROM watermarks WHERE log = ?", string(log))
		if ok {
			at = cursor(log, integer(row[0]), integer(row[1]))
		}
		return err
	})
	return at, err
}

// cursor is a watermark; before anything has landed it is the zero Cursor.
func cursor(log stock.LogID, epoch, position int64) stock.Cursor {
	if epoch == 0 && position == 0 {
		return stock.Cursor{}
	}
	return stock.Cursor{Log: log, Epoch: uint32(epoch), Position: uint64(position)}
}

// Land implements order.Store.
func (s *Store) Land(ctx context.Context, b order.Batch) error {
	l, err := prepareLanding(b)
	if err != nil {
		return fmt.Errorf("store: land: %w", err)
	}
	l.table = s.orders
	err = s.writing(ctx, "land", l.write)
	s.session.landed(b.Orders, err)
	return err
}

// landing is a batch made ready before the writer is asked for: encoding
// happens outside the transaction.
type landing struct {
	order.Batch
	table    *ordersTable
	rows     []args // of each order
	messages []args // of all orders, in order
}

func prepareLanding(b order.Batch) (*landing, error) {
	if len(b.Orders) > order.MaxBatch {
		return nil, fmt.Errorf("%w: batch of %d orders, at most %d", stock.ErrInvalid, len(b.Orders), order.MaxBatch)
	}
	if b.Log == "" || b.To.Log != b.Log || (b.From.Log != b.Log && b.From != stock.Cursor{}) {
		return nil, fmt.Errorf("%w: batch of log %q runs from %v to %v", stock.ErrInvalid, b.Log, b.From, b.To)
	}
	if cmp.Or(cmp.Compare(b.To.Epoch, b.From.Epoch), cmp.Compare(b.To.Position, b.From.Position)) < 0 {
		return nil, fmt.Errorf("%w: batch runs backwards, from %v to %v", stock.ErrInvalid, b.From, b.To)
	}
	l := &landing{Batch: b, table: plainOrders, rows: make([]args, len(b.Orders))}
	for i := range b.Orders {
		row, err := orderArgs(&b.Orders[i].Order)
		if err != nil {
			return nil, err
		}
		l.rows[i] = row
		for j := range b.Orders[i].Events {
			m, err := messageArgs(&b.Orders[i].Events[j])
			if err != nil {
				return nil, err
			}
			l.messages = append(l.messages, m)
		}
	}
	return l, nil
}

// move takes the watermark from the batch's start to its end, if it stands
// there and the token is the newest. Landers of one log wait for each other
// here. One that has lost the log, or its place, learns which.
func (l *landing) move(c *conn) error {
	moved, err := c.exec("UPDATE watermarks SET epoch = ?, position = ? WHERE log = ? AND token = ? AND epoch = ? AND position = ?",
		int64(l.To.Epoch), int64(l.To.Position), string(l.Log), int64(l.Token), int64(l.From.Epoch), int64(l.From.Position))
	if err != nil || moved == 1 {
		return err
	}
	row, ok, err := c.one("SELECT token, epoch, position FROM watermarks WHERE log = ?"+c.d.forUpdate, string(l.Log))
	if err != nil {
		return err
	}
	if !ok || uint64(integer(row[0])) != l.Token {
		return fmt.Errorf("log %s, token %d: %w", l.Log, l.Token, order.ErrFenced)
	}
	at := cursor(l.Log, integer(row[1]), integer(row[2]))
	if c.doubt && at == l.To {
		return errLanded
	}
	return fmt.Errorf("log %s stands at %d.%d, batch starts at %d.%d: %w",
		l.Log, at.Epoch, at.Position, l.From.Epoch, l.From.Position, order.ErrWatermark)
}

// errLanded: the commit whose answer was lost had taken effect. Nobody else has
// the token, so nobody else has moved the watermark to where this batch ends.
var errLanded = errors.New("landed already")

// write is the whole transaction.
func (l *landing) write(c *conn) error {
	if err := l.move(c); err == errLanded {
		return nil
	} else if err != nil {
		return err
	}
	if err := landRules(c, &l.Batch); err != nil {
		return err
	}
	return l.insert(c)
}

// insert puts the rows that are not there yet, and their events.
func (l *landing) insert(c *conn) error {
	known, err := l.insertRows(c)
	if err != nil {
		return err
	}
	return l.insertEvents(c, known)
}

// insertRows puts the rows that are not there yet, and says by row which were;
// nil: all are new.
func (l *landing) insertRows(c *conn) (known []bool, err error) {
	for at := 0; at < len(l.rows); {
		n := c.d.share(l.rows[at:])
		query := &l.table.insertPlain
		if len(l.rows[at]) > plainCount {
			query = &l.table.insertOrder
		}
		err := query.rows(c, l.rows[at:at+n])
		if duplicate(err) {
			if known == nil {
				known = make([]bool, len(l.rows))
			}
			err = l.insertNew(c, query, at, at+n, known, err)
		}
		if err != nil {
			return nil, err
		}
		at += n
	}
	return known, nil
}

// insertEvents puts the events of the orders that are not known.
func (l *landing) insertEvents(c *conn, known []bool) error {
	if known == nil {
		return insertMessage.all(c, l.messages)
	}
	var events []args
	for i, from := 0, 0; i < len(known); i++ {
		to := from + len(l.Orders[i].Events)
		if !known[i] {
			events = append(events, l.messages[from:to]...)
		}
		from = to
	}
	return insertMessage.all(c, events)
}

// insertNew writes, of rows from..to−1 that collided, those whose reservation
// has no row yet, and marks the others as known. Rows that landed before are
// rare (somebody reads a log again), so they are looked for only now. Any other
// collision (an order id, a key used twice) is still the error.
func (l *landing) insertNew(c *conn, query *insertion, from, to int, known []bool, collision error) error {
	fresh := make([]args, 0, to-from)
	seen := map[stock.ID]bool{}
	for i := from; i < to; i++ {
		r := l.Orders[i].Order.Reservation
		_, there, err := c.one(l.table.byReservation, string(r.Activity), int64(r.Epoch), int64(r.Bucket), int64(r.Number))
		if err != nil {
			return err
		}
		if known[i] = there || seen[r]; !known[i] {
			fresh, seen[r] = append(fresh, l.rows[i]), true
		}
	}
	if len(fresh) == to-from {
		return collision
	}
	return query.all(c, fresh)
}

// insertion is an INSERT of rows of one shape.
type insertion struct {
	head, marks string
	one         string // of a single row, the same text each time
}

func insertInto(table, columns string, n int) insertion {
	i := insertion{head: "INSERT INTO " + table + " (" + columns + ") VALUES ", marks: placeholders(n)}
	i.one = i.head + i.marks
	return i
}

var insertMessage = insertInto("outbox", "msg_key, topic, at, body", 4)

// all writes any number of rows.
func (i *insertion) all(c *conn, rows []args) error {
	for len(rows) > 0 {
		n := c.d.share(rows)
		if err := i.rows(c, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// rows writes rows by one statement.
func (i *insertion) rows(c *conn, rows []args) error {
	if len(rows) == 1 {
		_, err := c.execArgs(i.one, rows[0])
		return err
	}
	all := make(args, 0, len(rows)*len(rows[0]))
	for _, row := range rows {
		for _, v := range row {
			all.add(v.Value)
		}
	}
	_, err := c.execArgs(i.one+strings.Repeat(","+i.marks, len(rows)-1), all)
	return err
}

// share is how many of these rows, from the first, one INSERT takes: as many of
// one shape as stay within its bounds, at least one.
func (d *dialect) share(rows []args) (n int) {
	if d.rows == 1 {
		return 1
	}
	for bytes := 0; n < min(len(rows), d.rows) && len(rows[n]) == len(rows[0]); n++ {
		for _, v := range rows[n] {
			switch v := v.Value.(type) {
			case string:
				bytes += len(v)
			case []byte:
				bytes += len(v)
			default:
				bytes += 20
			}
		}
		if n > 0 && bytes > d.bytes {
			break
		}
	}
	return n
}

// insertMessages writes events in their order.
func insertMessages(c *conn, events []outbox.Message) error {
	rows := make([]args, len(events))
	for i := range events {
		var err error
		if rows[i], err = messageArgs(&events[i]); err != nil {
			return err
		}
	}
	return insertMessage.all(c, rows)
}

func messageArgs(m *outbox.Message) (args, error) {
	if len(m.Key) < 1 || len(m.Key) > 64 || m.Topic == "" {
		return nil, fmt.Errorf("%w: message with key %q and topic %q", stock.ErrInvalid, m.Key, m.Topic)
	}
	a := make(args, 0, 4)
	a.text(m.Key)
	a.text(m.Topic)
	a.int(m.At)
	a.optBlob(m.Body)
	return a, nil
}
