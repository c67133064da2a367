package app_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/web/shop/shoptest"
)

// A shopper goes through the challenge, the waiting room and its draw to a
// reservation, in a real browser.
func TestBrowserQueue(t *testing.T) {
	c := config(t.TempDir())
	c.Demo = true
	s := start(t, c)
	s.operate(200, "PUT", "/v1/rules", `{"version":0,"rules":[],
		"rooms":[{"id":"room","activity":"drop","mode":"on","opens":"10m"}],
		"challenges":[{"id":"people","activity":"drop","mode":"on","when":"always","kind":"slider"}]}`)
	s.operate(201, "POST", "/v1/skus", `{"id":"print","title":"Signed print · 签名版画","description":"","image":"/images/arc-lamp.svg","price":{"amount":9900,"currency":"CNY"}}`)
	s.operate(201, "POST", "/v1/activities", fmt.Sprintf(
		`{"id":"drop","kind":"flash","title":"The drop · 首发","opens_at":%q,"closes_at":%q,"items":[{"sku":"print","units":5,"per_user":1,"per_order":1}]}`,
		stamp(time.Now().Add(20*time.Second)), stamp(time.Now().Add(time.Hour))))
	secret, err := gate.ReadKey(s.data)
	if err != nil {
		t.Fatal(err)
	}
	shoptest.QueueAndBuy(t, s.shopper, "drop", "print", os.Getenv("SLUICE_SHOTS"), func(user, token string) int {
		x, ok := challenge.Solve(secret, "drop", user, token)
		if !ok {
			t.Fatalf("a challenge that is not of %s", user)
		}
		return x
	})
	s.proved("drop")
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }
