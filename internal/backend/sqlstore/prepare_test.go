package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"reflect"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"

	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// SQLite prepares a statement again when it had planned with the values bound
// and others come: with every page, that took a quarter of all time.
func TestNothingIsPreparedAgain(t *testing.T) {
	s := openStore(t)
	s.read.SetMaxOpenConns(1)
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	must(t, landAll(ctx, s, token, 0, 40, 10))
	for i := 1; i <= 5; i++ {
		o := landedOrders(i, 1)[0].Order
		for _, q := range []order.Query{
			{User: o.User}, {User: o.User, Activity: "flash-1"}, {User: o.User, State: "created"}, {Activity: "flash-1"},
			{Activity: "flash-1", State: "created"}, {Reservation: &o.Reservation}, {DueBy: stock.Millis(i)}, {Before: o.ID},
		} {
			q.Limit = i
			_, err := s.List(ctx, q)
			must(t, err)
		}
		_, err := s.Pending(ctx, int64(i), i)
		must(t, err)
		_, err = s.Dead(ctx, int64(i), i)
		must(t, err)
		must(t, note(s, int64(i)))
		_, err = s.TrimNotifications(ctx, 2, i)
		must(t, err)
		_, err = s.Notifications(ctx, "u", int64(i), i)
		must(t, err)
		_, err = s.AuditLog(ctx, int64(i), i)
		must(t, err)
		_, err = s.Products(ctx, "", i)
		must(t, err)
		_, err = s.Select(ctx, sale.Query{Living: true, Limit: i})
		must(t, err)
	}
	n := 0
	for _, db := range []*sql.DB{s.write.db, s.read} {
		must(t, onConn(ctx, db, func(c *conn) error {
			for query, stmt := range c.stmts {
				if n++; preparedAgain(stmt) > 0 {
					t.Errorf("prepared again %d times: %s", preparedAgain(stmt), query)
				}
			}
			return nil
		}))
	}
	if n < 20 {
		t.Errorf("%d statements were looked at", n)
	}
	must(t, onConn(ctx, s.read, func(c *conn) error { // and as it was
		stmt, err := c.Prepare("SELECT id FROM orders ORDER BY check_at LIMIT ?")
		must(t, err)
		for limit := int64(1); limit < 4; limit++ {
			rows, err := stmt.(driver.StmtQueryContext).QueryContext(context.Background(), args{{Ordinal: 1, Value: limit}})
			must(t, err)
			must(t, rows.Next(make([]driver.Value, 1)))
			must(t, rows.Close())
		}
		if preparedAgain(stmt) == 0 {
			t.Error("this SQLite does not look at limits: the dialect need not hide them")
		}
		return stmt.Close()
	}))
}

// preparedAgain asks SQLite itself, through the handles that the driver keeps.
func preparedAgain(stmt driver.Stmt) int64 {
	kept := func(v reflect.Value, field string) reflect.Value {
		f := v.Elem().FieldByName(field)
		return reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
	}
	s := reflect.ValueOf(stmt)
	status := reflect.ValueOf(sqlite3.Xsqlite3_stmt_status)
	code := func(i, n int) reflect.Value { return reflect.ValueOf(n).Convert(status.Type().In(i)) }
	out := status.Call([]reflect.Value{kept(kept(s, "c"), "tls"), kept(s, "pstmt"), code(2, sqlite3.SQLITE_STMTSTATUS_REPREPARE), code(3, 0)})
	return out[0].Int()
}
