package wal

import (
	"bytes"
	"errors"
	"math/rand/v2"
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
