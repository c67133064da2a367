package sqlstore

import (
	"context"
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
	for round := range int64(5) {
		oneSaves(t, func(i int) (bool, error) {
			return s.SaveGateRules(t.Context(), GateRules{Version: 2 + round, Actor: "ops", Note: fmt.Sprint(i), Body: []byte("[]")})
		})
	}
	version(6)
	sixEditions(t, s.GateRules, func(r GateRules) int64 { return r.Version }, first)
}

// oneSaves lets eight editors save at once and answers the one who could.
func oneSaves(t *testing.T, save func(editor int) (bool, error)) int {
	t.Helper()
	const editors = 8
	var winner, saves atomic.Int64
	var all sync.WaitGroup
	for i := range editors {
		all.Go(func() {
			if saved, err := save(i); err != nil {
				t.Error(err)
			} else if saved {
				winner.Store(int64(i))
				saves.Add(1)
			}
		})
	}
	all.Wait()
	if saves.Load() != 1 {
		t.Errorf("%d of %d saved", saves.Load(), editors)
	}
	return int(winner.Load())
}

// sixEditions reads six editions, of which the oldest is known, page by page,
// newest first.
func sixEditions[E any](t *testing.T, read func(ctx context.Context, before int64, limit int) ([]E, error), version func(E) int64, oldest E) {
	t.Helper()
	page := func(before int64, limit int, want ...int64) []E {
		t.Helper()
		found, err := read(t.Context(), before, limit)
		must(t, err)
		var got []int64
		for _, e := range found {
			got = append(got, version(e))
		}
		equal(t, "versions", got, want)
		return found
	}
	page(0, 2, 6, 5)
	page(5, 2, 4, 3)
	if last := page(2, 2, 1); len(last) == 1 {
		equal(t, "the first", last[0], oldest)
	}
	page(1, 2)
	if _, err := read(t.Context(), 0, 501); err == nil {
		t.Error("a page of 501")
	}
}
