package wal

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
)

// FuzzFrame feeds arbitrary bytes to the decoder of frames.
func FuzzFrame(f *testing.F) {
	b := make([]byte, frameHeaderSize, 200)
	b = append(b, 3, 'a', 'b', 'c', 0, 1, 'x')
	putFrameHeader(b, b[frameHeaderSize:], 9, 5, 3, 7)
	f.Add(b, uint32(9))
	f.Add(b[:40], uint32(9))
	f.Add(make([]byte, 64), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, salt uint32) {
		var w window
		w.reset(bytes.NewReader(b), int64(len(b)))
		got, err := readFrame(&w, 0, salt)
		if err != nil {
			return
		}
		n := 0
		for p := got.payload; len(p) > 0; n++ {
			var ok bool
			if _, p, ok = cutRecord(p); !ok {
				t.Fatal("an accepted frame does not split into records")
			}
		}
		if n != got.count {
			t.Fatalf("%d records, the header says %d", n, got.count)
		}
		again := make([]byte, frameHeaderSize)
		putFrameHeader(again, got.payload, salt, got.first, got.count, got.prev)
		if !bytes.Equal(again, b[:frameHeaderSize]) {
			t.Fatal("an accepted header does not encode to itself")
		}
	})
}

// FuzzOpen opens a directory whose segment and mark are arbitrary bytes. With
// fix, checksums are made right, so that the bytes behind them get through.
func FuzzOpen(f *testing.F) {
	d := newDisk()
	l := mustOpen(f, d, "d", small)
	batches(f, l, 3, 5)
	f.Add(d.file(f, l.path(l.segs[0].name)), d.file(f, l.path(markName)), false)
	f.Add(d.file(f, l.path(l.segs[0].name)), []byte{}, true)
	f.Add([]byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, seg, mark []byte, fix bool) {
		if len(seg) > 4096 {
			return
		}
		if fix && len(seg) >= segmentHeaderSize+frameHeaderSize {
			seg = bytes.Clone(seg)
			h, salt := segmentHeader{segmentVersion, 1, 4096, 0}.encode()
			copy(seg, h[:])
			payload := seg[segmentHeaderSize+frameHeaderSize:]
			putFrameHeader(seg[segmentHeaderSize:], payload, salt, 1, 1+len(payload)%7, 0)
		}
		d := newDisk()
		put := func(name string, b []byte) {
			name = filepath.Join("d", name)
			d.names[name] = &inode{name: name, data: bytes.Clone(b), synced: bytes.Clone(b), dirty: map[int]bool{}}
			d.durable[name] = d.names[name]
		}
		put(segmentName(1), seg)
		put(markName, mark)
		report, err := Inspect(d, "d")
		if err != nil && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		before := d.kill()
		l, err := Open(d, "d", small)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			for name, n := range before.names {
				if !bytes.Equal(n.data, d.file(t, name)) {
					t.Fatalf("a refused Open changed %s", name)
				}
			}
			return
		}
		if l.Durable() < report.Mark || l.Durable() != max(report.Last, l.First()-1) {
			t.Fatalf("opened at %d, report %+v", l.Durable(), report)
		}
		n := l.First() - 1
		for r, err := range l.Read(l.First()) {
			if n++; err != nil || r.Seq != n {
				t.Fatal(r, err)
			}
		}
		if n != l.Durable() {
			t.Fatal(n, l.Durable())
		}
	})
}
