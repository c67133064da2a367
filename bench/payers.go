package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// payer is somebody with an unpaid order.
type payer struct{ token, order string }

// paying is what people who pay have met: a small load beside the flood, the same
// at every step. Each starts a payment, presses the provider's button, and looks
// at the order until it says that it is paid, twice a second at most.
type paying struct {
	mu     sync.Mutex
	People int             // who came
	Paid   int             // of them, those who saw their order paid within payWithin
	Starts served          // of payments
	Looks  served          // at the order afterwards
	Until  []time.Duration // from coming to seeing it paid
}

// served is requests of one kind.
type served struct {
	Sent, Good int
	took       []time.Duration // of the good ones, from when they were due
	Codes      map[string]int  // of the others
}

const (
	payEvery  = 50 * time.Millisecond  // somebody comes
	lookFirst = 50 * time.Millisecond  // after the button
	lookEvery = 500 * time.Millisecond // from then on
	payWithin = 5 * time.Second
	payWires  = 128 // connections at most
)

func (s *served) note(took time.Duration, code string) {
	s.Sent++
	if code == "" {
		s.Good++
		s.took = append(s.took, took)
		return
	}
	if s.Codes == nil {
		s.Codes = map[string]int{}
	}
	s.Codes[code]++
}

// share of the requests that were served, 0..1; 1 of none.
func (s *served) share() float64 {
	if s.Sent == 0 {
		return 1
	}
	return float64(s.Good) / float64(s.Sent)
}

func (s *served) p99() float64 {
	slices.Sort(s.took)
	return percentile(s.took, 0.99)
}

// share of the people who saw their order paid, 0..1; 1 of none.
func (p *paying) share() float64 {
	if p.People == 0 {
		return 1
	}
	return float64(p.Paid) / float64(p.People)
}

// cashDesk sends payers one after the other to a server.
type cashDesk struct {
	addr   string
	client *http.Client
	people chan payer
}

func newCashDesk(addr string, people []payer) *cashDesk {
	d := &cashDesk{addr: addr, people: make(chan payer, len(people)), client: &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{MaxIdleConnsPerHost: payWires, MaxConnsPerHost: payWires},
		// The provider's page leads back to the shop; nobody follows.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, p := range people {
		d.people <- p
	}
	return d
}

// run sends somebody every payEvery until the time is up, waits for them all, and
// counts those who came after the lead.
func (d *cashDesk) run(ctx context.Context, lead, lasts time.Duration) (*paying, error) {
	seen, start := &paying{}, time.Now()
	var all sync.WaitGroup
	var failed error
	for due := start; due.Sub(start) < lasts && ctx.Err() == nil; due = due.Add(payEvery) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
		}
		var one payer
		select {
		case one = <-d.people:
		default:
			return nil, fmt.Errorf("there are not enough orders to pay for")
		}
		into := seen
		if due.Sub(start) < lead {
			into = &paying{} // does not count
		}
		all.Go(func() {
			if err := d.pay(ctx, one, due, into); err != nil {
				seen.mu.Lock()
				failed = err
				seen.mu.Unlock()
			}
		})
	}
	all.Wait()
	return seen, failed
}

// pay is the way of one payer.
func (d *cashDesk) pay(ctx context.Context, p payer, due time.Time, seen *paying) error {
	ctx, cancel := context.WithDeadline(ctx, due.Add(payWithin))
	defer cancel()
	paid := false
	defer func() {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		seen.People++
		if paid {
			seen.Paid++
			seen.Until = append(seen.Until, time.Since(due))
		}
	}()
	var to struct {
		PayURL string `json:"pay_url"`
	}
	code, err := d.ask(ctx, http.MethodPost, "/v1/orders/"+p.order+"/payments", p.token, &to)
	seen.count(&seen.Starts, time.Since(due), code)
	if err != nil || code != "" {
		return err
	}
	if err := d.press(ctx, to.PayURL); err != nil {
		return err
	}
	for at := time.Now().Add(lookFirst); !paid; at = at.Add(lookEvery) {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return nil // it takes too long
		}
		var order struct{ State string }
		code, err := d.ask(ctx, http.MethodGet, "/v1/orders/"+p.order, p.token, &order)
		if err != nil {
			return err
		}
		seen.count(&seen.Looks, time.Since(at), code)
		paid = order.State == "paid"
	}
	return nil
}

func (p *paying) count(kind *served, took time.Duration, code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind.note(took, code)
}

// ask answers the code of a refusal, "no answer" when there is none in time, or ""
// with what was answered in into. An answer that makes no sense is an error.
func (d *cashDesk) ask(ctx context.Context, method, path, token string, into any) (code string, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr+path, nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := d.client.Do(r)
	if err != nil {
		return "no answer", nil
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return "no answer", nil
	}
	if got.StatusCode/100 == 2 {
		return "", json.Unmarshal(text, into)
	}
	var problem struct{ Code string }
	if err := json.Unmarshal(text, &problem); err != nil || problem.Code == "" || got.StatusCode == http.StatusInternalServerError {
		return "", fmt.Errorf("%s %s: %d %s", method, path, got.StatusCode, text)
	}
	return problem.Code, nil
}

// press is the provider's "pay" button.
func (d *cashDesk) press(ctx context.Context, page string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, page, strings.NewReader("action=pay"))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	got, err := d.client.Do(r)
	if err != nil {
		return nil // the order will not be paid, which counts
	}
	defer got.Body.Close()
	if got.StatusCode >= 400 {
		text, _ := io.ReadAll(got.Body) //nolint:errcheck // it is for the message
		return fmt.Errorf("pay at %s: %d %s", page, got.StatusCode, text)
	}
	_, _ = io.Copy(io.Discard, got.Body) // whether it was paid, the order tells
	return nil
}
