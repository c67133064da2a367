package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/payment"
	"sluice/internal/payment/paymenttest"
	"sluice/internal/pricing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte("sixteen bytes at least")
	price  = pricing.Money{Amount: 129_900, Currency: "CNY"}
)

// bench is a provider on loopback, a merchant that takes its callbacks, and
// one clock for both.
type bench struct {
	t      *testing.T
	path   string
	server *Server
	front  *httptest.Server
	client *Client

	mu       sync.Mutex
	clock    time.Time
	answer   int // what the merchant answers to callbacks
	redirect string
	arrived  []paymenttest.Callback
	merchant *httptest.Server
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "sandbox.journal"), answer: 200,
		clock: time.Date(2025, 6, 18, 12, 0, 0, 0, time.UTC)}
	b.merchant = httptest.NewServer(http.HandlerFunc(b.callback))
	t.Cleanup(b.merchant.Close)
	b.open()
	t.Cleanup(func() {
		b.front.Close()
		b.client.Close()
		if err := b.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.server, err = Open(b.path, Options{Secret: secret, Now: b.now}); err != nil {
		b.t.Fatal(err)
	}
	b.front = httptest.NewServer(b.server.Handler())
	if b.client, err = NewClient(b.front.URL, ClientOptions{Secret: secret, Now: b.now}); err != nil {
		b.t.Fatal(err)
	}
}

// crash drops the provider without any farewell and opens its file again.
func (b *bench) crash() {
	b.t.Helper()
	b.front.Close()
	b.client.Close()
	if err := b.server.journal.file.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.server.callback.CloseIdleConnections()
	b.open()
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clock
}

func (b *bench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock = b.clock.Add(d)
}

func (b *bench) answers(status int, redirect string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer, b.redirect = status, redirect
}

func (b *bench) callback(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrived = append(b.arrived, paymenttest.Callback{Header: r.Header.Clone(), Body: body})
	if b.redirect != "" {
		w.Header().Set("Location", b.redirect)
	}
	w.WriteHeader(b.answer)
}

// callbacks delivers what is due and answers all that has arrived.
func (b *bench) callbacks() []paymenttest.Callback {
	b.t.Helper()
	for worked := true; worked; {
		var err error
		if worked, err = b.server.Step(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.arrived)
}

func (b *bench) start(id string) (payURL string) {
	b.t.Helper()
	payURL, err := b.client.Start(b.t.Context(), payment.StartRequest{
		ID: id, Amount: price, Description: "1 × <b>Cup</b>",
		ReturnURL: "https://shop.example/orders/1?a=b", CallbackURL: b.merchant.URL + "/cb",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return payURL
}

// press posts the form as a machine client and answers status and body.
func (b *bench) press(payURL string, form url.Values) (int, []byte) {
	b.t.Helper()
	return b.do(http.MethodPost, payURL, "application/json", form.Encode())
}

func (b *bench) do(method, target, accept, form string) (int, []byte) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.front.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, body
}

func (b *bench) pay(payURL string) {
	b.t.Helper()
	if code, body := b.press(payURL, url.Values{"action": {"pay"}}); code != 200 {
		b.t.Fatalf("pay: %d %s", code, body)
	}
}

func (b *bench) query(id string) payment.Status {
	b.t.Helper()
	st, err := b.client.Query(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func TestProvider(t *testing.T) {
	paymenttest.Run(t, func(t *testing.T) paymenttest.Bench {
		b := newBench(t)
		return paymenttest.Bench{
			Provider: b.client, CallbackURL: b.merchant.URL,
			Pay:       func(t *testing.T, payURL string) { t.Helper(); b.pay(payURL) },
			Callbacks: func(t *testing.T) []paymenttest.Callback { t.Helper(); return b.callbacks() },
		}
	})
}

// TestButtons presses each button and checks what a query tells, and what the
// callbacks told.
func TestButtons(t *testing.T) {
	f := func(action string, state payment.State, amounts []int64, calls int) {
		t.Helper()
		b := newBench(t)
		payURL := b.start("81-1")
		code, body := b.press(payURL, url.Values{"action": {action}})
		var told payment.Status
		if err := json.Unmarshal(body, &told); code != 200 || err != nil {
			t.Fatalf("%s: %d %s", action, code, body)
		}
		st := b.query("81-1")
		if told.State != st.State || len(told.Captures) != len(st.Captures) {
			t.Errorf("%s answered %+v, query %+v", action, told, st)
		}
		var got []int64
		count := map[string]int{}
		for _, c := range st.Captures {
			got = append(got, c.Amount.Amount)
			count[c.ID] = 0
		}
		if st.State != state || !slices.Equal(got, amounts) {
			t.Errorf("%s: %s with captures of %v, want %s of %v", action, st.State, got, state, amounts)
		}
		arrived := b.callbacks()
		for _, c := range arrived {
			parsed, err := b.client.Parse(c.Header.Get, c.Body)
			if err != nil || parsed.PaymentID != "81-1" || parsed.State != state || len(parsed.Captures) > 1 {
				t.Errorf("%s: callback %s is %+v, %v", action, c.Body, parsed, err)
			}
			for _, taken := range parsed.Captures {
				count[taken.ID]++
			}
		}
		if len(arrived) != calls || len(count) != len(amounts) {
			t.Errorf("%s: %d callbacks about %v, want %d about %d captures", action, len(arrived), count, calls, len(amounts))
		}
		for id, n := range count {
			if n != calls/len(amounts) {
				t.Errorf("%s: %d callbacks about %s", action, n, id)
			}
		}
	}
	f("pay", payment.Paid, []int64{129_900}, 1)
	f("fail", payment.Failed, nil, 1)
	f("pay_late", payment.Open, nil, 0)
	f("never_call_back", payment.Paid, []int64{129_900}, 0)
	f("duplicate", payment.Paid, []int64{129_900, 129_900}, 4)
	f("wrong_amount", payment.Paid, []int64{129_899}, 1)
}

func TestPayLate(t *testing.T) {
	f := func(form url.Values, delay time.Duration) {
		t.Helper()
		b := newBench(t)
		b.press(b.start("82-1"), form)
		b.advance(delay - time.Millisecond)
		if n := len(b.callbacks()); n != 0 || b.query("82-1").State != payment.Open {
			t.Errorf("%v: captured early, %d callbacks", form, n)
		}
		b.advance(time.Millisecond)
		if n := len(b.callbacks()); n != 1 {
			t.Errorf("%v: %d callbacks at %v", form, n, delay)
		}
		if st := b.query("82-1"); st.State != payment.Paid || len(st.Captures) != 1 {
			t.Errorf("%v: %+v", form, st)
		}
	}
	f(url.Values{"action": {"pay_late"}, "seconds": {"7"}}, 7*time.Second)
	f(url.Values{"action": {"pay_late"}}, 905*time.Second)
}

func TestPressRefused(t *testing.T) {
	b := newBench(t)
	payURL := b.start("83-1")
	f := func(target string, form url.Values, want int, code string) {
		t.Helper()
		status, body := b.press(target, form)
		var p problem
		if err := json.Unmarshal(body, &p); status != want || err != nil || p.Code != code {
			t.Errorf("%v: %d %s, want %d %s", form, status, body, want, code)
		}
	}
	f(payURL, url.Values{}, 400, "invalid_request")
	f(payURL, url.Values{"action": {"steal"}}, 400, "invalid_request")
	f(payURL, url.Values{"action": {"pay_late"}, "seconds": {"-1"}}, 400, "invalid_request")
	f(payURL, url.Values{"action": {"pay_late"}, "seconds": {"86401"}}, 400, "invalid_request")
	f(payURL, url.Values{"action": {"pay_late"}, "seconds": {"1e3"}}, 400, "invalid_request")
	f(payURL, url.Values{"action": {"pay"}, "x": {strings.Repeat("x", maxBody)}}, 413, "too_large")
	f(payURL+"x", url.Values{"action": {"pay"}}, 404, "no_such_payment")
	if st := b.query("83-1"); st.State != payment.Open {
		t.Fatalf("a refused press changed the payment: %+v", st)
	}
	b.pay(payURL)
	b.pay(payURL) // a double click
	f(payURL, url.Values{"action": {"fail"}}, 409, "already_decided")
	if st := b.query("83-1"); st.State != payment.Paid || len(st.Captures) != 1 {
		t.Errorf("after further presses: %+v", st)
	}
}

// TestCrash ends the provider without warning between all steps of a payment.
func TestCrash(t *testing.T) {
	b := newBench(t)
	payPath := strings.TrimPrefix(b.start("84-1"), b.front.URL)
	b.crash()
	if again := strings.TrimPrefix(b.start("84-1"), b.front.URL); again != payPath {
		t.Errorf("pay page moved from %s to %s", payPath, again)
	}
	b.answers(500, "")
	b.press(b.front.URL+payPath, url.Values{"action": {"duplicate"}})
	b.press(b.start("84-2"), url.Values{"action": {"pay_late"}, "seconds": {"3"}})
	b.crash()
	before := b.query("84-1")
	if len(before.Captures) != 2 {
		t.Fatalf("captures after a crash: %+v", before)
	}
	if n := len(b.callbacks()); n != 4 {
		t.Errorf("%d callbacks tried after a crash, want 4", n)
	}
	taken := before.Captures[0]
	refund := payment.RefundRequest{ID: "84-1-r1", PaymentID: "84-1", CaptureID: taken.ID, Amount: taken.Amount}
	if _, err := b.client.Refund(t.Context(), refund); err != nil {
		t.Fatal(err)
	}
	b.crash()
	if _, err := b.client.Refund(t.Context(), refund); err != nil {
		t.Errorf("the same refund after a crash: %v", err)
	}
	refund.ID = "84-1-r2"
	if _, err := b.client.Refund(t.Context(), refund); !errors.Is(err, payment.ErrRefused) {
		t.Errorf("the same money again after a crash: %v", err)
	}
	b.answers(200, "")
	b.advance(3 * time.Second) // the second try of four, and the late capture
	if n := len(b.callbacks()); n != 4+4+1 {
		t.Errorf("%d callbacks in all, want 9", n)
	}
	b.crash()
	b.advance(time.Hour)
	if n := len(b.callbacks()); n != 9 {
		t.Errorf("%d callbacks after all were delivered, want 9", n)
	}
	if st := b.query("84-2"); st.State != payment.Paid {
		t.Errorf("late payment: %+v", st)
	}
}

func TestRetries(t *testing.T) {
	b := newBench(t)
	b.answers(503, "")
	b.pay(b.start("85-1"))
	for i, pause := range defaultRetryDelays {
		if n := len(b.callbacks()); n != i+1 {
			t.Fatalf("%d tries before pause %d", n, i)
		}
		b.advance(pause - time.Millisecond)
		if n := len(b.callbacks()); n != i+1 {
			t.Errorf("try %d came before %v", n, pause)
		}
		b.advance(time.Millisecond)
	}
	last := b.callbacks()
	if len(last) != 8 {
		t.Fatalf("%d tries, want 8", len(last))
	}
	// Every try is signed anew, so the last is not too old.
	if _, err := b.client.Parse(last[7].Header.Get, last[7].Body); err != nil {
		t.Errorf("last try: %v", err)
	}
	b.advance(24 * time.Hour)
	if n := len(b.callbacks()); n != 8 {
		t.Errorf("%d tries after giving up", n)
	}
}

func TestRedirectNotFollowed(t *testing.T) {
	b := newBench(t)
	b.answers(307, b.merchant.URL+"/elsewhere")
	b.pay(b.start("86-1"))
	if n := len(b.callbacks()); n != 1 {
		t.Errorf("%d requests, want the one that was redirected", n)
	}
	b.answers(204, "")
	b.advance(time.Second)
	if n := len(b.callbacks()); n != 2 {
		t.Errorf("%d requests: a redirect must count as a failure", n)
	}
}

func TestParseTooOld(t *testing.T) {
	b := newBench(t)
	b.pay(b.start("87-1"))
	c := b.callbacks()[0]
	f := func(age time.Duration, want error) {
		t.Helper()
		b.advance(age)
		if _, err := b.client.Parse(c.Header.Get, c.Body); !errors.Is(err, want) {
			t.Errorf("at %v: %v, want %v", age, err, want)
		}
		b.advance(-age)
	}
	f(0, nil)
	f(5*time.Minute, nil)
	f(5*time.Minute+time.Millisecond, payment.ErrForged)
	f(-5*time.Minute-time.Millisecond, payment.ErrForged)
}

func TestParseMalformed(t *testing.T) {
	c, err := NewClient("http://127.0.0.1:1", ClientOptions{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	capture := `{"id":"c1","amount":{"amount":5,"currency":"CNY"}}`
	f := func(body string, want error) {
		t.Helper()
		h := http.Header{}
		sign(h, secret, callbackPurpose, time.Now(), []byte(body))
		if _, err := c.Parse(h.Get, []byte(body)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	f(`{"payment":"1-1","state":"paid","captures":[`+capture+`]}`, nil)
	f(`{"payment":"1-1","state":"failed","captures":[]}`, nil)
	bad := func(body string) { t.Helper(); f(body, payment.ErrMalformed) }
	bad(``)
	bad(`null`)
	bad(`[]`)
	bad(`{"payment":"1-1","state":"failed","captures":[]} {}`)
	bad(`{"payment":"1-1","state":"failed","captures":[],"more":1}`)
	bad(`{"payment":"","state":"failed","captures":[]}`)
	bad(`{"payment":"1-1","state":"gone","captures":[]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[]}`)
	bad(`{"payment":"1-1","state":"failed","captures":[` + capture + `]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[` + capture + `,` + capture + `]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[{"id":"c1","amount":{"amount":-5,"currency":"CNY"}}]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[{"id":"c1","amount":{"amount":0,"currency":"CNY"}}]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[{"id":"c1","amount":{"amount":5,"currency":"yuan"}}]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[{"id":"c1","amount":{"amount":5.5,"currency":"CNY"}}]}`)
	bad(`{"payment":"1-1","state":"paid","captures":[{"id":"","amount":{"amount":5,"currency":"CNY"}}]}`)
	var many []string
	for i := range payment.MaxCaptures + 1 {
		many = append(many, strings.Replace(capture, "c1", "c"+string(rune('1'+i)), 1))
	}
	f(`{"payment":"1-1","state":"paid","captures":[`+strings.Join(many[1:], ",")+`]}`, nil)
	bad(`{"payment":"1-1","state":"paid","captures":[` + strings.Join(many, ",") + `]}`)
}

// TestPurpose shows that what was signed for one use is refused for another.
func TestPurpose(t *testing.T) {
	b := newBench(t)
	body := []byte(`{"payment":"88-1","state":"failed","captures":[]}`)
	h := http.Header{}
	sign(h, secret, "POST /v1/payments", b.now(), body)
	if _, err := b.client.Parse(h.Get, body); !errors.Is(err, payment.ErrForged) {
		t.Errorf("a request's signature on a callback: %v", err)
	}
	req := func(purpose string, at time.Time) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.front.URL+"/v1/payments/88-1", nil)
		if err != nil {
			t.Fatal(err)
		}
		sign(r.Header, secret, purpose, at, nil)
		resp, err := b.front.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	b.start("88-1")
	f := func(purpose string, at time.Time, want int) {
		t.Helper()
		if got := req(purpose, at); got != want {
			t.Errorf("signed for %q at %v: %d, want %d", purpose, at, got, want)
		}
	}
	f("GET /v1/payments/88-1", b.now(), 200)
	f("GET /v1/payments/88-2", b.now(), 401)
	f("callback", b.now(), 401)
	f("GET /v1/payments/88-1", b.now().Add(-6*time.Minute), 401)
}

// TestClientErrors answers the client with whatever a network may answer.
func TestClientErrors(t *testing.T) {
	var status int
	var body string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(front.Close)
	c, err := NewClient(front.URL, ClientOptions{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	f := func(s int, b string, want error) {
		t.Helper()
		status, body = s, b
		if _, err := c.Query(t.Context(), "1-1"); !errors.Is(err, want) {
			t.Errorf("%d %s: %v, want %v", s, b, err, want)
		}
	}
	f(200, `{"payment":"1-1","state":"open","captures":[]}`, nil)
	f(200, `{"payment":"1-2","state":"open","captures":[]}`, payment.ErrProvider)
	f(200, `{"payment":"1-1","state":"paid","captures":[]}`, payment.ErrProvider)
	f(200, `<html>`, payment.ErrProvider)
	f(302, ``, payment.ErrProvider)
	f(404, `{"code":"no_such_payment"}`, payment.ErrNoSuchPayment)
	f(404, `not found`, payment.ErrProvider)
	f(401, `{"code":"unauthenticated"}`, payment.ErrProvider)
	f(400, `{"code":"invalid_request"}`, payment.ErrRefused)
	f(409, `{"code":"conflict"}`, payment.ErrRefused)
	f(422, `{"code":"not_refundable"}`, payment.ErrRefused)
	f(429, ``, payment.ErrProvider)
	f(500, `{"code":"invalid_request"}`, payment.ErrProvider)
	f(503, ``, payment.ErrProvider)
	front.Close()
	f(200, ``, payment.ErrProvider)
}

func TestOpenRefuses(t *testing.T) {
	if s, err := Open(filepath.Join(t.TempDir(), "j"), Options{Secret: []byte("short")}); err == nil {
		t.Error("short secret accepted", s.Close())
	}
	if s, err := Open(filepath.Join(t.TempDir(), "j"), Options{Secret: secret, PublicURL: "javascript:x"}); err == nil {
		t.Error("bad public URL accepted", s.Close())
	}
	if _, err := NewClient("ftp://x", ClientOptions{Secret: secret}); err == nil {
		t.Error("bad base accepted")
	}
	if _, err := NewClient("http://127.0.0.1:1", ClientOptions{}); err == nil {
		t.Error("client without a secret")
	}
}

// TestJournal cuts and damages a journal at every byte: a torn last line is
// dropped, damage before it is refused, and nothing is ever read wrong.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := [][]*record{
		{{ID: "1-1", Token: "a"}},
		{{ID: "1-2", Token: "b"}, {ID: "1-1", Token: "a", Action: ActionPay}},
		{{ID: "1-3", Token: "c"}},
	}
	ends := []int{0}
	for _, l := range lines {
		if err := j.append(l); err != nil {
			t.Fatal(err)
		}
		whole, _ := os.ReadFile(path)
		ends = append(ends, len(whole))
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if err := j.append(lines[0]); err == nil {
		t.Error("a closed journal took a record")
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(content []byte) (map[string]Action, error) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, records, err := openJournal(path)
		if err != nil {
			return nil, err
		}
		got := make(map[string]Action)
		for _, r := range records {
			got[r.ID] = r.Action
		}
		return got, j.close()
	}
	want := []map[string]Action{{}, {"1-1": ""}, {"1-1": ActionPay, "1-2": ""}, {"1-1": ActionPay, "1-2": "", "1-3": ""}}
	for cut := range len(whole) + 1 {
		complete := 0
		for complete < 3 && ends[complete+1] <= cut {
			complete++
		}
		got, err := reopen(whole[:cut])
		if err != nil || !maps.Equal(got, want[complete]) {
			t.Errorf("cut at %d: %v, %v, want %v", cut, got, err, want[complete])
		}
		if left, _ := os.ReadFile(path); len(left) != ends[complete] {
			t.Errorf("cut at %d: %d bytes kept, want %d", cut, len(left), ends[complete])
		}
	}
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		got, err := reopen(damaged)
		switch {
		case at < ends[2] && err == nil:
			t.Errorf("damage at %d of %d went unseen: %v", at, len(whole), got)
		case err == nil && !maps.Equal(got, want[2]):
			t.Errorf("damage at %d read as %v", at, got)
		}
	}
}

// TestRewrite: a journal of many versions of few payments shrinks when opened.
func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		if err := j.append([]*record{{ID: "1-1", Token: "a", At: int64(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	for range 2 {
		j, records, err := openJournal(path)
		if err != nil || len(records) != 1 || records[0].At != 149 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		if err := j.append([]*record{{ID: "1-1", Token: "a", At: 149}}); err != nil {
			t.Fatal(err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.Stat(path); after.Size()*10 > before.Size() {
		t.Errorf("%d bytes, before %d", after.Size(), before.Size())
	}
}
