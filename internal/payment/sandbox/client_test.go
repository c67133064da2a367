package sandbox

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/internal/payment"
)

// carrier is a transport that notes what it carries, and may refuse to.
type carrier struct {
	keys []string
	away bool
}

func (c *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	c.keys = append(c.keys, r.Method+" "+r.Header.Get("Idempotency-Key"))
	if c.away {
		return nil, payment.ErrAway
	}
	return http.DefaultTransport.RoundTrip(r)
}

// What the server does once for each of our ids says so to the transport, which
// may then repeat it; and what the transport has not carried is told apart from
// what the provider did not answer.
func TestTransport(t *testing.T) {
	b := newBench(t)
	by := &carrier{}
	front := httptest.NewServer(b.server.Handler())
	defer front.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	client, err := NewClient(front.URL, ClientOptions{Secret: secret, Now: b.now, Transport: by})
	if err != nil {
		t.Fatal(err)
	}
	start := payment.StartRequest{ID: "81-1", Amount: price, CallbackURL: b.merchant.URL}
	first, err := client.Start(t.Context(), start)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := client.Start(t.Context(), start); err != nil || again != first {
		t.Errorf("repeated: %s, %v; first %s", again, err, first)
	}
	b.pay(b.start("82-1"))
	paid, err := client.Query(t.Context(), "82-1")
	if err != nil {
		t.Fatal(err)
	}
	refund := payment.RefundRequest{ID: "82-1-r1", PaymentID: "82-1", CaptureID: paid.Captures[0].ID, Amount: price}
	for range 2 {
		if state, err := client.Refund(t.Context(), refund); err != nil || state != payment.RefundDone {
			t.Errorf("refund: %s, %v", state, err)
		}
	}
	want := []string{"POST 81-1", "POST 81-1", "GET ", "POST 82-1-r1", "POST 82-1-r1"}
	for i, key := range by.keys {
		if i >= len(want) || key != want[i] {
			t.Fatalf("carried %q, want %q", by.keys, want)
		}
	}
	by.away = true
	if _, err := client.Start(t.Context(), start); !errors.Is(err, payment.ErrAway) || !errors.Is(err, payment.ErrProvider) {
		t.Errorf("not carried: %v", err)
	}
	b.front.Close()
	if _, err := b.client.Query(t.Context(), "81-1"); !errors.Is(err, payment.ErrProvider) || errors.Is(err, payment.ErrAway) {
		t.Errorf("not answered: %v", err)
	}
}
