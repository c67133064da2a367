package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/stock"
)

const (
	// maxQueued bounds the writes that wait for a commit; past it they are
	// refused, so that a slow disk never grows a queue.
	maxQueued = 8192
	// maxGroup bounds the writes of one commit, and so how long the first of
	// them waits for the last.
	maxGroup = 256
)

// writer is the only way to write. On a server, transactions run side by side
// and the server shares its syncs among them: see transaction.go. On SQLite a
// commit is a sync of the disk and there is one at a time, so concurrent writes
// share it: the first caller to find nobody leading leads. It runs everything
// that is queued in one transaction, each write in its own savepoint, commits,
// and hands the lead to the first caller that queued meanwhile. There is no
// goroutine of its own, and a lone caller waits for nobody.
type writer struct {
	db *sql.DB // one connection, unless side by side
	d  *dialect

	mu      sync.Mutex
	idle    sync.Cond // signalled when leading becomes false, or under way 0
	queue   []*write
	leading bool
	under   int // transactions under way or waiting for a connection
	closed  bool
	broken  error // after it, nothing is written: see fatal

	// patience is how long a write that a server made fail is tried again, counted
	// from its first failure; then its caller hears that the store is away.
	patience time.Duration

	writes, commits, retries atomic.Uint64
}

func newWriter(db *sql.DB, d *dialect) *writer {
	w := &writer{db: db, d: d, patience: patience}
	w.idle.L = &w.mu
	return w
}

// write is one caller's part of a group.
type write struct {
	run   func(c *conn) error
	err   error
	panic any
	woken chan bool // true: done, see err; false: you lead now
}

// do runs f in a transaction and returns once it is durable, or undone with
// f's error. f must not keep c, and must not assume that it runs once or on
// its caller's goroutine. ctx counts until f starts; from then on the answer
// is waited for, because a promise half kept is worse than a late one.
func (w *writer) do(ctx context.Context, f func(c *conn) error) error {
	if w.d.sideBySide {
		return w.alone(ctx, f)
	}
	me := &write{run: f, woken: make(chan bool, 1)}
	lead, err := w.enqueue(ctx, me)
	if err != nil {
		return err
	}
	if !lead {
		select {
		case done := <-me.woken:
			lead = !done
		case <-ctx.Done():
			if w.withdraw(me) {
				return ctx.Err()
			}
			lead = !<-me.woken
		}
	}
	if lead {
		w.lead(me)
	}
	if me.panic != nil {
		panic(me.panic) // where it belongs, not in the leader's goroutine
	}
	return me.err
}

func (w *writer) enqueue(ctx context.Context, me *write) (lead bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(ctx, len(w.queue)); err != nil {
		return false, err
	}
	w.queue = append(w.queue, me)
	lead = !w.leading
	w.leading = true
	return lead, nil
}

// admit says why another write cannot be taken, while so many wait.
func (w *writer) admit(ctx context.Context, waiting int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case w.closed:
		return ErrClosed
	case w.broken != nil:
		return fmt.Errorf("store stopped writing: %w", w.broken)
	case waiting >= maxQueued:
		return fmt.Errorf("%w: %d writes wait for the store", stock.ErrOverloaded, waiting)
	}
	return nil
}

// withdraw takes a write that has not started out of the queue. The first of
// the queue may have been given the lead, which it must then pass on by leading.
func (w *writer) withdraw(me *write) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(me.woken) > 0 {
		return false
	}
	for i, q := range w.queue {
		if q == me {
			w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
			return true
		}
	}
	return false
}

// lead commits one group, of which me is the first, and passes the lead on.
func (w *writer) lead(me *write) {
	w.mu.Lock()
	n := min(len(w.queue), maxGroup)
	group := w.queue[:n:n]
	w.queue = w.queue[n:]
	w.mu.Unlock()

	err := onConn(context.Background(), w.db, func(c *conn) error { return commitGroup(c, group) })

	w.writes.Add(uint64(len(group)))
	w.commits.Add(1)
	w.mu.Lock()
	if err != nil && fatal(err) {
		w.broken = err
	}
	if len(w.queue) > 0 {
		w.queue[0].woken <- false
	} else {
		w.queue, w.leading = nil, false
		w.idle.Broadcast()
	}
	w.mu.Unlock()
	for _, q := range group {
		if err != nil {
			// Also for those that had refused: they may have refused by what
			// another of the group wrote, and that is undone now.
			q.err = err
		}
		if q != me {
			q.woken <- true
		}
	}
}

// commitGroup runs the group in one transaction. An error is the whole
// group's; that of a single write is in the write.
func commitGroup(c *conn, group []*write) error {
	if _, err := c.exec(c.d.beginWrite); err != nil {
		_, _ = c.exec("ROLLBACK") // of one that an earlier failure left open
		return fmt.Errorf("begin: %w", err)
	}
	wrote := 0
	for _, q := range group {
		ok, err := runOne(c, q, len(group) == 1)
		if err != nil {
			_, _ = c.exec("ROLLBACK") // fails when the database already did
			return fmt.Errorf("undo of a failed write: %w", err)
		}
		if ok {
			wrote++
		}
	}
	if wrote == 0 {
		if _, err := c.exec("ROLLBACK"); err != nil && len(group) > 1 {
			return fmt.Errorf("rollback: %w", err)
		}
		return nil
	}
	if _, err := c.exec("COMMIT"); err != nil {
		_, _ = c.exec("ROLLBACK")
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// runOne runs one write. What it did is undone when it fails: by its
// savepoint, or, for a write alone, by the rollback of its transaction.
func runOne(c *conn, q *write, alone bool) (ok bool, err error) {
	if !alone {
		if _, err := c.exec("SAVEPOINT one"); err != nil {
			return false, err
		}
	}
	func() {
		defer func() { q.panic = recover() }()
		q.err = q.run(c)
	}()
	ok = q.err == nil && q.panic == nil
	if alone {
		return ok, nil
	}
	if !ok {
		if _, err := c.exec("ROLLBACK TO one"); err != nil {
			return false, err
		}
	}
	_, err = c.exec("RELEASE one")
	return ok, err
}

// drain refuses further writes and waits for those that were taken.
func (w *writer) drain() {
	w.mu.Lock()
	w.closed = true
	for w.leading || w.under > 0 {
		w.idle.Wait()
	}
	w.mu.Unlock()
}

// health is the error that stopped writing, if any.
func (w *writer) health() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	return w.broken
}
