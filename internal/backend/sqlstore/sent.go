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

const (
	messageColumns = "id, msg_key, topic, at, body"
	sentFresh      = "INSERT INTO outbox_sent (" + messageColumns + ") SELECT " + messageColumns + " FROM outbox WHERE id IN "
	sentFailed     = "INSERT INTO outbox_sent (" + messageColumns + ") SELECT " + messageColumns + " FROM outbox_failed WHERE id IN "
	sentAgain      = "INSERT INTO outbox (" + messageColumns + ") SELECT " + messageColumns + " FROM outbox_sent WHERE id IN "
	dropAllFresh   = "DELETE FROM outbox WHERE id IN "
	dropAllFailed  = "DELETE FROM outbox_failed WHERE id IN "
	dropAllSent    = "DELETE FROM outbox_sent WHERE id IN "
)

// Done implements outbox.Queue: the messages are on the bus. Ids that are not
// there are no error.
func (q Sending) Done(ctx context.Context, ids []int64) error {
	return q.onEach(ctx, "messages sent", ids, sentFresh, dropAllFresh, sentFailed, dropAllFailed)
}

// Arrived forgets messages that have been consumed.
func (q Sending) Arrived(ctx context.Context, ids []int64) error {
	return q.onEach(ctx, "messages arrived", ids, dropAllSent)
}

// Again puts messages that were sent back into the outbox, under their ids.
func (q Sending) Again(ctx context.Context, ids []int64) error {
	return q.onEach(ctx, "send messages again", ids, sentAgain, dropAllSent)
}

// onEach runs statements on these messages, in one transaction a database.
func (q Sending) onEach(ctx context.Context, what string, ids []int64, statements ...string) error {
	each := make([][]int64, len(q.dbs))
	for _, id := range ids {
		if database, row, ok := q.rowOf(id); ok {
			each[database] = append(each[database], row)
		}
	}
	for i, rows := range each {
		if len(rows) == 0 {
			continue
		}
		db := q.dbs[i]
		slices.Sort(rows) // so that whoever else does this locks in the same order
		list, values := db.d.idList(rows)
		err := db.writing(ctx, what, func(c *conn) error {
			for _, statement := range statements {
				if _, err := c.exec(statement+list, values...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
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
