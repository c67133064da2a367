package order_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

func TestPay(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	page := s.pay(o)
	if again := s.pay(o); again != page {
		t.Errorf("paying again leads to %s, not %s", again, page)
	}
	s.press(page, "pay")
	s.captured(o, 1, "c1 5900 EUR") // a callback; its capture's name differs from the sandbox's
	o = s.get(o.ID)
	if o.State != order.Paid || o.Money.Captures[0].Pays != o.ID || o.PaidAt != s.at() {
		t.Errorf("order %+v", o)
	}
	if got := s.settle(); !slices.Equal(got, []string{"order.paid " + string(o.ID)}) {
		t.Errorf("events %v", got)
	}
	if got := s.ledgerState(o); got != stock.Confirmed {
		t.Errorf("ledger says %s", got)
	}
	_, err := s.desk.Pay(t.Context(), "ann", o.ID, "")
	s.wants(err, order.ErrState)
}

// The event's version is the row's after the update, whatever the store.
func TestEventVersion(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	s.pay(o)
	s.captured(o, 1, "c1 5900 EUR")
	messages, err := s.store.Pending(t.Context(), int64(s.at()), 10)
	s.must(err)
	if want := fmt.Sprintf(`"version":%d,`, s.get(o.ID).Version); len(messages) != 1 || !strings.Contains(string(messages[0].Body), want) {
		t.Errorf("%d events, the first %s; want %s", len(messages), messages[0].Body, want)
	}
}

func TestCaptures(t *testing.T) {
	type want struct {
		state   order.State
		reasons []string // of refunds
		alarms  map[string]uint64
	}
	f := func(name string, reports [][]string, w want) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 10, 0)
			o := s.buy("ann", terms(1, "", false))
			s.pay(o)
			for _, captures := range reports {
				s.captured(o, 1, captures...)
			}
			o = s.get(o.ID)
			var reasons []string
			for _, r := range o.Money.Refunds {
				reasons = append(reasons, r.Reason)
			}
			if o.State != w.state || !slices.Equal(reasons, w.reasons) {
				t.Errorf("%s with refunds %v, want %s with %v", o.State, reasons, w.state, w.reasons)
			}
			s.wantAlarms(w.alarms)
			balanced(t, o)
		})
	}
	right, more := []string{"c1 5900 EUR"}, []string{"c2 5900 EUR"}
	f("once", [][]string{right}, want{order.Paid, nil, nil})
	f("the same twice", [][]string{right, right}, want{order.Paid, nil, nil})
	f("two", [][]string{right, more}, want{order.Paid, []string{"second_capture"}, map[string]uint64{"second_capture": 1}})
	f("two, reordered and repeated", [][]string{more, right, more, right}, want{order.Paid, []string{"second_capture"}, map[string]uint64{"second_capture": 1}})
	f("two in one report", [][]string{{"c1 5900 EUR", "c2 5900 EUR"}}, want{order.Paid, []string{"second_capture"}, map[string]uint64{"second_capture": 1}})
	f("too little", [][]string{{"c1 5899 EUR"}}, want{order.Created, []string{"wrong_amount"}, map[string]uint64{"wrong_amount": 1}})
	f("too much", [][]string{{"c1 5901 EUR"}, {"c1 5901 EUR"}}, want{order.Created, []string{"wrong_amount"}, map[string]uint64{"wrong_amount": 1}})
	f("another currency", [][]string{{"c1 5900 USD"}}, want{order.Created, []string{"wrong_currency"}, map[string]uint64{"wrong_currency": 1}})
	f("wrong, then right", [][]string{{"c1 1 EUR"}, {"c2 5900 EUR"}}, want{order.Paid, []string{"wrong_amount"}, map[string]uint64{"wrong_amount": 1}})
	f("nothing", [][]string{{}}, want{order.Created, nil, nil})
}

func TestMalformedStatus(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	s.pay(o)
	before := s.get(o.ID)
	f := func(captures ...string) {
		t.Helper()
		st := status(t, o.ID, 1, captures...)
		_, err := s.cashier.Apply(t.Context(), o.ID, st)
		s.wants(err, payment.ErrMalformed)
		if got := s.get(o.ID); got.Version != before.Version {
			t.Errorf("%v changed the order", captures)
		}
	}
	f("c1 5900 EUR", "c2 0 EUR") // the good one before it must not count either
	f("c1 -1 EUR")
	f("c1 5900 euro")
	f(strings.Repeat("x", 65) + " 5900 EUR")
	f(slices.Repeat([]string{"c1 1 EUR"}, payment.MaxCaptures+1)...)
}

// "failed" after money has arrived changes nothing; before, it frees the
// shopper to try again under a new id.
func TestFailedPayment(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	failed := func(n int) {
		t.Helper()
		st := status(t, o.ID, n)
		st.State = payment.Failed
		_, err := s.cashier.Apply(t.Context(), o.ID, st)
		s.must(err)
	}
	page := s.pay(o)
	failed(1)
	if second := s.pay(o); second == page {
		t.Error("a failed payment is offered again")
	}
	s.captured(o, 2, "c1 5900 EUR")
	failed(2)
	o = s.get(o.ID)
	if o.State != order.Paid || o.Money.Payments[0].State != order.PaymentFailed || o.Money.Payments[1].State != order.PaymentCaptured {
		t.Errorf("%s, payments %+v", o.State, o.Money.Payments)
	}
	s.captured(o, 1, "c2 5900 EUR") // the failed one was captured after all
	if o = s.get(o.ID); len(o.Money.Refunds) != 1 {
		t.Errorf("refunds %+v", o.Money.Refunds)
	}
}

// A start that was cut off, before or after the provider heard of it, is
// repeated under the same id and with the same request.
func TestStartAfterCrash(t *testing.T) {
	f := func(name string, mode int32, calls int32) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 10, 0)
			o := s.buy("ann", terms(1, "", false))
			s.front.mode.Store(mode)
			_, err := s.desk.Pay(t.Context(), "ann", o.ID, "http://shop.example/first")
			s.wants(err, payment.ErrProvider)
			if got := s.get(o.ID).Money.Payments; len(got) != 1 || got[0].State != order.PaymentStarting {
				t.Fatalf("saved before the call: %+v", got)
			}
			s.crash()
			s.front.mode.Store(up)
			page, err := s.desk.Pay(t.Context(), "ann", o.ID, "http://shop.example/second")
			s.must(err)
			if got := s.get(o.ID).Money.Payments; len(got) != 1 || got[0].State != order.PaymentStarted || got[0].PayURL != page {
				t.Errorf("payments %+v", got)
			}
			if got := s.front.calls.Load(); got != calls {
				t.Errorf("%d calls reached the provider, want %d", got, calls)
			}
		})
	}
	f("before the call", down, 1)
	f("after the call", answerLost, 2)
}

// A callback may never come: the worker finds the money by itself.
func TestPolling(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	page := s.pay(o)
	s.press(page, "never_call_back")
	s.keep()
	if got := s.get(o.ID).State; got != order.Created {
		t.Fatalf("polled at once: %s", got)
	}
	s.advance(2 * time.Second)
	s.keep()
	if got := s.get(o.ID).State; got != order.Paid {
		t.Errorf("after 2 s: %s", got)
	}
	// One more look, then never again.
	s.advance(time.Hour)
	s.keep()
	if got := s.get(o.ID).CheckAt; got != 0 {
		t.Errorf("still looked at, at %d", got)
	}
}

// The second of two captures is found although its callback got lost.
// A payment that nobody makes is not asked about for ever: a week after its
// order was closed the polls end. Money that comes after all is not lost.
func TestPollsEnd(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, pricing.AlwaysRefund, false))
	page := s.pay(o)
	s.advance(time.Minute)
	s.keep()
	for range 7*4 - 1 {
		s.advance(6 * time.Hour)
		s.keep()
	}
	if p := s.get(o.ID).Money.Payments[0]; p.State != order.PaymentStarted || p.CheckAt == 0 {
		t.Fatalf("within the week: %+v", p)
	}
	for range 3 {
		s.advance(6 * time.Hour)
		s.keep()
	}
	o = s.get(o.ID)
	if p := o.Money.Payments[0]; p.State != order.PaymentFailed || p.CheckAt != 0 || o.CheckAt != 0 {
		t.Errorf("after the week: %+v, order due at %d", p, o.CheckAt)
	}
	s.wantAlarms(nil)
	s.press(page, "never_call_back")
	st, err := s.client.Query(t.Context(), string(o.ID)+"-1")
	s.must(err)
	_, err = s.cashier.Apply(t.Context(), o.ID, st)
	s.must(err)
	s.keep()
	o = s.get(o.ID)
	if r := o.Money.Refunds; len(r) != 1 || r[0].State != order.RefundDone {
		t.Errorf("money of a callback after the week: %+v", o.Money)
	}
	balanced(t, o)
}

// A provider that is away all the time ends the polls as well, but whether it
// has money is not known: a person is told. An order that waits for that
// answer is never given up.
func TestPollsEndUnanswered(t *testing.T) {
	s := newShop(t, 10, 0)
	closed, open := s.buy("ann", terms(1, "", false)), s.buy("bob", terms(1, "", false))
	s.pay(closed)
	s.pay(open)
	_, err := s.desk.Cancel(t.Context(), "ann", closed.ID)
	s.must(err)
	s.front.mode.Store(down)
	for range 8 * 4 {
		s.advance(6 * time.Hour)
		s.keep()
	}
	if o := s.get(closed.ID); o.CheckAt != 0 || o.Money.Payments[0].State != order.PaymentFailed {
		t.Errorf("closed order %+v", o)
	}
	if o := s.get(open.ID); o.State != order.Created || o.CheckAt == 0 || o.Money.Payments[0].State != order.PaymentStarted {
		t.Errorf("order that waits for the provider: %+v", o)
	}
	s.wantAlarms(map[string]uint64{order.AlarmUnresolved: 1})
}

// forgetful is a provider that tells of so many captures only.
type forgetful struct {
	payment.Provider
	captures int
}

func (f *forgetful) Query(ctx context.Context, id string) (payment.Status, error) {
	st, err := f.Provider.Query(ctx, id)
	st.Captures = st.Captures[:min(f.captures, len(st.Captures))]
	return st, err
}

// A capture that a poll has found is looked at once more as well: the callback
// of a second one may be lost too.
func TestSecondCaptureAfterPolling(t *testing.T) {
	s := newShop(t, 10, 0)
	provider := &forgetful{Provider: s.client, captures: 1}
	s.provider = provider
	s.crash()
	o := s.buy("ann", terms(1, "", false))
	s.press(s.pay(o), "duplicate") // and none of its callbacks arrives
	s.advance(2 * time.Second)
	s.keep()
	if o = s.get(o.ID); o.State != order.Paid || len(o.Money.Captures) != 1 {
		t.Fatalf("after 2 s: %s, captures %+v", o.State, o.Money.Captures)
	}
	provider.captures = 2
	s.advance(time.Minute)
	s.keep()
	o = s.get(o.ID)
	if r := o.Money.Refunds; len(r) != 1 || r[0].State != order.RefundDone || r[0].Reason != "second_capture" {
		t.Errorf("payments %+v, refunds %+v", o.Money.Payments, r)
	}
	s.wantAlarms(map[string]uint64{order.AlarmSecondCapture: 1})
	s.advance(time.Hour)
	s.keep()
	if got := s.get(o.ID).CheckAt; got != 0 {
		t.Errorf("still looked at, at %d", got)
	}
}

func TestSecondCaptureByPolling(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	page := s.pay(o)
	s.press(page, "duplicate")
	st, err := s.client.Query(t.Context(), string(o.ID)+"-1")
	s.must(err)
	st.Captures = st.Captures[:1]
	_, err = s.cashier.Apply(t.Context(), o.ID, st)
	s.must(err)
	s.advance(time.Minute)
	s.keep()
	s.keep()
	o = s.get(o.ID)
	if o.State != order.Paid || len(o.Money.Refunds) != 1 || o.Money.Refunds[0].State != order.RefundDone {
		t.Errorf("%s, refunds %+v", o.State, o.Money.Refunds)
	}
	s.wantAlarms(map[string]uint64{order.AlarmSecondCapture: 1})
}

// paid is an order paid at the sandbox.
func (s *shop) paid(t pricing.Terms) order.Order {
	s.t.Helper()
	o := s.buy("ann", t)
	s.press(s.pay(o), "never_call_back")
	s.advance(2 * time.Second)
	s.keep()
	return s.get(o.ID)
}

func TestRefund(t *testing.T) {
	f := func(name string, restock, fulfilled bool, mode int32, want stock.State) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 10, 0)
			o := s.paid(terms(1, "", restock))
			if fulfilled {
				_, err := s.desk.Fulfil(t.Context(), o.ID)
				s.must(err)
			}
			s.front.mode.Store(mode)
			o, err := s.desk.Refund(t.Context(), o.ID, "broken in transit")
			s.must(err)
			if mode != up {
				if o.State == order.Refunded || len(o.Money.Refunds) != 1 {
					t.Fatalf("refunded by a provider that did not answer: %+v", o)
				}
				balanced(t, o)
				_, err := s.desk.Fulfil(t.Context(), o.ID)
				s.wants(err, order.ErrState)
				s.crash()
				s.front.mode.Store(up)
				s.advance(time.Minute)
				s.keep()
			}
			o, err = s.desk.Refund(t.Context(), o.ID, "again")
			s.must(err)
			if o.State != order.Refunded || o.Reason != "broken in transit" || len(o.Money.Refunds) != 1 || o.Money.Refunds[0].State != order.RefundDone {
				t.Errorf("order %+v", o)
			}
			balanced(t, o)
			s.settle()
			if got := s.ledgerState(o); got != want {
				t.Errorf("ledger says %s, want %s", got, want)
			}
			// The provider gave it back once: a second refund of it is refused.
			r := o.Money.Refunds[0]
			_, err = s.client.Refund(t.Context(), payment.RefundRequest{ID: r.ID + "x", PaymentID: r.Payment, CaptureID: r.Capture, Amount: r.Amount})
			s.wants(err, payment.ErrRefused)
		})
	}
	f("kept", false, false, up, stock.Confirmed)
	f("restocked", true, false, up, stock.Returned)
	f("fulfilled", true, true, up, stock.Returned)
	f("call lost", false, false, down, stock.Confirmed)
	f("answer lost", false, false, answerLost, stock.Confirmed)
}

func TestRefundStuck(t *testing.T) {
	s := newShop(t, 10, 0)
	o := s.buy("ann", terms(1, "", false))
	s.pay(o)
	s.captured(o, 1, "unheard-of 5900 EUR") // the provider will refuse to give it back
	for range 2 {
		o, err := s.desk.Refund(t.Context(), o.ID, "")
		s.must(err)
		if o.State != order.Paid || o.Money.Refunds[0].State != order.RefundStuck {
			t.Errorf("%s, refunds %+v", o.State, o.Money.Refunds)
		}
	}
	s.wantAlarms(map[string]uint64{order.AlarmRefundStuck: 2})
	_, err := s.desk.Refund(t.Context(), "404", "")
	s.wants(err, order.ErrNoSuchOrder)
	_, err = s.desk.Refund(t.Context(), s.buy("bob", terms(1, "", false)).ID, "")
	s.wants(err, order.ErrState)
}

// An operator who refunds an order gets it refunded, also while another refund
// of it is stuck; and that one can be tried again by itself.
func TestRefundBesideStuck(t *testing.T) {
	f := func(name string, do func(s *shop, id stock.OrderID, stuck string) (order.Order, error), state order.State, refunds string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := newShop(t, 10, 0)
			provider := &refuser{Provider: s.client}
			s.provider = provider
			s.crash()
			o := s.buy("ann", terms(1, "", false))
			page := s.pay(o)
			s.press(page, "duplicate")
			provider.refuses = true
			st, err := s.client.Query(t.Context(), string(o.ID)+"-1")
			s.must(err)
			_, err = s.cashier.Apply(t.Context(), o.ID, st)
			s.must(err)
			s.keep()
			o = s.get(o.ID)
			if r := o.Money.Refunds; len(r) != 1 || r[0].State != order.RefundStuck || o.State != order.Paid {
				t.Fatalf("%s, refunds %+v", o.State, r)
			}
			provider.refuses = false
			is, err := do(s, o.ID, o.Money.Refunds[0].ID)
			s.must(err)
			var got []string
			for _, r := range is.Money.Refunds {
				got = append(got, r.Reason+" "+string(r.State))
			}
			if is.State != state || strings.Join(got, ", ") != refunds {
				t.Errorf("%s, refunds %q", is.State, got)
			}
			balanced(t, s.get(o.ID))
		})
	}
	f("refund the order", func(s *shop, id stock.OrderID, _ string) (order.Order, error) {
		return s.desk.Refund(t.Context(), id, "broken")
	}, order.Refunded, "second_capture done, operator done")
	f("retry the refund", func(s *shop, id stock.OrderID, stuck string) (order.Order, error) {
		return s.desk.RetryRefund(t.Context(), id, stuck)
	}, order.Paid, "second_capture done")
	f("retry it twice", func(s *shop, id stock.OrderID, stuck string) (order.Order, error) {
		_, err := s.desk.RetryRefund(t.Context(), id, stuck)
		s.must(err)
		return s.desk.RetryRefund(t.Context(), id, stuck)
	}, order.Paid, "second_capture done")

	s := newShop(t, 10, 0)
	_, err := s.desk.RetryRefund(t.Context(), s.buy("ann", terms(1, "", false)).ID, "404-1-r1")
	s.wants(err, order.ErrState)
	_, err = s.desk.RetryRefund(t.Context(), "404", "404-1-r1")
	s.wants(err, order.ErrNoSuchOrder)
}

// balanced checks the law of money: every captured minor unit pays an order,
// is owed or given back, or is being decided about.
func balanced(t interface{ Errorf(string, ...any) }, o order.Order) {
	sum := map[string]int64{}
	for _, c := range o.Money.Captures {
		sum[c.Amount.Currency] += c.Amount.Amount
		pays := 0
		if c.Pays != "" {
			pays++
		}
		for _, r := range o.Money.Refunds {
			if r.Capture == c.ID {
				pays++
				if r.Amount != c.Amount || r.Payment != c.Payment {
					t.Errorf("refund %+v of capture %+v", r, c)
				}
			}
		}
		undecided := c.Late && pays == 0
		if !undecided && pays != 1 {
			t.Errorf("capture %s of order %s pays or is given back %d times", c.ID, o.ID, pays)
		}
		if undecided && (c.CheckAt == 0 || o.CheckAt == 0 || o.CheckAt > c.CheckAt) {
			t.Errorf("nobody will decide about capture %s of order %s, due at %d of %d", c.ID, o.ID, c.CheckAt, o.CheckAt)
		}
	}
	for currency, b := range o.Money.Balances() {
		if b.Captured != sum[currency] || b.Captured != b.Paying+b.Owed+b.Refunded+b.Undecided {
			t.Errorf("order %s: %+v of %d", o.ID, b, sum[currency])
		}
	}
	own := int64(0)
	for _, c := range o.Money.Captures {
		if c.Pays == o.ID {
			own += c.Amount.Amount
		}
	}
	settled := (o.State == order.Paid || o.State == order.Fulfilled) && o.LateOf == "" && o.Reason == ""
	if settled && own != o.Terms.Total || !settled && own != 0 {
		t.Errorf("order %s is %s and paid by %d of %d", o.ID, o.State, own, o.Terms.Total)
	}
}

// Whatever comes in whatever order: the law of money holds after each step.
func TestMoneyConservation(t *testing.T) {
	s := newShop(t, 1_000_000, 0)
	rapid.Check(t, func(r *rapid.T) {
		policy := rapid.SampledFrom([]pricing.LatePolicy{pricing.AlwaysRefund, pricing.RereserveOrRefund}).Draw(r, "policy")
		user := s.newID("")
		o := s.buy(stock.UserID(user), terms(1, policy, rapid.Bool().Draw(r, "restock")))
		captures := 0
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			var err error
			switch do := rapid.SampledFrom([]string{"pay", "capture", "again", "wrong", "foreign", "cancel", "wait", "refund", "fulfil", "crash"}).Draw(r, "do"); do {
			case "pay":
				_, err = s.desk.Pay(t.Context(), o.User, o.ID, "http://shop.example/")
			case "cancel":
				_, err = s.desk.Cancel(t.Context(), o.User, o.ID)
			case "wait":
				s.advance(time.Duration(rapid.IntRange(1, 90).Draw(r, "seconds")) * time.Second)
				s.keep()
				s.land()
			case "refund":
				_, err = s.desk.Refund(t.Context(), o.ID, "")
			case "fulfil":
				_, err = s.desk.Fulfil(t.Context(), o.ID)
			case "crash":
				s.crash()
			default:
				captures++
				n := captures
				if do == "again" {
					n = rapid.IntRange(1, captures).Draw(r, "n")
				}
				amount := map[string]string{"wrong": "5000 EUR", "foreign": "5900 USD"}[do]
				if amount == "" {
					amount = "5900 EUR"
				}
				payments := len(s.get(o.ID).Money.Payments)
				if payments == 0 {
					continue
				}
				_, err = s.cashier.Apply(t.Context(), o.ID, status(t, o.ID, rapid.IntRange(1, payments).Draw(r, "payment"), fmt.Sprintf("%s-c%d %s", o.ID, n, amount)))
			}
			if err != nil && !errors.Is(err, order.ErrState) {
				r.Fatalf("%v", err)
			}
			s.settle()
			is := s.get(o.ID)
			balanced(r, is)
			if is.ReplacedBy != "" {
				s.land()
				late := s.get(is.ReplacedBy)
				balanced(r, late)
				if late.LateOf == "" {
					r.Errorf("order %s does not say whose money pays it", late.ID)
				}
			}
		}
	})
}
