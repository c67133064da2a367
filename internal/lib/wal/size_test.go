package wal

import "testing"

// Within answers where the log has to begin to be no larger than asked for, and
// trimming there makes it so.
func TestWithin(t *testing.T) {
	l := mustOpen(t, OS(), t.TempDir(), small)
	defer l.Close()
	for l.Size() < 6*small.SegmentSize {
		batches(t, l, 3)
	}
	f := func(bytes, want int64) {
		t.Helper()
		if err := l.TrimBefore(l.Within(bytes)); err != nil {
			t.Fatal(err)
		}
		if got := l.Size(); got != want*small.SegmentSize {
			t.Errorf("within %d: %d bytes are left, want %d segments", bytes, got, want)
		}
	}
	f(1<<40, 6)
	f(6*small.SegmentSize, 6)
	f(6*small.SegmentSize-1, 5)
	f(3*small.SegmentSize+1, 3)
	f(0, 1)
	check(t, l, l.Durable())
}
