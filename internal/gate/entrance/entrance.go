// Package entrance is what shoppers do before they buy: get a ticket, solve a
// challenge, wait. It joins the door, which decides who may, with the waiting rooms
// and the challenges, and signs what is handed out.
//
// Invariants: nothing is handed out that the door would not let its holder use;
// a pass is of a place that has been called, and all passes of a place are one
// claim; whoever is in a queue is asked for nothing again to learn where he
// stands.
//
// It refuses to know HTTP, stock and orders: of an activity it is told when it is
// open and whether anything is left.
package entrance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/waiting"
	"sluice/internal/stock"
)

// Sale is what has to be known of an activity.
type Sale struct {
	OpensAt, ClosesAt time.Time
	SoldOut, Ended    bool
}

// Options are all required but Machine.
type Options struct {
	Door       *gate.Door
	Seal       *gate.Seal
	Rooms      *waiting.Rooms
	Challenges *challenge.Desk
	Sale       func(activity string) (Sale, bool)
	Now        func() time.Time // of the clock of activities and waiting rooms
	Machine    func() time.Time // at which the door is asked about purchases, and so here; nil: Now
}

// Entrance is safe for concurrent use.
type Entrance struct{ o Options }

// New builds one.
func New(o Options) *Entrance {
	if o.Machine == nil {
		o.Machine = o.Now
	}
	return &Entrance{o}
}

// ahead is by how much the door's clock is ahead of the activities', in whole
// seconds: it follows steps of the machine's, and theirs does not. What is handed out
// ends by the door's.
func (e *Entrance) ahead() time.Duration { return e.o.Machine().Sub(e.o.Now()).Round(time.Second) }

// Slip is something handed out, as its holder shows it.
type Slip struct {
	Text  string
	Until time.Time
}

// Place is where somebody stands, with the pass if he has been called.
type Place struct {
	waiting.Place
	Pass string
}

// TooEarly is a refusal for a time: what is handed out from when on.
type TooEarly struct {
	OpensAt     time.Time
	TicketsFrom time.Time // zero: it is not about tickets
	QueueFrom   time.Time // zero: it is not about the queue
}

// Error tells the times.
func (e *TooEarly) Error() string {
	return fmt.Sprintf("%v: opens at %s", stock.ErrNotOpen, e.OpensAt.UTC().Format(time.RFC3339))
}

// Unwrap is stock.ErrNotOpen.
func (e *TooEarly) Unwrap() error { return stock.ErrNotOpen }

// sale answers an activity that somebody can still want to enter.
func (e *Entrance) sale(activity string) (Sale, error) {
	s, found := e.o.Sale(activity)
	switch {
	case !found:
		return Sale{}, stock.ErrNoSuchActivity
	case s.SoldOut:
		return Sale{}, stock.ErrSoldOut
	case s.Ended || !e.o.Now().Before(s.ClosesAt):
		return Sale{}, stock.ErrEnded
	}
	return s, nil
}

// Ticket hands out a ticket. Errors: stock.ErrNoSuchActivity, ErrSoldOut, ErrEnded,
// gate.ErrNoTicketNeeded, *TooEarly, and those of the door.
func (e *Entrance) Ticket(ctx context.Context, f *gate.Facts) (Slip, error) {
	s, err := e.sale(f.Activity)
	if err != nil {
		return Slip{}, err
	}
	ahead := e.ahead()
	text, slip, err := e.o.Door.Ticket(ctx, e.o.Machine(), f, s.OpensAt.Add(ahead), s.ClosesAt.Add(ahead))
	if errors.Is(err, stock.ErrNotOpen) {
		from, _ := e.o.Door.TicketsFrom(f.Activity, s.OpensAt)
		err = &TooEarly{OpensAt: s.OpensAt, TicketsFrom: from}
	}
	return Slip{text, slip.Until.Add(-ahead)}, err
}

// Challenge answers a challenge of the kind that the door would ask for.
func (e *Entrance) Challenge(_ context.Context, f *gate.Facts) (challenge.Challenge, error) {
	if _, found := e.o.Sale(f.Activity); !found {
		return challenge.Challenge{}, stock.ErrNoSuchActivity
	}
	return e.o.Challenges.Offer(f.Activity, f.User, e.o.Door.Kind(e.o.Machine(), f))
}

// Answer gives a clearance for the right answer. Errors are those of Desk.Check.
func (e *Entrance) Answer(ctx context.Context, f *gate.Facts, text string, answer int) (Slip, error) {
	clearance, slip, err := e.o.Challenges.Check(ctx, f.Activity, f.User, text, answer)
	return Slip{clearance, slip.Until}, err
}

// Join lets a user wait. Who waits already, or has been called, gets the same
// place again. Errors: those of the door and of waiting.Rooms, *TooEarly among
// them, and gate.ErrOverloaded while their record cannot be asked.
func (e *Entrance) Join(ctx context.Context, f *gate.Facts) (Place, error) {
	s, err := e.sale(f.Activity)
	if err != nil {
		return Place{}, err
	}
	p, err := e.o.Rooms.Place(ctx, f.Activity, f.User)
	if err == nil && p.State != waiting.Lapsed {
		return e.with(p, f.Activity, f.User), nil
	}
	if err != nil && !errors.Is(err, waiting.ErrNotWaiting) && !errors.Is(err, waiting.ErrNoRoom) {
		return Place{}, said(err, s)
	}
	// Before a clearance is used up for it.
	if err := e.o.Rooms.Ready(f.Activity); err != nil {
		return Place{}, said(err, s)
	}
	if err := e.o.Door.Approach(ctx, e.o.Machine(), f); err != nil {
		return Place{}, err
	}
	// The names are kept, and f is not.
	p, err = e.o.Rooms.Join(ctx, strings.Clone(f.Activity), strings.Clone(f.User))
	if err != nil {
		return Place{}, said(err, s)
	}
	return e.with(p, f.Activity, f.User), nil
}

// said is an error of the rooms in the words of this package.
func said(err error, s Sale) error {
	if early, ok := errors.AsType[*waiting.TooEarly](err); ok {
		return &TooEarly{OpensAt: s.OpensAt, QueueFrom: time.UnixMilli(int64(early.QueueOpensAt))}
	}
	return away(err)
}

// away is any error but what the rooms themselves answer: their record cannot be
// asked at the moment, and asking again does no harm. The room's own steps say
// in the log why.
func away(err error) error {
	for _, known := range []error{nil, waiting.ErrNoRoom, waiting.ErrNotWaiting, waiting.ErrFull} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: waiting rooms: %w", gate.ErrOverloaded, err)
}

// Place answers where a user stands. Errors are those of waiting.Rooms, and
// gate.ErrOverloaded while their record cannot be asked.
func (e *Entrance) Place(ctx context.Context, activity, user string) (Place, error) {
	p, err := e.o.Rooms.Place(ctx, activity, user)
	if err != nil {
		return Place{}, away(err)
	}
	return e.with(p, activity, user), nil
}

// Known is Place of somebody whom this process knows.
func (e *Entrance) Known(activity, user string) (Place, bool) {
	p, ok := e.o.Rooms.Glance(activity, user)
	return Place{Place: p}, ok
}

// with signs the pass of whoever has been called. It is the same claim however
// often it is asked for.
func (e *Entrance) with(p waiting.Place, activity, user string) Place {
	out := Place{Place: p}
	if p.State == waiting.Called {
		until := time.UnixMilli(int64(p.Until)).Add(e.ahead())
		out.Pass = e.o.Seal.Sign(gate.Slip{Kind: gate.Pass, Activity: activity, User: user, ID: p.Call, Until: until})
	}
	return out
}

// Leave gives a place up.
func (e *Entrance) Leave(activity, user string) { e.o.Rooms.Leave(activity, user) }

// Draw answers what is published of a draw.
func (e *Entrance) Draw(activity string) (waiting.Draw, error) { return e.o.Rooms.Draw(activity) }

// Entries answers entry ids that were drawn, from a number on.
func (e *Entrance) Entries(ctx context.Context, activity string, from, limit int) ([]waiting.EntryID, error) {
	entries, err := e.o.Rooms.Entries(ctx, activity, from, limit)
	return entries, away(err)
}
