package proof

import (
	"fmt"
	"math/bits"
	"time"

	"sluice/internal/stock"
)

// The ledger counts units, it does not number them. For people who ask where
// each one went, numbers are a view of the log: the units of a SKU are 1, 2, …
// in the order in which they were allocated; a reservation takes the lowest
// free numbers; what is released, expired or returned is free again under its
// number; units taken back are the highest free ones, and their numbers are
// never used again. The same log gives the same numbers to anyone.

// Unit is where one unit is.
type Unit struct {
	Number      int           `json:"unit"`
	State       string        `json:"state" enum:"free,held,confirmed,withdrawn"`
	Reservation string        `json:"reservation,omitempty"`
	Order       stock.OrderID `json:"order,omitempty"`
	User        stock.UserID  `json:"user,omitempty"`
	Since       time.Time     `json:"since,omitzero"` // of a unit that is held or confirmed
}

// UnitEvent is one thing that happened to a unit.
type UnitEvent struct {
	Event       string        `json:"event" enum:"allocated,withdrawn,held,confirmed,released,expired,returned"`
	At          time.Time     `json:"at"`
	Reservation string        `json:"reservation,omitempty"`
	Order       stock.OrderID `json:"order,omitempty"`
	User        stock.UserID  `json:"user,omitempty"`
}

// shelf is the units of one SKU. Number n stands at index n-1.
type shelf struct {
	sku    stock.SKU
	holder []uint64 // reservation number; 0 for none, withdrawn for a unit that is gone
	free   []uint64 // one bit for each unit
	low    int      // no word of free before this one has a bit
}

const withdrawn = ^uint64(0)

func (s *shelf) give(i int) {
	s.holder[i] = 0
	s.free[i/64] |= 1 << (i % 64)
	s.low = min(s.low, i/64)
}

func (s *shelf) add(n int) {
	for range n {
		i := len(s.holder)
		s.holder = append(s.holder, 0)
		if i/64 == len(s.free) {
			s.free = append(s.free, 0)
		}
		s.give(i)
	}
}

// take answers the lowest free unit's index, or -1.
func (s *shelf) take(holder uint64) int {
	for ; s.low < len(s.free); s.low++ {
		if w := s.free[s.low]; w != 0 {
			i := s.low*64 + bits.TrailingZeros64(w)
			s.free[s.low] &^= 1 << (i % 64)
			s.holder[i] = holder
			return i
		}
	}
	return -1
}

// withdraw takes the highest free unit away and answers its index, or -1.
func (s *shelf) withdraw() int {
	for at := len(s.free) - 1; at >= s.low; at-- {
		if w := s.free[at]; w != 0 {
			i := at*64 + 63 - bits.LeadingZeros64(w)
			s.free[at] &^= 1 << (i % 64)
			s.holder[i] = withdrawn
			return i
		}
	}
	return -1
}

// hold is a reservation that has units.
type hold struct {
	id    stock.ID
	user  stock.UserID
	order stock.OrderID
	state stock.State
	at    stock.Millis
	units []place
}

type place struct{ shelf, index int }

// shelves are all units of an activity, as far as its log has been read.
type shelves struct {
	by   []*shelf
	hold map[uint64]*hold
	note func(sku stock.SKU, index int, e UnitEvent) // told of everything that happens, if set
}

func newShelves() *shelves { return &shelves{hold: map[uint64]*hold{}} }

func (s *shelves) find(sku stock.SKU) (int, error) {
	for i, one := range s.by {
		if one.sku == sku {
			return i, nil
		}
	}
	return 0, &stock.Refusal{Err: stock.ErrNoSuchSKU, SKU: sku}
}

// apply takes the next entry of the activity. An entry that does not follow is
// stock.ErrCorrupt.
func (s *shelves) apply(e stock.Entry) error {
	switch e.Kind {
	case stock.EntryOpened:
		for _, it := range e.Allocation.Items {
			s.by = append(s.by, &shelf{sku: it.SKU})
			s.add(len(s.by)-1, it.Units, e.Allocation.At)
		}
		return nil
	case stock.EntryAdjusted:
		return s.adjusted(e.Adjustment)
	case stock.EntryReserved:
		return s.reserved(e.Reservation)
	case stock.EntrySettled:
		return s.settled(e.Settlement)
	}
	return fmt.Errorf("%w: entry of kind %d", stock.ErrCorrupt, e.Kind)
}

func (s *shelves) add(at, n int, when stock.Millis) {
	first := len(s.by[at].holder)
	s.by[at].add(n)
	for i := range n {
		s.tell(place{at, first + i}, "allocated", when, nil)
	}
}

func (s *shelves) adjusted(a *stock.Adjustment) error {
	if a.Delta == 0 {
		return nil
	}
	at, err := s.find(a.SKU)
	if err != nil {
		return fmt.Errorf("%w: %w", stock.ErrCorrupt, err)
	}
	if a.Delta > 0 {
		s.add(at, a.Delta, a.At)
		return nil
	}
	for range -a.Delta {
		i := s.by[at].withdraw()
		if i < 0 {
			return fmt.Errorf("%w: adjustment %s takes units that are not free", stock.ErrCorrupt, a.ID)
		}
		s.tell(place{at, i}, "withdrawn", a.At, nil)
	}
	return nil
}

func (s *shelves) reserved(r *stock.Reservation) error { return s.takes(r.ID.Number, r) }

// takes is reserved under a number of the caller's.
func (s *shelves) takes(number uint64, r *stock.Reservation) error {
	h := &hold{id: r.ID, user: r.User, order: r.Order, state: stock.Held, at: r.At}
	for _, l := range r.Lines {
		at, err := s.find(l.SKU)
		if err != nil {
			return fmt.Errorf("%w: %w", stock.ErrCorrupt, err)
		}
		for range l.Quantity {
			i := s.by[at].take(number)
			if i < 0 {
				return fmt.Errorf("%w: reservation %s takes units that are not free", stock.ErrCorrupt, r.ID)
			}
			h.units = append(h.units, place{at, i})
			s.tell(place{at, i}, "held", r.At, h)
		}
	}
	s.hold[number] = h
	return nil
}

func (s *shelves) settled(t *stock.Settlement) error {
	h := s.hold[t.ID.Number]
	if h == nil {
		return fmt.Errorf("%w: %s settles what is not held", stock.ErrCorrupt, t.ID)
	}
	h.state, h.at = t.Outcome, t.At
	for _, u := range h.units {
		s.tell(u, t.Outcome.String(), t.At, h)
		if t.Outcome != stock.Confirmed {
			s.by[u.shelf].give(u.index)
		}
	}
	if t.Outcome != stock.Confirmed {
		delete(s.hold, t.ID.Number)
	}
	return nil
}

func (s *shelves) tell(u place, event string, at stock.Millis, h *hold) {
	if s.note == nil {
		return
	}
	e := UnitEvent{Event: event, At: at.Time()}
	if h != nil {
		e.Reservation, e.Order, e.User = h.id.String(), h.order, h.user
	}
	s.note(s.by[u.shelf].sku, u.index, e)
}

// unit shows one unit of a shelf.
func (s *shelves) unit(of *shelf, index int) Unit {
	u := Unit{Number: index + 1, State: "free"}
	switch number := of.holder[index]; number {
	case 0:
	case withdrawn:
		u.State = "withdrawn"
	default:
		h := s.hold[number]
		u.State, u.Reservation, u.Order, u.User, u.Since = h.state.String(), h.id.String(), h.order, h.user, h.at.Time()
	}
	return u
}
