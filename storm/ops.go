package storm

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// sell creates the SKU and the activity, whose window starts at opens. It
// answers over how many buckets the server says that it spreads the units.
func (s *shop) sell(o Options, opens time.Time) (buckets int, err error) {
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
	money := Money{price, currency}
	post := func(path string, doc, into any) error {
		body := []byte("{}")
		if doc != nil {
			var err error
			if body, err = json.Marshal(doc); err != nil {
				return err
			}
		}
		return s.read("POST", s.ops+path, []byte(s.opsToken), body, into)
	}
	if err := post("/v1/skus", map[string]any{
		"id": s.sku, "title": "Storm rehearsal", "description": "Sold by a load test.", "image": "", "price": money,
	}, nil); err != nil {
		return 0, fmt.Errorf("create the SKU: %w", err)
	}
	activity := map[string]any{
		"id": s.activity, "kind": "flash", "title": "Storm rehearsal", "hold_seconds": o.Hold, "per_user": 1,
		"opens_at": stamp(opens), "closes_at": stamp(opens.Add(o.Duration + 2*time.Hour)), "late_payment": "rereserve_or_refund",
		"items": []any{map[string]any{"sku": s.sku, "price": money, "units": o.Stock, "per_user": 1, "per_order": 1}},
	}
	if o.Buckets > 0 {
		activity["buckets"] = o.Buckets
	}
	var made struct {
		Buckets int `json:"buckets"`
	}
	if err := post("/v1/activities", activity, &made); err != nil {
		return 0, fmt.Errorf("create the activity: %w", err)
	}
	if err := post("/v1/activities/"+s.activity+"/open", nil, nil); err != nil {
		return 0, fmt.Errorf("open the activity: %w", err)
	}
	return max(made.Buckets, o.Buckets, 1), nil
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
