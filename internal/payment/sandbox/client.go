package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/internal/payment"
	"sluice/internal/pricing"
)

// Client is the merchant's side: a payment.Provider that calls a Server.
type Client struct {
	base   string
	secret []byte
	now    func() time.Time
	http   *http.Client
}

// ClientOptions of a Client. Only Secret is needed.
type ClientOptions struct {
	Secret  []byte           // the Server's
	Now     func() time.Time // default time.Now
	Timeout time.Duration    // of one call, repetitions included; default 5 s
	// Transport makes the calls; default one of its own. It may repeat a call that
	// is idempotent by its method or has an Idempotency-Key, and wraps
	// payment.ErrAway when it has made none.
	Transport http.RoundTripper
}

var _ payment.Provider = (*Client)(nil)

// NewClient calls the Server whose Handler is at base, an http or https URL.
func NewClient(base string, o ClientOptions) (*Client, error) {
	if err := checkURL("provider URL", base); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if len(o.Secret) < minSecret {
		return nil, fmt.Errorf("sandbox: secret of %d bytes, want at least %d", len(o.Secret), minSecret)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second}
	}
	return &Client{
		base: strings.TrimRight(base, "/"), secret: o.Secret, now: o.Now,
		http: &http.Client{
			Timeout:       cmp.Or(o.Timeout, 5*time.Second),
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Name is "sandbox".
func (c *Client) Name() string { return "sandbox" }

// startBody, startReply and the others are the bodies of the merchant API.
type startBody struct {
	ID          string        `json:"id"`
	Amount      pricing.Money `json:"amount"`
	Description string        `json:"description"`
	ReturnURL   string        `json:"return_url"`
	CallbackURL string        `json:"callback_url"`
}

type startReply struct {
	PayURL string `json:"pay_url"`
}

type refundBody struct {
	ID      string        `json:"id"`
	Capture string        `json:"capture"`
	Amount  pricing.Money `json:"amount"`
}

type refundReply struct {
	State payment.RefundState `json:"state"`
}

// Start implements payment.Provider.
func (c *Client) Start(ctx context.Context, r payment.StartRequest) (string, error) {
	var reply startReply
	body := startBody{ID: r.ID, Amount: r.Amount, Description: r.Description, ReturnURL: r.ReturnURL, CallbackURL: r.CallbackURL}
	if err := c.call(ctx, http.MethodPost, "/v1/payments", r.ID, body, &reply); err != nil {
		return "", fmt.Errorf("start payment %s: %w", r.ID, err)
	}
	if err := checkURL("pay_url", reply.PayURL); err != nil {
		return "", fmt.Errorf("start payment %s: %w: %w", r.ID, payment.ErrProvider, err)
	}
	return reply.PayURL, nil
}

// Query implements payment.Provider.
func (c *Client) Query(ctx context.Context, paymentID string) (payment.Status, error) {
	var st payment.Status
	if err := c.call(ctx, http.MethodGet, "/v1/payments/"+url.PathEscape(paymentID), "", nil, &st); err != nil {
		return payment.Status{}, fmt.Errorf("query payment %s: %w", paymentID, err)
	}
	if err := checkStatus(st); err != nil || st.PaymentID != paymentID {
		return payment.Status{}, fmt.Errorf("query payment %s: %w: %w", paymentID, payment.ErrProvider, cmp.Or(err, errors.New("answer is about another payment")))
	}
	return st, nil
}

// Refund implements payment.Provider. A refund of an unknown payment is final.
func (c *Client) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundState, error) {
	var reply refundReply
	path := "/v1/payments/" + url.PathEscape(r.PaymentID) + "/refunds"
	err := c.call(ctx, http.MethodPost, path, r.ID, refundBody{ID: r.ID, Capture: r.CaptureID, Amount: r.Amount}, &reply)
	if errors.Is(err, payment.ErrNoSuchPayment) {
		err = fmt.Errorf("%w: %w", payment.ErrRefused, err)
	}
	if err != nil {
		return "", fmt.Errorf("refund %s: %w", r.ID, err)
	}
	if reply.State != payment.RefundDone && reply.State != payment.RefundPending {
		return "", fmt.Errorf("refund %s: %w: state %q", r.ID, payment.ErrProvider, reply.State)
	}
	return reply.State, nil
}

// call sends a signed request and decodes a 2xx answer. key, if not "", says that
// the server does it once however often it comes: payments and refunds are known
// to it by our ids. Only a refusal in the
// provider's own words is final: a 404 from a proxy or a wrong address must
// not count as "no such payment", nor a clock that is off as a refused refund.
func (c *Client) call(ctx context.Context, method, path, key string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%w: %w", payment.ErrRefused, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", payment.ErrRefused, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Accept", "application/json")
	sign(req.Header, c.secret, method+" "+path, c.now(), body)
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", payment.ErrProvider, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("%w: %w", payment.ErrProvider, err)
	}
	if resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(answer, out); err != nil {
			return fmt.Errorf("%w: answer: %w", payment.ErrProvider, err)
		}
		return nil
	}
	var refusal problem
	_ = json.Unmarshal(answer, &refusal) // not the provider's words if it fails: no code
	return fmt.Errorf("%w: status %d %s %s", refusal.sentinel(resp.StatusCode), resp.StatusCode, refusal.Code, refusal.Detail)
}

// sentinel says what a refusal means to the merchant.
func (p problem) sentinel(status int) error {
	switch {
	case p.Code == codeNoPayment && status == http.StatusNotFound:
		return payment.ErrNoSuchPayment
	case status/100 == 4 && (p.Code == codeInvalid || p.Code == codeConflict || p.Code == codeNoRefund):
		return payment.ErrRefused
	default:
		return payment.ErrProvider
	}
}

// Parse implements payment.Provider. A signature more than 5 min old is
// ErrForged, as a genuine callback is signed anew at each try.
func (c *Client) Parse(header func(name string) string, body []byte) (payment.Status, error) {
	if !genuine(header, c.secret, callbackPurpose, c.now(), body) {
		return payment.Status{}, payment.ErrForged
	}
	var st payment.Status
	if err := decodeStrict(body, &st); err != nil {
		return payment.Status{}, fmt.Errorf("%w: %w", payment.ErrMalformed, err)
	}
	if err := checkStatus(st); err != nil {
		return payment.Status{}, fmt.Errorf("%w: %w", payment.ErrMalformed, err)
	}
	return st, nil
}

// checkStatus names the first thing that a provider would not say.
func checkStatus(st payment.Status) error {
	if !idForm.MatchString(st.PaymentID) {
		return errors.New("payment is not an id")
	}
	if st.State != payment.Open && st.State != payment.Paid && st.State != payment.Failed {
		return fmt.Errorf("state %.32q is unknown", st.State)
	}
	if (st.State == payment.Paid) != (len(st.Captures) > 0) {
		return fmt.Errorf("%s with %d captures", st.State, len(st.Captures))
	}
	if len(st.Captures) > payment.MaxCaptures {
		return fmt.Errorf("%d captures, at most %d", len(st.Captures), payment.MaxCaptures)
	}
	seen := make(map[string]bool, len(st.Captures))
	for _, capture := range st.Captures {
		if len(capture.ID) < 1 || len(capture.ID) > 64 || seen[capture.ID] {
			return errors.New("capture ids must be distinct and 1..64 bytes")
		}
		seen[capture.ID] = true
		if err := capture.Amount.Validate(); err != nil {
			return err
		}
		if capture.Amount.Amount == 0 {
			return fmt.Errorf("capture %s of nothing", capture.ID)
		}
	}
	return nil
}

// decodeStrict reads one JSON value with known fields only and nothing after it.
func decodeStrict(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}
