// Package sqlstore keeps orders, products, activities and the outbox in one
// SQL database; today that is SQLite, and sqlite.go is all that knows it.
//
// Invariants: every write is one transaction and durable when it returns nil
// (state, its events and the landing watermark together); writes have one
// order, given by a single writer that shares each commit among its callers;
// outbox message ids ascend in that order and are never used again. Reads see
// committed rows only and never wait for the writer.
//
// Bounds: the write queue, the read pool and every page are bounded; past the
// first, stock.ErrOverloaded. It refuses business rules: what an order or an
// activity may become is decided by the callbacks it is given.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"

	"sluice/internal/stock"

	"sluice/internal/catalog"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/sale"
)

// ErrClosed: the store was closed.
var ErrClosed = errors.New("store is closed")

// Store is one database. Safe for concurrent use.
type Store struct {
	write  *writer
	read   *sql.DB
	upkeep *sql.DB
	ckpt   int64 // of the last Checkpoint, see there
}

var (
	_ order.Store   = (*Store)(nil)
	_ catalog.Store = (*Store)(nil)
	_ sale.Store    = (*Store)(nil)
	_ outbox.Queue  = (*Store)(nil)
)

// Options of a store; zero values are the defaults.
type Options struct {
	Log     *slog.Logger  // nil: discarded
	Readers int           // connections for reading, ≥ 1; default 4
	Busy    time.Duration // how long to wait for another process that holds the database; default 5 s
}

// Open opens the database at path, creating it and bringing its layout up to
// date when needed. It fails when another process holds the database for
// longer than Busy, and when the file is not a database or was written by a
// newer version of this program.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Readers < 1 {
		o.Readers = 4
	}
	if o.Busy <= 0 {
		o.Busy = 5 * time.Second
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	busy := strconv.FormatInt(o.Busy.Milliseconds(), 10)
	if err := migrate(ctx, sqliteDSN(path, busy, false), o.Log); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	w, err := openPool(sqliteDSN(path, busy, false), 1)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	r, err := openPool(sqliteDSN(path, busy, true), o.Readers)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), w.Close())
	}
	u, err := openPool(sqliteDSN(path, busy, false), 1)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), w.Close(), r.Close())
	}
	s := &Store{write: newWriter(w), read: r, upkeep: u}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), s.Close())
	}
	return s, nil
}

// migrate applies what is missing of the layout.
func migrate(ctx context.Context, dsn string, log *slog.Logger) error {
	db, files, err := migrationPool(dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	p, err := goose.NewProvider(gooseDialect, db, files,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if have > want {
		return fmt.Errorf("its layout is version %d and this program knows up to %d: run the newer program, or restore a backup", have, want)
	}
	done, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	for _, m := range done {
		log.Info("store migrated", "version", m.Source.Version, "took", m.Duration)
	}
	return nil
}

// Close waits for the writes under way and closes the database. Later calls
// answer ErrClosed or the driver's error.
func (s *Store) Close() error {
	s.write.drain()
	// The writer's connection goes last: the last one to leave moves the log
	// into the database, which a read-only one may not.
	return errors.Join(s.read.Close(), s.upkeep.Close(), s.write.db.Close())
}

// Ping says whether the store can be read and still accepts writes. It does
// not write.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.write.health(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return s.reading(ctx, "ping", func(c *conn) error {
		_, _, err := c.one("SELECT 1")
		return err
	})
}

// Checkpoint is a Step that moves committed pages from SQLite's log into the
// database, beside the writer, so that a commit seldom has to: a commit that
// does takes many times as long. worked says that pages were moved. Run it
// every 100 ms or so, from one goroutine; nothing breaks when it does not run.
func (s *Store) Checkpoint(ctx context.Context) (worked bool, err error) {
	err = onConn(ctx, s.upkeep, func(c *conn) error {
		moved, err := checkpoint(c)
		worked = moved != s.ckpt && moved > 0
		s.ckpt = moved
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store: checkpoint: %w", err)
	}
	return worked, nil
}

// Stats of the writer: Writes / Commits is how many callers share a commit.
type Stats struct {
	Writes, Commits uint64 // since the store was opened
	Queued          int    // writes waiting now
}

// Stats never waits for the database.
func (s *Store) Stats() Stats {
	s.write.mu.Lock()
	defer s.write.mu.Unlock()
	return Stats{s.write.writes.Load(), s.write.commits.Load(), len(s.write.queue)}
}

// reading runs f on a connection of the read pool.
func (s *Store) reading(ctx context.Context, what string, f func(c *conn) error) error {
	if err := onConn(ctx, s.read, f); err != nil {
		return failed(what, err)
	}
	return nil
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
	if err := s.write.do(ctx, f); err != nil {
		return failed(what, err)
	}
	return nil
}
