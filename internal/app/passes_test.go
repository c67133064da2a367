package app_test

import (
	"fmt"
	"testing"
	"time"
)

// However often somebody shows the one pass he was given, no more people are called
// than there are units for.
func TestPassShownOften(t *testing.T) {
	const units, people = 3, 12
	s := start(t, config(t.TempDir()))
	s.operate(200, "PUT", "/v1/rules", `{"version":0,"rules":[],"rooms":[{"id":"room","activity":"cup","mode":"on","rate":50}]}`)
	s.sell("cup", units, `,"hold_seconds":600`)
	queue := s.shopper + "/v1/activities/cup/queue"
	for i := range people {
		s.eventually("joining", func() bool {
			status, _, _ := s.call("POST", queue, s.token(fmt.Sprint("u", i)), "")
			return status == 200
		})
	}
	passes := map[string]string{}
	look := func() int {
		for i := range people {
			user := fmt.Sprint("u", i)
			if _, _, v := s.call("GET", queue, s.token(user), ""); v["state"] == "called" {
				passes[user] = v["pass"].(string)
			}
		}
		return len(passes)
	}
	s.eventually("as many are called as there are units", func() bool { return look() >= units })
	for user, pass := range passes {
		for i := range 2 * units {
			status, _, v := s.call("POST", s.shopper+"/v1/activities/cup/purchases", s.token(user),
				fmt.Sprintf(`{"sku":"cup","quantity":1,"pass":%q}`, pass), "Idempotency-Key", fmt.Sprint("k", i))
			if i == 0 && status != 202 || i > 0 && v["code"] != "not_eligible" {
				t.Fatalf("%s shows the pass for the %d. time: %d %v", user, i+1, status, v)
			}
		}
		break
	}
	for over := time.Now().Add(2 * time.Second); time.Now().Before(over); {
		if n := look(); n != units {
			t.Fatalf("%d people were called for %d units", n, units)
		}
	}
}
