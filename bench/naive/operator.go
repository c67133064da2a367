package main

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// operator serves what the storm asks an ops API for.
func (s *shop) operator() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.redis.Do(r.Context(), s.redis.B().Ping().Build()).Error(); err != nil {
			refuse(w, err)
			return
		}
		reply(w, 200, map[string]bool{"ready": true})
	})
	private := func(pattern string, serve http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.opsToken)) != 1 {
				problem(w, 401, "unauthenticated")
				return
			}
			serve(w, r)
		})
	}
	private("POST /v1/skus", func(w http.ResponseWriter, _ *http.Request) { reply(w, 201, struct{}{}) })
	private("POST /v1/activities", s.create)
	private("POST /v1/activities/{id}/open", s.open)
	private("GET /v1/activities/{id}", s.counts)
	private("GET /v1/activities/{id}/proof", s.proof)
	private("GET /v1/orders", s.list)
	private("GET /v1/dead-letters", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"dead_letters": []any{}, "next": ""})
	})
	return mux
}

func (s *shop) create(w http.ResponseWriter, r *http.Request) {
	var doc struct {
		ID          string    `json:"id"`
		HoldSeconds int       `json:"hold_seconds"`
		OpensAt     time.Time `json:"opens_at"`
		ClosesAt    time.Time `json:"closes_at"`
		Items       []struct {
			SKU   string `json:"sku"`
			Price money  `json:"price"`
			Units int    `json:"units"`
		} `json:"items"`
	}
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&doc) != nil || doc.ID == "" || len(doc.Items) != 1 {
		problem(w, 400, "invalid_request")
		return
	}
	item := doc.Items[0]
	err := s.books.put(r.Context(), activity{ID: doc.ID, SKU: item.SKU, Units: item.Units, Amount: item.Price.Amount, Currency: item.Price.Currency,
		Hold: time.Duration(doc.HoldSeconds) * time.Second, Opens: doc.OpensAt, Closes: doc.ClosesAt})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 201, map[string]string{"id": doc.ID})
}

func (s *shop) open(w http.ResponseWriter, r *http.Request) {
	a, err := s.activity(r.Context(), r.PathValue("id"))
	if err == nil {
		err = s.warm(r.Context(), a)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 200, map[string]string{"id": a.ID})
}

// item is where the units are, by both books: free is what Redis says, held
// and confirmed what SQL says. What is left is on its way, or lost, or, below
// zero, there twice: the chain cannot know.
type item struct {
	SKU       string `json:"sku"`
	Allocated int    `json:"allocated"`
	Free      int    `json:"free"`
	Held      int    `json:"held"`
	Confirmed int    `json:"confirmed"`
	InTransit int    `json:"in_transit"`
}

func (s *shop) item(r *http.Request) (item, compared, error) {
	a, err := s.activity(r.Context(), r.PathValue("id"))
	if err != nil {
		return item{}, compared{}, err
	}
	now, err := s.compare(r.Context(), a.ID)
	i := item{SKU: a.SKU, Allocated: a.Units, Free: now.free, Held: now.states["created"], Confirmed: now.states["paid"]}
	i.InTransit = i.Allocated - i.Free - i.Held - i.Confirmed
	return i, now, err
}

func (s *shop) counts(w http.ResponseWriter, r *http.Request) {
	i, _, err := s.item(r)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 200, map[string]any{"counts": map[string]any{"items": []item{i}}})
}

// proof is the reconciliation that such chains run at night: Redis beside SQL.
func (s *shop) proof(w http.ResponseWriter, r *http.Request) {
	i, now, err := s.item(r)
	if err != nil {
		refuse(w, err)
		return
	}
	violations := []string{}
	if now.free != now.left && now.queued == 0 {
		violations = append(violations, fmt.Sprintf("Redis has %d units left, SQL has %d, and no message is on its way", now.free, now.left))
	}
	reply(w, 200, map[string]any{
		"ok": now.free == now.left && now.queued == 0, "violations": violations, "ledger": []item{i}, "orders": now.states,
		"payments": map[string]int64{"captured": now.captured, "refunded": now.refunded, "owed": 0},
	})
}

// list pages through orders, newest first.
func (s *shop) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		limit = 100
	}
	before := int64(1<<63 - 1)
	if text := q.Get("before"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil {
			problem(w, 400, "invalid_request")
			return
		}
	}
	page, err := s.books.orders(r.Context(), `activity = ? AND id < ? ORDER BY id DESC LIMIT ?`, q.Get("activity"), before, limit)
	if err != nil {
		refuse(w, err)
		return
	}
	doc := struct {
		Orders []shownOrder `json:"orders"`
		Next   string       `json:"next"`
	}{Orders: []shownOrder{}}
	if len(page) > 0 {
		captures, err := s.books.captures(r.Context(), page[len(page)-1].ID, page[0].ID)
		if err != nil {
			refuse(w, err)
			return
		}
		for _, o := range page {
			doc.Orders = append(doc.Orders, shown(o, captures[o.ID]))
		}
		if len(page) == limit {
			doc.Next = doc.Orders[limit-1].ID
		}
	}
	reply(w, 200, doc)
}
