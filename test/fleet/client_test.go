package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/test/fleet"
)

// shop is a fleet as its shoppers and operators see it.
type shop struct {
	*testing.T
	*fleet.Fleet
	client http.Client
}

func open(t *testing.T, o fleet.Options) *shop {
	t.Helper()
	s := &shop{T: t, Fleet: fleet.Start(t, o)}
	s.client = http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// reply is an answer; status 0 says that there was none.
type reply struct {
	status int
	body   map[string]any
	text   string
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, r.text) }

// call sends a request as somebody with a token; "" for nobody.
func (s *shop) call(method, url, token, body string, header ...string) (r reply) {
	request, err := http.NewRequestWithContext(s.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return reply{text: err.Error()}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{text: err.Error()}
	}
	r = reply{status: answer.StatusCode, text: string(bytes.TrimSpace(text))}
	_ = json.Unmarshal(text, &r.body)
	return r
}

func (s *shop) token(user string) string {
	s.Helper()
	token, err := s.Token(user)
	if err != nil {
		s.Fatal(err)
	}
	return token
}

// operate calls the ops API and expects a status.
func (s *shop) operate(want int, method, path, body string) map[string]any {
	s.Helper()
	r := s.call(method, s.Console.Ops+path, fleet.OpsToken, body)
	if r.status != want {
		s.Fatalf("%s %s: %s, want %d", method, path, r, want)
	}
	return r.body
}

// sell puts cups on sale, open from now on.
func (s *shop) sell(activity string, units int, more string) {
	s.Helper()
	s.operate(201, "POST", "/v1/skus", `{"id":"cup","title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`)
	opens := time.Now().Add(-time.Second).UTC().Format("2006-01-02T15:04:05.000Z")
	s.operate(201, "POST", "/v1/activities", fmt.Sprintf(
		`{"id":%q,"kind":"flash","title":"Cups","opens_at":%q,"items":[{"sku":"cup","units":%d,"per_user":2,"per_order":2}]%s}`, activity, opens, units, more))
	s.operate(200, "POST", "/v1/activities/"+activity+"/open", "")
	s.eventually("the sale is open on every gateway", func() bool {
		for _, g := range s.Gateways {
			if r := s.buy("http://"+g.Addr, activity, "nobody", "k", 2000); r.body["code"] != "limit_reached" {
				return false
			}
		}
		return true
	})
}

func (s *shop) buy(at, activity, user, key string, quantity int) reply {
	return s.call("POST", at+"/v1/activities/"+activity+"/purchases", s.token(user), fmt.Sprintf(`{"sku":"cup","quantity":%d}`, quantity), "Idempotency-Key", key)
}

func (s *shop) order(at, user string, id any) map[string]any {
	s.Helper()
	r := s.call("GET", at+"/v1/orders/"+id.(string), s.token(user), "")
	if r.status != 200 {
		s.Errorf("order %v: %s", id, r)
	}
	return r.body
}

// pay starts a payment and presses the button on the provider's page.
func (s *shop) pay(at, user string, id any) {
	s.Helper()
	r := s.call("POST", at+"/v1/orders/"+id.(string)+"/payments", s.token(user), "")
	if r.status != 201 {
		s.Fatalf("start payment: %s", r)
	}
	pressed := s.call("POST", r.body["pay_url"].(string), "", "action=pay", "Content-Type", "application/x-www-form-urlencoded", "Accept", "application/json")
	if pressed.status != 200 {
		s.Fatalf("pay: %s", pressed)
	}
}

func (s *shop) eventually(what string, right func() bool) {
	s.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(10 * time.Second)
	for !right() {
		select {
		case <-tick.C:
		case <-timeout:
			s.Fatalf("never: %s", what)
		}
	}
}

// follow reads the event stream of a reservation until it ends; each state is
// sent as it comes.
func (s *shop) follow(at, user string, reservation any) <-chan string {
	s.Helper()
	return s.events(at+"/v1/reservations/"+reservation.(string)+"/events", user, func(event map[string]any) string {
		return event["state"].(string) + "/" + event["order_state"].(string)
	})
}

// events reads an event stream until it ends, and sends what is read of each event.
func (s *shop) events(url, user string, read func(event map[string]any) string) <-chan string {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	s.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token(user))
	answer, err := (&http.Client{Transport: s.client.Transport}).Do(request)
	if err != nil {
		s.Fatal(err)
	}
	if answer.StatusCode != 200 {
		s.Fatalf("%s: %s", url, answer.Status)
	}
	states := make(chan string, 8)
	go func() {
		defer close(states)
		defer answer.Body.Close()
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var event map[string]any
				_ = json.Unmarshal([]byte(data), &event)
				states <- read(event)
			}
		}
	}()
	return states
}

// next waits for an event.
func (s *shop) next(states <-chan string) string {
	s.Helper()
	select {
	case state, open := <-states:
		if !open {
			return "end"
		}
		return state
	case <-time.After(10 * time.Second):
		s.Fatal("no event")
		return ""
	}
}
