package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A frame is what one write and one sync make durable: a header and the
// records of a batch. All integers are little endian.
//
//	 0  u32  magic
//	 4  u32  length of the payload in bytes
//	 8  u64  sequence number of its first record
//	16  u32  number of records, ≥ 1
//	20  u32  header checksum of the frame before it
//	24  u32  checksum of the payload
//	28  u32  checksum of bytes 0..27
//	32       payload: for each record its length as a uvarint, then its bytes
//
// Checksums are CRC-32C seeded with the salt of the segment, so that bytes of
// another segment, or bytes that a caller put into a record, do not pass for a
// frame. Frames start at multiples of frameAlign; the gap is never written and
// never looked at.
const (
	frameMagic      = 0x4d465753 // "SWFM"
	frameHeaderSize = 32
	frameAlign      = 8
	// frameTarget bounds a payload, in bytes, unless a single record is larger.
	// Every frame has its own sync; at this size that costs nothing beside the
	// write, and readers need no larger buffer.
	frameTarget = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frameHeader struct {
	length int
	first  uint64
	count  int
	prev   uint32 // sum of the frame before it
	body   uint32 // checksum of the payload
	sum    uint32 // checksum of the header; the link for the next frame
}

type frame struct {
	frameHeader
	payload []byte // valid until the window moves
}

// last is the sequence number of the last record.
func (h frameHeader) last() uint64 { return h.first + uint64(h.count) - 1 }

// after is where the next frame starts, given the offset of this one.
func (h frameHeader) after(off int64) int64 {
	return align(off + frameHeaderSize + int64(h.length))
}

func align(off int64) int64 { return (off + frameAlign - 1) &^ (frameAlign - 1) }

// putFrameHeader fills dst, which stands right before the payload, and returns
// the header's checksum.
func putFrameHeader(dst, payload []byte, salt uint32, first uint64, count int, prev uint32) uint32 {
	le := binary.LittleEndian
	le.PutUint32(dst[0:], frameMagic)
	le.PutUint32(dst[4:], uint32(len(payload)))
	le.PutUint64(dst[8:], first)
	le.PutUint32(dst[16:], uint32(count))
	le.PutUint32(dst[20:], prev)
	le.PutUint32(dst[24:], crc32.Update(salt, castagnoli, payload))
	sum := crc32.Update(salt, castagnoli, dst[:28])
	le.PutUint32(dst[28:], sum)
	return sum
}

// parseFrameHeader says whether b, of at least frameHeaderSize bytes, is a
// header written into the segment with this salt.
func parseFrameHeader(b []byte, salt uint32) (h frameHeader, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic {
		return h, false
	}
	h = frameHeader{
		length: int(le.Uint32(b[4:])),
		first:  le.Uint64(b[8:]),
		count:  int(le.Uint32(b[16:])),
		prev:   le.Uint32(b[20:]),
		body:   le.Uint32(b[24:]),
		sum:    le.Uint32(b[28:]),
	}
	return h, crc32.Update(salt, castagnoli, b[:28]) == h.sum
}

// errEnd: nothing was ever written here.
var errEnd = errors.New("there is no batch here")

// badFrame says why bytes are not a whole frame.
type badFrame string

func (e badFrame) Error() string { return string(e) }

// readFrame reads the frame at off. It is errEnd where only zeros stand or no
// frame could fit, a badFrame where there is something else, otherwise an
// error of reading.
func readFrame(w *window, off int64, salt uint32) (frame, error) {
	if off > w.size-frameHeaderSize {
		return frame{}, errEnd
	}
	b, err := w.view(off, frameHeaderSize)
	if err != nil {
		return frame{}, err
	}
	h, ok := parseFrameHeader(b, salt)
	switch {
	case !ok && allZero(b):
		return frame{}, errEnd
	case !ok:
		return frame{}, badFrame("the header of the batch is damaged")
	case int64(h.length) > w.size-off-frameHeaderSize:
		return frame{}, badFrame("the batch is longer than its segment")
	}
	b, err = w.view(off, frameHeaderSize+h.length)
	if err != nil {
		return frame{}, err
	}
	payload := b[frameHeaderSize:]
	if crc32.Update(salt, castagnoli, payload) != h.body {
		return frame{}, badFrame("the records of the batch do not match their checksum")
	}
	if !wellFormed(payload, h.count) || h.last() < h.first {
		return frame{}, badFrame("the batch is not a list of records")
	}
	return frame{h, payload}, nil
}

// wellFormed says whether payload is exactly count records, at least one.
func wellFormed(payload []byte, count int) bool {
	n := 0
	for ; len(payload) > 0; n++ {
		_, rest, ok := cutRecord(payload)
		if !ok {
			return false
		}
		payload = rest
	}
	return n == count && n > 0
}

// cutRecord splits the first record off a payload.
func cutRecord(payload []byte) (rec, rest []byte, ok bool) {
	n, k := binary.Uvarint(payload)
	if k <= 0 || n > uint64(len(payload)-k) {
		return nil, nil, false
	}
	end := k + int(n)
	return payload[k:end:end], payload[end:], true
}

// takeRecords returns the length in bytes and the number of the records at the
// front of payload that fit into limit bytes.
func takeRecords(payload []byte, limit int) (n, count int) {
	for n < len(payload) {
		_, rest, ok := cutRecord(payload[n:])
		end := len(payload) - len(rest)
		if !ok || end > limit {
			break
		}
		n = end
		count++
	}
	return n, count
}

// windowSize is how much a window reads at a time, in bytes.
const windowSize = 256 << 10

// window reads a file through one reusable buffer.
type window struct {
	file io.ReaderAt
	size int64 // bytes of the file that may be read
	off  int64 // file offset of buf[0]
	buf  []byte
}

// reset points the window at the first size bytes of a file.
func (w *window) reset(file io.ReaderAt, size int64) {
	w.file, w.size, w.off, w.buf = file, size, 0, w.buf[:0]
}

// view returns n bytes at off, valid until the next call.
func (w *window) view(off int64, n int) ([]byte, error) {
	if at := off - w.off; at >= 0 && at+int64(n) <= int64(len(w.buf)) {
		return w.buf[at : at+int64(n)], nil
	}
	if off < 0 || off+int64(n) > w.size {
		return nil, io.ErrUnexpectedEOF
	}
	fill := int(min(int64(max(n, windowSize)), w.size-off))
	if cap(w.buf) < fill {
		w.buf = make([]byte, max(fill, min(2*cap(w.buf), windowSize)))
	}
	w.off, w.buf = off, w.buf[:fill]
	got, err := w.file.ReadAt(w.buf, off)
	if got < n {
		w.buf = w.buf[:0]
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	w.buf = w.buf[:got]
	return w.buf[:n], nil
}

// zeros is written into fresh segments, a piece at a time. A commit that meets
// the sync of a piece waits for it: pieces of 1 MiB tripled its slowest times.
var zeros [256 << 10]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
