package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/internal/stock"
	"sluice/test/servers"
)

func TestGateLists(t *testing.T)         { checkGateLists(t, openStore(t)) }
func TestGateListsFollowed(t *testing.T) { checkGateListsFollowed(t, openStore(t)) }

func listed(list, kind, subject, activity string) GateListEntry {
	return GateListEntry{List: list, Kind: kind, Subject: subject, Activity: activity, Reason: "für 双十一", By: "ops", Since: 5}
}

// saveLists puts entries as they are, in place of those that are there.
func saveLists(ctx context.Context, s *Store, entries ...GateListEntry) (saved []GateListEntry, newest int64, err error) {
	var subjects []string
	for _, e := range entries {
		subjects = append(subjects, e.Subject)
	}
	return s.ChangeGateLists(ctx, subjects, func([]GateListEntry, int64) ([]GateListEntry, error) { return slices.Clone(entries), nil })
}

// Entries are kept with what was said of them, found in every way, changed on the
// condition of what is there, and cleared away when their time is over.
func checkGateLists(t *testing.T, s *Store) {
	ctx := t.Context()
	changes := func(after int64, limit int, newest, forgotten int64, want ...GateListEntry) {
		t.Helper()
		page, err := s.GateListChanges(ctx, after, limit)
		must(t, err)
		equal(t, fmt.Sprintf("changes after %d", after), page, GateListChanges{want, newest, forgotten})
	}
	entries := func(q GateListQuery, limit int, want ...GateListEntry) {
		t.Helper()
		page, err := s.GateListEntries(ctx, q, limit)
		must(t, err)
		equal(t, fmt.Sprintf("%+v", q), page, want)
	}
	counted := func(want int64) {
		t.Helper()
		_, _, err := s.ChangeGateLists(ctx, nil, func(_ []GateListEntry, n int64) ([]GateListEntry, error) {
			equal(t, "listed", n, want)
			return nil, nil
		})
		must(t, err)
	}
	changes(0, 10, 0, 0)
	counted(0)
	long := strings.Repeat("x", 64)
	all := []GateListEntry{listed("black", "user", long, ""), listed("white", "user", "ann", "drop"), listed("grey", "ip", "10.0.0.0/8", ""), listed("black", "user", "ann", "")}
	all[0].Reason = strings.Repeat("双", 200)
	all[1].Until = 100
	saved, newest, err := saveLists(ctx, s, all...)
	must(t, err)
	for i := range all {
		all[i].Revision = int64(i + 1)
	}
	equal(t, "saved", saved, all)
	equal(t, "newest", newest, 4)
	counted(4)
	changes(0, 10, 4, 0, all...)
	changes(1, 2, 4, 0, all[1], all[2])
	changes(4, 2, 4, 0)
	entries(GateListQuery{}, 2, all[3], all[2])
	entries(GateListQuery{Before: 3}, 10, all[1], all[0])
	entries(GateListQuery{List: "black"}, 10, all[3], all[0])
	entries(GateListQuery{List: "black", Kind: "ip"}, 10)
	entries(GateListQuery{Kind: "user", Activities: []string{"drop"}}, 10, all[1])
	entries(GateListQuery{Activities: []string{"", "other"}}, 10, all[3], all[2], all[0])
	entries(GateListQuery{Subjects: []string{"ann", "10.0.0.0/8", "'; --"}, Before: 4}, 10, all[2], all[1])

	// A change sees what is there, all of the subject; an error undoes it.
	refused := errors.New("no")
	_, _, err = s.ChangeGateLists(ctx, []string{"ann", "nobody"}, func(have []GateListEntry, n int64) ([]GateListEntry, error) {
		slices.SortFunc(have, func(a, b GateListEntry) int { return int(a.Revision - b.Revision) })
		equal(t, "have", have, []GateListEntry{all[1], all[3]})
		return have, refused
	})
	if err != refused {
		t.Errorf("%v, want the caller's own error", err)
	}
	changes(4, 10, 4, 0)

	gone := all[3]
	gone.Removed, gone.Until = true, 50
	saved, newest, err = saveLists(ctx, s, gone)
	must(t, err)
	gone.Revision = 5
	equal(t, "removed", saved, []GateListEntry{gone})
	equal(t, "newest", newest, 5)
	counted(3)
	entries(GateListQuery{Subjects: []string{"ann"}}, 10, all[1])
	changes(3, 10, 5, 0, gone)
	checkGateListsTrim(t, s, all, gone, changes, counted)
	for _, limit := range []int{0, maxListPage + 1} {
		_, err := s.GateListChanges(ctx, 0, limit)
		is(t, "limit of changes", err, stock.ErrInvalid)
		_, err = s.GateListEntries(ctx, GateListQuery{}, limit)
		is(t, "limit of entries", err, stock.ErrInvalid)
		_, err = s.TrimGateLists(ctx, 0, 0, limit)
		is(t, "limit of trimming", err, stock.ErrInvalid)
	}
}

func checkGateListsTrim(t *testing.T, s *Store, all []GateListEntry, gone GateListEntry,
	changes func(after int64, limit int, newest, forgotten int64, want ...GateListEntry), counted func(int64)) {
	t.Helper()
	trim := func(before, now stock.Millis, want bool) {
		t.Helper()
		worked, err := s.TrimGateLists(t.Context(), before, now, 10)
		must(t, err)
		equal(t, "worked", worked, want)
	}
	trim(50, 200, false) // what happened at that time stays
	changes(3, 10, 5, 0, gone)
	trim(51, 200, true)
	changes(3, 10, 5, 5)
	trim(101, 200, true) // an end that has passed is a removal
	ended := all[1]
	ended.Removed, ended.Until, ended.Revision = true, 200, 6
	changes(5, 10, 6, 5, ended)
	counted(2)
	trim(200, 300, false)
	trim(201, 300, true)
	changes(0, 10, 6, 6, all[0], all[2])
	trim(1<<50, 1<<50, false)
	counted(2)
}

// Many change lists at the same time: each change has the next revision, and who
// follows them page by page hears of each, in their order.
func checkGateListsFollowed(t *testing.T, s *Store) {
	const writers, rounds, batch = 6, 5, 7
	ctx := t.Context()
	done := make(chan struct{})
	var wrote sync.WaitGroup
	for w := range writers {
		wrote.Go(func() {
			for r := range rounds {
				var entries []GateListEntry
				for i := range batch {
					entries = append(entries, listed("black", "user", fmt.Sprintf("%d-%d-%d", w, r, i), ""))
				}
				if _, _, err := saveLists(ctx, s, entries...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { wrote.Wait(); close(done) }()
	at, over := int64(0), false
	for {
		page, err := s.GateListChanges(ctx, at, 10)
		must(t, err)
		for _, e := range page.Entries {
			if at++; e.Revision != at {
				t.Fatalf("revision %d follows %d", e.Revision, at-1)
			}
		}
		if over && len(page.Entries) == 0 {
			break
		}
		select {
		case <-done:
			over = true
		default:
		}
	}
	equal(t, "changes", at, int64(writers*rounds*batch))
}

// A COMMIT whose answer is lost, whatever became of it, makes each change once.
func TestGateListsCommitWithoutAnswer(t *testing.T) {
	d := servers.MariaDB(t)
	p := newProxy(t, d.Addr)
	s, err := OpenServer(t.Context(), strings.Replace(d.URL(servers.SQLDatabase), d.Addr, p.addr, 1), Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	for _, f := range []fate{never, done, later} {
		t.Run(string(f), func(t *testing.T) {
			onServer(t, d, servers.SQLDatabase, "") // empties it
			_, _, err := saveLists(t.Context(), s, listed("black", "user", "a", ""))
			must(t, err)
			p.arm(f)
			saved, newest, err := s.ChangeGateLists(t.Context(), []string{"a", "b"}, func(have []GateListEntry, n int64) ([]GateListEntry, error) {
				if len(have) != 1 || have[0].Revision != 1 || n != 1 {
					return nil, fmt.Errorf("have %+v of %d", have, n)
				}
				return []GateListEntry{listed("white", "user", "b", ""), listed("white", "user", "a", "")}, nil
			})
			must(t, err)
			if p.armed.Load() != nil {
				t.Error("no COMMIT came by")
			}
			if len(saved) != 2 || newest != 3 || saved[1].Revision != 3 {
				t.Errorf("newest %d, saved %+v", newest, saved)
			}
			page, err := s.GateListChanges(t.Context(), 1, 10)
			must(t, err)
			equal(t, "changes", page, GateListChanges{saved, 3, 0})
		})
	}
}

func BenchmarkGateLists(b *testing.B) {
	s := openStore(b)
	for i := 0; b.Loop(); i++ {
		entries := make([]GateListEntry, 1000)
		for j := range entries {
			entries[j] = listed("black", "user", fmt.Sprintf("u-%d-%d", i, j), "")
		}
		if _, _, err := saveLists(b.Context(), s, entries...); err != nil {
			b.Fatal(err)
		}
	}
}
