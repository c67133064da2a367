package storm

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// meter gathers what the lanes count, once a second, and shows it.
type meter struct {
	r       *rehearsal
	out     io.Writer
	mu      sync.Mutex
	total   counts
	latency *hdrhistogram.Histogram // of the whole run
	second  *hdrhistogram.Histogram // of the last second
}

func newMeter(r *rehearsal, out io.Writer) *meter {
	return &meter{r: r, out: out, latency: newHistogram(), second: newHistogram()}
}

func (m *meter) run(ctx context.Context) {
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	last := time.Now()
	for {
		select {
		case now := <-pace.C:
			since, p99 := m.drain()
			m.show(since, p99, now.Sub(last))
			last = now
		case <-ctx.Done():
			return
		}
	}
}

// drain moves the lanes' counts into the total, and answers the difference
// and its p99 in ms.
func (m *meter) drain() (since counts, p99 float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.second.Reset()
	for _, t := range m.r.lanes {
		t.drain(&since, m.second)
	}
	m.r.errands.drain(&since, m.second)
	m.total.add(since)
	m.latency.Merge(m.second)
	return since, latencyOf(m.second).P99
}

// attempts so far.
func (m *meter) attempts() uint64 {
	m.drain()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total.attempts
}

// soFar is all that was counted so far.
func (m *meter) soFar() counts {
	m.drain()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

func (m *meter) show(since counts, p99 float64, span time.Duration) {
	refusals := map[string]uint64{}
	for i, n := range since.refused {
		if n > 0 {
			refusals[codes[i]] = n
		}
	}
	phase := "rush"
	switch {
	case m.r.resting.Load():
		phase = "rest"
	case m.r.selling.Load():
		phase = "tail"
	}
	// A progress line that cannot be written is no reason to stop.
	_, _ = fmt.Fprintf(m.out, "%s %5.1fs  %7.0f/s  accepted %d  refused %s  errors %d  unsent %d  errands %d  p99 %.1f ms  bought %d\n",
		phase, time.Since(m.r.began).Seconds(), float64(since.attempts)/span.Seconds(), len(m.r.oracle.known()), ranked(refusals, 3),
		since.errors, since.unsent, m.r.agenda.open.Load(), p99, m.r.crowd.done.Load())
}

// latencyOf reads the percentiles in milliseconds.
func latencyOf(h *hdrhistogram.Histogram) Latency {
	ms := func(q float64) float64 { return float64(h.ValueAtPercentile(q)) / 1000 }
	return Latency{P50: ms(50), P99: ms(99), P999: ms(99.9)}
}

// landings are how long receipts stayed pending before they were seen held.
type landings struct {
	mu   *sync.Mutex
	took *hdrhistogram.Histogram // µs
}

func newLandings() landings { return landings{&sync.Mutex{}, newHistogram()} }

func (l landings) note(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The value is in range by the min, and that is the only error.
	_ = l.took.RecordValue(min(max(d.Microseconds(), 1), latencyLimit))
}

// waiting sums up; nil when nothing was ever pending.
func (l landings) waiting() *Waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.took.TotalCount() == 0 {
		return nil
	}
	of := latencyOf(l.took)
	return &Waiting{of.P50, of.P99, float64(l.took.Max()) / 1000}
}
