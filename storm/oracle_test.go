package storm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// tale is a history told to an oracle over a sale of two units that opened at
// second 0, with a hold of 5 s. Times are seconds after that.
type tale struct {
	o    *oracle
	zero time.Time
}

func newTale() *tale {
	zero := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &tale{newOracle(2, zero), zero}
}

func (s *tale) at(seconds float64) time.Time {
	return s.zero.Add(time.Duration(seconds * float64(time.Second)))
}

// given is the receipt of order n, accepted at a time.
func (s *tale) given(n int, seconds float64) Receipt {
	return Receipt{
		Reservation: fmt.Sprintf("a.0.1.%d", n), Order: fmt.Sprintf("%d", n), State: "held",
		ExpiresAt: s.at(seconds + 5).Format(time.RFC3339Nano), Total: Money{price, currency},
	}
}

// buys tells that a user got order n with the first key.
func (s *tale) buys(user, n int, seconds float64) *receipt {
	r, _ := s.o.accepted(tryID{user, 0}, s.given(n, seconds), s.at(seconds))
	return r
}

func (s *tale) pays(r *receipt, seconds float64) {
	s.o.pressing(r)
	s.o.charged(r)
	s.o.finished(r, "paid", s.at(seconds))
}

// row is the order of a receipt as a correct server lists it.
func (s *tale) row(r *receipt, state string) Order {
	return Order{ID: r.given.Order, Reservation: r.given.Reservation, User: userName(r.try.user), Key: r.try.key(), State: state, Total: r.given.Total}
}

// facts are those of a correct server with these orders.
func (s *tale) facts(rows ...Order) facts {
	states := byState(rows)
	i := item{Allocated: 2, Held: states["created"], Confirmed: sold(states)}
	i.Free = i.Allocated - i.Held - i.Confirmed
	f := facts{counts: i, orders: rows, proof: proofReport{OK: true, Orders: states, Ledger: []item{i}}}
	f.proof.Payments.Captured = price * int64(states["paid"])
	return f
}

func TestOracle(t *testing.T) {
	f := func(name, want string, history func(s *tale)) {
		t.Helper()
		s := newTale()
		history(s)
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: want a sentence with %q, got %q", name, want, got)
		}
	}

	f("two of two", "", func(s *tale) { s.buys(1, 1, 1); s.buys(2, 2, 1) })
	f("three of two", "oversold: 3", func(s *tale) { s.buys(1, 1, 1); s.buys(2, 2, 1); s.buys(3, 3, 1.1) })
	f("the third after an expiry", "", func(s *tale) { s.buys(1, 1, 1); s.buys(2, 2, 1); s.buys(3, 3, 6) })
	f("the third before any expiry", "oversold: 3", func(s *tale) { s.buys(1, 1, 1); s.buys(2, 2, 1); s.buys(3, 3, 5.6) })
	f("the third after a cancel was sent", "", func(s *tale) { s.o.cancelling(s.buys(1, 1, 1)); s.buys(2, 2, 1); s.buys(3, 3, 1.1) })
	f("a clock that is 3 s ahead", "", func(s *tale) { s.o.ahead = 3 * time.Second; s.buys(1, 1, 1); s.buys(2, 2, 1); s.buys(3, 3, 3) })
	f("paid ones never expire", "oversold: 3", func(s *tale) {
		s.pays(s.buys(1, 1, 1), 2)
		s.pays(s.buys(2, 2, 1), 2)
		s.buys(3, 3, 60)
	})
	f("paid late but shown as paid", "oversold: 3", func(s *tale) {
		a, b := s.buys(1, 1, 1), s.buys(2, 2, 1)
		s.buys(3, 3, 7)
		s.pays(a, 7.1)
		s.pays(b, 7.1)
	})

	f("receipts that arrive when all is over", "", func(s *tale) {
		for n := 1; n <= 3; n++ {
			s.o.accepted(tryID{n, 0}, s.given(n, 1), s.at(6))
		}
	})
	f("the same receipt again", "", func(s *tale) { s.buys(1, 1, 1); s.o.accepted(tryID{1, 0}, s.given(1, 1), s.at(2)) })
	f("state moved on", "", func(s *tale) {
		s.buys(1, 1, 1)
		g := s.given(1, 1)
		g.State = "expired"
		s.o.accepted(tryID{1, 0}, g, s.at(9))
	})
	f("another expiry", "got reservation a.0.1.1", func(s *tale) { s.buys(1, 1, 1); s.o.accepted(tryID{1, 0}, s.given(1, 2), s.at(2)) })
	f("another order", "order 1, 1999 EUR, expiry", func(s *tale) { s.buys(1, 1, 1); s.o.accepted(tryID{1, 0}, s.given(2, 1), s.at(2)) })
	f("one order for two users", "was given to u0000001", func(s *tale) { s.buys(1, 1, 1); s.buys(2, 1, 1) })
	f("wrong total", "costs 1 EUR", func(s *tale) {
		g := s.given(1, 1)
		g.Total.Amount = 1
		s.o.accepted(tryID{1, 0}, g, s.at(1))
	})
	f("before the opening", "before the sale opens", func(s *tale) { s.buys(1, 1, -1) })
	f("false refusal", "false refusal", func(s *tale) { s.o.denied(s.buys(1, 1, 1), "409 sold_out") })

	f("a second unit", "over the limit", func(s *tale) { s.buys(1, 1, 1); s.o.accepted(tryID{1, greedy}, s.given(2, 1), s.at(2)) })
	f("a second unit after the first expired", "", func(s *tale) { s.buys(1, 1, 1); s.o.accepted(tryID{1, 1}, s.given(2, 7), s.at(7)) })
	f("limited by nothing", "limit_reached", func(s *tale) { s.o.limited(tryID{1, 0}) })
	f("limited by the own key", "limit_reached", func(s *tale) { s.buys(1, 1, 1); s.o.limited(tryID{1, 0}) })
	f("limited by another key", "", func(s *tale) { s.buys(1, 1, 1); s.o.limited(tryID{1, greedy}) })

	f("sold out while held", "sold_out was told although order 1", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(2), s.at(2.1)) })
	f("sold out when all pressed pay", "", func(s *tale) { s.o.pressing(s.buys(1, 1, 1)); s.o.soldOut(s.at(2), s.at(2.1)) })
	f("sold out asked before the receipt came", "", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(0.9), s.at(1.1)) })
	f("sold out after the expiry", "", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(7), s.at(7)) })

	f("counts", "", func(s *tale) { s.o.sample(item{Allocated: 2, Free: 1, Held: 1}) })
	f("counts oversold", "by the server's own counts", func(s *tale) { s.o.sample(item{Allocated: 3, Held: 2, Confirmed: 1}) })
	f("counts lose a unit", "do not add up", func(s *tale) { s.o.sample(item{Allocated: 2, Held: 1}) })

	f("not to be paid for", "could not pay", func(s *tale) { s.o.unpayable(s.buys(1, 1, 1), "409 order_state", s.at(2)) })
	f("not to be paid for after its expiry", "", func(s *tale) { s.o.unpayable(s.buys(1, 1, 1), "409 order_state", s.at(6)) })
	f("cancelled early", "although nobody cancelled", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "cancelled", s.at(3)) })
	f("cancelled in time", "", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "cancelled", s.at(6.1)) })
	f("paid by nobody", "nobody paid", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "paid", s.at(2)) })
	f("paid after the end", "shown as ended", func(s *tale) {
		r := s.buys(1, 1, 1)
		s.o.finished(r, "cancelled", s.at(7))
		s.o.pressing(r)
		s.o.finished(r, "paid", s.at(8))
	})
	f("a promise refused", "promised by a receipt", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "refused", s.at(2)) })
}

func TestAudit(t *testing.T) {
	f := func(name, want string, history func(s *tale) facts) {
		t.Helper()
		s := newTale()
		s.o.audit(history(s))
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: want a sentence with %q, got %q", name, want, got)
		}
	}
	// clean is one paid order and one cancelled one.
	clean := func(s *tale) (paid, gone Order) {
		a, b := s.buys(1, 1, 1), s.buys(2, 2, 1)
		s.pays(a, 2)
		s.o.cancelling(b)
		s.o.finished(b, "cancelled", s.at(2))
		return s.row(a, "paid"), s.row(b, "cancelled")
	}
	spoil := func(change func(paid, gone *Order, f *facts)) func(s *tale) facts {
		return func(s *tale) facts {
			paid, gone := clean(s)
			change(&paid, &gone, &facts{})
			f := s.facts(paid, gone)
			change(&Order{}, &Order{}, &f)
			return f
		}
	}
	f("clean", "", spoil(func(_, _ *Order, _ *facts) {}))
	f("lost order", "lost order: u0000002", func(s *tale) facts { paid, _ := clean(s); return s.facts(paid) })
	f("listed twice", "listed twice", func(s *tale) facts { paid, gone := clean(s); return s.facts(paid, gone, gone) })
	f("another user's", "belongs to", spoil(func(_, gone *Order, _ *facts) { gone.User = userName(3) }))
	f("another reservation", "its receipt said", spoil(func(paid, _ *Order, _ *facts) { paid.Reservation = "a.0.1.9" }))
	f("another key", "it was sent with", spoil(func(paid, _ *Order, _ *facts) { paid.Key = "k" }))
	f("another total", "costs 1 EUR", spoil(func(paid, _ *Order, _ *facts) { paid.Total.Amount = 1 }))
	f("unpaid again", "had been shown as paid", spoil(func(paid, _ *Order, _ *facts) { paid.State = "cancelled" }))
	f("charged and unpaid", "still unpaid", func(s *tale) facts {
		r := s.buys(1, 1, 1)
		s.o.pressing(r)
		s.o.charged(r)
		return s.facts(s.row(r, "created"))
	})
	f("paid by nobody", "nobody paid", spoil(func(_, gone *Order, _ *facts) { gone.State = "paid" }))
	f("promise refused", "promised by a receipt", spoil(func(_, gone *Order, _ *facts) { gone.State = "refused" }))
	f("ledger apart", "the ledger holds", spoil(func(_, _ *Order, f *facts) { f.counts.Free--; f.counts.Held++ }))
	f("proof not ok", "proof: 2 units", spoil(func(_, _ *Order, f *facts) { f.proof.OK, f.proof.Violations = false, []string{"2 units"} }))
	f("proof silent", "does not say why", spoil(func(_, _ *Order, f *facts) { f.proof.OK = false }))
	f("proof counts otherwise", "the proof counts", spoil(func(_, _ *Order, f *facts) { f.proof.Orders = map[string]int{"paid": 9} }))
	f("money owed", "owes", spoil(func(_, _ *Order, f *facts) { f.proof.Payments.Owed = 1 }))
	f("money gone", "2 kept", spoil(func(_, _ *Order, f *facts) { f.proof.Payments.Captured = 2 }))
	f("unsold", "stayed unsold", spoil(func(_, _ *Order, f *facts) { f.unsold = 1 }))
	f("store apart", "the store as", spoil(func(_, _ *Order, f *facts) {
		f.stored = append([]Order{}, f.orders...)
		if len(f.stored) > 0 {
			f.stored[0].State = "created"
		}
	}))
	f("store short", "the store holds 1", spoil(func(_, _ *Order, f *facts) { f.stored = append([]Order{}, f.orders[:min(1, len(f.orders))]...) }))

	f("sold out was not true", "only 1 of 2", func(s *tale) facts {
		paid, gone := clean(s)
		s.o.soldOut(s.at(9), s.at(9))
		return s.facts(paid, gone)
	})
	stranger := func(s *tale, key string) Order {
		return Order{ID: "7", Reservation: "a.0.1.7", User: userName(7), Key: key, State: "cancelled", Total: Money{price, currency}}
	}
	f("unacknowledged", "never acknowledged", func(s *tale) facts { return s.facts(stranger(s, tryID{7, 0}.key())) })
	f("unacknowledged, key not told", "never acknowledged", func(s *tale) facts { return s.facts(stranger(s, "")) })
	f("its reply was lost, key not told", "", func(s *tale) facts {
		s.o.unanswered(tryID{7, 0})
		return s.facts(stranger(s, ""))
	})
	f("its reply was lost", "", func(s *tale) facts {
		s.o.unanswered(tryID{7, 0})
		return s.facts(stranger(s, tryID{7, 0}.key()))
	})
	f("a second order for a key", "is a second one", func(s *tale) facts {
		r := s.buys(7, 1, 1)
		s.o.unanswered(r.try)
		s.o.cancelling(r)
		return s.facts(s.row(r, "cancelled"), stranger(s, r.try.key()))
	})
	f("over the limit", "over the limit", func(s *tale) facts {
		s.o.unanswered(tryID{7, 0})
		s.o.unanswered(tryID{7, greedy})
		a, b := stranger(s, tryID{7, 0}.key()), stranger(s, tryID{7, greedy}.key())
		a.State, b.State, b.ID = "created", "created", "8"
		return s.facts(a, b)
	})
	f("late money from nowhere", "claims late money", func(s *tale) facts { return s.facts(stranger(s, "late:1-1")) })
	// late is a payment that arrived after the order had been cancelled.
	late := func(s *tale) *receipt {
		r := s.buys(1, 1, 1)
		s.o.pressing(r)
		s.o.charged(r)
		s.o.finished(r, "cancelled", s.at(7))
		return r
	}
	f("late money, another order", "", func(s *tale) facts {
		old := s.row(late(s), "cancelled")
		next := old
		next.LateOf, next.ID, next.Key, next.State, next.Reservation = "1-1", "9", "late:1-1", "paid", "a.0.1.9"
		old.ReplacedBy = "9"
		return s.facts(old, next)
	})
	f("late money kept", "got 0 back", func(s *tale) facts { return s.facts(s.row(late(s), "cancelled")) })
	f("late money given back", "", func(s *tale) facts {
		f := s.facts(s.row(late(s), "cancelled"))
		f.proof.Payments.Captured, f.proof.Payments.Refunded = price, price
		return f
	})
}

func TestBreachesAreBounded(t *testing.T) {
	var b breaches
	for i := range 250 {
		b.add("fault %d", i)
	}
	got := b.list()
	if len(got) != maxBreaches+1 || got[0] != "fault 0" || got[maxBreaches] != "and 150 more" {
		t.Errorf("%d sentences, first %q, last %q", len(got), got[0], got[len(got)-1])
	}
}
