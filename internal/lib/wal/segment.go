package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sort"
	"strconv"
	"strings"
)

// A segment is a file of fixed size, written with zeros before it is used.
//
//	 0  8 bytes  magic
//	 8  u32      format version
//	16  u64      sequence number of its first record
//	24  u64      size of the file in bytes
//	32  u32      header checksum of the last frame of the segment before it
//	60  u32      checksum of bytes 0..59; also the salt of its frames
//	64           frames, then zeros
const (
	segmentMagic      = "SLUICEWL"
	segmentVersion    = 1
	segmentHeaderSize = 64
	segmentSuffix     = ".wal"
	spareName         = "next.tmp" // the segment being prepared

	maxSegmentSize = 4 << 30
	// indexStep bounds what a reader skips over to find its start, in bytes; a
	// segment of 64 MiB has at most 1024 index entries (16 KiB).
	indexStep = 64 << 10
)

type segment struct {
	name  string // of the file
	file  File
	salt  uint32
	size  int64  // bytes, by its header
	first uint64 // sequence number of its first record
	last  uint64 // of its last durable record; first-1 when it has none
	end   int64  // where the next frame goes; all before it is durable
	chain uint32 // header checksum of its last frame, or of the one before the segment
	index []place
	refs  int // the log's own and one for each reader; closed at zero
}

// place is where the frame that starts with record seq stands.
type place struct {
	seq uint64
	off int64
}

// extend takes in the durable frame at off.
func (s *segment) extend(off int64, h frameHeader) {
	if n := len(s.index); n == 0 || off-s.index[n-1].off >= indexStep {
		s.index = append(s.index, place{h.first, off})
	}
	s.last, s.end, s.chain = h.last(), h.after(off), h.sum
}

// seek returns a frame at or before the one that holds record seq.
func (s *segment) seek(seq uint64) place {
	i := sort.Search(len(s.index), func(i int) bool { return s.index[i].seq > seq })
	if i == 0 {
		return place{s.first, segmentHeaderSize}
	}
	return s.index[i-1]
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// parseSegmentName is the inverse of segmentName; other names are not ours.
func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

type segmentHeader struct {
	version uint32
	first   uint64
	size    int64
	chain   uint32
}

func (h segmentHeader) encode() (b [segmentHeaderSize]byte, salt uint32) {
	le := binary.LittleEndian
	copy(b[:], segmentMagic)
	le.PutUint32(b[8:], h.version)
	le.PutUint64(b[16:], h.first)
	le.PutUint64(b[24:], uint64(h.size))
	le.PutUint32(b[32:], h.chain)
	salt = crc32.Checksum(b[:60], castagnoli)
	le.PutUint32(b[60:], salt)
	return b, salt
}

func parseSegmentHeader(b []byte) (h segmentHeader, salt uint32, ok bool) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderSize || string(b[:8]) != segmentMagic {
		return h, 0, false
	}
	h = segmentHeader{
		version: le.Uint32(b[8:]),
		first:   le.Uint64(b[16:]),
		size:    int64(le.Uint64(b[24:])),
		chain:   le.Uint32(b[32:]),
	}
	salt = le.Uint32(b[60:])
	ok = crc32.Checksum(b[:60], castagnoli) == salt &&
		h.size >= segmentHeaderSize && h.size <= maxSegmentSize
	return h, salt, ok
}
