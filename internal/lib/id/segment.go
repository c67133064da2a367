package id

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Segment is the numbers First..End-1 of a row of numbers, given to one process.
type Segment struct{ First, End int64 }

// Bounds of what is cut off a row of numbers.
const (
	MaxRow       = 64      // bytes of a row's name, at least 1
	MaxSegment   = 1 << 40 // numbers in one segment
	minNumbers   = 100     // the first segment of Numbers, and the smallest
	maxNumbers   = 1 << 24 // the largest
	maxGrowth    = 8       // how many times larger than the last one a segment may be
	segmentLasts = 10 * time.Minute
)

// segments cuts segments off named rows of numbers, durably: no number of a row
// is ever in two segments, whoever asks, and a call of which the answer was lost
// costs a segment that nobody uses. Within a row segments ascend in the order
// in which they were cut, from 1 or atLeast, whichever is more.
type segments interface {
	CutSegment(ctx context.Context, row string, atLeast, size int64) (Segment, error)
}

var (
	// ErrNoNumbers: what was fetched is used up, and the next segment is not
	// there yet. It was not fetched for want of a step or of its store.
	ErrNoNumbers = errors.New("no numbers left: the next segment has not been fetched")
	// ErrWentBack: the store gave out again what it had given before. It was
	// restored from a backup, or a replica that had not heard everything took its
	// place, and nobody knows what others were given since. It is for good: raise
	// the row above every number that is known, then start the processes again.
	ErrWentBack = errors.New("row of numbers went back")
)

// Numbers gives out the numbers of one row, each once among all processes, in
// memory: there are two segments, of which one is used and the other waits, as
// in Leaf-segment (Meituan, 2017); the sizes follow the pace.
//
// Numbers are dense, ascend in a process, and are nearly in the order of time
// among several. What a process holds when it ends is never used: two segments
// at most, which is what it needed in the last twenty minutes, and 200 at least.
//
// Next may be called from anywhere; Step belongs to one goroutine.
type Numbers struct {
	row   string
	from  segments
	now   func() time.Time
	using atomic.Pointer[supply] // the segment that is used
	spare atomic.Pointer[supply] // the one that waits; nil: to be fetched

	// Of Step alone.
	size  int64     // of the last segment
	end   int64     // of the last segment: the next one begins here or later
	since time.Time // when the last one was fetched
	given int64     // up to then, of all segments
	done  int64     // of the segments before the one that is used
	last  *supply   // the one that was used then
	fault error     // ErrWentBack
}

// supply is a segment that is being given out. next runs past end by as many
// callers as came at once.
type supply struct {
	next atomic.Int64
	Segment
}

func (s *supply) used() int64 { return min(s.next.Load(), s.End) - s.First }

// NewNumbers of a row (1..MaxRow bytes) has none before its first Step.
func NewNumbers(row string, from segments, now func() time.Time) *Numbers {
	n := &Numbers{row: row, from: from, now: now, last: new(supply)}
	n.using.Store(n.last)
	return n
}

// Next is another number, 1 or more, or ErrNoNumbers. It takes no lock, waits
// for nothing and allocates nothing.
func (n *Numbers) Next() (int64, error) {
	for {
		s := n.using.Load()
		if s.next.Load() < s.End {
			if number := s.next.Add(1) - 1; number < s.End {
				return number, nil
			}
		}
		spare := n.spare.Load()
		if spare == nil {
			return 0, ErrNoNumbers
		}
		n.turn(s, spare)
	}
}

// turn puts the spare segment in the place of one that is used up. Only who does
// that takes it from the spare ones: a late caller may have an old s and a new
// spare. In between the two places hold the same, and if it is used up already,
// then the next caller takes it out.
func (n *Numbers) turn(s, spare *supply) {
	if n.using.CompareAndSwap(s, spare) {
		n.spare.CompareAndSwap(spare, nil)
	}
}

// Step fetches the next segment once an eighth of the current one is used up.
// worked says that it did. While the store is away it fails, and Next goes on
// with what is there.
func (n *Numbers) Step(ctx context.Context) (worked bool, err error) {
	if n.fault != nil || n.spare.Load() != nil {
		return false, n.fault
	}
	s := n.using.Load() // stays where it is while there is no spare
	if s != n.last {
		n.done += n.last.End - n.last.First
		n.last = s
	}
	used := s.used()
	if 8*used < s.End-s.First {
		return false, nil
	}
	now, given := n.now(), n.done+used
	size := n.wants(given-n.given, now.Sub(n.since))
	got, err := n.from.CutSegment(ctx, n.row, 1, size)
	if err != nil {
		return false, fmt.Errorf("numbers of %q: %w", n.row, err)
	}
	if got.First < n.end {
		n.fault = fmt.Errorf("numbers of %q: %w: got %d and had up to %d", n.row, ErrWentBack, got.First, n.end-1)
		n.using.Store(new(supply)) // others may be given these now
		return false, n.fault
	}
	n.size, n.end, n.since, n.given = size, got.End, now, given
	spare := &supply{Segment: got}
	spare.next.Store(got.First)
	n.spare.Store(spare)
	return true, nil
}

// wants is the size of the next segment when so many numbers were given out
// since the last one: what lasts for ten minutes at this pace, at most eight
// times and at least half as much as last time.
func (n *Numbers) wants(given int64, took time.Duration) int64 {
	if n.size == 0 {
		return minNumbers
	}
	pace := float64(given) / max(took, time.Microsecond).Seconds()
	lasting := int64(min(pace*segmentLasts.Seconds(), maxNumbers))
	return min(max(lasting, n.size/2, minNumbers), n.size*maxGrowth, maxNumbers)
}
