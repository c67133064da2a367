package sqlstore

import (
	"context"
	"database/sql/driver"
	"strings"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// snapshotColumns are orderColumns without what no book is compared by: key,
// fingerprint, products and claims are left out.
var snapshotColumns = strings.NewReplacer(
	"idem_key", "NULL", "fingerprint", "NULL", "products", "NULL", "claims", "NULL",
).Replace(orderColumns)

// Snapshot reads one activity for the proof, all at one moment: the watermark
// of every log, the orders landed up to it, and the undelivered messages whose
// key is one of those orders, in id order and without their bodies.
//
// visit gets each order once, in reservation order (epoch, bucket, number),
// with all fields but Key, Fingerprint, Products and Claims; the orders share
// their Terms, which must not be changed. An error of visit ends the reading
// and is returned. Writers do not wait for it, however long it takes.
func (s *Store) Snapshot(ctx context.Context, activity stock.ActivityID, visit func(o order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error) {
	marks := map[stock.LogID]stock.Cursor{}
	var undelivered []outbox.Message
	err := s.moment(ctx, "snapshot", func(c *conn) error {
		err := c.query(ctx, "SELECT log, epoch, position FROM watermarks", func(row []driver.Value) error {
			log := stock.LogID(text(row[0]))
			marks[log] = cursor(log, integer(row[1]), integer(row[2]))
			return nil
		})
		if err != nil {
			return err
		}
		err = c.query(ctx, undeliveredOf(c.d, "o.activity = ?", s.orders), func(row []driver.Value) error {
			undelivered = append(undelivered, scanMessage(row))
			return nil
		}, times(undeliveredTimes, []any{string(activity)})...)
		if err != nil {
			return err
		}
		var terms termsCache
		return c.query(ctx, ordersOf(snapshotColumns, "activity = ?", "epoch, bucket, number", s.orders),
			func(row []driver.Value) error {
				o, err := scanOrder(row, &terms)
				if err != nil {
					return err
				}
				return visit(o)
			}, string(activity))
	})
	if err != nil {
		return nil, nil, err
	}
	return marks, undelivered, nil
}

// moment runs f in a transaction that sees one moment, fixed by its first read.
// Writers do not wait for it, however long it takes.
func (s *Store) moment(ctx context.Context, what string, f func(c *conn) error) error {
	return s.reading(ctx, what, func(c *conn) error {
		for _, begin := range c.d.beginRead {
			if _, err := c.exec(begin); err != nil {
				return err
			}
		}
		defer func() { // nothing was written; this only lets the moment go
			_, err := c.exec("ROLLBACK")
			c.dead = err != nil
		}()
		return f(c)
	})
}
