package sale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/lib/id"
	"sluice/internal/stock"
)

// Gate stands before the ledger: limits, challenge, waiting room, shedding.
type Gate interface {
	// Admit answers the single-use passes and tickets that the reserve consumes
	// (at most stock.MaxClaims), or why this attempt may not go on.
	Admit(ctx context.Context, r PurchaseRequest) (claims []string, err error)
}

// OpenGate admits everyone.
type OpenGate struct{}

// Admit asks for nothing.
func (OpenGate) Admit(context.Context, PurchaseRequest) ([]string, error) { return nil, nil }

// Shop is what shoppers see and do: the activities on show, and Purchase.
type Shop struct {
	ledger   stock.Ledger
	board    *stock.Board
	gate     Gate
	ids      *id.Source
	store    Store
	products catalog.Store
	now      func() time.Time
	show     atomic.Pointer[showcase]
	adding   sync.Mutex  // one change of the show at a time
	complete atomic.Bool // all activities have been read once
}

// showcase is what is on show. Immutable.
type showcase struct {
	all  map[stock.ActivityID]*onSale
	open []*onSale // those that are not closed
}

// onSale is an activity prepared for the hot path. Immutable.
type onSale struct {
	Activity
	promotion Promotion
	products  []catalog.Product
	notOpen   *stock.Refusal
}

// NewShop builds a shop that shows nothing until Refresh.
func NewShop(l stock.Ledger, b *stock.Board, g Gate, ids *id.Source, s Store, p catalog.Store, now func() time.Time) *Shop {
	shop := &Shop{ledger: l, board: b, gate: g, ids: ids, store: s, products: p, now: now}
	shop.show.Store(&showcase{all: map[stock.ActivityID]*onSale{}})
	return shop
}

func (s *Shop) find(activity stock.ActivityID) *onSale { return s.show.Load().all[activity] }

// Refresh reads the activities anew and shows them.
func (s *Shop) Refresh(ctx context.Context) error {
	activities, err := s.read(ctx)
	if err != nil {
		return fmt.Errorf("refresh activities: %w", err)
	}
	return s.display(ctx, activities)
}

// read answers what may have changed: all activities until they have all been
// shown once, then those that live, and those that lived when they were shown.
// What is closed and proved stays as it is, and there is ever more of it.
func (s *Shop) read(ctx context.Context) ([]Activity, error) {
	if !s.complete.Load() {
		return s.store.Activities(ctx)
	}
	living, err := s.store.Select(ctx, Query{Living: true})
	if err != nil {
		return nil, err
	}
	read := make(map[stock.ActivityID]bool, len(living))
	for _, a := range living {
		read[a.ID] = true
	}
	for _, had := range s.show.Load().open {
		if read[had.ID] {
			continue
		}
		one, err := s.store.Select(ctx, Query{ID: had.ID})
		if err != nil {
			return nil, err
		}
		living = append(living, one...)
	}
	return living, nil
}

// display shows activities as stored, beside what is on show and not among
// them. Those that have not changed are kept; one that cannot be prepared stays
// as it was and hides no other.
func (s *Shop) display(ctx context.Context, activities []Activity) error {
	var faults []error
	old := s.show.Load().all
	fresh := map[stock.ActivityID]*onSale{}
	missing := false // one that is not read again
	for _, a := range activities {
		if a.State == Draft || a.OpensAt == 0 { // a draft, or one that was closed as a draft
			continue
		}
		if had := old[a.ID]; had != nil && had.Revision == a.Revision {
			continue
		}
		prepared, err := s.prepare(ctx, a)
		if err != nil {
			faults = append(faults, fmt.Errorf("activity %s: %w", a.ID, err))
			missing = missing || a.State == Closed
			continue
		}
		fresh[a.ID] = prepared
	}
	s.complete.Store(!missing)
	if len(fresh) > 0 {
		s.add(fresh)
	}
	return errors.Join(faults...)
}

// add puts activities on show, in place of what they were.
func (s *Shop) add(fresh map[stock.ActivityID]*onSale) {
	s.adding.Lock()
	defer s.adding.Unlock()
	next := &showcase{all: maps.Clone(s.show.Load().all)}
	maps.Copy(next.all, fresh)
	for _, a := range next.all {
		if a.State != Closed {
			next.open = append(next.open, a)
		}
	}
	s.show.Store(next)
}

func (s *Shop) prepare(ctx context.Context, a Activity) (*onSale, error) {
	promotion, err := newFlash(a)
	if err != nil {
		return nil, err
	}
	p := &onSale{Activity: a, promotion: promotion, notOpen: &stock.Refusal{Err: stock.ErrNotOpen, OpensAt: a.OpensAt}}
	for _, it := range a.Items {
		product, err := s.products.Product(ctx, it.SKU, it.Version)
		if err != nil && !errors.Is(err, catalog.ErrNoSuchSKU) {
			return nil, err
		}
		p.products = append(p.products, product)
	}
	return p, nil
}

// View is an activity as shoppers may see it. Levels and Products stand in the
// order of its items.
type View struct {
	Activity
	Levels   []stock.Level
	Products []catalog.Product
}

// Views are all activities but drafts and closed ones.
func (s *Shop) Views() []View {
	open := s.show.Load().open
	views := make([]View, len(open))
	for i, a := range open {
		views[i] = s.view(a)
	}
	return views
}

// Plan is an activity as it stands, a closed one too, or ErrNoSuchActivity. It costs
// less than a View.
func (s *Shop) Plan(activity stock.ActivityID) (Activity, error) {
	a := s.find(activity)
	if a == nil {
		return Activity{}, ErrNoSuchActivity
	}
	plan := a.Activity
	plan.State = a.stateAt(stock.MillisOf(s.now()))
	return plan, nil
}

// Lately are the activities that are not closed, and those that were to close after
// a moment.
func (s *Shop) Lately(since stock.Millis) (ids []stock.ActivityID) {
	for id, a := range s.show.Load().all {
		if a.State != Closed || a.ClosesAt > since {
			ids = append(ids, id)
		}
	}
	return ids
}

// View is one activity, a closed one too, or ErrNoSuchActivity.
func (s *Shop) View(activity stock.ActivityID) (View, error) {
	a := s.find(activity)
	if a == nil {
		return View{}, ErrNoSuchActivity
	}
	return s.view(a), nil
}

func (s *Shop) view(a *onSale) View {
	v := View{Activity: a.Activity, Products: a.products, Levels: make([]stock.Level, len(a.Items))}
	v.State = a.stateAt(stock.MillisOf(s.now()))
	for i, it := range a.Items {
		v.Levels[i] = stock.LevelOf(it.Units, it.Units, 0)
	}
	face := s.board.Face(a.ID)
	if face == nil {
		return v
	}
	if counts, ok := face.Counts(); ok && len(counts.Items) == len(a.Items) {
		for i, c := range counts.Items {
			v.Levels[i] = c.Level
		}
	}
	return v
}

// stateAt is the state as the clock has it: the ledger enforces the window by
// itself, so between two steps of the life cycle the stored state may lag.
func (a *Activity) stateAt(now stock.Millis) State {
	switch {
	case (a.State == Scheduled || a.State == Warm || a.State == Open || a.State == Paused) && now >= a.ClosesAt:
		return Draining
	case (a.State == Scheduled || a.State == Warm) && now >= a.OpensAt:
		return Open
	case a.State == Open && now < a.OpensAt:
		return Warm
	}
	return a.State
}

func (a *Activity) item(sku stock.SKU) *Item {
	for i := range a.Items {
		if a.Items[i].SKU == sku {
			return &a.Items[i]
		}
	}
	return nil
}
