package app

import (
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
)

// What is pulled in one process is in force in another, and in one that is
// started later; what a newer program has written is left alone.
func TestPlaybooksThroughTheStore(t *testing.T) {
	store := newStore(t)
	start := func() *gate.Playbooks {
		return gate.NewPlaybooks(shelf{store: store}, gate.NewActive(nil, time.Now()), time.Now)
	}
	here := start()
	book := gate.Playbook{ID: "mine", Title: "Mine", Steps: []gate.PlaybookStep{
		{Activity: "drop", Switches: gate.Switches{StaleDetail: "1.5s", ReadOnlyOrders: true}}, {Switches: gate.Switches{LimitPercent: 20}}}}
	if _, err := here.Save(t.Context(), book, "ops", "for tonight"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Pull(t.Context(), "mine", "ops", "now"); err != nil {
		t.Fatal(err)
	}
	planned, err := here.Freeze(t.Context(), gate.Freeze{To: here.Shelf().Pulled[0].At + 60_000, Why: "peak", By: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	later := start()
	if frozen, err := later.Frozen(t.Context()); err != nil || frozen == nil || *frozen != planned {
		t.Errorf("frozen: %+v, %v, want %+v", frozen, err, planned)
	}
	want := gate.Switches{StaleDetail: "1.5s", ReadOnlyOrders: true, LimitPercent: 20}
	if got := later.Active.Of("drop").Switches(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	trail, err := later.History(t.Context(), 0, 10)
	if err != nil || len(trail) != 3 || trail[0].Freeze == nil || *trail[0].Freeze != planned || trail[1].Action != gate.PlaybookPulled ||
		trail[1].Note != "now" || trail[2].Playbook.Steps[0] != book.Steps[0] || trail[2].Version != 1 {
		t.Errorf("the trail: %+v, %v", trail, err)
	}

	saved, err := store.SavePlaybooks(t.Context(), sqlstore.PlaybookChange{Version: 4, Body: []byte("{}")}, []byte(`{"pulled":[{"playbook":"x","steps":[{"half_price":true}]}]}`))
	if err != nil || !saved {
		t.Fatal(saved, err)
	}
	if _, err := later.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "half_price") || !later.Active.Of("drop").ReadOnlyOrders {
		t.Errorf("a switch of a newer program: %v", err)
	}
}
