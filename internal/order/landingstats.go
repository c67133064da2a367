package order

import (
	"errors"
	"time"

	"sluice/internal/stock"
)

// LandingStats is how landing is doing, for readiness and metrics.
type LandingStats struct {
	Landed    stock.Cursor  // the durable watermark: the log may be trimmed up to here
	Stopped   bool          // an entry or the store stands in the way; being retried
	Fenced    bool          // ended for good
	Reason    string        // why it is stopped or fenced
	Delay     time.Duration // age of the oldest entry known not to be landed; 0 when caught up
	LastDelay time.Duration // age that the oldest entry of the last batch had when it landed
	BatchSize int           // entries in a full batch at present
	Orders    uint64        // rows offered to the store
	Refused   uint64        // of those, what the book refused
	Disagreed uint64        // settlements and adjustments that the book would answer otherwise
	Batches   uint64
	Failures  uint64 // attempts that ended in an error
	LastBatch time.Duration
	Times     [len(BatchBounds) + 1]uint64 // commits by duration, one more than bounds for the rest
	TimesSum  time.Duration
}

// BatchBounds are the upper bounds of LandingStats.Times, in milliseconds.
var BatchBounds = [...]int64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}

func (s *LandingStats) batch(orders, size int, took, delay time.Duration) {
	s.Orders += uint64(orders)
	s.Batches++
	s.BatchSize = size
	s.LastBatch, s.LastDelay = took, delay
	s.TimesSum += took
	i := 0
	for i < len(BatchBounds) && took > time.Duration(BatchBounds[i])*time.Millisecond {
		i++
	}
	s.Times[i]++
}

// Stats answers at once.
func (l *Lander) Stats() LandingStats {
	now := l.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Delay = age(l.waiting, now)
	return s
}

// Landed is the durable watermark, the zero Cursor before the first step.
func (l *Lander) Landed() stock.Cursor { return l.Stats().Landed }

// Changed is a channel that is closed by the next landing. To wait for an
// order: take the channel, look for the order, and wait only if it is not there.
func (l *Lander) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *Lander) fenced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats.Fenced
}

// stopped notes a failure and says whether landing was running until now.
func (l *Lander) stopped(err error) (first bool) {
	fenced := errors.Is(err, ErrFenced)
	l.mu.Lock()
	defer l.mu.Unlock()
	first = !l.stats.Stopped
	l.stats.Stopped = !fenced
	l.stats.Fenced = fenced
	l.stats.Reason = err.Error()
	l.stats.Failures++
	return first
}

func (l *Lander) resumed() {
	l.wait = 0
	l.mu.Lock()
	was := l.stats.Stopped
	l.stats.Stopped, l.stats.Reason = false, ""
	l.mu.Unlock()
	if was {
		l.Logger.Info("landing goes on", "log", l.LogID)
	}
}

// await notes the oldest entry that is not landed yet; 0 says there is none.
func (l *Lander) await(at stock.Millis) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at == 0 || l.waiting == 0 {
		l.waiting = at
	}
}
