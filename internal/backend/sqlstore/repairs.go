package sqlstore

import (
	"context"
	"fmt"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Repair reads what SaveRepair saved under an id, nil if nothing.
func (s *Store) Repair(ctx context.Context, activity stock.ActivityID, id string) (doc []byte, err error) {
	err = s.reading(ctx, "repair", func(c *conn) error {
		row, ok, err := c.one("SELECT doc FROM repairs WHERE activity = ? AND id = ?", string(activity), id)
		if ok {
			doc = append([]byte(nil), blob(row[0])...)
		}
		return err
	})
	return doc, err
}

// SaveRepair saves what is known of a repair, over what was saved before.
func (s *Store) SaveRepair(ctx context.Context, activity stock.ActivityID, id string, doc []byte) error {
	return s.writing(ctx, "save repair", func(c *conn) error {
		_, err := c.exec("REPLACE INTO repairs (activity, id, doc) VALUES (?, ?, ?)", string(activity), id, doc)
		return err
	})
}

// Reland puts back the row of an order that has landed before, with its
// events. The watermark is not moved, and has to be past the order's entry:
// then no lander will ever come by it again. A row that is there stays as it is.
func (s *Store) Reland(ctx context.Context, l order.Landed) (err error) {
	at := l.Order.Position
	b, err := prepareLanding(order.Batch{Log: at.Log, From: at, To: at, Orders: []order.Landed{l}})
	if err != nil {
		return fmt.Errorf("store: reland: %w", err)
	}
	b.table = s.orders
	defer func() { s.session.landed(b.Orders, err) }()
	return s.writing(ctx, "reland", func(c *conn) error {
		row, ok, err := c.one("SELECT epoch, position FROM watermarks WHERE log = ?", string(at.Log))
		if err != nil {
			return err
		}
		if !ok || at.Epoch != uint32(integer(row[0])) || uint64(integer(row[1])) < at.Position {
			return fmt.Errorf("entry %d.%d of log %s is not behind it: %w", at.Epoch, at.Position, at.Log, order.ErrWatermark)
		}
		return b.insert(c)
	})
}
