package sqlstore

import (
	"cmp"
	"context"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Fence implements order.Store.
func (s *Store) Fence(ctx context.Context, log stock.LogID) (token uint64, err error) {
	err = s.writing(ctx, "fence", func(c *conn) error {
		if _, err := c.exec(fenceSQL, string(log)); err != nil {
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
	return s.writing(ctx, "land", l.write)
}

// landing is a batch made ready before the writer is asked for: encoding
// happens outside the transaction.
type landing struct {
	order.Batch
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
	l := &landing{Batch: b, rows: make([]args, len(b.Orders))}
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

// check compares token and watermark inside the transaction.
func (l *landing) check(c *conn) error {
	row, ok, err := c.one("SELECT token, epoch, position FROM watermarks WHERE log = ?", string(l.Log))
	if err != nil {
		return err
	}
	if !ok || uint64(integer(row[0])) != l.Token {
		return fmt.Errorf("log %s, token %d: %w", l.Log, l.Token, order.ErrFenced)
	}
	if at := cursor(l.Log, integer(row[1]), integer(row[2])); at.Epoch != l.From.Epoch || at.Position != l.From.Position {
		return fmt.Errorf("log %s stands at %d.%d, batch starts at %d.%d: %w",
			l.Log, at.Epoch, at.Position, l.From.Epoch, l.From.Position, order.ErrWatermark)
	}
	_, err = c.exec("UPDATE watermarks SET epoch = ?, position = ? WHERE log = ?",
		int64(l.To.Epoch), int64(l.To.Position), string(l.Log))
	return err
}

// write is the whole transaction.
func (l *landing) write(c *conn) error {
	if err := l.check(c); err != nil {
		return err
	}
	return l.insert(c)
}

// insert puts the rows that are not there yet, and their events. One row a
// statement: SQLite keeps an undo journal of every page that a statement of
// several rows touches, and the driver looks for each parameter among all of
// them; a statement that is prepared once costs less than either.
func (l *landing) insert(c *conn) error {
	messages := l.messages
	for i, row := range l.rows {
		query := insertPlain
		if len(row) > plainCount {
			query = insertOrder
		}
		added, err := c.execArgs(query, row)
		if err != nil {
			return err
		}
		mine := messages[:len(l.Orders[i].Events)]
		messages = messages[len(mine):]
		if added == 0 {
			continue
		}
		for _, m := range mine {
			if _, err := c.execArgs(insertMessage, m); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	insertPlain   = "INSERT INTO orders (" + plainColumns + ") VALUES " + placeholders(plainCount) + onSameReservation
	insertOrder   = "INSERT INTO orders (" + plainColumns + extraColumns + ") VALUES " + placeholders(plainCount+extraCount) + onSameReservation
	insertMessage = "INSERT INTO outbox (msg_key, topic, at, body) VALUES " + placeholders(4)
)

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
