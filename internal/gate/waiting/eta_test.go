package waiting_test

import (
	"math"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
)

// What people are told of how long it takes is off, on average, by half to
// twice of what they are told it may be: whatever the pace does, a fifth go away and others come.
func TestETAIsHonest(t *testing.T) {
	f := func(name string, rate func(s float64) float64) {
		t.Helper()
		w := newWorld(t, 1)
		w.free, w.config.Pass, w.config.Absent = 1_000_000, 30*time.Second, 15*time.Second
		w.rate = func(now time.Time) float64 { return rate(now.Sub(opening).Seconds()) }
		w.crowd("early", 4000, time.Second, 55*time.Second, func(i int, s *shopper) {
			s.take = false
			if i%5 == 0 {
				s.leaves = opening.Add(time.Duration(i%150-30) * time.Second)
			}
		})
		w.crowd("late", 2000, 61*time.Second, 200*time.Second, func(i int, s *shopper) {
			s.take = false
			if i%5 == 0 {
				s.leaves = opening.Add(time.Duration(i%150) * time.Second)
			}
		})
		type told struct {
			s   *shopper
			p   waiting.Place
			now time.Time
		}
		var all []told
		w.run(61 * time.Second)
		for range 240 {
			w.run(time.Second)
			for range 20 {
				s := w.shoppers[w.chance.IntN(len(w.shoppers))]
				if p, ok := w.gates[0].Glance(activity, s.name); ok && p.State == waiting.Waiting && p.ETA >= 0 {
					all = append(all, told{s, p, w.now})
				}
			}
		}
		var off, stated, ahead, n [4]float64
		for _, a := range all {
			if a.s.calledAt.IsZero() {
				continue
			}
			b := 0
			for b < 3 && a.p.ETA > []time.Duration{10 * time.Second, 30 * time.Second, 90 * time.Second}[b] {
				b++
			}
			n[b]++
			off[b] += math.Abs(a.s.calledAt.Sub(a.now).Seconds() - a.p.ETA.Seconds())
			stated[b] += a.p.ETAError.Seconds()
			ahead[b] += a.p.ETA.Seconds()
		}
		for b := range n {
			t.Logf("%s: %4.0f estimates of %5.1f s: off by %5.2f s, stated %5.2f s", name, n[b], ahead[b]/n[b], off[b]/n[b], stated[b]/n[b])
			if n[b] > 100 {
				check(t, stated[b] > off[b]/2 && stated[b] < 2*off[b]+n[b], "%s: %.0f estimates of %.1f s are off by %.2f s, stated is %.2f s",
					name, n[b], ahead[b]/n[b], off[b]/n[b], stated[b]/n[b])
			}
		}
		check(t, w.gates[0].Stats()[0].ETAError > 0, "%s: no error is measured", name)
	}
	f("steady", func(float64) float64 { return 35 })
	f("waves", func(s float64) float64 { return 35 + 15*math.Sin(s/15) })
	f("steps", func(s float64) float64 { return []float64{50, 20, 40, 60, 25, 45}[int(max(0, s)/40)%6] })
	f("slower", func(s float64) float64 { return max(12, 60-s/3) })
}
