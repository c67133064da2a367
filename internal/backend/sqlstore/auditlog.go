package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"

	"sluice/internal/stock"
)

// AuditEntry is one action of an operator.
type AuditEntry struct {
	ID      int64 // given by the store, ascending
	At      stock.Millis
	Actor   string
	Action  string // "activity.pause"
	Subject string // what it was done to
	Detail  string
}

// Audit records what an operator did.
func (s *Store) Audit(ctx context.Context, e AuditEntry) error {
	return s.writing(ctx, "audit", func(c *conn) error {
		if c.doubt {
			if is, err := audited(c, e); is || err != nil {
				return err
			}
		}
		_, err := c.exec("INSERT INTO audit_log (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
			int64(e.At), e.Actor, e.Action, e.Subject, e.Detail)
		return err
	})
}

// audited says whether a commit without an answer has recorded an entry: then
// it is among the newest.
func audited(c *conn, e AuditEntry) (is bool, err error) {
	err = c.query(context.Background(), "SELECT at, actor, action, subject, detail FROM audit_log ORDER BY id DESC LIMIT 100"+c.d.forUpdate,
		func(row []driver.Value) error {
			e.ID = 0
			is = is || e == AuditEntry{0, stock.Millis(integer(row[0])), text(row[1]), text(row[2]), text(row[3]), text(row[4])}
			return nil
		})
	return is, err
}

// AuditLog pages through what operators did with id < before (0: the newest),
// newest first; limit is 1..500.
func (s *Store) AuditLog(ctx context.Context, before int64, limit int) (page []AuditEntry, err error) {
	before, err = pageOf(before, limit)
	if err != nil {
		return nil, fmt.Errorf("store: audit log: %w", err)
	}
	err = s.reading(ctx, "audit log", func(c *conn) error {
		return c.query(ctx, "SELECT id, at, actor, action, subject, detail FROM audit_log WHERE id < ? ORDER BY id DESC LIMIT ?",
			func(row []driver.Value) error {
				page = append(page, AuditEntry{
					ID: integer(row[0]), At: stock.Millis(integer(row[1])), Actor: text(row[2]),
					Action: text(row[3]), Subject: text(row[4]), Detail: text(row[5]),
				})
				return nil
			}, before, limit)
	})
	return page, err
}
