package call_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/call"
)

// wire is an http.RoundTripper that is told what to answer: in synctest's
// bubble there is no network.
type wire func(*http.Request) (*http.Response, error)

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) { return w(r) }

func answer(code int, body string, fields ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func client(t testing.TB, d *call.Dependency, o call.TransportOptions) *http.Client {
	t.Helper()
	transport, err := call.NewTransport(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

// patient retries for two minutes without jitter.
func patient(t testing.TB) *call.Dependency {
	t.Helper()
	return dependency(t, call.Options{Timeout: time.Second, Random: func() float64 { return 0 }, Retry: call.RetryOptions{
		Patience: 2 * time.Minute, Budget: budget(t, call.BudgetOptions{PerSecond: 10}),
	}})
}

// TestTransportRetries gives each attempt its status and Retry-After, and says
// when attempts began, in seconds.
func TestTransportRetries(t *testing.T) {
	f := func(method, key string, answers []string, want []int, wantCode int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			codes := map[string]int{"ok": 200, "declined": 402, "unknown": 404, "late": 408, "much": 429, "down": 503, "bug": 500, "never": 501}
			var began []int
			c := client(t, patient(t), call.TransportOptions{Base: wire(func(r *http.Request) (*http.Response, error) {
				began = append(began, int(time.Since(start).Seconds()))
				if r.Body != nil {
					if body, err := io.ReadAll(r.Body); err != nil || string(body) != "coins" {
						t.Errorf("attempt %d has body %q: %v", len(began), body, err)
					}
				}
				name, after, _ := strings.Cut(answers[len(began)-1], " ")
				if after == "date" {
					after = time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
				}
				return answer(codes[name], name, "Retry-After", after), nil
			})})
			req, err := http.NewRequestWithContext(t.Context(), method, "http://bank.test/", strings.NewReader("coins"))
			if err != nil {
				t.Fatal(err)
			}
			if key != "" {
				req.Header.Set("Idempotency-Key", key)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != wantCode || codes[string(body)] != wantCode {
				t.Errorf("answer %d %q, want %d", resp.StatusCode, body, wantCode)
			}
			if !slices.Equal(began, want) {
				t.Errorf("attempts after %v seconds, want %v", began, want)
			}
		})
	}
	f("GET", "", []string{"ok"}, []int{0}, 200)
	f("GET", "", []string{"down 7", "much 60", "ok"}, []int{0, 7, 67}, 200)
	f("PUT", "", []string{"down date", "ok"}, []int{0, 60}, 200)
	f("DELETE", "", []string{"bug", "late", "down"}, []int{0, 0, 0}, 503)
	f("GET", "", []string{"down 99999999999999999", "ok"}, []int{0}, 503)
	f("GET", "", []string{"down soon", "ok"}, []int{0, 0}, 200)
	f("GET", "", []string{"unknown"}, []int{0}, 404)
	f("GET", "", []string{"declined"}, []int{0}, 402)
	f("GET", "", []string{"never"}, []int{0}, 501)
	f("POST", "", []string{"down 7"}, []int{0}, 503) // it might have been done
	f("POST", "k1", []string{"down 7", "ok"}, []int{0, 7}, 200)
}

// TestTransportBodyOnce has a request whose body cannot be had again.
func TestTransportBodyOnce(t *testing.T) {
	attempts := 0
	c := client(t, patient(t), call.TransportOptions{Base: wire(func(*http.Request) (*http.Response, error) {
		attempts++
		return nil, errDown
	})})
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://bank.test/", io.MultiReader(strings.NewReader("coins")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(req); !errors.Is(err, errDown) || attempts != 1 {
		t.Errorf("%v after %d attempts", err, attempts)
	}
}

// TestTransportServer meets a real server: one that answers, one that answers
// for ever, one that stops in the middle, one that does not answer.
func TestTransportServer(t *testing.T) {
	var hits atomic.Int64
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch r.URL.Path {
		case "/short":
			_, _ = io.WriteString(w, "hello")
		case "/exact":
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 1001))
		case "/stops":
			_, _ = io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			<-release
		default:
			<-release
		}
	}))
	defer server.Close()
	defer close(release)
	d := dependency(t, call.Options{Name: "bank", Timeout: 500 * time.Millisecond, Retry: call.RetryOptions{Attempts: 1}})
	c := client(t, d, call.TransportOptions{MaxBody: 1000})
	defer c.CloseIdleConnections()
	f := func(path, want string, wantErr error) {
		t.Helper()
		resp, err := c.Get(server.URL + path)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %v, want %v", path, err, wantErr)
		}
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != want || err != nil {
				t.Errorf("%s: %q, %v", path, body, err)
			}
		}
		if n := d.Bulkhead.InFlight(); n != 0 {
			t.Errorf("%s: %d in flight", path, n)
		}
	}
	f("/short", "hello", nil)
	f("/exact", strings.Repeat("x", 1000), nil)
	f("/long", "", call.ErrTooLarge)
	f("/stops", "", call.ErrTimeout)
	f("/hangs", "", call.ErrTimeout)
	if s := d.Breaker.Status(); s.Calls != 5 || s.Failed != 2 {
		t.Errorf("%d calls, %d failed", s.Calls, s.Failed)
	}
	before := hits.Load()
	d.Breaker.Hold(call.Open)
	f("/short", "", call.ErrOpen)
	if hits.Load() != before {
		t.Error("an open breaker let a request through")
	}
}
