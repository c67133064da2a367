package sqlstore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestGateRules(t *testing.T) { checkGateRules(t, openStore(t)) }

// Of all who edit the same version one is the next, and no edition is ever lost
// or changed.
func checkGateRules(t *testing.T, s *Store) {
	version := func(want int64) {
		t.Helper()
		if v, err := s.GateRulesVersion(t.Context()); err != nil || v != want {
			t.Errorf("version %d, %v, want %d", v, err, want)
		}
	}
	save := func(r GateRules, want bool) {
		t.Helper()
		if saved, err := s.SaveGateRules(t.Context(), r); err != nil || saved != want {
			t.Errorf("saving %d: %v, %v, want %v", r.Version, saved, err, want)
		}
	}
	version(0)
	first := GateRules{Version: 1, At: 7, Actor: "ops", Note: "für 双十一", Body: []byte(`[{"id":"a"}]`)}
	save(GateRules{Version: 2}, false)
	version(0)
	save(first, true)
	save(first, false)
	version(1)
	const editors = 8
	for round := range int64(5) {
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range editors {
			all.Go(func() {
				r := GateRules{Version: 2 + round, Actor: "ops", Note: fmt.Sprint(i), Body: []byte("[]")}
				if saved, err := s.SaveGateRules(t.Context(), r); err != nil {
					t.Error(err)
				} else if saved {
					won.Add(1)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("round %d: %d of %d saved", round, won.Load(), editors)
		}
	}
	version(6)
	page := func(before int64, limit int, want ...int64) []GateRules {
		t.Helper()
		found, err := s.GateRules(t.Context(), before, limit)
		must(t, err)
		var got []int64
		for _, r := range found {
			got = append(got, r.Version)
		}
		equal(t, "versions", got, want)
		return found
	}
	page(0, 2, 6, 5)
	page(5, 2, 4, 3)
	equal(t, "the first", page(2, 2, 1)[0], first)
	page(1, 2)
	if _, err := s.GateRules(t.Context(), 0, 501); err == nil {
		t.Error("a page of 501")
	}
}
