package walstock

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"sluice/internal/lib/wal"
	"sluice/internal/stock"
)

// Commit is the committer's step: it syncs the open batch and answers its
// waiters. One caller at a time.
func (l *Ledger) Commit(context.Context) (worked bool, err error) {
	l.gather()
	l.mu.Lock()
	b := l.open
	if b.count == 0 || l.failed != nil {
		l.mu.Unlock()
		return false, nil
	}
	l.open, l.syncing = newBatch(), b
	// The counts are taken now, at the end of this batch, and shown when it is durable.
	type shot struct {
		acc    *account
		counts stock.Counts
		rules  stock.Allocation
		items  []stock.Item
	}
	shots := make([]shot, len(b.dirty))
	for i, acc := range b.dirty {
		acc.dirty = false
		shots[i] = shot{acc, acc.book.Counts(), acc.book.Allocation(), acc.book.Items()}
	}
	position := l.log.Staged()
	l.mu.Unlock()

	_, err = l.log.Commit()

	l.mu.Lock()
	l.syncing = nil
	if errors.Is(err, wal.ErrNoRoom) {
		l.postpone(err, b)
		l.mu.Unlock()
		return true, err
	}
	if err != nil {
		err = l.fail(err, b)
		l.mu.Unlock()
		return true, err
	}
	l.full, l.shown = nil, position
	for _, s := range shots {
		s.counts.Position = stock.Cursor{Log: LogID, Epoch: Epoch, Position: position}
		s.acc.face.Publish(s.counts, s.rules, s.items)
	}
	l.mu.Unlock()
	close(b.done)
	signal(l.advanced)
	return true, nil
}

// gather lets requests that can run now join the batch before it is synced:
// without it, a committer woken by the first would sync batches of one when
// there is one processor.
func (l *Ledger) gather() {
	before := -1
	for range 8 {
		l.mu.Lock()
		count := l.open.count
		l.mu.Unlock()
		if count == before {
			return
		}
		before = count
		runtime.Gosched()
	}
}

// postpone answers the waiters of a batch that found no room on the disk. Its
// entries stay staged: the next commit takes them up, and then the same keys
// find out. Until then nothing new is taken.
func (l *Ledger) postpone(cause error, b *batch) {
	l.full = cause
	b.fail(cause)
	l.open.count += b.count
	for _, acc := range b.dirty {
		if !acc.dirty {
			acc.dirty = true
			l.open.dirty = append(l.open.dirty, acc)
		}
	}
}

// Prepare is the step that makes the log's next segment ready beside the
// commits, so that none of them waits for it.
func (l *Ledger) Prepare(context.Context) (worked bool, err error) { return l.log.Prepare() }

// fail stops the ledger for good and answers those who wait for b or the open batch.
func (l *Ledger) fail(cause error, b *batch) error {
	l.failed = fmt.Errorf("log: %w", cause)
	l.o.Log.Error("the ledger stopped accepting: its log cannot be written; restart the server after the disk is healthy", "error", cause)
	b.fail(cause)
	if l.open != b {
		l.open.fail(cause)
	}
	l.open = newBatch()
	return l.failed
}

// Failed is why the ledger stopped accepting for good, or nil.
func (l *Ledger) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Full is why the ledger accepts nothing for now, or nil.
func (l *Ledger) Full() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

func (b *batch) fail(cause error) {
	b.err = fmt.Errorf("%w: %w", stock.ErrUnknown, cause)
	close(b.done)
}

func (acc *account) publish(position uint64) {
	counts := acc.book.Counts()
	counts.Position = stock.Cursor{Log: LogID, Epoch: Epoch, Position: position}
	acc.face.Publish(counts, acc.book.Allocation(), acc.book.Items())
}

func failedBatch(cause error) *batch {
	b := newBatch()
	b.fail(cause)
	return b
}
