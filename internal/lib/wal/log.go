// Package wal is an append log for one writer: records of bytes, numbered
// 1, 2, 3, … without gaps, in preallocated and checksummed segment files, made
// durable a batch at a time (group commit).
//
// It owns the directory it is given; locking that against another process is
// the caller's. It starts no goroutines: Commit and Prepare are steps of
// somebody's task.
//
// Invariants: a record that Commit reported durable is there after any crash
// or power cut, unchanged, or Open refuses; readers see only durable records;
// after a failed write or sync nothing is accepted any more, and the sync is
// never tried again, because the kernel may already have dropped the data.
//
// It refuses to know what a record means, and to repair acknowledged data.
// DESIGN.md tells the format and the reasoning.
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
)

var (
	// ErrFull: MaxStaged bytes wait for a commit; nothing was staged.
	ErrFull = errors.New("wal: too much is staged")
	// ErrTooLarge: a record exceeds MaxRecord; nothing was staged.
	ErrTooLarge = errors.New("wal: record too large")
	// ErrFailed: a write or sync failed earlier and the log accepts nothing
	// until it is opened again. Durable records can still be read.
	ErrFailed = errors.New("wal: log failed")
	// ErrNoRoom: the next segment could not be prepared (a full disk, mostly).
	// Nothing was promised or lost; the same call may be made again.
	ErrNoRoom = errors.New("wal: cannot prepare the next segment")
	// ErrTruncated: the records asked for were trimmed.
	ErrTruncated = errors.New("wal: records before the start of the log")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("wal: closed")
	// ErrVersion: a segment was written in a format this release does not know.
	ErrVersion = errors.New("wal: unknown format version")
	// ErrCorrupt: acknowledged records are damaged or missing; see CorruptError.
	ErrCorrupt = errors.New("wal: corrupt")
)

// CorruptError says where acknowledged records are damaged or missing and what
// a person can do about it. It wraps ErrCorrupt.
type CorruptError struct {
	Segment string `json:"segment"` // path of the file
	Offset  int64  `json:"offset"`  // bytes from its start
	Seq     uint64 `json:"seq"`     // the first record that cannot be had
	Reason  string `json:"reason"`
	Remedy  string `json:"remedy"`
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: %s at offset %d (record %d): %s; %s",
		ErrCorrupt, e.Segment, e.Offset, e.Seq, e.Reason, e.Remedy)
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// Options bound a log. Zero fields take the defaults.
type Options struct {
	SegmentSize int64 // bytes of a segment file, at most 4 GiB; default 64 MiB
	MaxStaged   int   // bytes waiting for a commit; default 64 MiB. Two such buffers exist: one fills while the other is written
	MaxRecord   int   // bytes of one record, at most 1 GiB; default 1 MiB
}

func (o Options) withDefaults() (Options, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.MaxStaged == 0 {
		o.MaxStaged = 64 << 20
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = 1 << 20
	}
	need := o.MaxRecord + binary.MaxVarintLen32
	switch {
	case o.MaxRecord < 0 || o.MaxRecord > 1<<30:
		return o, fmt.Errorf("wal: MaxRecord %d is not within 1..%d", o.MaxRecord, 1<<30)
	case o.MaxStaged < need:
		return o, fmt.Errorf("wal: MaxStaged %d cannot take one record of %d bytes", o.MaxStaged, o.MaxRecord)
	case o.SegmentSize > maxSegmentSize:
		return o, fmt.Errorf("wal: SegmentSize %d exceeds %d", o.SegmentSize, int64(maxSegmentSize))
	case o.SegmentSize < int64(segmentHeaderSize+frameHeaderSize+need):
		return o, fmt.Errorf("wal: SegmentSize %d cannot take one record of %d bytes", o.SegmentSize, o.MaxRecord)
	}
	return o, nil
}

// maxPayload is the most a frame may carry, in bytes.
func (o Options) maxPayload() int {
	n := max(frameTarget, o.MaxRecord+binary.MaxVarintLen32)
	return int(min(int64(n), o.SegmentSize-segmentHeaderSize-frameHeaderSize))
}

// Log is an open log. All methods are safe for concurrent use.
type Log struct {
	fsys FS
	dir  string
	opt  Options

	durable atomic.Uint64 // last durable sequence number

	mu     sync.Mutex // held for a few instructions: Stage runs inside its caller's lock
	in     batch      // being staged
	staged uint64     // last sequence number handed out
	err    error      // ErrFailed with its cause, or ErrClosed

	commit sync.Mutex // the one committer
	out    batch      // being written
	mark   *mark

	prep  sync.Mutex // the segment being prepared
	spare File       // nil before its first piece
	ready int64      // bytes of spare that are zero and durable

	trim sync.Mutex // one trimmer

	segMu sync.Mutex // the list, and of each segment its end, last, index and refs
	segs  []*segment // in order; the last one is active; empty once closed

	windows sync.Pool // *window, for readers
}

// batch is a run of staged records in the form of a frame's payload, behind
// room for a frame header.
type batch struct {
	buf   []byte
	pos   int    // where the records not yet durable start
	next  uint64 // the sequence number that stands there
	until uint64 // the one behind the last record; set for writing
}

// reset forgets the records and keeps the memory.
func (b *batch) reset(next uint64) {
	if b.buf == nil {
		b.buf = make([]byte, frameHeaderSize, 4096)
	}
	b.buf, b.pos, b.next = b.buf[:frameHeaderSize], frameHeaderSize, next
}

func (b *batch) rest() []byte { return b.buf[b.pos:] }

// take returns the length in bytes and the number of the records at the front
// that fit into limit bytes.
func (b *batch) take(limit int) (n, count int) {
	if n = len(b.rest()); n <= limit {
		return n, int(b.until - b.next)
	}
	return takeRecords(b.rest(), limit)
}

// Stage copies rec into the staged batch and returns its sequence number. It
// does no I/O; the record is durable once Durable reaches the number. It fails
// with ErrTooLarge, ErrFull, ErrFailed or ErrClosed, and then uses no number.
func (l *Log) Stage(rec []byte) (seq uint64, err error) {
	if len(rec) > l.opt.MaxRecord {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(rec), l.opt.MaxRecord)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	if len(l.in.buf)-frameHeaderSize+binary.MaxVarintLen32+len(rec) > l.opt.MaxStaged {
		return 0, ErrFull
	}
	l.in.buf = append(binary.AppendUvarint(l.in.buf, uint64(len(rec))), rec...)
	l.staged++
	return l.staged, nil
}

// Durable is the last sequence number that survives a power cut, 0 in a new log.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Staged is the last sequence number handed out.
func (l *Log) Staged() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.staged
}

// First is the sequence number of the first record still in the log, or of the
// next one when there is none. It is 0 once the log is closed.
func (l *Log) First() uint64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if len(l.segs) == 0 {
		return 0
	}
	return l.segs[0].first
}

// Failed is nil, or ErrFailed wrapping what failed.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == ErrClosed {
		return nil
	}
	return l.err
}

// stopped is why nothing may be written any more, or nil.
func (l *Log) stopped() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// fail ends the log for good; the first cause stands.
func (l *Log) fail(cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fmt.Errorf("%w: %w", ErrFailed, cause)
	}
	return l.err
}

// Close makes the mark durable and lets go of the files. It commits nothing:
// what is staged and not committed was promised to nobody. Readers under way
// run to their end.
func (l *Log) Close() error {
	l.commit.Lock()
	defer l.commit.Unlock()
	l.prep.Lock()
	defer l.prep.Unlock()
	l.mu.Lock()
	closed := l.err == ErrClosed
	l.err = ErrClosed
	l.mu.Unlock()
	if closed {
		return nil
	}
	err := errors.Join(l.mark.file.Sync(), l.mark.file.Close(), l.dropSpare())
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for _, s := range l.segs {
		err = errors.Join(err, l.release(s))
	}
	l.segs = nil
	return err
}

// release gives up one hold on a segment; segMu is held.
func (l *Log) release(s *segment) error {
	if s.refs--; s.refs > 0 {
		return nil
	}
	return s.file.Close()
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
