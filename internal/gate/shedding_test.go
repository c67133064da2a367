package gate_test

import (
	"errors"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/lib/call"
)

// Who browses is refused first, who buys next, and who pays never; a refusal
// allocates nothing, and every place comes back.
func TestShedding(t *testing.T) {
	s := gate.NewShedding(time.Now)
	var held []gate.Permit
	fill := func(w gate.Work) {
		t.Helper()
		before := s.Status()
		for {
			p, err := s.Enter(w)
			if err != nil {
				if !errors.Is(err, gate.ErrOverloaded) {
					t.Fatal(err)
				}
				break
			}
			held = append(held, p)
		}
		if is := s.Status(); is.InFlight != is.Bounds[w.String()] || is.InFlight <= before.InFlight || is.Refused[w.String()] == 0 {
			t.Errorf("full of %v: %+v", w, is)
		}
	}
	fill(gate.Browsing)
	fill(gate.Buying)
	for range 2 * s.Status().Limit {
		p, err := s.Enter(gate.Paying)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, p)
	}
	if is := s.Status(); is.InFlight != is.Bounds["paying"] || is.Refused["paying"] == 0 {
		t.Errorf("full of who pays: %+v", is)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Enter(gate.Browsing); err == nil {
			t.Error("admitted beyond the limit")
		}
	}); n != 0 {
		t.Errorf("a refusal allocates %v times", n)
	}
	for i := range held {
		held[i].Leave(call.Served)
		held[i].Leave(call.Served)
	}
	if is := s.Status(); is.InFlight != 0 {
		t.Errorf("at the end %+v", is)
	}
	if _, err := s.Enter(gate.Browsing); err != nil {
		t.Error(err)
	}
}
