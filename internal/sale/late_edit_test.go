package sale_test

import (
	"testing"
	"time"

	"sluice/internal/sale"
	"sluice/internal/stock"
)

// Of several processes one tells the ledger. One that was stopped in the middle
// of it wakes up after another has taken over, and its older edit arrives after
// the newer one: as often as that happens, the ledger ends at the newest.
func TestOlderEditArrivesLate(t *testing.T) {
	b := newBench(t)
	b.create(sale.Activity{OpensAt: b.in(-time.Minute)})
	save := func(state sale.State) (revision int) {
		t.Helper()
		a, err := b.store.UpdateActivity(t.Context(), "drop", func(a *sale.Activity) error { a.State = state; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return a.Revision
	}
	b.step()
	save(sale.Paused)
	save(sale.Open)
	late := func(id string) {
		t.Helper()
		err := b.ledger.Adjust(t.Context(), stock.Adjustment{ID: id, Activity: "drop", Phase: stock.Paused, At: b.in(0)})
		if err != nil {
			t.Fatal(err)
		}
	}
	buys := func(want error) {
		t.Helper()
		_, err := b.buy("ann", "k")
		b.want(err, want)
	}
	for i, id := range []string{"rev-late-1", "rev-late-2", "rev-late-3"} {
		late(id)
		if i == 0 {
			buys(stock.ErrPaused)
		}
		if i == 2 {
			b.restart() // the next one to tell knows nothing of what was told
		}
		for range 4 { // at worst each attempt was made before
			b.step()
			b.now = b.now.Add(3 * time.Second)
		}
		if phase, _, _ := b.ledger.Board().Face("drop").Rules(); phase != stock.Live {
			t.Fatalf("after %s the ledger stays %s", id, phase)
		}
	}
	buys(nil)
}
