package stock

import (
	"hash/maphash"
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"
)

// Board is the published face of a ledger: levels, windows and holders of
// every activity, readable by any number of goroutines without a lock. It is
// how a sold-out attempt is refused without touching the ledger.
//
// It may refuse only what the ledger would refuse too. So it shows durable
// counts only, and it learns of a holder before it learns of the counts that
// the holder's units are missing from: whoever it does not know as a holder
// had no reservation at the position of the counts.
type Board struct {
	mu    sync.Mutex // serialises Post
	faces atomic.Pointer[map[ActivityID]*Face]
}

// NewBoard is an empty board.
func NewBoard() *Board {
	b := &Board{}
	b.faces.Store(&map[ActivityID]*Face{})
	return b
}

// Face answers an activity's face, or nil.
func (b *Board) Face(activity ActivityID) *Face { return (*b.faces.Load())[activity] }

// Post adds an empty face for an activity, or answers the one it has.
func (b *Board) Post(activity ActivityID) *Face {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := (*b.faces.Load())[activity]; f != nil {
		return f
	}
	f := NewFace(activity)
	b.change(func(next map[ActivityID]*Face) { next[f.activity] = f })
	return f
}

// Put puts a face on the board, in the place of the one its activity has.
func (b *Board) Put(f *Face) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(next map[ActivityID]*Face) { next[f.activity] = f })
}

// Withdraw takes an activity's face off the board, if it has one.
func (b *Board) Withdraw(activity ActivityID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(next map[ActivityID]*Face) { delete(next, activity) })
}

func (b *Board) change(edit func(map[ActivityID]*Face)) {
	next := maps.Clone(*b.faces.Load())
	edit(next)
	b.faces.Store(&next)
}

// Face is one activity's published state. One goroutine at a time may call
// Publish, PublishUntil and Extend; any may call Holder.
type Face struct {
	activity ActivityID
	holders  holders
	shown    atomic.Pointer[shown]
}

// NewFace is an empty face that is on no board yet.
func NewFace(activity ActivityID) *Face {
	f := &Face{activity: ActivityID(strings.Clone(string(activity)))}
	f.holders.init()
	return f
}

// shown is immutable once published, but for until.
type shown struct {
	until   atomic.Int64 // the last ms at which it may be refused by
	counts  Counts
	rules   Allocation
	items   []Item
	refusal []error // per item: what to answer when none is free, else nil
	notOpen *Refusal
}

// Holder makes a user known as a holder; call it before any answer that rests
// on the user's reservation, and before Publish of counts that include it.
func (f *Face) Holder(user UserID) { f.holders.add(user) }

// Publish shows durable counts and the rules in force with them.
func (f *Face) Publish(counts Counts, a Allocation, items []Item) {
	f.PublishUntil(counts, a, items, nil, math.MaxInt64)
}

// PublishUntil shows what was read from a ledger that goes on without the
// reader, and which may be cut off from it: by what is shown nobody is refused
// later than at until, unless Extend moves it. An item of which sure (nil: all
// are) is false is shown, and its want of units refuses nobody.
func (f *Face) PublishUntil(counts Counts, a Allocation, items []Item, sure []bool, until Millis) {
	s := &shown{counts: counts, rules: a, items: items, refusal: make([]error, len(items)),
		notOpen: &Refusal{Err: ErrNotOpen, OpensAt: a.OpensAt}}
	s.until.Store(int64(until))
	old := f.shown.Load()
	for i, c := range counts.Items {
		if c.Free > 0 || sure != nil && !sure[i] {
			continue
		}
		want := ErrSoldOut
		if c.Held > 0 {
			want = ErrAllHeld
		}
		if old != nil && i < len(old.refusal) && old.refusal[i] != nil && old.refusal[i].(*Refusal).Err == want {
			s.refusal[i] = old.refusal[i]
			continue
		}
		s.refusal[i] = &Refusal{Err: want, SKU: c.SKU}
	}
	f.shown.Store(s)
}

// Extend lets what is shown refuse until then: a later time when it has been
// found to be so still, 0 when it may not be so any more. It stays on show.
func (f *Face) Extend(until Millis) {
	if s := f.shown.Load(); s != nil {
		s.until.Store(int64(until))
	}
}

// Counts answers what was published last.
func (f *Face) Counts() (Counts, bool) {
	s := f.shown.Load()
	if s == nil {
		return Counts{}, false
	}
	return s.counts, true
}

// Rules answers the phase, window, hold and limits in force as published last;
// all zero before the first Publish.
func (f *Face) Rules() (Phase, Allocation, []Item) {
	s := f.shown.Load()
	if s == nil {
		return 0, Allocation{}, nil
	}
	return s.counts.Phase, s.rules, s.items
}

// Holds says whether the user may have a reservation; false is certain.
func (f *Face) Holds(user UserID) bool { return f.holders.has(user) }

// Refuses answers why the ledger would refuse a user without reservations, or
// nil when only the ledger can tell. now is of the clock that until is of. It takes no lock and allocates nothing
// for a sale that is sold out.
func (f *Face) Refuses(user UserID, lines []Line, now Millis) error {
	s := f.shown.Load()
	if s == nil || now > Millis(s.until.Load()) || f.holders.has(user) {
		return nil
	}
	if s.counts.Phase <= Paused && now < s.rules.OpensAt && now < s.rules.ClosesAt {
		return s.notOpen
	}
	if err := admits(s.counts.Phase, s.rules.OpensAt, s.rules.ClosesAt, now); err != nil {
		return err
	}
	asked := 0
	var none error
	for _, l := range lines {
		at := -1
		for i := range s.items {
			if s.items[i].SKU == l.SKU {
				at = i
				break
			}
		}
		if at < 0 || l.Quantity < 1 || l.Quantity > s.items[at].PerOrder || s.items[at].PerUser > 0 && l.Quantity > s.items[at].PerUser {
			return nil // another refusal comes first: the ledger words it
		}
		asked += l.Quantity
		if none == nil {
			none = s.refusal[at]
		}
	}
	if s.rules.PerUser > 0 && asked > s.rules.PerUser {
		return nil
	}
	return none
}

// holders is an insert-only set of user hashes with lock-free readers. A false
// "has" only costs the slow way; a false "has not" cannot be.
type holders struct {
	seed  maphash.Seed
	mu    sync.Mutex // of who adds
	n     int
	table atomic.Pointer[[]atomic.Uint64]
}

func (h *holders) init() {
	h.seed = maphash.MakeSeed()
	t := make([]atomic.Uint64, 1024)
	h.table.Store(&t)
}

func (h *holders) hash(user UserID) uint64 {
	return maphash.String(h.seed, string(user)) | 1 // 0 marks an empty slot
}

func (h *holders) has(user UserID) bool {
	t := *h.table.Load()
	mask := uint64(len(t) - 1)
	v := h.hash(user)
	for i := (v >> 1) & mask; ; i = (i + 1) & mask {
		switch t[i].Load() {
		case v:
			return true
		case 0:
			return false
		}
	}
}

func (h *holders) add(user UserID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := *h.table.Load()
	if h.n*2 >= len(t) {
		bigger := make([]atomic.Uint64, 2*len(t))
		for i := range t {
			if v := t[i].Load(); v != 0 {
				place(bigger, v)
			}
		}
		h.table.Store(&bigger)
		t = bigger
	}
	if place(t, h.hash(user)) {
		h.n++
	}
}

func place(t []atomic.Uint64, v uint64) bool {
	mask := uint64(len(t) - 1)
	for i := (v >> 1) & mask; ; i = (i + 1) & mask {
		switch t[i].Load() {
		case v:
			return false
		case 0:
			t[i].Store(v)
			return true
		}
	}
}
