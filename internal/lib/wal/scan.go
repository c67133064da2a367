package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// scan is what the files of a log say, every frame checked. Open repairs from
// it and Inspect reports it; scanning itself changes nothing.
type scan struct {
	fsys     FS
	dir      string
	flag     int
	segments []*segment
	next     uint64 // the sequence number that follows the last record
	mark     mark
	markSize int64 // of its file in bytes, -1 without one

	fileSize  int64  // of the last segment, may be less than its header says
	lastFrame int64  // offset of the last frame in the last segment, 0 if it has none
	headless  uint64 // ≠ 0: a last segment by this number was named, but never begun
	tear      *Tear

	batches, records uint64
	payload          int64 // bytes of the records
	w                window
}

// Tear is the remains of a batch that was never acknowledged, at the end of
// the log. Open writes zeros over it.
type Tear struct {
	Segment string `json:"segment"` // path of the file
	Offset  int64  `json:"offset"`  // bytes from its start
	Bytes   int64  `json:"bytes"`   // up to the last one that is not zero
}

// corrupt is a CorruptError with the remedy for one at this place.
func corrupt(path string, off int64, seq uint64, reason string) error {
	return &CorruptError{
		Segment: path, Offset: off, Seq: seq, Reason: reason,
		Remedy: fmt.Sprintf("stop, keep a copy, and restore the directory from a backup or replica; "+
			"or, giving up record %d and all after it, cut %s to %d bytes and remove the segments after it and the file %q",
			seq, filepath.Base(path), off, markName),
	}
}

// scanDir reads the whole log. The files of s.segments are open (with flag)
// also when it fails.
func scanDir(fsys FS, dir string, flag int) (s *scan, err error) {
	s = &scan{fsys: fsys, dir: dir, flag: flag, next: 1}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return s, err
	}
	if s.mark, s.markSize, err = readMark(fsys, dir, names); err != nil {
		return s, err
	}
	var firsts []uint64
	for _, name := range names {
		if first, ok := parseSegmentName(name); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	for i, first := range firsts {
		following := uint64(0)
		if i+1 < len(firsts) {
			following = firsts[i+1]
		}
		if err := s.segment(first, following); err != nil {
			return s, err
		}
	}
	if len(firsts) == 0 && s.mark.seq > 0 {
		return s, corrupt(filepath.Join(dir, segmentName(1)), 0, 1,
			fmt.Sprintf("there are no segments, but record %d was acknowledged", s.mark.seq))
	}
	return s, nil
}

func (s *scan) close() {
	for _, seg := range s.segments {
		seg.file.Close()
	}
}

// segment reads one segment; following is the first record of the one behind
// it, 0 for the last.
func (s *scan) segment(first, following uint64) error {
	name := segmentName(first)
	path := filepath.Join(s.dir, name)
	file, err := s.fsys.OpenFile(path, s.flag, 0)
	if err != nil {
		return err
	}
	seg := &segment{name: name, file: file, first: first, last: first - 1, end: segmentHeaderSize, refs: 1}
	earlier := s.segments
	s.segments = append(s.segments, seg)
	if s.fileSize, err = file.Size(); err != nil {
		return err
	}
	s.w.reset(file, s.fileSize)
	s.lastFrame = 0

	begun, err := s.header(seg, path, following == 0)
	if err != nil {
		return err
	}
	if !begun {
		s.headless, s.next, s.segments = first, first, earlier
		s.tear = &Tear{Segment: path, Bytes: min(s.fileSize, segmentHeaderSize)}
		return file.Close()
	}
	if n := len(earlier); n > 0 && earlier[n-1].chain != seg.chain {
		return corrupt(path, 0, first, "the segment does not continue the one before it")
	}
	why, err := s.frames(seg)
	if err != nil {
		return fmt.Errorf("wal: read %s: %w", path, err)
	}
	s.next = seg.last + 1
	if following == 0 {
		return s.tail(seg, path, why)
	}
	// The name of a segment proves that every record before it was durable.
	if s.next != following {
		return corrupt(path, seg.end, s.next,
			fmt.Sprintf("%v, and the next segment starts with record %d", why, following))
	}
	return nil
}

// header takes in the segment's header. It is false for a last segment that
// was named and then lost its header, with nothing in it.
func (s *scan) header(seg *segment, path string, isLast bool) (begun bool, err error) {
	b, err := s.w.view(0, int(min(s.fileSize, segmentHeaderSize)))
	if err != nil {
		return false, err
	}
	h, salt, ok := parseSegmentHeader(b)
	switch {
	case ok && h.version != segmentVersion:
		return false, fmt.Errorf("%w %d: %s; use the release that wrote it", ErrVersion, h.version, path)
	case ok && h.first != seg.first:
		return false, corrupt(path, 0, seg.first, fmt.Sprintf("the file says it starts with record %d", h.first))
	case ok:
		seg.salt, seg.size, seg.chain = salt, h.size, h.chain
		return true, nil
	}
	used, err := s.lastUsed(segmentHeaderSize)
	if err != nil {
		return false, err
	}
	if !isLast || used > 0 || s.mark.seq >= seg.first {
		return false, corrupt(path, 0, seg.first, "the header of the segment is damaged")
	}
	return false, nil
}

// frames takes in the frames of a segment up to the first that is not whole
// or does not follow, and returns why it stopped.
func (s *scan) frames(seg *segment) (why, err error) {
	for {
		f, err := readFrame(&s.w, seg.end, seg.salt)
		if err == nil && (f.first != seg.last+1 || f.prev != seg.chain) {
			err = badFrame("the batch does not follow the one before it")
		}
		if err != nil {
			var bad badFrame
			if err == errEnd || errors.As(err, &bad) {
				return err, nil
			}
			return nil, err
		}
		s.lastFrame = seg.end
		seg.extend(seg.end, f.frameHeader)
		s.batches++
		s.records += uint64(f.count)
		s.payload += int64(f.length)
	}
}

// tail judges what stands behind the last whole frame of the log. No more than
// one frame is ever unsynced; so one that is not whole is a torn tail only
// when nothing says that it was synced: neither the mark, nor a later frame.
func (s *scan) tail(seg *segment, path string, why error) error {
	if s.next <= s.mark.seq {
		return corrupt(path, seg.end, s.next, fmt.Sprintf("%v, but record %d was acknowledged", why, s.mark.seq))
	}
	later, err := s.laterFrame(seg)
	if err != nil {
		return err
	}
	if later >= 0 {
		return corrupt(path, seg.end, s.next, fmt.Sprintf("%v, but another batch was written at offset %d", why, later))
	}
	used, err := s.lastUsed(seg.end)
	if err != nil {
		return err
	}
	if used > 0 {
		s.tear = &Tear{Segment: path, Offset: seg.end, Bytes: used - seg.end}
	}
	return nil
}

// laterFrame returns where, behind the last whole frame, the header of a frame
// stands that could only have been written after the one expected there was
// synced, or -1.
func (s *scan) laterFrame(seg *segment) (int64, error) {
	for off := seg.end; off <= s.fileSize-frameHeaderSize; {
		b, err := s.w.view(off, int(min(windowSize, s.fileSize-off)))
		if err != nil {
			return 0, err
		}
		if len(b) == windowSize && allZero(b) {
			off += windowSize - frameHeaderSize
			continue
		}
		i := 0
		for ; i+frameHeaderSize <= len(b); i += frameAlign {
			h, ok := parseFrameHeader(b[i:], seg.salt)
			at := off + int64(i)
			torn := at == seg.end && h.first == s.next && h.prev == seg.chain
			copied := at != seg.end && h.first <= s.next // an old one, inside a record
			if ok && !torn && !copied {
				return at, nil
			}
		}
		off += int64(i)
	}
	return -1, nil
}

// lastUsed returns the offset behind the last byte that is not zero, at or
// after from, or 0.
func (s *scan) lastUsed(from int64) (used int64, err error) {
	for off := from; off < s.fileSize; {
		b, err := s.w.view(off, int(min(windowSize, s.fileSize-off)))
		if err != nil {
			return 0, err
		}
		if !allZero(b) {
			i := len(b)
			for b[i-1] == 0 {
				i--
			}
			used = off + int64(i)
		}
		off += int64(len(b))
	}
	return used, nil
}
