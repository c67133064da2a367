package waiting_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
)

// A record that loses its last second may lose a draw, and have another one from the
// same seed since. What people are told is the draw that is published.
func TestPlacesFollowTheDrawThatStands(t *testing.T) {
	const people = 18
	line, now := &linetest.Local{}, time.UnixMilli(1_000_000)
	seed := waiting.Seed{7}
	rooms := waiting.NewRooms(waiting.Options{
		Line: line, Presence: &waiting.Local{}, Now: func() time.Time { return now },
		Activities: func() []string { return []string{"act"} },
		Config: func(string) (waiting.Config, bool) {
			return waiting.Config{OpensAt: 1000, Pass: time.Minute, Absent: time.Minute, Most: 100}, true
		},
		Stock: func(string) (waiting.Stock, bool) { return waiting.Stock{Free: 1}, true },
	}, "here", 100, waiting.NewPace(0))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	entry := func(i int) waiting.EntryID { return waiting.EntryID{byte(i), 1} }
	drawn := func(n int) []uint32 {
		t.Helper()
		must(line.Drop(t.Context(), "act"))
		room, err := line.Open(t.Context(), "act", seed, 1)
		must(err)
		entries := make([]waiting.EntryID, n)
		for i := range people {
			_, _, err := line.Join(t.Context(), "act", fmt.Sprint("u", i), entry(i), -1, 100)
			must(err)
			if i < n {
				entries[i] = entry(i)
			}
		}
		digest := waiting.Digest(entries)
		_, err = line.Advance(t.Context(), "act", room.Revision, waiting.Progress{DrawnAt: 1000, Drawn: n, Digest: digest[:], Steps: []waiting.Step{{At: 1000}}})
		must(err)
		_, err = rooms.Step(t.Context())
		must(err)
		return waiting.Places(seed, digest, n)
	}
	for _, n := range []int{people - 4, people} {
		places := drawn(n)
		for i, place := range places {
			p, err := rooms.Place(t.Context(), "act", fmt.Sprint("u", i))
			must(err)
			if p.Position != int(place)+1 {
				t.Fatalf("of %d drawn, number %d is told %d, the draw says %d", n, i, p.Position, place+1)
			}
		}
	}
}
