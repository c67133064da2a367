package call

import (
	"math"
	"time"
)

// gradient is the arithmetic of Adaptive, without atomics: once a window it is
// given what was measured and moves the limit.
//
// The idea is TCP Vegas's, for servers: if n pieces of work are in flight and
// take twice as long as they do unqueued, then, by Little's law, half of the n are
// waiting. So, each window,
//
//	gradient = tolerance × unqueued / measured      within [½, 1]
//	limit    = limit × gradient + √limit            √limit: the queue that is allowed
//
// as in Netflix's concurrency-limits (Gradient2) and Envoy's adaptive
// concurrency. Both learned in service where this goes wrong; what is done here
// about each:
//
//   - An average as unqueued time drifts up in a long overload, and the limit
//     with it; a minimum since the start only falls, and one lucky moment starves
//     everybody. Here it is measured anew by probes: the limit is halved for a
//     moment, which empties the queue of whatever limit this arithmetic settles at.
//   - Work that began before a probe waited in the queue being emptied: only a
//     cohort counts, what began under the lowered limit.
//   - The first of a cohort to end are its shortest: the probe follows it for a
//     while after the limit is up again. (Ending with the first results instead
//     found a sixth of the real time here, in a flood that came at once.)
//   - A probe costs throughput: but for a few in a row they take a fiftieth of
//     the time at most, and a window in which less than half of the limit was used
//     is a probe for nothing, and puts the next one off. They come at random
//     distances, or a fleet would make them together.
//   - A limit found while the unqueued time was wrong is wrong: a probe that
//     learned something is soon followed by another, and a limit that is stuck at
//     its minimum by one at once.
//   - What ends now began under an older limit. One that is moved again before
//     its last move can show sinks far too low: a window lasts twice the mean time.
//   - A limit that is not reached proves nothing and must not grow.
//   - Few results prove nothing: their window is left open, or dropped when old.
//   - Refusals are fast. They are no results (Unmeasured).
//   - With work of several kinds, a change in the mix looks like a change in
//     speed: each class is compared with its own unqueued time.
type gradient struct {
	o        AdaptiveOptions
	limit    float64
	steep    bool                // nothing has ever queued: grow by halves, not by roots
	unqueued [MaxClasses]float64 // ns; 0: not known

	epoch    uint32 // of what is admitted now
	counted  uint32 // of what counts when it ends
	phase    phase
	from     int64 // Unix ns: beginning of the window
	turnAt   int64 // not before this
	probeAt  int64 // when the next probe is due
	probedAt int64 // when the last one ended
	hurried  int   // probes in a row that learned something
	pinned   int   // windows in a row at the minimum
	cost     int64 // ns for which the last probe lowered the limit
}

// phase of a window.
type phase uint8

const (
	ordinary  phase = iota
	lowered         // of a probe: the cohort comes
	following       // of a probe: the cohort ends; nothing else is counted
)

const (
	sparse    = 100  // windows of time after which too few results are dropped
	soon      = 5    // windows until a probe that learned something is followed by another
	hurries   = 8    // such probes in a row, at most
	prior     = 20   // results that what is known is worth
	learned   = 0.85 // a ratio of times that is news; its inverse is too
	settle    = 2    // mean times until a move of the limit shows in results, and the next is made
	drain     = 2    // mean times that a cohort comes for
	follow    = 5    // mean times that it is followed
	patience  = 20   // windows of time that a probe waits for results
	probeCost = 50   // times as long as the last probe lowered the limit, until the next
)

// sample is what one window measured.
type sample struct {
	classes  [MaxClasses]part
	refused  bool // anybody
	timedOut int
	peak     int // in flight
}

type part struct {
	n    int
	took float64 // ns, of all n
}

// sum is the number of results, and the mean of their times in ns.
func (w *sample) sum() (n int, mean float64) {
	took := 0.0
	for _, p := range w.classes {
		n += p.n
		took += p.took
	}
	return n, took / float64(max(1, n))
}

func newGradient(o AdaptiveOptions) gradient {
	return gradient{o: o, limit: float64(o.Initial), steep: true}
}

// turn ends the window and answers true, or leaves it open for more results.
func (g *gradient) turn(now int64, w sample) bool {
	n, mean := w.sum()
	switch {
	case g.from == 0: // the first result ever tells when to begin
		g.begin(now, 0)
	case g.phase == lowered:
		if n < g.o.Samples/2 && now-g.from < patience*int64(g.o.Window) {
			return false
		}
		g.phase, g.cost = following, now-g.from
		g.epoch++
		g.begin(now, 0)
		return false // the cohort goes on being counted
	case g.phase == following && float64(now-g.from) < follow*mean:
		g.turnAt = g.from + int64(follow*mean) // the longer ones are only now ending
		return false
	case g.phase == following:
		g.probed(now, w, mean)
	case n < g.o.Samples && now-g.from < sparse*int64(g.o.Window):
		g.turnAt = now + int64(g.o.Window)/4
		return false
	case n < g.o.Samples:
		g.begin(now, 0)
	default:
		g.ordinary(now, w, n, mean)
	}
	return true
}

func (g *gradient) ordinary(now int64, w sample, n int, mean float64) {
	lowest := g.bound(len(g.o.Shares) - 1)
	if !w.refused && 2*w.peak < lowest { // quiet: the limit is not reached, and a probe would show nothing
		// Below the lowest limit, whatever work takes, it does not take it because of
		// us. Above, it may wait for others already, though the limit is far away.
		if expected, measured := g.compare(w); 2*w.peak < g.least() || measured <= expected {
			g.learn(w, 0.2)
		}
		g.probeAt = now + g.jittered(g.o.ProbeEvery)
		g.begin(now, 0)
		return
	}
	expected, measured := g.compare(w)
	if measured == 0 {
		g.probeAt = now // nothing is known of what is here
	} else {
		ratio := expected / measured
		g.move(ratio, 10*w.timedOut >= n || g.o.Worst > 0 && mean > float64(g.o.Worst))
		if ratio > 1/learned && now-g.probedAt > soon*int64(g.o.Window) {
			g.probeAt = now // faster than unqueued: what is known is wrong
		}
	}
	if now < g.probeAt && g.pinned < soon {
		g.begin(now, settle*mean)
		return
	}
	g.phase = lowered
	g.epoch++
	g.counted = g.epoch
	g.begin(now, drain*mean)
}

// begin a window that lasts at least so long, in ns.
func (g *gradient) begin(now int64, least float64) {
	g.from, g.turnAt = now, now+max(int64(g.o.Window), int64(least))
}

// move is the formula. ratio is unqueued ÷ measured.
func (g *gradient) move(ratio float64, bad bool) {
	gradient := max(0.5, min(1, g.o.Tolerance*ratio))
	if bad {
		gradient = 0.5
	}
	g.steep = g.steep && gradient == 1
	headroom := math.Sqrt(g.limit)
	if g.steep {
		headroom = g.limit / 2
	}
	next := g.limit*gradient + headroom
	g.limit = max(float64(g.o.Min), min(float64(g.o.Max), next))
	if gradient < 1 && int(g.limit) == g.o.Min {
		g.pinned++
	} else {
		g.pinned = 0
	}
}

// probed ends a probe.
func (g *gradient) probed(now int64, w sample, mean float64) {
	g.phase, g.counted, g.probedAt, g.pinned = ordinary, g.epoch, now, 0
	g.begin(now, settle*mean)
	g.probeAt = now + max(g.jittered(g.o.ProbeEvery), probeCost*g.cost)
	old, before, after := g.unqueued, 0.0, 0.0
	g.learn(w, 1)
	for i, p := range w.classes {
		if old[i] > 0 {
			before += float64(p.n) * old[i]
			after += float64(p.n) * g.unqueued[i]
		}
	}
	if after < learned*before { // half the limit and less time: the other half was queue
		g.limit = max(float64(g.o.Min), g.limit/2)
		g.steep = false
	}
	news := before == 0 || after < learned*before || before < learned*after
	if news && g.hurried < hurries {
		g.hurried++
		g.probeAt = now + g.jittered(soon*g.o.Window)
		return
	}
	g.hurried = 0
}

// compare is the time that w's work of known classes would have taken unqueued,
// and the time it took.
func (g *gradient) compare(w sample) (expected, measured float64) {
	for i, p := range w.classes {
		if g.unqueued[i] > 0 {
			expected += float64(p.n) * g.unqueued[i]
			measured += p.took
		}
	}
	return expected, measured
}

// learn moves the unqueued times towards those of w, which did not queue: by
// weight, and the less, the fewer results there are.
func (g *gradient) learn(w sample, weight float64) {
	for i, p := range w.classes {
		switch {
		case p.n == 0:
		case g.unqueued[i] == 0:
			g.unqueued[i] = p.took / float64(p.n)
		default:
			g.unqueued[i] += (p.took/float64(p.n) - g.unqueued[i]) * weight * float64(p.n) / float64(p.n+prior)
		}
	}
}

// bound is up to how much in flight class i is admitted: one less at least than
// a class with a greater share, if it can be. A probe lowers it to a half, but that of
// the most important of several classes only to two thirds: it may pay for the
// measurement last, and if it alone fills the limit, then two thirds are just
// without a queue.
func (g *gradient) bound(i int) int {
	b := g.limit * g.o.Shares[i]
	switch {
	case g.phase != lowered:
	case i == 0 && len(g.o.Shares) > 1:
		b *= 2.0 / 3
	default:
		b /= 2
	}
	if i > 0 && g.o.Shares[i] < g.o.Shares[i-1] {
		b = min(b, float64(g.bound(i-1)-1))
	}
	return max(1, int(b))
}

// least is the bound of the least important class under the lowest limit.
func (g *gradient) least() int { return int(float64(g.o.Min) * g.o.Shares[len(g.o.Shares)-1]) }

// jittered is between three and five quarters of d, in ns.
func (g *gradient) jittered(d time.Duration) int64 {
	return int64((0.75 + 0.5*g.o.Random()) * float64(d))
}
