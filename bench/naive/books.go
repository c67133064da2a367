package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver called "sqlite"
)

// books are the SQL tables of the chain: the second of its two books. Each
// method is one transaction.
type books struct{ db *sql.DB }

const schema = `
CREATE TABLE IF NOT EXISTS activities (id TEXT PRIMARY KEY, sku TEXT, units INTEGER, amount INTEGER, currency TEXT,
	hold_ms INTEGER, opens INTEGER, closes INTEGER);
CREATE TABLE IF NOT EXISTS stock (activity TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (n >= 0));
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, activity TEXT, user TEXT, key TEXT, state TEXT, reason TEXT DEFAULT '',
	expires INTEGER, amount INTEGER, currency TEXT, UNIQUE (activity, user, key));
CREATE INDEX IF NOT EXISTS unpaid ON orders (expires) WHERE state = 'created';
CREATE TABLE IF NOT EXISTS captures (id TEXT PRIMARY KEY, order_id INTEGER, amount INTEGER, currency TEXT, pays INTEGER, refunded INTEGER);
CREATE INDEX IF NOT EXISTS captured ON captures (order_id);`

// activity is one sale of one SKU.
type activity struct {
	ID       string
	SKU      string
	Units    int
	Amount   int64 // minor units of Currency
	Currency string
	Hold     time.Duration
	Opens    time.Time
	Closes   time.Time
}

// order is a row, and the message that becomes one.
type order struct {
	ID       int64
	Activity string
	User     string
	Key      string
	State    string `json:",omitempty"` // created, paid, cancelled, refused
	Reason   string `json:",omitempty"`
	Expires  int64  // Unix ms
	Amount   int64
	Currency string
}

// capture is money that arrived. Pays is the order it pays, 0 = it was given back.
type capture struct {
	ID       string
	Order    int64
	Amount   int64
	Currency string
	Pays     int64
	Refunded bool
}

// openSQL opens a SQLite file that is synced at each commit. One connection, so
// that nobody meets a lock.
func openSQL(dir, name, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, name)+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), db.Close())
	}
	return db, nil
}

// within runs do in a transaction.
func (b *books) within(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// changed runs a statement and says whether it touched a row.
func changed(tx *sql.Tx, statement string, args ...any) (bool, error) {
	r, err := tx.Exec(statement, args...)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// put saves an activity and its stock. A second time changes nothing.
func (b *books) put(ctx context.Context, a activity) error {
	return b.within(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT OR IGNORE INTO activities VALUES (?,?,?,?,?,?,?,?)`, a.ID, a.SKU, a.Units, a.Amount, a.Currency,
			a.Hold.Milliseconds(), a.Opens.UnixMilli(), a.Closes.UnixMilli())
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT OR IGNORE INTO stock VALUES (?,?)`, a.ID, a.Units)
		return err
	})
}

// activity reads one; sql.ErrNoRows if there is none.
func (b *books) activity(ctx context.Context, id string) (a activity, err error) {
	var hold, opens, closes int64
	err = b.db.QueryRowContext(ctx, `SELECT id, sku, units, amount, currency, hold_ms, opens, closes FROM activities WHERE id = ?`, id).
		Scan(&a.ID, &a.SKU, &a.Units, &a.Amount, &a.Currency, &hold, &opens, &closes)
	a.Hold, a.Opens, a.Closes = time.Duration(hold)*time.Millisecond, time.UnixMilli(opens), time.UnixMilli(closes)
	return a, err
}

// land writes the order of a message and deducts its unit. A message that
// comes twice changes nothing; without a unit the order is refused.
func (b *books) land(ctx context.Context, o order) error {
	return b.within(ctx, func(tx *sql.Tx) error {
		fresh, err := changed(tx, `INSERT OR IGNORE INTO orders (id, activity, user, key, state, expires, amount, currency)
			VALUES (?,?,?,?,'created',?,?,?)`, o.ID, o.Activity, o.User, o.Key, o.Expires, o.Amount, o.Currency)
		if err != nil || !fresh {
			return err
		}
		enough, err := changed(tx, `UPDATE stock SET n = n - 1 WHERE activity = ? AND n > 0`, o.Activity)
		if err != nil || enough {
			return err
		}
		_, err = tx.Exec(`UPDATE orders SET state = 'refused', reason = 'no stock' WHERE id = ?`, o.ID)
		return err
	})
}

// cancel ends an unpaid order and puts its unit back; false if it was not unpaid.
func (b *books) cancel(ctx context.Context, o order, reason string) (done bool, err error) {
	err = b.within(ctx, func(tx *sql.Tx) error {
		if done, err = changed(tx, `UPDATE orders SET state = 'cancelled', reason = ? WHERE id = ? AND state = 'created'`, reason, o.ID); err != nil || !done {
			return err
		}
		_, err = tx.Exec(`UPDATE stock SET n = n + 1 WHERE activity = ?`, o.Activity)
		return err
	})
	return done && err == nil, err
}

// received takes note of a capture, once: it pays its order, or is given back
// if that order is not waiting for money.
func (b *books) received(ctx context.Context, c capture) error {
	return b.within(ctx, func(tx *sql.Tx) error {
		fresh, err := changed(tx, `INSERT OR IGNORE INTO captures VALUES (?,?,?,?,0,0)`, c.ID, c.Order, c.Amount, c.Currency)
		if err != nil || !fresh {
			return err
		}
		paid, err := changed(tx, `UPDATE orders SET state = 'paid' WHERE id = ? AND state = 'created' AND amount = ? AND currency = ?`, c.Order, c.Amount, c.Currency)
		if err != nil {
			return err
		}
		change := `UPDATE captures SET refunded = 1 WHERE id = ?`
		if paid {
			change = `UPDATE captures SET pays = order_id WHERE id = ?`
		}
		_, err = tx.Exec(change, c.ID)
		return err
	})
}

const orderColumns = `id, activity, user, key, state, reason, expires, amount, currency`

func (b *books) orders(ctx context.Context, where string, args ...any) (list []order, err error) {
	rows, err := b.db.QueryContext(ctx, `SELECT `+orderColumns+` FROM orders WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var o order
		if err := rows.Scan(&o.ID, &o.Activity, &o.User, &o.Key, &o.State, &o.Reason, &o.Expires, &o.Amount, &o.Currency); err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, rows.Err()
}

// captures of orders first..last, by order.
func (b *books) captures(ctx context.Context, first, last int64) (map[int64][]capture, error) {
	rows, err := b.db.QueryContext(ctx, `SELECT id, order_id, amount, currency, pays, refunded FROM captures WHERE order_id BETWEEN ? AND ? ORDER BY id`, first, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[int64][]capture{}
	for rows.Next() {
		var c capture
		if err := rows.Scan(&c.ID, &c.Order, &c.Amount, &c.Currency, &c.Pays, &c.Refunded); err != nil {
			return nil, err
		}
		found[c.Order] = append(found[c.Order], c)
	}
	return found, rows.Err()
}

// sum is what SQL says of an activity at one moment.
type sum struct {
	left               int // of stock
	states             map[string]int
	captured, refunded int64
}

func (b *books) sum(ctx context.Context, activity string) (s sum, err error) {
	s.states = map[string]int{}
	err = b.within(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRow(`SELECT n FROM stock WHERE activity = ?`, activity).Scan(&s.left); err != nil {
			return err
		}
		if err := tx.QueryRow(`SELECT coalesce(sum(c.amount), 0), coalesce(sum(c.amount * c.refunded), 0) FROM captures c JOIN orders o ON o.id = c.order_id
			WHERE o.activity = ?`, activity).Scan(&s.captured, &s.refunded); err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT state, count(*) FROM orders WHERE activity = ? GROUP BY state`, activity)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var state string
			var n int
			if err := rows.Scan(&state, &n); err != nil {
				return err
			}
			s.states[state] = n
		}
		return rows.Err()
	})
	return s, err
}
