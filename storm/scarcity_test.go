package storm

import (
	"testing"
	"time"
)

// Samples come every half second; free units that were there all the while
// make a refusal a lie after two seconds.
func TestScarcity(t *testing.T) {
	// look is one sample: how many are free, what was taken since the last
	// one, how much money is on its way, and how many are refused before it.
	type look struct{ free, taken, awaited, refused int }
	f := func(name string, want int, looks ...look) {
		t.Helper()
		s := scarcity{window: 2 * time.Second}
		zero := time.Unix(1000, 0)
		got := 0
		for n, l := range looks {
			at := zero.Add(time.Duration(n) * 500 * time.Millisecond)
			for range l.taken {
				s.took()
			}
			for range l.refused {
				s.turnedAway(at.Add(-10 * time.Millisecond))
			}
			if l.free < 0 {
				s.missed()
				continue
			}
			refused, _ := s.sampled(s.asking(at), l.free, l.awaited, at)
			got += refused
		}
		if got != want {
			t.Errorf("%s: %d refused falsely, want %d", name, got, want)
		}
	}
	free, busy := look{free: 3}, look{free: 3, refused: 1}
	f("free and refused", 2, free, free, free, busy, busy)
	f("told once", 2, free, free, free, busy, busy, busy, busy)
	f("free and nobody refused", 0, free, free, free, free, free, free)
	f("refused at the start only", 0, free, busy, free, free, free, free)
	f("too short", 0, free, free, free, busy)
	f("none free in between", 0, free, free, free, look{free: 0}, busy, busy)
	f("all may have been taken in between", 0, free, free, free, look{free: 3, taken: 3}, busy, busy)
	f("some taken", 2, free, free, free, look{free: 3, taken: 2, refused: 1}, busy)
	f("late money may have taken them", 0, free, free, free, busy, look{free: 3, taken: 1, awaited: 2, refused: 1})
	f("a sample is missing", 0, free, free, look{free: -1}, busy, busy, busy)
	f("sold out", 0, look{refused: 9}, look{refused: 9}, look{refused: 9}, look{refused: 9}, look{refused: 9}, look{refused: 9})
}
