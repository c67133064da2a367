package id

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/lib/clock"
)

// What steps and freezes of clocks may do to ids. A source is given a clock that
// never goes back, but none of this rests on it.

var steps = []time.Duration{
	0, 0, 0, 0, time.Microsecond, time.Millisecond, 3 * time.Millisecond, time.Second,
	time.Hour, -time.Millisecond, -time.Second, -time.Hour,
}

// machine is a wall clock that anybody may set, and a counter of the time that
// has really gone by.
type machine struct {
	wall time.Time
	up   time.Duration
}

func (m *machine) now() time.Time { return m.wall }

// clock is what a process makes of it at its start.
func (m *machine) clock() *clock.Clock {
	return clock.From(m.now, func() time.Duration { return m.up })
}

func (m *machine) let(step time.Duration) {
	m.wall = m.wall.Add(step)
	m.up += max(step, 0) // time does not go back when a clock is set
}

// given is every id that anybody has been given.
type given map[uint64]string

func (g given) add(t *rapid.T, n uint64, who string) {
	if by, known := g[n]; known {
		t.Fatalf("%s minted %d, which %s had minted", who, n, by)
	}
	g[n] = who
}

// A process alone: it starts again and again, mostly within the same instant,
// with its machine's clock set wherever; what it starts from is its log, which
// has every id that anybody has seen.
func TestOneProcessOverRestarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, seen, newest := &machine{wall: start}, given{}, uint64(0)
		for life := range rapid.IntRange(1, 6).Draw(t, "lives") {
			c, floor := m.clock(), Time(newest)
			c.Floor(floor)
			now := c.Now
			if rapid.Bool().Draw(t, "steps reach the source") {
				now = func() time.Time { return later(m.wall, floor) }
			}
			s := NewSource(0, now)
			for range rapid.IntRange(0, 60).Draw(t, "ids") {
				n := s.For(rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user"))
				seen.add(t, n, fmt.Sprint("life ", life))
				newest = max(newest, n)
				m.let(rapid.SampledFrom(steps).Draw(t, "step"))
			}
			m.let(rapid.SampledFrom(steps).Draw(t, "between lives"))
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// The guard off: started again in the same instant, or with the clock set back,
// without looking at what was given out, a process mints the same ids again.
func TestWithoutAFloorIDsComeAgain(t *testing.T) {
	m := &machine{wall: start}
	first := NewSource(0, m.now)
	m.let(time.Millisecond)
	was := first.For("ann")
	m.wall = start
	again := NewSource(0, m.now)
	m.let(time.Millisecond)
	if n := again.For("ann"); n != was {
		t.Errorf("%d is not %d: the guard guards against nothing", n, was)
	}
	floored := m.clock()
	floored.Floor(Time(was))
	if n := NewSource(0, floored.Now).For("ann"); n <= was {
		t.Errorf("with a floor: %d after %d", n, was)
	}
}

// Processes that have one worker number after each other, or by mistake at the
// same time, on machines whose clocks agree in nothing and are set at any moment,
// with a store that is away now and then: no id comes twice, and nothing is
// minted without a span.
func TestSpansOfOneNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type process struct {
			*machine
			*Source
			spans  *Spans
			newest map[uint16]uint64
		}
		r, seen, all := &rows{}, given{}, []*process{}
		for range rapid.IntRange(1, 300).Draw(t, "actions") {
			if len(all) == 0 || rapid.IntRange(0, 19).Draw(t, "start") == 0 {
				m := &machine{wall: start.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "apart")) * time.Hour)}
				s := NewSource(7, m.now)
				s.marks = rapid.Bool().Draw(t, "marks")
				lasts := time.Duration(rapid.IntRange(0, 30).Draw(t, "lasts")) * time.Millisecond
				all = append(all, &process{m, s, NewSpans(s, r, lasts), map[uint16]uint64{}})
				if _, err := s.Mint("ann"); !errors.Is(err, ErrAhead) {
					t.Fatalf("before its first span: %v", err)
				}
			}
			i := rapid.IntRange(0, len(all)-1).Draw(t, "process")
			p := all[i]
			p.let(rapid.SampledFrom(steps).Draw(t, "step"))
			r.away = rapid.SampledFrom([]awayness{there, there, unasked, unanswered}).Draw(t, "away")
			if rapid.IntRange(0, 2).Draw(t, "lengthen") == 0 {
				if _, err := p.spans.Step(context.Background()); err != nil && r.away == there {
					t.Fatal(err)
				}
			}
			n, err := p.Mint(rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user"))
			if err != nil {
				continue // ErrAhead
			}
			seen.add(t, n, fmt.Sprint("process ", i))
			if n <= p.newest[Gene(n)] {
				t.Fatalf("process %d minted %d after %d", i, n, p.newest[Gene(n)])
			}
			p.newest[Gene(n)] = n
		}
	})
}

// A span is lengthened when a third of it is over, and the row is never further
// ahead of the clock than a span lasts: one cut for each third, no more.
func TestSpanFollowsTheClock(t *testing.T) {
	now, r := start, &rows{}
	s := NewSource(7, func() time.Time { return now })
	spans := NewSpans(s, r, 30*time.Second)
	for range 601 { // ten minutes
		if _, err := spans.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		until := time.UnixMilli(epoch + r.next["ids/7"])
		if lasts := until.Sub(now); lasts < 20*time.Second || lasts > 30*time.Second {
			t.Fatalf("the row is %s ahead", lasts)
		}
		if n, err := s.Mint("ann"); err != nil || Time(n).Sub(now) > time.Millisecond {
			t.Fatalf("%s ahead, %v", Time(n).Sub(now), err)
		}
		now = now.Add(time.Second)
	}
	if n := len(r.cuts); n < 50 || n > 62 {
		t.Errorf("%d cuts in ten minutes", n)
	}
	now = now.Add(time.Hour) // asleep: what lies between is nobody's
	if _, err := s.Mint("ann"); !errors.Is(err, ErrAhead) {
		t.Errorf("an hour later: %v", err)
	}
	if _, err := spans.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Mint("ann"); err != nil || !Time(n).Equal(now) {
		t.Errorf("then: %v, %v", Time(n), err)
	}
}

// Borrowing has a bound: MaxAhead of the clock, or of the span's beginning.
func TestMintIsBounded(t *testing.T) {
	f := func(what string, s *Source, want int) {
		t.Helper()
		n := 0
		for newest := uint64(0); n <= want; n++ {
			got, err := s.Mint("ann")
			if errors.Is(err, ErrAhead) {
				break
			} else if err != nil || got <= newest {
				t.Fatalf("%s: %d after %d, %v", what, got, newest, err)
			}
			newest = got
		}
		if n != want {
			t.Errorf("%s: %d ids of one gene before it is refused, want %d", what, n, want)
		}
	}
	now := start
	frozen := func() time.Time { return now }
	const seconds = 10_000 // milliseconds in MaxAhead
	f("counts", NewSource(0, frozen), (seconds-1)*16)
	f("marks", NewMarkingSource(0, frozen), maxMarked+(seconds-maxMarked-1)*16)
	within := func(from, until time.Duration) *Source {
		s := NewSource(0, frozen)
		s.span.Store(&span{millis(start.Add(from)), millis(start.Add(until))})
		return s
	}
	f("a span that began", within(-time.Hour, 5*time.Millisecond), 4*16) // its first millisecond is used, see NewSource
	f("a span to come", within(time.Hour, time.Hour+5*time.Millisecond), 5*16)
	f("a long one to come", within(time.Hour, 2*time.Hour), seconds*16)
	f("a span that is over", within(-time.Hour, 0), 0)

	s := NewSource(0, frozen)
	for _, err := s.Mint("ann"); err == nil; _, err = s.Mint("ann") {
	}
	if _, err := s.Mint("alice"); err != nil {
		t.Errorf("another gene is refused as well: %v", err)
	}
	ahead := s.For("ann") // cannot be refused
	now = now.Add(time.Millisecond)
	if n, err := s.Mint("ann"); err != nil || n <= ahead {
		t.Errorf("a millisecond later: %d after %d, %v", n, ahead, err)
	}
}

// A source whose clock stands still gives every gene as many ids as one that
// goes, and its time is never further from the clock than its bound.
func TestFrozenClock(t *testing.T) {
	s := NewMarkingSource(0, func() time.Time { return start })
	seen := map[uint64]bool{}
	for i := range 200_000 {
		n, err := s.Mint(strconv.Itoa(i))
		if err != nil || seen[n] {
			t.Fatalf("id %d: %v", n, err)
		}
		seen[n] = true
		if ahead := Time(n).Sub(start); ahead < 0 || ahead > MaxAhead {
			t.Fatalf("%s from the clock", ahead)
		}
	}
}

// What Mint gives is what For would have given.
func TestMintIsFor(t *testing.T) {
	for _, marks := range []bool{false, true} {
		a, b := NewSource(0, func() time.Time { return start }), NewSource(0, func() time.Time { return start })
		a.marks, b.marks = marks, marks
		for range 2000 {
			n, err := a.Mint("ann")
			if m := b.For("ann"); err != nil || n != m {
				t.Fatalf("%d, %v; For: %d", n, err, m)
			}
		}
	}
}
