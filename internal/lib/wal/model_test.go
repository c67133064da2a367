package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// TestModel runs random operations, kills, power cuts, failing syncs and full
// disks against a plain list of records.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{T: t, disk: newDisk()}
		m.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"stage":   m.stage,
			"commit":  m.commit,
			"prepare": m.prepare,
			"trim":    m.trim,
			"read":    m.read,
			"close":   m.close,
			"kill":    func(t *rapid.T) { m.again(t, m.disk.kill()) },
			"power":   m.power,
			"fault":   m.fault,
			"":        m.invariants,
		})
	})
}

type model struct {
	*rapid.T
	disk    *disk
	log     *Log
	records [][]byte // all that were staged and may still turn up; records[i] is number i+1
	acked   uint64   // reported durable
	first   uint64
}

func (m *model) open(t *rapid.T) {
	o := Options{MaxRecord: 200, MaxStaged: 4096}
	o.SegmentSize = int64(rapid.IntRange(301, 3000).Draw(t, "segment size"))
	l, err := Open(m.disk, "d", o)
	if err != nil {
		t.Fatal(err)
	}
	if l.Durable() < m.acked || l.Durable() > uint64(len(m.records)) {
		t.Fatalf("opened at %d; %d acknowledged, %d staged", l.Durable(), m.acked, len(m.records))
	}
	m.log, m.acked, m.records = l, l.Durable(), m.records[:l.Durable()]
	m.first = l.First()
}

// again opens the log from this disk.
func (m *model) again(t *rapid.T, d *disk) {
	m.disk = d
	m.disk.fault(nil)
	m.open(t)
}

func (m *model) close(t *rapid.T) {
	_ = m.log.Close() // may meet a fault; nothing depends on it
	m.again(t, m.disk)
}

func (m *model) stage(t *rapid.T) {
	data := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "record")
	seq, err := m.log.Stage(data)
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrFailed):
	case err != nil || seq != uint64(len(m.records))+1:
		t.Fatal(seq, err)
	default:
		m.records = append(m.records, bytes.Clone(data))
	}
}

func (m *model) commit(t *rapid.T) {
	durable, err := m.log.Commit()
	if durable < m.acked {
		t.Fatalf("durable went from %d to %d", m.acked, durable)
	}
	if err == nil && durable != uint64(len(m.records)) {
		t.Fatalf("durable %d of %d", durable, len(m.records))
	}
	if err != nil && m.log.Failed() == nil && !errors.Is(err, ErrNoRoom) {
		t.Fatal(err)
	}
	m.acked = durable
}

func (m *model) prepare(t *rapid.T) {
	if _, err := m.log.Prepare(); err != nil && !errors.Is(err, ErrNoRoom) && m.log.Failed() == nil {
		t.Fatal(err)
	}
}

func (m *model) trim(t *rapid.T) {
	seq := rapid.Uint64Range(0, m.acked+2).Draw(t, "trim before")
	_ = m.log.TrimBefore(seq) // may meet a fault, too
	if first := m.log.First(); first < m.first || first > max(seq, m.first) {
		t.Fatalf("first %d after trimming before %d, was %d", first, seq, m.first)
	}
	m.first = m.log.First()
}

func (m *model) read(t *rapid.T) {
	from := rapid.Uint64Range(0, m.acked+2).Draw(t, "from")
	next := from
	for r, err := range m.log.Read(from) {
		if from < m.first {
			if !errors.Is(err, ErrTruncated) {
				t.Fatal(r, err)
			}
			return
		}
		if err != nil || r.Seq != next || !bytes.Equal(r.Data, m.records[next-1]) {
			t.Fatal(r, err, next)
		}
		next++
	}
	if next != max(from, m.acked+1) {
		t.Fatalf("read %d..%d of %d", from, next-1, m.acked)
	}
}

func (m *model) power(t *rapid.T) {
	coin := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	odds := rapid.IntRange(0, 4).Draw(t, "kept of four")
	m.again(t, m.disk.cut(func() bool { return coin.IntN(4) < odds }))
}

// fault makes the nth operation from now fail once, or every one from there on.
func (m *model) fault(t *rapid.T) {
	nth, forever := rapid.IntRange(1, 6).Draw(t, "nth"), rapid.Bool().Draw(t, "forever")
	n := 0
	m.disk.fault(func(string, string) error {
		if n++; n == nth || forever && n > nth {
			return errors.New("fault")
		}
		return nil
	})
}

func (m *model) invariants(t *rapid.T) {
	if m.log.Durable() != m.acked || m.log.Staged() != uint64(len(m.records)) || m.log.First() != m.first {
		t.Fatalf("%d %d %d; want %d %d %d", m.log.First(), m.log.Durable(), m.log.Staged(),
			m.first, m.acked, len(m.records))
	}
}

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

// The benchmarks run on the disk of the temporary directory.

var sink int

// unsynced is for filling a log quickly.
type unsynced struct{ FS }
type unsyncedFile struct{ File }

func (unsyncedFile) Sync() error { return nil }

func (u unsynced) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}

func BenchmarkStage(b *testing.B) {
	l := mustOpen(b, newDisk(), "d", Options{SegmentSize: 4 << 20, MaxStaged: 2 << 20})
	data := make([]byte, 150)
	for b.Loop() {
		if _, err := l.Stage(data); err != nil {
			l.mu.Lock()
			l.in.reset(1)
			l.mu.Unlock()
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 64, 512, 4096} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := mustOpen(b, OS(), b.TempDir(), Options{})
			defer l.Close()
			data := make([]byte, 150)
			for b.Loop() {
				for range size {
					if _, err := l.Stage(data); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := l.Commit(); err != nil {
					b.Fatal(err)
				}
				if err := l.TrimBefore(l.Durable()); err != nil {
					b.Fatal(err)
				}
				for {
					b.StopTimer()
					worked, err := l.Prepare()
					b.StartTimer()
					if err != nil {
						b.Fatal(err)
					}
					if !worked {
						break
					}
				}
			}
			records := float64(b.N * size)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/records, "ns/record")
			b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const records = 200_000
	for _, size := range []int{1, 64, 4096} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := mustOpen(b, unsynced{OS()}, b.TempDir(), Options{})
			defer l.Close()
			data := make([]byte, 150)
			for l.Staged() < records {
				for range size {
					if _, err := l.Stage(data); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := l.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			report := func(b *testing.B) {
				b.ReportMetric(float64(b.N)*float64(l.Durable())/b.Elapsed().Seconds(), "records/s")
			}
			b.Run("all", func(b *testing.B) {
				for b.Loop() {
					for r, err := range l.Read(1) {
						if err != nil {
							b.Fatal(err)
						}
						sink += len(r.Data)
					}
				}
				report(b)
			})
			b.Run("start", func(b *testing.B) {
				at := l.Durable() / 2
				for b.Loop() {
					for r := range l.Read(at) {
						sink += len(r.Data)
						break
					}
					at++
				}
			})
		})
	}
}
