package sale

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Desk is what operators do to activities. Every change is saved first and
// then told to the ledger; Step finishes what a crash left between the two.
type Desk struct {
	mu        sync.Mutex // one change at a time, so that revisions reach the ledger in order
	shop      *Shop
	ledger    stock.Ledger
	board     *stock.Board
	store     Store
	products  catalog.Store
	now       func() time.Time
	settled   map[stock.ActivityID]bool // closed, and the ledger knows
	words     map[stock.ActivityID]word // what the ledger was told last
	elsewhere bool                      // another process follows the clock and tells the ledger
}

// NewDesk builds the operators' side of a shop.
func NewDesk(s *Shop) *Desk {
	return &Desk{shop: s, ledger: s.ledger, board: s.board, store: s.store, products: s.products, now: s.now, settled: map[stock.ActivityID]bool{}, words: map[stock.ActivityID]word{}}
}

// NewFrontDesk builds the operators' side in a process that leaves it to
// another one's Step to follow the clock and to tell the ledger: of many, only
// one may, or an older edit could reach the ledger after a newer one. A change
// is answered once the ledger shows it, or after 3 s as it was saved.
func NewFrontDesk(s *Shop) *Desk {
	d := NewDesk(s)
	d.elsewhere = true
	return d
}

// Bounds of waiting for another process to tell the ledger.
const (
	toldWithin = 3 * time.Second
	toldPoll   = 20 * time.Millisecond
)

// Defaults of an activity's fields.
const (
	defaultHold   = 900 // seconds
	defaultWindow = stock.Millis(24 * 60 * 60 * 1000)
	maxHold       = 7 * 24 * 60 * 60 // seconds
)

// Create saves an activity. Zero fields take defaults: hold 900 s, late
// payment rereserve_or_refund, an item's price the catalogue's, per order what
// a user may have or 1, closing 24 h after opening; without an opening time it
// is a draft until Open. Errors: ErrInvalid, ErrExists, catalog.ErrNoSuchSKU.
func (d *Desk) Create(ctx context.Context, a Activity) (Activity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a.State, a.Epoch, a.Revision = Scheduled, 1, 1
	if a.OpensAt == 0 {
		a.State = Draft
	}
	fill(&a)
	for i := range a.Items {
		it := &a.Items[i]
		product, err := d.products.Product(ctx, it.SKU, 0)
		if err != nil {
			return Activity{}, fmt.Errorf("items[%d].sku %q: %w", i, it.SKU, err)
		}
		it.Version = product.Version
		if it.Price.Currency == "" {
			it.Price = product.Price
		}
	}
	if err := a.Validate(); err != nil {
		return Activity{}, err
	}
	if err := d.room(ctx); err != nil {
		return Activity{}, err
	}
	if err := d.store.CreateActivity(ctx, a); err != nil {
		return Activity{}, err
	}
	return d.settle(ctx, a)
}

// room refuses an activity too many.
func (d *Desk) room(ctx context.Context) error {
	all, err := d.store.Select(ctx, Query{Living: true})
	if err != nil {
		return err
	}
	live := 0
	for _, a := range all {
		if a.State != Closed {
			live++
		}
	}
	if live >= MaxActivities {
		return fmt.Errorf("%w: %d activities are not closed, which is the most there can be; close one", ErrInvalid, live)
	}
	return nil
}

func fill(a *Activity) {
	if a.Kind == "" {
		a.Kind = "flash"
	}
	if a.HoldSeconds == 0 {
		a.HoldSeconds = defaultHold
	}
	if a.LatePayment == "" {
		a.LatePayment = pricing.RereserveOrRefund
	}
	if a.ClosesAt == 0 && a.OpensAt != 0 {
		a.ClosesAt = a.OpensAt + defaultWindow
	}
	for i := range a.Items {
		if it := &a.Items[i]; it.PerOrder == 0 {
			it.PerOrder = max(1, it.PerUser)
		}
	}
}

// Validate names the first field out of range.
func (a Activity) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch {
	case !catalog.ID.MatchString(string(a.ID)):
		return bad("id must be 1..64 letters, digits, '-' or '_'")
	case a.Kind != "flash":
		return bad("kind %q is not one of: flash", a.Kind)
	case len(a.Title) < 1 || len(a.Title) > 200:
		return bad("title must be 1..200 bytes")
	case a.State != Draft && a.OpensAt <= 0 || a.OpensAt < 0:
		return bad("opens_at must be after 1970")
	case a.State != Draft && a.ClosesAt <= a.OpensAt || a.ClosesAt < 0:
		return bad("closes_at must be after opens_at")
	case a.HoldSeconds < 1 || a.HoldSeconds > maxHold:
		return bad("hold_seconds must be 1..%d", maxHold)
	case a.PerUser < 0 || a.PerUser > stock.MaxQuantity:
		return bad("per_user must be 0..%d", stock.MaxQuantity)
	case a.Buckets > stock.MaxBuckets:
		return bad("buckets must be 0..%d", stock.MaxBuckets)
	case a.LatePayment != pricing.RereserveOrRefund && a.LatePayment != pricing.AlwaysRefund:
		return bad("late_payment must be rereserve_or_refund or refund")
	case len(a.Items) < 1 || len(a.Items) > stock.MaxItems:
		return bad("items must be 1..%d", stock.MaxItems)
	}
	seen := map[stock.SKU]bool{}
	for i, it := range a.Items {
		switch {
		case seen[it.SKU]:
			return bad("items[%d].sku %q stands twice", i, it.SKU)
		case it.Units < 0 || it.Units > stock.MaxUnits:
			return bad("items[%d].units must be 0..%d", i, stock.MaxUnits)
		case it.PerUser < 0 || it.PerUser > stock.MaxQuantity:
			return bad("items[%d].per_user must be 0..%d", i, stock.MaxQuantity)
		case it.PerOrder < 1 || it.PerOrder > stock.MaxQuantity:
			return bad("items[%d].per_order must be 1..%d", i, stock.MaxQuantity)
		case it.Price.Currency != a.Items[0].Price.Currency:
			return bad("items[%d].price.currency differs from the first item's", i)
		}
		if err := it.Price.Validate(); err != nil {
			return bad("items[%d].price: %w", i, err)
		}
		if it.Price.Amount > pricing.MaxAmount/int64(it.PerOrder) {
			return bad("items[%d]: an order of per_order %d would come to more than %d", i, it.PerOrder, int64(pricing.MaxAmount))
		}
		seen[it.SKU] = true
	}
	return nil
}

// Get reads one activity, its state as the clock has it.
func (d *Desk) Get(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	if activity == "" {
		return Activity{}, ErrNoSuchActivity
	}
	found, err := d.Page(ctx, Query{ID: activity})
	if err == nil && len(found) == 0 {
		err = ErrNoSuchActivity
	}
	if err != nil {
		return Activity{}, err
	}
	return found[0], nil
}

// List reads all activities, their states as the clock has them.
func (d *Desk) List(ctx context.Context) ([]Activity, error) { return d.Page(ctx, Query{}) }

// Page reads some activities, their states as the clock has them.
func (d *Desk) Page(ctx context.Context, q Query) ([]Activity, error) {
	found, err := d.store.Select(ctx, q)
	now := stock.MillisOf(d.now())
	for i := range found {
		found[i].State = found[i].stateAt(now)
	}
	return found, err
}

// Open publishes a draft, with the opening time now if it has none. The sale
// then opens by its window: opening an activity whose time has not come arms
// it. An activity that is already on its way is answered as it is.
func (d *Desk) Open(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	return d.change(ctx, activity, func(a *Activity) error {
		switch a.State {
		case Scheduled, Warm, Open:
			return nil
		case Draft:
			if a.OpensAt == 0 {
				a.OpensAt = stock.MillisOf(d.now())
			}
			a.State = Scheduled
			fill(a)
			return a.Validate()
		}
		return fmt.Errorf("%w: %s is %s", ErrTransition, a.ID, a.State)
	})
}

// Pause refuses new reservations until Resume.
func (d *Desk) Pause(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	return d.move(ctx, activity, Paused, Scheduled, Warm, Open, Paused)
}

// Resume undoes Pause.
func (d *Desk) Resume(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	return d.move(ctx, activity, Open, Paused, Open)
}

// Drain ends the sale: no new reservations; held ones may still be paid.
func (d *Desk) Drain(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	return d.move(ctx, activity, Draining, Scheduled, Warm, Open, Paused, Draining)
}

// Close ends the activity for good, late payments included: they are refunded.
// Units still held may yet be paid for or expire.
func (d *Desk) Close(ctx context.Context, activity stock.ActivityID) (Activity, error) {
	return d.change(ctx, activity, func(a *Activity) error {
		if a.State == Draft {
			a.OpensAt = 0 // it was never announced, and is not shown as a sale that was
		}
		a.State = Closed
		return nil
	})
}

func (d *Desk) move(ctx context.Context, activity stock.ActivityID, next State, from ...State) (Activity, error) {
	return d.change(ctx, activity, func(a *Activity) error {
		for _, f := range from {
			if a.State == f {
				a.State = next
				return nil
			}
		}
		return fmt.Errorf("%w: %s is %s", ErrTransition, a.ID, a.State)
	})
}

// Edit holds new values; nil fields stay.
type Edit struct {
	Title       *string
	OpensAt     *stock.Millis
	ClosesAt    *stock.Millis
	HoldSeconds *int
	PerUser     *int
	LatePayment *pricing.LatePolicy
	Restock     *bool
	Buckets     *uint16 // only of a draft
	Items       []ItemEdit
}

// ItemEdit changes the limits of one item; prices and units are not edited
// here: a price belongs to what was offered, and units change by Stock.
type ItemEdit struct {
	SKU      stock.SKU
	PerUser  *int
	PerOrder *int
}

// Edit changes a live activity. Reservations accepted before keep their terms.
func (d *Desk) Edit(ctx context.Context, activity stock.ActivityID, e Edit) (Activity, error) {
	return d.change(ctx, activity, func(a *Activity) error {
		if a.State == Closed {
			return fmt.Errorf("%w: %s is closed", ErrTransition, a.ID)
		}
		if e.Buckets != nil && a.State != Draft && *e.Buckets != a.Buckets {
			return fmt.Errorf("%w: %s has been opened, and its buckets are fixed", ErrTransition, a.ID)
		}
		set(&a.Buckets, e.Buckets)
		set(&a.Title, e.Title)
		set(&a.OpensAt, e.OpensAt)
		set(&a.ClosesAt, e.ClosesAt)
		set(&a.HoldSeconds, e.HoldSeconds)
		set(&a.PerUser, e.PerUser)
		set(&a.LatePayment, e.LatePayment)
		set(&a.Restock, e.Restock)
		for i, ie := range e.Items {
			it := a.item(ie.SKU)
			if it == nil {
				return fmt.Errorf("%w: items[%d].sku %q is not in this activity", ErrInvalid, i, ie.SKU)
			}
			set(&it.PerUser, ie.PerUser)
			set(&it.PerOrder, ie.PerOrder)
		}
		return a.Validate()
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// change saves one edit and brings everything else up to it.
func (d *Desk) change(ctx context.Context, activity stock.ActivityID, edit func(*Activity) error) (Activity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.store.UpdateActivity(ctx, activity, edit)
	if err != nil {
		return Activity{}, err
	}
	return d.settle(ctx, a)
}

// settle follows the clock, tells the ledger, and shows the shoppers.
func (d *Desk) settle(ctx context.Context, a Activity) (Activity, error) {
	switch {
	case d.elsewhere:
		if err := d.awaitTold(ctx, a); err != nil {
			return Activity{}, err
		}
	case a.State != Draft:
		if _, err := d.advance(ctx, a); err != nil {
			return Activity{}, err
		}
	}
	err := d.shop.Refresh(ctx)
	saved, failed := d.Get(ctx, a.ID)
	if failed != nil {
		return Activity{}, failed
	}
	if shown := d.shop.find(a.ID); err != nil && (shown == nil || shown.Revision != saved.Revision) {
		return Activity{}, err
	}
	return saved, nil // an activity that cannot be shown is the life task's to report, if it is another one
}

// awaitTold returns once the ledger shows what was saved of an activity that
// is in it, or should be, and otherwise after toldWithin.
func (d *Desk) awaitTold(ctx context.Context, a Activity) error {
	over := time.NewTimer(toldWithin)
	defer over.Stop()
	poll := time.NewTicker(toldPoll)
	defer poll.Stop()
	for !d.told(a) {
		select {
		case <-poll.C:
		case <-over.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (d *Desk) told(a Activity) bool {
	face := d.board.Face(a.ID)
	if face != nil {
		return len(d.lag(face, a)) == 0
	}
	warm := stock.MillisOf(d.now().Add(warmLead)) >= a.OpensAt
	return a.State == Draft || a.State == Closed || a.State == Scheduled && !warm
}
