package sqlstore

import (
	"slices"
	"sync"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// This file is about what a process remembers so that no replica takes back what
// it has written or shown.

// shareSession gives all databases one session, if there are replicas.
func (s *Sharded) shareSession(dbs []*Store) {
	if slices.ContainsFunc(dbs, func(db *Store) bool { return db.replicas != nil }) {
		s.session = &session{now: time.Now, pins: map[any]pin{}}
		for _, db := range dbs {
			db.session = s.session
		}
	}
}

// session is what this process has written or shown lately and a replica may not
// have yet, by what it is about: an order, a user, a reservation. A nil session
// remembers nothing.
type session struct {
	now func() time.Time

	mu    sync.Mutex
	kept  bool // from the first read on
	pins  map[any]pin
	last  time.Time // of any pin but those of reservations
	floor time.Time // all that was before counts as pinned then
}

type pin struct {
	at      time.Time
	version int // of an order
}

// maxPins bounds a session. Past it all replicas have to have everything up to
// then before any is read.
const maxPins = 1 << 16

func (s *session) put(about any, p pin) {
	s.last = p.at
	if len(s.pins) >= maxPins {
		s.floor = p.at
		clear(s.pins)
	}
	s.pins[about] = p
}

// pin notes that something has just changed about a user or a reservation.
func (s *session) pin(about any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept {
		s.put(about, pin{at: s.now()})
	}
}

// told pins a reservation. It is no reason to keep lists of anybody's orders from
// the replicas: those that have its order are told by behind.
func (s *session) told(reservation stock.ID) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.last; s.kept {
		s.put(reservation, pin{at: s.now()})
		s.last = last
	}
}

// keep begins a session, with the first read that a replica may answer: a process
// that shows nothing has none. All that was before counts as pinned.
func (s *session) keep() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kept {
		s.kept, s.floor = true, s.now()
		s.last = s.floor
	}
}

// note notes an order as it has just been written, or shown by the primary. One
// that was known as it is stays pinned as long as it was: whoever asks again and
// again is not kept from the replicas by that.
func (s *session) note(o *order.Order) {
	if s == nil || o.ID == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, known := s.pins[o.ID]; known && was.version >= o.Version {
		return
	}
	now := s.now()
	if !s.kept {
		return
	}
	s.put(o.ID, pin{now, o.Version})
	s.put(o.User, pin{at: now})
}

// noteNotices notes a page of a user's notifications that the primary has shown:
// which is the newest, and which was read last.
func (s *session) noteNotices(user stock.UserID, page []Notification) {
	if s == nil || len(page) == 0 {
		return
	}
	type newest stock.UserID
	type read stock.UserID
	var last stock.Millis
	for i := range page {
		last = max(last, page[i].ReadAt)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, news := s.now(), false
	for about, version := range map[any]int{newest(user): int(page[0].ID), read(user): int(last)} {
		if s.kept && s.pins[about].version < version {
			s.put(about, pin{now, version})
			news = true
		}
	}
	if news {
		s.put(user, pin{at: now})
	}
}

// landed notes the orders of a batch. One that had landed before is noted in a
// state that it has left, which does no harm.
func (s *session) landed(orders []order.Landed, err error) {
	if s == nil || err != nil {
		return
	}
	for i := range orders {
		s.note(&orders[i].Order)
	}
}

// since is what a replica has to have for a read about a user or a reservation;
// nil is about anybody.
func (s *session) since(about any) time.Time {
	if s == nil {
		return time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if about == nil {
		return s.last
	}
	if p, pinned := s.pins[about]; pinned && p.at.After(s.floor) {
		return p.at
	}
	return s.floor
}

// behind says that an order, read on a replica that has what was committed by a
// time, may be older than what was shown. Zero: that is not known, and only what
// is known to be older is.
func (s *session) behind(o *order.Order, covered time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	told, pinned := s.pins[o.Reservation]
	return s.pins[o.ID].version > o.Version || !covered.IsZero() &&
		(pinned && !covered.After(told.at) || !s.floor.IsZero() && !covered.After(s.floor))
}

// forget drops what all replicas that are read have by now.
func (s *session) forget(covered time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for about, p := range s.pins {
		if covered.After(p.at) {
			delete(s.pins, about)
		}
	}
}
