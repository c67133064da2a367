package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/test/servers"
)

// Both dialects have the same tables, columns and indexes. Types are not
// compared: the conformance suites write the largest values there are.
func TestLayoutsAgree(t *testing.T) {
	d := servers.MariaDB(t)
	must(t, onServer(t, d, servers.SQLDatabase, "").Ping(t.Context()))
	path := filepath.Join(t.TempDir(), "shop.db")
	must(t, openAt(t, path, Options{}).Close())
	embedded := rawDB(t, path)
	defer embedded.Close()
	server, err := sql.Open("mysql", d.DSN(servers.SQLDatabase))
	must(t, err)
	defer server.Close()

	want, got := sqliteLayout(t, embedded), serverLayout(t, server)
	equal(t, "tables", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	for table := range want {
		equal(t, table, got[table], want[table])
	}
	equal(t, "versions", versions(t, server), versions(t, embedded))
}

func versions(t *testing.T, db *sql.DB) (list []string) {
	t.Helper()
	each(t, db, "SELECT version_id FROM goose_db_version ORDER BY version_id", func(v []string) { list = append(list, v[0]) })
	return list
}

// each calls f with every row as text; NULL is "".
func each(t *testing.T, db *sql.DB, query string, f func(row []string)) {
	t.Helper()
	rows, err := db.Query(query)
	must(t, err)
	names, err := rows.Columns()
	must(t, err)
	var all [][]string // first: f may ask the only connection again
	for rows.Next() {
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range into {
			into[i] = &values[i]
		}
		must(t, rows.Scan(into...))
		row := make([]string, len(names))
		for i := range row {
			row[i] = values[i].String
		}
		all = append(all, row)
	}
	must(t, errors.Join(rows.Err(), rows.Close()))
	for _, row := range all {
		f(row)
	}
}

// A layout says of each table: its columns, with "?" where NULL may stand, and
// its indexes, "unique" or not, with their columns. An index of SQLite that a
// constraint made has no name to compare.

func sqliteLayout(t *testing.T, db *sql.DB) map[string][]string {
	t.Helper()
	layout := map[string][]string{}
	each(t, db, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", func(r []string) {
		layout[r[0]] = nil
	})
	for table := range layout {
		if table == "goose_db_version" {
			continue // the library's
		}
		var lines, key []string
		each(t, db, "SELECT name, \"notnull\", pk FROM pragma_table_info('"+table+"') ORDER BY pk", func(r []string) {
			null := "?"
			if r[1] == "1" || r[2] != "0" {
				null = ""
			}
			lines = append(lines, "column "+r[0]+null)
			if r[2] != "0" {
				key = append(key, r[0])
			}
		})
		lines = append(lines, indexLine(true, key))
		each(t, db, "SELECT name, \"unique\", origin FROM pragma_index_list('"+table+"')", func(r []string) {
			if r[2] == "pk" {
				return
			}
			var columns []string
			each(t, db, "SELECT name FROM pragma_index_info('"+r[0]+"') ORDER BY seqno", func(r []string) { columns = append(columns, r[0]) })
			// A condition that names a value is a first column where there are no
			// partial indexes; one that leaves NULL out needs nothing.
			each(t, db, "SELECT sql FROM sqlite_master WHERE name = '"+r[0]+"'", func(r []string) {
				if _, condition, partial := strings.Cut(r[0], " WHERE "); partial && strings.Contains(condition, "=") {
					columns = append([]string{strings.Fields(condition)[0]}, columns...)
				}
			})
			lines = append(lines, indexLine(r[1] == "1", columns))
		})
		slices.Sort(lines)
		layout[table] = lines
	}
	return layout
}

func serverLayout(t *testing.T, db *sql.DB) map[string][]string {
	t.Helper()
	layout := map[string][]string{}
	each(t, db, "SELECT table_name, column_name, is_nullable FROM information_schema.columns WHERE table_schema = DATABASE()", func(r []string) {
		null := "?"
		if r[2] == "NO" {
			null = ""
		}
		layout[r[0]] = append(layout[r[0]], "column "+r[1]+null)
	})
	each(t, db, `SELECT table_name, index_name, non_unique, GROUP_CONCAT(column_name ORDER BY seq_in_index)
		FROM information_schema.statistics WHERE table_schema = DATABASE() GROUP BY 1, 2, 3`, func(r []string) {
		layout[r[0]] = append(layout[r[0]], indexLine(r[2] == "0", strings.Split(r[3], ",")))
	})
	for table := range layout {
		slices.Sort(layout[table])
	}
	layout["goose_db_version"] = nil
	return layout
}

func indexLine(unique bool, columns []string) string {
	return fmt.Sprintf("index unique=%v (%s)", unique, strings.Join(columns, ", "))
}

// A migration that was cut short is finished by the next start, and processes
// that start at once do not trip over each other.
func TestMigrateOnServer(t *testing.T) {
	d := servers.MariaDB(t)
	first, err := migrations.ReadFile("migrations/mysql/00001_store.sql")
	must(t, err)
	_, statements, _ := strings.Cut(string(first), "-- +goose Up")
	statements, _, _ = strings.Cut(statements, "-- +goose Down")
	db, err := sql.Open("mysql", d.DSN("sluice_short"))
	must(t, err)
	defer db.Close()
	must(t, d.Create(t.Context(), "sluice_short"))
	for i, statement := range strings.SplitAfter(statements, ";\n") {
		if i == 4 { // four tables, and then the power goes
			break
		}
		_, err := db.Exec(statement)
		must(t, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := OpenServer(context.Background(), d.URL("sluice_short"), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.Ping(context.Background()), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// As if each migration had been cut short between its last statement and the
	// record of it.
	_, err = db.Exec("DELETE FROM goose_db_version WHERE version_id > 0")
	must(t, err)
	s, err := OpenServer(t.Context(), d.URL("sluice_short"), Options{})
	must(t, err)
	must(t, s.Close())
	_, err = db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)")
	must(t, err)
	_, err = OpenServer(t.Context(), d.URL("sluice_short"), Options{})
	if err == nil || !strings.Contains(err.Error(), "run the newer program") {
		t.Errorf("a newer layout: %v", err)
	}
}

// No message shows a password, however wrong the address is.
func TestPasswordIsNotShown(t *testing.T) {
	const secret = "s3cr3t"
	d := servers.MariaDB(t)
	var log bytes.Buffer
	o := Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	f := func(address, want string) {
		t.Helper()
		s, err := OpenServer(t.Context(), address, o)
		if err == nil {
			must(t, s.Close())
			t.Errorf("opened %s", address)
			return
		}
		if said := err.Error() + log.String(); strings.Contains(said, secret) || strings.Contains(said, "cr3t") || !strings.Contains(said, want) {
			t.Errorf("%s: %s; want %q in it, and no password", address, said, want)
		}
	}
	const how = "mysql://user:password@host:3306/database"
	f("mysql://u:"+secret+"@"+d.Addr+"/sluice", "Access denied")
	f("mysql://sluice:sluice@"+d.Addr+"/sluice?x="+secret[:2], "x")
	f("mysql://u:"+secret+"@127.0.0.1:1/sluice", "connection refused")
	f("mysql://u:"+secret+"/@"+d.Addr+"/sluice", how)
	f("mysql://u:s3%cr3t@"+d.Addr+"/sluice", how)
	f("mysql://u:"+secret+"@"+d.Addr, how)
	f("mysql://u:"+secret+"@"+d.Addr+"/", how)
	f("mysql://u:"+secret+"@h1,h2/sluice", how)
	f("mysql://u:"+secret+"@"+d.Addr+"/sluice?readers=0", "readers")
	f("mysql://u:"+secret+"@"+d.Addr+"/sluice?writers=many", "writers")
	f("mysql://u:"+secret+"@"+d.Addr+"/sluice?readTimeout=soon", "soon")
}
