package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// maxMessages bounds one read of the queue.
const maxMessages = 1000

// A message is in one of two tables: outbox until it fails for the first time,
// then outbox_failed, where next_at is its next try, NULL for a dead one.
const (
	pendingMessages = `
	SELECT * FROM (
		SELECT m.id, m.msg_key, m.topic, m.at, m.body, 0 AS attempts, NULL AS reason FROM outbox m
		WHERE NOT EXISTS (SELECT 1 FROM outbox_failed f WHERE f.msg_key = m.msg_key AND f.id < m.id)
		ORDER BY m.id LIMIT ?) AS fresh
	UNION ALL
	SELECT * FROM (
		SELECT m.id, m.msg_key, m.topic, m.at, m.body, m.attempts, m.reason FROM outbox_failed m
		WHERE m.next_at <= ?
		AND NOT EXISTS (SELECT 1 FROM outbox_failed f WHERE f.msg_key = m.msg_key AND f.id < m.id)
		ORDER BY m.id LIMIT ?) AS again
	ORDER BY 1 LIMIT ?`

	failAgain    = "UPDATE outbox_failed SET attempts = attempts + 1, next_at = ?, reason = ? WHERE id = ? AND next_at IS NOT NULL"
	failFirst    = "INSERT INTO outbox_failed (id, msg_key, topic, at, body, attempts, next_at, reason) SELECT id, msg_key, topic, at, body, 1, ?, ? FROM outbox WHERE id = ?"
	dropFresh    = "DELETE FROM outbox WHERE id = ?"
	dropFailed   = "DELETE FROM outbox_failed WHERE id = ?"
	deadMessages = "SELECT id, msg_key, topic, at, body, attempts, reason FROM outbox_failed WHERE next_at IS NULL AND id > ? ORDER BY id LIMIT ?"
	redriveDead  = "INSERT INTO outbox (id, msg_key, topic, at, body) SELECT id, msg_key, topic, at, body FROM outbox_failed WHERE id = ?"
	deadLetter   = "SELECT 1 FROM outbox_failed WHERE id = ? AND next_at IS NULL"
	backlogSize  = `SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM outbox_failed),
		(SELECT at FROM outbox ORDER BY id LIMIT 1), (SELECT at FROM outbox_failed ORDER BY id LIMIT 1)`
)

func scanMessage(row []driver.Value) outbox.Message {
	return outbox.Message{
		ID: integer(row[0]), Key: text(row[1]), Topic: text(row[2]), At: integer(row[3]),
		Body: blob(row[4]), Attempts: int(integer(row[5])), Reason: text(row[6]),
	}
}

// Pending implements outbox.Queue; limit is 1..1,000.
func (s *Store) Pending(ctx context.Context, now int64, limit int) ([]outbox.Message, error) {
	return s.messages(ctx, "pending messages", pendingMessages, limit, limit, now, limit, limit)
}

// Dead implements outbox.Queue; limit is 1..1,000.
func (s *Store) Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error) {
	return s.messages(ctx, "dead letters", deadMessages, limit, after, limit)
}

func (s *Store) messages(ctx context.Context, what, query string, limit int, values ...any) (page []outbox.Message, err error) {
	if limit < 1 || limit > maxMessages {
		return nil, fmt.Errorf("store: %s: %w: limit %d is not in 1..%d", what, stock.ErrInvalid, limit, maxMessages)
	}
	err = s.reading(ctx, what, func(c *conn) error {
		return c.query(ctx, query, func(row []driver.Value) error {
			page = append(page, scanMessage(row))
			return nil
		}, values...)
	})
	return page, err
}

// Done implements outbox.Queue. Ids that are not there are no error.
func (s *Store) Done(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	list, values := s.d.idList(ids)
	return s.writing(ctx, "messages done", func(c *conn) error {
		if _, err := c.exec("DELETE FROM outbox WHERE id IN "+list, values...); err != nil {
			return err
		}
		_, err := c.exec("DELETE FROM outbox_failed WHERE id IN "+list, values...)
		return err
	})
}

// Retry implements outbox.Queue.
func (s *Store) Retry(ctx context.Context, id int64, at int64, reason string) error {
	return s.writing(ctx, "retry message", func(c *conn) error { return fail(c, id, at, reason) })
}

// Bury implements outbox.Queue.
func (s *Store) Bury(ctx context.Context, id int64, reason string) error {
	return s.writing(ctx, "bury message", func(c *conn) error { return fail(c, id, nil, reason) })
}

// fail counts a failed attempt; nextAt nil is never again.
func fail(c *conn, id int64, nextAt any, reason string) error {
	if c.doubt {
		row, ok, err := c.one("SELECT next_at, reason FROM outbox_failed WHERE id = ?"+c.d.forUpdate, id)
		if err != nil || ok && row[0] == nextAt && text(row[1]) == reason {
			return err // the commit without an answer took effect
		}
	}
	changed, err := c.exec(failAgain, nextAt, reason, id)
	if err != nil || changed == 1 {
		return err
	}
	if changed, err = c.exec(failFirst, nextAt, reason, id); err != nil {
		return err
	}
	if changed == 0 {
		return fmt.Errorf("%w: %d", outbox.ErrNoSuchMessage, id)
	}
	_, err = c.exec(dropFresh, id)
	return err
}

// Redrive implements outbox.Queue. The message keeps its id, and so its place
// before the messages that it blocked.
func (s *Store) Redrive(ctx context.Context, id int64) error {
	return s.writing(ctx, "redrive message", func(c *conn) error {
		_, dead, err := c.one(deadLetter+c.d.forUpdate, id)
		if err != nil {
			return err
		}
		if !dead && c.doubt {
			_, redriven, err := c.one("SELECT 1 FROM outbox WHERE id = ?", id)
			if err != nil || redriven {
				return err // the commit without an answer took effect
			}
		}
		if !dead {
			return fmt.Errorf("%w: no dead letter %d", outbox.ErrNoSuchMessage, id)
		}
		if _, err := c.exec(redriveDead, id); err != nil {
			return err
		}
		_, err = c.exec(dropFailed, id)
		return err
	})
}

// Backlog implements outbox.Queue. It counts, so it is for gauges, not for
// every request.
func (s *Store) Backlog(ctx context.Context) (n int, oldest int64, err error) {
	err = s.reading(ctx, "backlog", func(c *conn) error {
		row, _, err := c.one(backlogSize)
		if err != nil {
			return err
		}
		n, oldest = int(integer(row[0])), integer(row[1])
		if failed := integer(row[2]); oldest == 0 || failed != 0 && failed < oldest {
			oldest = failed
		}
		return nil
	})
	return n, oldest, err
}
