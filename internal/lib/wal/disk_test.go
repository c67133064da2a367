package wal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

const sector = 512

var errPower = errors.New("no power")

// disk is a file system in memory that remembers which sectors and which
// directory entries were not synced. before is asked ahead of every operation
// that changes or syncs something, and may fail it.
type disk struct {
	mu      sync.Mutex
	names   map[string]*inode // as processes see them
	durable map[string]*inode // as of the last SyncDir
	before  func(op, name string) error
}

type inode struct {
	name   string
	data   []byte       // as processes see it
	synced []byte       // as of the last Sync
	dirty  map[int]bool // sectors written since
}

func newDisk() *disk {
	return &disk{names: map[string]*inode{}, durable: map[string]*inode{}}
}

func (d *disk) ask(op, name string) error {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(op, filepath.Base(name))
}

func (d *disk) fault(f func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = f
}

func (d *disk) OpenFile(name string, flag int, _ fs.FileMode) (File, error) {
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		if err := d.ask("create", name); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case n == nil:
		n = &inode{name: name, dirty: map[int]bool{}}
		d.names[name] = n
	case flag&os.O_TRUNC != 0:
		n.data = nil
	}
	return &handle{d, n}, nil
}

func (d *disk) Rename(old, new string) error {
	if err := d.ask("rename", new); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[new] = d.names[old]
	d.names[new].name = new
	delete(d.names, old)
	return nil
}

func (d *disk) Remove(name string) error {
	if err := d.ask("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(d.names, name)
	return nil
}

func (d *disk) ReadDir(dir string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (d *disk) MkdirAll(string, fs.FileMode) error { return nil }

func (d *disk) SyncDir(dir string) error {
	if err := d.ask("syncdir", dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.durable {
		if filepath.Dir(name) == dir && d.names[name] == nil {
			delete(d.durable, name)
		}
	}
	for name, n := range d.names {
		if filepath.Dir(name) == dir {
			d.durable[name] = n
		}
	}
	return nil
}

// kill is what the next process finds after this one was killed: everything
// written. The two disks share nothing.
func (d *disk) kill() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := newDisk()
	copies := map[*inode]*inode{}
	clone := func(n *inode) *inode {
		if copies[n] == nil {
			c := &inode{name: n.name, data: bytes.Clone(n.data), synced: bytes.Clone(n.synced), dirty: map[int]bool{}}
			for s := range n.dirty {
				c.dirty[s] = true
			}
			copies[n] = c
		}
		return copies[n]
	}
	for name, n := range d.names {
		out.names[name] = clone(n)
	}
	for name, n := range d.durable {
		out.durable[name] = clone(n)
	}
	return out
}

// cut is what stands on the disk after a power cut: what was synced, and of
// the rest each sector and each directory entry for which keep says so.
func (d *disk) cut(keep func() bool) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := newDisk()
	copies := map[*inode]*inode{}
	settle := func(n *inode) *inode {
		if copies[n] != nil {
			return copies[n]
		}
		size := len(n.synced)
		if len(n.data) != size && keep() {
			size = len(n.data)
		}
		data := make([]byte, size)
		copy(data, n.synced)
		for _, s := range slices.Sorted(maps.Keys(n.dirty)) {
			if from := s * sector; from < min(size, len(n.data)) && keep() {
				copy(data[from:], n.data[from:min(from+sector, len(n.data))])
			}
		}
		copies[n] = &inode{name: n.name, data: data, synced: bytes.Clone(data), dirty: map[int]bool{}}
		return copies[n]
	}
	all := map[string]bool{}
	for name := range d.names {
		all[name] = true
	}
	for name := range d.durable {
		all[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) { // in order: keep may count
		n := d.durable[name]
		if d.names[name] != n && keep() {
			n = d.names[name]
		}
		if n != nil {
			out.names[name] = settle(n)
			out.durable[name] = out.names[name]
		}
	}
	return out
}

// file is the content of a file, to be read or spoilt.
func (d *disk) file(t testing.TB, name string) []byte {
	t.Helper()
	n := d.names[name]
	if n == nil {
		t.Fatalf("no file %s", name)
	}
	return n.data
}

type handle struct {
	d *disk
	n *inode
}

func (h *handle) ask(op string) error {
	h.d.mu.Lock()
	name := h.n.name
	h.d.mu.Unlock()
	return h.d.ask(op, name)
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.ask("write"); err != nil {
		return 0, err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(h.n.data)) {
		h.n.data = append(h.n.data, make([]byte, end-int64(len(h.n.data)))...)
	}
	copy(h.n.data[off:], p)
	for s := off / sector; s <= (off+int64(len(p))-1)/sector; s++ {
		h.n.dirty[int(s)] = true
	}
	return len(p), nil
}

// Sync that fails leaves the pages clean and not on the disk, as Linux does.
func (h *handle) Sync() error {
	err := h.ask("sync")
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err == nil {
		synced := make([]byte, len(h.n.data))
		copy(synced, h.n.synced)
		for s := range h.n.dirty {
			if from := s * sector; from < len(h.n.data) {
				copy(synced[from:], h.n.data[from:min(from+sector, len(h.n.data))])
			}
		}
		h.n.synced = synced
	}
	if err != errPower {
		clear(h.n.dirty)
	}
	return err
}

func (h *handle) Truncate(size int64) error {
	if err := h.ask("truncate"); err != nil {
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.n.data = append(h.n.data[:min(size, int64(len(h.n.data)))], make([]byte, max(0, size-int64(len(h.n.data))))...)
	return nil
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return int64(len(h.n.data)), nil
}

func (h *handle) Close() error { return nil }
