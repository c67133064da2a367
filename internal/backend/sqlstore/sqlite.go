package sqlstore

import (
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"net/url"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// This file is the SQLite dialect: how to open one, which of its errors mean
// what, and the statements that another database would write otherwise. The
// rest of the package is SQL that MySQL understands as well.

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

const (
	gooseDialect = goose.DialectSQLite3

	beginWrite = "BEGIN IMMEDIATE"
	beginRead  = "BEGIN"

	// A landed reservation lands again without effect; any other collision (an
	// order id, a key used twice) is an error.
	onSameReservation = " ON CONFLICT (activity, epoch, bucket, number) DO NOTHING"
	onSameID          = " ON CONFLICT (id) DO NOTHING"

	fenceSQL = `INSERT INTO watermarks (log, token) VALUES (?, 1)
		ON CONFLICT (log) DO UPDATE SET token = token + 1`

	// stateOfUser keeps the planner from walking all orders of an activity in a
	// state in order to find one user's: the sign takes the index from it.
	stateOfUser = "+state = ?"

	// idList is a list of ids as one JSON parameter: one statement for any number.
	idList = "(SELECT value FROM json_each(?))"
)

// sqliteDSN asks for WAL with a sync per commit: what is committed survives a
// power cut. Write transactions take the write lock at once, so none fails
// half-way for having read first. busyMillis is how long to wait for another
// process that holds the lock.
func sqliteDSN(path string, busyMillis string, readOnly bool) string {
	v := url.Values{}
	v.Set("_txlock", "immediate")
	v.Set("_busy_timeout", busyMillis)
	v.Add("_pragma", "journal_mode(WAL)")
	v.Add("_pragma", "synchronous(FULL)")
	v.Add("_pragma", "temp_store(MEMORY)")
	if readOnly {
		v.Set("_query_only", "1")
		v.Add("_pragma", "cache_size(-16384)")
	} else {
		// 32 MB of pages: measured, landing is slower with 128 (each commit walks
		// the cache's table), and not faster with less. A commit checkpoints by
		// itself only when Checkpoint has not kept up.
		v.Add("_pragma", "cache_size(-32768)")
		v.Add("_pragma", "wal_autocheckpoint(8192)")
		v.Add("_pragma", "journal_size_limit(67108864)")
	}
	// A path is escaped as a URI, so that '?', '#' and '%' in it are letters.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
}

func openPool(dsn string, conns int) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{c})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// migrationPool is a plain pool for the migrations library, which needs all of
// database/sql.
func migrationPool(dsn string) (*sql.DB, fs.FS, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	files, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	return db, files, err
}

// checkpoint moves what it can without making anyone wait, and answers how
// many pages of the present log have been moved.
func checkpoint(c *conn) (moved int64, err error) {
	row, _, err := c.one("PRAGMA wal_checkpoint(PASSIVE)")
	if err != nil {
		return 0, err
	}
	return integer(row[2]), nil // busy, pages in the log, pages moved
}

// fatal says that after this error nothing more may be committed: a failed
// sync may have lost pages that a later, successful one would claim to cover.
func fatal(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() {
	case sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC:
		return true
	}
	return e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB
}

// away says that the store cannot do its work for now: the disk is full or
// failing, or somebody holds the database. What was asked may be asked again.
func away(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return true
	}
	return fatal(err)
}

// duplicate says that a row was refused because its primary key or a unique
// column set is taken.
func duplicate(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) &&
		(e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// placeholders is "(?,?,…)".
func placeholders(columns int) string {
	return "(?" + strings.Repeat(",?", columns-1) + ")"
}
