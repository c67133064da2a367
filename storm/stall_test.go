package storm

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/valyala/fasthttp"
)

// fault is a bug planted in a stall.
type fault string

const (
	honest        fault = ""
	oversells     fault = "oversells"                     // sells a tenth more than there is
	losesOrders   fault = "loses orders"                  // every fifth order is not in the list
	changesExpiry fault = "changes the receipt"           // a replay gets a new expiry
	forgetsKeys   fault = "forgets keys"                  // a known key is refused when nothing is free
	noLimit       fault = "knows no limit"                // never looks at what the user has
	selfLimit     fault = "limits its own key"            // marks the user before it refuses the second click
	earlySoldOut  fault = "says sold_out early"           // says sold_out when units are only held
	strandsUnits  fault = "strands units"                 // a cancelled unit never becomes free again
	trustsAll     fault = "trusts all tokens"             // does not check signatures
	showsAll      fault = "shows all orders"              // does not check whose order it is
	ignoresMoney  fault = "ignores money"                 // a captured payment never reaches the order
	unansweredYes fault = "writes an order for a refusal" // writes an order for a refused attempt
	hidesOrders   fault = "answers the owner 404"         // an order is not found when first asked for
	losesUnit     fault = "miscounts"                     // ledger counts do not add up
	falselyHeld   fault = "says all_held for a second"    // although units are free
	limitLingers  fault = "lets the limit linger"         // counts an order for a while after it was shown as cancelled
	endUndone     fault = "takes the end back"            // a replay shows a cancelled reservation as held
	buriesLetters fault = "buries letters"                // has a dead letter
	staleRefusals fault = "refuses by old counts"         // says all_held for a moment after a unit came back
	staleCounts   fault = "shows old counts"              // shows the counts of a moment ago
)

// stall is a shop small enough to be seen through: one SKU, one lock, in
// memory. It exists to be wrong in known ways, since an oracle that has only
// met correct servers has shown nothing.
type stall struct {
	t     *testing.T
	fault fault
	key   []byte
	addr  string

	mu       sync.Mutex
	activity string
	units    int
	hold     time.Duration
	opens    time.Time
	free     int
	orders   []*stallOrder
	byKey    map[string]*stallOrder
	pages    []*stallPage
	owed     []*stallOrder                                    // refundsAnother: whose refunds another one gets
	released time.Time                                        // when a unit came back last
	old, new item                                             // staleCounts: what is shown, and what will be
	renewed  time.Time                                        // when they were made
	guard    func(ctx *fasthttp.RequestCtx, user string) bool // answers in place of the stall, or not
	fleet    *fleet                                           // nil: it is one process, and whom it accepts holds
	gate     *stallGate                                       // nil: whoever comes may buy
}

type stallOrder struct {
	Order
	expires time.Time
	ended   time.Time
	read    bool // its owner has asked for it before

	pending bool      // in a fleet: accepted, and not landed
	lands   time.Time // when it will, or will be lost
	bucket  int
	gone    bool // it was lost, and nothing of it is left
}

// openStall starts a stall on a free port and returns it with options that
// storm it.
func openStall(t *testing.T, f fault) (*stall, Options) {
	t.Helper()
	data := t.TempDir()
	key := []byte("0123456789abcdef0123456789abcdef")
	if err := os.MkdirAll(filepath.Join(data, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "secrets", "jwt.hs256"), []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &stall{t: t, fault: f, key: key, byKey: map[string]*stallOrder{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = "http://" + listener.Addr().String()
	server := &fasthttp.Server{Handler: s.serve, NoDefaultServerHeader: true}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, Options{
		Target: s.addr, Ops: s.addr, OpsToken: "demo", Data: data, Users: 300, Stock: 40, Misbehave: 60, Duration: 1500 * time.Millisecond,
		Rate: 600, Connections: 16, Hold: 1, Seed: 7,
		Pay: 60, Abandon: 20, Cancel: 20, DoubleClick: 10, Replay: 50, Greedy: 30, Forge: 5, Lose: 3,
		Linearize: 20 * time.Second,
	}
}

func (s *stall) serve(ctx *fasthttp.RequestCtx) {
	path := strings.Split(strings.Trim(string(ctx.Path()), "/"), "/")
	method := string(ctx.Method())
	at := func(i int) string {
		if i < len(path) {
			return path[i]
		}
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	switch {
	case s.gate != nil && s.gate.serve(s, ctx, method, at):
	case at(1) == "time":
		s.reply(ctx, 200, map[string]int64{"now": time.Now().UnixMilli()})
	case method == "POST" && at(1) == "skus", method == "POST" && at(3) == "open":
		s.reply(ctx, 200, map[string]any{})
	case method == "POST" && at(1) == "activities" && at(3) == "purchases":
		s.purchase(ctx)
	case method == "POST" && at(1) == "activities":
		s.create(ctx)
	case at(3) == "proof":
		s.reply(ctx, 200, map[string]any{"ok": true, "violations": []string{}, "ledger": []item{s.counts()}, "orders": byState(s.listed()),
			"payments": s.payments()})
	case at(1) == "dead-letters":
		letters := []deadLetter{}
		if s.fault == buriesLetters && s.activity != "" {
			letters = append(letters, deadLetter{ID: "1", Key: "11", Topic: "order.paid", Attempts: 12, Reason: "ledger away"})
		}
		s.reply(ctx, 200, map[string]any{"dead_letters": letters})
	case at(1) == "activities":
		s.reply(ctx, 200, map[string]any{"id": s.activity, "counts": map[string]any{"items": []item{s.counts()}}})
	case at(0) == "pay":
		s.press(ctx, at(1))
	case at(1) == "reservations":
		s.reservation(ctx, at(2), at(3))
	case at(1) == "orders" && at(2) == "":
		s.list(ctx)
	case at(1) == "orders":
		s.order(ctx, at(2), at(3))
	default:
		s.refuse(ctx, 404, "no_such_activity")
	}
}

func (s *stall) create(ctx *fasthttp.RequestCtx) {
	var doc struct {
		ID      string    `json:"id"`
		OpensAt time.Time `json:"opens_at"`
		Hold    int       `json:"hold_seconds"`
		Buckets int       `json:"buckets"`
		Items   []struct {
			Units int `json:"units"`
		} `json:"items"`
	}
	if err := json.Unmarshal(ctx.PostBody(), &doc); err != nil || string(ctx.Request.Header.Peek("Authorization")) != "Bearer demo" {
		s.refuse(ctx, 400, "invalid_request")
		return
	}
	s.orders, s.pages, s.owed, s.byKey, s.old, s.new = nil, nil, nil, map[string]*stallOrder{}, item{}, item{}
	s.activity, s.opens, s.hold = doc.ID, doc.OpensAt, time.Duration(doc.Hold)*time.Second
	s.units, s.free = doc.Items[0].Units, doc.Items[0].Units
	if s.fault == oversells {
		s.free += s.units / 10
	}
	if s.fleet != nil {
		s.fleet.open(doc.Buckets, s.units)
	}
	s.reply(ctx, 200, map[string]any{})
}

func (s *stall) purchase(ctx *fasthttp.RequestCtx) {
	user, ok := s.user(ctx)
	if !ok {
		s.refuse(ctx, 401, "unauthenticated")
		return
	}
	if s.guard != nil && s.guard(ctx, user) {
		return
	}
	now := time.Now()
	id := user + " " + string(ctx.Request.Header.Peek("Idempotency-Key"))
	if o := s.byKey[id]; o != nil && !(s.fault == forgetsKeys && s.free == 0) && s.fault != selfLimit {
		if s.fault == changesExpiry {
			o.ExpiresAt = now.Add(s.hold).Format(time.RFC3339Nano)
		}
		if s.fault == deniesKeys && o.pending {
			s.refuse(ctx, 409, "all_held")
			return
		}
		s.receipt(ctx, o)
		return
	}
	held := 0
	for _, o := range s.orders {
		if o.State == "created" {
			held++
		}
		lingers := s.fault == limitLingers && now.Sub(o.ended) < time.Second
		if o.User == user && (o.State != "cancelled" && o.State != "refused" || lingers) && s.fault != noLimit {
			s.refuse(ctx, 409, "limit_reached")
			return
		}
	}
	switch {
	case now.Before(s.opens):
		s.refuse(ctx, 409, "not_open")
	case s.fleet != nil && s.elsewhere(ctx, user, now):
	case s.free <= 0 && (held == 0 || s.fault == earlySoldOut):
		s.refuse(ctx, 409, "sold_out")
	case s.free <= 0:
		s.refuse(ctx, 409, "all_held")
	case s.fault == staleRefusals && held > 0 && now.Sub(s.released) < 30*time.Millisecond:
		s.refuse(ctx, 409, "all_held")
	case s.fault == falselyHeld && now.After(s.opens.Add(200*time.Millisecond)) && now.Before(s.opens.Add(1200*time.Millisecond)):
		s.refuse(ctx, 409, "all_held")
	default:
		o := s.accept(user, id, now)
		if s.fault == unansweredYes && len(s.orders)%7 == 0 {
			delete(s.byKey, id)
			s.refuse(ctx, 409, "all_held")
			return
		}
		s.receipt(ctx, o)
	}
}

func (s *stall) accept(user, id string, now time.Time) *stallOrder {
	s.free--
	n := strconv.Itoa(len(s.orders) + 1)
	o := &stallOrder{expires: now.Add(s.hold), Order: Order{
		ID: "1" + n, Reservation: s.activity + s.fleet.place(user) + n, Activity: s.activity, User: user, Key: strings.Fields(id)[1],
		State: "created", Total: Money{price, currency}, ExpiresAt: now.Add(s.hold).UTC().Format(time.RFC3339Nano),
	}}
	s.orders = append(s.orders, o)
	s.byKey[id] = o
	s.fleet.accepted(o, now)
	return o
}

func (s *stall) receipt(ctx *fasthttp.RequestCtx, o *stallOrder) {
	state := o.reservation()
	if s.fault == endUndone && o.State == "cancelled" {
		state = "held"
	}
	s.reply(ctx, 202, Receipt{o.Reservation, o.ID, state, o.ExpiresAt, o.Total})
}

// reservation is the order's state in the words of its reservation.
func (o *stallOrder) reservation() string {
	if o.pending {
		return "pending"
	}
	return map[string]string{"created": "held", "paid": "confirmed", "cancelled": "released", "refused": "refused"}[o.State]
}

func (s *stall) order(ctx *fasthttp.RequestCtx, id, action string) {
	user, ok := s.user(ctx)
	if !ok {
		s.refuse(ctx, 401, "unauthenticated")
		return
	}
	o := s.find(id)
	if o == nil || (o.gone && s.fault == hidesLost) || (o.User != user && s.fault != showsAll) || (s.fault == hidesOrders && !o.read) {
		if o != nil {
			o.read = true
		}
		s.refuse(ctx, 404, "no_such_order")
		return
	}
	switch {
	case action == "":
		s.reply(ctx, 200, s.shown(o))
	case o.pending:
		s.refuse(ctx, 503, "not_ready")
	case o.State == "refused" && s.fault == sellsRefused && action == "payments":
		s.reply(ctx, 200, map[string]string{"pay_url": s.addr + "/pay/" + s.pageOf(o).id})
	case o.State != "created":
		s.refuse(ctx, 409, "order_state")
	case action == "payments":
		s.reply(ctx, 200, map[string]string{"pay_url": s.addr + "/pay/" + s.pageOf(o).id})
	case action == "cancel":
		s.release(o)
		s.reply(ctx, 200, o.Order)
	}
}

func (s *stall) find(id string) *stallOrder {
	for _, o := range s.orders {
		if o.ID == id {
			return o
		}
	}
	return nil
}

func (s *stall) release(o *stallOrder) {
	o.State, o.ended = "cancelled", time.Now()
	s.released = o.ended
	if s.fault != strandsUnits {
		s.free++
		s.fleet.freed(o)
	}
}

// expire does what is due: late money arrives, and orders whose time is over
// are cancelled, but not before the till was asked about their payments.
func (s *stall) expire(now time.Time) {
	s.arrive(now)
	s.land(now)
	for _, o := range s.orders {
		if o.State == "created" && !o.pending && now.After(o.expires) && !s.asked(o) {
			s.release(o)
		}
	}
}

func (s *stall) counts() item {
	states := map[string]int{}
	for _, o := range s.orders {
		states[o.State]++
	}
	i := item{SKU: s.activity, Allocated: s.units, Held: states["created"], Confirmed: states["paid"], InTransit: s.fleet.transit()}
	if i.Free = i.Allocated - i.Held - i.Confirmed - i.InTransit; s.fault == losesUnit {
		i.Free--
	}
	if s.fault == staleCounts {
		if now := time.Now(); now.Sub(s.renewed) > 30*time.Millisecond {
			s.old, s.new, s.renewed = s.new, i, now
		}
		if s.old.SKU != "" {
			return s.old
		}
	}
	return i
}

func (s *stall) listed() (out []Order) {
	for i, o := range s.orders {
		if !o.pending && !o.gone && (s.fault != losesOrders || i%5 != 0) {
			out = append(out, o.Order)
		}
	}
	return out
}

// list pages in the order of ids, newest first, as the real one does.
func (s *stall) list(ctx *fasthttp.RequestCtx) {
	all := s.listed()
	end := len(all)
	if before := string(ctx.QueryArgs().Peek("before")); before != "" {
		for end > 0 && all[end-1].ID != before {
			end--
		}
		end--
	}
	page, next := []Order{}, ""
	for end > 0 && len(page) < 30 {
		end--
		page = append(page, all[end])
	}
	if end > 0 {
		next = all[end].ID
	}
	s.reply(ctx, 200, map[string]any{"orders": page, "next": next})
}

func (s *stall) user(ctx *fasthttp.RequestCtx) (string, bool) {
	raw := strings.TrimPrefix(string(ctx.Request.Header.Peek("Authorization")), "Bearer ")
	var claims jwt.RegisteredClaims
	if s.fault == trustsAll {
		_, _, err := jwt.NewParser().ParseUnverified(raw, &claims)
		return claims.Subject, err == nil
	}
	_, err := jwt.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return s.key, nil }, jwt.WithValidMethods([]string{"HS256"}))
	return claims.Subject, err == nil
}

func (s *stall) refuse(ctx *fasthttp.RequestCtx, status int, code string) {
	s.reply(ctx, status, map[string]any{"type": "about:blank", "status": status, "code": code})
}

func (s *stall) reply(ctx *fasthttp.RequestCtx, status int, doc any) {
	body, err := json.Marshal(doc)
	if err != nil {
		s.t.Error(fmt.Errorf("reply: %w", err))
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}
