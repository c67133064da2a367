package waiting

import (
	"maps"
	"slices"
	"time"
)

// The arithmetic of a room's head: who may still use a pass, how many more may be
// called, and what is kept of the head's moves.
const (
	// between is the least time between two moves.
	between = 500 * time.Millisecond
	// recent moves are kept each; of older ones those that are a part of a pass's
	// validity apart, so that MaxSteps reach further back than any pass is valid.
	recent = time.Minute
	parts  = 128
	// concludeAfter a pass ran out no use of it is reported any more.
	concludeAfter = 5 * time.Second
)

// uses counts used passes by when their holders were called.
type uses map[Millis]int

func usesOf(reports map[string]Report) uses {
	u := uses{}
	for _, r := range reports {
		for _, s := range r.Served {
			u[s.At] += s.N
		}
	}
	return u
}

// byStep adds up the uses of those who were called in each step: after the one
// before it, until then. What is later than the last belongs to the last.
func (u uses) byStep(steps []Step) []int {
	n := make([]int, len(steps))
	for at, count := range u {
		i, _ := slices.BinarySearchFunc(steps, at, func(s Step, at Millis) int { return int(s.At - at) })
		if i = min(i, len(steps)-1); i >= 0 {
			n[i] += count
		}
	}
	return n
}

// outstanding is how many people at most have a pass that is valid and not used,
// of those who were there when they were called. Of the passes used, as many as
// possible are held to be those of people who were passed over and came back.
func (p *Progress) outstanding(used []int, pass time.Duration, now Millis) (n int) {
	for i := 1; i < len(p.Steps); i++ {
		if now > p.Steps[i].At+Millis((pass+time.Second)/time.Millisecond) {
			continue
		}
		called := p.Steps[i].Called - p.Steps[i-1].Called
		absent := p.Steps[i].Head - p.Steps[i-1].Head - called
		n += max(0, called-max(0, used[i]-absent))
	}
	return n
}

// conclude counts the passes used of steps so old that no more will be.
func (p *Progress) conclude(used []int, pass time.Duration, now Millis) {
	for i := 1; i < len(p.Steps); i++ {
		s := p.Steps[i]
		if s.Head > p.Concluded && now > s.At+Millis((pass+concludeAfter)/time.Millisecond) {
			p.Taken += min(used[i], s.Head-p.Concluded)
			p.Concluded = s.Head
		}
	}
}

// move notes that the head has come to a place.
func (p *Progress) move(head, called int, pass time.Duration, now Millis) {
	if n := len(p.Steps); n > 0 {
		now = max(now, p.Steps[n-1].At+1) // whatever the clock of the one before
	}
	p.Head, p.Called = head, p.Called+called
	p.Steps = append(p.Steps, Step{p.Head, p.Called, now})
	apart, old := Millis(pass/time.Millisecond)/parts, now-Millis(recent/time.Millisecond)
	kept := p.Steps[:1]
	for i := 1; i < len(p.Steps); i++ {
		if i+1 < len(p.Steps) && p.Steps[i+1].At < old && p.Steps[i+1].At-kept[len(kept)-1].At <= apart {
			continue // those called then count as called with the next: a moment later
		}
		kept = append(kept, p.Steps[i])
	}
	// The first only tells where the head was before the second.
	for len(kept) > 2 && kept[1].Head <= p.Concluded && kept[1].At < old {
		kept = kept[1:]
	}
	p.Steps = slices.Clone(kept[max(0, len(kept)-MaxSteps):])
}

// feed is a token bucket of people to be called.
type feed struct {
	people float64
	at     Millis
}

// fill adds those who may be called since the last time, and answers how many
// that makes.
func (f *feed) fill(rate float64, now Millis) int {
	took := float64(max(0, now-f.at)) / 1000
	if f.at == 0 {
		took = 2 * between.Seconds()
	}
	f.at = now
	f.people = min(f.people+rate*took, max(1, rate)) // a second's, at most
	return int(f.people)
}

// take takes off those who were called and passed over, and answers what is left.
func (f *feed) take(called, absent int) int {
	f.people -= float64(called) + float64(absent)/passedFor
	return int(f.people)
}

// fresh knows which processes still report, by its own clock.
type fresh map[string]heard

type heard struct {
	at   Millis // by the clock of the process
	here Millis // when that changed last
}

const (
	freshFor = 5 * time.Second
	skew     = 30 * time.Second // of clocks, at most
)

// rate sums up what the processes that still report can serve.
func (f fresh) rate(reports map[string]Report, now Millis) (sum float64) {
	maps.DeleteFunc(f, func(process string, _ heard) bool { _, still := reports[process]; return !still })
	for process, r := range reports {
		h, known := f[process]
		switch {
		case !known && max(r.At, now)-min(r.At, now) > Millis(skew/time.Millisecond):
			h = heard{r.At, 0} // of long ago
		case h.at != r.At:
			h = heard{r.At, now}
		}
		f[process] = h
		if h.here > 0 && now-h.here <= Millis(freshFor/time.Millisecond) {
			sum += r.Rate
		}
	}
	return sum
}
