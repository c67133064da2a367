package limit

import "hash/maphash"

// Key stands for who is limited: 64 bits of a seeded hash, not the name. So a
// key costs the same whoever chooses it, its place holds no pointer for the
// collector to follow, and the hot path compares numbers.
//
// Two names with the same Key share one limit. Among m keys in use at a time
// that happens to some pair with probability m²/2⁶⁵: once in 37 million tables
// of a million keys, and then one of the two is refused early. The seed is of
// this process alone and never leaves it, so nobody can look for a name that
// collides with somebody else's; it also means that a Key must not be stored
// or sent.
type Key uint64

// Only is the key of a limit that has no keys, such as a global one.
const Only Key = 1

// Hash makes keys. All keys of one Limiter come from the same Hash.
type Hash struct{ seed maphash.Seed }

// NewHash has a seed of its own.
func NewHash() Hash { return Hash{maphash.MakeSeed()} }

// String is the key of a name.
func (h Hash) String(name string) Key { return Key(maphash.String(h.seed, name)) }

// Bytes is the key of the same name in bytes, which it does not keep.
func (h Hash) Bytes(name []byte) Key { return Key(maphash.Bytes(h.seed, name)) }

// And is the key of a combination, such as a user at a path: its order
// matters, and "a","bc" is another one than "ab","c".
func (k Key) And(other Key) Key {
	// Multiplying keeps the order apart; the shifts bring the high bits, which
	// choose the place in a table, under the influence of all others. The
	// finalizer is that of SplitMix64.
	x := uint64(k)*0x9e3779b97f4a7c15 + uint64(other)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return Key(x ^ x>>31)
}
