// Package simdisk is a disk that loses power on request: a file system in
// memory behind the seam of lib/wal, for tests only.
//
// It tells apart what processes see (the page cache), what a power cut
// certainly keeps (what was synced) and everything between: sectors that may
// be old, new, or torn in the middle; file sizes and directory entries that
// may not have arrived. Image answers one of the disks that a power cut can
// leave, Images all of them or a sample, Kill what a killed process leaves.
//
// Invariants: the same operations and the same choices give the same disk; an
// image shares nothing with the disk it was made of; a sync that failed leaves
// its pages readable, clean, and not on the disk, as Linux does, so that a
// later sync which succeeds does not bring them back.
//
// It refuses to model a disk that lies about a sync that succeeded, and damage
// to sectors that nobody wrote: that is bit rot, which is tested elsewhere.
package simdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"sluice/internal/lib/wal"
)

// Sector is the unit in bytes that a power cut keeps or loses.
const Sector = 512

// Faults that an operation can meet. Full wraps what a real disk answers.
var (
	ErrPower = errors.New("simdisk: no power")
	ErrIO    = fmt.Errorf("simdisk: %w", syscall.EIO)
	ErrFull  = fmt.Errorf("simdisk: %w", syscall.ENOSPC)
)

// Kind of an operation that changes something or makes it durable.
type Kind string

// The kinds. Reading is not observed: it changes nothing.
const (
	Create   Kind = "create" // also the truncation of a file by O_TRUNC
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	Rename   Kind = "rename" // Name is the new one
	Remove   Kind = "remove"
	SyncDir  Kind = "syncdir"
)

// Op is one operation, in the order in which the disk got them.
type Op struct {
	Number int // 1, 2, …
	Kind   Kind
	Name   string // path; of a handle, the one that its file has now
	Off    int64  // of a write
	Len    int    // of a write, in bytes
}

func (o Op) String() string {
	base := filepath.Base(o.Name)
	if o.Kind == Write {
		return fmt.Sprintf("#%d write %s %d+%d", o.Number, base, o.Off, o.Len)
	}
	return fmt.Sprintf("#%d %s %s", o.Number, o.Kind, base)
}

// Verdict is what becomes of an operation. The zero Verdict lets it happen.
type Verdict struct {
	Err   error // reported to the caller; ErrPower also turns the power off
	Done  bool  // it happens all the same, only the answer is Err
	Bytes int   // of a write that fails: how many bytes are written first
}

// Disk is a file system. Safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*node // as processes see them
	durable map[string]*node // as of the last SyncDir
	links   []link           // changes of directories since then, in order
	dirs    map[string]bool
	dark    bool
	room    int64 // bytes that files may have together; < 0 is no bound
	ops     []Op
	judge   func(Op) Verdict
	saw     func(Op)
}

// link is a change of directory entries that SyncDir has not covered. A rename
// is one link: it happens whole or not at all.
type link struct {
	kind     Kind // Create, Rename or Remove
	dir      string
	old, new string
	node     *node
}

var _ wal.FS = (*Disk)(nil)

// New is an empty disk without bound.
func New() *Disk {
	return &Disk{names: map[string]*node{}, durable: map[string]*node{}, dirs: map[string]bool{}, room: -1}
}

// Judge is asked before each operation, without a lock: it may use the disk,
// and stalling is calling something else first. nil lets everything happen.
func (d *Disk) Judge(judge func(Op) Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judge = judge
}

// Saw is told after each operation that happened: the place to take images of
// every prefix of a run.
func (d *Disk) Saw(saw func(Op)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saw = saw
}

// Ops are all operations that happened, in order.
func (d *Disk) Ops() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Op(nil), d.ops...)
}

// Off turns the power off: every operation from here on is ErrPower and
// changes nothing, until an image of the disk is used instead.
func (d *Disk) Off() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dark = true
}

// Fill leaves room for so many more bytes; a write past them is cut short with
// ErrFull. Negative is no bound.
func (d *Disk) Fill(more int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room = more; more >= 0 {
		d.room += d.used()
	}
}

// used is what the files have in bytes; d.mu is held.
func (d *Disk) used() (n int64) {
	for _, f := range d.names {
		n += int64(len(f.data))
	}
	return n
}

// do runs one operation: the verdict, the change under the lock, the witness.
func (d *Disk) do(op Op, change func(v Verdict) error) error {
	d.mu.Lock()
	if d.dark {
		d.mu.Unlock()
		return ErrPower
	}
	judge, saw := d.judge, d.saw
	op.Number = len(d.ops) + 1
	d.mu.Unlock()
	var v Verdict
	if judge != nil {
		v = judge(op)
	}
	d.mu.Lock()
	if d.dark { // it went off while the operation was stalled
		d.mu.Unlock()
		return ErrPower
	}
	err := change(v)
	happened := err == nil || v.Done
	if happened {
		op.Number = len(d.ops) + 1
		d.ops = append(d.ops, op)
	}
	if err == nil {
		err = v.Err
	}
	if errors.Is(v.Err, ErrPower) {
		d.dark = true
	}
	d.mu.Unlock()
	if happened && saw != nil {
		saw(op)
	}
	return err
}

// stop says that an operation does not happen.
func (v Verdict) stop() bool { return v.Err != nil && !v.Done }

// OpenFile implements wal.FS.
func (d *Disk) OpenFile(name string, flag int, _ fs.FileMode) (wal.File, error) {
	name = filepath.Clean(name)
	d.mu.Lock()
	n, dark := d.names[name], d.dark
	d.mu.Unlock()
	switch {
	case dark:
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrPower}
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n != nil && flag&os.O_TRUNC == 0:
		return &handle{d, n, flag}, nil
	}
	err := d.do(Op{Kind: Create, Name: name}, func(v Verdict) error {
		if v.stop() {
			return v.Err
		}
		if n != nil {
			n.resize(0)
			return nil
		}
		n = &node{name: name, sectors: map[int64]*sector{}}
		d.names[name] = n
		d.links = append(d.links, link{kind: Create, dir: filepath.Dir(name), new: name, node: n})
		return nil
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &handle{d, n, flag}, nil
}

// Rename implements wal.FS.
func (d *Disk) Rename(old, new string) error {
	old, new = filepath.Clean(old), filepath.Clean(new)
	return d.do(Op{Kind: Rename, Name: new}, func(v Verdict) error {
		n := d.names[old]
		switch {
		case v.stop():
			return v.Err
		case n == nil:
			return &fs.PathError{Op: "rename", Path: old, Err: fs.ErrNotExist}
		}
		delete(d.names, old)
		d.names[new], n.name = n, new
		d.links = append(d.links, link{kind: Rename, dir: filepath.Dir(new), old: old, new: new, node: n})
		return nil
	})
}

// Remove implements wal.FS. The file stays readable for those who have it open.
func (d *Disk) Remove(name string) error {
	name = filepath.Clean(name)
	return d.do(Op{Kind: Remove, Name: name}, func(v Verdict) error {
		switch {
		case v.stop():
			return v.Err
		case d.names[name] == nil:
			return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
		}
		delete(d.names, name)
		d.links = append(d.links, link{kind: Remove, dir: filepath.Dir(name), old: name})
		return nil
	})
}

// ReadDir implements wal.FS.
func (d *Disk) ReadDir(dir string) (names []string, err error) {
	dir = filepath.Clean(dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.dark:
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: ErrPower}
	case !d.dirs[dir]:
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: fs.ErrNotExist}
	}
	for name := range d.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

// MkdirAll implements wal.FS. Directories are durable at once: the log makes
// its own durable before it promises anything, which its own tests show.
func (d *Disk) MkdirAll(name string, _ fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dark {
		return ErrPower
	}
	for name = filepath.Clean(name); !d.dirs[name]; name = filepath.Dir(name) {
		d.dirs[name] = true
	}
	return nil
}

// SyncDir implements wal.FS.
func (d *Disk) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	return d.do(Op{Kind: SyncDir, Name: dir}, func(v Verdict) error {
		if v.stop() {
			return v.Err // the entries stay as uncertain as they are
		}
		var rest []link
		for _, l := range d.links {
			if l.dir == dir {
				l.apply(d.durable)
			} else {
				rest = append(rest, l)
			}
		}
		d.links = rest
		return nil
	})
}

// apply makes the change in a directory.
func (l link) apply(names map[string]*node) {
	switch l.kind {
	case Create:
		names[l.new] = l.node
	case Rename:
		delete(names, l.old)
		names[l.new] = l.node
	case Remove:
		delete(names, l.old)
	}
}
