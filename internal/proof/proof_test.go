package proof_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// books are a ledger and a store that agree, until a test plants a fault.
type books struct {
	t           *testing.T
	book        *stock.Book            // at the watermark
	now         map[uint64]stock.State // where a reservation has gone since, by number
	orders      []order.Order
	undelivered []outbox.Message
	head        uint64 // position of its newest entry
	log         []stock.Entry
	silent      error // what the ledger answers to questions
}

const users = 6

func newBooks(t *testing.T) *books {
	t.Helper()
	b, _, err := stock.NewBook(stocktest.Allocation("a", 10, 0))
	if err != nil {
		t.Fatal(err)
	}
	s := &books{t: t, book: b, now: map[uint64]stock.State{}, head: 9}
	for i := range users {
		s.reserve(fmt.Sprint("u", i), "k")
	}
	s.pay(0)
	s.settle(0, stock.Confirmed)
	s.orders[1].State = order.Cancelled
	s.settle(1, stock.Expired)
	return s
}

// reserve adds a reservation and its order, and answers the order's index.
func (s *books) reserve(user, key string) int {
	s.t.Helper()
	r := stocktest.Request("a", user, key, 1)
	rec, _, err := s.book.Reserve(&r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.orders = append(s.orders, order.Order{
		ID: rec.Order, Reservation: rec.ID, Activity: "a", User: rec.User, State: order.Created,
		Terms: pricing.Terms{Quote: pricing.Quote{Currency: "CNY", Total: 100, Lines: []pricing.QuoteLine{{SKU: "s", Quantity: 1, Unit: 100, Total: 100}}}},
	})
	return len(s.orders) - 1
}

func (s *books) pay(i int) {
	o := &s.orders[i]
	o.State = order.Paid
	o.Money.Captures = []order.Capture{{ID: fmt.Sprint("c", i), Payment: string(o.ID) + "-1", Amount: o.Terms.Money(), Pays: o.ID}}
}

func (s *books) settle(i int, outcome stock.Outcome) {
	s.t.Helper()
	if _, _, err := s.book.Settle(stock.Settlement{ID: s.orders[i].Reservation, Outcome: outcome}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *books) Snapshot(_ context.Context, _ stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error) {
	for _, o := range s.orders {
		if err := visit(o); err != nil {
			return nil, nil, err
		}
	}
	return map[stock.LogID]stock.Cursor{"log": {Log: "log", Epoch: 1, Position: 9}}, s.undelivered, nil
}

func (s *books) Dead(_ context.Context, after int64, _ int) (page []outbox.Message, err error) {
	for _, m := range s.undelivered {
		if m.Reason == "dead" && m.ID > after {
			page = append(page, m)
		}
	}
	return page, nil
}

func (s *books) Start() stock.Cursor { return stock.Cursor{Log: "log"} }

func (s *books) Counts(context.Context, stock.ActivityID) (stock.Counts, error) {
	return stock.Counts{Position: stock.Cursor{Log: "log", Epoch: 1, Position: s.head}}, nil
}

func (s *books) Replica(context.Context, stock.Cursor) (map[stock.ActivityID]*stock.Book, error) {
	if s.book == nil {
		return map[stock.ActivityID]*stock.Book{}, nil
	}
	return map[stock.ActivityID]*stock.Book{"a": s.book}, nil
}

func (s *books) Tail(context.Context, stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		for i, e := range s.log {
			e.Cursor = stock.Cursor{Log: "log", Epoch: 1, Position: uint64(i + 1)}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *books) Lookup(_ context.Context, ref stock.Ref) (stock.Receipt, error) {
	if s.silent != nil {
		return stock.Receipt{}, s.silent
	}
	rec, err := s.book.Find(ref.ID)
	if err != nil {
		return stock.Receipt{}, err
	}
	r := stock.Receipt{Reservation: rec.Reservation}
	if is, moved := s.now[ref.ID.Number]; moved {
		r.State = is
	}
	return r, nil
}

func (s *books) check() proof.Report {
	s.t.Helper()
	r, err := proof.New(s, s, "log", time.Now).Check(s.t.Context(), "a")
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// Books that agree, or whose difference is on its way, are no violation.
func TestNoFalseAlarms(t *testing.T) {
	f := func(what string, change func(s *books)) {
		t.Helper()
		s := newBooks(t)
		change(s)
		if r := s.check(); !r.OK || r.Found != 0 {
			t.Errorf("%s: %v", what, r.Violations)
		}
	}
	f("agreement", func(*books) {})
	f("a settle event under way", func(s *books) {
		s.pay(2)
		s.undelivered = []outbox.Message{{Key: string(s.orders[2].ID), Topic: order.TopicPaid}}
	})
	f("settled behind the watermark", func(s *books) {
		s.orders[2].State = order.Cancelled
		s.now[s.orders[2].Reservation.Number] = stock.Released
	})
	f("confirmed and returned behind the watermark", func(s *books) {
		s.pay(2)
		s.now[s.orders[2].Reservation.Number] = stock.Returned
	})
	f("a refund under way", func(s *books) {
		s.orders[0].Reason = "operator"
		s.orders[0].Money.Captures[0].Pays = ""
		s.orders[0].Money.Refunds = []order.Refund{{ID: "r", Capture: "c0", Amount: s.orders[0].Terms.Money(), State: order.RefundRequested}}
	})
	f("late money that bought the same again", func(s *books) {
		i := s.reserve("u1", "late:p")
		s.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: s.orders[1].Terms.Money(), Late: true, Pays: s.orders[i].ID}}
		s.orders[i].State, s.orders[i].LateOf = order.Paid, "p"
		s.settle(i, stock.Confirmed)
	})
	f("late money that bought the same again and was given back", func(s *books) {
		i := s.reserve("u1", "late:p")
		s.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: s.orders[1].Terms.Money(), Late: true}}
		s.orders[1].Money.Refunds = []order.Refund{{Capture: "l", Amount: s.orders[1].Terms.Money(), State: order.RefundDone}}
		s.orders[i].State, s.orders[i].LateOf = order.Refunded, "p"
		s.settle(i, stock.Confirmed)
	})
	f("a ledger that cannot be asked, about late money whose new order has not landed", func(s *books) {
		s.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: s.orders[1].Terms.Money(), Late: true, Pays: "99"}}
		s.silent = stock.ErrUnknown
	})
	f("late money whose new order is landed before the old one knows", func(s *books) {
		i := s.reserve("u1", "late:p")
		s.undecided(5, 5)
		s.orders[i].State, s.orders[i].LateOf = order.Paid, "p"
		s.settle(i, stock.Confirmed)
	})
	f("and more money came by the same payment meanwhile", func(s *books) {
		i := s.reserve("u1", "late:p")
		s.undecided(5, 5)
		m := &s.orders[1].Money
		m.Captures = append(m.Captures, order.Capture{ID: "m", Payment: "p", Amount: pricing.Money{Amount: 991, Currency: "CNY"}})
		m.Refunds = []order.Refund{{ID: "r", Capture: "m", State: order.RefundRequested}}
		s.orders[i].State, s.orders[i].LateOf = order.Paid, "p"
		s.settle(i, stock.Confirmed)
	})
	f("late money that is decided about soon", func(s *books) { s.undecided(7, 6) })
	f("late money that is being given back", func(s *books) {
		s.undecided(0, 0)
		s.orders[1].Money.Refunds = []order.Refund{{Capture: "l", State: order.RefundRequested}}
	})
}

// undecided gives a cancelled order late money, about which it has to be decided
// when it is due; looked is when its order is looked at.
func (s *books) undecided(due, looked stock.Millis) {
	s.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: s.orders[1].Terms.Money(), Late: true, CheckAt: due}}
	s.orders[1].CheckAt = looked
}

// One fault of each kind is found, and the sentence names the order.
func TestPlantedFaults(t *testing.T) {
	f := func(want string, plant func(s *books)) {
		t.Helper()
		s := newBooks(t)
		plant(s)
		r := s.check()
		if r.OK || r.Found == 0 || !strings.Contains(strings.Join(r.Violations, "\n"), want) {
			t.Errorf("want a violation with %q, got %v", want, r.Violations)
		}
	}
	f("has no order", func(s *books) { s.orders = s.orders[:users-1] })
	f("have no reservation", func(s *books) {
		o := s.orders[2]
		o.ID, o.Reservation.Number = "ghost", 99
		s.orders = append(s.orders, o)
	})
	f("share reservation", func(s *books) { s.orders = append(s.orders, s.orders[2]) })
	f("is not reservation", func(s *books) { s.orders[2].User = "mallory" })
	f("is not reservation", func(s *books) { s.orders[2].Terms.Lines[0].Quantity = 2 })
	f("its reservation", func(s *books) { s.pay(2) })
	f("its reservation", func(s *books) { s.orders[2].State = order.Cancelled })
	f("its reservation", func(s *books) { s.orders[1].State = order.Created })
	f("captured for a total of", func(s *books) { s.orders[0].Money.Captures = nil })
	f("captured for a total of", func(s *books) { s.orders[0].Money.Captures[0].Amount.Amount = 1 })
	f("is paid in", func(s *books) { s.orders[0].Money.Captures[0].Amount.Currency = "EUR" })
	f("although", func(s *books) {
		s.orders[1].Money.Captures = []order.Capture{{ID: "c", Amount: s.orders[1].Terms.Money(), Pays: s.orders[1].ID}}
	})
	f("pays nothing", func(s *books) {
		s.orders[1].Money.Captures = []order.Capture{{ID: "c", Amount: s.orders[1].Terms.Money()}}
	})
	f("nobody will decide", func(s *books) { s.undecided(0, 5) })
	f("nobody will decide", func(s *books) { s.undecided(5, 0) })
	f("nobody will decide", func(s *books) { s.undecided(5, 6) })
	f("does not know", func(s *books) { s.book = nil })
	f("refunded twice", func(s *books) {
		one := order.Refund{Capture: "c0", State: order.RefundDone}
		s.orders[0].Money.Refunds = []order.Refund{one, one}
	})
	late := func(s *books, pays stock.OrderID) {
		s.orders[1].Money.Captures = []order.Capture{{ID: "l", Payment: "p", Amount: s.orders[1].Terms.Money(), Late: true, Pays: pays}}
	}
	f("does not fit", func(s *books) { late(s, s.orders[2].ID) })
	f("does not exist", func(s *books) { late(s, "99") })
	f("no order gave it", func(s *books) {
		s.orders[3].State, s.orders[3].LateOf = order.Paid, "p"
		s.settle(3, stock.Confirmed)
	})
	f("is refunded although", func(s *books) { s.orders[0].State = order.Refunded })
	f("dead letter 7", func(s *books) {
		s.pay(2)
		s.undelivered = []outbox.Message{{ID: 7, Key: string(s.orders[2].ID), Topic: order.TopicPaid, Reason: "dead"}}
	})
	f("its reservation", func(s *books) { // a reminder on its way settles nothing
		s.pay(2)
		s.undelivered = []outbox.Message{{Key: string(s.orders[2].ID), Topic: order.TopicPaymentDue}}
	})
}

// What is owed is money that pays nothing and has not gone back.
func TestPayments(t *testing.T) {
	s := newBooks(t)
	s.orders[1].Money.Captures = []order.Capture{
		{ID: "x", Amount: pricing.Money{Amount: 70, Currency: "CNY"}}, {ID: "y", Amount: pricing.Money{Amount: 30, Currency: "CNY"}},
	}
	s.orders[1].Money.Refunds = []order.Refund{{Capture: "y", Amount: pricing.Money{Amount: 30, Currency: "CNY"}, State: order.RefundDone}}
	if got, want := s.check().Payments, (proof.Payments{Captured: 200, Refunded: 30, Owed: 70}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The sentences are bounded, the count is not.
func TestViolationsAreBounded(t *testing.T) {
	s := newBooks(t)
	for i := range 2 * proof.MaxViolations {
		o := s.orders[2]
		o.Reservation.Number = uint64(1000 + i)
		o.State = order.Paid
		s.orders = append(s.orders, o)
	}
	if r := s.check(); len(r.Violations) != proof.MaxViolations || r.Found <= proof.MaxViolations {
		t.Errorf("%d sentences of %d", len(r.Violations), r.Found)
	}
}
