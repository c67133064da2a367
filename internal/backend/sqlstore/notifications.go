package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Notification is one in-site message to a shopper.
type Notification struct {
	ID     int64 // of the outbox message it was made from
	User   stock.UserID
	Topic  string
	Body   []byte // JSON
	At     stock.Millis
	ReadAt stock.Millis // 0 = unread
}

// SaveNotification keeps a notification, once per outbox message: delivering
// the message again changes nothing.
func (s *Store) SaveNotification(ctx context.Context, messageID int64, user stock.UserID, topic string, body []byte, at stock.Millis) error {
	defer s.session.pin(user)
	return s.writing(ctx, "save notification", func(c *conn) error {
		_, err := c.exec("INSERT INTO notifications (id, user, topic, at, body) VALUES (?, ?, ?, ?, ?)"+c.d.onSameID,
			messageID, string(user), topic, int64(at), body)
		return err
	})
}

// Notifications pages through a user's notifications with id < before (0: the
// newest), newest first; limit is 1..500.
func (s *Store) Notifications(ctx context.Context, user stock.UserID, before int64, limit int) (page []Notification, err error) {
	before, err = pageOf(before, limit)
	if err != nil {
		return nil, fmt.Errorf("store: notifications: %w", err)
	}
	err = s.reading(ctx, "notifications", func(c *conn) error {
		return c.query(ctx, "SELECT id, topic, body, at, read_at FROM notifications WHERE user = ? AND id < ? ORDER BY id DESC LIMIT ?",
			func(row []driver.Value) error {
				page = append(page, Notification{
					ID: integer(row[0]), User: user, Topic: text(row[1]), Body: blob(row[2]),
					At: stock.Millis(integer(row[3])), ReadAt: stock.Millis(integer(row[4])),
				})
				return nil
			}, string(user), before, limit)
	})
	return page, err
}

// ReadNotifications marks a user's notifications up to an id as read at a
// time; those read before keep theirs.
func (s *Store) ReadNotifications(ctx context.Context, user stock.UserID, upTo int64, at stock.Millis) error {
	defer s.session.pin(user)
	return s.writing(ctx, "read notifications", func(c *conn) error {
		_, err := c.exec("UPDATE notifications SET read_at = ? WHERE user = ? AND id <= ? AND read_at IS NULL",
			int64(at), string(user), upTo)
		return err
	})
}

// TrimNotifications forgets the oldest notifications that happened before a
// time, at most limit (≥ 1) a call; worked says that there was one. The oldest
// are those with the lowest ids, which ascend as messages were committed: that
// is nearly the order of their times, and needs no index by time. A step that
// finds nothing does not write.
func (s *Store) TrimNotifications(ctx context.Context, before stock.Millis, limit int) (worked bool, err error) {
	err = s.reading(ctx, "oldest notification", func(c *conn) error {
		row, ok, err := c.one("SELECT at FROM notifications ORDER BY id LIMIT 1")
		worked = ok && stock.Millis(integer(row[0])) < before
		return err
	})
	if err != nil || !worked {
		return false, err
	}
	err = s.writing(ctx, "trim notifications", func(c *conn) error {
		row, _, err := c.one("SELECT max(id) FROM (SELECT id FROM notifications ORDER BY id LIMIT ?) AS oldest", limit)
		if err != nil {
			return err
		}
		_, err = c.exec("DELETE FROM notifications WHERE id <= ? AND at < ?", integer(row[0]), int64(before))
		return err
	})
	return err == nil, err
}

// pageOf checks a page's limit; before 0 is above every id.
func pageOf(before int64, limit int) (int64, error) {
	if limit < 1 || limit > order.MaxPage {
		return 0, fmt.Errorf("%w: limit %d is not in 1..%d", stock.ErrInvalid, limit, order.MaxPage)
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	return before, nil
}
