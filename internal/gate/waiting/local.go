package waiting

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Local is the Presence of a process that is alone, in its memory: a bit for
// each number and window. The zero value is empty.
type Local struct {
	mu    sync.Mutex
	rooms map[string]*local
}

type local struct {
	last    int64 // the latest window
	windows [2]bits
	reports map[string]Report
}

// bits is a set of numbers.
type bits []uint64

func (b bits) has(n int) bool { return n/64 < len(b) && b[n/64]>>(n%64)&1 == 1 }

func (b *bits) add(n int) {
	if n/64 >= len(*b) {
		*b = append(*b, make(bits, max(n/64+1-len(*b), len(*b)/4))...)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (l *Local) room(activity string) *local {
	if r := l.rooms[activity]; r != nil {
		return r
	}
	if l.rooms == nil {
		l.rooms = map[string]*local{}
	}
	r := &local{reports: map[string]Report{}}
	l.rooms[activity] = r
	return r
}

// See implements Presence.
func (l *Local) See(_ context.Context, activity string, window int64, numbers []int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.room(activity)
	if window < r.last-1 {
		return nil
	}
	for r.last < window {
		r.last = max(r.last+1, window-1)
		clear(r.windows[r.last&1])
	}
	for _, n := range numbers {
		if n >= 0 && n < MaxJoined {
			r.windows[window&1].add(n)
		}
	}
	return nil
}

// Seen implements Presence.
func (l *Local) Seen(_ context.Context, activity string, window int64, numbers []int) ([]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there, r := make([]bool, len(numbers)), l.rooms[activity]
	if r == nil {
		return there, nil
	}
	for _, w := range []int64{window, window - 1} {
		if w != r.last && w != r.last-1 {
			continue
		}
		for i, n := range numbers {
			there[i] = there[i] || n >= 0 && r.windows[w&1].has(n)
		}
	}
	return there, nil
}

// Report implements Presence.
func (l *Local) Report(_ context.Context, activity, process string, r Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Served = slices.Clone(r.Served)
	l.room(activity).reports[process] = r
	return nil
}

// Reports implements Presence.
func (l *Local) Reports(_ context.Context, activity string) (map[string]Report, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rooms[activity]; r != nil {
		return maps.Clone(r.reports), nil
	}
	return map[string]Report{}, nil
}

// Forget forgets a room.
func (l *Local) Forget(activity string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rooms, activity)
}
