package id

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// rows cuts segments in memory, and can be away: before a cut, or after it and
// before its answer.
type rows struct {
	mu   sync.Mutex
	next map[string]int64
	cuts []int64 // their sizes
	away awayness
}

type awayness int

const (
	there awayness = iota
	unasked
	unanswered
)

var errAway = errors.New("away")

func (r *rows) CutSegment(_ context.Context, row string, atLeast, size int64) (Segment, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == unasked {
		return Segment{}, errAway
	}
	if r.next == nil {
		r.next = map[string]int64{}
	}
	first := max(r.next[row], atLeast, 1)
	r.next[row] = first + size
	r.cuts = append(r.cuts, size)
	if r.away == unanswered {
		return Segment{}, errAway
	}
	return Segment{first, first + size}, nil
}

func stepped(t testing.TB, n *Numbers, want bool) {
	t.Helper()
	if worked, err := n.Step(context.Background()); err != nil || worked != want {
		t.Fatalf("step: %v, %v, want %v", worked, err, want)
	}
}

func take(t testing.TB, n *Numbers, first, last int64) {
	t.Helper()
	for want := first; want <= last; want++ {
		if got, err := n.Next(); err != nil || got != want {
			t.Fatalf("got %d, %v, want %d", got, err, want)
		}
	}
}

// One segment is used and one waits; the next is fetched when an eighth of the
// one in use is gone, and not before.
func TestTwoSegments(t *testing.T) {
	now := start
	n := NewNumbers("invoices", &rows{}, func() time.Time { return now })
	if _, err := n.Next(); !errors.Is(err, ErrNoNumbers) {
		t.Errorf("before the first step: %v", err)
	}
	stepped(t, n, true)
	stepped(t, n, false) // one waits
	take(t, n, 1, 12)
	stepped(t, n, false) // 12 of 100
	take(t, n, 13, 13)
	now = now.Add(time.Hour)
	stepped(t, n, true)
	stepped(t, n, false)
	take(t, n, 14, 200) // over the edge without a step
	if _, err := n.Next(); !errors.Is(err, ErrNoNumbers) {
		t.Errorf("both used up: %v", err)
	}
	stepped(t, n, true)
	take(t, n, 201, 201)
}

// The store may be away for as long as two segments last: ten to twenty minutes
// at the pace that sized them.
func TestStoreAway(t *testing.T) {
	now, r := start, &rows{}
	n := NewNumbers("invoices", r, func() time.Time { return now })
	newest := int64(0)
	second := func() (missed int) { // in which 20 numbers are asked for
		for range 20 {
			got, err := n.Next()
			if err != nil {
				missed++
			} else if got <= newest {
				t.Fatalf("%d after %d", got, newest)
			}
			newest = max(newest, got)
		}
		now = now.Add(time.Second)
		return missed
	}
	for range 3600 {
		_, err := n.Step(t.Context())
		if missed := second(); err != nil || missed > 0 {
			t.Fatalf("%d were missed, %v", missed, err)
		}
	}
	for _, how := range []awayness{unasked, unanswered} {
		r.away = how
		lasted := time.Duration(0)
		for second() == 0 {
			lasted += time.Second
			if _, err := n.Step(t.Context()); err != nil && !errors.Is(err, errAway) {
				t.Fatal(err)
			}
		}
		if lasted < 9*time.Minute || lasted > 21*time.Minute {
			t.Errorf("away %d: there were numbers for %s", how, lasted)
		}
		if _, err := n.Next(); !errors.Is(err, ErrNoNumbers) {
			t.Errorf("then: %v", err)
		}
		r.away = there
		stepped(t, n, true)
		if missed := second(); missed > 0 {
			t.Errorf("back again, %d were missed", missed)
		}
		for range 3600 {
			if _, err := n.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			second()
		}
	}
}

// The size of a segment follows the pace within its bounds.
func TestSizes(t *testing.T) {
	f := func(size, given int64, took time.Duration, want int64) {
		t.Helper()
		n := Numbers{size: size}
		if got := n.wants(given, took); got != want {
			t.Errorf("after %d, %d given in %s: %d, want %d", size, given, took, got, want)
		}
	}
	f(0, 0, 0, 100)                                  // the first
	f(100, 100, 10*time.Minute, 100)                 // as many as last
	f(1000, 1000, 5*time.Minute, 2000)               // twice the pace
	f(1000, 1000, time.Second, 8000)                 // at most eight times
	f(1000, 1000, 12*time.Minute, 833)               // slower
	f(1000, 1, 10*time.Minute, 500)                  // at least half
	f(100, 1, time.Hour, 100)                        // at least 100
	f(1<<23, 1<<23, time.Second, 1<<24)              // at most 16 million
	f(1<<24, 1<<24, time.Nanosecond, 1<<24)          //
	f(1000, 1000, -time.Hour, 8000)                  // the clock was set back
	f(1000, 1000, 0, 8000)                           //
	f(1000, 0, time.Hour, 500)                       //
	f(1<<24, math.MaxInt64/2, time.Minute, 1<<24)    //
	f(1<<24, 1<<24, 1000*time.Hour, 1<<23)           //
	f(1000, 1250, 10*time.Minute, 1250)              // not rounded to powers
	f(maxNumbers, maxNumbers, segmentLasts, 1<<24)   //
	f(minNumbers, minNumbers, segmentLasts/2, 2*100) //

	// At 5,000 a second it has settled after a few fetches on ten minutes' worth.
	now, r := start, &rows{}
	n := NewNumbers("invoices", r, func() time.Time { return now })
	for range 30 * 60 * 10 { // half an hour by tenths of a second
		for worked := true; worked; {
			var err error
			if worked, err = n.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range 500 {
			if _, err := n.Next(); err != nil {
				break // while it still grows
			}
		}
		now = now.Add(100 * time.Millisecond)
	}
	if last := r.cuts[len(r.cuts)-1]; last < 2_700_000 || last > 3_300_000 || len(r.cuts) > 14 {
		t.Errorf("at 5,000 a second: segments of %d", r.cuts)
	}
}

// A store that gives out again what it had given ends the numbers, for good.
func TestRowWentBack(t *testing.T) {
	r := &rows{}
	n := NewNumbers("invoices", r, time.Now)
	stepped(t, n, true)
	take(t, n, 1, 50)
	r.next["invoices"] = 51
	for range 3 {
		if _, err := n.Step(t.Context()); !errors.Is(err, ErrWentBack) {
			t.Fatalf("step: %v", err)
		}
		if got, err := n.Next(); !errors.Is(err, ErrNoNumbers) {
			t.Fatalf("and then %d, %v", got, err)
		}
	}
	if len(r.cuts) != 2 {
		t.Errorf("%d cuts: it goes on asking", len(r.cuts))
	}
	r.next["invoices"] = 101 // raised: a new process is well
	again := NewNumbers("invoices", r, time.Now)
	stepped(t, again, true)
	take(t, again, 101, 101)
}

// Processes that come and go, of several rows, with a store that is away at any
// moment: no number twice, ascending in each process, none below 1, and none
// left out but those that a process still held or whose answer was lost.
func TestNumbersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type process struct {
			*Numbers
			newest int64
		}
		now, r, lost := start, &rows{}, int64(0)
		seen, all := map[string]map[int64]bool{"a": {}, "b": {}}, []*process{}
		for range rapid.IntRange(1, 400).Draw(t, "actions") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Hour, -time.Hour}).Draw(t, "pass"))
			if len(all) == 0 || rapid.IntRange(0, 39).Draw(t, "start") == 0 {
				row := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "row")
				all = append(all, &process{Numbers: NewNumbers(row, r, func() time.Time { return now })})
			}
			p := all[rapid.IntRange(0, len(all)-1).Draw(t, "process")]
			r.away = rapid.SampledFrom([]awayness{there, there, unasked, unanswered}).Draw(t, "away")
			if rapid.Bool().Draw(t, "step") {
				if _, err := p.Step(context.Background()); errors.Is(err, errAway) && r.away == unanswered {
					lost += r.cuts[len(r.cuts)-1]
				} else if err != nil && !errors.Is(err, errAway) {
					t.Fatal(err)
				}
			}
			for range rapid.IntRange(0, 60).Draw(t, "numbers") {
				got, err := p.Next()
				if errors.Is(err, ErrNoNumbers) {
					break
				}
				if err != nil || got <= p.newest || seen[p.row][got] {
					t.Fatalf("row %s: %d after %d, %v, seen %v", p.row, got, p.newest, err, seen[p.row][got])
				}
				seen[p.row][got], p.newest = true, got
			}
		}
		holds := int64(0)
		for _, p := range all {
			holds += p.using.Load().End - p.using.Load().First - p.using.Load().used()
			if spare := p.spare.Load(); spare != nil {
				holds += spare.End - spare.First
			}
		}
		cut := max(r.next["a"]-1, 0) + max(r.next["b"]-1, 0)
		if given := int64(len(seen["a"]) + len(seen["b"])); given+holds+lost != cut {
			t.Fatalf("%d cut: %d given, %d held, %d lost", cut, given, holds, lost)
		}
	})
}

// A caller that comes late to the end of a segment changes nothing, and one that
// finds the spare one both in use and used up goes on.
func TestTurnOfSegments(t *testing.T) {
	n := NewNumbers("invoices", &rows{}, time.Now)
	stepped(t, n, true)
	first := n.using.Load()
	take(t, n, 1, 100)
	stepped(t, n, true)
	take(t, n, 101, 101)
	second := n.using.Load()
	stepped(t, n, false)
	take(t, n, 102, 101+(second.End-second.First)/8)
	stepped(t, n, true)
	third := n.spare.Load()
	n.turn(first, third) // late by two segments
	if n.using.Load() != second || n.spare.Load() != third {
		t.Error("a late caller lost a segment")
	}
	n.using.Store(third) // somebody is between the two places
	take(t, n, third.First, third.End-1)
	if _, err := n.Next(); !errors.Is(err, ErrNoNumbers) || n.spare.Load() != nil {
		t.Errorf("used up in both places: %v", err)
	}
}

// Many callers and one that steps: every number once, no gap, ascending for each.
// Time flies, so the segments stay small and are changed thousands of times.
func TestNumbersAtOnce(t *testing.T) {
	const callers, each = 4, 50_000
	now := start
	n := NewNumbers("invoices", &rows{}, func() time.Time { now = now.Add(time.Hour); return now })
	ctx, cancel := context.WithCancel(t.Context())
	var stepping, calling sync.WaitGroup
	stepping.Go(func() {
		for ctx.Err() == nil {
			if _, err := n.Step(ctx); err != nil {
				t.Error(err)
				return
			}
		}
	})
	got := make([][]int64, callers)
	for c := range callers {
		calling.Go(func() {
			for len(got[c]) < each {
				number, err := n.Next()
				if err != nil {
					runtime.Gosched() // to who steps
					continue
				}
				got[c] = append(got[c], number)
			}
		})
	}
	calling.Wait()
	cancel()
	stepping.Wait()
	seen := make([]bool, callers*each+1)
	for c, numbers := range got {
		last := int64(0)
		for _, number := range numbers {
			if number <= last || number >= int64(len(seen)) || seen[number] {
				t.Fatalf("caller %d: %d after %d: twice, or not dense", c, number, last)
			}
			seen[number], last = true, number
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	n := NewNumbers("invoices", &rows{}, time.Now)
	stepped(t, n, true)
	f := func(what string, do func()) {
		t.Helper()
		if allocs := testing.AllocsPerRun(50, do); allocs != 0 {
			t.Errorf("%s: %v allocations", what, allocs)
		}
	}
	f("next", func() { _, _ = n.Next() })
	for _, err := n.Next(); err == nil; _, err = n.Next() {
	}
	f("refused", func() { _, _ = n.Next() })
	s := NewMarkingSource(0, time.Now)
	f("mint", func() { _, _ = s.Mint("alice") })
	frozen := NewMarkingSource(0, func() time.Time { return start })
	for _, err := frozen.Mint("alice"); err == nil; _, err = frozen.Mint("alice") {
	}
	f("ahead", func() { _, _ = frozen.Mint("alice") })
}

func ExampleNumbers() {
	n := NewNumbers("invoices", &rows{}, time.Now)          // a *sqlstore.Store in earnest
	if _, err := n.Step(context.Background()); err != nil { // in earnest a task
		fmt.Println(err)
	}
	for range 3 {
		fmt.Println(n.Next())
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}
