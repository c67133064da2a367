package sqlstore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestPlaybooks(t *testing.T) { checkPlaybooks(t, openStore(t)) }

// Of all who change the same version one is the next, the shelf is always of
// the last change, and no change is ever lost.
func checkPlaybooks(t *testing.T, s *Store) {
	shelf := func(version int64, want string) {
		t.Helper()
		if v, err := s.PlaybooksVersion(t.Context()); err != nil || v != version {
			t.Errorf("version %d, %v, want %d", v, err, version)
		}
		if v, body, err := s.PlaybookShelf(t.Context()); err != nil || v != version || string(body) != want {
			t.Errorf("shelf of %d: %s, %v; want %d: %s", v, body, err, version, want)
		}
	}
	save := func(c PlaybookChange, body string, want bool) {
		t.Helper()
		if saved, err := s.SavePlaybooks(t.Context(), c, []byte(body)); err != nil || saved != want {
			t.Errorf("saving %d: %v, %v, want %v", c.Version, saved, err, want)
		}
	}
	shelf(0, "")
	first := PlaybookChange{Version: 1, At: 7, Actor: "ops", Action: "pulled", Subject: "siege", Note: "für 双十一", Body: []byte(`{"id":"siege"}`)}
	save(PlaybookChange{Version: 2}, "not the next", false)
	shelf(0, "")
	save(first, "one", true)
	save(first, "again", false)
	shelf(1, "one")
	const editors = 8
	for version := range int64(5) {
		version += 2
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range editors {
			all.Go(func() {
				c := PlaybookChange{Version: version, Actor: "ops", Action: "saved", Subject: fmt.Sprint(i), Body: []byte("{}")}
				saved, err := s.SavePlaybooks(t.Context(), c, fmt.Appendf(nil, "%d by %d", version, i))
				if err != nil {
					t.Error(err)
				} else if saved && won.Add(1) == 1 {
					shelf(version, fmt.Sprintf("%d by %d", version, i))
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("version %d: %d of %d saved", version, won.Load(), editors)
		}
	}
	page := func(before int64, limit int, want ...int64) []PlaybookChange {
		t.Helper()
		found, err := s.PlaybookChanges(t.Context(), before, limit)
		must(t, err)
		var got []int64
		for _, c := range found {
			got = append(got, c.Version)
		}
		equal(t, "versions", got, want)
		return found
	}
	page(0, 2, 6, 5)
	page(5, 2, 4, 3)
	equal(t, "the first", page(2, 2, 1)[0], first)
	page(1, 2)
	if _, err := s.PlaybookChanges(t.Context(), 0, 501); err == nil {
		t.Error("a page of 501")
	}
}
