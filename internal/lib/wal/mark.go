package wal

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// The acknowledged mark is a side file that holds the last sequence number
// known to be durable. It tells lost acknowledged records from a torn tail
// nobody was promised. It is written after a sync and before the records are
// acknowledged, without a sync of its own: it survives the process, and may
// lag behind after a power cut, but is never ahead.
//
// Two slots, each in a disk sector of its own, are written in turn: a slot
// torn by a power cut leaves the other one.
//
//	0  u32  magic
//	4  u32  CRC-32C of bytes 8..15
//	8  u64  sequence number
const (
	markName     = "mark"
	markMagic    = 0x4b524d53 // "SMRK"
	markSlotSize = 16
	markStride   = 512
	markFileSize = 2 * markStride
)

type mark struct {
	file File
	seq  uint64
	turn int64 // the slot to be written next
	buf  [markSlotSize]byte
}

// readMark returns the highest valid slot. size is -1 when there is no file.
func readMark(fsys FS, dir string, names []string) (m mark, size int64, err error) {
	found := false
	for _, name := range names {
		found = found || name == markName
	}
	if !found {
		return m, -1, nil
	}
	f, err := fsys.OpenFile(filepath.Join(dir, markName), os.O_RDONLY, 0)
	if err != nil {
		return m, 0, err
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return m, 0, err
	}
	b := make([]byte, markFileSize)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return m, 0, err
	}
	for slot := range int64(2) {
		seq, ok := parseMark(b[slot*markStride:])
		if ok && seq >= m.seq {
			m.seq, m.turn = seq, 1-slot
		}
	}
	return m, size, nil
}

func parseMark(b []byte) (seq uint64, ok bool) {
	le := binary.LittleEndian
	ok = le.Uint32(b) == markMagic && le.Uint32(b[4:]) == crc32.Checksum(b[8:markSlotSize], castagnoli)
	return le.Uint64(b[8:]), ok
}

// openMark readies the mark for writing. A file that is missing or cut short
// is made anew, whole, so that later writes change no metadata.
func openMark(fsys FS, dir string, m mark, size int64) (*mark, error) {
	f, err := fsys.OpenFile(filepath.Join(dir, markName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	m.file = f
	if size < markFileSize {
		m.turn = 0
		if _, err = f.WriteAt(zeros[:markFileSize], 0); err == nil {
			if err = f.Sync(); err == nil {
				err = fsys.SyncDir(dir)
			}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return &m, nil
}

// write moves the mark, without a sync.
func (m *mark) write(seq uint64) error {
	le := binary.LittleEndian
	le.PutUint32(m.buf[0:], markMagic)
	le.PutUint64(m.buf[8:], seq)
	le.PutUint32(m.buf[4:], crc32.Checksum(m.buf[8:], castagnoli))
	if _, err := m.file.WriteAt(m.buf[:], m.turn*markStride); err != nil {
		return err
	}
	m.seq, m.turn = seq, 1-m.turn
	return nil
}
