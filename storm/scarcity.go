package storm

import (
	"sync"
	"sync/atomic"
	"time"
)

// scarcity finds attempts that were refused for want of units while there
// were free ones all the time.
//
// Two samples of the counts do not tell what was between them. So units count
// as free all the way from one sample to the next only if there were more of
// them at the first than can have been taken meanwhile: by receipts that
// arrived, requests without an answer, and money on its way, which may buy a
// unit without asking. One sample without free units, or a sample that failed,
// begins anew.
type scarcity struct {
	window time.Duration // how long units must have been free before anybody is blamed
	taken  atomic.Int64  // units that may have been taken since the last sample was asked for
	since  atomic.Int64  // Unix ns from which on units were free; 0 = not known to be

	mu      sync.Mutex
	refused int       // attempts refused in this stretch, each sent well after its start
	free    int       // at the last sample
	asked   time.Time // when the last sample was asked for
	told    bool
}

// glimpse is what was known when a sample was asked for: what is judged by a
// sample must have happened before that.
type glimpse struct {
	at      time.Time
	taken   int
	refused int
}

// took: a unit was taken, or may have been.
func (s *scarcity) took() { s.taken.Add(1) }

// turnedAway: an attempt sent at sent was told that there is nothing free. A
// flood of them passes without a lock while nothing is.
func (s *scarcity) turnedAway(sent time.Time) {
	if s.since.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A server may refuse by levels that are a moment old.
	if since := s.since.Load(); since != 0 && sent.UnixNano() > since+int64(s.window/4) {
		s.refused++
	}
}

// asking must be called before a sample is asked for.
func (s *scarcity) asking(now time.Time) glimpse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return glimpse{now, int(s.taken.Swap(0)), s.refused}
}

// sampled takes a sample that arrived at now; awaited is the money on its way.
// It answers how many attempts were refused falsely and for how long units had
// been free then, once for a whole storm.
func (s *scarcity) sampled(g glimpse, free, awaited int, now time.Time) (refused int, length time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	throughout := s.free > g.taken+awaited && g.at.Sub(s.asked) <= s.window/2
	switch {
	case free == 0:
		s.since.Store(0)
	case s.since.Load() == 0 || !throughout:
		s.since.Store(now.UnixNano())
		s.refused = 0
		g.refused = 0
	}
	s.free, s.asked = free, g.at
	length = time.Duration(now.UnixNano() - s.since.Load())
	if free == 0 || g.refused == 0 || length < s.window || s.told {
		return 0, 0
	}
	s.told = true
	return g.refused, length
}

// missed: a sample did not arrive.
func (s *scarcity) missed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since.Store(0)
	s.free = 0
}
