package app_test

import (
	"log/slog"
	"testing"
	"time"

	"sluice/internal/app"
)

// A sale that is over gets a final proof by itself, which every view of it
// shows, and which stands over a restart.
func TestFinalProof(t *testing.T) {
	c := config(t.TempDir())
	s := start(t, c)
	s.sell("cup", 10, `,"hold_seconds":600`)
	_, _, sold := s.buy("cup", "ann", "k", 2)
	_, _, left := s.buy("cup", "bob", "k", 1)
	if status := s.pay("ann", sold["order"].(string), "pay"); status != 200 {
		t.Fatalf("payment: %d", status)
	}
	s.eventually("paid", func() bool { return s.order("ann", sold["order"])["state"] == "paid" })
	s.operate(200, "POST", "/v1/activities/cup/close", "")
	if p := s.proved("cup"); p["final"] != false || p["proved"] != nil {
		t.Errorf("bob may still pay, and the proof is final: %v", p)
	}
	if status, _, v := s.call("POST", s.shopper+"/v1/orders/"+left["order"].(string)+"/cancel", s.token("bob"), `{}`); status != 200 {
		t.Fatalf("cancel: %d %v", status, v)
	}
	var proved map[string]any
	for deadline := time.After(20 * time.Second); proved == nil; { // audits are 5 s apart
		select {
		case <-deadline:
			t.Fatalf("no final proof: %v", s.proved("cup"))
		case <-time.After(50 * time.Millisecond):
			proved, _ = s.proved("cup")["proved"].(map[string]any)
		}
	}
	if at, err := time.Parse(time.RFC3339, proved["at"].(string)); err != nil || time.Since(at) > time.Minute || proved["position"].(map[string]any)["position"].(float64) < 6 {
		t.Errorf("proved %v", proved)
	}
	living, _ := s.operate(200, "GET", "/v1/activities?living=true", "")["activities"].([]any)
	all, _ := s.operate(200, "GET", "/v1/activities", "")["activities"].([]any)
	if len(living) != 0 || len(all) != 1 {
		t.Errorf("%d activities live of %d", len(living), len(all))
	}
	s.stop()

	reports, err := app.Audit(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil || len(reports) != 1 || !reports[0].OK || reports[0].Proved == nil {
		t.Fatalf("offline: %+v, %v", reports, err)
	}
	s = start(t, c)
	again := s.proved("cup")["proved"].(map[string]any)
	if again["at"] != proved["at"] {
		t.Errorf("after a restart the final proof is of %v, it was of %v", again["at"], proved["at"])
	}
	if status, _, v := s.call("GET", s.shopper+"/v1/activities/cup", "", ""); status != 200 || v["state"] != "closed" {
		t.Errorf("shoppers see %d %v", status, v)
	}
	if status, _, v := s.buy("cup", "cy", "k", 1); v["code"] != "ended" {
		t.Errorf("a late comer: %d %v", status, v)
	}
	if _, _, v := s.buy("cup", "ann", "k", 2); v["order"] != sold["order"] {
		t.Errorf("ann asks again: %v, she had %v", v, sold)
	}
}
