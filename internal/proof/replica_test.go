package proof

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"testing"

	"sluice/internal/backend/walstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// counted tells how often a replica was made anew.
type counted struct {
	*walstock.Ledger
	anew   int
	broken func(stock.Entry) stock.Entry
}

func (c *counted) Replica(ctx context.Context, upTo stock.Cursor) (map[stock.ActivityID]*stock.Book, error) {
	c.anew++
	return c.Ledger.Replica(ctx, upTo)
}

func (c *counted) Tail(ctx context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		for e, err := range c.Ledger.Tail(ctx, after) {
			if c.broken != nil {
				e = c.broken(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func newLedger(t *testing.T, o walstock.Options) *counted {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	l, err := walstock.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			_, _ = l.Commit(ctx)
			select {
			case <-ctx.Done():
				return
			case <-l.Wake():
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &counted{Ledger: l}
}

// work opens activities and makes some reservations and settlements in each.
func work(t *testing.T, l *counted, round int) {
	t.Helper()
	for _, activity := range []string{"a", "b"} {
		if round == 0 {
			if err := l.Open(t.Context(), stocktest.Allocation(activity, 10_000, 0)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 30 {
			r, err := l.Reserve(t.Context(), stocktest.Request(activity, fmt.Sprint("u", i), fmt.Sprint("k", round), 1))
			if err != nil {
				t.Fatal(err)
			}
			if outcome := []stock.Outcome{stock.Confirmed, stock.Released, 0}[i%3]; outcome != 0 {
				if _, err := l.Settle(t.Context(), stock.Settlement{ID: r.ID, Outcome: outcome}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func hashes(books map[stock.ActivityID]*stock.Book) map[stock.ActivityID]string {
	all := map[stock.ActivityID]string{}
	for id, b := range books {
		all[id] = b.Hash()
	}
	return all
}

// A replica that is taken along is the same as one made anew, at every mark on
// the way, and never goes past it.
func TestReplicaAdvances(t *testing.T) {
	l := newLedger(t, walstock.Options{})
	r := replica{ledger: l}
	check := func(mark stock.Cursor) {
		t.Helper()
		books, err := r.advance(t.Context(), mark)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := l.Ledger.Replica(t.Context(), mark)
		if err != nil || !maps.Equal(hashes(books), hashes(fresh)) {
			t.Fatalf("at %d: %v (%v), made anew %v", mark.Position, hashes(books), err, hashes(fresh))
		}
	}
	check(stock.Cursor{Log: walstock.LogID})
	for round := range 5 {
		work(t, l, round)
		head := l.Head()
		for _, back := range []uint64{70, 33, 1, 0, 0} {
			mark := head
			mark.Position -= back
			check(mark)
		}
	}
	if l.anew != 1 {
		t.Errorf("made anew %d times, though the log was whole", l.anew)
	}
	mark := l.Head()
	mark.Position -= 10
	check(mark) // backwards
	if l.anew != 2 {
		t.Errorf("made anew %d times after a step backwards", l.anew)
	}
}

// Where the log is gone, or does not follow, the replica is made anew.
func TestReplicaIsMadeAnew(t *testing.T) {
	l := newLedger(t, walstock.Options{SegmentSize: 1 << 17, SnapshotAt: 50})
	r := replica{ledger: l}
	advance := func(anew int) {
		t.Helper()
		books, err := r.advance(t.Context(), l.Head())
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := l.Ledger.Replica(t.Context(), l.Head())
		if err != nil || !maps.Equal(hashes(books), hashes(fresh)) || l.anew != anew {
			t.Fatalf("another state, or made anew %d times, want %d (%v)", l.anew, anew, err)
		}
	}
	work(t, l, 0)
	advance(1)
	truncated := func() bool {
		for _, err := range l.Ledger.Tail(t.Context(), r.at) {
			return err != nil
		}
		return false
	}
	for round := 1; !truncated(); round++ {
		if round == 500 {
			t.Fatal("the log was never trimmed past the replica")
		}
		work(t, l, round)
		if err := l.Trim(t.Context(), l.Head()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	advance(2)
	work(t, l, 1000)
	l.broken = func(e stock.Entry) stock.Entry { e.Sequence++; return e }
	advance(3)
	l.broken = nil
	work(t, l, 1001)
	advance(3)
}
