package limit

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrPlaces: a table was asked for with no place, or too many.
var ErrPlaces = errors.New("invalid number of places")

// MaxPlaces bounds one table: 24 bytes each, 1.6 GB.
const MaxPlaces = 1 << 26

// Limiter holds every key of one rule to one rate. It is safe for concurrent
// use and is not copied.
type Limiter struct {
	number  uint64 // of all lockables in the process, its own: the order in which All locks
	sets    []set
	stripes []stripe // a power of two; stripe i guards the sets i, i + stripes, …
	editing sync.Mutex
}

// numbers gives every lockable of the process its place in the order of locks.
// It decides nothing else.
var numbers atomic.Uint64

// New allocates places for keys, 1..MaxPlaces, rounded up to a multiple of 16.
// What happens beyond them, and how many to ask for, is told at table.go; 1 is
// enough for a limit without keys. The errors are ErrRate and ErrPlaces.
func New(r Rate, places int) (*Limiter, error) {
	p, err := newPlan(r)
	if err != nil {
		return nil, err
	}
	if places < 1 || places > MaxPlaces {
		return nil, fmt.Errorf("%w: %d; 1 to %d", ErrPlaces, places, MaxPlaces)
	}
	l := &Limiter{number: numbers.Add(1), sets: make([]set, (places+ways-1)/ways)}
	stripes := 1
	for stripes*2 <= min(len(l.sets), maxStripes) {
		stripes *= 2
	}
	l.stripes = make([]stripe, stripes)
	for i := range l.stripes {
		l.stripes[i].plan = p
	}
	return l, nil
}

// Take asks for n permits of a key. now is in nanoseconds, ≥ 0, since an origin
// that stays the same for the life of the Limiter; Unix time will do, and then
// windows begin at the same instants in every process. n < 1 panics.
//
// Requests carry slightly different times and meet at the lock in any order, so
// for keys that share a lock time stands still rather than goes back: a request
// with an earlier time is decided at the latest one seen. A clock that
// was really set back, by more than 5 s, is followed: what counted against a
// key at the latest time counts at the new one, so its going back neither
// refills a key nor lets it wait for the clock to catch up.
func (l *Limiter) Take(k Key, n, now int64) Decision {
	check(n)
	k = max(k, 1)
	set, at := l.home(k)
	st := &l.stripes[at]
	st.mu.Lock()
	t := l.time(at, now)
	d := st.charge(set, k, n, t, nil)
	st.mu.Unlock()
	return d.later(time.Duration(t - max(now, 0)))
}

// Peek is Take that takes nothing: what the answer would be.
func (l *Limiter) Peek(k Key, n, now int64) Decision {
	check(n)
	k = max(k, 1)
	set, at := l.home(k)
	st := &l.stripes[at]
	st.mu.Lock()
	t := l.time(at, now)
	var c cell
	if way := set.find(k); way >= 0 {
		c = set.cells[way]
	}
	_, d := st.plan.take(c, n, t)
	st.mu.Unlock()
	return d.later(time.Duration(t - max(now, 0)))
}

// Forgotten counts keys that lost their place to another while they owed
// something, so that they may have got too much. If it grows, the table is too
// small or somebody makes up keys.
func (l *Limiter) Forgotten() (n uint64) {
	for i := range l.stripes {
		st := &l.stripes[i]
		st.mu.Lock()
		n += st.forgotten
		st.mu.Unlock()
	}
	return n
}

func check(n int64) {
	if n < 1 {
		panic(fmt.Sprintf("limit: a request for %d permits", n))
	}
}

// maxSkew is how far behind the latest time a request may be and still be
// merely late. It must exceed the time for which a goroutine can be kept from
// running between reading the clock and deciding; a window shorter than that
// would otherwise begin twice.
const maxSkew = int64(5 * time.Second)

// time answers the time at which a stripe decides a request of this now. The
// stripe is locked.
func (l *Limiter) time(at int, now int64) int64 {
	st := &l.stripes[at]
	now = max(now, 0)
	switch behind := st.latest - now; {
	case behind <= 0:
		st.latest = now
	case behind > maxSkew:
		l.restate(at, st.plan, now)
	}
	return st.latest
}
