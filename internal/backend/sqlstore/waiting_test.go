package sqlstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
	"sluice/test/servers"
)

func TestWaiting(t *testing.T) {
	linetest.Run(t, func(t *testing.T) waiting.Line { return openStore(t).Waiting() })
}

// joinMany has n users join, so many at a time, each under an entry id that is his name.
func joinMany(tb testing.TB, w *Waiting, activity string, n, atOnce int) {
	tb.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				var e waiting.EntryID
				binary.BigEndian.PutUint64(e[:], uint64(i))
				if _, _, err := w.Join(context.Background(), activity, "user-"+strconv.FormatInt(i, 10), e, -1, waiting.MaxJoined); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestLargeRoom(t *testing.T) { checkLargeRoom(t, openStore(t)) }

// A room of several groups and several steps of forgetting.
func checkLargeRoom(t *testing.T, s *Store) {
	w := s.Waiting()
	const n = 2*dropSize + 1
	for _, activity := range []string{"a", "b"} {
		_, err := w.Open(t.Context(), activity, waiting.Seed{}, 1)
		must(t, err)
		joinMany(t, w, activity, n, 300)
	}
	whole := func(activity string, joined int) {
		t.Helper()
		list, err := w.Entries(t.Context(), activity, 0, maxEntries)
		must(t, err)
		seen := map[waiting.EntryID]bool{}
		for number, e := range list {
			if seen[e] {
				t.Errorf("entry %x twice", e)
			}
			seen[e] = true
			if number%500 == 0 {
				found, given, err := w.Find(t.Context(), activity, fmt.Sprint("user-", binary.BigEndian.Uint64(e[:])))
				if err != nil || found != number || given != e {
					t.Errorf("the user of number %d has %d, %x, %v", number, found, given, err)
				}
			}
		}
		if len(list) != joined {
			t.Errorf("%d entries, want %d", len(list), joined)
		}
	}
	whole("a", n)
	if c := s.Stats(); c.Writes > n/2 {
		t.Errorf("%d writes for %d who joined: they do not share", c.Writes, 2*n)
	}
	must(t, w.Drop(t.Context(), "a"))
	whole("a", 0)
	whole("b", n)
}

// Who has joined has joined, whatever becomes of the process.
func TestWaitingReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.db")
	s := openAt(t, path, Options{})
	w := s.Waiting()
	before, err := w.Open(t.Context(), "a", waiting.Seed{7}, 1)
	must(t, err)
	joinMany(t, w, "a", 10, 3)
	before, err = w.Advance(t.Context(), "a", before.Revision, waiting.Progress{Head: 3, Digest: []byte{1}})
	must(t, err)
	number, entry, err := w.Find(t.Context(), "a", "user-5")
	must(t, err)
	must(t, s.Close())

	s = openAt(t, path, Options{})
	w = s.Waiting()
	after, err := w.Room(t.Context(), "a")
	must(t, err)
	equal(t, "room", after, before)
	again, same, err := w.Join(t.Context(), "a", "user-5", waiting.EntryID{9}, -1, 100)
	if err != nil || again != number || same != entry {
		t.Errorf("joined again: %d, %x, %v; had %d, %x", again, same, err, number, entry)
	}
	must(t, s.Close())
}

// BenchmarkJoin is a room filling up with 50,000 users of whom 2,000 come at once.
func BenchmarkJoin(b *testing.B) {
	f := func(name string, open func() *Store) {
		b.Run(name, func(b *testing.B) {
			w := open().Waiting()
			for i := range b.N {
				activity := fmt.Sprint("b", i)
				if _, err := w.Open(b.Context(), activity, waiting.Seed{}, 1); err != nil {
					b.Fatal(err)
				}
				joinMany(b, w, activity, 50_000, 2000)
			}
			b.ReportMetric(50_000*float64(b.N)/b.Elapsed().Seconds(), "joins/s")
		})
	}
	f("sqlite", func() *Store { return openStore(b) })
	f("server", func() *Store { return onServer(b, servers.MariaDB(b), servers.SQLDatabase, "") })
}
