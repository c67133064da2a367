package limit

import (
	"math/bits"
	"sync"
)

// The table is one array of sets of 16 places, made at construction. A key's
// hash chooses its set, and it lives in any place of it; there are no chains,
// no pointers and nothing to sweep. A place whose key owes nothing any more is
// as good as an empty one.
//
// When all 16 owe something, the newcomer takes the place of the key that would
// be fresh soonest, which loses the least. That is the right one to lose under
// a flood of random keys. Each of those has taken a permit or two and is soon
// fresh again, so they displace one another, while a key that ran into its
// limit owes the most and stays; by age alone it would be washed out by whoever
// can make up 16 names between two requests. Who is forgotten gets too much:
// once more its burst.
//
// The other way, to let all keys beyond the bound share one counter, is exact
// about the total and wrong about people: a flood would use up that counter and
// every honest newcomer be refused by it, so that the limit itself becomes the
// attack. Against somebody who can make up keys no limit by key helps anyway,
// with any memory. What helps is a limit on something they cannot make up (the
// address block, the activity, the instance) beside it, in one All.
//
// How many places: let m be the keys used within the time that one takes to be
// fresh (Per, or twice it for a sliding window). With 2 m places one key in
// 1,000 is forgotten early, with m places one in ten. Forgotten tells.
const ways = 16

type set struct {
	keys  [ways]Key // 0: empty. Two cache lines, all that a look-up reads besides one cell
	cells [ways]cell
}

const maxStripes = 256

// stripe guards the sets whose number ends in its own.
type stripe struct {
	mu        sync.Mutex
	plan      plan
	latest    int64  // no decision is made for an earlier time
	forgotten uint64 // keys that lost their place while they owed something
	_         [64]byte
}

// entry is a place as it was before it was written, for taking a charge back.
type entry struct {
	set    *set
	way    int
	key    Key
	cell   cell
	forgot bool // its key was another's that owed something
}

// home answers the set of a key and the number of its stripe.
func (l *Limiter) home(k Key) (*set, int) {
	at, _ := bits.Mul64(uint64(k), uint64(len(l.sets))) // k / 2⁶⁴ × sets
	return &l.sets[at], int(at) & (len(l.stripes) - 1)
}

// find answers the place of a key, or -1.
func (s *set) find(k Key) int {
	for i := range s.keys {
		if s.keys[i] == k {
			return i
		}
	}
	return -1
}

// vacate chooses the place for a newcomer: an empty one, or the key that has
// the least to forget. owed says that it did owe something.
func (s *set) vacate(a algorithm, now int64) (way int, owed bool) {
	var soonest int64
	for i := range s.keys {
		if s.keys[i] == 0 {
			return i, false
		}
		fresh := a.fresh(s.cells[i])
		// In a window all are fresh at the same time: then who took least.
		if i == 0 || fresh < soonest || fresh == soonest && s.cells[i].used < s.cells[way].used {
			way, soonest = i, fresh
		}
	}
	return way, soonest > now
}

// charge decides, and takes the permits if it allows; then it notes in undo,
// unless that is nil, what it wrote over. The stripe is locked.
func (st *stripe) charge(s *set, k Key, n, now int64, undo *entry) Decision {
	var was cell
	way := s.find(k)
	if way >= 0 {
		was = s.cells[way]
	}
	next, d := st.plan.take(was, n, now)
	if !d.Allowed {
		return d // nothing to write: a flood of refusals leaves the lines of the cells shared
	}
	owed := false
	if way < 0 {
		if way, owed = s.vacate(st.plan.algorithm, now); owed {
			st.forgotten++
		}
	}
	if undo != nil {
		*undo = entry{set: s, way: way, key: s.keys[way], cell: s.cells[way], forgot: owed}
	}
	s.keys[way], s.cells[way] = k, next
	return d
}

// restore takes a charge back, as long as the stripe has been locked since.
func (st *stripe) restore(e entry) {
	e.set.keys[e.way], e.set.cells[e.way] = e.key, e.cell
	if e.forgot {
		st.forgotten--
	}
}
