package sqlstore

import (
	"testing"

	"sluice/internal/stock"
)

func TestRepairsAreKept(t *testing.T) { checkRepairs(t, openStore(t)) }

func checkRepairs(t *testing.T, s *Store) {
	f := func(activity stock.ActivityID, id, want string) {
		t.Helper()
		if doc, err := s.Repair(t.Context(), activity, id); err != nil || string(doc) != want {
			t.Errorf("%s %s: %q, %v, want %q", activity, id, doc, err, want)
		}
	}
	save := func(activity stock.ActivityID, id, doc string) {
		t.Helper()
		if err := s.SaveRepair(t.Context(), activity, id, []byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	f("a", "r1", "")
	save("a", "r1", `{"begun":1}`)
	save("b", "r1", `{"other":1}`)
	f("a", "r1", `{"begun":1}`)
	save("a", "r1", `{"done":1}`)
	f("a", "r1", `{"done":1}`)
	f("b", "r1", `{"other":1}`)
	f("a", "r2", "")
}
