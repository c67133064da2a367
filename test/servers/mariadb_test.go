package servers

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// openSQL is a pool of the ordinary user, as an application has one.
func openSQL(t *testing.T, d *Database) *sql.DB {
	t.Helper()
	config, err := mysql.ParseDSN(d.DSN(SQLDatabase) + "?timeout=1s&readTimeout=10s")
	must(t, err)
	config.Logger = &mysql.NopLogger{} // of connections that we broke
	connector, err := mysql.NewConnector(config)
	must(t, err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}

// must is for calls whose only answer is an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	_, err := db.Exec("INSERT INTO notes (body) VALUES (?)", text)
	must(t, err)
}

func notes(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	var got int
	must(t, db.QueryRow("SELECT COUNT(*) FROM notes").Scan(&got))
	if got != want {
		t.Errorf("%d notes, want %d", got, want)
	}
}

const makeNotes = "CREATE TABLE notes (id BIGINT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(80)) ENGINE=InnoDB"

func TestMariaDB(t *testing.T) {
	t.Parallel() // most of it is waiting
	d := MariaDB(t, Config("lock-wait-timeout=5"))
	db := openSQL(t, d)
	_, err := db.Exec(makeNotes)
	must(t, err)
	put(t, db, "first")
	place, err := d.Query(t.Context(), "SELECT @@tmpdir AS tmpdir")
	must(t, err)
	if at, _ := filepath.Rel(d.Dir, place["tmpdir"]); at != "tmp" {
		t.Errorf("temporary tables in %s: the next server to start would take them away", place["tmpdir"])
	}

	image := t.TempDir()
	must(t, d.Image(image))
	put(t, db, "second")
	row, err := d.Query(t.Context(), "SHOW VARIABLES LIKE 'lock_wait_timeout'")
	if err != nil || row["Value"] != "5" {
		t.Errorf("the test's own line: %v, %v", row, err)
	}

	d.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "DO 1"); err == nil {
		t.Error("a paused server answered")
	}
	d.Resume()
	notes(t, db, 2)

	addr := d.Addr
	d.Kill()
	if err := db.Ping(); err == nil {
		t.Error("a killed server answered")
	}
	must(t, d.Restart()) // after a crash
	notes(t, db, 2)
	must(t, d.Restart()) // in order
	notes(t, db, 2)
	if d.Addr != addr {
		t.Errorf("moved from %s to %s", addr, d.Addr)
	}
	must(t, d.RestartFrom(image))
	notes(t, db, 1)
	must(t, d.RestartEmpty())
	if err := db.QueryRow("SELECT 1 FROM notes").Err(); err == nil {
		t.Error("an empty server still has the table")
	}
	must(t, d.Create(t.Context(), "sluice_other"))
	must(t, d.Create(t.Context(), "sluice_other"))
}

func TestMariaDBPair(t *testing.T) {
	t.Parallel() // most of it is waiting
	p := MariaDBPair(t)
	primary := openSQL(t, p.Primary)
	_, err := primary.Exec(makeNotes)
	must(t, err)
	put(t, primary, "first")
	must(t, p.Sync(t.Context()))
	replica := openSQL(t, p.Replica)
	notes(t, replica, 1)
	if _, err := replica.Exec("INSERT INTO notes (body) VALUES ('astray')"); err == nil {
		t.Error("the replica took a write of the ordinary user")
	}

	// What was acknowledged is in the replica's relay log, at least: promoted
	// without asking the primary, it has it.
	for range 20 {
		put(t, primary, "more")
	}
	p.Primary.Kill()
	must(t, p.Promote(t.Context()))
	notes(t, replica, 21)
	put(t, replica, "by the new primary")
	must(t, p.Rejoin(t.Context()))
	notes(t, primary, 22) // the pool found the old primary again
	if _, err := primary.Exec("INSERT INTO notes (body) VALUES ('astray')"); err == nil {
		t.Error("the old primary still takes writes")
	}

	// In order, back again; the roles outlive a restart.
	must(t, p.Promote(t.Context()))
	must(t, p.Rejoin(t.Context()))
	must(t, p.Primary.Restart())
	put(t, primary, "after a restart")
	must(t, p.Sync(t.Context()))
	notes(t, replica, 23)
}

func TestASecondMariaDBPrimaryCannotRejoin(t *testing.T) {
	t.Parallel() // most of it is waiting
	p := MariaDBPair(t, Config("rpl-semi-sync-master-timeout=100"))
	f := func(ofOld, ofNew int) {
		t.Helper()
		old, young := openSQL(t, p.Primary), openSQL(t, p.Replica)
		must(t, p.Promote(t.Context()))
		for range ofOld { // it was not told
			put(t, old, "astray")
		}
		for range ofNew {
			put(t, young, "astray")
		}
		if err := p.Rejoin(t.Context()); err == nil {
			t.Errorf("a server with %d commits of its own joined one with %d", ofOld, ofNew)
		}
		must(t, p.Replica.RestartEmpty())
		must(t, p.Rejoin(t.Context()))
	}
	db := openSQL(t, p.Primary)
	_, err := db.Exec(makeNotes)
	must(t, err)
	f(1, 0)
	f(1, 1)
	f(1, 3)
	notes(t, openSQL(t, p.Replica), 1+3) // what the new primaries wrote
}

// TestACrashedPrimaryTakesBack what no replica acknowledged: nobody was told of
// it, and it must not keep the server from following its successor.
func TestACrashedPrimaryTakesBack(t *testing.T) {
	t.Parallel() // most of it is waiting
	p := MariaDBPair(t, Config("rpl-semi-sync-master-timeout=60000"))
	db := openSQL(t, p.Primary)
	_, err := db.Exec(makeNotes)
	must(t, err)
	put(t, db, "acknowledged")
	position := func() string {
		t.Helper()
		row, err := p.Primary.Query(t.Context(), "SELECT @@GLOBAL.gtid_binlog_pos AS position")
		must(t, err)
		return row["position"]
	}
	before := position()
	must(t, p.Sync(t.Context()))
	must(t, p.Replica.Stop()) // a paused one would still find the commit in its socket
	answered := make(chan error, 1)
	go func() {
		_, err := db.Exec("INSERT INTO notes (body) VALUES ('not acknowledged')")
		answered <- err
	}()
	must(t, within(func() error {
		if position() == before {
			return errors.New("not in the binary log yet")
		}
		return nil
	}))
	p.Primary.Kill()
	if err := <-answered; err == nil {
		t.Fatal("a commit was answered that no replica has")
	}
	must(t, p.Replica.Restart())
	must(t, p.Promote(t.Context()))
	must(t, p.Rejoin(t.Context()))
	must(t, p.Sync(t.Context()))
	notes(t, openSQL(t, p.Primary), 1)
	notes(t, openSQL(t, p.Replica), 1)
}
