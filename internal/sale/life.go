package sale

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// warmLead is how long before the opening stock is allocated in the ledger.
const warmLead = 10 * time.Minute

// Step moves every activity that lives to the state that its clock asks for, and brings
// the ledger to what the store says: after a crash between the two it finishes
// what was begun.
func (d *Desk) Step(ctx context.Context) (worked bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	activities, err := d.shop.read(ctx)
	if err != nil {
		return false, err
	}
	var faults []error
	for _, a := range activities {
		if a.State == Draft || a.State == Closed && d.settled[a.ID] {
			continue
		}
		moved, err := d.advance(ctx, a)
		worked = worked || moved
		faults = append(faults, err)
		if d.settled[a.ID] = err == nil && a.State == Closed; d.settled[a.ID] {
			delete(d.words, a.ID)
		}
	}
	faults = append(faults, d.redo(ctx))
	// Shown again even if nothing moved: an edit may have been saved by a call
	// that ended before it could be shown.
	if worked {
		if activities, err = d.shop.read(ctx); err != nil {
			return worked, errors.Join(append(faults, err)...)
		}
	}
	faults = append(faults, d.shop.display(ctx, activities))
	return worked, errors.Join(faults...)
}

// redo finishes adjustments that were saved and not answered.
func (d *Desk) redo(ctx context.Context) error {
	open, err := d.store.OpenAdjustments(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, a := range open {
		if _, err := d.apply(ctx, a); err != nil && !final(err) {
			faults = append(faults, fmt.Errorf("activity %s: adjustment %s: %w", a.Activity, a.ID, err))
		}
	}
	return errors.Join(faults...)
}

// advance follows one activity's clock, as far as it goes now.
func (d *Desk) advance(ctx context.Context, a Activity) (moved bool, err error) {
	for range 4 { // scheduled → warm → open → draining → closed
		next := d.due(ctx, a)
		if next == a.State {
			break
		}
		if a, err = d.to(ctx, a.ID, next, a.State); err != nil {
			return moved, err
		}
		moved = true
	}
	return moved, d.tell(ctx, a)
}

// due is the state that the clock asks for next.
func (d *Desk) due(ctx context.Context, a Activity) State {
	now := d.now()
	at := stock.MillisOf(now)
	switch a.State {
	case Scheduled:
		if stock.MillisOf(now.Add(warmLead)) >= a.OpensAt {
			return Warm
		}
	case Warm:
		if at >= a.OpensAt {
			return Open
		}
	case Open, Paused:
		if at >= a.ClosesAt {
			return Draining
		}
	case Draining:
		counts, err := d.ledger.Counts(ctx, a.ID)
		if err == nil && at >= a.ClosesAt+stock.Millis(a.HoldSeconds)*1000 && heldUnits(counts) == 0 {
			return Closed
		}
	}
	return a.State
}

func heldUnits(c stock.Counts) (n int) {
	for _, it := range c.Items {
		n += it.Held
	}
	return n
}

// to saves a state, if the activity is still in one of those given.
func (d *Desk) to(ctx context.Context, activity stock.ActivityID, next State, from ...State) (Activity, error) {
	return d.store.UpdateActivity(ctx, activity, func(a *Activity) error {
		for _, f := range from {
			if a.State == f {
				a.State = next
				return nil
			}
		}
		return fmt.Errorf("%w: %s is %s, which does not go to %s", ErrTransition, a.ID, a.State, next)
	})
}

// tell brings the ledger to what the store says of an activity. It is
// idempotent: what the ledger shows already is not said again.
func (d *Desk) tell(ctx context.Context, a Activity) error {
	face := d.board.Face(a.ID)
	if a.State == Draft || a.State == Scheduled && face == nil {
		return nil
	}
	if face == nil {
		if a.State == Closed {
			return nil // it never had units
		}
		if err := d.allocate(ctx, a); err != nil {
			return err
		}
		if face = d.board.Face(a.ID); face == nil {
			return stock.ErrNotReady
		}
	}
	edits := d.lag(face, a)
	if len(edits) == 0 {
		return nil
	}
	word := d.word(a)
	if !word.at.IsZero() {
		return nil // the ledger has it, and shows it in a moment
	}
	for _, edit := range edits {
		if word.times > 0 {
			edit.ID += fmt.Sprintf(".%d", word.times)
		}
		if err := d.ledger.Adjust(ctx, edit); err != nil {
			return fmt.Errorf("activity %s: %w", a.ID, err)
		}
	}
	word.at = d.now()
	d.words[a.ID] = word
	return nil
}

// word is what the ledger was told of an activity.
type word struct {
	revision int
	times    int       // that it had been told before, and shows something else all the same
	at       time.Time // when it had all of it; zero: it has not
}

// shownWithin is how long a ledger may take to show what it was told.
const shownWithin = 2 * time.Second

// word is what is to be told of an activity that the ledger shows otherwise. It
// is the same as before, until the ledger has taken it. One that has, and goes
// on showing something else, was told an older revision afterwards: by a process
// that was the one to tell, was stopped in the middle, and did not know when it
// woke up that another had taken over. An edit of the same id would be no change
// then, so it is told by a new one.
func (d *Desk) word(a Activity) word {
	w := d.words[a.ID]
	switch {
	case w.revision != a.Revision:
		w = word{revision: a.Revision}
	case !w.at.IsZero() && d.now().Sub(w.at) >= shownWithin:
		w.times, w.at = w.times+1, time.Time{}
	}
	d.words[a.ID] = w
	return w
}

// lag is what the ledger has still to be told of an activity's rules.
func (d *Desk) lag(face *stock.Face, a Activity) (edits []stock.Adjustment) {
	phase, rules, items := face.Rules()
	edit := stock.Adjustment{ID: fmt.Sprintf("rev-%d", a.Revision), Activity: a.ID, At: stock.MillisOf(d.now())}
	if want := a.phase(); phase != want {
		edit.Phase = want
	}
	if rules.OpensAt != a.OpensAt || rules.ClosesAt != a.ClosesAt {
		edit.OpensAt, edit.ClosesAt = a.OpensAt, a.ClosesAt
	}
	if hold := stock.Millis(a.HoldSeconds) * 1000; rules.Hold != hold {
		edit.Hold = hold
	}
	if rules.PerUser != a.PerUser {
		edit.PerUser = &a.PerUser
	}
	if edit.Phase != 0 || edit.OpensAt != 0 || edit.Hold != 0 || edit.PerUser != nil {
		edits = append(edits, edit)
	}
	for i, it := range items {
		want := a.item(it.SKU)
		if want == nil || want.PerUser == it.PerUser && want.PerOrder == it.PerOrder {
			continue
		}
		limits := stock.ItemLimits{PerUser: want.PerUser, PerOrder: want.PerOrder}
		edits = append(edits, stock.Adjustment{ID: fmt.Sprintf("rev-%d-%d", a.Revision, i), Activity: a.ID, SKU: it.SKU, Limits: &limits, At: edit.At})
	}
	return edits
}

// allocate opens the activity in the ledger. Idempotent as long as the activity is as
// it was when it was first allocated.
func (d *Desk) allocate(ctx context.Context, a Activity) error {
	return d.ledger.Open(ctx, a.Allocation(stock.MillisOf(d.now())))
}

// Allocation is what the activity asks of the ledger at its opening.
func (a *Activity) Allocation(at stock.Millis) stock.Allocation {
	al := stock.Allocation{
		ID: string(a.ID), Activity: a.ID, Epoch: a.Epoch, OpensAt: a.OpensAt, ClosesAt: a.ClosesAt, Buckets: a.Buckets,
		Hold: stock.Millis(a.HoldSeconds) * 1000, PerUser: a.PerUser, At: at,
	}
	for _, it := range a.Items {
		al.Items = append(al.Items, stock.Item{SKU: it.SKU, Units: it.Units, PerUser: it.PerUser, PerOrder: it.PerOrder})
	}
	return al
}

func (a *Activity) phase() stock.Phase {
	switch a.State {
	case Paused:
		return stock.Paused
	case Draining:
		return stock.Draining
	case Closed:
		return stock.Closed
	}
	return stock.Live
}
