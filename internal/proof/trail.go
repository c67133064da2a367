package proof

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"sluice/internal/stock"
)

// MaxUnitsPage bounds a page of units.
const MaxUnitsPage = 1000

// Trail answers from the log where each unit of an activity went, and what
// became of a user's reservations. It reads the log from its beginning, so it
// is for people, one question at a time; the units of the activity asked about
// last are kept, and a further page costs only what was logged since. Where the
// log no longer reaches back to its beginning it says so (stock.ErrTruncated):
// numbers that cannot be derived are not invented. That is so once an activity's
// final proof is written, which is shown instead. Safe for concurrent use.
type Trail struct {
	ledger  ledger
	origin  stock.Cursor
	archive archive // nil: none

	mu    sync.Mutex
	of    stock.ActivityID
	at    stock.Cursor
	units *shelves
}

// NewTrail reads one log.
func NewTrail(l ledger, log stock.LogID) *Trail {
	return &Trail{ledger: l, origin: stock.Cursor{Log: log}}
}

// Beside is a trail of the same log that shows final proofs.
func (t *Trail) Beside(kept archive) *Trail {
	return &Trail{ledger: t.ledger, origin: t.origin, archive: kept}
}

// proved is the place of an activity's final proof, nil if none is kept.
func (t *Trail) proved(ctx context.Context, activity stock.ActivityID) (*Proved, error) {
	if t.archive == nil {
		return nil, nil
	}
	r, err := Beside(ctx, t.archive, Report{Activity: activity})
	return r.Proved, err
}

// explain adds to the news that the log has been cut what there is instead.
func (t *Trail) explain(ctx context.Context, activity stock.ActivityID, err error) error {
	if !errors.Is(err, stock.ErrTruncated) {
		return err
	}
	p, failed := t.proved(ctx, activity)
	switch {
	case failed != nil:
		return errors.Join(err, failed)
	case p != nil:
		return fmt.Errorf("%w; its final proof was taken at position %d on %s", err, p.Position.Position, p.At.Format(time.RFC3339))
	}
	return err
}

// Units is a page of the units of one SKU.
type Units struct {
	Activity stock.ActivityID `json:"activity"`
	SKU      stock.SKU        `json:"sku"`
	Position Position         `json:"position"`
	Numbered int              `json:"numbered"` // units that were ever allocated: the greatest number
	Units    []Unit           `json:"units" nullable:"false"`
	Next     int              `json:"next,omitempty"`    // ask again with from= this for more
	History  []UnitEvent      `json:"history,omitempty"` // of the one unit that was asked for, oldest first
}

// Units answers the units of a SKU from a number on (1 is the first), at most
// limit. An empty SKU is the activity's only one.
func (t *Trail) Units(ctx context.Context, activity stock.ActivityID, sku stock.SKU, from, limit int) (Units, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.units == nil || t.of != activity {
		t.of, t.at, t.units = activity, t.origin, newShelves()
	}
	at, err := t.read(ctx, t.at, activity, t.units)
	if err != nil {
		t.units = nil
		return Units{}, t.explain(ctx, activity, err)
	}
	t.at = at
	return t.page(t.units, activity, sku, at, from, limit)
}

// Unit answers one unit with all that happened to it.
func (t *Trail) Unit(ctx context.Context, activity stock.ActivityID, sku stock.SKU, number int) (Units, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := newShelves()
	var history []UnitEvent
	all.note = func(of stock.SKU, index int, e UnitEvent) {
		if index+1 == number && (sku == "" || of == sku) {
			history = append(history, e)
		}
	}
	at, err := t.read(ctx, t.origin, activity, all)
	if err != nil {
		return Units{}, t.explain(ctx, activity, err)
	}
	page, err := t.page(all, activity, sku, at, number, 1)
	page.Next, page.History = 0, history
	return page, err
}

func (t *Trail) page(all *shelves, activity stock.ActivityID, sku stock.SKU, at stock.Cursor, from, limit int) (Units, error) {
	if len(all.by) == 0 {
		return Units{}, fmt.Errorf("%w: %s", stock.ErrNoSuchActivity, activity)
	}
	if sku == "" && len(all.by) == 1 {
		sku = all.by[0].sku
	}
	if sku == "" {
		return Units{}, fmt.Errorf("%w: the activity has %d SKUs, name one", stock.ErrInvalid, len(all.by))
	}
	i, err := all.find(sku)
	if err != nil {
		return Units{}, err
	}
	of := all.by[i]
	p := Units{Activity: activity, SKU: sku, Position: Position{at.Log, at.Epoch, at.Position}, Numbered: len(of.holder), Units: []Unit{}}
	from = max(from, 1)
	end := min(from-1+min(max(limit, 1), MaxUnitsPage), len(of.holder))
	for n := from - 1; n < end; n++ {
		p.Units = append(p.Units, all.unit(of, n))
	}
	if end < len(of.holder) {
		p.Next = end + 1
	}
	return p, nil
}

// read applies an activity's entries after a place, up to the durable head,
// and answers where that is.
func (t *Trail) read(ctx context.Context, from stock.Cursor, activity stock.ActivityID, into *shelves) (stock.Cursor, error) {
	return t.each(ctx, from, activity, into.apply)
}

func (t *Trail) each(ctx context.Context, from stock.Cursor, activity stock.ActivityID, take func(stock.Entry) error) (stock.Cursor, error) {
	for e, err := range t.ledger.Tail(ctx, from) {
		if err != nil {
			return from, fmt.Errorf("trail: %w", err)
		}
		if !after(e.Cursor, from) {
			continue // the log may repeat entries
		}
		from = e.Cursor
		if e.Activity != activity {
			continue
		}
		if err := take(e); err != nil {
			return from, fmt.Errorf("trail: %w", err)
		}
	}
	return from, nil
}

// UserTrail is everything that a user has in one activity.
type UserTrail struct {
	Activity     stock.ActivityID  `json:"activity"`
	User         stock.UserID      `json:"user"`
	Complete     bool              `json:"complete"` // false: the log no longer reaches back, and when reservations were settled is not known
	Reservations []UserReservation `json:"reservations" nullable:"false"`
	Proved       *Proved           `json:"proved,omitempty"` // the final proof, when the trail is not complete
}

// UserReservation is one reservation and how it ended.
type UserReservation struct {
	Reservation string        `json:"reservation"`
	Order       stock.OrderID `json:"order"`
	Key         string        `json:"key"`
	Lines       []stock.Line  `json:"lines" nullable:"false"`
	State       string        `json:"state" enum:"held,confirmed,released,expired,returned,refused"`
	AcceptedAt  time.Time     `json:"accepted_at"`
	ExpiresAt   time.Time     `json:"expires_at"`
	Settled     []Settled     `json:"settled" nullable:"false"`
}

// Settled is one step of a reservation.
type Settled struct {
	Outcome string    `json:"outcome" enum:"confirmed,released,expired,returned"`
	At      time.Time `json:"at"`
}

// User answers a user's reservations, oldest first: at most
// stock.MaxReservations.
func (t *Trail) User(ctx context.Context, activity stock.ActivityID, user stock.UserID) (UserTrail, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	trail := UserTrail{Activity: activity, User: user, Complete: true, Reservations: []UserReservation{}}
	mine := map[uint64]int{}
	_, err := t.each(ctx, t.origin, activity, func(e stock.Entry) error {
		switch e.Kind {
		case stock.EntryReserved:
			if e.Reservation.User == user {
				mine[e.Reservation.ID.Number] = len(trail.Reservations)
				trail.Reservations = append(trail.Reservations, reservationOf(e.Reservation))
			}
		case stock.EntrySettled:
			if i, ok := mine[e.Settlement.ID.Number]; ok {
				r := &trail.Reservations[i]
				r.State = e.Settlement.Outcome.String()
				r.Settled = append(r.Settled, Settled{r.State, e.Settlement.At.Time()})
			}
		}
		return nil
	})
	if errors.Is(err, stock.ErrTruncated) {
		return t.standing(ctx, trail)
	}
	return trail, err
}

// standing answers from the books what the log has forgotten: how the
// reservations stand, and not since when.
func (t *Trail) standing(ctx context.Context, trail UserTrail) (UserTrail, error) {
	books, err := t.ledger.Replica(ctx, stock.Cursor{Log: t.origin.Log, Epoch: math.MaxUint32, Position: math.MaxUint64})
	if err != nil {
		return UserTrail{}, fmt.Errorf("trail: %w", err)
	}
	trail.Complete = false
	if trail.Proved, err = t.proved(ctx, trail.Activity); err != nil {
		return UserTrail{}, err
	}
	if book := books[trail.Activity]; book != nil {
		book.Reservations(func(r *stock.Reservation) bool {
			if r.User == trail.User {
				trail.Reservations = append(trail.Reservations, reservationOf(r))
			}
			return true
		})
	}
	return trail, nil
}

func reservationOf(r *stock.Reservation) UserReservation {
	return UserReservation{
		Reservation: r.ID.String(), Order: r.Order, Key: r.Key, Lines: r.Lines, State: r.State.String(),
		AcceptedAt: r.At.Time(), ExpiresAt: r.Expires.Time(), Settled: []Settled{},
	}
}
