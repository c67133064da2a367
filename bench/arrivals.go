package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// arrivals say when people come: independently of each other and of how those
// before them fare (a Poisson process), which is what makes an open loop. All
// times are since the beginning of the load.
type arrivals struct {
	perSecond float64 // 0: a closed loop, somebody is due whenever there is room
	end       time.Duration
	random    *rand.Rand
	next      time.Duration
}

func newArrivals(perSecond float64, lasts time.Duration, seed uint64) *arrivals {
	a := &arrivals{perSecond: perSecond, end: lasts, random: rand.New(rand.NewPCG(seed, 0x5106e))}
	a.step()
	return a
}

func (a *arrivals) step() {
	if a.perSecond > 0 {
		a.next += time.Duration(a.random.ExpFloat64() / a.perSecond * float64(time.Second))
	}
}

// take answers when the next one was due, if that is by now and before the end.
func (a *arrivals) take(now time.Duration) (due time.Duration, ok bool) {
	due = a.next
	if a.perSecond == 0 {
		due = now
	}
	if due > now || due >= a.end {
		return 0, false
	}
	a.step()
	return due, true
}

// over says that nobody comes any more.
func (a *arrivals) over(now time.Duration) bool {
	if a.perSecond == 0 {
		return now >= a.end
	}
	return a.next >= a.end
}

// inTime is how long people wait for an answer, from when it was due. What comes
// later helps nobody.
const inTime = time.Second

// counted is what became of the arrivals of one step after its beginning, which
// lets the server find its balance and does not count.
type counted struct {
	from  time.Duration // arrivals due before this do not count
	took  []time.Duration
	Due   int // arrivals
	Good  int // answered 200 in time
	No    int // refused in time: 429 or 503
	Wrong int // answered something else
	Late  int // answered too late, or never
	Away  int // turned away before the server, for want of a connection
}

func (c *counted) turnAway(due time.Duration) {
	if due >= c.from {
		c.Due++
		c.Away++
	}
}

// note takes in an answer; status 0 is none.
func (c *counted) note(due, at time.Duration, status int) {
	if due < c.from {
		return
	}
	c.Due++
	took := at - due
	switch {
	case status == 0 || took > inTime:
		c.Late++
	case status == 200:
		c.Good++
		c.took = append(c.took, took)
	case status == 429 || status == 503:
		c.No++
	default:
		c.Wrong++
	}
}

// percentile in milliseconds of the times of the good ones, q in 0..1; 0 when
// there are none.
func (c *counted) percentile(q float64) float64 {
	slices.Sort(c.took)
	return percentile(c.took, q)
}

// percentile of sorted times, by nearest rank, in milliseconds.
func percentile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := min(max(int(q*float64(len(sorted))+0.999999), 1), len(sorted))
	return float64(sorted[rank-1].Microseconds()) / 1000
}

// waiting is a queue of due times, first come first served.
type waiting struct {
	due  []time.Duration
	head int
}

func (w *waiting) push(due time.Duration) { w.due = append(w.due, due) }
func (w *waiting) len() int               { return len(w.due) - w.head }
func (w *waiting) empty() bool            { return w.len() == 0 }
func (w *waiting) first() time.Duration   { return w.due[w.head] }

func (w *waiting) pop() time.Duration {
	due := w.due[w.head]
	if w.head++; w.head > 1024 && w.head > len(w.due)/2 {
		w.due, w.head = append(w.due[:0], w.due[w.head:]...), 0
	}
	return due
}
