// Package walstock is the embedded ledger: a stock.Book for each activity in
// memory and one write-ahead log on the local disk. It owns durability and
// visibility, and no rule of its own.
//
// One operation is: lock, apply to the book, stage the entry, unlock, wait
// until the committer has synced it. Applying and syncing are apart, so that a
// batch fills while the one before it is being synced.
//
// Invariants: an answer never rests on an entry that is not durable; after a
// failed write or sync nothing is accepted any more and the waiters get
// stock.ErrUnknown; snapshots never reach past what consumers have taken.
package walstock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"sluice/internal/lib/wal"
	"sluice/internal/stock"
)

// LogID is the name of the one log, Epoch its epoch: an embedded ledger is the
// only authority there has ever been.
const (
	LogID stock.LogID = "wal"
	Epoch uint32      = 1
)

// maxEntry bounds an encoded entry: an allocation of stock.MaxItems is the
// largest, about 30 kB.
const maxEntry = 64 << 10

// Options bound the ledger. Zero fields take the defaults.
type Options struct {
	FS          wal.FS       // default the operating system's
	Log         *slog.Logger // default slog.Default()
	MaxWaiting  int          // operations waiting for a sync, default 65,536; more are refused
	MaxBacklog  uint64       // entries not yet trimmed by their consumers, default 20 million; more are refused
	SegmentSize int64        // bytes, default 64 MiB
	SnapshotAt  uint64       // entries that a new snapshot must save from replay, default 500,000
	KeepLog     int64        // bytes of log kept for the trails of activities that are not released, see Release; 0: none

	// Visit, optional, is called at opening with each reservation found.
	Visit func(*stock.Reservation)
}

// Ledger implements stock.Ledger and stock.Log.
type Ledger struct {
	o     Options
	dir   string
	log   *wal.Log
	board *stock.Board
	last  stock.Millis // latest time in the log when it was opened

	mu      sync.Mutex
	books   map[stock.ActivityID]*account
	open    *batch // being filled
	syncing *batch // being synced, nil if none
	failed  error
	full    error // the log has no room: nothing new is taken until a commit succeeds
	encoded []byte
	shown   uint64 // log position up to which the board shows everything

	waiting  atomic.Int64
	wake     chan struct{} // tells the committer that the open batch has an entry
	advanced chan struct{} // tells one consumer that the durable head has moved

	compaction sync.Mutex
	trimmed    atomic.Uint64 // every consumer has taken up to here
	snapshot   atomic.Uint64 // position of the newest snapshot
	searched   bool          // the log was searched for first entries; guarded by compaction
	lost       []stock.ActivityID
}

// account is a book with its place in the log. Guarded by Ledger.mu.
type account struct {
	book  *stock.Book
	face  *stock.Face
	last  uint64 // log position of its newest entry, durable or not
	dirty bool   // has entries in the open batch

	first    uint64 // log position of its first entry; 0: not known, or no longer in the log
	released bool   // nobody needs its entries for what they tell
}

// batch is a group of operations that wait for the same sync.
type batch struct {
	done  chan struct{}
	err   error
	count int
	dirty []*account
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

var (
	_ stock.Ledger = (*Ledger)(nil)
	_ stock.Log    = (*Ledger)(nil)
)

// Open recovers the ledger in dir: the newest snapshot, then the log after it.
func Open(dir string, o Options) (*Ledger, error) {
	if o.FS == nil {
		o.FS = wal.OS()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.MaxWaiting = orDefault(o.MaxWaiting, 65_536)
	o.MaxBacklog = orDefault(o.MaxBacklog, 20_000_000)
	o.SnapshotAt = orDefault(o.SnapshotAt, 500_000)
	o.SegmentSize = orDefault(o.SegmentSize, 64<<20)
	l := &Ledger{
		o: o, dir: dir, board: stock.NewBoard(), books: map[stock.ActivityID]*account{}, open: newBatch(),
		wake: make(chan struct{}, 1), advanced: make(chan struct{}, 1),
	}
	var err error
	// A full house of waiters with entries of the largest size fits the staged bound.
	if l.log, err = wal.Open(o.FS, dir, wal.Options{SegmentSize: o.SegmentSize, MaxRecord: maxEntry, MaxStaged: 1 << 30}); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	state, err := l.replayTo(l.log.Durable())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: %w", err), l.log.Close())
	}
	l.shown = l.log.Durable()
	for activity, book := range state.books {
		acc := &account{book: book, face: l.board.Post(activity), last: l.log.Durable()}
		book.Reservations(func(r *stock.Reservation) bool {
			acc.face.Holder(r.User)
			if o.Visit != nil {
				o.Visit(r)
			}
			return true
		})
		l.books[activity] = acc
		l.last = max(l.last, book.Last())
		acc.publish(l.log.Durable())
	}
	return l, nil
}

func orDefault[T int | int64 | uint64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Close syncs what is staged and closes the log. Nothing may call it any more.
func (l *Ledger) Close() error {
	_, err := l.Commit(context.Background())
	return errors.Join(err, l.log.Close())
}

// Board is the lock-free face of the ledger.
func (l *Ledger) Board() *stock.Board { return l.board }

// Last is the latest time found in the log at opening; the clock starts no earlier.
func (l *Ledger) Last() stock.Millis { return l.last }

// Wake is ready when Commit has work.
func (l *Ledger) Wake() <-chan struct{} { return l.wake }

// Advanced is ready when the durable head has moved since it was last read.
func (l *Ledger) Advanced() <-chan struct{} { return l.advanced }

// Head is the durable end of the log.
func (l *Ledger) Head() stock.Cursor {
	return stock.Cursor{Log: LogID, Epoch: Epoch, Position: l.log.Durable()}
}

// Open implements stock.Ledger.
func (l *Ledger) Open(ctx context.Context, a stock.Allocation) error {
	a.Epoch = Epoch
	l.mu.Lock()
	if acc := l.books[a.Activity]; acc != nil {
		err := acc.book.Reopen(a)
		return l.answer(ctx, acc, nil, err)
	}
	if err := l.room(); err != nil {
		l.mu.Unlock()
		return err
	}
	book, e, err := stock.NewBook(a)
	if err != nil {
		l.mu.Unlock()
		return err
	}
	acc := &account{book: book, face: l.board.Post(a.Activity)}
	l.books[e.Activity] = acc
	return l.answer(ctx, acc, &e, nil)
}

// Adjust implements stock.Ledger.
func (l *Ledger) Adjust(ctx context.Context, a stock.Adjustment) error {
	acc, err := l.enter(a.Activity)
	if err != nil {
		return err
	}
	e, err := acc.book.Adjust(a)
	return l.answer(ctx, acc, e, err)
}

// Reserve implements stock.Ledger. The strings of r need to live only as long
// as the call.
func (l *Ledger) Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error) {
	acc, err := l.enter(r.Activity)
	if err != nil {
		return stock.Receipt{}, err
	}
	rec, e, err := acc.book.Reserve(&r)
	var receipt stock.Receipt
	if rec != nil {
		receipt = stock.Receipt{Reservation: rec.Reservation, Replayed: e == nil}
		acc.face.Holder(rec.User)
	}
	if err := l.answer(ctx, acc, e, err); err != nil {
		return stock.Receipt{}, err
	}
	return receipt, nil
}

// Settle implements stock.Ledger.
func (l *Ledger) Settle(ctx context.Context, s stock.Settlement) (stock.Outcome, error) {
	acc, err := l.enter(s.ID.Activity)
	if err != nil {
		return 0, err
	}
	outcome, e, refusal := acc.book.Settle(s)
	if err := l.answer(ctx, acc, e, refusal); err != nil && !errors.Is(err, stock.ErrOutcome) {
		return 0, err
	}
	return outcome, refusal
}

// Lookup implements stock.Ledger.
func (l *Ledger) Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	l.mu.Lock()
	acc, rec := l.find(ref)
	if rec == nil {
		l.mu.Unlock()
		return stock.Receipt{}, stock.ErrNoSuchReservation
	}
	receipt := stock.Receipt{Reservation: rec.Reservation, Replayed: true}
	if err := l.answer(ctx, acc, nil, nil); err != nil {
		return stock.Receipt{}, err
	}
	return receipt, nil
}

func (l *Ledger) find(ref stock.Ref) (*account, *stock.Record) {
	if ref.ID != (stock.ID{}) {
		if acc := l.books[ref.ID.Activity]; acc != nil {
			if rec, err := acc.book.Find(ref.ID); err == nil {
				return acc, rec
			}
		}
		return nil, nil
	}
	if ref.Activity != "" {
		if acc := l.books[ref.Activity]; acc != nil && (ref.Key != "" || ref.Order != "") {
			if rec, err := acc.book.Lookup(ref.User, ref.Key, ref.Order); err == nil {
				return acc, rec
			}
		}
		return nil, nil
	}
	if ref.Order == "" {
		return nil, nil
	}
	for _, acc := range l.books {
		if !acc.face.Holds(ref.User) {
			continue
		}
		if rec, err := acc.book.Lookup(ref.User, "", ref.Order); err == nil {
			return acc, rec
		}
	}
	return nil, nil
}

// Counts implements stock.Ledger: the durable counts, as published.
func (l *Ledger) Counts(_ context.Context, activity stock.ActivityID) (stock.Counts, error) {
	if f := l.board.Face(activity); f != nil {
		if c, ok := f.Counts(); ok {
			return c, nil
		}
	}
	return stock.Counts{}, stock.ErrNoSuchActivity
}

// enter locks the ledger for one operation on an activity's book. The caller
// leaves through answer; after an error the lock is not held.
func (l *Ledger) enter(activity stock.ActivityID) (*account, error) {
	l.mu.Lock()
	if err := l.room(); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	acc := l.books[activity]
	if acc == nil {
		l.mu.Unlock()
		return nil, stock.ErrNoSuchActivity
	}
	return acc, nil
}

// room refuses before anything is changed.
func (l *Ledger) room() error {
	switch {
	case l.failed != nil:
		return fmt.Errorf("%w: %w", stock.ErrNotReady, l.failed)
	case l.full != nil:
		return fmt.Errorf("%w: %w", stock.ErrOverloaded, l.full)
	case l.waiting.Load() >= int64(l.o.MaxWaiting):
		return fmt.Errorf("%w: %d operations wait for the log", stock.ErrOverloaded, l.o.MaxWaiting)
	case l.log.Staged()-max(l.trimmed.Load(), l.log.First()-1) >= l.o.MaxBacklog:
		return fmt.Errorf("%w: %d log entries wait for landing", stock.ErrOverloaded, l.o.MaxBacklog)
	}
	return nil
}

// answer stages e if there is one, unlocks, waits until everything that the
// answer rests on is durable, and returns refusal or stock.ErrUnknown.
func (l *Ledger) answer(ctx context.Context, acc *account, e *stock.Entry, refusal error) error {
	b := l.stage(acc, e)
	if b == nil {
		l.mu.Unlock()
		return refusal
	}
	l.waiting.Add(1)
	l.mu.Unlock()
	var err error
	select {
	case <-b.done:
		err = b.err
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", stock.ErrUnknown, ctx.Err())
	}
	l.waiting.Add(-1)
	if err != nil {
		return err
	}
	return refusal
}

// stage puts e into the open batch and answers the batch to wait for, or nil
// when all that the account shows is durable already.
func (l *Ledger) stage(acc *account, e *stock.Entry) *batch {
	if e == nil {
		switch {
		case acc.last <= l.shown: // synced is not enough: the board would refuse by older counts
			return nil
		case l.failed != nil:
			return failedBatch(l.failed)
		case acc.dirty:
			return l.open
		default:
			return l.syncing
		}
	}
	l.encoded = stock.AppendEntry(l.encoded[:0], e)
	position, err := l.log.Stage(l.encoded)
	if err != nil {
		// The book is ahead of the log now, so nothing may be built on it.
		acc.last = ^uint64(0)
		return failedBatch(l.fail(err, l.open))
	}
	acc.last = position
	if e.Kind == stock.EntryOpened {
		acc.first = position
	}
	if !acc.dirty {
		acc.dirty = true
		l.open.dirty = append(l.open.dirty, acc)
	}
	if l.open.count++; l.open.count == 1 {
		signal(l.wake)
	}
	return l.open
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
