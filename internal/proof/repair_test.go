package proof_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// repaired is books with a repairer, whose hands mend them.
type repaired struct {
	*books
	saved map[string][]byte
	did   []string
	fail  error // what the hands answer, having done nothing
	lost  error // what saving answers, from the second time on
}

func newRepaired(t *testing.T) (*repaired, *proof.Repairer) {
	t.Helper()
	s := &repaired{books: newBooks(t), saved: map[string][]byte{}}
	hand := func(what string, mend func()) error {
		if s.fail == nil {
			s.did = append(s.did, what)
			mend()
		}
		return s.fail
	}
	return s, proof.NewRepairer(proof.New(s, s, "log", time.Now), proof.Hands{
		Order: func(_ context.Context, id stock.OrderID) (order.Order, error) {
			return s.orders[slices.IndexFunc(s.orders, func(o order.Order) bool { return o.ID == id })], nil
		},
		Resettle: func(_ context.Context, o order.Order) error {
			return hand("resettle "+string(o.ID), func() { s.now[o.Reservation.Number] = stock.Released })
		},
		GiveBack: func(_ context.Context, id stock.OrderID, capture string) error {
			return hand(fmt.Sprint("give back ", capture), func() { s.orders[1].Money.Captures = nil })
		},
		Redrive: func(_ context.Context, letter int64) error {
			return hand(fmt.Sprint("redrive ", letter), func() { s.undelivered = nil })
		},
		Reland: func(_ context.Context, id stock.ID) error {
			return hand("reland "+id.String(), func() {})
		},
	}, s, time.Now)
}

func (s *repaired) Repair(_ context.Context, activity stock.ActivityID, id string) ([]byte, error) {
	return s.saved[string(activity)+"/"+id], nil
}

func (s *repaired) SaveRepair(_ context.Context, activity stock.ActivityID, id string, doc []byte) error {
	if s.lost != nil && s.saved[string(activity)+"/"+id] != nil {
		return s.lost
	}
	s.saved[string(activity)+"/"+id] = doc
	return nil
}

func TestRepairOnce(t *testing.T) {
	s, r := newRepaired(t)
	f := func(ask proof.RepairRequest, want error, did ...string) proof.Repair {
		t.Helper()
		s.did = nil
		got, err := r.Repair(t.Context(), "a", ask)
		if !errors.Is(err, want) || !slices.Equal(s.did, did) {
			t.Errorf("%+v: %v, did %q; want %v, %q", ask, err, s.did, want, did)
		}
		return got
	}
	id := s.orders[2].ID
	ask := proof.RepairRequest{ID: "r1", Kind: proof.Resettle, Order: id, Reason: "why"}
	f(ask, proof.ErrNoDrift)
	f(proof.RepairRequest{ID: "r1", Kind: proof.Resettle}, stock.ErrInvalid)
	s.orders[2].State = order.Cancelled

	// One that fails has not been made, and may be tried again.
	s.fail = stock.ErrNotReady
	f(ask, stock.ErrNotReady)
	s.fail = nil
	// One that is cut off when it has been made is known to have been begun.
	s.lost = errors.New("cut off")
	f(ask, s.lost, "resettle "+string(id))
	s.lost = nil
	if got := f(ask, nil); got.DoneAt.IsZero() || len(got.Drifts) != 1 || got.Drifts[0].Reservation != s.orders[2].Reservation.String() {
		t.Errorf("%+v", got)
	}
	s.orders[3].State = order.Cancelled
	f(ask, nil) // the same id is the same repair, whatever has drifted since
	ask.Order = s.orders[3].ID
	f(ask, stock.ErrConflict)
	ask.ID = "r2"
	f(ask, nil, "resettle "+string(ask.Order))

	s.orders[1].Money.Captures = []order.Capture{{ID: "c9", Amount: s.orders[1].Terms.Money()}}
	f(proof.RepairRequest{ID: "r3", Kind: proof.Refund, Order: s.orders[1].ID, Reason: "x"}, nil, "give back c9")
	s.pay(4)
	s.undelivered = []outbox.Message{{ID: 7, Key: string(s.orders[4].ID), Topic: order.TopicPaid, Reason: "dead"}}
	f(proof.RepairRequest{ID: "r4", Kind: proof.Redrive, Order: s.orders[4].ID, Reason: "x"}, nil, "redrive 7")
	gone := s.orders[5]
	s.orders = s.orders[:5]
	f(proof.RepairRequest{ID: "r5", Kind: proof.Reland, Reservation: gone.Reservation.String(), Reason: "x"}, nil, "reland "+gone.Reservation.String())
}
