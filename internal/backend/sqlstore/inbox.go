package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Inbox is what one reader of a bus keeps here: which messages have had their
// effect, and, as an outbox.Queue, those that wait: failed or delayed ones, dead
// letters, and what is behind them in their keys. A reader is all processes of one
// group; readers do not see each other's.
type Inbox struct {
	s      *Store
	reader string
}

var _ outbox.Queue = (*Inbox)(nil)

// Inbox of a reader, whose name is 1..64 bytes and never changes.
func (s *Store) Inbox(reader string) *Inbox { return &Inbox{s: s, reader: reader} }

// atOnce is the next try of a message that is due whatever the time is.
const atOnce int64 = -1 << 62

// A message waits behind an earlier one of its key that has failed, is dead or
// is not yet due. One that is due and has not failed blocks nobody: both are
// delivered in order. The sign keeps SQLite from looking for the earlier ones
// among all of the reader instead of those of the key.
const (
	parkedColumns = "m.id, m.msg_key, m.topic, m.at, m.body, m.attempts, m.reason"
	pendingParked = "SELECT " + parkedColumns + ` FROM parked m WHERE m.reader = ? AND m.next_at <= ?
		AND NOT EXISTS (SELECT 1 FROM parked f WHERE f.msg_key = m.msg_key AND f.id < m.id AND +f.reader = m.reader
			AND (f.attempts > 0 OR f.next_at IS NULL OR f.next_at > ?))
		ORDER BY m.id LIMIT ?`
	deadParked    = "SELECT " + parkedColumns + " FROM parked m WHERE m.reader = ? AND m.next_at IS NULL AND m.id > ? ORDER BY m.id LIMIT ?"
	failParked    = "UPDATE parked SET attempts = attempts + 1, next_at = ?, reason = ? WHERE reader = ? AND id = ? AND next_at IS NOT NULL"
	redriveParked = "UPDATE parked SET attempts = 0, next_at = ?, reason = NULL WHERE reader = ? AND id = ? AND next_at IS NULL"
	// One that is consumed or parked already stays as it is.
	park = `INSERT INTO parked (reader, id, msg_key, topic, at, body, attempts, next_at, reason)
		SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? FROM (SELECT 1 AS one) AS once
		WHERE NOT EXISTS (SELECT 1 FROM consumed WHERE reader = ? AND id = ?)
		AND NOT EXISTS (SELECT 1 FROM parked WHERE reader = ? AND id = ?)`
	waitingKeys = "SELECT DISTINCT msg_key FROM parked WHERE +reader = ? AND msg_key IN "
	consumedIDs = "SELECT id FROM consumed WHERE reader = ? AND id IN "
)

// consume is the statement that notes a message as consumed, unless it is.
func (d *dialect) consume() string {
	return "INSERT INTO consumed (reader, id, at) SELECT ?, ?, " + d.now + ` FROM (SELECT 1 AS one) AS once
		WHERE NOT EXISTS (SELECT 1 FROM consumed WHERE reader = ? AND id = ?)`
}

// Look answers which of these messages, at most 1,000, have been consumed, and
// which of their keys have messages waiting.
func (i *Inbox) Look(ctx context.Context, messages []outbox.Message) (consumed map[int64]bool, waiting map[string]bool, err error) {
	consumed, waiting = map[int64]bool{}, map[string]bool{}
	if len(messages) == 0 {
		return consumed, waiting, nil
	}
	if len(messages) > maxMessages {
		return nil, nil, fmt.Errorf("store: look into inbox: %w: %d messages, at most %d", stock.ErrInvalid, len(messages), maxMessages)
	}
	ids, keys := make([]int64, len(messages)), make([]string, len(messages))
	for n, m := range messages {
		ids[n], keys[n] = m.ID, m.Key
	}
	err = i.s.reading(ctx, "look into inbox", func(c *conn) error {
		list, values := c.d.idList(ids)
		err := c.query(ctx, consumedIDs+list, func(row []driver.Value) error {
			consumed[integer(row[0])] = true
			return nil
		}, append([]any{i.reader}, values...)...)
		if err != nil {
			return err
		}
		list, values = c.d.textList(keys)
		return c.query(ctx, waitingKeys+list, func(row []driver.Value) error {
			waiting[text(row[0])] = true
			return nil
		}, append([]any{i.reader}, values...)...)
	})
	return consumed, waiting, err
}

// Keep notes in one transaction what has been consumed and what waits. What is
// noted already stays as it is, so it may be told again.
func (i *Inbox) Keep(ctx context.Context, consumed []int64, parked []outbox.Waiting) error {
	if len(consumed)+len(parked) == 0 {
		return nil
	}
	return i.s.writing(ctx, "keep in inbox", func(c *conn) error {
		if err := i.consumeAll(c, consumed); err != nil {
			return err
		}
		for n := range parked {
			m := &parked[n]
			if len(m.Key) < 1 || len(m.Key) > 64 || m.Topic == "" {
				return fmt.Errorf("%w: message with key %q and topic %q", stock.ErrInvalid, m.Key, m.Topic)
			}
			var next any = m.Next
			switch m.Next {
			case outbox.Never:
				next = nil
			case 0:
				next = atOnce
			}
			if _, err := c.exec(park, i.reader, m.ID, m.Key, m.Topic, m.At, m.Body, m.Attempts, next, m.Reason,
				i.reader, m.ID, i.reader, m.ID); err != nil {
				return raced(err)
			}
		}
		return nil
	})
}

func (i *Inbox) consume(c *conn, id int64) (fresh bool, err error) {
	changed, err := c.exec(c.d.consume(), i.reader, id, i.reader, id)
	return changed == 1, raced(err)
}

// consumeAll notes many, on a server by one statement for d.rows of them.
func (i *Inbox) consumeAll(c *conn, ids []int64) error {
	if c.d.rows == 1 {
		for _, id := range ids {
			if _, err := i.consume(c, id); err != nil {
				return err
			}
		}
		return nil
	}
	row := "(?, ?, " + c.d.now + ")"
	for some := range slices.Chunk(ids, c.d.rows) {
		values := make([]any, 0, 2*len(some))
		for _, id := range some {
			values = append(values, i.reader, id)
		}
		if _, err := c.exec("INSERT INTO consumed (reader, id, at) VALUES "+row+strings.Repeat(", "+row, len(some)-1)+c.d.onSameID, values...); err != nil {
			return err
		}
	}
	return nil
}

// Tx is the transaction that Apply gives to an effect. It is not to be kept.
type Tx struct{ c *conn }

// Exec runs one statement, with ? for its values: int, int64, string, []byte or
// nil. It answers how many rows have changed.
func (t Tx) Exec(statement string, values ...any) (int64, error) {
	return t.c.exec(statement, values...)
}

// Apply runs an effect in the transaction that notes the message as consumed,
// unless it is: then applied is false and nothing has happened. So the effect
// is there once, however often and by however many the message is delivered.
// effect may run more than once; what it did is undone before it runs again. Of
// a commit whose answer was lost, applied may be false although it was this
// call's.
func (i *Inbox) Apply(ctx context.Context, id int64, effect func(Tx) error) (applied bool, err error) {
	err = i.s.writing(ctx, "apply message", func(c *conn) (err error) {
		if applied, err = i.consume(c, id); err != nil || !applied {
			return err
		}
		return effect(Tx{c})
	})
	return applied && err == nil, err
}

// Trim forgets the oldest consumed messages, by id, that were consumed before a
// time (Unix ms), at most limit (≥ 1) a call; worked says that there was one. A
// message that comes again after it was forgotten has its effect again, so that
// time is further back than a bus keeps messages.
func (i *Inbox) Trim(ctx context.Context, before int64, limit int) (worked bool, err error) {
	// Ids ascend with time within the messages of one database (messageOf), and
	// say nothing of another's.
	for from := int64(0); ; {
		var oldest, at int64
		found := false
		err := i.s.reading(ctx, "oldest consumed", func(c *conn) error {
			row, ok, err := c.one("SELECT id, at FROM consumed WHERE reader = ? AND id >= ? ORDER BY id LIMIT 1", i.reader, from)
			if found = ok; ok && err == nil {
				oldest, at = integer(row[0]), integer(row[1])
			}
			return err
		})
		if err != nil || !found {
			return false, err
		}
		next := (oldest>>messageBits + 1) << messageBits
		if at < before {
			return true, i.trim(ctx, oldest, next, before, limit)
		}
		if from = next; from <= 0 {
			return false, nil // that was the last number there is
		}
	}
}

func (i *Inbox) trim(ctx context.Context, from, until, before int64, limit int) error {
	return i.s.writing(ctx, "trim consumed", func(c *conn) error {
		row, _, err := c.one("SELECT max(id) FROM (SELECT id FROM consumed WHERE reader = ? AND id >= ? AND id < ? ORDER BY id LIMIT ?) AS oldest",
			i.reader, from, until, limit)
		if err != nil {
			return err
		}
		_, err = c.exec("DELETE FROM consumed WHERE reader = ? AND id >= ? AND id <= ? AND at < ?", i.reader, from, integer(row[0]), before)
		return err
	})
}

// Pending implements outbox.Queue; limit is 1..1,000.
func (i *Inbox) Pending(ctx context.Context, now int64, limit int) ([]outbox.Message, error) {
	return i.s.messages(ctx, "parked messages", pendingParked, limit, i.reader, now, now, limit)
}

// Dead implements outbox.Queue; limit is 1..1,000.
func (i *Inbox) Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error) {
	return i.s.messages(ctx, "dead letters of reader", deadParked, limit, i.reader, after, limit)
}

// Done implements outbox.Queue: the messages wait no more, and are consumed.
func (i *Inbox) Done(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	list, values := i.s.d.idList(ids)
	return i.s.writing(ctx, "parked messages done", func(c *conn) error {
		if err := i.consumeAll(c, ids); err != nil {
			return err
		}
		_, err := c.exec("DELETE FROM parked WHERE reader = ? AND id IN "+list, append([]any{i.reader}, values...)...)
		return err
	})
}

// Forget drops messages that wait or are dead here, unconsumed: somebody else is
// to deliver them. Ids that are not there are no error.
func (i *Inbox) Forget(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	list, values := i.s.d.idList(ids)
	return i.s.writing(ctx, "forget parked messages", func(c *conn) error {
		_, err := c.exec("DELETE FROM parked WHERE reader = ? AND id IN "+list, append([]any{i.reader}, values...)...)
		return err
	})
}

// Retry implements outbox.Queue.
func (i *Inbox) Retry(ctx context.Context, id int64, at int64, reason string) error {
	return i.s.writing(ctx, "retry parked message", func(c *conn) error { return i.fail(c, id, at, reason) })
}

// Bury implements outbox.Queue.
func (i *Inbox) Bury(ctx context.Context, id int64, reason string) error {
	return i.s.writing(ctx, "bury parked message", func(c *conn) error { return i.fail(c, id, nil, reason) })
}

func (i *Inbox) fail(c *conn, id int64, next any, reason string) error {
	if c.doubt {
		row, ok, err := c.one("SELECT next_at, reason FROM parked WHERE reader = ? AND id = ?"+c.d.forUpdate, i.reader, id)
		if err != nil || ok && row[0] == next && text(row[1]) == reason {
			return err // the commit without an answer took effect
		}
	}
	changed, err := c.exec(failParked, next, reason, i.reader, id)
	if err == nil && changed == 0 {
		err = fmt.Errorf("%w: %d", outbox.ErrNoSuchMessage, id)
	}
	return err
}

// Redrive implements outbox.Queue.
func (i *Inbox) Redrive(ctx context.Context, id int64) error {
	return i.s.writing(ctx, "redrive parked message", func(c *conn) error {
		changed, err := c.exec(redriveParked, atOnce, i.reader, id)
		if err != nil || changed == 1 {
			return err
		}
		if c.doubt {
			_, due, err := c.one("SELECT 1 FROM parked WHERE reader = ? AND id = ? AND next_at = ?", i.reader, id, atOnce)
			if err != nil || due {
				return err // the commit without an answer took effect
			}
		}
		return fmt.Errorf("%w: no dead letter %d of %s", outbox.ErrNoSuchMessage, id, i.reader)
	})
}

// Backlog implements outbox.Queue. What a reader has not taken from its bus yet
// is not in it.
func (i *Inbox) Backlog(ctx context.Context) (n int, oldest int64, err error) {
	err = i.s.reading(ctx, "parked backlog", func(c *conn) error {
		row, _, err := c.one("SELECT count(*), min(at) FROM parked WHERE reader = ?", i.reader)
		if err == nil {
			n, oldest = int(integer(row[0])), integer(row[1])
		}
		return err
	})
	return n, oldest, err
}
