package simdisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// node is a file, whatever it is called.
type node struct {
	name    string
	data    []byte // as processes see it
	stable  []byte // what a power cut certainly keeps
	sectors map[int64]*sector
}

// sector is what was written to one sector since it was last made durable: the
// disk may hold any of the versions. A clean one met a failed sync: the kernel
// takes it for written, and no later sync brings it to the disk.
type sector struct {
	versions [][]byte // oldest first
	clean    bool
}

// maxVersions bounds what is kept of a sector that is written again and again.
const maxVersions = 3

// touch notes that bytes from..to have changed.
func (n *node) touch(from, to int64) {
	for i := from / Sector; i*Sector < to; i++ {
		s := n.sectors[i]
		if s == nil {
			s = &sector{}
			n.sectors[i] = s
		}
		s.clean = false
		s.versions = append(s.versions, cut(n.data, i))
		if len(s.versions) > maxVersions {
			s.versions = slices.Delete(s.versions, 1, 2)
		}
	}
}

// cut is a copy of one sector, zeros where the file ends.
func cut(data []byte, i int64) []byte {
	b := make([]byte, Sector)
	if from := i * Sector; from < int64(len(data)) {
		copy(b, data[from:])
	}
	return b
}

// resize cuts or grows the file, with zeros.
func (n *node) resize(size int64) {
	old := int64(len(n.data))
	if size < old {
		clear(n.data[size:])
		n.data = n.data[:size]
		n.touch(size, old)
		return
	}
	n.grow(size)
}

func (n *node) grow(size int64) {
	if more := size - int64(len(n.data)); more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
}

func (n *node) write(p []byte, off int64) {
	n.grow(off + int64(len(p)))
	copy(n.data[off:], p)
	n.touch(off, off+int64(len(p)))
}

// sync makes durable whatever is dirty, and the size.
func (n *node) sync() {
	size := int64(len(n.data))
	stable := make([]byte, size)
	copy(stable, n.stable)
	for i, s := range n.sectors {
		if s.clean {
			continue
		}
		if from := i * Sector; from < size {
			copy(stable[from:min(from+Sector, size)], s.versions[len(s.versions)-1])
		}
		delete(n.sectors, i)
	}
	n.stable = stable
}

// spoil is a sync that failed.
func (n *node) spoil() {
	for _, s := range n.sectors {
		s.clean = true
	}
}

// clone is a copy that shares nothing.
func (n *node) clone() *node {
	c := &node{name: n.name, data: bytes.Clone(n.data), stable: bytes.Clone(n.stable), sectors: map[int64]*sector{}}
	for i, s := range n.sectors {
		c.sectors[i] = &sector{slices.Clone(s.versions), s.clean} // versions are never changed
	}
	return c
}

// handle is an open file.
type handle struct {
	d    *Disk
	n    *node
	flag int
}

func (h *handle) op(kind Kind) Op {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return Op{Kind: kind, Name: h.n.name}
}

var errReadOnly = errors.New("simdisk: file was opened for reading")

func (h *handle) writable() bool { return h.flag&(os.O_RDWR|os.O_WRONLY) != 0 }

// ReadAt implements io.ReaderAt.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	switch {
	case h.d.dark:
		return 0, ErrPower
	case off < 0:
		return 0, fs.ErrInvalid
	case off >= int64(len(h.n.data)):
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (h *handle) WriteAt(p []byte, off int64) (n int, err error) {
	if !h.writable() || off < 0 {
		return 0, errReadOnly
	}
	op := h.op(Write)
	op.Off, op.Len = off, len(p)
	err = h.d.do(op, func(v Verdict) error {
		n = len(p)
		var failed error
		if v.stop() {
			n, failed = min(max(v.Bytes, 0), len(p)), v.Err
		}
		if h.d.room >= 0 {
			grown := off + int64(n) - int64(len(h.n.data))
			if over := h.d.used() + grown - h.d.room; grown > 0 && over > 0 {
				n = max(0, n-int(over))
				failed = errors.Join(failed, ErrFull)
			}
		}
		if n > 0 {
			h.n.write(p[:n], off)
		}
		return failed
	})
	return n, err
}

// Truncate implements wal.File.
func (h *handle) Truncate(size int64) error {
	if !h.writable() || size < 0 {
		return errReadOnly
	}
	return h.d.do(h.op(Truncate), func(v Verdict) error {
		if v.stop() {
			return v.Err
		}
		h.n.resize(size)
		return nil
	})
}

// Sync implements wal.File. One that fails loses what it was to make durable,
// although it can still be read; one that the power cut interrupts does not.
func (h *handle) Sync() error {
	return h.d.do(h.op(Sync), func(v Verdict) error {
		switch {
		case v.stop() && !errors.Is(v.Err, ErrPower):
			h.n.spoil()
			return v.Err
		case v.stop():
			return v.Err
		}
		h.n.sync()
		return nil
	})
}

// Size implements wal.File.
func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.dark {
		return 0, ErrPower
	}
	return int64(len(h.n.data)), nil
}

// Close implements wal.File. It makes nothing durable.
func (h *handle) Close() error { return nil }
