package clock

import (
	"sync"
	"testing"
	"time"
)

// dial is a machine whose two clocks are turned by hand.
type dial struct {
	wall time.Time
	mono time.Duration
}

func (d *dial) pass(t time.Duration) { d.wall, d.mono = d.wall.Add(t), d.mono+t }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func newDial() (*dial, *Clock) {
	d := &dial{wall: noon, mono: 77 * time.Hour}
	return d, From(func() time.Time { return d.wall }, func() time.Duration { return d.mono })
}

func TestNowIgnoresStepsOfTheWallClock(t *testing.T) {
	f := func(step, wantJump time.Duration) {
		t.Helper()
		d, c := newDial()
		d.pass(time.Minute)
		d.wall = d.wall.Add(step)
		if got, want := c.Now(), noon.Add(time.Minute); !got.Equal(want) {
			t.Errorf("step %v: Now = %v, want %v", step, got, want)
		}
		if got := c.Jump(); got != wantJump {
			t.Errorf("step %v: Jump = %v, want %v", step, got, wantJump)
		}
	}
	f(0, 0)
	f(time.Hour, time.Hour)
	f(-time.Hour, -time.Hour)
	f(JumpAlarm+time.Millisecond, JumpAlarm+time.Millisecond)
}

func TestFloor(t *testing.T) {
	d, c := newDial()
	f := func(passed time.Duration, floor, want time.Time) {
		t.Helper()
		d.pass(passed)
		c.Floor(floor)
		if got := c.Now(); !got.Equal(want) {
			t.Errorf("Now = %v, want %v", got, want)
		}
	}
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	f(0, at(-10), at(0))              // behind: no effect
	f(0, at(30), at(30))              // ahead: stands still there
	f(10*time.Second, at(20), at(30)) // a lower floor does not lower it
	f(25*time.Second, at(0), at(35))  // caught up
	if got := c.Jump(); got != 0 {
		t.Errorf("Jump = %v once caught up", got)
	}
}

func TestNowIsUTCWithoutMonotonicReading(t *testing.T) {
	now := New().Now()
	if now.Location() != time.UTC {
		t.Errorf("location %v", now.Location())
	}
	if now != now.Round(0) {
		t.Error("carries a monotonic reading, so times do not compare with ==")
	}
	if off := time.Since(now).Abs(); off > time.Second {
		t.Errorf("%v away from the machine's clock", off)
	}
}

func TestNowNeverGoesBack(t *testing.T) {
	c := New()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			last := c.Now()
			for i := range 20_000 {
				if g == 0 && i%1000 == 0 {
					c.Floor(last.Add(time.Millisecond))
				}
				now := c.Now()
				if now.Before(last) {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
}

func BenchmarkNow(b *testing.B) {
	c := New()
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}
