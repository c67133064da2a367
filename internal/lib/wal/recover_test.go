package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lagging returns a disk whose last batch (records acked+1..all) was written
// but not acknowledged, as a kill in the middle of Commit leaves it, and the
// place of that batch in the last segment.
func lagging(t *testing.T, sizes ...int) (d *disk, acked, all uint64, path string, from, to int64) {
	t.Helper()
	d = newDisk()
	l := mustOpen(t, d, "d", small)
	batches(t, l, sizes[:len(sizes)-1]...)
	acked = l.Durable()
	seg := l.active()
	from = seg.end
	d.fault(func(op, name string) error {
		if op == "sync" {
			return errPower
		}
		return nil
	})
	stage(t, l, sizes[len(sizes)-1])
	all = l.Staged()
	if _, err := l.Commit(); !errors.Is(err, ErrFailed) || l.active() != seg {
		t.Fatal("the last batch should stay in its segment and fail:", err)
	}
	path = l.path(seg.name)
	b := d.file(t, path)
	if to = int64(len(b)); to > from {
		for b[to-1] == 0 {
			to--
		}
	}
	return d.kill(), acked, all, path, from, to
}

// usable wants a log with exactly the records up to last, which takes more
// and keeps them through another opening.
func usable(d *disk, last uint64) error {
	l, err := Open(d, "d", small)
	if err != nil {
		return err
	}
	if l.Durable() != last || l.Staged() != last {
		return fmt.Errorf("recovered up to %d (staged %d), want %d", l.Durable(), l.Staged(), last)
	}
	for range 2 {
		if err := readFrom(l, l.First(), last); err != nil {
			return err
		}
		// Whole and clean behind the last batch, on the disk itself.
		seg := l.active()
		b := d.cut(func() bool { return false }).names[l.path(seg.name)].data
		if int64(len(b)) != seg.size || !allZero(b[seg.end:]) {
			return fmt.Errorf("%s has %d bytes of %d, or something behind offset %d", seg.name, len(b), seg.size, seg.end)
		}
		if _, err := l.Stage(rec(last + 1)); err != nil {
			return err
		}
		if _, err := l.Commit(); err != nil {
			return err
		}
		last++
		// Nothing is kept but what was synced: what Open and Commit promised.
		d = d.cut(func() bool { return false })
		if l, err = Open(d, "d", small); err != nil {
			return fmt.Errorf("reopened: %w", err)
		}
		if l.Durable() != last {
			return fmt.Errorf("reopened at %d, want %d", l.Durable(), last)
		}
	}
	return readFrom(l, l.First(), last)
}

func TestCutAtEveryByteOfTheLastBatch(t *testing.T) {
	d, acked, all, path, from, to := lagging(t, 3, 12, 1, 14)
	f := func(kind string, spoil func(n *inode, at int64)) {
		t.Helper()
		for at := from; at <= to; at++ {
			image := d.kill()
			spoil(image.names[path], at)
			want := acked
			if at == to {
				want = all
			}
			if err := usable(image, want); err != nil {
				t.Fatalf("%s at %d of %d..%d: %v", kind, at, from, to, err)
			}
		}
	}
	f("file cut", func(n *inode, at int64) { n.data = n.data[:at] })
	f("zeros", func(n *inode, at int64) { clear(n.data[at:]) })
	f("noise", func(n *inode, at int64) {
		for i := at; i < to; i++ {
			n.data[i] ^= 0xa5
		}
	})
}

// The same with files of the machine, and with the batch acknowledged: then
// nothing may be cut.
func TestCutOnRealFiles(t *testing.T) {
	d, acked, all, path, from, to := lagging(t, 3, 12, 1, 14)
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for at := from; at <= to; at += 7 {
		for name, n := range d.names {
			write(name, n.data)
		}
		write(path, d.file(t, path)[:at])
		l := mustOpen(t, OS(), dir, small)
		check(t, l, acked)
		l.Close()

		m := mark{file: markFile(t, dir)}
		if err := m.write(all); err != nil {
			t.Fatal(err)
		}
		m.file.Close()
		var damage *CorruptError
		if _, err := Open(OS(), dir, small); !errors.As(err, &damage) || damage.Seq != acked+1 {
			t.Fatal(err)
		}
	}
}

func markFile(t *testing.T, dir string) File {
	t.Helper()
	f, err := OS().OpenFile(filepath.Join(dir, markName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEverySubsetOfSectorsLost(t *testing.T) {
	o := Options{SegmentSize: 8192, MaxRecord: 3000}
	base := newDisk()
	l := mustOpen(t, base, "d", o)
	batches(t, l, 3, 2)
	base.fault(func(op, _ string) error {
		if op == "sync" {
			return errPower
		}
		return nil
	})
	stage(t, l, 75)
	l.Commit()
	base.fault(nil)
	dirty := len(l.active().fileInode().dirty)
	if dirty < 8 || dirty > 10 {
		t.Fatalf("%d dirty sectors", dirty)
	}
	whole := 0
	for subset := range 1 << (dirty + 1) { // one more: the mark's
		bit := 0
		d := base.cut(func() bool { bit++; return subset>>(bit-1)&1 == 1 })
		l, err := Open(d, "d", o)
		if err != nil {
			t.Fatalf("subset %b: %v", subset, err)
		}
		switch l.Durable() {
		case 5:
		case 80:
			whole++
		default:
			t.Fatalf("subset %b: up to %d", subset, l.Durable())
		}
		check(t, l, l.Durable())
		last := l.Durable() + 1
		batches(t, l, 1)
		// Whatever was lost of the torn batch must not come back.
		l = mustOpen(t, d.cut(func() bool { return false }), "d", o)
		check(t, l, last)
	}
	if whole != 2 {
		t.Fatalf("%d images with the whole batch, want 2", whole)
	}
}

func (s *segment) fileInode() *inode { return s.file.(*handle).n }

var tiny = Options{SegmentSize: 512, MaxRecord: 100, MaxStaged: 4096}

// TestEveryBitFlipped: each flip of a single bit either hurts nobody or is
// refused; and a flip within a batch is always refused.
func TestEveryBitFlipped(t *testing.T) {
	f := func(name string, closed bool) {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			l := mustOpen(t, d, "d", tiny)
			batches(t, l, 3, 10, 1, 1, 7, 2)
			last := l.Durable()
			if len(l.segs) < 3 {
				t.Fatalf("%d segments", len(l.segs))
			}
			ends := map[string]int64{}
			for _, s := range l.segs {
				ends[l.path(s.name)] = s.end
			}
			if closed {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			d = d.kill()
			refused, harmless := 0, 0
			for path := range d.names {
				for i := range d.file(t, path) {
					for bit := range 8 {
						image := d.names[path]
						image.data[i] ^= 1 << bit
						err := tryRead(d, last)
						image.data[i] ^= 1 << bit
						used := int64(i) < ends[path]
						switch {
						case errors.Is(err, ErrCorrupt):
							refused++
						case err != nil:
							t.Fatalf("%s byte %d bit %d: %v", path, i, bit, err)
						case used && !inGap(d, path, i):
							t.Fatalf("%s byte %d bit %d of a batch went unnoticed", path, i, bit)
						default:
							harmless++
						}
					}
				}
			}
			if refused == 0 || harmless == 0 {
				t.Fatalf("refused %d, harmless %d", refused, harmless)
			}
		})
	}
	f("closed", true)
	f("not closed", false)
}

// tryRead inspects and opens a copy and reads it all; both must agree.
func tryRead(d *disk, last uint64) error {
	d = d.kill()
	report, err := Inspect(d, "d")
	if err != nil {
		return err
	}
	l, err := Open(d, "d", tiny)
	if (err != nil) != (report.Corruption != nil) {
		return fmt.Errorf("Open says %v, Inspect %+v", err, report)
	}
	if err != nil {
		return err
	}
	if err := readFrom(l, 1, last); err != nil {
		return err
	}
	_, err = l.Stage(rec(last + 1))
	if err == nil {
		_, err = l.Commit()
	}
	if err == nil {
		err = readFrom(l, 1, last+1)
	}
	return err
}

// inGap says whether byte i lies between two frames.
func inGap(d *disk, path string, i int) bool {
	b := d.names[path].data
	_, salt, _ := parseSegmentHeader(b)
	for _, off := range frameOffsets(b) {
		h, _ := parseFrameHeader(b[off:], salt)
		if at := int64(i); at >= off+frameHeaderSize+int64(h.length) && at < h.after(off) {
			return true
		}
	}
	return false
}

func TestRefusals(t *testing.T) {
	base := newDisk()
	l := mustOpen(t, base, "d", small)
	batches(t, l, 3, 20, 20, 20, 5, 1, 1)
	segs := l.segs
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	path := func(i int) string { return l.path(segs[i].name) }
	last := len(segs) - 1
	f := func(name string, seq uint64, spoil func(d *disk)) {
		t.Run(name, func(t *testing.T) {
			d := base.kill()
			spoil(d)
			before := d.kill()
			_, err := Open(d, "d", small)
			var damage *CorruptError
			if !errors.As(err, &damage) || !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			if damage.Seq != seq || !strings.Contains(err.Error(), damage.Remedy) || damage.Remedy == "" {
				t.Fatalf("%+v, want record %d", damage, seq)
			}
			for name, n := range before.names {
				if !bytes.Equal(n.data, d.file(t, name)) {
					t.Errorf("a refused Open changed %s", name)
				}
			}
		})
	}
	f("middle segment missing", segs[1].first, func(d *disk) { delete(d.names, path(1)) })
	f("last segment missing", segs[last].first, func(d *disk) { delete(d.names, path(last)) })
	f("all segments missing", 1, func(d *disk) {
		for i := range segs {
			delete(d.names, path(i))
		}
	})
	f("last segment emptied", segs[last].first, func(d *disk) { d.names[path(last)].data = nil })
	f("first segment emptied", 1, func(d *disk) { d.names[path(0)].data = nil })
	f("renamed", segs[last].first, func(d *disk) {
		d.names[l.path(segmentName(segs[last].last+1))] = d.names[path(last)]
		delete(d.names, path(last))
	})
	f("last batch zeroed", segs[last].first, func(d *disk) {
		clear(d.file(t, path(last))[segmentHeaderSize:])
	})
	f("no mark, a batch zeroed before others", 1, func(d *disk) {
		delete(d.names, l.path(markName))
		clear(d.file(t, path(0))[segmentHeaderSize : segmentHeaderSize+40])
	})
	f("no mark, a batch zeroed before others in the last segment", segs[last].first, func(d *disk) {
		delete(d.names, l.path(markName))
		clear(d.file(t, path(last))[segmentHeaderSize : segmentHeaderSize+40])
	})
	f("no mark, a batch damaged before the header of a torn one", segs[last].last-1, func(d *disk) {
		delete(d.names, l.path(markName))
		b, offs := d.file(t, path(last)), frameOffsets(d.file(t, path(last)))
		n := len(offs)
		b[offs[n-2]+20] ^= 1
		clear(b[offs[n-1]+frameHeaderSize:])
	})
	f("no mark, the header of the last segment damaged", segs[last].first, func(d *disk) {
		delete(d.names, l.path(markName))
		d.file(t, path(last))[20] ^= 1
	})
	f("batch of another log", segs[last].last, func(d *disk) {
		delete(d.names, l.path(markName))
		b := d.file(t, path(last))
		offs := frameOffsets(b)
		reseal(b[offs[len(offs)-1]:], segs[last].salt, 12345)
	})
	f("segment of another log", segs[2].first, func(d *disk) {
		// Every batch in it is whole and follows the one before.
		b := d.file(t, path(2))
		offs := frameOffsets(b)
		header, salt := segmentHeader{segmentVersion, segs[2].first, small.SegmentSize, 12345}.encode()
		copy(b, header[:])
		chain := uint32(12345)
		for _, off := range offs {
			chain = reseal(b[off:], salt, chain)
		}
	})

	t.Run("version", func(t *testing.T) {
		d := base.kill()
		b, _ := segmentHeader{segmentVersion + 1, 1, small.SegmentSize, 0}.encode()
		copy(d.file(t, path(0)), b[:])
		if _, err := Open(d, "d", small); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

// frameOffsets lists where the frames of a segment stand.
func frameOffsets(b []byte) (offs []int64) {
	_, salt, _ := parseSegmentHeader(b)
	for off := int64(segmentHeaderSize); off+frameHeaderSize <= int64(len(b)); {
		h, ok := parseFrameHeader(b[off:], salt)
		if !ok {
			break
		}
		offs = append(offs, off)
		off = h.after(off)
	}
	return offs
}

// reseal gives the frame at the front of b other checksums.
func reseal(b []byte, salt, prev uint32) uint32 {
	length, first, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])
	return putFrameHeader(b, b[frameHeaderSize:frameHeaderSize+length], salt, first, int(count), prev)
}

// TestRemedyWorks does what the remedy of a CorruptError says.
func TestRemedyWorks(t *testing.T) {
	base := newDisk()
	l := mustOpen(t, base, "d", small)
	batches(t, l, 3, 20, 20, 20, 5)
	for i, s := range l.segs {
		for _, at := range []int64{10, segmentHeaderSize + 10} {
			d := base.kill()
			d.file(t, l.path(s.name))[at] ^= 4
			_, err := Open(d, "d", small)
			var damage *CorruptError
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
			d.names[damage.Segment].data = d.names[damage.Segment].data[:damage.Offset]
			for _, later := range l.segs[i+1:] {
				delete(d.names, l.path(later.name))
			}
			delete(d.names, l.path(markName))
			if err := usable(d, damage.Seq-1); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A record that holds a copy of an older frame must not turn a torn tail into
// damage.
func TestTornBatchWithAFrameInARecord(t *testing.T) {
	o := Options{SegmentSize: 4096, MaxRecord: 1000}
	for pad := range frameAlign {
		d := newDisk()
		l := mustOpen(t, d, "d", o)
		batches(t, l, 1, 2)
		s := l.active()
		old := d.file(t, l.path(s.name))[segmentHeaderSize:s.end]
		image := d.kill()
		if _, err := l.Stage(append(make([]byte, pad), old...)); err != nil {
			t.Fatal(err)
		}
		from := s.end
		commit(t, l)
		b := image.file(t, l.path(s.name))
		copy(b, d.file(t, l.path(s.name)))
		b[from+frameHeaderSize]++ // torn at its first record
		l = mustOpen(t, image, "d", o)
		check(t, l, 3)
	}
}

// A slot torn by a power cut leaves the other one, a commit older.
func TestTornMark(t *testing.T) {
	d := newDisk()
	l := mustOpen(t, d, "d", small)
	for n := range uint64(5) {
		batches(t, l, 1)
		image := d.kill()
		b := image.file(t, l.path(markName))
		b[(1-l.mark.turn)*markStride+3] ^= 1
		m, _, err := readMark(image, "d", []string{markName})
		if err != nil || m.seq != n {
			t.Fatalf("mark %d, %v; want %d", m.seq, err, n)
		}
		if err := usable(image, n+1); err != nil {
			t.Fatal(err)
		}
	}
}

// Without a mark the log opens, trusting what stands there.
func TestMissingMark(t *testing.T) {
	d, acked, all, path, from, _ := lagging(t, 3, 12, 1, 14)
	delete(d.names, "d/"+markName)
	if err := usable(d.kill(), all); err != nil {
		t.Fatal(err)
	}
	d.file(t, path)[from+5] ^= 1
	if err := usable(d, acked); err != nil {
		t.Fatal(err)
	}
}

func TestLastSegmentWithoutHeader(t *testing.T) {
	f := func(sizes []int, spoil func(n *inode)) {
		t.Helper()
		d := newDisk()
		l := mustOpen(t, d, "d", small)
		batches(t, l, sizes...)
		l.commit.Lock()
		l.out.next = l.Staged() + 1
		if err := l.rotate(l.active()); err != nil {
			t.Fatal(err)
		}
		l.commit.Unlock()
		d = d.kill()
		spoil(d.names[l.path(l.active().name)])
		if err := usable(d, l.Durable()); err != nil {
			t.Fatal(err)
		}
	}
	for _, sizes := range [][]int{{3}, {20, 20}} {
		f(sizes, func(n *inode) { n.data = nil })
		f(sizes, func(n *inode) { n.data = n.data[:30] })
		f(sizes, func(n *inode) { clear(n.data) })
		f(sizes, func(n *inode) { n.data[20] ^= 1 })
	}
	// The very first segment, before anything was in it.
	d := newDisk()
	l := mustOpen(t, d, "d", small)
	clear(d.file(t, l.path(l.active().name)))
	if err := usable(d.kill(), 0); err != nil {
		t.Fatal(err)
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	cause := errors.New("input/output error")
	f := func(op string, nth, synced int) {
		t.Helper()
		d := newDisk()
		l := mustOpen(t, d, "d", small)
		batches(t, l, 3, 4)
		n, after := 0, 0
		d.fault(func(got, name string) error {
			if got == "sync" && n >= nth {
				after++
			}
			if got == op {
				if n++; n == nth {
					return cause
				}
			}
			return nil
		})
		stage(t, l, 5)
		durable, err := l.Commit()
		if !errors.Is(err, ErrFailed) || !errors.Is(err, cause) || durable != l.Durable() {
			t.Fatal(durable, err)
		}
		if want := uint64(7 + 5*synced); durable != want {
			t.Fatalf("durable %d, want %d", durable, want)
		}
		for range 3 {
			if got, err := l.Commit(); got != durable || !errors.Is(err, ErrFailed) {
				t.Fatal(got, err)
			}
			if _, err := l.Stage(nil); !errors.Is(err, ErrFailed) || !errors.Is(err, cause) {
				t.Fatal(err)
			}
			if worked, err := l.Prepare(); worked || !errors.Is(err, ErrFailed) {
				t.Fatal(err)
			}
		}
		if after != 0 {
			t.Fatalf("%d syncs after the failed one", after)
		}
		if !errors.Is(l.Failed(), cause) {
			t.Fatal(l.Failed())
		}
		check(t, l, durable)

		// The process starts again: the kernel has the batch in its cache, clean.
		// Whatever Open calls durable must then survive a power cut.
		d = d.kill()
		l = mustOpen(t, d, "d", small)
		if got := l.Durable(); got != durable && got != 12 {
			t.Fatal(got)
		}
		last := l.Durable()
		l = mustOpen(t, d.cut(func() bool { return false }), "d", small)
		check(t, l, last)
	}
	f("sync", 1, 0)
	f("write", 1, 0)
	f("write", 2, 1) // the mark
}

func TestDiskFull(t *testing.T) {
	d := newDisk()
	full := func(op, name string) error {
		if name == spareName && op != "remove" {
			return syscall.ENOSPC
		}
		return nil
	}
	d.fault(full)
	if _, err := Open(d, "d", small); !errors.Is(err, ErrNoRoom) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	d.fault(nil)
	l := mustOpen(t, d, "d", small)
	batches(t, l, 3, 10)
	d.fault(full)
	if worked, err := l.Prepare(); worked || !errors.Is(err, ErrNoRoom) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(worked, err)
	}
	batches(t, l, 1) // the active segment still has room
	stage(t, l, 60)
	for range 3 {
		durable, err := l.Commit()
		if !errors.Is(err, ErrNoRoom) || durable != 14 || l.Failed() != nil {
			t.Fatal(durable, err, l.Failed())
		}
		stage(t, l, 1)
		check(t, l, 14)
	}
	d.fault(nil)
	batches(t, l, 3)
	check(t, l, 80)
	if err := usable(d.kill(), 80); err != nil {
		t.Fatal(err)
	}
}

func TestTrimIsDurableOneByOne(t *testing.T) {
	d := newDisk()
	l := mustOpen(t, d, "d", small)
	batches(t, l, 20, 20, 20, 20)
	last, removed := l.Durable(), 0
	d.fault(func(op, _ string) error {
		if op == "remove" {
			removed++
			for seed := range uint64(8) {
				coin := rand.New(rand.NewPCG(seed, 1))
				if err := usable(d.cut(func() bool { return coin.IntN(2) == 0 }), last); err != nil {
					t.Error(err)
				}
			}
		}
		return nil
	})
	if err := l.TrimBefore(last); err != nil || removed < 2 {
		t.Fatal(removed, err)
	}
}

// TestPowerCutAtEveryPoint runs a script, loses power before each operation
// on the disk in turn, and recovers from several images of what may stand there.
func TestPowerCutAtEveryPoint(t *testing.T) {
	script := func(l *Log, acked *uint64) {
		for i, n := range []int{1, 3, 20, 1, 25, 40, 2, 30, 1} {
			for range n {
				l.Stage(rec(l.Staged() + 1))
			}
			if i%2 == 1 {
				l.Prepare()
			}
			// An acknowledgement counts also beside an error.
			*acked, _ = l.Commit()
			if i == 6 {
				l.TrimBefore(*acked / 2)
			}
		}
		l.Close()
	}
	images, whole := 0, false
	for at := 0; !whole; at++ {
		d := newDisk()
		n, acked := 0, uint64(0)
		d.fault(func(string, string) error {
			if n++; n > at {
				return errPower
			}
			return nil
		})
		if l, err := Open(d, "d", small); err == nil {
			script(l, &acked)
		}
		whole = n <= at
		d.fault(nil)
		for seed := range uint64(12) {
			coin := rand.New(rand.NewPCG(uint64(at), seed))
			image := d.cut(func() bool { return seed == 1 || seed > 1 && coin.IntN(2) == 0 })
			if seed == 2 {
				image = d.kill()
			}
			images++
			l, err := Open(image, "d", small)
			if err != nil {
				t.Fatalf("power lost before operation %d, image %d: %v", at, seed, err)
			}
			if l.Durable() < acked {
				t.Fatalf("power lost before operation %d, image %d: %d records of %d", at, seed, l.Durable(), acked)
			}
			if err := usable(image, l.Durable()); err != nil {
				t.Fatalf("power lost before operation %d, image %d: %v", at, seed, err)
			}
		}
	}
	t.Logf("%d images", images)
}

// A power cut in the middle of recovery must not matter either.
func TestPowerCutDuringRecovery(t *testing.T) {
	base, acked, all, path, from, to := lagging(t, 3, 12, 1, 14)
	for spoilt := from; spoilt < to; spoilt += 37 {
		done := false
		for at := 0; !done; at++ {
			d := base.kill()
			d.file(t, path)[spoilt] ^= 1
			n := 0
			d.fault(func(string, string) error {
				if n++; n > at {
					return errPower
				}
				return nil
			})
			Open(d, "d", small)
			done = n <= at
			d.fault(nil)
			for seed := range uint64(6) {
				coin := rand.New(rand.NewPCG(uint64(at), seed))
				image := d.cut(func() bool { return seed == 1 || seed > 1 && coin.IntN(2) == 0 })
				l, err := Open(image, "d", small)
				if err != nil || l.Durable() < acked || l.Durable() > all {
					t.Fatal(err)
				}
				if err := usable(image, l.Durable()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
