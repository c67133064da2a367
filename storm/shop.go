package storm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// shop is the server under test, seen through its HTTP API: everything but
// the scheduled attempts, which go over wires.
type shop struct {
	client   *fasthttp.Client
	targets  []string // gateways, or a front of them
	turn     atomic.Uint64
	ops      string
	opsToken string
	activity string
	sku      string
	lastDead string // the newest dead letter from before the storm
}

// price of the one thing on sale, in minor units of currency.
const (
	price    = 1999
	currency = "EUR"
)

// Receipt is the server's answer to an accepted purchase.
type Receipt struct {
	Reservation string `json:"reservation"`
	Order       string `json:"order"`
	State       string `json:"state"`
	ExpiresAt   string `json:"expires_at"`
	Total       Money  `json:"total"`
}

// Money is an amount in minor units and its currency.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// Order is an order as the ops API, or an OrderReader, tells it.
type Order struct {
	ID          string `json:"id"`
	Reservation string `json:"reservation"`
	Activity    string `json:"activity"`
	User        string `json:"user"`
	Key         string `json:"key"` // may be empty: then the audit goes by the user
	State       string `json:"state"`
	Reason      string `json:"reason"`
	ExpiresAt   string `json:"expires_at"`
	Total       Money  `json:"total"`
	LateOf      string `json:"late_of"`     // the payment whose late money paid this order
	ReplacedBy  string `json:"replaced_by"` // the order that this order's late money paid

	Captures []Capture `json:"captures"` // not from an OrderReader
	Refunds  []Refund  `json:"refunds"`  // not from an OrderReader
}

// Capture is money that arrived for an order. Pays is the order that it pays;
// empty means that it is to be given back.
type Capture struct {
	ID     string `json:"id"`
	Amount Money  `json:"amount"`
	Pays   string `json:"pays"`
}

// Refund gives one capture back.
type Refund struct {
	ID      string `json:"id"`
	Capture string `json:"capture"`
	Amount  Money  `json:"amount"`
	Reason  string `json:"reason"`
	State   string `json:"state"` // requested, done, stuck
}

// shownOrder is what its owner sees of an order.
type shownOrder struct {
	State      string `json:"state"`
	Total      Money  `json:"total"`
	ReplacedBy string `json:"replaced_by"`
	Refunded   struct {
		Money
		State string `json:"state"` // pending, done
	} `json:"refunded"`
}

// deadLetter is an event that the server could not deliver.
type deadLetter struct {
	ID       string `json:"id"`
	Key      string `json:"key"`
	Topic    string `json:"topic"`
	Attempts int    `json:"attempts"`
	Reason   string `json:"reason"`
}

// OrderReader reads the store's own rows of an activity, for an audit that
// does not trust the API.
type OrderReader interface {
	Orders(activity string, each func(Order) error) error
}

// item is where the units of the SKU are, at one log position.
type item struct {
	SKU       string `json:"sku"`
	Allocated int    `json:"allocated"`
	Free      int    `json:"free"`
	Held      int    `json:"held"`
	Confirmed int    `json:"confirmed"`
	InTransit int    `json:"in_transit"`
	Returned  int    `json:"returned"`
	Level     string `json:"level"`
}

// proofReport is the part of the server's own proof that the audit uses.
type proofReport struct {
	OK         bool           `json:"ok"`
	Violations []string       `json:"violations"`
	Incomplete []int          `json:"incomplete"` // buckets that were not compared lately
	Ledger     []item         `json:"ledger"`
	Orders     map[string]int `json:"orders"`
	Payments   struct {
		Captured int64 `json:"captured"`
		Refunded int64 `json:"refunded"`
		Owed     int64 `json:"owed"`
	} `json:"payments"`
}

// answer of any call. It owns its body.
type answer struct {
	status int
	body   []byte
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

// again says that the server could not answer now and that nothing follows from it.
func (a answer) again() bool { return a.away() || a.status == 429 }

// away says that the server, or one that a front asked, was not there to answer.
func (a answer) away() bool { return a.status >= 502 && a.status <= 504 }

func (a answer) String() string {
	return fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.body[:min(len(a.body), 200)]))
}

// errAnswer wraps every answer that a call cannot go on with.
var errAnswer = errors.New("unexpected answer")

func newShop(o Options, run string) *shop {
	return &shop{
		client: &fasthttp.Client{
			MaxConnsPerHost: 2*o.Connections + 16, MaxConnWaitTimeout: replyTimeout, MaxResponseBodySize: 64 << 20,
			// A call that failed is repeated by its user, if at all: the oracle must know of every one.
			MaxIdemponentCallAttempts: 1,
			RetryIfErr:                func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
			NoDefaultUserAgentHeader:  true,
		},
		targets: o.targets(), ops: trimSlash(o.Ops), opsToken: o.OpsToken,
		activity: "storm-" + run, sku: "storm-" + run,
	}
}

// at is the gateway for the next call. Calls go to each in turn, so a user who
// repeats one meets another gateway.
func (s *shop) at() string {
	return s.targets[s.turn.Add(1)%uint64(len(s.targets))]
}

func trimSlash(s string) string { return string(bytes.TrimRight([]byte(s), "/")) }

// call makes one request. body nil is none; headers are pairs.
func (s *shop) call(method, address string, token []byte, body []byte, headers ...string) (answer, error) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(address)
	req.Header.SetMethod(method)
	req.Header.Set("Accept", "application/json")
	if len(token) > 0 {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	if body != nil {
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if err := s.client.DoTimeout(req, resp, replyTimeout); err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", method, address, err)
	}
	return answer{resp.StatusCode(), append([]byte(nil), resp.Body()...)}, nil
}

func errorOf(method, address string, a answer) error {
	return fmt.Errorf("%w: %s %s: %s", errAnswer, method, address, a)
}

// read makes a call whose answer must be a 2xx document, and decodes it.
func (s *shop) read(method, address string, token []byte, body []byte, into any) error {
	a, err := s.call(method, address, token, body)
	if err != nil {
		return err
	}
	if !a.ok() {
		return errorOf(method, address, a)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("%w: %s %s: %w", errAnswer, method, address, err)
	}
	return nil
}

// ahead is how far the server's clock is ahead of this one. Less than the
// call took is nothing.
func (s *shop) ahead() (time.Duration, error) {
	var doc struct {
		Now int64 `json:"now"` // ms
	}
	before := time.Now()
	if err := s.read("GET", s.at()+"/v1/time", nil, nil, &doc); err != nil {
		return 0, err
	}
	took := time.Since(before)
	d := time.UnixMilli(doc.Now).Sub(before.Add(took / 2))
	if d.Abs() <= took+time.Millisecond {
		return 0, nil
	}
	return d, nil
}

// buy sends a purchase outside the schedule: a second click, a retry, a replay.
func (s *shop) buy(token []byte, key string) (answer, error) {
	return s.call("POST", s.at()+"/v1/activities/"+s.activity+"/purchases", token, purchaseBody(s.sku), "Idempotency-Key", key)
}

func (s *shop) order(token []byte, order, action string) (answer, error) {
	if action == "" {
		return s.call("GET", s.at()+"/v1/orders/"+order, token, nil)
	}
	return s.call("POST", s.at()+"/v1/orders/"+order+action, token, []byte("{}"))
}

func (s *shop) reservation(token []byte, reservation string) (answer, error) {
	return s.call("GET", s.at()+"/v1/reservations/"+reservation, token, nil)
}

// press presses a button of the provider's page. delay is for pay_late, in
// whole seconds.
func (s *shop) press(page string, b button, delay time.Duration) (answer, error) {
	base, err := url.Parse(s.at())
	if err != nil {
		return answer{}, err
	}
	at, err := base.Parse(page)
	if err != nil {
		return answer{}, fmt.Errorf("pay_url %q: %w", page, err)
	}
	form := "action=" + string(b)
	if b == buttonLate {
		form += "&seconds=" + strconv.Itoa(int(delay/time.Second))
	}
	return s.call("POST", at.String(), nil, []byte(form), "Content-Type", "application/x-www-form-urlencoded")
}
