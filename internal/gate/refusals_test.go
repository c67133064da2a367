package gate

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestRefusals(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	r := NewRefusals(1<<10, start)
	f := func(activity, user string, code uint8, after time.Duration) {
		t.Helper()
		got, at, ok := r.Last(activity, user)
		if !ok || got != code || !at.Equal(start.Add(after)) {
			t.Errorf("%s of %s: %d at %v, %v; want %d at %v", user, activity, got, at, ok, code, after)
		}
	}
	none := func(activity, user string) {
		t.Helper()
		if code, _, ok := r.Last(activity, user); ok {
			t.Errorf("%s of %s: %d, want no record", user, activity, code)
		}
	}
	none("a", "ann")
	r.Note("a", "ann", 0, start)
	f("a", "ann", 0, 0)
	none("b", "ann")
	none("ann", "a")
	r.Note("a", "ann", MaxRefusalCode, start.Add(time.Hour))
	r.Note("b", "ann", 7, start.Add(123*time.Second+456*time.Millisecond))
	f("a", "ann", MaxRefusalCode, time.Hour)
	f("b", "ann", 7, 123*time.Second+400*time.Millisecond)
	r.Note("a", "ann", 3, start.Add(-time.Hour)) // before the start counts as the start
	f("a", "ann", 3, 0)
	r.Note("a", "ann", 3, start.Add(100*365*24*time.Hour)) // and past the end as the end
	f("a", "ann", 3, lastTick*tick)
}

// Full, it forgets the oldest and goes on; nobody is given another's record.
func TestRefusalsAreBounded(t *testing.T) {
	start := time.Now()
	r := NewRefusals(1<<8, start)
	const users = 10_000
	for i := range users {
		r.Note("a", fmt.Sprint("u", i), uint8(i%40), start.Add(time.Duration(i)*tick))
	}
	known, recent := 0, 0
	for i := range users {
		code, _, ok := r.Last("a", fmt.Sprint("u", i))
		if !ok {
			continue
		}
		if code != uint8(i%40) {
			t.Errorf("u%d was refused with %d, the table says %d", i, i%40, code)
		}
		if known++; i >= users-64 {
			recent++
		}
	}
	if known > 1<<8 || known < 200 {
		t.Errorf("%d records in 256 places", known)
	}
	if recent < 55 { // all but those whose four places were all taken since
		t.Errorf("%d of the last 64 users are remembered", recent)
	}
	if n := testing.AllocsPerRun(100, func() { r.Note("activity", "somebody", 3, start); r.Last("activity", "somebody") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefusalsTogether(t *testing.T) {
	start := time.Now()
	r := NewRefusals(1<<12, start)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 2000 {
				r.Note("a", fmt.Sprint("u", i%100), uint8(g), start.Add(time.Duration(i)*tick))
			}
		})
	}
	all.Wait()
	for i := range 100 {
		if code, at, ok := r.Last("a", fmt.Sprint("u", i)); !ok || code > 3 || at.Before(start.Add(1900*tick)) {
			t.Errorf("u%d: %d %v %v", i, code, at, ok)
		}
	}
}

func BenchmarkRefusals(b *testing.B) {
	start := time.Now()
	r := NewRefusals(1<<16, start)
	users := make([]string, 1<<17)
	for i := range users {
		users[i] = fmt.Sprint("user-", i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.Note("double-eleven", users[i&(len(users)-1)], uint8(i&15), start)
		i++
	}
}
