// Package paymenttest checks any payment.Provider against its contract, over
// whatever wire it speaks. It owns no provider.
package paymenttest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/payment"
	"sluice/internal/pricing"
)

// Bench is a provider under test with a shopper and a merchant beside it.
type Bench struct {
	Provider payment.Provider
	// Pay does what a shopper does who pays at payURL. The capture has happened
	// when it returns.
	Pay func(t *testing.T, payURL string)
	// CallbackURL takes the provider's callbacks.
	CallbackURL string
	// Callbacks has everything that is due delivered, and answers the
	// callbacks that have arrived since the bench was opened.
	Callbacks func(t *testing.T) []Callback
}

// Callback is a request that the provider made.
type Callback struct {
	Header http.Header
	Body   []byte
}

// Run checks the contract; open gives a new, empty bench for each test.
func Run(t *testing.T, open func(t *testing.T) Bench) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, Bench)
	}{
		{"name", name},
		{"start is idempotent", startTwice},
		{"start refuses what it cannot take", startBad},
		{"unknown payment", unknown},
		{"captures are listed", captures},
		{"refund is idempotent", refundTwice},
		{"callback is genuine", genuineCallback},
		{"forged callbacks", forgedCallbacks},
		{"a call that is given up", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

var price = pricing.Money{Amount: 129_900, Currency: "CNY"}

func request(b Bench, id string) payment.StartRequest {
	return payment.StartRequest{
		ID: id, Amount: price, Description: "1 × Porcelain cup",
		ReturnURL: "https://shop.example/orders/1", CallbackURL: b.CallbackURL,
	}
}

func start(t *testing.T, b Bench, id string) (payURL string) {
	t.Helper()
	payURL, err := b.Provider.Start(t.Context(), request(b, id))
	if err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
	return payURL
}

func query(t *testing.T, b Bench, id string) payment.Status {
	t.Helper()
	st, err := b.Provider.Query(t.Context(), id)
	if err != nil {
		t.Fatalf("query %s: %v", id, err)
	}
	if st.PaymentID != id {
		t.Fatalf("query %s answered for %q", id, st.PaymentID)
	}
	return st
}

func name(t *testing.T, b Bench) {
	n := b.Provider.Name()
	if len(n) < 1 || len(n) > 32 || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		t.Errorf("name %q is not [a-z0-9-]{1,32}", n)
	}
}

func startTwice(t *testing.T, b Bench) {
	first := start(t, b, "71-1")
	if again := start(t, b, "71-1"); again != first {
		t.Errorf("started twice: %q, then %q", first, again)
	}
	if other := start(t, b, "71-2"); other == first {
		t.Errorf("two payments share %q", first)
	}
	if st := query(t, b, "71-1"); st.State != payment.Open || len(st.Captures) != 0 {
		t.Errorf("just started: %+v", st)
	}
	b.Pay(t, first)
	if again := start(t, b, "71-1"); again != first {
		t.Errorf("started again after it was paid: %q, then %q", first, again)
	}
	if st := query(t, b, "71-1"); st.State != payment.Paid || len(st.Captures) != 1 {
		t.Errorf("a repeated start changed what was paid: %+v", st)
	}
	changed := request(b, "71-1")
	changed.Amount.Amount++
	if _, err := b.Provider.Start(t.Context(), changed); !errors.Is(err, payment.ErrRefused) {
		t.Errorf("same id, other amount: %v, want ErrRefused", err)
	}
}

func startBad(t *testing.T, b Bench) {
	f := func(what string, edit func(*payment.StartRequest)) {
		t.Helper()
		r := request(b, "72-1")
		edit(&r)
		if _, err := b.Provider.Start(t.Context(), r); !errors.Is(err, payment.ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", what, err)
		}
	}
	f("negative amount", func(r *payment.StartRequest) { r.Amount.Amount = -1 })
	f("no currency", func(r *payment.StartRequest) { r.Amount.Currency = "" })
	f("long description", func(r *payment.StartRequest) { r.Description = strings.Repeat("x", 129) })
	f("script as return URL", func(r *payment.StartRequest) { r.ReturnURL = "javascript:alert(1)" })
	f("relative callback URL", func(r *payment.StartRequest) { r.CallbackURL = "/v1/payments/callbacks/x" })
	if _, err := b.Provider.Query(t.Context(), "72-1"); !errors.Is(err, payment.ErrNoSuchPayment) {
		t.Errorf("a refused start left a payment behind: %v", err)
	}
}

func unknown(t *testing.T, b Bench) {
	if _, err := b.Provider.Query(t.Context(), "404-1"); !errors.Is(err, payment.ErrNoSuchPayment) {
		t.Errorf("query: %v, want ErrNoSuchPayment", err)
	}
	_, err := b.Provider.Refund(t.Context(), payment.RefundRequest{ID: "404-1-r1", PaymentID: "404-1", CaptureID: "x", Amount: price})
	if !errors.Is(err, payment.ErrRefused) {
		t.Errorf("refund: %v, want ErrRefused", err)
	}
}

func captures(t *testing.T, b Bench) {
	b.Pay(t, start(t, b, "73-1"))
	st := query(t, b, "73-1")
	if st.State != payment.Paid || len(st.Captures) != 1 || st.Captures[0].Amount != price || st.Captures[0].ID == "" {
		t.Fatalf("after paying: %+v", st)
	}
	if again := query(t, b, "73-1"); len(again.Captures) != 1 || again.Captures[0] != st.Captures[0] {
		t.Errorf("asked again: %+v, before %+v", again, st)
	}
	b.Pay(t, start(t, b, "73-2"))
	if other := query(t, b, "73-2"); len(other.Captures) != 1 || other.Captures[0].ID == st.Captures[0].ID {
		t.Errorf("capture ids are not unique: %+v and %+v", st, other)
	}
}

func refundTwice(t *testing.T, b Bench) {
	b.Pay(t, start(t, b, "74-1"))
	taken := query(t, b, "74-1").Captures[0]
	r := payment.RefundRequest{ID: "74-1-r1", PaymentID: "74-1", CaptureID: taken.ID, Amount: taken.Amount}
	for range 3 {
		if state, err := b.Provider.Refund(t.Context(), r); err != nil || (state != payment.RefundDone && state != payment.RefundPending) {
			t.Fatalf("refund: %q, %v", state, err)
		}
	}
	f := func(what string, edit func(*payment.RefundRequest)) {
		t.Helper()
		bad := r
		edit(&bad)
		if _, err := b.Provider.Refund(t.Context(), bad); !errors.Is(err, payment.ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", what, err)
		}
	}
	f("the same money under another id", func(r *payment.RefundRequest) { r.ID = "74-1-r2" })
	f("an unknown capture", func(r *payment.RefundRequest) { r.ID, r.CaptureID = "74-1-r3", "no-such" })
	f("more than was captured", func(r *payment.RefundRequest) { r.ID = "74-1-r4"; r.Amount.Amount++ })
	if st := query(t, b, "74-1"); len(st.Captures) != 1 || st.Captures[0] != taken {
		t.Errorf("a refund rewrote the captures: %+v", st)
	}
}

// one pays a payment and answers its callback.
func one(t *testing.T, b Bench, id string) Callback {
	t.Helper()
	b.Pay(t, start(t, b, id))
	got := b.Callbacks(t)
	if len(got) == 0 {
		t.Fatal("no callback arrived")
	}
	return got[0]
}

func genuineCallback(t *testing.T, b Bench) {
	c := one(t, b, "75-1")
	st, err := b.Provider.Parse(c.Header.Get, c.Body)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	want := query(t, b, "75-1")
	if st.PaymentID != "75-1" || st.State != payment.Paid || len(st.Captures) != 1 || st.Captures[0] != want.Captures[0] {
		t.Errorf("callback %+v, query %+v", st, want)
	}
	if again, err := b.Provider.Parse(c.Header.Get, c.Body); err != nil || again.PaymentID != st.PaymentID {
		t.Errorf("the same callback again: %+v, %v", again, err)
	}
}

func forgedCallbacks(t *testing.T, b Bench) {
	c := one(t, b, "76-1")
	f := func(what string, h http.Header, body []byte) {
		t.Helper()
		if _, err := b.Provider.Parse(h.Get, body); !errors.Is(err, payment.ErrForged) {
			t.Errorf("%s: %v, want ErrForged", what, err)
		}
	}
	for i := range c.Body {
		tampered := append([]byte(nil), c.Body...)
		tampered[i] ^= 1
		f("tampered body", c.Header, tampered)
	}
	f("no body", c.Header, nil)
	f("longer body", c.Header, append(append([]byte(nil), c.Body...), ' '))
	f("no headers", http.Header{}, c.Body)
	other := one(t, b, "76-2")
	if string(other.Body) == string(c.Body) { // the bench answers callbacks oldest first
		other = b.Callbacks(t)[1]
	}
	f("another callback's signature", other.Header, c.Body)
}

func cancelled(t *testing.T, b Bench) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cancel()
	if _, err := b.Provider.Query(ctx, "77-1"); !errors.Is(err, payment.ErrProvider) {
		t.Errorf("query: %v, want ErrProvider", err)
	}
	if _, err := b.Provider.Start(ctx, request(b, "77-1")); !errors.Is(err, payment.ErrProvider) {
		t.Errorf("start: %v, want ErrProvider", err)
	}
}
