// Package sandbox is a payment provider to try a shop against: a real HTTP
// server with a pay page whose buttons also do what goes wrong in the world
// (money that arrives late, twice, in the wrong amount, or without a word),
// and the client that implements payment.Provider.
//
// Server stands for somebody else's system, so it does not forget: every
// change is synced to its journal before it is answered, and after kill -9 it
// goes on with the captures and callbacks that were due. Both sides sign with
// one shared secret (sign.go).
//
// Invariants: a payment is decided by one button, once; a capture is refunded
// at most once; a callback is repeated until it is answered 2xx or its tries
// are used up. It refuses to know orders, stock or the shop's database.
package sandbox

import (
	"cmp"
	"container/heap"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"sluice/internal/payment"
	"sluice/internal/pricing"
)

// Bounds of the server.
const (
	maxPayments   = 1_000_000 // a started payment is kept for good, so starting stops there
	maxBody       = 16 << 10  // bytes of a request
	maxURL        = 2000      // bytes
	maxLate       = 24 * time.Hour
	minSecret     = 16 // bytes
	deliveries    = 64 // callbacks under way at once
	callbackLimit = 5 * time.Second
)

// Options of a Server. Only Secret is needed.
type Options struct {
	Secret []byte           // shared with the client, ≥ 16 bytes
	Now    func() time.Time // default time.Now
	Log    *slog.Logger     // default discards

	// RetryDelays are the pauses between the tries of a callback, so that it is
	// tried len+1 times; default 1, 2, 4, 8, 15, 30, 60 s.
	RetryDelays []time.Duration
	// PublicURL is where browsers reach Handler, without a trailing slash;
	// default http:// and the Host that the merchant called.
	PublicURL string
	// LateDelay is what the pay page offers for "pay late"; default 15 min 5 s,
	// just after the default hold time.
	LateDelay time.Duration
}

var defaultRetryDelays = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second,
	15 * time.Second, 30 * time.Second, time.Minute}

// Server keeps payments. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	now      func() time.Time
	log      *slog.Logger
	callback *http.Client
	stepping sync.Mutex // one Step at a time
	woken    chan struct{}

	mu       sync.Mutex // guards what follows
	journal  *journal
	payments map[string]*record // by our id; a record is replaced, never edited
	tokens   map[string]string  // pay page token → id
	due      jobs
}

// record is all that the provider knows of one payment, and one journal entry.
type record struct {
	ID          string        `json:"id"`
	Token       string        `json:"token"`
	Amount      pricing.Money `json:"amount"`
	Description string        `json:"description"`
	ReturnURL   string        `json:"return_url"`
	CallbackURL string        `json:"callback_url"`
	At          int64         `json:"at"`               // Unix ms
	Action      Action        `json:"action,omitempty"` // the button that decided it
	Captures    []capture     `json:"captures,omitempty"`
	LateAt      int64         `json:"late_at,omitempty"` // when "pay late" captures, Unix ms; 0 = not waiting
	Calls       []call        `json:"calls,omitempty"`   // callbacks not yet delivered
	NextCall    int           `json:"next_call,omitempty"`
}

// capture is money taken; Refund is the id under which it was given back.
type capture struct {
	ID     string        `json:"id"`
	Amount pricing.Money `json:"amount"`
	Refund string        `json:"refund,omitempty"`
}

// call is one callback to deliver: about one capture, or about none after "fail".
type call struct {
	Number  int    `json:"n"`
	Capture string `json:"capture,omitempty"`
	Due     int64  `json:"due"` // Unix ms
	Tries   int    `json:"tries,omitempty"`
}

// Open reads the durable state at path, or begins it. Its directory must exist.
func Open(path string, o Options) (*Server, error) {
	if len(o.Secret) < minSecret {
		return nil, fmt.Errorf("sandbox: secret of %d bytes, want at least %d", len(o.Secret), minSecret)
	}
	if o.PublicURL != "" {
		if err := checkURL("public URL", o.PublicURL); err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RetryDelays == nil {
		o.RetryDelays = defaultRetryDelays
	}
	o.LateDelay = cmp.Or(o.LateDelay, 15*time.Minute+5*time.Second)
	j, records, err := openJournal(path)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &Server{
		options: o, now: o.Now, log: o.Log, journal: j,
		woken:    make(chan struct{}, 1),
		payments: make(map[string]*record, len(records)),
		tokens:   make(map[string]string, len(records)),
		callback: &http.Client{
			Timeout:       callbackLimit,
			Transport:     &http.Transport{MaxIdleConnsPerHost: deliveries, IdleConnTimeout: 30 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	for _, r := range records {
		s.adopt(r)
		s.schedule(r, nil)
	}
	return s, nil
}

// Close ends the journal. Step and the handler fail afterwards.
func (s *Server) Close() error {
	s.callback.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.close()
}

// Woken receives when new work for Step has come up.
func (s *Server) Woken() <-chan struct{} { return s.woken }

// save makes changed records durable, then visible. The caller holds s.mu. A
// failed save changes nothing here and ends all later ones: what the file
// holds is not known any more.
func (s *Server) save(records ...*record) error {
	if err := s.journal.append(records); err != nil {
		return err
	}
	for _, r := range records {
		s.adopt(r)
	}
	return nil
}

func (s *Server) adopt(r *record) {
	s.payments[r.ID] = r
	s.tokens[r.Token] = r.ID
}

// schedule queues r's unfinished work that old did not have yet.
func (s *Server) schedule(r, old *record) {
	known := 0
	if old != nil {
		known = old.NextCall
	}
	if r.LateAt != 0 && (old == nil || old.LateAt == 0) {
		heap.Push(&s.due, job{at: r.LateAt, payment: r.ID, call: lateCapture})
	}
	for _, c := range r.Calls {
		if c.Number >= known {
			heap.Push(&s.due, job{at: c.Due, payment: r.ID, call: c.Number})
		}
	}
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// status is what the provider says of r: all of it.
func (r *record) status() payment.Status {
	st := payment.Status{PaymentID: r.ID, State: payment.Open, Captures: []payment.Capture{}}
	for _, c := range r.Captures {
		st.State = payment.Paid
		st.Captures = append(st.Captures, payment.Capture{ID: c.ID, Amount: c.Amount})
	}
	if r.Action == ActionFail {
		st.State = payment.Failed
	}
	return st
}

// clone is a copy to change and save.
func (r *record) clone() *record {
	c := *r
	c.Captures = append([]capture(nil), r.Captures...)
	c.Calls = append([]call(nil), r.Calls...)
	return &c
}
