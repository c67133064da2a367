package api

import (
	"strings"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
)

// class groups routes that share one bound on requests in flight.
type class uint8

const (
	freeClass     class = iota // answered from memory, never waits: the number of connections is bound enough
	purchaseClass              // may wait for the ledger
	readClass                  // may wait for the store
	paymentClass               // may wait for the store and a provider
	classes
)

var classNames = [classes]string{"free", "purchase", "read", "payment"}

// endpoint is one route. Every path of this API has one method, but for the
// queue's, which is joined by POST and looked at by GET; GET includes HEAD.
type endpoint struct {
	method  string
	pattern string
	class   class
	limited gate.Class // which rules decide here; those of purchases do behind the known key, in the shop
	serve   func(s *Server, ctx *fasthttp.RequestCtx, param string)
}

// route numbers the endpoints.
type route uint8

const (
	routePurchase route = iota
	routeTicket
	routeChallenge
	routeAnswer
	routeJoin
	routePlace
	routeLeave
	routePlaceEvents
	routeDraw
	routeEntries
	routeTime
	routeActivities
	routeActivity
	routeReservation
	routeEvents
	routeOrders
	routeOrder
	routePay
	routeCancel
	routeCallback
	routeNotifications
	routeDemo
	routeShell
	routeShellOf
	routeAsset
	routeImage
	routeOpenAPI
	routes
)

var endpoints = [routes]endpoint{
	routePurchase:      {"POST", "/v1/activities/{id}/purchases", purchaseClass, gate.Unlimited, (*Server).purchase},
	routeTicket:        {"POST", "/v1/activities/{id}/tickets", readClass, gate.Slips, (*Server).ticket},
	routeChallenge:     {"POST", "/v1/activities/{id}/challenges", readClass, gate.Slips, (*Server).challenge},
	routeAnswer:        {"POST", "/v1/activities/{id}/challenges/answers", readClass, gate.Slips, (*Server).answerChallenge},
	routeJoin:          {"POST", "/v1/activities/{id}/queue", readClass, gate.Slips, (*Server).join},
	routePlace:         {"GET", "/v1/activities/{id}/queue", readClass, gate.Reads, (*Server).place},
	routeLeave:         {"POST", "/v1/activities/{id}/queue/leave", readClass, gate.Slips, (*Server).leave},
	routePlaceEvents:   {"GET", "/v1/activities/{id}/queue/events", readClass, gate.Reads, (*Server).placeEvents},
	routeDraw:          {"GET", "/v1/activities/{id}/queue/draw", readClass, gate.Reads, (*Server).draw},
	routeEntries:       {"GET", "/v1/activities/{id}/queue/draw/entries", readClass, gate.Reads, (*Server).entries},
	routeTime:          {"GET", "/v1/time", freeClass, gate.Unlimited, (*Server).time},
	routeActivities:    {"GET", "/v1/activities", freeClass, gate.Reads, (*Server).activities},
	routeActivity:      {"GET", "/v1/activities/{id}", freeClass, gate.Reads, (*Server).activity},
	routeReservation:   {"GET", "/v1/reservations/{id}", readClass, gate.Reads, (*Server).reservation},
	routeEvents:        {"GET", "/v1/reservations/{id}/events", readClass, gate.Reads, (*Server).events},
	routeOrders:        {"GET", "/v1/orders", readClass, gate.Reads, (*Server).ordersList},
	routeOrder:         {"GET", "/v1/orders/{id}", readClass, gate.Reads, (*Server).order},
	routePay:           {"POST", "/v1/orders/{id}/payments", paymentClass, gate.Payments, (*Server).pay},
	routeCancel:        {"POST", "/v1/orders/{id}/cancel", paymentClass, gate.Payments, (*Server).cancel},
	routeCallback:      {"POST", "/v1/payments/callbacks/{provider}", paymentClass, gate.Unlimited, (*Server).callback},
	routeNotifications: {"GET", "/v1/notifications", readClass, gate.Reads, (*Server).notificationsList},
	routeDemo:          {"POST", "/demo/token", freeClass, gate.Unlimited, (*Server).demoToken},
	routeShell:         {"GET", "/", freeClass, gate.Unlimited, (*Server).shell},
	routeShellOf:       {"GET", "/a/{id}", freeClass, gate.Unlimited, (*Server).shell},
	routeAsset:         {"GET", "/assets/{name}", freeClass, gate.Unlimited, (*Server).file},
	routeImage:         {"GET", "/images/{name}", freeClass, gate.Unlimited, (*Server).file},
	routeOpenAPI:       {"GET", "/openapi.json", freeClass, gate.Unlimited, (*Server).openAPI},
}

// handle serves one request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	to, param, found := match(view(ctx.Path()))
	if !found {
		s.answer(ctx, notFound)
		return
	}
	if to == routePlace && string(ctx.Method()) == "POST" {
		to = routeJoin
	}
	e := &endpoints[to]
	if method := ctx.Method(); string(method) != e.method && (e.method != "GET" || string(method) != "HEAD") {
		ctx.Response.Header.SetCanonical(allow, []byte(e.allowed()))
		s.answer(ctx, methodNotAllowed)
		return
	}
	if e.limited != gate.Unlimited && s.rules != nil {
		if err := s.admit(ctx, to, param); err != nil {
			s.refuse(ctx, err, 0)
			free(err)
			return
		}
	}
	if bound := s.bounds[e.class]; bound != nil {
		if err := bound.Enter(); err != nil {
			s.refuse(ctx, err, 0)
			return
		}
		defer bound.Leave()
	}
	e.serve(s, ctx, param)
}

// allowed are the methods of a route's path.
func (e *endpoint) allowed() string {
	if e.pattern == endpoints[routePlace].pattern {
		return "GET, POST"
	}
	return e.method
}

// match finds the route of a path and its parameter. The paths are few and
// fixed, so they are told apart by hand, the busiest first.
func match(path string) (to route, param string, found bool) {
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		return matchV1(rest)
	}
	switch path {
	case "/":
		return routeShell, "", true
	case "/demo/token":
		return routeDemo, "", true
	case "/openapi.json":
		return routeOpenAPI, "", true
	}
	if name, ok := strings.CutPrefix(path, "/assets/"); ok {
		return routeAsset, path, name != ""
	}
	if name, ok := strings.CutPrefix(path, "/images/"); ok {
		return routeImage, path, name != ""
	}
	if id, ok := strings.CutPrefix(path, "/a/"); ok {
		return routeShellOf, id, validID(id)
	}
	return 0, "", false
}

// actions are what can be done with an activity beside buying.
var actions = map[string]route{
	"tickets": routeTicket, "challenges": routeChallenge, "challenges/answers": routeAnswer,
	"queue": routePlace, "queue/leave": routeLeave, "queue/events": routePlaceEvents,
	"queue/draw": routeDraw, "queue/draw/entries": routeEntries,
}

func matchV1(rest string) (to route, param string, found bool) {
	resource, rest, deeper := strings.Cut(rest, "/")
	id, action, acts := strings.Cut(rest, "/")
	whole := deeper && !acts && id != "" // "/v1/resource/id"
	switch resource {
	case "activities":
		switch {
		case action == "purchases" && id != "":
			return routePurchase, id, true
		case acts && id != "":
			to, found := actions[action]
			return to, id, found
		case whole:
			return routeActivity, id, true
		}
		return routeActivities, "", !deeper
	case "reservations":
		if action == "events" && id != "" {
			return routeEvents, id, true
		}
		return routeReservation, id, whole
	case "orders":
		switch {
		case action == "payments" && id != "":
			return routePay, id, true
		case action == "cancel" && id != "":
			return routeCancel, id, true
		case whole:
			return routeOrder, id, true
		}
		return routeOrders, "", !deeper
	case "payments":
		provider := action
		return routeCallback, provider, id == "callbacks" && provider != "" && !strings.Contains(provider, "/")
	case "notifications":
		return routeNotifications, "", !deeper
	case "time":
		return routeTime, "", !deeper
	}
	return 0, "", false
}
