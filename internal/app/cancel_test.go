package app_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// A shopper who has cancelled is told the same by every call that follows, and
// may buy again at once: nothing of the cancelled order counts any more.
func TestBuyAgainAfterCancel(t *testing.T) {
	s := start(t, config(t.TempDir()))
	s.operate(http.StatusCreated, "POST", "/v1/skus", `{"id":"cup","title":"Cup","price":{"amount":100,"currency":"EUR"}}`)
	s.operate(http.StatusCreated, "POST", "/v1/activities", fmt.Sprintf(
		`{"id":"a","title":"A","opens_at":%q,"per_user":1,"items":[{"sku":"cup","units":50,"per_user":1,"per_order":1}]}`,
		time.Now().Add(-time.Second).UTC().Format(time.RFC3339)))
	for i := range 10 {
		token := s.token(fmt.Sprint("u", i))
		buy := func(key string) (int, map[string]any) {
			status, _, v := s.call("POST", s.shopper+"/v1/activities/a/purchases", token, `{"sku":"cup","quantity":1}`, "Idempotency-Key", key)
			return status, v
		}
		status, bought := buy("k1")
		if status != http.StatusAccepted {
			t.Fatal(status, bought)
		}
		if status, _, v := s.call("POST", s.shopper+"/v1/orders/"+bought["order"].(string)+"/cancel", token, `{}`); status != http.StatusOK {
			t.Fatal(status, v)
		}
		_, again := buy("k1")
		_, _, is := s.call("GET", s.shopper+"/v1/reservations/"+bought["reservation"].(string), token, "")
		if again["state"] != "released" || is["state"] != "released" {
			t.Errorf("after the cancellation the key replays %v, the reservation is %v", again["state"], is["state"])
		}
		if status, v := buy("k2"); status != http.StatusAccepted {
			t.Errorf("buying again: %d %v", status, v)
		}
	}
}
