package order_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// amnesiac is a ledger of several activities that may lose what is pending: it
// looks for an order by its id alone only where it has met an activity.
type amnesiac struct {
	*ledger
	met  bool
	gone bool // the engine has lost everything
	down error
}

func (f *amnesiac) Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	switch {
	case f.down != nil:
		return stock.Receipt{}, f.down
	case f.gone || ref.Activity == "" && ref.ID == (stock.ID{}) && !f.met:
		return stock.Receipt{}, stock.ErrNoSuchReservation
	}
	return f.ledger.Lookup(ctx, ref)
}

// marks are the last digits of the ids that may be a user's. Ann and eve have
// the same one.
var marks = map[stock.UserID]string{"ann": "1", "bob": "2", "eve": "1"}

// recalling puts the desk in front of such a ledger.
func (s *shop) recalling() (*amnesiac, *order.Recall) {
	f := &amnesiac{ledger: s.ledger}
	began := s.now()
	r := &order.Recall{
		Ledger: f,
		Living: func(context.Context) ([]stock.ActivityID, error) { return []stock.ActivityID{"sale"}, nil },
		Minted: func(user stock.UserID, id stock.OrderID) (time.Time, bool) {
			return began, strings.HasSuffix(string(id), marks[user])
		},
		Now: s.now,
	}
	s.desk = order.NewDesk(s.store, r, s.cashier, s.lander.Changed, s.now)
	return f, r
}

// From the receipt to the end its owner finds the order, whatever happens to
// the ledger, and nobody else does.
func TestLostOrderIsNever404(t *testing.T) {
	s := newShop(t, 10, 0)
	f, _ := s.recalling()
	r := s.reserveAs("ann", "21", terms(1, "", false))
	is := func(user stock.UserID, id stock.OrderID, want order.State, reason string) {
		t.Helper()
		o, err := s.desk.Get(t.Context(), user, id)
		s.must(err)
		if o.ID != id || o.User != user || o.State != want || o.Reason != reason || o.Version != 0 {
			t.Errorf("%s's %s: %+v", user, id, o)
		}
	}
	not := func(user stock.UserID, id stock.OrderID, want error) {
		t.Helper()
		o, err := s.desk.Get(t.Context(), user, id)
		s.wants(err, want)
		if o.ID != "" {
			t.Errorf("%s sees %+v", user, o)
		}
		_, err = s.desk.Cancel(t.Context(), user, id)
		if !errors.Is(err, want) && want != stock.ErrNotReady {
			t.Errorf("cancel: %v", err)
		}
	}
	// Here nobody has bought anything in this activity so far.
	is("ann", "21", order.Created, "")
	not("bob", "21", order.ErrNoSuchOrder)

	// The engine is away, is back without it, and it might still turn up …
	f.down = stock.ErrNotReady
	not("ann", "21", stock.ErrNotReady)
	f.down, f.gone = nil, true
	not("ann", "21", stock.ErrNotReady)
	// … and will not any more.
	s.advance(5 * time.Second)
	is("ann", "21", order.Refused, order.ReasonLost)
	not("bob", "21", order.ErrNoSuchOrder)
	not("ann", "22", order.ErrNoSuchOrder)
	_, err := s.desk.Cancel(t.Context(), "ann", "21")
	s.wants(err, order.ErrState)
	_, err = s.desk.Pay(t.Context(), "ann", "21", "")
	s.wants(err, order.ErrState)

	// The row has the last word.
	f.gone = false
	s.land()
	f.gone = true
	if o := s.own("ann", "21"); o.State != order.Created || o.Version != 1 || o.Reservation != r.ID {
		t.Errorf("landed: %+v", o)
	}
}

func (s *shop) own(user stock.UserID, id stock.OrderID) order.Order {
	s.t.Helper()
	o, err := s.desk.Get(s.t.Context(), user, id)
	s.must(err)
	return o
}

// Somebody else's order and no order at all are answered alike, also to one
// whose mark an id has by chance.
func TestNothingIsLearntOfOthersOrders(t *testing.T) {
	s := newShop(t, 10, 0)
	s.recalling()
	s.reserveAs("ann", "41", terms(1, "", false))
	s.land()
	s.advance(time.Minute)
	f := func(user stock.UserID, theirs, nobodys stock.OrderID) {
		t.Helper()
		a, err1 := s.desk.Get(t.Context(), user, theirs)
		b, err2 := s.desk.Get(t.Context(), user, nobodys)
		a.ID, b.ID = "", ""
		if a.State != b.State || a.Reason != b.Reason || a.User != b.User || a.Terms.Total != 0 || errors.Is(err1, order.ErrNoSuchOrder) != errors.Is(err2, order.ErrNoSuchOrder) {
			t.Errorf("%s sees %+v, %v of an order, and %+v, %v of none", user, a, err1, b, err2)
		}
		_, err1 = s.desk.Cancel(t.Context(), user, theirs)
		_, err2 = s.desk.Cancel(t.Context(), user, nobodys)
		if errors.Is(err1, order.ErrState) != errors.Is(err2, order.ErrState) || err1 == nil {
			t.Errorf("%s cancels: %v, and %v", user, err1, err2)
		}
	}
	f("bob", "41", "51")
	f("eve", "41", "51") // could be eve's
	if o := s.get("41"); o.State != order.Created {
		t.Errorf("%+v", o)
	}
}

// Where nobody can say what lives, nobody can say what is lost.
func TestNotLostWhileNobodyKnows(t *testing.T) {
	s := newShop(t, 10, 0)
	_, r := s.recalling()
	s.advance(time.Minute)
	away := errors.New("away")
	r.Living = func(context.Context) ([]stock.ActivityID, error) { return nil, away }
	_, err := s.desk.Get(t.Context(), "ann", "21")
	s.wants(err, stock.ErrNotReady)
	s.wants(err, away)
	_, err = s.desk.Get(t.Context(), "bob", "21")
	s.wants(err, order.ErrNoSuchOrder)
}

// A reservation whose terms are gone is shown all the same.
func TestTermsAreGone(t *testing.T) {
	s := newShop(t, 10, 0)
	r, err := s.ledger.Reserve(t.Context(), stock.Request{
		Activity: "sale", User: "ann", Key: "k", Order: "1", Lines: []stock.Line{{SKU: "cup", Quantity: 1}}, At: s.at(),
	})
	s.must(err)
	o := s.own("ann", "1")
	if o.State != order.Created || o.Reservation != r.ID || o.Activity != "sale" || o.ExpiresAt != r.Expires || o.Terms.Money().Currency != "" {
		t.Errorf("order %+v", o)
	}
	if res, err := s.desk.Reservation(t.Context(), "ann", r.ID); err != nil || res.State != stock.Held {
		t.Errorf("reservation %+v, %v", res, err)
	}
}
