package wal

import (
	"errors"
	"fmt"
	"iter"
	"sort"
)

// Record is one record of the log.
type Record struct {
	Seq  uint64
	Data []byte // valid until the next iteration
}

// Read yields the durable records with Seq ≥ from in order, up to the durable
// head as it is at this call. It never waits, and runs beside Stage, Commit
// and TrimBefore. A from before First yields ErrTruncated; damage found on the
// way yields a *CorruptError; after an error it ends.
//
// It starts within 64 KiB of its first record, wherever that is.
func (l *Log) Read(from uint64) iter.Seq2[Record, error] {
	head := l.Durable()
	return func(yield func(Record, error) bool) {
		spans, err := l.pin(from, head)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer l.unpin(spans)
		w, _ := l.windows.Get().(*window)
		if w == nil {
			w = new(window)
		}
		defer func() {
			w.reset(nil, 0) // the pool keeps the memory, not the file
			l.windows.Put(w)
		}()
		for _, sp := range spans {
			w.reset(sp.file, sp.end)
			if !sp.read(l, w, from, head, yield) {
				return
			}
		}
	}
}

// span is the part of a segment that a reader goes through.
type span struct {
	*segment
	start place
	end   int64 // as it was when the reader started
}

// pin holds the segments with records from..head, so that trimming does not
// close them.
func (l *Log) pin(from, head uint64) ([]span, error) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	switch {
	case len(l.segs) == 0:
		return nil, ErrClosed
	case from < l.segs[0].first:
		return nil, fmt.Errorf("%w: record %d, the log starts at %d", ErrTruncated, from, l.segs[0].first)
	case from > head:
		return nil, nil
	}
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].first > from }) - 1
	var spans []span
	for _, s := range l.segs[i:] {
		if s.first > head {
			break
		}
		s.refs++
		spans = append(spans, span{s, s.seek(from), s.end})
	}
	return spans, nil
}

func (l *Log) unpin(spans []span) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for _, sp := range spans {
		// A close error of a file that was only read, or whose writes were all
		// synced, takes nothing away from anyone.
		_ = l.release(sp.segment)
	}
}

// read yields the span's records within from..head and says whether to go on
// with the next span.
func (sp span) read(l *Log, w *window, from, head uint64, yield func(Record, error) bool) bool {
	seq := sp.start.seq
	for off := sp.start.off; off < sp.end; {
		f, err := readFrame(w, off, sp.salt)
		if err == nil && f.first != seq {
			err = badFrame(fmt.Sprintf("the batch starts with record %d", f.first))
		}
		if err != nil {
			yield(Record{}, readError(l.path(sp.name), off, seq, err))
			return false
		}
		off = f.after(off)
		if f.last() < from {
			seq = f.last() + 1
			continue
		}
		for payload := f.payload; len(payload) > 0; seq++ {
			rec, rest, _ := cutRecord(payload) // readFrame has checked them
			payload = rest
			if seq > head {
				return false
			}
			if seq >= from && !yield(Record{seq, rec}, nil) {
				return false
			}
		}
	}
	return true
}

// readError tells damage from trouble with reading.
func readError(path string, off int64, seq uint64, err error) error {
	var bad badFrame
	if err == errEnd || errors.As(err, &bad) {
		return corrupt(path, off, seq, err.Error())
	}
	return fmt.Errorf("wal: read %s at offset %d: %w", path, off, err)
}
