package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// conn is a pooled connection that keeps its prepared statements. database/sql
// owns the pool (its bound, its health); statements run on the driver itself,
// because the conversions and locks that database/sql adds to each value cost
// about as much as inserting it.
type conn struct {
	driver.Conn
	d     *dialect
	stmts map[string]driver.Stmt
	buf   args // reused: a connection serves one caller at a time
	dead  bool // not to be used again: what its transaction did is not known

	of   *members // of which it leads to the primary of a term; else nil
	term int64

	// doubt: an earlier run of this write asked for a commit and did not hear of
	// its end. What that run wrote is locked until its end is decided, so reading
	// it FOR UPDATE tells.
	doubt bool
}

// connector wraps a driver's so that its connections are *conn; with members,
// they lead to the primary.
type connector struct {
	driver.Connector
	d  *dialect
	of *members
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	connect := func(ctx context.Context) (*conn, error) { return dial(ctx, c.Connector, c.d) }
	if c.of != nil {
		connect = c.of.connect
	}
	fresh, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

func dial(ctx context.Context, to driver.Connector, d *dialect) (*conn, error) {
	dc, err := to.Connect(ctx)
	if err != nil {
		return nil, err
	}
	fresh := &conn{Conn: dc, d: d, stmts: map[string]driver.Stmt{}}
	if err := fresh.prepare(ctx); err != nil {
		return nil, err
	}
	return fresh, nil
}

// Close ends the statements before their connection.
func (c *conn) Close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	c.stmts = nil
	return errors.Join(append(errs, c.Conn.Close())...)
}

// ResetSession and IsValid let the pool see what the driver knows of the
// connection's health.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.of.over(c.term) {
		return driver.ErrBadConn
	}
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *conn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !c.dead && (!ok || v.IsValid())
}

// onConn runs f on a connection of the pool. ctx bounds the wait for one.
func onConn(ctx context.Context, db *sql.DB, f func(c *conn) error) error {
	sc, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer sc.Close()
	return sc.Raw(func(dc any) error { return f(dc.(*conn)) })
}

// args are the values of a statement, in order.
type args []driver.NamedValue

func (a *args) add(v driver.Value) {
	*a = append(*a, driver.NamedValue{Ordinal: len(*a) + 1, Value: v})
}

func (a *args) text(s string) { a.add(s) }
func (a *args) blob(b []byte) { a.add(b) }
func (a *args) int(n int64)   { a.add(n) }

// The opt forms bind NULL for a zero value.
func (a *args) optText(s string) {
	if s == "" {
		a.add(nil)
		return
	}
	a.add(s)
}

func (a *args) optBlob(b []byte) {
	if len(b) == 0 {
		a.add(nil)
		return
	}
	a.add(b)
}

func (a *args) optInt(n int64) {
	if n == 0 {
		a.add(nil)
		return
	}
	a.add(n)
}

// inText makes values fit to be written into a statement, which is text: bytes
// that are none are marked as bytes.
func (a args) inText() args {
	for i, v := range a {
		if s, ok := v.Value.(string); ok && !utf8.ValidString(s) {
			a[i].Value = []byte(s)
		}
	}
	return a
}

// bind turns ordinary values into args, in a buffer that lives until the next call.
func (c *conn) bind(values []any) args {
	c.buf = c.buf[:0]
	for _, v := range values {
		switch v := v.(type) {
		case int:
			c.buf.int(int64(v))
		case nil, int64, string, []byte:
			c.buf.add(v)
		default:
			panic(fmt.Sprintf("sqlstore: cannot bind a %T", v))
		}
	}
	return c.buf
}

func (c *conn) prepared(query string) (driver.Stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	s, err := c.Prepare(strings.ReplaceAll(query, "LIMIT ?", c.d.limit))
	if err != nil {
		return nil, fmt.Errorf("prepare %.80q: %w", query, err)
	}
	c.stmts[query] = s
	return s, nil
}

// exec runs a statement and answers how many rows it changed. Statements are
// not tied to a context: an interrupt inside a transaction would undo all of it.
func (c *conn) exec(query string, values ...any) (int64, error) {
	return c.execArgs(query, c.bind(values))
}

func (c *conn) execArgs(query string, a args) (int64, error) {
	var r driver.Result
	if c.d.inText {
		var err error
		if r, err = c.Conn.(driver.ExecerContext).ExecContext(context.Background(), query, a.inText()); err != nil {
			return 0, unskipped(err)
		}
		return r.RowsAffected()
	}
	s, err := c.prepared(query)
	if err == nil {
		r, err = s.(driver.StmtExecContext).ExecContext(context.Background(), a)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// unskipped names what a driver means by asking for another way: there is none.
func unskipped(err error) error {
	if err == driver.ErrSkip {
		return errors.New("statement is longer than the driver's packets")
	}
	return err
}

func (c *conn) rows(ctx context.Context, query string, a args) (driver.Rows, error) {
	if c.d.inText {
		rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, a.inText())
		return rows, unskipped(err)
	}
	s, err := c.prepared(query)
	if err != nil {
		return nil, err
	}
	return s.(driver.StmtQueryContext).QueryContext(ctx, a)
}

// query calls each with every row. The row is reused; its strings and slices are not.
func (c *conn) query(ctx context.Context, query string, each func(row []driver.Value) error, values ...any) error {
	rows, err := c.rows(ctx, query, c.bind(values))
	if err != nil {
		return err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	for n := 0; ; n++ {
		// The driver watches ctx only until the first row.
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := rows.Next(row); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if c.d.inText {
			own(row)
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// own copies what a row shows of the driver's buffer, which the next row overwrites.
func own(row []driver.Value) {
	n := 0
	for _, v := range row {
		if b, ok := v.([]byte); ok {
			n += len(b)
		}
	}
	buf := make([]byte, 0, n)
	for i, v := range row {
		if b, ok := v.([]byte); ok {
			at := len(buf)
			buf = append(buf, b...)
			row[i] = buf[at:len(buf):len(buf)]
		}
	}
}

// one reads at most one row; ok is false when there is none.
func (c *conn) one(query string, values ...any) (row []driver.Value, ok bool, err error) {
	err = c.query(context.Background(), query, func(r []driver.Value) error {
		row, ok = r, true
		return nil
	}, values...)
	return row, ok, err
}

// Readers of a column. NULL is the zero value.

func text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

func blob(v driver.Value) []byte {
	switch v := v.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	return nil
}

// integer of a column that is neither NULL nor a number is a mistake in the
// statement.
func integer(v driver.Value) int64 {
	switch v := v.(type) {
	case nil:
		return 0
	case int64:
		return v
	}
	panic(fmt.Sprintf("sqlstore: a %T where a number is selected", v))
}
