package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"

	"sluice/internal/order"
	"sluice/internal/stock"
)

var _ order.Buckets = (*Store)(nil)

var insertRule = insertInto("rules", "log, id, epoch, position, doc", 5)

// landRules keeps what opened and adjusted a bucket, and that its log is over.
// When little is left to sell, units move between buckets with every other
// purchase, so they are looked for and written together. The log's watermark has
// been moved by this transaction: nobody else writes rules of this log meanwhile.
func landRules(c *conn, b *order.Batch) error {
	for rules := range slices.Chunk(b.Rules, order.MaxAdjusted) {
		if err := keepRules(c, b.Log, rules); err != nil {
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

func keepRules(c *conn, log stock.LogID, rules []stock.Entry) error {
	ids := make([]string, len(rules))
	for i := range rules {
		ids[i] = ruleID(&rules[i])
	}
	known, err := adjusted(context.Background(), c, log, ids) // a write is not given up half-way
	if err != nil {
		return err
	}
	var rows []args
	for i := range rules {
		if known[ids[i]] {
			continue
		}
		known[ids[i]] = true // also if it stands here twice
		e := &rules[i]
		doc, err := json.Marshal(e)
		if err != nil {
			return err
		}
		var row args
		for _, v := range []any{string(log), ids[i], int64(e.Cursor.Epoch), int64(e.Cursor.Position), doc} {
			row.add(v)
		}
		rows = append(rows, row)
	}
	return insertRule.all(c, rows)
}

// ruleID is the adjustment's id; the opened entry, of which a bucket has one,
// has the empty one.
func ruleID(e *stock.Entry) string {
	if e.Adjustment == nil {
		return ""
	}
	return e.Adjustment.ID
}

// adjusted finds which of these rules are kept. The ids are bound one by one: as
// a list in JSON, bytes that are no text would come back as others.
func adjusted(ctx context.Context, c *conn, log stock.LogID, ids []string) (known map[string]bool, err error) {
	known = make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return known, nil
	}
	values := make([]any, 1, len(ids)+1)
	values[0] = string(log)
	for _, id := range ids {
		values = append(values, id)
	}
	err = c.query(ctx, "SELECT id FROM rules WHERE log = ? AND id IN "+placeholders(len(ids)), func(row []driver.Value) error {
		known[text(row[0])] = true
		return nil
	}, values...)
	return known, err
}

func retired(c *conn, log stock.LogID) (bool, error) {
	_, over, err := c.one("SELECT 1 FROM retired_logs WHERE log = ?", string(log))
	return over, err
}

// Adjusted implements order.Buckets.
func (s *Store) Adjusted(ctx context.Context, log stock.LogID, ids []string) ([]bool, error) {
	if len(ids) > order.MaxAdjusted {
		return nil, fmt.Errorf("%w: %d adjustments are looked for at once", stock.ErrInvalid, len(ids))
	}
	is := make([]bool, len(ids))
	err := s.reading(ctx, "adjusted", func(c *conn) error {
		known, err := adjusted(ctx, c, log, ids)
		for i, id := range ids {
			is[i] = known[id]
		}
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
		k.Reservations, err = s.orders.reservations(ctx, c, p, k.Watermark.Epoch)
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

// reservations reads epoch by epoch, along the unique key that orders have
// by reservation; the numbers of an epoch ascend with its log.
func (t *ordersTable) reservations(ctx context.Context, c *conn, p stock.Place, newest uint32) (all []stock.Reservation, err error) {
	var terms termsCache
	for epoch := int64(1); epoch <= int64(newest); epoch++ {
		err := c.query(ctx, ordersOf(orderColumns, ofBucket, "number", t), func(row []driver.Value) error {
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
