package sqlstore

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

func TestProofs(t *testing.T) { checkProofs(t, openStore(t)) }

// A proof is kept as it was made, the newest one of each activity, and an
// activity that has one is no longer among the living.
func checkProofs(t *testing.T, s *Store) {
	for _, id := range []stock.ActivityID{"a", "b", "c", "d", "e"} {
		must(t, s.CreateActivity(t.Context(), sale.Activity{ID: id, Kind: "flash", Title: "Drop", State: sale.Open, Revision: 1}))
	}
	for _, id := range []stock.ActivityID{"b", "c", "d"} {
		_, err := s.UpdateActivity(t.Context(), id, func(a *sale.Activity) error { a.State = sale.Closed; return nil })
		must(t, err)
	}
	selects := func(q sale.Query, want ...string) {
		t.Helper()
		found, err := s.Select(t.Context(), q)
		must(t, err)
		var got []string
		for _, a := range found {
			got = append(got, string(a.ID))
		}
		equal(t, "selected", got, want)
	}
	subjects := func(since stock.Millis, want ...proof.Subject) {
		t.Helper()
		got, err := s.Subjects(t.Context(), since)
		must(t, err)
		slices.SortFunc(got, func(a, b proof.Subject) int { return strings.Compare(string(a.Activity), string(b.Activity)) })
		equal(t, "subjects", got, want)
	}
	at := time.Date(2027, 2, 3, 4, 5, 6, 7_000_000, time.UTC)
	r := proof.Report{
		Activity: "b", Position: proof.Position{Log: "wal", Epoch: 1, Position: 99}, OK: true, Final: true, Violations: []string{},
		Ledger: []stock.Count{{SKU: "s", Allocated: 3, Free: 1, Confirmed: 2, Level: stock.Plenty}}, Orders: map[order.State]int{order.Paid: 2},
		Payments: proof.Payments{Captured: 200}, CheckedAt: at,
	}
	if _, ok, err := s.Proof(t.Context(), "b"); ok || err != nil {
		t.Errorf("before there was one: %v, %v", ok, err)
	}
	selects(sale.Query{Living: true}, "a", "b", "c", "d", "e")
	must(t, s.SaveProof(t.Context(), r))
	r.Position.Position, r.CheckedAt = 100, at.Add(time.Second)
	must(t, s.SaveProof(t.Context(), r))
	old := r
	old.Activity, old.CheckedAt = "c", at.Add(-time.Hour)
	must(t, s.SaveProof(t.Context(), old))
	got, ok, err := s.Proof(t.Context(), "b")
	must(t, err)
	if d := cmp.Diff(r, got, cmpopts.IgnoreUnexported(proof.Drift{})); !ok || d != "" {
		t.Errorf("%v (-want +got):\n%s", ok, d)
	}
	ids, err := s.Proved(t.Context())
	must(t, err)
	slices.Sort(ids)
	equal(t, "proved", ids, []stock.ActivityID{"b", "c"})

	selects(sale.Query{Living: true}, "a", "d", "e")
	selects(sale.Query{Living: true, After: "a", Limit: 1}, "d")
	selects(sale.Query{}, "a", "b", "c", "d", "e")
	selects(sale.Query{After: "b", Limit: 2}, "c", "d")
	selects(sale.Query{ID: "c"}, "c")
	selects(sale.Query{ID: "none"})
	closed := func(id stock.ActivityID, proved bool) proof.Subject {
		return proof.Subject{Activity: id, Closed: true, Proved: proved}
	}
	open := func(id stock.ActivityID) proof.Subject { return proof.Subject{Activity: id} }
	subjects(stock.MillisOf(at), open("a"), closed("b", true), closed("d", false), open("e"))
	subjects(stock.MillisOf(at.Add(-time.Hour)), open("a"), closed("b", true), closed("c", true), closed("d", false), open("e"))
	// A later edit of its row brings it back to nobody's attention.
	_, err = s.UpdateActivity(t.Context(), "b", func(*sale.Activity) error { return nil })
	must(t, err)
	selects(sale.Query{Living: true}, "a", "d", "e")
}

// What lives is found by an index, however many activities there were.
func TestLivingByIndex(t *testing.T) {
	s := openStore(t)
	f := func(query string) {
		t.Helper()
		must(t, s.reading(t.Context(), "plan", func(c *conn) error {
			row, _, err := c.one("EXPLAIN QUERY PLAN "+query, "")
			if plan := text(row[3]); !strings.Contains(plan, "INDEX activities_proved (proved=?") {
				t.Errorf("%s: %s", query, plan)
			}
			return err
		}))
	}
	f("SELECT doc FROM activities WHERE proved = 0 AND id > ? ORDER BY id")
	f("SELECT id, state FROM activities WHERE proved = 0 AND '' = ?")
}
