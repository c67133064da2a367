package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"sluice/internal/lib/id"
	"sluice/internal/lib/shard"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Orders are placed by their user, and ids are minted so that they lead to the
// same shard. An id that does not (nobody mints one, but the contract of orders
// takes any number) is noted where it leads before its order lands, so that
// finding it costs its readers a second look, and others nothing.

// noteStrays notes which of these orders are not where their ids lead. An id
// that another order has, wherever it is, is an error, as it is within a table. A
// note whose order does not land after all leads nowhere, which is true.
func (s *Sharded) noteStrays(ctx context.Context, landed []order.Landed) error {
	byDatabase := make([]led, len(s.dbs))
	for i := range landed {
		n, _ := rowID(landed[i].Order.ID)
		l := &byDatabase[s.groups[s.groupOf(id.Shard(uint64(n)))].database]
		l.ids, l.orders = append(l.ids, n), append(l.orders, &landed[i].Order)
	}
	for i, l := range byDatabase {
		if len(l.ids) == 0 {
			continue
		}
		rows, err := s.strays(ctx, s.dbs[i].Store, l)
		if err != nil || len(rows) == 0 {
			return err
		}
		err = s.dbs[i].writing(ctx, "note stray orders", func(c *conn) error { return replaceStray.all(c, rows) })
		if err != nil {
			return err
		}
	}
	return nil
}

var replaceStray = insertion{head: "REPLACE INTO stray_orders (id, shard) VALUES ", marks: "(?,?)", one: "REPLACE INTO stray_orders (id, shard) VALUES (?,?)"}

// led are orders whose ids lead to one database.
type led struct {
	ids    []int64
	orders []*order.Order
}

// strays are the notes that are missing.
func (s *Sharded) strays(ctx context.Context, db *Store, l led) (rows []args, err error) {
	notes, err := db.notes(ctx, l.ids)
	if err != nil {
		return nil, err
	}
	for i, o := range l.orders {
		n, its := l.ids[i], shard.Of(string(o.User))
		by, to := s.groupOf(id.Shard(uint64(n))), s.groupOf(its)
		at, noted := notes[n]
		if noted && at == its || !noted && by == to {
			continue
		}
		// Rare: somebody else may have this id, where it leads or where it was noted.
		for _, g := range []int{by, s.groupOf(at)} {
			if g == to || g != by && !noted {
				continue
			}
			other, err := s.groups[g].Get(ctx, o.ID)
			if err == nil && other.Reservation != o.Reservation {
				return nil, fmt.Errorf("store: land: %w: order id %s is taken", stock.ErrInvalid, o.ID)
			} else if err != nil && !errors.Is(err, order.ErrNoSuchOrder) {
				return nil, err
			}
		}
		row := make(args, 0, 2)
		row.int(n)
		row.int(int64(its))
		rows = append(rows, row)
	}
	return rows, nil
}

// notes are the shards of those orders that are noted.
func (s *Store) notes(ctx context.Context, ids []int64) (notes map[int64]int, err error) {
	notes = map[int64]int{}
	list, values := s.d.idList(ids)
	err = s.reading(ctx, "stray orders", func(c *conn) error {
		return c.query(ctx, "SELECT id, shard FROM stray_orders WHERE id IN "+list, func(row []driver.Value) error {
			if at := int(integer(row[1])); at >= 0 && at < shard.Logical {
				notes[integer(row[0])] = at
			}
			return nil
		}, values...)
	})
	return notes, err
}
