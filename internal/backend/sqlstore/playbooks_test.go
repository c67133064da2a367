package sqlstore

import (
	"fmt"
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
	for version := range int64(5) {
		version += 2
		i := oneSaves(t, func(i int) (bool, error) {
			c := PlaybookChange{Version: version, Actor: "ops", Action: "saved", Subject: fmt.Sprint(i), Body: []byte("{}")}
			return s.SavePlaybooks(t.Context(), c, fmt.Appendf(nil, "%d by %d", version, i))
		})
		shelf(version, fmt.Sprintf("%d by %d", version, i))
	}
	sixEditions(t, s.PlaybookChanges, func(c PlaybookChange) int64 { return c.Version }, first)
}
