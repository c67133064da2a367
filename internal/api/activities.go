package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// staleAt is how old a body may be, unless a playbook says longer. From half of
// that on, one request renders it again while the others still get the old one;
// from then on, all wait for the new one.
const staleAt = 50 * time.Millisecond

// maxBodies bounds the remembered bodies; activities that shoppers can see are fewer.
const maxBodies = 2 * sale.MaxActivities

// time serves GET /v1/time: the clock of every countdown.
func (s *Server) time(ctx *fasthttp.RequestCtx, _ string) {
	var room [32]byte
	b := strconv.AppendInt(append(room[:0], `{"now":`...), s.now().UnixMilli(), 10)
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(cacheControl, noStore)
	ctx.Response.SetBody(append(b, '}'))
}

// activities serves GET /v1/activities: all on show, the first to open first.
func (s *Server) activities(ctx *fasthttp.RequestCtx, _ string) {
	in, now := s.switches.Now(), s.now()
	body, err := s.bodies.list.get(now, in, "", func() ([]byte, stock.Millis, error) {
		views := s.shop.Views()
		slices.SortFunc(views, func(a, b sale.View) int {
			return cmp.Or(cmp.Compare(a.OpensAt, b.OpensAt), cmp.Compare(a.ID, b.ID))
		})
		shown := struct {
			Activities []shownActivity `json:"activities"`
		}{make([]shownActivity, len(views))}
		turn := never
		for i := range views {
			shown.Activities[i] = s.show(&views[i], in)
			turn = min(turn, nextTurn(&views[i], now))
		}
		body, err := json.Marshal(shown)
		return body, turn, err
	})
	s.answerActivity(ctx, body, err)
}

// activity serves GET /v1/activities/{id}.
func (s *Server) activity(ctx *fasthttp.RequestCtx, id string) {
	if !validID(id) {
		s.answer(ctx, noSuchActivity)
		return
	}
	in, now := s.switches.Now(), s.now()
	body, err := s.bodies.of(id).get(now, in, id, func() ([]byte, stock.Millis, error) {
		v, err := s.shop.View(stock.ActivityID(strings.Clone(id)))
		if err != nil {
			return nil, 0, err
		}
		body, err := json.Marshal(s.show(&v, in))
		return body, nextTurn(&v, now), err
	})
	if errors.Is(err, sale.ErrNoSuchActivity) || errors.Is(err, stock.ErrNoSuchActivity) {
		s.bodies.forget(id) // what outsiders make up is not remembered
	}
	s.answerActivity(ctx, body, err)
}

func (s *Server) answerActivity(ctx *fasthttp.RequestCtx, body []byte, err error) {
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(cacheControl, shortly)
	ctx.Response.SetBodyRaw(body)
}

var shortly = []byte("public, max-age=1")

// shownActivity is what a shopper sees of an activity.
type shownActivity struct {
	ID       stock.ActivityID `json:"id"`
	Kind     string           `json:"kind"`
	Title    string           `json:"title"`
	State    sale.State       `json:"state"`
	OpensAt  string           `json:"opens_at"`
	ClosesAt string           `json:"closes_at"`
	PerUser  int              `json:"per_user,omitempty"`
	Items    []shownItem      `json:"items"`
	Needs    []string         `json:"needs,omitempty"`
	Degraded []string         `json:"degraded,omitempty"`
}

type shownItem struct {
	SKU         stock.SKU     `json:"sku"`
	Title       string        `json:"title"`
	Description string        `json:"description"`
	Image       string        `json:"image"`
	Price       pricing.Money `json:"price"`
	Level       stock.Level   `json:"level"`
	PerUser     int           `json:"per_user"`
	PerOrder    int           `json:"per_order"`
}

func (s *Server) show(v *sale.View, in *gate.InForce) shownActivity {
	e := in.Of(string(v.ID))
	a := shownActivity{
		ID: v.ID, Kind: v.Kind, Title: v.Title, State: v.State, PerUser: v.PerUser,
		OpensAt:  v.OpensAt.Time().Format(timeLayout),
		ClosesAt: v.ClosesAt.Time().Format(timeLayout),
		Items:    make([]shownItem, len(v.Items)),
		Needs:    s.asks(string(v.ID)),
		Degraded: degraded(e),
	}
	for i, item := range v.Items {
		p := v.Products[i]
		a.Items[i] = shownItem{
			SKU: item.SKU, Title: p.Title, Description: p.Description, Image: p.Image,
			Price: item.Price, Level: v.Levels[i], PerUser: item.PerUser, PerOrder: item.PerOrder,
		}
		if e.StockTight && v.Levels[i] == stock.Plenty {
			a.Items[i].Level = stock.Few // what is gone is said as it is
		}
	}
	return a
}

const never = stock.Millis(math.MaxInt64)

// nextTurn is when an activity begins or ends next, seen from just before its
// view was taken: no body is shown across that moment, however old it may be.
func nextTurn(v *sale.View, now time.Time) stock.Millis {
	turn := never
	for _, at := range []stock.Millis{v.OpensAt, v.ClosesAt} {
		if at > stock.MillisOf(now) {
			turn = min(turn, at)
		}
	}
	return turn
}

// activityBodies are the rendered answers: a page of a million shoppers costs
// one rendering per 25 ms, or less with stale_detail.
type activityBodies struct {
	list renderedBody
	mu   sync.RWMutex
	byID map[string]*renderedBody
}

// of answers the place of an activity's body. A full table starts over.
func (b *activityBodies) of(id string) *renderedBody {
	b.mu.RLock()
	r := b.byID[id]
	b.mu.RUnlock()
	if r != nil {
		return r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r = b.byID[id]; r != nil {
		return r
	}
	if b.byID == nil || len(b.byID) >= maxBodies {
		b.byID = make(map[string]*renderedBody)
	}
	r = new(renderedBody)
	b.byID[strings.Clone(id)] = r // id is a view of the request
	return r
}

func (b *activityBodies) forget(id string) {
	b.mu.Lock()
	delete(b.byID, id)
	b.mu.Unlock()
}

// renderedBody is one body and when it was rendered.
type renderedBody struct {
	mu   sync.Mutex
	last atomic.Pointer[rendered]
}

type rendered struct {
	at    time.Time
	turn  stock.Millis  // not to be shown from this moment on
	under *gate.InForce // what was in force
	body  []byte
}

// get answers a body at most as old as what is in force allows for an activity,
// or for all, made under the same. Errors are not remembered.
func (r *renderedBody) get(now time.Time, in *gate.InForce, activity string, render func() (body []byte, turn stock.Millis, err error)) ([]byte, error) {
	oldest := max(staleAt, in.Of(activity).StaleDetail)
	last := r.last.Load()
	age := time.Duration(-1)
	if last != nil && last.under == in && stock.MillisOf(now) < last.turn {
		age = now.Sub(last.at)
	}
	switch {
	case age < 0 || age >= oldest:
		r.mu.Lock()
	case age < oldest/2:
		return last.body, nil
	case !r.mu.TryLock():
		return last.body, nil // somebody is at it
	}
	defer r.mu.Unlock()
	if newer := r.last.Load(); newer != last && newer != nil {
		return newer.body, nil // rendered while this one waited
	}
	body, turn, err := render()
	if err != nil {
		return nil, err
	}
	r.last.Store(&rendered{now, turn, in, body})
	return body, nil
}
