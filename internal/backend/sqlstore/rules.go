package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/order"
	"sluice/internal/stock"
)

var _ order.Buckets = (*Store)(nil)

// landRules keeps what opened and adjusted a bucket, and that its log is over.
// They are few: one look and one row each. The log's watermark has been moved by
// this transaction, so nobody else writes rules of this log meanwhile.
func landRules(c *conn, b *order.Batch) error {
	for i := range b.Rules {
		e := &b.Rules[i]
		known, err := adjusted(c, b.Log, ruleID(e))
		if err != nil {
			return err
		}
		if known {
			continue
		}
		doc, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := c.exec("INSERT INTO rules (log, id, epoch, position, doc) VALUES (?, ?, ?, ?, ?)",
			string(b.Log), ruleID(e), int64(e.Cursor.Epoch), int64(e.Cursor.Position), doc); err != nil {
			return err
		}
	}
	if !b.Retired {
		return nil
	}
	over, err := retired(c, b.Log)
	if err == nil && !over {
		_, err = c.exec("INSERT INTO retired_logs (log) VALUES (?)", string(b.Log))
	}
	return err
}

// ruleID is the adjustment's id; the opened entry, of which a bucket has one,
// has the empty one.
func ruleID(e *stock.Entry) string {
	if e.Adjustment == nil {
		return ""
	}
	return e.Adjustment.ID
}

func adjusted(c *conn, log stock.LogID, id string) (bool, error) {
	_, known, err := c.one("SELECT 1 FROM rules WHERE log = ? AND id = ?", string(log), id)
	return known, err
}

func retired(c *conn, log stock.LogID) (bool, error) {
	_, over, err := c.one("SELECT 1 FROM retired_logs WHERE log = ?", string(log))
	return over, err
}

// Adjusted implements order.Buckets.
func (s *Store) Adjusted(ctx context.Context, log stock.LogID, id string) (is bool, err error) {
	err = s.reading(ctx, "adjusted", func(c *conn) error {
		is, err = adjusted(c, log, id)
		return err
	})
	return is, err
}

// Retired implements order.Buckets.
func (s *Store) Retired(ctx context.Context, log stock.LogID) (is bool, err error) {
	err = s.reading(ctx, "retired", func(c *conn) error {
		is, err = retired(c, log)
		return err
	})
	return is, err
}

// Kept implements order.Buckets. Writers do not wait for it.
func (s *Store) Kept(ctx context.Context, log stock.LogID) (k order.Kept, err error) {
	p, err := stock.PlaceOf(log)
	if err != nil {
		return k, fmt.Errorf("store: kept: %w", err)
	}
	err = s.moment(ctx, "kept", func(c *conn) error {
		k = order.Kept{}
		row, known, err := c.one("SELECT epoch, position FROM watermarks WHERE log = ?", string(log))
		if err != nil || !known {
			return err
		}
		k.Watermark = cursor(log, integer(row[0]), integer(row[1]))
		if k.Rules, err = readRules(ctx, c, log); err != nil {
			return err
		}
		k.Reservations, err = readReservations(ctx, c, p, k.Watermark.Epoch)
		return err
	})
	if err != nil {
		return order.Kept{}, err
	}
	return k, nil
}

func readRules(ctx context.Context, c *conn, log stock.LogID) (rules []stock.Entry, err error) {
	err = c.query(ctx, "SELECT epoch, position, doc FROM rules WHERE log = ? ORDER BY epoch, position", func(row []driver.Value) error {
		var e stock.Entry
		if err := json.Unmarshal(blob(row[2]), &e); err != nil {
			return fmt.Errorf("rule of %s: %w", log, err)
		}
		e.Cursor = cursor(log, integer(row[0]), integer(row[1]))
		rules = append(rules, e)
		return nil
	}, string(log))
	return rules, err
}

const ordersOfEpoch = "SELECT " + orderColumns + " FROM orders WHERE activity = ? AND epoch = ? AND bucket = ? AND log = ? ORDER BY number"

// readReservations reads epoch by epoch, along the unique key that orders have
// by reservation; the numbers of an epoch ascend with its log.
func readReservations(ctx context.Context, c *conn, p stock.Place, newest uint32) (all []stock.Reservation, err error) {
	var terms termsCache
	for epoch := int64(1); epoch <= int64(newest); epoch++ {
		err := c.query(ctx, ordersOfEpoch, func(row []driver.Value) error {
			o, err := scanOrder(row, &terms)
			if err == nil {
				all = append(all, order.ReservationOf(&o, terms.raw))
			}
			return err
		}, string(p.Activity), epoch, int64(p.Bucket), string(p.Log()))
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
