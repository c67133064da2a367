package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// shop is the chain behind HTTP, in the shape that Sluice's API has.
type shop struct {
	*chain
	till     *till
	secret   []byte
	opsToken string
}

const (
	maxBody   = 16 << 10
	patience  = 10 * time.Second // for one request
	orderName = "id"
)

// work of a request goes on when its client hangs up, or each lost reply would
// tear the chain.
func within(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), patience)
}

func (s *shop) shopper() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/time", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]int64{"now": s.now().UnixMilli()})
	})
	mux.HandleFunc("GET /v1/activities/{id}", func(w http.ResponseWriter, r *http.Request) {
		a, err := s.activity(r.Context(), r.PathValue("id"))
		if err != nil {
			refuse(w, err)
			return
		}
		reply(w, 200, map[string]any{"id": a.ID, "opens_at": stamp(a.Opens), "closes_at": stamp(a.Closes)})
	})
	mux.HandleFunc("POST /v1/activities/{id}/purchases", s.buy)
	mux.HandleFunc("GET /v1/orders/{id}", s.owned(s.show))
	mux.HandleFunc("GET /v1/reservations/{id}", s.ownedReservation(func(_ context.Context, w http.ResponseWriter, o order) {
		reply(w, 200, receiptOf(o))
	}))
	mux.HandleFunc("GET /v1/reservations/{id}/events", s.ownedReservation(tell))
	mux.HandleFunc("POST /v1/orders/{id}/cancel", s.owned(s.drop))
	mux.HandleFunc("POST /v1/orders/{id}/payments", s.owned(s.startPayment))
	mux.HandleFunc("POST /pay/{page}", s.pay)
	return mux
}

// user is who a token is for; "" if nobody.
func (s *shop) user(r *http.Request) string {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return s.secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.now))
	if err != nil {
		return ""
	}
	return claims.Subject
}

func (s *shop) buy(w http.ResponseWriter, r *http.Request) {
	user, key := s.user(r), r.Header.Get("Idempotency-Key")
	var body struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	}
	switch {
	case user == "":
		problem(w, 401, "unauthenticated")
		return
	case key == "" || len(key) > 128:
		problem(w, 400, "idempotency_key_missing")
		return
	case json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body) != nil || body.Quantity != 1:
		problem(w, 400, "invalid_request")
		return
	}
	ctx, stop := within(r)
	defer stop()
	a, err := s.activity(ctx, r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	now := s.now()
	switch {
	case body.SKU != a.SKU:
		problem(w, 404, "no_such_sku")
		return
	case now.Before(a.Opens):
		problem(w, 409, "not_open")
		return
	case now.After(a.Closes):
		problem(w, 409, "ended")
		return
	}
	given, err := s.purchase(ctx, a, user, key)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 202, given)
}

var (
	errNotLanded  = errors.New("still queued")
	errOrderState = errors.New("not in this state")
)

// refuse says no, as far as the chain knows that nothing was done.
func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errNothingFree):
		// Redis counts what is left and cannot tell sold from held.
		problem(w, 409, "all_held")
	case errors.Is(err, errLimit):
		problem(w, 409, "limit_reached")
	case errors.Is(err, errOrderState):
		problem(w, 409, "order_state")
	case errors.Is(err, sql.ErrNoRows):
		problem(w, 404, "no_such_order")
	case errors.Is(err, errNotLanded), errors.Is(err, errChanging):
		problem(w, 503, "not_ready")
	default:
		problem(w, 503, "unknown")
	}
}

// owned finds the order of a path for its owner, and nobody else. One that
// Redis has accepted and SQL does not have is queued, or so it is hoped.
func (s *shop) owned(serve func(context.Context, http.ResponseWriter, order)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, name := s.user(r), r.PathValue(orderName)
		if user == "" {
			problem(w, 401, "unauthenticated")
			return
		}
		ctx, stop := within(r)
		defer stop()
		found, err := s.books.orders(ctx, `id = ?`, name)
		if err == nil && len(found) == 0 {
			owner, fault := s.owner(ctx, name)
			if err = fault; err == nil && owner == user {
				err = errNotLanded
			}
		}
		switch {
		case err != nil:
			refuse(w, err)
		case len(found) == 0 || found[0].User != user:
			problem(w, 404, "no_such_order")
		default:
			serve(ctx, w, found[0])
		}
	}
}

// ownedReservation is owned for the name of a reservation.
func (s *shop) ownedReservation(serve func(context.Context, http.ResponseWriter, order)) http.HandlerFunc {
	owned := s.owned(serve)
	return func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue(orderName, strings.TrimPrefix(r.PathValue(orderName), "r"))
		owned(w, r)
	}
}

func receiptOf(o order) receipt {
	name := strconv.FormatInt(o.ID, 10)
	return receipt{Reservation: "r" + name, Order: name, State: o.reservation(), ExpiresAt: stamp(time.UnixMilli(o.Expires)), Total: money{o.Amount, o.Currency}}
}

// tell is an event stream with the state as it is now, and no more.
func tell(_ context.Context, w http.ResponseWriter, o order) {
	text, err := json.Marshal(receiptOf(o))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = w.Write(append(append([]byte("data: "), text...), "\n\n"...)) // who has hung up asks again
}

// shownOrder is an order as JSON, for its owner and for operators.
type shownOrder struct {
	ID          string         `json:"id"`
	Reservation string         `json:"reservation"`
	Activity    string         `json:"activity"`
	User        string         `json:"user"`
	Key         string         `json:"key"`
	State       string         `json:"state"`
	Reason      string         `json:"reason,omitempty"`
	ExpiresAt   string         `json:"expires_at"`
	Total       money          `json:"total"`
	Refunded    *refunded      `json:"refunded,omitempty"`
	Captures    []shownCapture `json:"captures,omitempty"`
	Refunds     []shownRefund  `json:"refunds,omitempty"`
}

type refunded struct {
	money
	State string `json:"state"`
}

type shownCapture struct {
	ID     string `json:"id"`
	Amount money  `json:"amount"`
	Pays   string `json:"pays"`
}

type shownRefund struct {
	ID      string `json:"id"`
	Capture string `json:"capture"`
	Amount  money  `json:"amount"`
	Reason  string `json:"reason"`
	State   string `json:"state"`
}

func shown(o order, captures []capture) shownOrder {
	name := strconv.FormatInt(o.ID, 10)
	doc := shownOrder{ID: name, Reservation: "r" + name, Activity: o.Activity, User: o.User, Key: o.Key, State: o.State, Reason: o.Reason,
		ExpiresAt: stamp(time.UnixMilli(o.Expires)), Total: money{o.Amount, o.Currency}}
	for _, c := range captures {
		amount := money{c.Amount, c.Currency}
		pays := ""
		if c.Pays != 0 {
			pays = strconv.FormatInt(c.Pays, 10)
		}
		doc.Captures = append(doc.Captures, shownCapture{c.ID, amount, pays})
		if c.Refunded {
			doc.Refunds = append(doc.Refunds, shownRefund{"f" + c.ID, c.ID, amount, "late", "done"})
			doc.Refunded = &refunded{amount, "done"}
		}
	}
	return doc
}

func (s *shop) show(ctx context.Context, w http.ResponseWriter, o order) {
	captures, err := s.books.captures(ctx, o.ID, o.ID)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 200, shown(o, captures[o.ID]))
}

func (s *shop) drop(ctx context.Context, w http.ResponseWriter, o order) {
	done, err := s.cancel(ctx, o, "cancelled_by_user")
	if err == nil && !done {
		err = errOrderState
	}
	if err != nil {
		refuse(w, err)
		return
	}
	o.State = "cancelled"
	s.show(ctx, w, o)
}

func (s *shop) startPayment(ctx context.Context, w http.ResponseWriter, o order) {
	if o.State != "created" || s.now().UnixMilli() > o.Expires {
		refuse(w, errOrderState)
		return
	}
	page, err := s.till.page(ctx, o)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, 201, map[string]string{"pay_url": "/pay/" + page})
}

// pay is the button of the provider's page. Of all that can go wrong with a
// payment it knows nothing: the storm presses "pay" here.
func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("action") != "pay" {
		problem(w, 400, "invalid_request")
		return
	}
	ctx, stop := within(r)
	defer stop()
	if err := s.till.pay(ctx, r.PathValue("page")); err != nil {
		refuse(w, err)
		return
	}
	reply(w, 200, map[string]bool{"paid": true})
}

func reply(w http.ResponseWriter, status int, doc any) {
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // our own types
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // whoever is gone does not read it
}

func problem(w http.ResponseWriter, status int, code string) {
	text, err := json.Marshal(map[string]any{"title": code, "status": status, "code": code})
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
