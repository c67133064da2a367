package sqlstore

import (
	"errors"
	"testing"

	"sluice/internal/order"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// tokenless lands with whatever token is the newest: as if the watermark's
// condition were its position alone.
func tokenless(l *landing) func(c *conn) error {
	return func(c *conn) error {
		row, _, err := c.one("SELECT token FROM watermarks WHERE log = ?", string(l.Log))
		if err != nil {
			return err
		}
		l.Token = uint64(integer(row[0]))
		return l.write(c)
	}
}

// landerWakesUp: a lander reads entry 3 of epoch 1 and stands still before it
// writes. The log's first epoch ends with entry 2, for the ledger has lost its
// tail; a second lander has taken the log in order to go on in epoch 2. Now the
// first one wakes up and writes what it has, where the watermark still stands.
func landerWakesUp(t *testing.T, s *Store, write func(l *landing) func(c *conn) error) (orders int, first, second error) {
	t.Helper()
	ctx := t.Context()
	land := func(token uint64, from, to stock.Cursor, n, m int) error {
		t.Helper()
		l, err := prepareLanding(order.Batch{Log: "wal", Token: token, From: from, To: to, Orders: landedOrders(n, m-n)})
		must(t, err)
		return s.writing(ctx, "land", write(l))
	}
	mine, err := s.Fence(ctx, "wal")
	must(t, err)
	must(t, land(mine, position(0), position(2), 0, 2))
	theirs, err := s.Fence(ctx, "wal")
	must(t, err)
	first = land(mine, position(2), position(3), 2, 3)
	second = land(theirs, position(2), stock.Cursor{Log: "wal", Epoch: 2, Position: 1}, 3, 4)
	_, _, err = s.Snapshot(ctx, "flash-1", func(order.Order) error { orders++; return nil })
	must(t, err)
	return orders, first, second
}

// The token keeps an older lander out. With that guard off, an entry that the
// ledger never had becomes an order, and the new lander has lost its place.
func TestOlderLander(t *testing.T) {
	d := servers.MariaDB(t)
	for name, open := range map[string]func() *Store{
		"sqlite": func() *Store { return openStore(t) },
		"server": func() *Store { return onServer(t, d, servers.SQLDatabase, "") },
	} {
		t.Run(name, func(t *testing.T) {
			orders, first, second := landerWakesUp(t, open(), func(l *landing) func(c *conn) error { return l.write })
			if orders != 3 || !errors.Is(first, order.ErrFenced) || second != nil {
				t.Errorf("%d orders, the older lander hears %v, the newer %v", orders, first, second)
			}
			orders, first, second = landerWakesUp(t, open(), tokenless)
			if orders != 3 || first != nil || !errors.Is(second, order.ErrWatermark) {
				t.Errorf("with the guard off nothing went wrong: %d orders, %v, %v", orders, first, second)
			}
		})
	}
}
