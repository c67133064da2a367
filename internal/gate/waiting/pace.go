package waiting

import (
	"math"
	"sync"
	"time"
)

// Outcome is how a purchase with a pass went, as far as the pace is concerned.
type Outcome byte

// Outcomes.
const (
	Served     Outcome = iota // decided: bought, or refused for a reason of the shop's
	Overloaded                // refused, or failed, for want of capacity
)

// Pace finds how many people a second a process can serve, from the purchases of
// those it has served: more and more as long as these are quick, fewer as soon as they
// are slow or refused for overload. It is TCP's way (additive increase here is
// a growth that is slow near the last rate that was too high, and quick far
// from it, as in CUBIC, RFC 9438). Slow is an absolute time, as nobody minds a
// quarter of a second, and as commits that are shared take longer the more share
// them, without any loss. Safe for concurrent use.
type Pace struct {
	slow time.Duration

	mu     sync.Mutex
	rate   float64
	top    float64   // the last rate that was too high, 0: none was
	cut    bool      // the window before was bad
	from   time.Time // of the window
	calm   time.Time // purchases that began before are no verdict on the rate
	n, bad int       // of the window
	took   time.Duration
}

const (
	minPace    = 1
	maxPace    = 50_000
	firstPace  = 50
	paceWindow = time.Second
	reaction   = 2 * time.Second // of people who are called: till then those called before still come
	fewest     = 5               // results that tell anything; a window is left open for them
	patience   = 20              // windows of time at most
	beyond     = 10              // times as many people may be called as were seen to buy
)

// NewPace is a pace that holds purchases to be slow that take so long on average; 0 is 250 ms.
func NewPace(slow time.Duration) *Pace {
	if slow <= 0 {
		slow = 250 * time.Millisecond
	}
	return &Pace{slow: slow, rate: firstPace}
}

// Rate is how many people a second can be served, 1..50,000.
func (p *Pace) Rate() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// Observe is told of each purchase with a pass when it has ended.
func (p *Pace) Observe(now time.Time, took time.Duration, outcome Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from.IsZero() {
		p.from = now.Add(-took)
	}
	if !now.Add(-took).Before(p.calm) {
		p.n++
		p.took += took
		if outcome == Overloaded {
			p.bad++
		}
	}
	if length := now.Sub(p.from); length >= paceWindow && (p.n >= fewest || length >= patience*paceWindow) {
		p.turn(now, length)
	}
}

// turn ends a window.
func (p *Pace) turn(now time.Time, length time.Duration) {
	n, bad := p.n, p.bad
	mean := p.took / time.Duration(max(1, n))
	p.from, p.n, p.bad, p.took = now, 0, 0, 0
	switch {
	case n < fewest: // nothing is proved
	case 50*bad >= n || mean > p.slow:
		if !p.cut {
			p.top = p.rate
		}
		p.cut = true
		factor := min(0.85, max(0.5, float64(p.slow)/float64(max(1, mean))))
		if 10*bad >= n {
			factor = 0.7
		}
		p.rate = max(minPace, p.rate*factor)
		p.calm = now.Add(reaction)
	default:
		p.cut = false
		served := float64(n) / length.Seconds()
		p.rate = min(maxPace, max(p.rate, min(p.rate*p.growth(), beyond*served+firstPace)))
	}
}

// growth is by what the rate rises in a window.
func (p *Pace) growth() float64 {
	if p.top == 0 {
		return 1.5
	}
	away := max(0, math.Abs(1-p.rate/p.top)-0.05)
	quickest := 0.3
	if p.rate > p.top {
		quickest = 0.06 // whose purchases are seen seconds later
	}
	return 1.01 + min(quickest, 0.6*away*away)
}
