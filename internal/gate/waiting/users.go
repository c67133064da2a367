package waiting

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// users are those who have been met here, with their numbers: what spares the
// Line a question for each poll. It is bounded; who is forgotten is looked up again.
type users struct {
	seed   maphash.Seed
	most   int // of each shard
	shards [64]shard
}

type shard struct {
	mu    sync.Mutex
	known map[string]known
	fresh []uint32 // numbers to be noted as being there
}

type known struct {
	number uint32
	half   uint32 // of a window in which he was noted last
	entry  EntryID
}

func newUsers(most int) *users {
	u := &users{seed: maphash.MakeSeed(), most: max(1, most/64)}
	for i := range u.shards {
		u.shards[i].known = map[string]known{}
	}
	return u
}

func (u *users) shard(user string) *shard {
	return &u.shards[maphash.String(u.seed, user)%uint64(len(u.shards))]
}

// get answers a user's number. half, unless 0, is when he was there just now.
func (u *users) get(user string, half uint32) (number int, entry EntryID, ok bool) {
	s := u.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[user]
	if ok && half != 0 && k.half != half {
		k.half = half
		s.known[user] = k
		s.fresh = append(s.fresh, k.number)
	}
	return int(k.number), k.entry, ok
}

// put notes a user who is there. Of two numbers the later one stands.
func (u *users) put(user string, number int, entry EntryID, half uint32) {
	s := u.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, has := s.known[user]
	if has && int(old.number) > number {
		return
	}
	if !has && len(s.known) >= u.most {
		for other := range s.known { // anybody
			delete(s.known, other)
			break
		}
	}
	if !has {
		user = strings.Clone(user) // the caller's may be a part of a buffer
	}
	s.known[user] = known{uint32(number), half, entry}
	s.fresh = append(s.fresh, uint32(number))
}

// forget forgets a user, and that he was there since the last take.
func (u *users) forget(user string) {
	s := u.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[user]
	if !ok {
		return
	}
	delete(s.known, user)
	s.fresh = slices.DeleteFunc(s.fresh, func(n uint32) bool { return n == k.number })
}

// take answers the numbers that were there since the last take.
func (u *users) take() (numbers []int) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		for _, n := range s.fresh {
			numbers = append(numbers, int(n))
		}
		s.fresh = s.fresh[:0]
		s.mu.Unlock()
	}
	return numbers
}

func (u *users) len() (n int) {
	for i := range u.shards {
		u.shards[i].mu.Lock()
		n += len(u.shards[i].known)
		u.shards[i].mu.Unlock()
	}
	return n
}
