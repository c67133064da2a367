// Package sqlstore keeps orders, products, activities, leases and the outbox in
// one SQL database: SQLite in a file, or MariaDB, MySQL or TiDB on a server.
// dialect.go is all in which they differ. MySQL 8 and TiDB are claimed by
// dialect and have not been tested.
//
// Invariants: every write is one transaction and durable when it returns nil
// (state, its events and the landing watermark together); the messages of one
// key have ids that ascend in commit order, and no id is ever used again; a
// write whose commit was not heard of is looked for before it is repeated.
// Reads see committed rows only and never wait for writers.
//
// SQLite has a single writer that shares each commit among its callers. On a
// server writes run side by side, conditional on what they read.
//
// Bounds: the writes under way, the pools and every page are bounded; past the
// first, stock.ErrOverloaded. It refuses business rules: what an order or an
// activity may become is decided by the callbacks it is given. DESIGN.md says
// why it is as it is.
package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"

	"sluice/internal/stock"

	"sluice/internal/catalog"
	"sluice/internal/lib/lease"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/sale"
)

// ErrClosed: the store was closed.
var ErrClosed = errors.New("store is closed")

// Store is one database. Safe for concurrent use.
type Store struct {
	d      *dialect
	write  *writer
	read   *sql.DB
	upkeep *sql.DB // nil where the server sees to itself
	ckpt   *int64  // of the last Checkpoint, see there
	lease  *lease.Grant
	orders *ordersTable // which of its tables of orders this view of it has

	replicas *replicas // nil where it has none
	session  *session  // what this process has shown, for whoever reads replicas; else nil
	near     *member   // the replica that this view of it reads; else nil
}

var (
	_ order.Store   = (*Store)(nil)
	_ catalog.Store = (*Store)(nil)
	_ sale.Store    = (*Store)(nil)
	_ outbox.Queue  = (*Store)(nil)
	_ lease.Leases  = (*Store)(nil)
)

// Options of a store; zero values are the defaults.
type Options struct {
	Log     *slog.Logger  // nil: discarded
	Readers int           // connections for reading, ≥ 1; default 4, on a server 8
	Writers int           // connections for writing on a server, ≥ 1; default 16
	Busy    time.Duration // how long to wait for another process that holds the SQLite database; default 5 s
}

func (o *Options) defaults(readers int) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Readers = max(cmp.Or(o.Readers, readers), 1)
	o.Writers = max(cmp.Or(o.Writers, 16), 1)
	if o.Busy <= 0 {
		o.Busy = 5 * time.Second
	}
}

// Open opens the SQLite database at path, creating it and bringing its layout
// up to date when needed. It fails when another process holds the database for
// longer than Busy, and when the file is not a database or was written by a
// newer version of this program.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	o.defaults(4)
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	p, err := sqlitePlace(path, o)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	return open(ctx, p, o)
}

// OpenServer opens a database on a MariaDB, MySQL or TiDB server and brings its
// layout up to date; the database itself has to be there. The address is
//
//	mysql://user:password@host:3306/database?readers=8&writers=16&tls=true&readTimeout=15s&replica=host2:3306&maxlag=1s
//
// where readers and writers bound the pools, replica, up to 8 times, names a
// server that follows the first, or may come to be followed by it, maxlag is how
// old what a replica shows may be (0.5 s to 1 m, 1 s when it is not said), and
// the rest goes to the driver. No error and no log line shows the password.
func OpenServer(ctx context.Context, address string, o Options) (*Store, error) {
	o.defaults(8)
	p, err := mysqlPlace(address, o)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return open(ctx, p, o)
}

func open(ctx context.Context, p *place, o Options) (*Store, error) {
	if p.members != nil {
		primary, err := p.members.find(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("store %s: %w", p.name, err), p.members.close())
		}
		p.plain = primary.plain
	}
	if err := migrate(ctx, p, o.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", p.name, err), p.members.close())
	}
	write, read := connector{p.write, p.dialect, p.members}, connector{p.read, p.dialect, p.members}
	s := &Store{d: p.dialect, write: newWriter(p.poolOf(write, p.writers), p.dialect), read: p.poolOf(read, p.readers), ckpt: new(int64), orders: plainOrders}
	if p.checkpoint != "" {
		s.upkeep = p.pool(p.write, 1)
	}
	if p.members != nil {
		s.replicas = newReplicas(p.members, p.maxLag) // from here on Close closes them
	}
	err := s.Ping(ctx)
	if err == nil && p.members != nil {
		err = s.writing(ctx, "begin the first term", func(c *conn) error { _, err := c.exec(beginTerm); return err })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", p.name, err), s.Close())
	}
	return s, nil
}

// migrate applies what is missing of the layout.
func migrate(ctx context.Context, p *place, log *slog.Logger) error {
	files, err := p.layout()
	if err != nil {
		return err
	}
	db := sql.OpenDB(p.plain)
	defer db.Close()
	db.SetMaxOpenConns(1)
	if p.lock != "" {
		db.SetMaxOpenConns(2) // one has the lock
		release, err := lockLayout(ctx, db, p.dialect)
		if err != nil {
			return fmt.Errorf("migrations: %w", err)
		}
		defer release()
	}
	m, err := goose.NewProvider(p.goose, db, files, goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := m.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if have > want {
		return fmt.Errorf("its layout is version %d and this program knows up to %d: run the newer program, or restore a backup", have, want)
	}
	done, err := m.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	for _, m := range done {
		log.Info("store migrated", "version", m.Source.Version, "took", m.Duration)
	}
	return nil
}

// lockLayout keeps other processes from changing the layout. The lock ends with
// its connection at the latest.
func lockLayout(ctx context.Context, db *sql.DB, d *dialect) (release func(), err error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	var got sql.NullInt64
	if err = c.QueryRowContext(ctx, d.lock).Scan(&got); err == nil && got.Int64 != 1 {
		err = errors.New("another process has been changing the layout for a minute")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return func() {
		_, _ = c.ExecContext(context.WithoutCancel(ctx), d.unlock)
		_ = c.Close()
	}, nil
}

// Close waits for the writes under way and closes the database. Later calls
// answer ErrClosed or the driver's error.
func (s *Store) Close() error {
	s.write.drain()
	// The writer's connection goes last: the last one to leave moves SQLite's log
	// into the database, which a read-only one may not.
	errs := []error{s.read.Close()}
	if s.upkeep != nil {
		errs = append(errs, s.upkeep.Close())
	}
	if s.replicas != nil {
		errs = append(errs, s.replicas.close())
	}
	return errors.Join(append(errs, s.write.db.Close())...)
}

// errReadOnly: the server reads and does not write, as a replica does.
var errReadOnly = errors.New("the server is read-only")

// Ping says whether the store can be read and still accepts writes. It does
// not write.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.write.health(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return s.reading(ctx, "ping", func(c *conn) error {
		row, _, err := c.one(s.d.accepts)
		if err == nil && text(row[0]) != "ON" {
			err = errReadOnly
		}
		return err
	})
}

// Checkpoint is a Step that moves committed pages from SQLite's log into the
// database, beside the writer, so that a commit seldom has to: a commit that
// does takes many times as long. worked says that pages were moved. Run it
// every 100 ms or so, from one goroutine; nothing breaks when it does not run.
// On a server there is nothing to do.
func (s *Store) Checkpoint(ctx context.Context) (worked bool, err error) {
	if s.upkeep == nil {
		return false, nil
	}
	err = onConn(ctx, s.upkeep, func(c *conn) error {
		row, _, err := c.one(s.d.checkpoint)
		if err != nil {
			return err
		}
		// Pages that the others are still reading stay where they are.
		moved := integer(row[2]) // busy, pages in the log, pages moved
		worked = moved != *s.ckpt && moved > 0
		*s.ckpt = moved
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("store: checkpoint: %w", err)
	}
	return worked, nil
}

// Stats of the writer: Writes / Commits is how many callers share a commit.
type Stats struct {
	Writes, Commits uint64 // since the store was opened
	Retries         uint64 // transactions that a server made us run again
	Queued          int    // writes waiting now; on a server, those under way too
}

// Stats never waits for the database.
func (s *Store) Stats() Stats {
	w := s.write
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{w.writes.Load(), w.commits.Load(), w.retries.Load(), len(w.queue) + w.under}
}

// reading runs f on a connection of the read pool, or of the replica that this
// view reads.
func (s *Store) reading(ctx context.Context, what string, f func(c *conn) error) error {
	db := s.read
	if s.near != nil {
		db = s.near.read
	}
	err := onConn(ctx, db, f)
	if err == nil {
		return nil
	}
	if s.near != nil && lost(err) {
		s.replicas.failed(s.near, err)
	}
	return failed(what, err)
}

// failed names the operation. A store that is away answers stock.ErrUnknown:
// whether a commit that failed has happened is found out by asking again.
func failed(what string, err error) error {
	if away(err) {
		return fmt.Errorf("store: %s: %w: %w", what, stock.ErrUnknown, err)
	}
	return fmt.Errorf("store: %s: %w", what, err)
}

// writing runs f as one durable transaction, see writer.do.
func (s *Store) writing(ctx context.Context, what string, f func(c *conn) error) error {
	if err := s.do(ctx, f); err != nil {
		return failed(what, err)
	}
	return nil
}
