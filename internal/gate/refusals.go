package gate

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// Refusals remembers the last refusal of each user in each activity, so that
// an operator can answer "why did I not get one?". It is a courtesy with a
// bound, not a book: a fixed number of places, nothing on disk, and where it
// has no place left the oldest refusal within reach is forgotten.
//
// Noting one takes no lock and allocates nothing: a place is a single word,
//
//	tag (26 bits of the hash) | code (8 bits) | time (30 bits of 100 ms since the start)
//
// and a hash of activity and user says which four places it may take, all in
// one cache line. Two users that share tag and places would be taken for one
// another; with a seed of its own per process that happens by chance only, to
// one question in 15 million.
type Refusals struct {
	seed   maphash.Seed
	start  time.Time
	places []atomic.Uint64
	sets   uint64
}

const (
	reach    = 4
	tickBits = 30
	codeBits = 8
	tagBits  = 64 - codeBits - tickBits
	tick     = 100 * time.Millisecond
	lastTick = 1<<tickBits - 1 // reached after 3.4 years
)

// MaxRefusalCode is the greatest code that a refusal can have.
const MaxRefusalCode = 1<<codeBits - 1

// RuleCode is the first of the codes that stand for a refusal by a rule: the
// rule's slot comes on top. Those below have any meaning that a caller gives them.
const RuleCode = MaxRefusalCode + 1 - ruleSlots

// Refusal is a last refusal, as people are told of it.
type Refusal struct {
	Code string
	Rule string // of a refusal by a rule, if it is still known
	At   time.Time
}

// NewRefusals has so many places, rounded up to a multiple of 4; eight bytes
// each. start is the present time.
func NewRefusals(places int, start time.Time) *Refusals {
	sets := (max(places, 1) + reach - 1) / reach
	return &Refusals{seed: maphash.MakeSeed(), start: start, places: make([]atomic.Uint64, sets*reach), sets: uint64(sets)}
}

// find answers the places of a user, and the tag, which is never 0.
func (r *Refusals) find(activity, user string) (set []atomic.Uint64, tag uint64) {
	const golden = 0x9e3779b97f4a7c15 // 2⁶⁴ / golden ratio: spreads what is combined
	h := maphash.String(r.seed, user)*golden ^ maphash.String(r.seed, activity)
	h ^= h >> 32
	first := h % r.sets * reach
	// What chooses the places is left out of the tag as far as it can be.
	tag = h * golden >> (64 - tagBits)
	return r.places[first : first+reach], max(tag, 1)
}

// Note remembers that a user was refused, with a code of 0..MaxRefusalCode.
// Neither string is kept.
func (r *Refusals) Note(activity, user string, code uint8, at time.Time) {
	set, tag := r.find(activity, user)
	ticks := uint64(min(max(at.Sub(r.start)/tick, 0), lastTick))
	word := tag<<(codeBits+tickBits) | uint64(code&MaxRefusalCode)<<tickBits | ticks
	oldest, age := &set[0], uint64(lastTick+1)
	for i := range set {
		is := set[i].Load()
		switch {
		case is == word: // a flood repeats itself; do not take the line from other cores
			return
		case is>>(codeBits+tickBits) == tag:
			set[i].Store(word)
			return
		case is == 0 && age > 0:
			oldest, age = &set[i], 0
		case is != 0 && is&lastTick < age:
			oldest, age = &set[i], is&lastTick
		}
	}
	oldest.Store(word)
}

// Last answers a user's last refusal, to a tenth of a second, and whether it
// is still remembered.
func (r *Refusals) Last(activity, user string) (code uint8, at time.Time, ok bool) {
	set, tag := r.find(activity, user)
	for i := range set {
		is := set[i].Load()
		// Two requests of one user at the same time may both have taken a place.
		if when := r.start.Add(time.Duration(is&lastTick) * tick); is>>(codeBits+tickBits) == tag && (!ok || when.After(at)) {
			code, at, ok = uint8(is>>tickBits&MaxRefusalCode), when, true
		}
	}
	return code, at, ok
}
