package sqlstore

import (
	"errors"
	"testing"
	"time"

	"sluice/internal/lib/lease"
	"sluice/internal/lib/lease/leasetest"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
)

func TestLeases(t *testing.T) {
	checkLeases(t, func(t *testing.T) *Store { return openStore(t) })
}

func checkLeases(t *testing.T, open func(t *testing.T) *Store) {
	leasetest.Run(t, func(t *testing.T) leasetest.Body {
		s := open(t)
		return leasetest.Body{Leases: s, Pass: func(t *testing.T, d time.Duration) {
			t.Helper()
			pass(t, s, d)
		}}
	})
}

// pass returns when the database's clock has advanced by d.
func pass(t *testing.T, s *Store, d time.Duration) {
	t.Helper()
	clock := func() (now int64) {
		must(t, s.reading(t.Context(), "clock", func(c *conn) error {
			row, _, err := c.one("SELECT " + s.d.now)
			now = integer(row[0])
			return err
		}))
		return now
	}
	for until := clock() + d.Milliseconds(); clock() < until; {
		<-time.After(d / 20)
	}
}

func TestWritesUnderALease(t *testing.T) { checkUnder(t, openStore(t)) }

// A holder that stood still past the end of its lease writes nothing, whatever
// it was about to write; its successor goes on.
func checkUnder(t *testing.T, s *Store) {
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	must(t, landAll(t.Context(), s, token, 0, 3, 3))
	id := landedOrders(0, 3)[0].Order.ID
	old, err := s.Acquire(t.Context(), "work", "a", time.Hour)
	must(t, err)
	under := s.Under(old)
	touch := func(s *Store) error {
		return s.Update(t.Context(), id, func(o *order.Order) ([]outbox.Message, error) { o.Reason += "x"; return nil, nil })
	}
	must(t, touch(under))
	must(t, s.Renew(t.Context(), old, 20*time.Millisecond))
	pass(t, s, 20*time.Millisecond)

	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, lease.ErrLost) {
			t.Errorf("%s: %v, want %v", what, err, lease.ErrLost)
		}
	}
	everything := func() {
		t.Helper()
		refused("update", touch(under))
		_, err := under.Fence(t.Context(), "wal")
		refused("fence", err)
		refused("land", landAll(t.Context(), under, token, 3, 6, 3))
		refused("message done", under.Done(t.Context(), []int64{1}))
		refused("notification", note(under, 1))
	}
	everything() // run out, and nobody's
	next, err := s.Acquire(t.Context(), "work", "b", time.Hour)
	must(t, err)
	everything() // another's
	must(t, touch(s.Under(next)))
	must(t, landAll(t.Context(), s.Under(next), token, 3, 6, 3))
	o, err := s.Get(t.Context(), id)
	must(t, err)
	if o.Reason != "xx" || o.Version != 3 {
		t.Errorf("order has reason %q at version %d", o.Reason, o.Version)
	}
	checkWhole(t, s, 6)
}
