package sqlstore

import (
	"database/sql/driver"
	"testing"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
	"sluice/internal/order"
	"sluice/internal/order/ordertest"
	"sluice/test/servers"
)

// onServer opens an empty store in a database of the server; params begin with "?".
func onServer(tb testing.TB, d *servers.Database, name, params string) *Store {
	tb.Helper()
	s, err := OpenServer(tb.Context(), d.URL(name)+params, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	empty(tb, s)
	return s
}

// empty deletes every row of a database but those of its layout.
func empty(tb testing.TB, s *Store) {
	tb.Helper()
	err := s.writing(tb.Context(), "empty", func(c *conn) error {
		var tables []string
		err := c.query(tb.Context(), "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name NOT IN ('goose_db_version', 'primary_term')",
			func(row []driver.Value) error { tables = append(tables, text(row[0])); return nil })
		for _, table := range tables {
			if _, cause := c.exec("DELETE FROM " + table); cause != nil {
				err = cause
			}
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// Everything that the store promises holds on a real MariaDB as on SQLite.
func TestServer(t *testing.T) {
	d := servers.MariaDB(t)
	open := func(t *testing.T) *Store { return onServer(t, d, servers.SQLDatabase, "") }
	t.Run("orders", func(t *testing.T) {
		ordertest.Run(t, func(t *testing.T) order.Store { return open(t) })
	})
	t.Run("outbox", func(t *testing.T) { checkOutbox(t, open) })
	t.Run("waiting rooms", func(t *testing.T) {
		linetest.Run(t, func(t *testing.T) waiting.Line { return open(t).Waiting() })
	})
	t.Run("leases", func(t *testing.T) { checkLeases(t, open) })
	for name, f := range map[string]func(*testing.T, *Store){
		"products":           checkProducts,
		"activities":         checkActivities,
		"adjustments":        checkAdjustments,
		"repairs":            checkRepairs,
		"proofs":             checkProofs,
		"parts":              checkParts,
		"asks":               checkAsks,
		"notifications":      checkNotifications,
		"trim notifications": checkTrimNotifications,
		"gate rules":         checkGateRules,
		"gate lists":         checkGateLists,
		"gate lists follow":  checkGateListsFollowed,
		"large waiting room": checkLargeRoom,
		"playbooks":          checkPlaybooks,
		"audit log":          checkAuditLog,
		"one moment":         checkSnapshotIsOneMoment,
		"snapshot fields":    checkSnapshotFields,
		"under a lease":      checkUnder,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}
