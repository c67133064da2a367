package gate

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"time"
)

// Suspicion remembers how people ask, and says whether that looks like a
// program. What it says raises a challenge and never refuses: a person who is
// taken for a program solves it and goes on.
//
// Three signals: attempts of one user at times too regular for a hand; too many
// accounts behind one address; a program that says what it is (HintsOf). All but
// the last are of this process alone: of a fleet each gateway sees its share.
//
// It is two tables of fixed size, of sets of four places. A key that finds no place
// takes the one unused longest, whose key is forgotten: so memory is bounded
// whatever keys requests make up, and what is forgotten is trusted. A set is
// locked with its neighbours, by one of 256 locks; nothing is allocated. It is
// safe for concurrent use.
type Suspicion struct {
	seed     maphash.Seed
	start    time.Time
	people   []person
	networks []neighbours
	locks    [stripes]struct {
		sync.Mutex
		_ [56]byte // a cache line each
	}
}

const (
	stripes = 256
	perSet  = 4
	// gaps of a user are the last keptGaps between attempts, in ms. After a longer one
	// than maxGap another visit begins.
	keptGaps = 16
	maxGap   = 1<<16 - 1
	// minGaps is how many must be known before they can be called regular.
	minGaps = 8
	// accountsHalf is half of the time for which accounts of an address are
	// remembered: each counts for 5 to 10 min.
	accountsHalf = 5 * time.Minute
	accountBits  = 256
)

// person is how one user has asked: 48 bytes.
type person struct {
	key  uint64 // 0: free
	last uint32 // ms since the start, of the latest attempt
	n    uint8  // gaps known
	next uint8  // where the next gap goes
	gaps [keptGaps]uint16
}

// neighbours are the accounts seen behind one address: 80 bytes. Each sets
// the bit that its hash says, so that how many there are can be told from how many
// bits are set, to a few per cent up to 400 (linear counting; Whang, Vander-Zanden
// and Taylor, 1990).
type neighbours struct {
	key  uint64 // 0: free
	half uint32 // number of the half window that seen[0] is about
	seen [2][accountBits / 64]uint64
}

// NewSuspicion knows nothing yet: room for 262,144 users and 32,768 addresses,
// 15 MB when all of it is used. start is the present time.
func NewSuspicion(start time.Time) *Suspicion { return newSuspicion(placesOfPeople, 1<<15, start) }

// newSuspicion rounds places up to powers of two.
func newSuspicion(people, networks int, start time.Time) *Suspicion {
	places := func(n int) int { return 1 << bits.Len(uint(max(n, perSet)-1)) }
	return &Suspicion{seed: maphash.MakeSeed(), start: start, people: make([]person, places(people)), networks: make([]neighbours, places(networks))}
}

// Observe notes an attempt: a purchase that the board does not refuse, a ticket or a
// place in a queue asked for. It keeps nothing of f.
func (s *Suspicion) Observe(now time.Time, f *Facts) {
	user := s.key(f.User)
	if f.User != "" {
		s.seeAttempt(user, s.ms(now))
	}
	if f.User != "" && f.IP.IsValid() {
		s.seeAccount(s.address(f), user, s.half(now))
	}
}

func (s *Suspicion) key(user string) uint64 { return max(maphash.String(s.seed, user), 1) }

func (s *Suspicion) address(f *Facts) uint64 {
	b := network(f.IP)
	return max(maphash.Bytes(s.seed, b[:]), 1)
}

// ms passes its end after 49 days, which differences do not mind.
func (s *Suspicion) ms(now time.Time) uint32   { return uint32(now.Sub(s.start).Milliseconds()) }
func (s *Suspicion) half(now time.Time) uint32 { return uint32(now.Sub(s.start) / accountsHalf) }

// setOf answers the first place of a key's set, and its lock, which is held.
func (s *Suspicion) setOf(key uint64, places int) (first int, lock *sync.Mutex) {
	set := key & uint64(places/perSet-1)
	lock = &s.locks[set%stripes].Mutex
	lock.Lock()
	return int(set) * perSet, lock
}

func (s *Suspicion) seeAttempt(key uint64, at uint32) {
	first, lock := s.setOf(key, len(s.people))
	defer lock.Unlock()
	set := s.people[first : first+perSet]
	p := &set[0]
	for i := range set {
		if set[i].key == key {
			set[i].attempt(at)
			return
		}
		if p.key != 0 && (set[i].key == 0 || int32(set[i].last-p.last) < 0) {
			p = &set[i]
		}
	}
	*p = person{key: key, last: at}
}

// attempt adds the gap since the one before. Two requests that overtake one
// another came at the same time.
func (p *person) attempt(at uint32) {
	gap := int32(at - p.last)
	switch {
	case gap < 0:
		gap, at = 0, p.last
	case gap > maxGap:
		*p = person{key: p.key, last: at}
		return
	}
	p.last = at
	p.gaps[p.next] = uint16(gap)
	p.next = (p.next + 1) % keptGaps
	p.n = min(p.n+1, keptGaps)
}

// regular says whether the gaps vary by less than a part of their mean: whether
// their coefficient of variation is under limit.
func (p *person) regular(limit float64) bool {
	if p.n < minGaps {
		return false
	}
	var sum, squares float64
	for _, gap := range p.gaps[:p.n] {
		sum += float64(gap)
		squares += float64(gap) * float64(gap)
	}
	n := float64(p.n)
	// s² / mean² < limit², with s² = (Σx² − (Σx)²/n) / (n−1), and no division by
	// the sum: gaps of no length at all are as regular as can be.
	return sum == 0 || (n*squares-sum*sum)*n < limit*limit*(n-1)*sum*sum
}

func (s *Suspicion) seeAccount(key, user uint64, half uint32) {
	first, lock := s.setOf(key, len(s.networks))
	defer lock.Unlock()
	set := s.networks[first : first+perSet]
	n := &set[0]
	for i := range set {
		if set[i].key == key {
			n = &set[i]
			break
		}
		if n.key != 0 && (set[i].key == 0 || int32(set[i].half-n.half) < 0) {
			n = &set[i]
		}
	}
	if n.key != key {
		*n = neighbours{key: key, half: half}
	}
	n.turn(half)
	bit := user >> 56 // the lower ones have chosen the place
	n.seen[0][bit/64] |= 1 << (bit % 64)
}

// turn makes seen[0] that of a half window. Time that seems to go back stays.
func (n *neighbours) turn(half uint32) {
	switch ahead := int32(half - n.half); {
	case ahead <= 0:
		return
	case ahead == 1:
		n.seen[1] = n.seen[0]
	default:
		n.seen[1] = [accountBits / 64]uint64{}
	}
	n.half, n.seen[0] = half, [accountBits / 64]uint64{}
}

// count is how many bits are set.
func (n *neighbours) count() (set int) {
	for i := range n.seen[0] {
		set += bits.OnesCount64(n.seen[0][i] | n.seen[1][i])
	}
	return set
}

// suspect says by which signal a request looks like that of a program; of several,
// the one that is found out first.
func (s *Suspicion) suspect(now time.Time, f *Facts, by *Thresholds) (signal, bool) {
	if by.signals&(1<<headlessSignal) != 0 && f.Hints != 0 {
		return headlessSignal, true
	}
	if f.User == "" {
		return 0, false
	}
	if by.signals&(1<<accountsSignal) != 0 && f.IP.IsValid() && s.accounts(s.address(f), s.half(now)) > by.bits {
		return accountsSignal, true
	}
	if by.signals&(1<<regularSignal) != 0 && s.isRegular(s.key(f.User), s.ms(now), by.regular) {
		return regularSignal, true
	}
	return 0, false
}

// accounts is how many bits are set for an address.
func (s *Suspicion) accounts(key uint64, half uint32) int {
	first, lock := s.setOf(key, len(s.networks))
	defer lock.Unlock()
	set := s.networks[first : first+perSet]
	for i := range set {
		if n := &set[i]; n.key == key {
			n.turn(half)
			return n.count()
		}
	}
	return 0
}

func (s *Suspicion) isRegular(key uint64, at uint32, limit float64) bool {
	first, lock := s.setOf(key, len(s.people))
	set := s.people[first : first+perSet]
	var found person // free, and so not regular
	for i := range set {
		if set[i].key == key {
			found = set[i]
			break
		}
	}
	lock.Unlock()
	return int32(at-found.last) <= maxGap && found.regular(limit)
}
