package sqlstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Shown is the store for what is only shown to people. This file is the whole
// list of what a replica may answer: Get, List but for what is due, and
// Notifications. Everything else is the store's own, on the primary, and so is
// whatever a decision is made by. docs/decisions/0024 has the promise:
//
//   - what this process has written is seen, and nothing is shown that is older
//     than what this process has shown;
//   - "no such order" is the primary's word;
//   - what is shown is at most maxlag old, while the primary answers.
//
// Without replicas it is the store. Safe for concurrent use.
type Shown struct {
	*Sharded
	replicated bool
	view       atomic.Pointer[nearView]
}

var _ order.Store = (*Shown)(nil)

// Shown is the store for what is only shown.
func (s *Sharded) Shown() *Shown {
	has := func(db *database) bool { return db.replicas != nil }
	return &Shown{Sharded: s, replicated: slices.ContainsFunc(s.dbs, has)}
}

// Replicated says whether a replica may answer: then the store itself has to be
// asked before anything is decided by what Shown answers.
func (v *Shown) Replicated() bool { return v.replicated }

type primaryKey struct{}

// Primary is a context in which replicas answer nothing.
func Primary(ctx context.Context) context.Context {
	return context.WithValue(ctx, primaryKey{}, true)
}

// Told notes that news of a reservation has reached this process by another
// way, its log: what was shown of it so far is old. The order was written before
// the log had the news.
func (v *Shown) Told(reservation stock.ID) { v.session.pin(reservation) }

// Get implements order.Store.
func (v *Shown) Get(ctx context.Context, id stock.OrderID) (o order.Order, err error) {
	of := v.groups[v.groupOfID(id)].database
	err = v.read(ctx, v.dbs[of:of+1], time.Time{}, func(s *Sharded, current check) (bool, error) {
		o, err = s.Get(ctx, id)
		return err == nil && current(&o), err
	})
	if err != nil {
		return order.Order{}, err
	}
	return o, nil
}

// List implements order.Store.
func (v *Shown) List(ctx context.Context, q order.Query) (page []order.Order, err error) {
	if q.DueBy > 0 { // somebody is going to act on it
		return v.Sharded.List(ctx, q)
	}
	dbs, since := v.dbs, v.session.since(nil)
	switch {
	case q.Reservation != nil:
		since = v.session.since(*q.Reservation)
	case q.User != "":
		of := v.groups[v.groupOfUser(q.User)].database
		dbs, since = v.dbs[of:of+1], v.session.since(q.User)
	}
	err = v.read(ctx, dbs, since, func(s *Sharded, current check) (bool, error) {
		page, err = s.List(ctx, q)
		all := err == nil && (q.Reservation == nil || len(page) > 0)
		for i := range page {
			all = current(&page[i]) && all
		}
		return all, err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// Notifications pages through a user's notifications, see Store.Notifications.
func (v *Shown) Notifications(ctx context.Context, user stock.UserID, before int64, limit int) (page []Notification, err error) {
	err = v.read(ctx, v.dbs[:1], v.session.since(user), func(s *Sharded, _ check) (bool, error) {
		page, err = s.Store.Notifications(ctx, user, before, limit)
		if len(page) > 0 && s == v.Sharded {
			v.session.noteNotice(user, page[0].ID)
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// check is told of each order of an answer, and says whether it may be shown.
type check func(o *order.Order) bool

// read asks replicas of these databases, the primaries where that is not good
// enough, and replicas once more where those do not answer. ask says whether
// what it found may be shown.
func (v *Shown) read(ctx context.Context, dbs []*database, since time.Time, ask func(s *Sharded, current check) (bool, error)) error {
	if !v.replicated || ctx.Value(primaryKey{}) != nil {
		return v.ofPrimary(ask)
	}
	count := func(replica bool) {
		for _, db := range dbs {
			db.replicas.count(replica)
		}
	}
	if near, covered := v.over(dbs, since, false); near != nil {
		ok, err := ask(near, func(o *order.Order) bool { return !v.session.behind(o, covered) })
		if ok && err == nil {
			count(true)
			return nil
		}
	}
	err := v.ofPrimary(ask)
	if err == nil || !lost(err) && !errors.Is(err, context.DeadlineExceeded) {
		count(false)
		return err
	}
	near, _ := v.over(dbs, since, true)
	if near == nil {
		return err
	}
	if ok, cause := ask(near, func(o *order.Order) bool { return !v.session.behind(o, time.Time{}) }); !ok || cause != nil {
		return err // it may be that what was asked for is there, and newer
	}
	count(true)
	return nil
}

func (v *Shown) ofPrimary(ask func(s *Sharded, current check) (bool, error)) error {
	_, err := ask(v.Sharded, func(o *order.Order) bool { v.session.note(o); return true })
	return err
}

func (r *replicas) count(replica bool) {
	switch {
	case r == nil:
	case replica:
		r.reads.Add(1)
	default:
		r.misses.Add(1)
	}
}

// nearView is the store with its reads on these replicas, nil for a primary.
type nearView struct {
	of   []*member
	view *Sharded
}

// over is the store as these databases' replicas have it, nil when none of them
// may be read, and until when they have everything. Views are kept: which
// replicas are read seldom changes.
func (v *Shown) over(dbs []*database, since time.Time, unproved bool) (near *Sharded, covered time.Time) {
	of := make([]*member, len(v.dbs))
	for _, db := range v.dbs {
		if db.replicas == nil {
			continue
		}
		server, _ := db.replicas.reader(time.Time{}, true) // of a database that is not asked, any
		if slices.Contains(dbs, db) {
			var has time.Time
			server, has = db.replicas.reader(since, unproved)
			switch {
			case server == nil && unproved: // perhaps its primary answers
			case server == nil:
				return nil, time.Time{}
			case near == nil || has.Before(covered):
				near, covered = v.Sharded, has
			}
		}
		of[db.number] = server
	}
	if near == nil {
		return nil, time.Time{}
	}
	had := v.view.Load()
	if had == nil || !slices.Equal(had.of, of) {
		had = &nearView{of, v.onto(of)}
		v.view.Store(had)
	}
	return had.view, covered
}

// onto makes the view in which databases are read on other servers.
func (s *Sharded) onto(of []*member) *Sharded {
	at := func(db *Store, server *member) *Store {
		view := *db
		view.near = server
		return &view
	}
	view := *s
	view.Store = at(s.Store, of[0])
	view.groups = slices.Clone(s.groups)
	for i, g := range view.groups {
		view.groups[i].Store = at(g.Store, of[g.database])
	}
	return &view
}

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
	pins  map[any]pin
	last  time.Time // of any pin
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
	s.put(about, pin{at: s.now()})
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
	s.put(o.ID, pin{now, o.Version})
	s.put(o.User, pin{at: now})
}

// noteNotice notes the newest notification of a user that the primary has shown.
func (s *session) noteNotice(user stock.UserID, newest int64) {
	if s == nil {
		return
	}
	type notices stock.UserID
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[notices(user)].version >= int(newest) {
		return
	}
	now := s.now()
	s.put(notices(user), pin{now, int(newest)})
	s.put(user, pin{at: now})
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
