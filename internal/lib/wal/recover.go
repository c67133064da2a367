package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Open opens the log in dir, or makes a new one there. It checks every batch.
// A torn tail, which nobody was promised, is cut and its place zeroed; damage
// to acknowledged records is a *CorruptError, and changes nothing on disk.
// When Open returns, every record it found is durable.
//
// The directory's own entry is made durable in its parent; entries further up
// are the caller's. A new log writes one whole segment of zeros first.
func Open(fsys FS, dir string, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("wal: open: %w", err)
	}
	s, err := scanDir(fsys, dir, os.O_RDWR)
	if err != nil {
		s.close()
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
			return nil, err
		}
		return nil, fmt.Errorf("wal: open %s: %w", dir, err)
	}
	l := &Log{fsys: fsys, dir: dir, opt: o, segs: s.segments}
	if err := l.recover(s); err != nil {
		for _, seg := range l.segs {
			seg.file.Close()
		}
		return nil, fmt.Errorf("wal: open %s: %w", dir, err)
	}
	last := l.segs[len(l.segs)-1].last
	l.staged = last
	l.durable.Store(last)
	l.in.reset(last + 1)
	l.out.reset(last + 1)
	return l, nil
}

// recover makes the files on disk into a log that can be written to.
func (l *Log) recover(s *scan) error {
	var err error
	switch {
	case s.headless != 0:
		err = l.begin(s.headless)
	case len(s.segments) == 0:
		if err = l.fsys.SyncDir(filepath.Dir(l.dir)); err == nil {
			err = l.begin(1)
		}
	default:
		err = l.mend(s)
	}
	if err != nil {
		return err
	}
	l.mark, err = openMark(l.fsys, l.dir, s.mark, s.markSize)
	if err != nil {
		return err
	}
	if err = l.mark.write(l.segs[len(l.segs)-1].last); err == nil {
		err = l.mark.file.Sync()
	}
	if err != nil {
		l.mark.file.Close()
	}
	return err
}

// begin adds a fresh segment, in place of one of the same name if need be.
func (l *Log) begin(first uint64) error {
	file, err := l.takeSpare()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	chain := uint32(0)
	if n := len(l.segs); n > 0 {
		chain = l.segs[n-1].chain
	}
	seg, err := l.install(file, first, chain)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.segs = append(l.segs, seg)
	return nil
}

// mend readies the last segment for appending.
func (l *Log) mend(s *scan) error {
	seg := l.segs[len(l.segs)-1]
	// A batch beyond the mark may be in the kernel's cache only, and clean
	// there if its sync failed: only writing it again makes the next sync true.
	if s.lastFrame > 0 && seg.last > s.mark.seq {
		s.w.reset(seg.file, s.fileSize)
		b, err := s.w.view(s.lastFrame, int(min(seg.end, s.fileSize)-s.lastFrame))
		if err != nil {
			return err
		}
		if _, err := seg.file.WriteAt(b, s.lastFrame); err != nil {
			return err
		}
	}
	// What is left of a torn batch must never be taken for a later one.
	if s.tear != nil {
		if err := writeZeros(seg.file, s.tear.Offset, s.tear.Offset+s.tear.Bytes); err != nil {
			return err
		}
	}
	if err := writeZeros(seg.file, s.fileSize, seg.size); err != nil {
		return err
	}
	if err := seg.file.Sync(); err != nil {
		return err
	}
	// The name of the segment may not be durable yet either.
	return l.fsys.SyncDir(l.dir)
}

// writeZeros writes zeros over the bytes from..to, if any.
func writeZeros(file File, from, to int64) error {
	for from < to {
		n := min(int64(len(zeros)), to-from)
		if _, err := file.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}
