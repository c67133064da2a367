package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// OfPrimary is the store itself, for whoever decides by what it answers and shows
// it as well: nothing older is shown afterwards.
func (v *Shown) OfPrimary() order.Store { return ofPrimary{v} }

type ofPrimary struct{ *Shown }

func (p ofPrimary) Get(ctx context.Context, id stock.OrderID) (order.Order, error) {
	return p.Shown.Get(Primary(ctx), id)
}

func (p ofPrimary) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	return p.Shown.List(Primary(ctx), q)
}

// Told notes, before it is shown, that news of a reservation has reached this
// process by another way, its log: what was shown of it so far is old. The order
// was written before the log had the news. Whose it is the log does not say: a
// list of that user's orders may still be without it.
func (v *Shown) Told(reservation stock.ID) { v.session.told(reservation) }

// Get implements order.Store.
func (v *Shown) Get(ctx context.Context, id stock.OrderID) (o order.Order, err error) {
	v.session.keep()
	of := v.groups[v.groupOfID(id)].database
	err = v.read(ctx, v.dbs[of:of+1], time.Time{}, func(ctx context.Context, s *Sharded, current check) (bool, error) {
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
	v.session.keep()
	dbs, since := v.dbs, v.session.since(nil)
	switch {
	case q.Reservation != nil:
		since = v.session.since(*q.Reservation)
	case q.User != "":
		of := v.groups[v.groupOfUser(q.User)].database
		dbs, since = v.dbs[of:of+1], v.session.since(q.User)
	}
	err = v.read(ctx, dbs, since, func(ctx context.Context, s *Sharded, current check) (bool, error) {
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
	v.session.keep()
	err = v.read(ctx, v.dbs[:1], v.session.since(user), func(ctx context.Context, s *Sharded, _ check) (bool, error) {
		page, err = s.Store.Notifications(ctx, user, before, limit)
		if s == v.Sharded {
			v.session.noteNotices(user, page)
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// asking is a read, of a store that may be a replica: it says whether what it
// found may be shown.
type asking func(ctx context.Context, s *Sharded, current check) (bool, error)

// check is told of each order of an answer, and says whether it may be shown.
type check func(o *order.Order) bool

// read asks replicas of these databases, the primaries where that is not good
// enough, and replicas once more where those do not answer. A primary that is
// known to be away is asked all the same, since it may only be late, but not for
// long.
func (v *Shown) read(ctx context.Context, dbs []*database, since time.Time, ask asking) error {
	if !v.replicated || ctx.Value(primaryKey{}) != nil {
		return v.ofPrimary(ctx, ask)
	}
	count := func(replica bool) {
		for _, db := range dbs {
			db.replicas.count(replica)
		}
	}
	if near, covered := v.over(dbs, since, false); near != nil {
		ok, err := ask(ctx, near, func(o *order.Order) bool { return !v.session.behind(o, covered) })
		if ok && err == nil {
			count(true)
			return nil
		}
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	other, _ := v.over(dbs, since, true)
	for _, db := range dbs {
		if other != nil && db.replicas != nil {
			defer db.replicas.unlessAway(cancel)()
		}
	}
	err := v.ofPrimary(call, ask)
	if err == nil || !lost(err) && !errors.Is(err, context.Canceled) || ctx.Err() != nil {
		count(false)
		return err
	}
	if near, _ := v.over(dbs, since, true); near != nil {
		ok, cause := ask(ctx, near, func(o *order.Order) bool { return !v.session.behind(o, time.Time{}) })
		if ok && cause == nil {
			count(true)
			return nil
		}
	}
	return fmt.Errorf("%w: %w", stock.ErrUnknown, err) // what was asked for may be there, and newer
}

func (v *Shown) ofPrimary(ctx context.Context, ask asking) error {
	_, err := ask(ctx, v.Sharded, func(o *order.Order) bool { v.session.note(o); return true })
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
