package wal

import (
	"errors"
	"fmt"
	"os"
)

// Commit makes everything staged at the call durable and returns the last
// durable sequence number, also beside an error. Staging goes on meanwhile.
// With nothing staged it does no I/O. One caller at a time is intended; more
// of them take turns.
//
// The batch is one frame with one sync; it becomes several, each with its own
// sync, when it is larger than a frame may be or meets the end of a segment.
// So no more than one frame on disk is ever unsynced, which is what lets
// recovery tell a torn tail from damage.
//
// ErrNoRoom: what is left of the batch stays staged, and the next Commit takes
// it up again. Any other error is ErrFailed and final.
func (l *Log) Commit() (durable uint64, err error) {
	l.commit.Lock()
	defer l.commit.Unlock()
	if err := l.stopped(); err != nil {
		return l.Durable(), err
	}
	// What an earlier ErrNoRoom left comes before what was staged since.
	if err := l.write(); err != nil {
		return l.Durable(), err
	}
	l.mu.Lock()
	l.in, l.out = l.out, l.in
	l.in.reset(l.staged + 1)
	l.out.until = l.staged + 1
	l.mu.Unlock()
	err = l.write()
	return l.Durable(), err
}

// write makes what is in l.out durable.
func (l *Log) write() error {
	for len(l.out.rest()) > 0 {
		n, count := l.out.take(l.opt.maxPayload())
		active := l.active()
		if int64(n) > active.size-active.end-frameHeaderSize {
			if err := l.rotate(active); err != nil {
				return err
			}
			continue
		}
		if err := l.writeFrame(active, n, count); err != nil {
			return l.fail(err)
		}
	}
	return nil
}

// active is the segment that is written to. Only the committer changes it, so
// that the committer may look at it without segMu.
func (l *Log) active() *segment {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	return l.segs[len(l.segs)-1]
}

// writeFrame writes the next n bytes of l.out, which are count records.
func (l *Log) writeFrame(s *segment, n, count int) error {
	b := &l.out
	payload := b.buf[b.pos : b.pos+n]
	// The header goes right before the payload: into the room left at the front
	// of the buffer, or over records that are durable already.
	header := b.buf[b.pos-frameHeaderSize : b.pos]
	h := frameHeader{length: n, first: b.next, count: count}
	h.sum = putFrameHeader(header, payload, s.salt, h.first, count, s.chain)
	if _, err := s.file.WriteAt(b.buf[b.pos-frameHeaderSize:b.pos+n], s.end); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	b.pos += n
	b.next += uint64(count)

	// The mark first: a process killed after an acknowledgement has left it.
	err := l.mark.write(h.last())
	l.segMu.Lock()
	s.extend(s.end, h)
	l.durable.Store(s.last)
	l.segMu.Unlock()
	return err
}

// rotate puts a fresh segment behind the full one.
func (l *Log) rotate(full *segment) error {
	// Until the new segment is listed: a Prepare in between would find the old
	// one full and the name of the spare taken.
	l.prep.Lock()
	defer l.prep.Unlock()
	file, err := l.takeSpare()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	s, err := l.install(file, l.out.next, full.chain)
	if err != nil {
		return l.fail(errors.Join(err, file.Close()))
	}
	l.segMu.Lock()
	l.segs = append(l.segs, s)
	l.segMu.Unlock()
	return nil
}

// install turns a prepared file into the segment that starts with record
// first. The header is durable before the name is, and the name before any
// record: a segment found by recovery is proof that all before it was synced.
func (l *Log) install(file File, first uint64, chain uint32) (*segment, error) {
	b, salt := segmentHeader{segmentVersion, first, l.opt.SegmentSize, chain}.encode()
	if _, err := file.WriteAt(b[:], 0); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	name := segmentName(first)
	if err := l.fsys.Rename(l.path(spareName), l.path(name)); err != nil {
		return nil, err
	}
	if err := l.fsys.SyncDir(l.dir); err != nil {
		return nil, err
	}
	return &segment{
		name: name, file: file, salt: salt, size: l.opt.SegmentSize,
		first: first, last: first - 1, end: segmentHeaderSize, chain: chain, refs: 1,
	}, nil
}

// Prepare does one short step of work, at most 256 KiB written and synced,
// towards the next segment once the active one is half full, and says whether
// there was any. A task beside the committer should call it: a Commit that
// finds no segment ready does all the work itself and holds up its batch.
//
// An error (a full disk, mostly) touches nothing that was promised; while it
// lasts the owner does well to accept less. The next call starts afresh.
func (l *Log) Prepare() (worked bool, err error) {
	if err := l.stopped(); err != nil {
		return false, err
	}
	l.prep.Lock()
	defer l.prep.Unlock()
	if l.ready == l.opt.SegmentSize {
		return false, nil
	}
	l.segMu.Lock()
	due := false
	if n := len(l.segs); n > 0 {
		due = l.segs[n-1].end >= l.segs[n-1].size/2
	}
	l.segMu.Unlock()
	if !due {
		return false, nil
	}
	if err := l.preparePiece(); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return true, nil
}

// takeSpare finishes the spare segment and hands it over; prep is held, or
// the log is not open yet.
func (l *Log) takeSpare() (File, error) {
	for l.ready < l.opt.SegmentSize {
		if err := l.preparePiece(); err != nil {
			return nil, err
		}
	}
	file := l.spare
	l.spare, l.ready = nil, 0
	return file, nil
}

// preparePiece writes zeros over the next piece of the spare and syncs it; prep
// is held. After an error the spare is thrown away: a sync that failed once
// says nothing true when repeated on the same file.
func (l *Log) preparePiece() (err error) {
	if l.spare == nil {
		// How much of one that an earlier process left was synced is not known.
		l.spare, err = l.fsys.OpenFile(l.path(spareName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
	}
	n := min(int64(len(zeros)), l.opt.SegmentSize-l.ready)
	if _, err = l.spare.WriteAt(zeros[:n], l.ready); err == nil {
		err = l.spare.Sync()
	}
	if err != nil {
		return errors.Join(err, l.dropSpare())
	}
	l.ready += n
	return nil
}

// dropSpare removes what was prepared; prep is held.
func (l *Log) dropSpare() error {
	if l.spare == nil {
		return nil
	}
	file := l.spare
	l.spare, l.ready = nil, 0
	return errors.Join(file.Close(), l.fsys.Remove(l.path(spareName)))
}

// TrimBefore removes the whole segments all of whose records are < seq, never
// the active one. Readers under way keep what they started on. An error other
// than ErrFailed leaves the rest for another call.
func (l *Log) TrimBefore(seq uint64) error {
	l.trim.Lock()
	defer l.trim.Unlock()
	for {
		if err := l.stopped(); err != nil {
			return err
		}
		l.segMu.Lock()
		if len(l.segs) < 2 || l.segs[1].first > seq {
			l.segMu.Unlock()
			return nil
		}
		oldest := l.segs[0]
		l.segMu.Unlock()
		if err := l.fsys.Remove(l.path(oldest.name)); err != nil {
			return fmt.Errorf("wal: trim: %w", err)
		}
		// One at a time, or a power cut could leave a gap in the middle.
		if err := l.fsys.SyncDir(l.dir); err != nil {
			return l.fail(err)
		}
		l.segMu.Lock()
		var err error
		if len(l.segs) > 0 { // else closed meanwhile
			l.segs = l.segs[1:]
			err = l.release(oldest)
		}
		l.segMu.Unlock()
		if err != nil {
			return fmt.Errorf("wal: trim: %w", err)
		}
	}
}
