package sqlstore

import (
	"database/sql/driver"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// This file is everything in which the databases differ: SQLite on one side;
// MariaDB (from 10.6), MySQL 8 and TiDB on the other, which it calls MySQL. The
// rest of the package is SQL that both sides read alike. MySQL's side keeps to
// what all three of its kinds have: no RETURNING, no row alias, no SKIP LOCKED,
// no JSON_TABLE, no shared locks. How each is reached is in connect.go, the
// tables are in migrations.

//go:embed migrations
var migrations embed.FS

// dialect is one side.
type dialect struct {
	name   string
	goose  goose.Dialect
	setup  []string // of a new connection
	lock   string   // lets one process at a time change the layout, 1 when got; "": the database sees to it
	unlock string

	// sideBySide: transactions run side by side, each with its own commit, and
	// the server shares a sync among them. Otherwise one writer groups them.
	sideBySide bool
	// inText: the driver writes values into the text of a statement, which costs
	// one exchange with the server; preparing it first costs two. Without a
	// server in between, statements prepared once are cheaper.
	inText bool
	// rows and bytes bound one INSERT. SQLite takes one row a statement: it keeps
	// an undo journal of every page that a statement of several rows touches, and
	// its driver looks for each parameter among all of them. A server is asked
	// once for many; the bytes stay well below every server's packet limit.
	rows, bytes int

	beginWrite string
	beginRead  []string // a transaction that sees one moment

	forUpdate   string // ends a SELECT whose rows this transaction is going to change
	onSameID    string // ends an INSERT that leaves a row with this id as it is
	stateOfUser string // a state, where the user leads to few rows already
	limit       string // what LIMIT ? is written as where statements are prepared
	inOrder     string // joins in the order as written: the first table is the small one
	signed      string // what CAST makes an integer of
	now         string // the database's clock, Unix ms
	fence       string // makes or raises the token of a log
	accepts     string // a query whose value says whether writes are taken: ON
	checkpoint  string // moves committed pages where they belong; "": the server does

	// idList is a list of ids as a condition's right side, and its values.
	idList func(ids []int64) (list string, values []any)
	// textList is the same of texts, which must be valid UTF-8.
	textList func(texts []string) (list string, values []any)
}

var sqliteSide = &dialect{
	name: "sqlite", goose: goose.DialectSQLite3,
	rows: 1, bytes: 1 << 20,
	// Write transactions take the write lock at once, so none fails half-way for
	// having read first; there is nobody else whose rows one would have to lock.
	beginWrite: "BEGIN IMMEDIATE", beginRead: []string{"BEGIN"},
	onSameID: " ON CONFLICT (id) DO NOTHING",
	// The sign takes the index by state away from the planner, which would walk
	// all orders of an activity in a state in order to find one user's.
	stateOfUser: "+state = ?",
	// SQLite plans by the value of a limit that is a parameter, and prepares the
	// statement again whenever another is bound. It does not look into a sum.
	limit:   "LIMIT ?+0",
	inOrder: "CROSS JOIN", signed: "INTEGER",
	now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
	fence: `INSERT INTO watermarks (log, token) VALUES (?, 1)
		ON CONFLICT (log) DO UPDATE SET token = token + 1`,
	accepts: "SELECT 'ON'", checkpoint: "PRAGMA wal_checkpoint(PASSIVE)",
	// One JSON parameter: one prepared statement for any number.
	idList: func(ids []int64) (string, []any) {
		list, _ := json.Marshal(ids) // numbers always encode
		return "(SELECT value FROM json_each(?))", []any{string(list)}
	},
	textList: func(texts []string) (string, []any) {
		list, _ := json.Marshal(texts) // texts always encode
		return "(SELECT value FROM json_each(?))", []any{string(list)}
	},
}

var mysqlSide = &dialect{
	name: "mysql", goose: goose.DialectMySQL,
	// DDL commits statement by statement, so two processes would trip over each other.
	lock: "SELECT GET_LOCK(" + layoutLock + ", 60)", unlock: "DO RELEASE_LOCK(" + layoutLock + ")",
	// Each statement sees what is committed, and locks the rows it finds and no
	// gaps: what is read in order to be changed is read FOR UPDATE, and unique
	// keys do the rest. Gap locks would only add deadlocks.
	setup:      []string{"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", endSilent},
	sideBySide: true, inText: true,
	rows: 500, bytes: 1 << 20,
	beginWrite: "START TRANSACTION",
	beginRead:  []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"},
	forUpdate:  " FOR UPDATE",
	// Not INSERT IGNORE, which would also swallow values that do not fit.
	onSameID:    " ON DUPLICATE KEY UPDATE id = id",
	stateOfUser: "state = ?",
	inOrder:     "STRAIGHT_JOIN", signed: "SIGNED",
	now:     "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
	fence:   "INSERT INTO watermarks (log, token) VALUES (?, 1) ON DUPLICATE KEY UPDATE token = token + 1",
	accepts: "SELECT IF(@@global.read_only IN ('0', 'OFF'), 'ON', 'OFF')",
	idList: func(ids []int64) (string, []any) {
		values := make([]any, len(ids))
		for i, id := range ids {
			values[i] = id
		}
		return placeholders(len(ids)), values
	},
	textList: func(texts []string) (string, []any) {
		values := make([]any, len(texts))
		for i, text := range texts {
			values[i] = text
		}
		return placeholders(len(texts)), values
	},
}

// endSilent has the server end a transaction whose client has said nothing for
// some seconds, so that a process which was frozen, or cut off, in the middle of one
// does not keep others from its buckets and leases. MySQL has nothing of the
// kind: there it lasts until the session ends, see sessionIdle.
const endSilent = "SET SESSION autocommit = 1 /*M!100303 , SESSION idle_transaction_timeout = 4 */"

// layoutLock is a lock's name: at most 64 characters.
const layoutLock = "CONCAT('sluice layout ', LEFT(DATABASE(), 48))"

// placeholders is "(?,?,…)".
func placeholders(columns int) string {
	return "(?" + strings.Repeat(",?", columns-1) + ")"
}

// What errors mean. Each of these looks at the drivers' own error types, so
// they need not be told which database an error is from.

func sqliteCode(err error) int {
	if err == nil {
		return 0 // and allocate nothing
	}
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

func mysqlCode(err error) uint16 {
	if err == nil {
		return 0
	}
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// duplicate says that a row was refused because its primary key or a unique
// column set is taken. The statement had no effect; its transaction goes on.
func duplicate(err error) bool {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return true
	}
	return mysqlCode(err) == 1062
}

// errRaced: two transactions added the same row, which the loser has to look
// at. A single writer never meets it.
var errRaced = errors.New("somebody else wrote this row first")

// raced is err, or errRaced for a row that was not there a moment ago.
func raced(err error) error {
	if duplicate(err) {
		return fmt.Errorf("%w: %w", errRaced, err)
	}
	return err
}

// again says that the transaction was undone by the server for the sake of
// others and may be run again at once, its COMMIT included.
func again(err error) bool {
	switch mysqlCode(err) {
	case 1213, 1205, // deadlock; waited too long for a lock
		1020,                         // MariaDB: the record changed since it was read
		8002, 8005, 8022, 8028, 9007: // TiDB: conflicts found late; the layout changed meanwhile
		return true
	}
	return errors.Is(err, errRaced)
}

// lost says that this connection is of no more use: it is gone, its server is
// going, or it leads to one that does not write. Until COMMIT was asked for,
// its transaction is undone.
func lost(err error) bool {
	switch mysqlCode(err) {
	case 1053, 1077, 1079, 1094, 1184, 1158, 1159, 1160, 1161, 4031, // shutdown; aborted; network
		1317, 1927, 1969, 3024, 3169, // killed; past the server's limit of time
		1290, 1792, 1836, // read-only: a failover has happened or is happening
		1040, 1041, 1129, 1135, 1203, 1226, // no room for another connection
		9001, 9002, 9003, 9004, 9005: // TiDB: its storage does not answer
		return true
	}
	var n *net.OpError
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, mysql.ErrBusyBuffer) ||
		errors.Is(err, mysql.ErrPktSync) || errors.Is(err, mysql.ErrMalformPkt) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errNotPrimary) ||
		errors.As(err, &n)
}

// away says that the store cannot do its work for now: its server does not
// answer, its disk is full or failing, or somebody holds the database. What was
// asked may be asked again.
func away(err error) bool {
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return true
	}
	switch mysqlCode(err) {
	case 1021, 1114, 1030, 1026, 3: // disk full; table full; the storage engine's errors; writing a file
		return true
	}
	return fatal(err) || again(err) || lost(err)
}

// fatal says that after this error nothing more may be committed by this
// process: a failed sync may have lost pages that a later, successful one would
// claim to cover. A server that meets it ends itself, and comes back as it was.
func fatal(err error) bool {
	code := sqliteCode(err)
	switch code {
	case sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC:
		return true
	}
	return code&0xff == sqlite3.SQLITE_CORRUPT || code&0xff == sqlite3.SQLITE_NOTADB
}
