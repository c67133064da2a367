package main

import (
	"context"
	"database/sql"
	"strconv"
	"time"
)

// till is the payment provider. It is the world outside: it has a file of its
// own, and repeats a callback until it is answered. Only its page and its
// calls go through the same process.
type till struct {
	db       *sql.DB
	callback func(context.Context, capture) error
}

const tillSchema = `
CREATE TABLE IF NOT EXISTS pages (id TEXT PRIMARY KEY, order_id INTEGER, amount INTEGER, currency TEXT, captured INTEGER DEFAULT 0, told INTEGER DEFAULT 0);
CREATE INDEX IF NOT EXISTS untold ON pages (id) WHERE captured = 1 AND told = 0;`

// page starts a payment; an order has one.
func (t *till) page(ctx context.Context, o order) (string, error) {
	id := "p" + strconv.FormatInt(o.ID, 10)
	_, err := t.db.ExecContext(ctx, `INSERT OR IGNORE INTO pages (id, order_id, amount, currency) VALUES (?,?,?,?)`, id, o.ID, o.Amount, o.Currency)
	return id, err
}

// pay captures the money of a page, once, and calls back. It answers
// sql.ErrNoRows for a page that there is not.
func (t *till) pay(ctx context.Context, id string) error {
	c := capture{ID: id}
	err := t.db.QueryRowContext(ctx, `UPDATE pages SET captured = 1 WHERE id = ? RETURNING order_id, amount, currency`, id).Scan(&c.Order, &c.Amount, &c.Currency)
	if err != nil {
		return err
	}
	// The money has moved. If the shop does not answer, it is told again later.
	_ = t.tell(ctx, c)
	return nil
}

func (t *till) tell(ctx context.Context, c capture) error {
	if err := t.callback(ctx, c); err != nil {
		return err
	}
	_, err := t.db.ExecContext(ctx, `UPDATE pages SET told = 1 WHERE id = ?`, c.ID)
	return err
}

const tellAfter = 200 * time.Millisecond

// repeat tells what has not been heard.
func (t *till) repeat(ctx context.Context) error {
	rows, err := t.db.QueryContext(ctx, `SELECT id, order_id, amount, currency FROM pages WHERE captured = 1 AND told = 0 LIMIT 100`)
	if err != nil {
		return err
	}
	var untold []capture
	for rows.Next() {
		var c capture
		if err = rows.Scan(&c.ID, &c.Order, &c.Amount, &c.Currency); err != nil {
			break
		}
		untold = append(untold, c)
	}
	if err := rows.Close(); err != nil {
		return err
	}
	for _, c := range untold {
		if err := t.tell(ctx, c); err != nil {
			return err
		}
	}
	return err
}
