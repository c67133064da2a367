// Package clock tells the process's own time: the wall clock as it stood at
// start plus the monotonic time since, never earlier than a floor.
//
// Invariants: Now never goes back, whatever is done to the wall clock; after a
// restart it is not earlier than the last time that was logged, once Floor has
// been told of it. A step of the wall clock is therefore not followed but
// reported by Jump, so that time-outs come late rather than early.
//
// It refuses to sleep, to tick and to resynchronise: a slewed wall clock slews
// the monotonic one too, and a stepped one is for an operator to look at.
package clock

import (
	"sync/atomic"
	"time"
)

// JumpAlarm is the forward jump of the wall clock above which an alarm is
// raised and time-outs are delayed.
const JumpAlarm = 5 * time.Second

// Clock is safe for concurrent use. Now costs one reading of the monotonic
// clock and one atomic load.
type Clock struct {
	wall    func() time.Time
	elapsed func() time.Duration
	start   int64 // wall clock at start, Unix ns
	floor   atomic.Int64
}

// New starts a clock at the machine's wall clock.
func New() *Clock {
	start := time.Now()
	return From(time.Now, func() time.Duration { return time.Since(start) })
}

// From starts a clock on given sources: wall is read once now and by Jump;
// elapsed is the monotonic time since some fixed moment and never goes back.
func From(wall func() time.Time, elapsed func() time.Duration) *Clock {
	return &Clock{wall: wall, elapsed: elapsed, start: wall().UnixNano() - int64(elapsed())}
}

// Now is the process's time in UTC, without a monotonic reading. Of two calls
// of which one follows the other, the later one never answers an earlier time.
func (c *Clock) Now() time.Time {
	return time.Unix(0, max(c.start+int64(c.elapsed()), c.floor.Load())).UTC()
}

// Floor makes t the earliest time that Now may answer from here on; a t below
// the present floor changes nothing. Where t lies ahead, Now stands still at t
// until the clock has caught up.
func (c *Clock) Floor(t time.Time) {
	ns := t.UnixNano()
	for old := c.floor.Load(); ns > old; old = c.floor.Load() {
		if c.floor.CompareAndSwap(old, ns) {
			return
		}
	}
}

// Jump is how far the wall clock is ahead of Now; negative when it is behind.
// Above JumpAlarm either the wall clock was stepped or the machine was
// suspended, and nobody can tell which of the two clocks is right.
func (c *Clock) Jump() time.Duration { return c.wall().Sub(c.Now()) }
