package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// small makes logs of many segments out of little data.
var small = Options{SegmentSize: 1024, MaxRecord: 200, MaxStaged: 4096}

func mustOpen(t testing.TB, fsys FS, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(fsys, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rec is the record by this number in most tests: short ones and long ones.
func rec(seq uint64) []byte {
	return bytes.Repeat([]byte{byte(seq)*7 + 1}, int(seq*seq*31%97))
}

// stage stages the next n records.
func stage(t testing.TB, l *Log, n int) {
	t.Helper()
	for range n {
		seq, err := l.Stage(rec(l.Staged() + 1))
		if err != nil || seq != l.Staged() {
			t.Fatalf("stage: %d, %v", seq, err)
		}
	}
}

func commit(t testing.TB, l *Log) {
	t.Helper()
	staged := l.Staged()
	if durable, err := l.Commit(); err != nil || durable != staged || l.Durable() != staged {
		t.Fatalf("commit: %d (Durable %d), %v; want %d", durable, l.Durable(), err, staged)
	}
}

// batches commits batches of these sizes.
func batches(t testing.TB, l *Log, sizes ...int) {
	t.Helper()
	for _, n := range sizes {
		stage(t, l, n)
		commit(t, l)
	}
}

// check reads the whole log and wants exactly records First..last.
func check(t testing.TB, l *Log, last uint64) {
	t.Helper()
	if err := readFrom(l, l.First(), last); err != nil {
		t.Fatal(err)
	}
	if l.Durable() != last {
		t.Fatalf("durable %d, want %d", l.Durable(), last)
	}
}

func readFrom(l *Log, from, last uint64) error {
	next := from
	for r, err := range l.Read(from) {
		switch {
		case err != nil:
			return err
		case r.Seq != next:
			return fmt.Errorf("record %d, want %d", r.Seq, next)
		case !bytes.Equal(r.Data, rec(next)):
			return fmt.Errorf("record %d has other bytes", next)
		}
		next++
	}
	if next != max(from, last+1) {
		return fmt.Errorf("log ends before record %d, want %d to be the last", next, last)
	}
	return nil
}

func TestStageCommitRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := mustOpen(t, OS(), dir, small)
	if l.First() != 1 || l.Durable() != 0 || l.Staged() != 0 {
		t.Fatalf("new log: %d %d %d", l.First(), l.Durable(), l.Staged())
	}
	commit(t, l) // nothing
	check(t, l, 0)
	stage(t, l, 3)
	check(t, l, 0) // staged is not visible
	commit(t, l)
	check(t, l, 3)
	batches(t, l, 1, 40, 2, 60, 1)
	for from := l.First(); from <= l.Durable()+2; from++ {
		if err := readFrom(l, from, l.Durable()); err != nil {
			t.Fatalf("from %d: %v", from, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stage(nil); err != ErrClosed {
		t.Fatal(err)
	}
	if _, err := l.Commit(); err != ErrClosed {
		t.Fatal(err)
	}
	if err := readFrom(l, 1, 0); err != ErrClosed {
		t.Fatal(err)
	}
	l = mustOpen(t, OS(), dir, small)
	defer l.Close()
	check(t, l, 107)
	batches(t, l, 5)
	check(t, l, 112)
}

func TestReadStopsAtTheHeadOfTheCall(t *testing.T) {
	l := mustOpen(t, newDisk(), "d", small)
	batches(t, l, 4)
	records := l.Read(2)
	batches(t, l, 4)
	n := 0
	for r, err := range records {
		if err != nil || r.Seq != uint64(n+2) {
			t.Fatal(r, err)
		}
		n++
	}
	if n != 3 {
		t.Fatalf("%d records, want 3", n)
	}
}

func TestReadersNeverSeeWhatIsNotDurable(t *testing.T) {
	d := newDisk()
	l := mustOpen(t, d, "d", small)
	batches(t, l, 4)
	seen := 0
	d.fault(func(op, name string) error {
		if op == "sync" {
			seen++
			if err := readFrom(l, 1, l.Durable()); err != nil || l.Durable() != 4 {
				t.Errorf("during the sync: durable %d, %v", l.Durable(), err)
			}
		}
		return nil
	})
	batches(t, l, 2)
	if seen == 0 {
		t.Fatal("no sync")
	}
}

func TestLimits(t *testing.T) {
	f := func(o Options, ok bool) {
		t.Helper()
		if l, err := Open(newDisk(), "d", o); (err == nil) != ok {
			t.Errorf("%+v: %v", o, err)
		} else if ok {
			l.Close()
		}
	}
	f(small, true)
	f(Options{MaxRecord: -1}, false)
	f(Options{SegmentSize: 100, MaxRecord: 10}, false)
	f(Options{SegmentSize: 111, MaxRecord: 10, MaxStaged: 15}, true)
	f(Options{SegmentSize: 1024, MaxRecord: 10, MaxStaged: 14}, false)
	f(Options{SegmentSize: 5 << 30}, false)

	l := mustOpen(t, newDisk(), "d", small)
	if _, err := l.Stage(make([]byte, 201)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	n := uint64(0)
	var err error
	for err == nil {
		if _, err = l.Stage(rec(n + 1)); err == nil {
			n++
		}
	}
	if err != ErrFull || l.Staged() != n {
		t.Errorf("%v, staged %d of %d", err, l.Staged(), n)
	}
	commit(t, l)
	batches(t, l, 3)
	check(t, l, n+3)
}

func TestStageDoesNotAllocate(t *testing.T) {
	l := mustOpen(t, newDisk(), "d", Options{SegmentSize: 1 << 20, MaxRecord: 1000})
	data := make([]byte, 150)
	round := func() {
		for range 100 {
			if _, err := l.Stage(data); err != nil {
				t.Fatal(err)
			}
		}
		l.mu.Lock()
		l.in.reset(1)
		l.mu.Unlock()
	}
	round()
	if n := testing.AllocsPerRun(10, round); n != 0 {
		t.Errorf("%v allocations in 100 records", n)
	}
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, OS(), dir, small)
	batches(t, l, 5, 20, 20, 20, 20)
	before := slices.Clone(l.segs)
	if len(before) < 4 {
		t.Fatalf("%d segments", len(before))
	}
	trim := func(seq, first uint64) {
		t.Helper()
		if err := l.TrimBefore(seq); err != nil {
			t.Fatal(err)
		}
		if l.First() != first {
			t.Fatalf("trim before %d: first %d, want %d", seq, l.First(), first)
		}
		check(t, l, l.Durable())
		if err := readFrom(l, first-1, 0); !errors.Is(err, ErrTruncated) {
			t.Fatal(err)
		}
	}
	trim(0, 1)
	trim(before[1].first-1, 1)
	trim(before[1].first, before[1].first)

	// A reader under way is not disturbed.
	n := 0
	for r, err := range l.Read(l.First()) {
		if err != nil || !bytes.Equal(r.Data, rec(r.Seq)) {
			t.Fatal(r.Seq, err)
		}
		if n++; n == 1 {
			trim(1<<60, before[len(before)-1].first)
		}
	}
	if want := int(l.Durable() - before[1].first + 1); n != want {
		t.Fatalf("%d records, want %d", n, want)
	}
	names, _ := OS().ReadDir(dir)
	if len(names) != 2 {
		t.Fatalf("left over: %v", names)
	}
	first, last := l.First(), l.Durable()
	l.Close()
	l = mustOpen(t, OS(), dir, small)
	defer l.Close()
	if l.First() != first {
		t.Fatalf("first %d, want %d", l.First(), first)
	}
	check(t, l, last)
}

func TestTrimOfAnEmptyActiveSegmentSurvives(t *testing.T) {
	d := newDisk()
	l := mustOpen(t, d, "d", small)
	batches(t, l, 30)
	l.commit.Lock()
	if err := l.rotate(l.active()); err != nil {
		t.Fatal(err)
	}
	l.commit.Unlock()
	d = d.kill()
	l = mustOpen(t, d, "d", small)
	check(t, l, 30)
	if err := l.TrimBefore(31); err != nil || l.First() <= 1 {
		t.Fatal(l.First(), err)
	}
	l = mustOpen(t, d.kill(), "d", small)
	if l.Durable() != 30 || l.Staged() != 30 {
		t.Fatal(l.Durable(), l.Staged())
	}
	batches(t, l, 3)
	check(t, l, 33)
}

func TestPrepareAhead(t *testing.T) {
	d := newDisk()
	o := Options{SegmentSize: int64(2*len(zeros) + 4096), MaxRecord: len(zeros)}
	l := mustOpen(t, d, "d", o)
	prepare := func(want bool) {
		t.Helper()
		if worked, err := l.Prepare(); worked != want || err != nil {
			t.Fatalf("%v, %v; want %v", worked, err, want)
		}
	}
	big := func() {
		t.Helper()
		if _, err := l.Stage(make([]byte, len(zeros))); err != nil {
			t.Fatal(err)
		}
		commit(t, l)
	}
	prepare(false)
	big()
	big()
	prepare(true)
	prepare(true)
	prepare(true)
	prepare(false)
	spareWrites := 0
	d.fault(func(op, name string) error {
		if op == "write" && name == spareName {
			spareWrites++
		}
		return nil
	})
	big()
	if spareWrites != 1 || len(l.segs) != 2 { // the header
		t.Fatalf("%d writes at rotation, %d segments", spareWrites, len(l.segs))
	}
	prepare(false)
}

// TestTogether runs everything that may run at the same time.
func TestTogether(t *testing.T) {
	l := mustOpen(t, OS(), t.TempDir(), Options{SegmentSize: 16 << 10, MaxRecord: 200})
	const total = 20000
	var work sync.WaitGroup
	done := make(chan struct{})
	until := func(f func()) {
		work.Go(func() {
			for {
				f()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	work.Go(func() {
		defer close(done)
		for l.Durable() < total {
			if _, err := l.Commit(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	work.Go(func() {
		for seq := uint64(1); seq <= total; seq++ {
			if got, err := l.Stage(rec(seq)); err != nil || got != seq {
				t.Error(got, err)
				return
			}
		}
	})
	until(func() {
		if _, err := l.Prepare(); err != nil {
			t.Error(err)
		}
	})
	read := uint64(0) // by the landing-like reader, which goes on where it was
	until(func() {
		for r, err := range l.Read(read + 1) {
			if err != nil || r.Seq != read+1 || !bytes.Equal(r.Data, rec(r.Seq)) {
				t.Error(r.Seq, err)
				return
			}
			read = r.Seq
		}
		if err := l.TrimBefore(read + 1); err != nil {
			t.Error(err)
		}
	})
	until(func() {
		head, first := l.Durable(), l.First()
		if err := readFrom(l, first, head); err != nil && !errors.Is(err, ErrTruncated) && l.Durable() == head {
			t.Error(err)
		}
	})
	work.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := readFrom(l, read+1, total); err != ErrClosed {
		t.Fatal(err)
	}
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, OS(), dir, small)
	batches(t, l, 3, 30, 30)
	r, err := Inspect(OS(), dir) // in use
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if r.First != 1 || r.Last != 63 || r.Mark != 63 || !r.HasMark || r.Records != 63 || r.Batches < 3 ||
		len(r.Segments) < 2 || r.TornTail != nil || r.Corruption != nil ||
		r.Size != int64(len(r.Segments))*small.SegmentSize || r.Bytes == 0 {
		t.Errorf("%+v", r)
	}
	name := filepath.Join(dir, r.Segments[1].Name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[segmentHeaderSize] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = Inspect(OS(), dir)
	if err != nil || r.Corruption == nil || r.Corruption.Seq != r.Segments[1].First ||
		r.Corruption.Segment != name || r.Corruption.Offset != segmentHeaderSize {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Inspect(OS(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
