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

// presses tells that a button was pressed, and answered.
func (s *tale) presses(r *receipt, b button, seconds float64) {
	page := fmt.Sprintf("/pay/%s-%d", r.given.Order, len(r.presses)+1)
	delay := time.Duration(0)
	if b == buttonLate {
		delay = 6 * time.Second
	}
	s.o.pressing(r, b, page, delay, s.at(seconds))
	s.o.charged(r, page, s.at(seconds))
}

func (s *tale) pays(r *receipt, seconds float64) {
	s.presses(r, buttonPay, seconds)
	s.o.finished(r, "a read", "paid", s.at(seconds))
}

// row is the order of a receipt as a correct server lists it: of the money,
// one capture of the price pays a paid order, and all else went back.
func (s *tale) row(r *receipt, state string) Order {
	o := Order{ID: r.given.Order, Reservation: r.given.Reservation, User: userName(r.try.user), Key: r.try.key(), State: state, Total: r.given.Total}
	paid := state != "paid"
	for _, p := range r.presses {
		for _, m := range p.button.takes(o.Total) {
			c := Capture{ID: fmt.Sprintf("c%s-%d", o.ID, len(o.Captures)+1), Amount: m}
			if m == o.Total && !paid {
				c.Pays, paid = o.ID, true
			} else {
				o.Refunds = append(o.Refunds, Refund{ID: "r" + c.ID, Capture: c.ID, Amount: m, State: "done"})
			}
			o.Captures = append(o.Captures, c)
		}
	}
	return o
}

// facts are those of a correct server with these orders, a minute later.
func (s *tale) facts(rows ...Order) facts {
	states := byState(rows)
	i := item{Allocated: 2, Held: states["created"], Confirmed: sold(states)}
	i.Free = i.Allocated - i.Held - i.Confirmed
	f := facts{counts: i, orders: rows, proof: proofReport{OK: true, Orders: states, Ledger: []item{i}}, at: s.at(60)}
	for _, o := range rows {
		for _, c := range o.Captures {
			f.proof.Payments.Captured += c.Amount.Amount
		}
		for _, back := range o.Refunds {
			f.proof.Payments.Refunded += back.Amount.Amount
		}
	}
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
	f("limited by nothing", "limit_reached", func(s *tale) { s.o.limited(tryID{1, 0}, s.at(1)) })
	f("limited by the own key", "limit_reached", func(s *tale) { s.buys(1, 1, 1); s.o.limited(tryID{1, 0}, s.at(2)) })
	f("limited by another key", "", func(s *tale) { s.buys(1, 1, 1); s.o.limited(tryID{1, greedy}, s.at(2)) })
	ended := func(s *tale) *receipt { // at second 2
		r := s.buys(1, 1, 1)
		s.o.cancelling(r)
		s.o.finished(r, "a read", "cancelled", s.at(2))
		return r
	}
	f("limited by what had ended", "after order 1, the last one, had been shown as ended", func(s *tale) { ended(s); s.o.limited(tryID{1, 1}, s.at(2.1)) })
	f("limited by what ended meanwhile", "", func(s *tale) { ended(s); s.o.limited(tryID{1, 1}, s.at(1.9)) })
	f("limited by what a replay had shown as ended", "had been shown as ended", func(s *tale) {
		s.buys(1, 1, 1)
		g := s.given(1, 1)
		g.State = "expired"
		s.o.accepted(tryID{1, 0}, g, s.at(7))
		s.o.limited(tryID{1, 1}, s.at(8))
	})
	f("limited while a second unit is asked for", "", func(s *tale) {
		ended(s)
		s.o.grabbing(tryID{1, greedy}, 1)
		s.o.limited(tryID{1, 1}, s.at(3))
	})
	f("limited after the reply for a second unit was lost", "", func(s *tale) {
		ended(s)
		s.o.unanswered(tryID{1, greedy})
		s.o.limited(tryID{1, 1}, s.at(3))
	})
	f("limited while late money is on its way", "", func(s *tale) {
		r := s.buys(1, 1, 1)
		s.presses(r, buttonLate, 2)
		s.o.finished(r, "a read", "cancelled", s.at(6))
		s.o.limited(tryID{1, 1}, s.at(7))
	})
	f("limited after late money was given back", "had been shown as ended", func(s *tale) {
		r := s.buys(1, 1, 1)
		s.presses(r, buttonLate, 2)
		s.o.finished(r, "a read", "cancelled", s.at(6))
		shown := shownOrder{State: "cancelled"}
		shown.Refunded.Money, shown.Refunded.State = r.given.Total, "done"
		if got := s.o.fateOf(r, shown, s.at(9)); got != fateGivenUp {
			s.o.broken.add("fate %d", got)
		}
		s.o.limited(tryID{1, 1}, s.at(10))
	})
	f("the end taken back", "is shown as held", func(s *tale) { s.o.repeated(ended(s), Receipt{Reservation: "a.0.1.1", State: "held"}, s.at(3)) })
	f("held when asked before the end", "", func(s *tale) { s.o.repeated(ended(s), Receipt{Reservation: "a.0.1.1", State: "held"}, s.at(1.5)) })
	f("ended in both", "", func(s *tale) { s.o.repeated(ended(s), Receipt{Reservation: "a.0.1.1", State: "released"}, s.at(3)) })

	f("sold out while held", "sold_out was told although order 1", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(2), s.at(2.1)) })
	f("sold out when all pressed pay", "", func(s *tale) { s.presses(s.buys(1, 1, 1), buttonPay, 1.5); s.o.soldOut(s.at(2), s.at(2.1)) })
	f("sold out when one pays too late", "sold_out was told although order 1", func(s *tale) {
		s.presses(s.buys(1, 1, 1), buttonLate, 1.5)
		s.o.soldOut(s.at(2), s.at(2.1))
	})
	f("sold out asked before the receipt came", "", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(0.9), s.at(1.1)) })
	f("sold out after the expiry", "", func(s *tale) { s.buys(1, 1, 1); s.o.soldOut(s.at(7), s.at(7)) })

	f("counts", "", func(s *tale) { s.o.sample(item{Allocated: 2, Free: 1, Held: 1}, false) })
	f("counts oversold", "by the server's own counts", func(s *tale) { s.o.sample(item{Allocated: 3, Held: 2, Confirmed: 1}, false) })
	f("counts lose a unit", "do not add up", func(s *tale) { s.o.sample(item{Allocated: 2, Held: 1}, false) })

	f("not to be paid for", "could not pay", func(s *tale) { s.o.unpayable(s.buys(1, 1, 1), "409 order_state", s.at(2)) })
	f("not to be paid for after its expiry", "", func(s *tale) { s.o.unpayable(s.buys(1, 1, 1), "409 order_state", s.at(6)) })
	f("cancelled early", "although nobody cancelled", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "a read", "cancelled", s.at(3)) })
	f("cancelled in time", "", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "a read", "cancelled", s.at(6.1)) })
	f("paid by nobody", "nobody paid", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "a read", "paid", s.at(2)) })
	f("paid by a wrong amount", "nobody paid", func(s *tale) {
		r := s.buys(1, 1, 1)
		s.presses(r, buttonWrong, 2)
		s.o.finished(r, "a read", "paid", s.at(3))
	})
	stuck := func(later float64) func(s *tale) { // a payment that failed at second 2
		return func(s *tale) {
			r := s.buys(1, 1, 1)
			s.presses(r, buttonFail, 2)
			s.pays(s.buys(2, 2, 1), later)
			s.o.failedStill(r, "/pay/1-1", time.Second, s.at(4))
		}
	}
	f("not to be paid for again", "cannot pay for order 1: 2s after", stuck(3))
	f("not to be paid for again, nor news of any other", "", stuck(1.5))
	f("paid after the end", "shown as ended", func(s *tale) {
		r := s.buys(1, 1, 1)
		s.o.finished(r, "a read", "cancelled", s.at(7))
		s.presses(r, buttonPay, 7.5)
		s.o.finished(r, "a read", "paid", s.at(8))
	})
	f("a promise refused", "promised by a receipt", func(s *tale) { s.o.finished(s.buys(1, 1, 1), "a read", "refused", s.at(2)) })
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
		s.o.finished(b, "a read", "cancelled", s.at(2))
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
		s.presses(r, buttonPay, 2)
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
	f("dead letter", "dead letter 7 (order.paid of order 1) after 12 attempts: away", spoil(func(_, _ *Order, f *facts) {
		f.dead = []deadLetter{{ID: "7", Key: "1", Topic: "order.paid", Attempts: 12, Reason: "away"}}
	}))
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
}

// TestMoney holds one order's money against what was pressed for it.
func TestMoney(t *testing.T) {
	// f tells of user 1, who holds order 1 and pressed these buttons at second
	// 2; the server then tells of it as it should in this state, but for spoil.
	f := func(name, want, state string, buttons []button, spoil func(o *Order)) {
		t.Helper()
		s := newTale()
		r := s.buys(1, 1, 1)
		for _, b := range buttons {
			s.presses(r, b, 2)
		}
		row := s.row(r, state)
		if spoil != nil {
			spoil(&row)
		}
		s.o.audit(s.facts(row))
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: want a sentence with %q, got %q", name, want, got)
		}
	}
	press := func(b ...button) []button { return b }
	unpay := func(o *Order) { o.Captures[0].Pays = "" }
	again := func(o *Order) { o.Refunds = append(o.Refunds, o.Refunds[0]) }
	never := func(o *Order) { o.Refunds = nil }

	f("paid", "", "paid", press(buttonPay), nil)
	f("paid, not cancelled", "before its expiry and is cancelled", "cancelled", press(buttonPay), nil)
	f("paid by nothing", "the shop knows of 0", "paid", press(buttonPay), func(o *Order) { o.Captures = nil })
	f("charged once more", "has 2 captures of 1999 EUR, and 1 were made", "paid", press(buttonPay), func(o *Order) {
		o.Captures = append(o.Captures, Capture{"x", o.Total, ""})
		o.Refunds = append(o.Refunds, Refund{"r", "x", o.Total, "second_capture", "done"})
	})
	f("pays nothing", "paid by 0 captures", "paid", press(buttonPay), unpay)
	f("pays and goes back", "refunded 1 times instead of 0", "paid", press(buttonPay), func(o *Order) {
		o.Refunds = []Refund{{"r", o.Captures[0].ID, o.Total, "", "done"}}
	})
	f("a refund of nothing", "which it does not have", "paid", press(buttonPay), func(o *Order) {
		o.Refunds = []Refund{{"r", "x", o.Total, "", "done"}}
	})

	f("twice", "", "paid", press(buttonTwice), nil)
	f("twice and kept", "refunded 0 times instead of 1", "paid", press(buttonTwice), never)
	f("twice and back twice", "refunded 2 times instead of 1", "paid", press(buttonTwice), again)
	f("twice and stuck", "is stuck", "paid", press(buttonTwice), func(o *Order) { o.Refunds[0].State = "stuck" })
	f("twice and less back", "of 1 EUR", "paid", press(buttonTwice), func(o *Order) { o.Refunds[0].Amount.Amount = 1 })
	f("twice, one unknown", "charged 2 × 1999 EUR for order 1, and the shop knows of 1", "paid", press(buttonTwice), func(o *Order) {
		o.Captures, o.Refunds = o.Captures[:1], nil
	})
	f("twice and both pay", "paid by 2 captures", "paid", press(buttonTwice), func(o *Order) { o.Captures[1].Pays, o.Refunds = o.ID, nil })

	f("wrong amount", "", "cancelled", press(buttonWrong), nil)
	f("wrong amount kept", "refunded 0 times", "cancelled", press(buttonWrong), never)
	f("wrong amount pays", "nobody paid", "paid", press(buttonWrong), func(o *Order) { o.Captures[0].Pays, o.Refunds = o.ID, nil })

	f("no call", "", "paid", press(buttonSilent), nil)
	f("no call, never asked", "before its expiry and is cancelled", "cancelled", press(buttonSilent), func(o *Order) { o.Captures, o.Refunds = nil, nil })

	f("failed", "", "cancelled", press(buttonFail), nil)
	f("failed, then paid", "", "paid", press(buttonFail, buttonPay), nil)
	f("failed and paid", "nobody paid", "paid", press(buttonFail), nil)

	f("late, back", "", "cancelled", press(buttonLate), nil)
	f("late, kept", "refunded 0 times", "cancelled", press(buttonLate), never)
	f("late, time-out later still", "", "paid", press(buttonLate), nil)
}

func TestClaimed(t *testing.T) {
	f := func(want int, history func(s *tale, r *receipt)) {
		t.Helper()
		s := newTale()
		history(s, s.buys(1, 1, 1)) // expires at second 6
		if got := s.o.claimed(s.at(8), time.Second); got != want {
			t.Errorf("claimed %d, want %d", got, want)
		}
	}
	f(0, func(_ *tale, _ *receipt) {})
	f(1, func(s *tale, _ *receipt) { s.buys(2, 2, 3) })
	f(1, func(s *tale, r *receipt) { s.pays(r, 2) })
	f(1, func(s *tale, r *receipt) { s.presses(r, buttonPay, 5) })
	f(1, func(s *tale, r *receipt) { s.presses(r, buttonLate, 5) })
	f(0, func(s *tale, r *receipt) { s.presses(r, buttonFail, 5) })
	f(0, func(s *tale, r *receipt) { s.presses(r, buttonWrong, 5) })
	f(0, func(s *tale, r *receipt) { s.o.finished(r, "a read", "cancelled", s.at(6)) })
}

// TestLateMoney is of money that bought another order.
func TestLateMoney(t *testing.T) {
	f := func(want string, spoil func(old, next *Order)) {
		t.Helper()
		s := newTale()
		r := s.buys(1, 1, 1)
		s.presses(r, buttonLate, 2)
		s.o.finished(r, "a read", "cancelled", s.at(7))
		old := s.row(r, "cancelled")
		old.ReplacedBy, old.Captures[0].Pays, old.Refunds = "9", "9", nil
		next := s.row(r, "paid")
		next.ID, next.Key, next.Reservation, next.LateOf, next.Captures, next.Refunds = "9", "late:1-1", "a.0.1.9", "1-1", nil, nil
		spoil(&old, &next)
		s.o.audit(s.facts(old, next))
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("want a sentence with %q, got %q", want, got)
		}
	}
	f("", func(_, _ *Order) {})
	f("not the same user's", func(_, next *Order) { next.User = userName(2) })
	f("not the same user's at the same price", func(_, next *Order) { next.Total.Amount++ })
	f("bought order 9, which is created", func(_, next *Order) { next.State = "created" })
	f("says that payment \"2-1\" paid it", func(_, next *Order) { next.LateOf = "2-1" })
	f("which does not replace it", func(old, _ *Order) { old.Captures[0].Pays = "8" })
	f("is replaced by order \"\", and 1 of its captures", func(old, _ *Order) { old.ReplacedBy = "" })
	f("is replaced by order \"9\", and 0 of its captures", func(old, _ *Order) {
		old.Captures[0].Pays = ""
		old.Refunds = []Refund{{"r", old.Captures[0].ID, old.Total, "late", "done"}}
	})
	f("refunded 1 times instead of 0", func(old, _ *Order) { old.Refunds = []Refund{{"r", old.Captures[0].ID, old.Total, "late", "done"}} })
	f("captures and 0 refunds of its own", func(_, next *Order) { next.Captures = []Capture{{"x", next.Total, "9"}} })
	f("claims late money", func(old, _ *Order) { old.ReplacedBy, old.Captures[0].Pays = "", "" })
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
