package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Sending is the outbox of all databases for a relay that only hands messages to
// a bus. What it has handed over is done for the relay, and kept in outbox_sent
// until a reader has consumed it: so the proof knows that it is on its way, and
// what the bus has lost can be sent again.
type Sending struct{ *Sharded }

var _ outbox.Queue = Sending{}

const messageColumns = "id, msg_key, topic, at, body"

// Done implements outbox.Queue: the messages are on the bus. Ids that are not
// there are no error.
func (q Sending) Done(ctx context.Context, ids []int64) error {
	_, err := q.onEach(ctx, "messages sent", ids, func(c *conn, rows []int64) (int, error) {
		if n, err := move(c, "outbox", "outbox_sent", rows); err != nil || n == len(rows) {
			return n, err
		}
		return move(c, "outbox_failed", "outbox_sent", rows)
	})
	return err
}

// Arrived forgets messages that have been consumed.
func (q Sending) Arrived(ctx context.Context, ids []int64) error {
	_, err := q.onEach(ctx, "messages arrived", ids, func(c *conn, rows []int64) (int, error) {
		list, values := c.d.idList(rows)
		_, err := c.exec("DELETE FROM outbox_sent WHERE id IN "+list, values...)
		return 0, err
	})
	return err
}

// Again puts messages that were sent back into the outbox, under their ids. It
// answers how many; the others have arrived, or somebody else has put them back.
func (q Sending) Again(ctx context.Context, ids []int64) (moved int, err error) {
	return q.onEach(ctx, "send messages again", ids, func(c *conn, rows []int64) (int, error) {
		return move(c, "outbox_sent", "outbox", rows)
	})
}

// move takes messages from one table to another, and answers how many were there.
// It locks them before it reads them, and removes no other than those: so of two
// that do it, or one that does it the other way, the later one finds them where
// the earlier one put them, and none is ever in neither table.
func move(c *conn, from, to string, rows []int64) (n int, err error) {
	there := make([]int64, 0, len(rows))
	list, values := c.d.idList(rows)
	err = c.query(context.Background(), "SELECT id FROM "+from+" WHERE id IN "+list+c.d.forUpdate, func(r []driver.Value) error {
		there = append(there, integer(r[0]))
		return nil
	}, values...)
	if err != nil || len(there) == 0 {
		return 0, err
	}
	list, values = c.d.idList(there)
	// A message may be there already: a relay that was frozen noted a failure of
	// one that another had sent.
	_, err = c.exec("INSERT INTO "+to+" ("+messageColumns+") SELECT "+messageColumns+" FROM "+from+" WHERE id IN "+list+
		" AND NOT EXISTS (SELECT 1 FROM "+to+" t WHERE t.id = "+from+".id)", values...)
	if err != nil {
		return 0, raced(err)
	}
	_, err = c.exec("DELETE FROM "+from+" WHERE id IN "+list, values...)
	return len(there), err
}

// onEach does something to these messages, in one transaction a database, and
// answers of how many rows do said that they have changed.
func (q Sending) onEach(ctx context.Context, what string, ids []int64, do func(c *conn, rows []int64) (int, error)) (changed int, err error) {
	for i, rows := range q.byDatabase(ids) {
		if len(rows) == 0 {
			continue
		}
		slices.Sort(rows) // so that whoever else does this locks in the same order
		n := 0
		err := q.dbs[i].writing(ctx, what, func(c *conn) error {
			some, err := do(c, rows)
			if some > 0 || !c.doubt { // otherwise the run before this one did it
				n = some
			}
			return err
		})
		if err != nil {
			return changed, err
		}
		changed += n
	}
	return changed, nil
}

// Sent are the ids of messages on the bus with id > after, in order; limit is
// 1..1,000.
func (q Sending) Sent(ctx context.Context, after int64, limit int) (ids []int64, err error) {
	if limit < 1 || limit > maxMessages {
		return nil, fmt.Errorf("store: messages sent: %w: limit %d is not in 1..%d", stock.ErrInvalid, limit, maxMessages)
	}
	from, row, ok := q.rowOf(max(after, 0))
	if !ok {
		return nil, nil
	}
	for i := from; i < len(q.dbs) && len(ids) < limit; i++ {
		err := q.dbs[i].reading(ctx, "messages sent", func(c *conn) error {
			return c.query(ctx, "SELECT id FROM outbox_sent WHERE id > ? ORDER BY id LIMIT ?", func(r []driver.Value) error {
				ids = append(ids, messageOf(i, integer(r[0])))
				return nil
			}, row, limit-len(ids))
		})
		if err != nil {
			return nil, err
		}
		row = 0
	}
	return ids, nil
}

// Travelling is how many messages were sent and are not known to be consumed, and
// when the first of them happened (Unix ms, 0 if none). It counts: it is for
// gauges.
func (q Sending) Travelling(ctx context.Context) (n int, oldest int64, err error) {
	for _, db := range q.dbs {
		err := db.reading(ctx, "messages on their way", func(c *conn) error {
			row, _, err := c.one("SELECT count(*), (SELECT at FROM outbox_sent ORDER BY id LIMIT 1) FROM outbox_sent")
			if err != nil {
				return err
			}
			n += int(integer(row[0]))
			if at := integer(row[1]); at != 0 && (oldest == 0 || at < oldest) {
				oldest = at
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return n, oldest, nil
}

// Known answers which of these messages, at most 1,000, have been consumed, and
// which wait here to be.
func (i *Inbox) Known(ctx context.Context, ids []int64) (consumed, waiting map[int64]bool, err error) {
	consumed, waiting = map[int64]bool{}, map[int64]bool{}
	if len(ids) == 0 {
		return consumed, waiting, nil
	}
	if len(ids) > maxMessages {
		return nil, nil, fmt.Errorf("store: known messages: %w: %d, at most %d", stock.ErrInvalid, len(ids), maxMessages)
	}
	list, values := i.s.d.idList(ids)
	values = append([]any{i.reader}, values...)
	err = i.s.reading(ctx, "known messages", func(c *conn) error {
		// What waits goes to what is consumed: asked in this order, none is missed.
		for _, ask := range []struct {
			statement string
			into      map[int64]bool
		}{{parkedIDs, waiting}, {consumedIDs, consumed}} {
			err := c.query(ctx, ask.statement+list, func(row []driver.Value) error {
				ask.into[integer(row[0])] = true
				return nil
			}, values...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return consumed, waiting, err
}

const parkedIDs = "SELECT id FROM parked WHERE reader = ? AND id IN "
