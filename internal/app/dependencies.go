package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"sluice/internal/console"
	"sluice/internal/lib/call"
	"sluice/internal/payment"
)

// dependency is something outside that this process calls.
type dependency struct {
	name string
	*call.Dependency
	unmade [len(unmadeBy)]atomic.Uint64
}

// unmadeBy are the reasons for which a call is not made.
var unmadeBy = [...]struct {
	err  error
	name string
}{{call.ErrOpen, "open"}, {call.ErrFull, "full"}, {call.ErrNoTime, "no_time"}}

// Bounds of calling a payment provider. A call as a whole has the 5 s that the
// cashier gives it.
const (
	// paymentPlaces are one for each shopper whose payment may be started at a time
	// (64), and one for each hand of the order keeper (8): shoppers who hang at a
	// slow provider must not keep the keeper from asking.
	paymentPlaces  = 64 + 8
	paymentTimeout = 4 * time.Second        // of one attempt
	paymentSlow    = 2 * time.Second        // shoppers have given up by then
	paymentNeeds   = 500 * time.Millisecond // less time is not worth another attempt
)

// paymentOptions are how a payment provider is called. A shop takes few payments
// a second compared with what it refuses: ten calls are enough to judge by.
func paymentOptions() call.Options {
	return call.Options{
		Name:     "payment",
		Timeout:  paymentTimeout,
		Breaker:  call.BreakerOptions{MinCalls: 10, Slow: paymentSlow},
		Bulkhead: call.BulkheadOptions{InFlight: paymentPlaces, Waiting: 8, MaxWait: 250 * time.Millisecond},
		Retry:    call.RetryOptions{Needs: paymentNeeds},
	}
}

// reach makes the dependency that is the payment provider, and the way to it.
func (e *engine) reach(o call.Options) (http.RoundTripper, error) {
	d, err := newDependency(o, e.log)
	if err != nil {
		return nil, err
	}
	e.dependencies = append(e.dependencies, d)
	return d.toProvider()
}

// outside is all that this process calls, as operators see it.
func (e *engine) outside() []console.Dependency {
	all := make([]console.Dependency, len(e.dependencies))
	for i, d := range e.dependencies {
		all[i] = console.Dependency{Name: d.name, Breaker: d.Breaker, Bulkhead: d.Bulkhead, Refused: d.refused}
	}
	return all
}

// newDependency logs every change of state, once.
func newDependency(o call.Options, log *slog.Logger) (*dependency, error) {
	o.Breaker.Changed = func(c call.Change) {
		level := slog.LevelWarn
		if c.To == call.Closed {
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "circuit "+c.To.String(), "dependency", o.Name, "was", c.From.String(), "why", c.Why)
	}
	through, err := call.NewDependency(o)
	if err != nil {
		return nil, err
	}
	return &dependency{name: o.Name, Dependency: through}, nil
}

// refused counts the calls that were not made, by reason.
func (d *dependency) refused() map[string]uint64 {
	all := make(map[string]uint64, len(unmadeBy))
	for i, by := range unmadeBy {
		all[by.name] = d.unmade[i].Load()
	}
	return all
}

// toProvider carries calls to a payment provider through its dependency. The
// provider's client knows nothing of breakers: it is told ErrAway when it has not
// been asked.
type toProvider struct {
	*call.Transport
	of *dependency
}

func (d *dependency) toProvider() (http.RoundTripper, error) {
	t, err := call.NewTransport(d.Dependency, call.TransportOptions{})
	return toProvider{t, d}, err
}

// RoundTrip implements http.RoundTripper.
func (t toProvider) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if err == nil || !call.Refused(err) {
		return resp, err
	}
	for i, by := range unmadeBy {
		if errors.Is(err, by.err) {
			t.of.unmade[i].Add(1)
			break
		}
	}
	return nil, fmt.Errorf("%w: %w", payment.ErrAway, err)
}
