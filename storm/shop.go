package storm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// shop is the server under test, seen through its HTTP API: everything but
// the scheduled attempts, which go over wires.
type shop struct {
	client   *fasthttp.Client
	target   string
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
func (a answer) again() bool { return a.status == 503 || a.status == 429 || a.status == 502 }

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
		target: trimSlash(o.Target), ops: trimSlash(o.Ops), opsToken: o.OpsToken,
		activity: "storm-" + run, sku: "storm-" + run,
	}
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

// read makes a call whose answer must be a 2xx document, and decodes it.
func (s *shop) read(method, address string, token []byte, body []byte, into any) error {
	a, err := s.call(method, address, token, body)
	if err != nil {
		return err
	}
	if !a.ok() {
		return fmt.Errorf("%w: %s %s: %s", errAnswer, method, address, a)
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
	if err := s.read("GET", s.target+"/v1/time", nil, nil, &doc); err != nil {
		return 0, err
	}
	took := time.Since(before)
	d := time.UnixMilli(doc.Now).Sub(before.Add(took / 2))
	if d.Abs() <= took+time.Millisecond {
		return 0, nil
	}
	return d, nil
}

// sell creates the SKU and the activity, whose window starts at opens.
func (s *shop) sell(o Options, opens time.Time) error {
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
	money := Money{price, currency}
	post := func(path string, doc any) error {
		body := []byte("{}")
		if doc != nil {
			var err error
			if body, err = json.Marshal(doc); err != nil {
				return err
			}
		}
		return s.read("POST", s.ops+path, []byte(s.opsToken), body, nil)
	}
	if err := post("/v1/skus", map[string]any{
		"id": s.sku, "title": "Storm rehearsal", "description": "Sold by a load test.", "image": "", "price": money,
	}); err != nil {
		return fmt.Errorf("create the SKU: %w", err)
	}
	if err := post("/v1/activities", map[string]any{
		"id": s.activity, "kind": "flash", "title": "Storm rehearsal", "hold_seconds": o.Hold, "per_user": 1,
		"opens_at": stamp(opens), "closes_at": stamp(opens.Add(o.Duration + 2*time.Hour)), "late_payment": "rereserve_or_refund",
		"items": []any{map[string]any{"sku": s.sku, "price": money, "units": o.Stock, "per_user": 1, "per_order": 1}},
	}); err != nil {
		return fmt.Errorf("create the activity: %w", err)
	}
	if err := post("/v1/activities/"+s.activity+"/open", nil); err != nil {
		return fmt.Errorf("open the activity: %w", err)
	}
	return nil
}

// count reads where the units are.
func (s *shop) count() (item, error) {
	var doc struct {
		Counts struct {
			Items []item `json:"items"`
		} `json:"counts"`
	}
	if err := s.read("GET", s.ops+"/v1/activities/"+s.activity, []byte(s.opsToken), nil, &doc); err != nil {
		return item{}, err
	}
	if len(doc.Counts.Items) != 1 {
		return item{}, fmt.Errorf("%w: the activity counts %d items, not 1", errAnswer, len(doc.Counts.Items))
	}
	return doc.Counts.Items[0], nil
}

func (s *shop) proof() (proofReport, error) {
	var p proofReport
	err := s.read("GET", s.ops+"/v1/activities/"+s.activity+"/proof", []byte(s.opsToken), nil, &p)
	return p, err
}

// orders pages through all orders of the activity, newest first.
func (s *shop) orders(each func(Order) error) error {
	const page = 500
	before := ""
	for {
		var doc struct {
			Orders []Order `json:"orders"`
			Next   string  `json:"next"`
		}
		q := url.Values{"activity": {s.activity}, "limit": {strconv.Itoa(page)}}
		if before != "" {
			q.Set("before", before)
		}
		if err := s.read("GET", s.ops+"/v1/orders?"+q.Encode(), []byte(s.opsToken), nil, &doc); err != nil {
			return err
		}
		for _, o := range doc.Orders {
			if err := each(o); err != nil {
				return err
			}
		}
		if doc.Next == "" || len(doc.Orders) == 0 {
			return nil
		}
		if doc.Next == before {
			return fmt.Errorf("%w: the list of orders does not advance past %s", errAnswer, before)
		}
		before = doc.Next
	}
}

// deadLetters reads the events that could not be delivered since lastDead.
func (s *shop) deadLetters() (all []deadLetter, err error) {
	after := s.lastDead
	for {
		var doc struct {
			DeadLetters []deadLetter `json:"dead_letters"`
			Next        string       `json:"next"`
		}
		q := url.Values{"limit": {"500"}}
		if after != "" {
			q.Set("after", after)
		}
		if err := s.read("GET", s.ops+"/v1/dead-letters?"+q.Encode(), []byte(s.opsToken), nil, &doc); err != nil {
			return nil, err
		}
		all = append(all, doc.DeadLetters...)
		if doc.Next == "" || doc.Next == after {
			return all, nil
		}
		after = doc.Next
	}
}

// forgetDead leaves what could not be delivered before the storm out of it.
func (s *shop) forgetDead() error {
	old, err := s.deadLetters()
	if len(old) > 0 {
		s.lastDead = old[len(old)-1].ID
	}
	return err
}

// buy sends a purchase outside the schedule: a second click, a retry, a replay.
func (s *shop) buy(token []byte, key string) (answer, error) {
	return s.call("POST", s.target+"/v1/activities/"+s.activity+"/purchases", token, purchaseBody(s.sku), "Idempotency-Key", key)
}

func (s *shop) order(token []byte, order, action string) (answer, error) {
	if action == "" {
		return s.call("GET", s.target+"/v1/orders/"+order, token, nil)
	}
	return s.call("POST", s.target+"/v1/orders/"+order+action, token, []byte("{}"))
}

// press presses a button of the provider's page. delay is for pay_late, in
// whole seconds.
func (s *shop) press(page string, b button, delay time.Duration) (answer, error) {
	base, err := url.Parse(s.target)
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
