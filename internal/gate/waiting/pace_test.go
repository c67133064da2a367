package waiting_test

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
)

// server serves so many purchases a second, one after the other, and refuses when
// more than a second's are waiting.
type server struct {
	capacity float64
	free     time.Time // when it has done what it has
}

func (s *server) purchase(now time.Time) (took time.Duration, outcome waiting.Outcome) {
	if s.free.Before(now) {
		s.free = now
	}
	if s.free.Sub(now) > time.Second {
		return time.Millisecond, waiting.Overloaded
	}
	s.free = s.free.Add(time.Duration(float64(time.Second) / s.capacity))
	return s.free.Sub(now) + 5*time.Millisecond, waiting.Served
}

// drive lets people come as the pace says, of whom a share buys after a while,
// and answers what was served a second, the mean time it took, and the share refused.
func drive(w *world, p *waiting.Pace, s *server, share float64, think, d time.Duration) (served, seconds, refused float64) {
	var n, bad int
	var took time.Duration
	owed := 0.0
	until := w.now.Add(d)
	for ; w.now.Before(until); w.now = w.now.Add(10 * time.Millisecond) {
		for len(w.queue) > 0 && !w.queue[0].at.After(w.now) {
			heap.Pop(&w.queue).(event).do()
		}
		for owed += p.Rate() / 100; owed >= 1; owed-- {
			if w.chance.Float64() >= share {
				continue
			}
			w.after(time.Duration(w.chance.ExpFloat64()*float64(think)), func() {
				t, outcome := s.purchase(w.now)
				w.after(t, func() { p.Observe(w.now, t, outcome) })
				if outcome == waiting.Overloaded {
					bad++
					return
				}
				n++
				took += t
			})
		}
	}
	return float64(n) / d.Seconds(), took.Seconds() / float64(max(1, n)), float64(bad) / float64(max(1, n+bad))
}

func TestPace(t *testing.T) {
	f := func(capacity, share float64, think time.Duration) {
		t.Helper()
		w := &world{now: opening, chance: rand.New(rand.NewPCG(1, 2))}
		p, s := waiting.NewPace(0), &server{capacity: capacity}
		near := func(when string, warm time.Duration) {
			t.Helper()
			drive(w, p, s, share, think, warm)
			served, seconds, refused := drive(w, p, s, share, think, 2*time.Minute)
			t.Logf("capacity %.0f, %.0f %% buy after %v, %s: served %.0f, %.3f s, refused %.4f", s.capacity, 100*share, think, when, served, seconds, refused)
			check(t, served > 0.75*s.capacity && seconds < 0.3 && refused < 0.02,
				"capacity %.0f, %.0f %% buy after %v, %s: served %.0f, %.3f s, refused %.4f", s.capacity, 100*share, think, when, served, seconds, refused)
		}
		near("at first", 40*time.Second)
		s.capacity /= 2
		near("halved", 20*time.Second)
		s.capacity *= 2
		near("restored", 40*time.Second)
	}
	f(40, 1, 0)
	f(1000, 1, 0)
	f(1000, 0.7, time.Second)
	f(3000, 0.3, 2*time.Second)
}

// A pace stays within its bounds, and is not raised by what proves nothing.
func TestPaceBounds(t *testing.T) {
	now := opening
	p := waiting.NewPace(0)
	first := p.Rate()
	observe := func(times int, each time.Duration, took time.Duration, outcome waiting.Outcome) {
		for range times {
			now = now.Add(each)
			p.Observe(now, took, outcome)
		}
	}
	observe(10, 10*time.Second, time.Millisecond, waiting.Served)
	check(t, p.Rate() == first, "a few purchases have raised it to %.0f", p.Rate())
	observe(10_000, 10*time.Millisecond, time.Millisecond, waiting.Served) // 100 a second
	check(t, p.Rate() > 200 && p.Rate() <= 1100, "100 purchases a second have raised it to %.0f", p.Rate())
	observe(10_000_000, 10*time.Microsecond, time.Millisecond, waiting.Served)
	check(t, p.Rate() == 50_000, "it is %.0f", p.Rate())
	observe(10_000, 10*time.Millisecond, time.Millisecond, waiting.Overloaded)
	check(t, p.Rate() == 1, "it is %.0f", p.Rate())
	observe(3000, 10*time.Millisecond, time.Millisecond, waiting.Served)
	check(t, p.Rate() > 500, "30 s after the trouble it is %.0f", p.Rate())
}
