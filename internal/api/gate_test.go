package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/entrance"
	"sluice/internal/gate/waiting"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// nobody is an entrance that asks for nothing.
type nobody struct{ b *business }

func (nobody) Ticket(context.Context, *gate.Facts) (entrance.Slip, error) {
	return entrance.Slip{}, gate.ErrNoTicketNeeded
}
func (nobody) Challenge(context.Context, *gate.Facts) (challenge.Challenge, error) {
	return challenge.Challenge{}, gate.ErrOverloaded
}
func (nobody) Answer(context.Context, *gate.Facts, string, int) (entrance.Slip, error) {
	return entrance.Slip{}, challenge.ErrFailed
}
func (n nobody) Join(context.Context, *gate.Facts) (entrance.Place, error) {
	if err := n.b.failure(); err != nil {
		return entrance.Place{}, err
	}
	return entrance.Place{}, waiting.ErrNoRoom
}
func (nobody) Place(context.Context, string, string) (entrance.Place, error) {
	return entrance.Place{}, waiting.ErrNoRoom
}
func (nobody) Known(string, string) (p entrance.Place, ok bool) { return p, false }
func (nobody) Leave(string, string)                             {}
func (nobody) Draw(string) (waiting.Draw, error)                { return waiting.Draw{}, waiting.ErrNoRoom }
func (nobody) Entries(context.Context, string, int, int) ([]waiting.EntryID, error) {
	return nil, waiting.ErrNoRoom
}

// gated is a server with a real gate before a shop whose only memory is the claims
// that it has consumed.
type gated struct {
	*bench
	door   *gate.Door
	rooms  *waiting.Rooms
	leader *waiting.Leader
	desk   *challenge.Desk
	claims map[string]bool
	units  waiting.Stock
	sold   entrance.Sale
	step   time.Duration // by which the machine's clock was put forward since the start
}

// machine is the time by which the door decides purchases.
func (g *gated) machine() time.Time { return g.clock.Now().Add(g.step) }

func newGated(t *testing.T, rules gate.RuleSet) *gated {
	t.Helper()
	at := &clock{now: noon.Time()}
	once := challenge.NewOnce(1000, at.Now)
	g := &gated{bench: &bench{clock: at}, claims: map[string]bool{}, units: waiting.Stock{Free: 1}}
	g.sold = entrance.Sale{OpensAt: noon.Time(), ClosesAt: noon.Time().Add(time.Hour)}
	g.door = gate.NewDoor(at.Now(), gate.NewSeal(secret), once)
	rules.Version = 1
	if err := g.door.Apply(gate.Edition{RuleSet: rules}, at.Now()); err != nil {
		t.Fatal(err)
	}
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "shop.db"), sqlstore.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	o := waiting.Options{
		Line: store.Waiting(), Presence: &waiting.Local{}, Now: at.Now,
		Activities: func() []string { return []string{"act"} },
		Config: func(activity string) (waiting.Config, bool) {
			room, ok := g.door.Room(activity)
			return waiting.Config{OpensAt: waiting.Millis(g.sold.OpensAt.UnixMilli()), Opens: room.Opens, Pass: room.Pass, Absent: room.Absent,
				Most: room.Most, Rate: room.Rate}, ok
		},
		Stock: func(string) (waiting.Stock, bool) { return g.units, true },
	}
	g.rooms = waiting.NewRooms(o, "here", 1000, waiting.NewPace(0))
	g.leader = waiting.NewLeader(o, 0, nil)
	g.desk = challenge.New(challenge.Options{Secret: secret, Once: once, Now: g.machine, Ready: 4})
	way := entrance.New(entrance.Options{Door: g.door, Seal: gate.NewSeal(secret), Rooms: g.rooms, Challenges: g.desk, Now: at.Now, Machine: g.machine,
		Sale: func(activity string) (entrance.Sale, bool) { return g.sold, activity == "act" }})
	g.bench = newBench(t, func(c *Config) {
		c.Slips, c.Queue, c.Asks, c.Rules, c.Now = way, way, g.door.Asks, g.door.Limits, at.Now
	})
	g.clock = at
	g.purchase = func(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error) {
		claims, err := g.door.Enter(ctx, g.machine(), r.Origin.(gate.Origin).Facts())
		for _, c := range claims {
			if g.claims[c] {
				return stock.Receipt{}, stock.ErrClaimUsed
			}
		}
		for _, c := range claims {
			g.claims[strings.Clone(c)] = true
		}
		return receiptOf(stock.Held), err
	}
	return g
}

// turn lets time pass, and the rooms with it.
func (g *gated) turn(t *testing.T, d time.Duration) {
	t.Helper()
	g.clock.pass(d)
	for _, step := range []func(context.Context) (bool, error){g.leader.Step, g.rooms.Step} {
		if _, err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// as asks as somebody else than alice.
func (g *gated) as(t *testing.T, user, method, path, body string) answer {
	t.Helper()
	return g.do(t, method, path, body, "Authorization: Bearer "+mint(t, user, g.clock.Now()), "Idempotency-Key: k-"+user, "Content-Type: application/json")
}

func field(t *testing.T, a answer, name string) string {
	t.Helper()
	s, ok := a.fields[name].(string)
	if !ok {
		t.Fatalf("no %s in %d %s", name, a.status, a.body)
	}
	return s
}

const (
	buying    = "/v1/activities/act/purchases"
	queueing  = "/v1/activities/act/queue"
	oneLampBy = `{"sku":"s1","quantity":1,"%s":"%s"}`
)

// A sale that asks for a ticket: not before its time, and once each.
func TestTicket(t *testing.T) {
	g := newGated(t, gate.RuleSet{Tickets: []gate.TicketRule{{ID: "t", Activity: "act", Mode: gate.On, Lead: "60s"}}})
	g.sold.OpensAt = noon.Time().Add(2 * time.Minute)
	const tickets = "/v1/activities/act/tickets"
	if a := g.do(t, "GET", "/v1/activities/act", ""); !strings.Contains(a.body, `"needs":["ticket"]`) {
		t.Errorf("the activity says %s", a.body)
	}
	early := g.as(t, "ann", "POST", tickets, "")
	early.is(t, 409, "not_open")
	if field(t, early, "tickets_at") != "2030-01-01T12:01:00.123Z" || field(t, early, "opens_at") != "2030-01-01T12:02:00.123Z" {
		t.Errorf("too early: %s", early.body)
	}
	g.clock.pass(time.Minute)
	a := g.as(t, "ann", "POST", tickets, "")
	if a.status != 201 || field(t, a, "expires_at") == "" {
		t.Fatalf("ticket: %d %s", a.status, a.body)
	}
	ticket := field(t, a, "ticket")
	refused := g.as(t, "ann", "POST", buying, oneLamp)
	refused.is(t, 403, "ticket_required")
	if field(t, refused, "rule") != "t" {
		t.Errorf("names no rule: %s", refused.body)
	}
	with := fmt.Sprintf(oneLampBy, "ticket", ticket)
	g.as(t, "bob", "POST", buying, with).is(t, 403, "ticket_required") // it is ann's
	g.as(t, "ann", "POST", "/v1/activities/other/purchases", with)
	if a := g.as(t, "ann", "POST", buying, with); a.status != 202 {
		t.Errorf("with a ticket: %d %s", a.status, a.body)
	}
	g.as(t, "ann", "POST", buying, with).is(t, 403, "not_eligible") // the ledger knows it is used
	g.as(t, "ann", "POST", "/v1/activities/none/tickets", "").is(t, 404, "no_such_activity")
	g.sold.SoldOut = true
	g.as(t, "ann", "POST", tickets, "").is(t, 409, "sold_out")
	if last, ok := g.server.LastRefusal("act", "bob"); !ok || last.Code != "ticket_required" || last.Rule != "t" {
		t.Errorf("bob's last refusal: %+v", last)
	}
}

// A challenge is solved once, for one purchase.
func TestChallenge(t *testing.T) {
	g := newGated(t, gate.RuleSet{Challenges: []gate.Challenge{{ID: "all", Mode: gate.On, When: gate.Always, Kind: gate.Arithmetic}}})
	const challenges, answers = "/v1/activities/act/challenges", "/v1/activities/act/challenges/answers"
	g.as(t, "ann", "POST", challenges, "").is(t, 503, "overloaded") // no picture is ready
	for range 8 {
		if _, err := g.desk.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.clock.pass(time.Second)
	}
	g.as(t, "ann", "POST", buying, oneLamp).is(t, 403, "challenge_required")
	a := g.as(t, "ann", "POST", challenges, "{}")
	if a.status != 201 || field(t, a, "kind") != "arithmetic" || !strings.HasPrefix(field(t, a, "image"), "data:image/") {
		t.Fatalf("challenge: %d %.200s", a.status, a.body)
	}
	token := field(t, a, "challenge")
	right, ok := challenge.Solve(secret, "act", "ann", token)
	if !ok {
		t.Fatal("cannot be solved")
	}
	body := fmt.Sprintf(`{"challenge":%q,"answer":%d}`, token, right)
	g.clock.pass(time.Second)
	g.as(t, "bob", "POST", answers, body).is(t, 403, "challenge_failed")
	solved := g.as(t, "ann", "POST", answers, body)
	if solved.status != 200 {
		t.Fatalf("solved: %d %s", solved.status, solved.body)
	}
	g.as(t, "ann", "POST", answers, body).is(t, 403, "challenge_failed") // answered
	with := fmt.Sprintf(oneLampBy, "clearance", field(t, solved, "clearance"))
	g.as(t, "bob", "POST", buying, with).is(t, 403, "challenge_required")
	if a := g.as(t, "ann", "POST", buying, with); a.status != 202 {
		t.Errorf("with a clearance: %d %s", a.status, a.body)
	}
	g.as(t, "ann", "POST", buying, with).is(t, 403, "not_eligible")

	for _, bad := range []string{`{}`, `{"challenge":"x"}`, `{"answer":1}`, `{"challenge":"x","answer":"1"}`, `{"challenge":"x","answer":1.5}`,
		`{"challenge":"x","answer":1,"more":2}`, `{"challenge":"x","answer":1,"answer":1}`, `[]`, `{"challenge":"` + strings.Repeat("x", maxChallenge+1) + `","answer":1}`} {
		g.as(t, "ann", "POST", answers, bad).is(t, 400, "invalid_request")
	}
}

// The whole way through a waiting room: too early, registered, drawn, called,
// bought with the pass, and checked by anybody.
func TestQueue(t *testing.T) {
	g := newGated(t, gate.RuleSet{Rooms: []gate.RoomRule{{ID: "room", Activity: "act", Mode: gate.On, Opens: "10m"}}})
	g.sold.OpensAt = noon.Time().Add(20 * time.Minute)
	g.turn(t, time.Second)
	g.as(t, "ann", "GET", queueing, "").is(t, 409, "no_queue")
	early := g.as(t, "ann", "POST", queueing, "")
	early.is(t, 409, "not_open")
	if field(t, early, "queue_opens_at") != "2030-01-01T12:10:00.123Z" {
		t.Errorf("too early: %s", early.body)
	}
	g.turn(t, 11*time.Minute)
	g.turn(t, time.Second)
	users := []string{"ann", "bob", "cid", "dan"}
	entries := map[string]string{}
	commitment := ""
	for i, u := range users {
		a := g.as(t, u, "POST", queueing, "")
		if a.status != 200 || field(t, a, "state") != "registered" || fmt.Sprint(a.fields["number"]) != fmt.Sprint(i) {
			t.Fatalf("%s joins: %d %s", u, a.status, a.body)
		}
		if again := g.as(t, u, "POST", queueing, ""); fmt.Sprint(again.fields["number"]) != fmt.Sprint(i) {
			t.Errorf("%s joins again: %s", u, again.body)
		}
		entries[u], commitment = field(t, a, "entry"), field(t, a, "commitment")
	}
	g.as(t, "eve", "GET", queueing, "").is(t, 404, "not_queued")
	waits := g.as(t, "ann", "POST", buying, oneLamp)
	waits.is(t, 429, "queued")
	if field(t, waits, "queue") != queueing || field(t, waits, "rule") != "room" || waits.header.Get("Retry-After") == "" {
		t.Errorf("without a pass: %s", waits.body)
	}
	if d := g.do(t, "GET", queueing+"/draw", "", "Authorization: "); d.fields["drawn"] != false || d.fields["seed"] != nil || field(t, d, "commitment") != commitment {
		t.Errorf("before the draw: %s", d.body)
	}
	g.turn(t, 10*time.Minute)
	for _, u := range users { // all are there
		g.as(t, u, "GET", queueing, "")
	}
	for range 5 {
		g.turn(t, 300*time.Millisecond)
	}
	draw := g.do(t, "GET", queueing+"/draw", "", "Authorization: ")
	list := g.do(t, "GET", queueing+"/draw/entries?from=0", "", "Authorization: ")
	first := g.checkDraw(t, draw, list, commitment)

	called := ""
	for _, u := range users {
		a := g.as(t, u, "GET", queueing, "")
		switch field(t, a, "state") {
		case "called":
			if called != "" {
				t.Errorf("%s and %s are called for one unit", called, u)
			}
			called = u
		case "waiting":
			if a.fields["position"] == nil || a.fields["poll_after_ms"] == nil {
				t.Errorf("%s waits: %s", u, a.body)
			}
		default:
			t.Errorf("%s: %s", u, a.body)
		}
	}
	if called == "" || entries[called] != first {
		t.Fatalf("called is %q, drawn first was %s of %v", called, first, entries)
	}
	pass := field(t, g.as(t, called, "GET", queueing, ""), "pass")
	with := fmt.Sprintf(oneLampBy, "pass", pass)
	for _, u := range users {
		if u != called {
			g.as(t, u, "POST", buying, with).is(t, 429, "queued")
		}
	}
	if a := g.as(t, called, "POST", buying, with); a.status != 202 {
		t.Fatalf("with a pass: %d %s", a.status, a.body)
	}
	// Another pass of the same place is the same claim.
	with = fmt.Sprintf(oneLampBy, "pass", field(t, g.as(t, called, "GET", queueing, ""), "pass"))
	g.as(t, called, "POST", buying, with).is(t, 403, "not_eligible")
	if a := g.as(t, called, "POST", queueing+"/leave", ""); a.status != 204 {
		t.Errorf("leave: %d %s", a.status, a.body)
	}
	g.do(t, "GET", queueing+"/draw/entries?from=x", "").is(t, 400, "invalid_request")
	g.do(t, "PUT", queueing, "").is(t, 405, "method_not_allowed")
}

// checkDraw does what anybody can: it answers the entry that was drawn first.
func (g *gated) checkDraw(t *testing.T, draw, list answer, commitment string) (first string) {
	t.Helper()
	seed, _ := hex.DecodeString(field(t, draw, "seed"))
	if sum := sha256.Sum256(seed); hex.EncodeToString(sum[:]) != commitment {
		t.Errorf("the seed is not the one committed to: %s", draw.body)
	}
	entries := list.fields["entries"].([]any)
	var all []byte
	for _, e := range entries {
		raw, _ := hex.DecodeString(e.(string))
		all = append(all, raw...)
	}
	digest := sha256.Sum256(all)
	if field(t, draw, "digest") != hex.EncodeToString(digest[:]) || fmt.Sprint(draw.fields["drawn_entries"]) != fmt.Sprint(len(entries)) {
		t.Errorf("the entries are not those drawn: %s %s", draw.body, list.body)
	}
	least := ""
	for i, e := range entries {
		h := sha256.Sum256(append(append(append([]byte{}, seed...), digest[:]...), 0, 0, 0, 0, 0, 0, 0, byte(i)))
		if least == "" || string(h[:]) < least {
			least, first = string(h[:]), e.(string)
		}
	}
	return first
}

// A stream tells the place at once and when it changes, and ends with the call.
func TestPlaceEvents(t *testing.T) {
	g := newGated(t, gate.RuleSet{Rooms: []gate.RoomRule{{ID: "room", Activity: "act", Mode: gate.On}}})
	g.turn(t, time.Second)
	g.turn(t, time.Second)
	g.units = waiting.Stock{}
	if a := g.as(t, "ann", "POST", queueing, ""); a.status != 200 || field(t, a, "state") != "waiting" {
		t.Fatalf("join: %d %s", a.status, a.body)
	}
	g.as(t, "bob", "GET", queueing+"/events", "").is(t, 404, "not_queued")
	r, err := http.NewRequestWithContext(t.Context(), "GET", g.url+queueing+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+mint(t, "ann", g.clock.Now()))
	reply, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	lines := bufio.NewScanner(reply.Body)
	next := func() string {
		t.Helper()
		for lines.Scan() {
			if doc, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return doc
			}
		}
		return ""
	}
	if doc := next(); !strings.Contains(doc, `"state":"waiting"`) {
		t.Fatalf("first: %s", doc)
	}
	g.units.Free = 1
	for range 40 { // the slot of the stream comes within placeEvery
		g.turn(t, 200*time.Millisecond)
		if _, err := g.server.places.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for doc := next(); !strings.Contains(doc, `"pass":"`); doc = next() {
		if doc == "" {
			t.Fatal("ended without a call")
		}
	}
	if lines.Scan() && strings.TrimSpace(lines.Text()) != "" || lines.Scan() {
		t.Errorf("more after the call: %q", lines.Text())
	}
	if n := g.server.open.Count(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

// stands is a queue in which everybody waits.
type stands struct{ nobody }

func (stands) Place(context.Context, string, string) (entrance.Place, error) {
	return entrance.Place{Place: waiting.Place{State: waiting.Waiting}}, nil
}

// Streams of places and of reservations share one bound and are counted together.
func TestBothKindsOfStreamsAreBoundedTogether(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Limits.Streams, c.Queue = 2, stands{} })
	place, event := b.followAt(t, queueing+"/events"), b.follow(t)
	expect(t, place.Body, "event: place\ndata: {")
	expect(t, event.Body, heldEvent)
	if n := b.server.Metrics().Streams; n != 2 {
		t.Errorf("%d streams are counted, of 2", n)
	}
	for _, path := range []string{eventsPath, queueing + "/events"} {
		b.do(t, "GET", path, "").is(t, 503, "overloaded")
	}
	b.server.places.close()
	b.attached(t, 1)
	expect(t, b.follow(t).Body, heldEvent)
	b.attached(t, 2)
}

// The clock of activities and rooms does not follow a step of the machine's, and the
// door does: a ticket and a pass are good for as long as they say all the same.
func TestSlipsAfterAStepOfTheClock(t *testing.T) {
	for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		ticketed := newGated(t, gate.RuleSet{Tickets: []gate.TicketRule{{ID: "t", Activity: "act", Mode: gate.On}}})
		ticketed.step = step
		with := fmt.Sprintf(oneLampBy, "ticket", field(t, ticketed.as(t, "ann", "POST", "/v1/activities/act/tickets", ""), "ticket"))
		if a := ticketed.as(t, "ann", "POST", buying, with); a.status != 202 {
			t.Errorf("with a ticket, clock by %v: %d %s", step, a.status, a.body)
		}
		ticketed.clock.pass(time.Hour)
		ticketed.as(t, "ann", "POST", buying, with).is(t, 403, "ticket_required")

		queued := newGated(t, gate.RuleSet{Rooms: []gate.RoomRule{{ID: "room", Activity: "act", Mode: gate.On}}})
		queued.step = step
		queued.turn(t, time.Second)
		queued.turn(t, time.Second)
		queued.as(t, "ann", "POST", queueing, "")
		for range 5 {
			queued.turn(t, 300*time.Millisecond)
		}
		with = fmt.Sprintf(oneLampBy, "pass", field(t, queued.as(t, "ann", "GET", queueing, ""), "pass"))
		if a := queued.as(t, "ann", "POST", buying, with); a.status != 202 {
			t.Errorf("with a pass, clock by %v: %d %s", step, a.status, a.body)
		}
		queued.clock.pass(time.Hour)
		queued.as(t, "ann", "POST", buying, with).is(t, 429, "queued")
	}
}
