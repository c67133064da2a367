package gate

import "sync/atomic"

// InFlight bounds the requests of one class that are being served at the same
// time. Goroutines are cheap, what they wait for is not: beyond the bound a
// request is refused at once instead of queueing for memory.
//
// The zero InFlight admits nothing; it must not be copied.
type InFlight struct {
	bound int64
	now   atomic.Int64
	_     [48]byte // classes stand side by side; keep their counters on separate cache lines
}

// NewInFlight admits at most bound requests at a time.
func NewInFlight(bound int) *InFlight { return &InFlight{bound: int64(bound)} }

// Enter takes a place, or answers ErrOverloaded without waiting. Every nil
// must be matched by one Leave.
func (f *InFlight) Enter() error {
	// Adding first may refuse a request while another refused one is on its way
	// out again; it never admits one too many, and needs no retry loop.
	if f.now.Add(1) > f.bound {
		f.now.Add(-1)
		return ErrOverloaded
	}
	return nil
}

// Leave gives the place back.
func (f *InFlight) Leave() { f.now.Add(-1) }

// Count is how many are in flight now.
func (f *InFlight) Count() int { return int(f.now.Load()) }

// Full says whether Enter would refuse now; it may be otherwise a moment later.
func (f *InFlight) Full() bool { return f.now.Load() >= f.bound }
