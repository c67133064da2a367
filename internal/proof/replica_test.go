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

// counted tells how often a replica was asked of the ledger's snapshots.
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

func newLedger(t testing.TB, o walstock.Options) *counted {
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
	mark := l.Head()
	mark.Position -= 10
	check(mark) // backwards: from the first entry again
	if l.anew != 0 {
		t.Errorf("snapshots were read %d times, though the log was whole", l.anew)
	}
}

// Where the log is gone, or does not follow, the replica comes from snapshots,
// but for activities whose first entry is in the log still.
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
			t.Fatalf("another state, or snapshots read %d times, want %d (%v)", l.anew, anew, err)
		}
	}
	work(t, l, 0)
	advance(0)
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
	advance(1)
	if since := r.limits["a"].since; since != r.at.Position {
		t.Errorf("a was not seen before %d, limits are said to be held from %d on", r.at.Position, since)
	}
	if err := l.Open(t.Context(), stocktest.Allocation("c", 10, 0)); err != nil {
		t.Fatal(err)
	}
	work(t, l, 1000)
	l.broken = func(e stock.Entry) stock.Entry {
		if e.Activity != "c" {
			e.Sequence++
		}
		return e
	}
	advance(2)
	if since := r.limits["c"].since; since != 0 {
		t.Errorf("all of c is in the log, limits are said to be held from %d on", since)
	}
	l.broken = nil
	work(t, l, 1001)
	advance(2)
}

// A replica whose making was cut short goes on where it was.
func TestReplicaGoesOn(t *testing.T) {
	l := newLedger(t, walstock.Options{})
	work(t, l, 0)
	r := replica{ledger: l}
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	l.broken = func(e stock.Entry) stock.Entry {
		if read++; read == 20 {
			cancel()
		}
		return e
	}
	if _, err := r.advance(ctx, l.Head()); err == nil || r.at.Position < 19 {
		t.Fatalf("cut short: %v at %d", err, r.at.Position)
	}
	if _, err := r.advance(t.Context(), l.Head()); err != nil || read > int(l.Head().Position)+2 || l.anew != 0 {
		t.Errorf("%v; %d entries were read of %d", err, read, l.Head().Position)
	}
}
