package walstock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/wal"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

const segment = 1 << 17

// sell fills the log by some segments, with snapshots on the way.
func sell(t *testing.T, l *walstock.Ledger, activity string, segments int64) {
	t.Helper()
	for round, until := 0, l.Head().Position+uint64(segments)*800; l.Head().Position < until; round++ {
		for i := range 100 {
			r := stocktest.Request(activity, fmt.Sprint("u", l.Head().Position, "-", i), "k", 1)
			if _, err := l.Reserve(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		compact(t, l)
	}
}

func compact(t *testing.T, l *walstock.Ledger) {
	t.Helper()
	if err := l.Trim(t.Context(), l.Head()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// begins is the first entry that can still be read.
func begins(t *testing.T, l *walstock.Ledger) stock.Entry {
	t.Helper()
	for e, err := range l.Tail(t.Context(), l.Start()) {
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	t.Fatal("the log is empty")
	return stock.Entry{}
}

func allocate(t *testing.T, l *walstock.Ledger, activity string) {
	t.Helper()
	if err := l.Open(t.Context(), stocktest.Allocation(activity, 100_000, 0)); err != nil {
		t.Fatal(err)
	}
}

// The log is kept from the first entry of what is not released, over snapshots
// and restarts, and goes when it is.
func TestKeptUntilReleased(t *testing.T) {
	dir := t.TempDir()
	o := walstock.Options{SegmentSize: segment, SnapshotAt: 200, KeepLog: 1 << 30}
	l, stop := running(t, dir, o)
	f := func(when string, activity stock.ActivityID) {
		t.Helper()
		compact(t, l)
		if e := begins(t, l); e.Activity != activity && activity != "" {
			t.Errorf("%s: the log begins with entry %d of %s, want one of %s", when, e.Sequence, e.Activity, activity)
		}
		if lost := l.Lost(); len(lost) != 0 {
			t.Errorf("%s: lost %v", when, lost)
		}
	}
	allocate(t, l, "a")
	sell(t, l, "a", 3)
	allocate(t, l, "b")
	second := l.Head().Position
	sell(t, l, "b", 4)
	f("selling", "a")
	stop()
	l, stop = running(t, dir, o) // its books come from a snapshot now
	f("after a restart", "a")
	sell(t, l, "b", 1)
	f("selling again", "a")
	if begins(t, l).Kind != stock.EntryOpened {
		t.Error("the opening entry of a is gone")
	}
	l.Release("a", "never heard of")
	f("a is released", "")
	first := l.Start().Position
	if first == 0 || first >= second {
		t.Errorf("a is released: the log starts behind %d; b begins at %d", first, second)
	}
	stop()
	l, _ = running(t, dir, o)
	l.Release("a")
	f("and after a restart", "")
	if at := l.Start().Position; at != first {
		t.Errorf("after a restart the log starts behind %d, before it behind %d", at, first)
	}
	l.Release("b")
	f("all are released", "b")
	if at := l.Start().Position; at <= second {
		t.Errorf("all are released: the log starts behind %d", at)
	}
}

// Past its bound the log goes on, and says once whose first entries went.
func TestKeptUpToABound(t *testing.T) {
	f := func(keep int64, want []stock.ActivityID) {
		t.Helper()
		dir := t.TempDir()
		o := walstock.Options{SegmentSize: segment, SnapshotAt: 200, KeepLog: keep}
		l, stop := running(t, dir, o)
		allocate(t, l, "a")
		sell(t, l, "a", 2)
		allocate(t, l, "b")
		l.Release("b")
		sell(t, l, "a", 6)
		if lost := l.Lost(); !slices.Equal(lost, want) {
			t.Errorf("keep %d: lost %v, want %v", keep, lost, want)
		}
		if most := max(keep, 3*segment); l.LogSize() > most {
			t.Errorf("keep %d: the log takes %d bytes", keep, l.LogSize())
		}
		if e := begins(t, l); e.Sequence == 1 {
			t.Errorf("keep %d: the log begins with the first entry of %s", keep, e.Activity)
		}
		sell(t, l, "a", 2)
		stop()
		l, _ = running(t, dir, o)
		sell(t, l, "a", 2)
		if lost := l.Lost(); len(lost) != 0 {
			t.Errorf("keep %d: told again of %v", keep, lost)
		}
	}
	f(4*segment, []stock.ActivityID{"a"})
	f(1, []stock.ActivityID{"a"})
	f(0, nil) // nothing was to be kept
}

// A full disk is a bound too: selling comes before telling.
func TestFullDiskTakesTheTrail(t *testing.T) {
	fs := failingFS{wal.OS(), new(atomic.Bool), new(atomic.Bool), new(atomic.Int64)}
	l, _ := running(t, t.TempDir(), walstock.Options{FS: fs, SegmentSize: segment, SnapshotAt: 200, KeepLog: 1 << 30})
	allocate(t, l, "a")
	sell(t, l, "a", 3)
	before := l.LogSize()
	fs.full.Store(true)
	defer fs.full.Store(false) // or the committer never ends
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		_, err = l.Reserve(ctx, stocktest.Request("a", fmt.Sprint("x", i), "k", 1))
	}
	if !errors.Is(err, stock.ErrUnknown) || l.Full() == nil {
		t.Fatalf("the disk is not full: %v", err)
	}
	if _, err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.LogSize() >= before || !slices.Equal(l.Lost(), []stock.ActivityID{"a"}) {
		t.Errorf("the log took %d bytes and takes %d", before, l.LogSize())
	}
}
