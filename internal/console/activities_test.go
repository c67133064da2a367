package console_test

import (
	"fmt"
	"testing"

	"sluice/internal/proof"
)

// The list is all there is, or a page of it; what lives can be asked for alone.
func TestActivityPages(t *testing.T) {
	b := newBench(t)
	b.want(201, "", "POST", "/v1/skus", `{"id":"CUP","title":"Cup","price":{"amount":1200,"currency":"CNY"}}`)
	for i := range 5 {
		b.want(201, "", "POST", "/v1/activities", fmt.Sprintf(`{"id":"a%d","title":"Drop","items":[{"sku":"CUP","units":10}]}`, i))
	}
	b.want(200, "", "POST", "/v1/activities/a1/close", "")
	must(t, b.store.SaveProof(t.Context(), proof.Report{Activity: "a1"}))
	f := func(query string, next any, want ...string) {
		t.Helper()
		a := b.want(200, "", "GET", "/v1/activities"+query, "")
		got := []string{}
		for i := range 10 {
			if id, ok := a.at(fmt.Sprintf("activities.%d.id", i)).(string); ok {
				got = append(got, id)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || a.at("next") != next {
			t.Errorf("%s: %v, next %v; want %v, %v", query, got, a.at("next"), want, next)
		}
	}
	f("", nil, "a0", "a1", "a2", "a3", "a4")
	f("?living=true", nil, "a0", "a2", "a3", "a4")
	f("?limit=2", "a1", "a0", "a1")
	f("?limit=2&after=a1", "a3", "a2", "a3")
	f("?limit=2&after=a3", nil, "a4")
	b.want(400, "invalid_request", "GET", "/v1/activities?limit=1001", "")
}

// Buckets are told at creation, are shown, and are fixed when a draft is opened.
func TestBuckets(t *testing.T) {
	b := newBench(t)
	b.want(201, "", "POST", "/v1/skus", `{"id":"CUP","title":"Cup","price":{"amount":1200,"currency":"CNY"}}`)
	b.equal(b.want(201, "", "POST", "/v1/activities", `{"id":"drop","title":"Drop","buckets":16,"items":[{"sku":"CUP","units":10}]}`), "buckets", 16)
	b.equal(b.want(200, "", "PATCH", "/v1/activities/drop", `{"buckets":8}`), "buckets", 8)
	b.equal(b.want(200, "", "POST", "/v1/activities/drop/open", ""), "buckets", 8)
	b.want(409, "activity_state", "PATCH", "/v1/activities/drop", `{"buckets":4}`)
	b.equal(b.want(200, "", "PATCH", "/v1/activities/drop", `{"buckets":8,"title":"New"}`), "buckets", 8, "title", "New")
	b.equal(b.want(200, "", "GET", "/v1/activities/drop", ""), "buckets", 8)
	b.equal(b.want(201, "", "POST", "/v1/activities", `{"id":"one","title":"One","items":[{"sku":"CUP","units":10}]}`), "buckets", nil)
	for _, n := range []string{"257", "-1", "1.5", `"4"`} {
		b.want(400, "invalid_request", "POST", "/v1/activities", `{"id":"x","title":"X","buckets":`+n+`,"items":[{"sku":"CUP","units":10}]}`)
	}
}
