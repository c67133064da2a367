package fleet_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/waiting"
	"sluice/test/fleet"
)

// gated is a fleet of two gateways and two workers with everything of the gate on
// its sales.
type gated struct {
	*shop
	one, other string // the gateways
	secret     []byte
}

func openGated(t *testing.T) *gated {
	t.Helper()
	g := &gated{shop: open(t, fleet.Options{Workers: 2})}
	g.one, g.other = "http://"+g.Gateways[0].Addr, "http://"+g.Gateways[1].Addr
	var err error
	if g.secret, err = gate.ReadKey(g.Root); err != nil {
		t.Fatal(err)
	}
	g.operate(201, "POST", "/v1/skus", `{"id":"cup","title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`)
	return g
}

// plan puts cups on sale from a moment on.
func (g *gated) plan(activity string, opens time.Time, units int) {
	g.Helper()
	g.operate(201, "POST", "/v1/activities", fmt.Sprintf(
		`{"id":%q,"kind":"flash","title":"Cups","opens_at":%q,"items":[{"sku":"cup","units":%d,"per_user":2,"per_order":2}],"hold_seconds":600}`,
		activity, opens.UTC().Format("2006-01-02T15:04:05.000Z"), units))
}

// rules replaces all rules.
func (g *gated) rules(sections string) {
	g.Helper()
	version := g.operate(200, "GET", "/v1/rules", "")["version"]
	g.operate(200, "PUT", "/v1/rules", fmt.Sprintf(`{"version":%v,%s}`, version, sections))
}

// ask asks something of the gate before an activity at a gateway.
func (g *gated) ask(at, method, activity, path, user, body string) reply {
	g.Helper()
	return g.call(method, at+"/v1/activities/"+activity+"/"+path, g.token(user), body)
}

// purchase shows something ("pass", "ticket", "clearance"); "" shows nothing.
func (g *gated) purchase(at, activity, user, key, what, slip string) reply {
	g.Helper()
	body := `{"sku":"cup","quantity":1}`
	if what != "" {
		body = fmt.Sprintf(`{"sku":"cup","quantity":1,%q:%q}`, what, slip)
	}
	return g.call("POST", at+"/v1/activities/"+activity+"/purchases", g.token(user), body, "Idempotency-Key", key)
}

// once buys at both gateways at the same time with one slip, by several keys:
// one of them is accepted, and the others are told that it was used.
func (g *gated) once(activity, user, what, slip string) {
	g.Helper()
	const tries = 4
	said := make([]reply, tries)
	var all sync.WaitGroup
	for i := range tries {
		all.Go(func() {
			said[i] = g.purchase([]string{g.one, g.other}[i%2], activity, user, fmt.Sprint("k", i), what, slip)
		})
	}
	all.Wait()
	bought, used := 0, 0
	for _, r := range said {
		switch {
		case r.status == 202:
			bought++
		case r.status == 403 && r.body["code"] == "not_eligible":
			used++
		}
	}
	if bought != 1 || used != tries-1 {
		g.Errorf("%s shows one %s %d times: %v", user, what, tries, said)
	}
}

func TestGate(t *testing.T) {
	g := openGated(t)
	opens := time.Now().Add(9 * time.Second)
	g.plan("drop", opens, 200)
	g.plan("vip", time.Now().Add(time.Second), 200)
	g.plan("tick", time.Now().Add(time.Second), 200)
	g.rules(`"rules":[{"id":"crowd","class":"purchases","activity":"tick","key":[],"mode":"on","percent":100,"scope":"fleet",
			"rate":{"algorithm":"token","limit":200,"per":"1s","burst":200}}],` + sections("0.02"))
	c := g.crowd("drop", 130)
	g.slips()
	g.onceForAll()
	g.limits()
	c.drawn(opens)
	c.calls()
	g.live()
	c.without()
}

// sections are the rooms, tickets and challenges of this test.
func sections(rate string) string {
	return `"rooms":[{"id":"room","activity":"drop","mode":"on","opens":"10m","pass":"10m","rate":` + rate + `},
			{"id":"small","activity":"vip","mode":"on"}],
		"tickets":[{"id":"ticket","activity":"vip","mode":"on"},{"id":"paper","activity":"tick","mode":"on","lead":"1h"}],
		"challenges":[{"id":"puzzle","activity":"vip","mode":"on","when":"always"}]`
}

// clear solves a challenge of one gateway at another.
func (g *gated) clear(asked, answered, activity, user string) (token string, answer int, clearance string) {
	g.Helper()
	var offer reply
	g.eventually("a challenge is ready", func() bool {
		offer = g.ask(asked, "POST", activity, "challenges", user, "{}")
		return offer.status == 201
	})
	token = offer.body["challenge"].(string)
	answer, ok := challenge.Solve(g.secret, activity, user, token)
	if !ok {
		g.Fatal("a challenge that is nobody's")
	}
	seen := time.After(challenge.Earliest + 50*time.Millisecond)
	<-seen
	solved := g.answer(answered, activity, user, token, answer)
	if solved.status != 200 {
		g.Fatalf("the right answer, at another gateway: %s", solved)
	}
	return token, answer, solved.body["clearance"].(string)
}

func (g *gated) answer(at, activity, user, token string, answer int) reply {
	g.Helper()
	return g.ask(at, "POST", activity, "challenges/answers", user, fmt.Sprintf(`{"challenge":%q,"answer":%d}`, token, answer))
}

// slips: what is handed out by one gateway is used up at the other.
func (g *gated) slips() {
	g.Helper()
	g.eventually("the room of vip is open at both", func() bool {
		return g.ask(g.one, "GET", "vip", "queue/draw", "ann", "").status == 200 && g.ask(g.other, "GET", "vip", "queue/draw", "ann", "").status == 200
	})
	token, answer, clearance := g.clear(g.one, g.other, "vip", "ann")
	for _, at := range []string{g.one, g.other} {
		if r := g.answer(at, "vip", "ann", token, answer); r.body["code"] != "challenge_failed" {
			g.Errorf("answered again: %s", r)
		}
	}
	shown := fmt.Sprintf(`{"clearance":%q}`, clearance)
	if r := g.ask(g.other, "POST", "vip", "queue", "bob", shown); r.body["code"] != "challenge_required" {
		g.Errorf("bob shows ann's clearance: %s", r)
	}
	if r := g.ask(g.one, "POST", "vip", "tickets", "ann", shown); r.status != 201 {
		g.Errorf("a ticket: %s", r)
	}
	if r := g.ask(g.other, "POST", "vip", "queue", "ann", shown); r.body["code"] != "challenge_required" || r.body["rule"] != "puzzle" {
		g.Errorf("a clearance that was used for a ticket: %s", r)
	}
}

// onceForAll: a ticket buys once, at whichever gateway.
func (g *gated) onceForAll() {
	g.Helper()
	g.eventually("tick is open at both", func() bool {
		return g.purchase(g.one, "tick", "nobody", "k", "", "").body["code"] == "ticket_required" && g.purchase(g.other, "tick", "nobody", "k", "", "").body["code"] == "ticket_required"
	})
	for _, user := range []string{"ann", "bob", "cyn"} { // of several buckets
		r := g.ask(g.one, "POST", "tick", "tickets", user, "")
		if r.status != 201 {
			g.Fatalf("a ticket: %s", r)
		}
		g.once("tick", user, "ticket", r.body["ticket"].(string))
	}
}

// limits: a rule of the fleet is kept over both gateways.
func (g *gated) limits() {
	g.Helper()
	const perSecond, burst, lasts = 200, 200, 2 * time.Second
	var overshoot int64
	rows := g.operate(200, "GET", "/v1/rules", "")["counts"].([]any)
	for _, row := range rows {
		if shared, ok := row.(map[string]any)["shared"].(map[string]any); ok {
			overshoot = int64(shared["overshoot"].(float64))
		}
	}
	var mu sync.Mutex
	let, limited := map[string]int64{}, 0
	began := time.Now()
	var all sync.WaitGroup
	for _, at := range []string{g.one, g.other} {
		for n := range 4 {
			all.Go(func() {
				for i := 0; time.Since(began) < lasts; i++ {
					r := g.purchase(at, "tick", fmt.Sprint("flood", n), fmt.Sprint(i), "", "")
					mu.Lock()
					if r.body["code"] == "rate_limited" {
						limited++
					} else {
						let[at]++
					}
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	sum, most := let[g.one]+let[g.other], burst+int64(time.Since(began).Seconds()*perSecond)+overshoot
	g.Logf("limit of the fleet: %v let through, at most %d; %d limited", let, most, limited)
	if sum > most || sum < perSecond || limited == 0 || let[g.one] == 0 || let[g.other] == 0 {
		g.Errorf("%v let through, at most %d; %d limited", let, most, limited)
	}
}

// crowd are people in a waiting room, half of whom came in at each gateway.
type crowd struct {
	*gated
	activity string
	names    []string
	number   map[string]float64
	entry    map[string]string
	place    map[string]int // once it has been drawn
	pass     map[string]string
	promised any // the commitment
}

func (g *gated) crowd(activity string, people int) *crowd {
	g.Helper()
	c := &crowd{gated: g, activity: activity, number: map[string]float64{}, entry: map[string]string{}, place: map[string]int{}, pass: map[string]string{}}
	g.eventually("the room is open at both", func() bool {
		return g.ask(g.one, "GET", activity, "queue/draw", "nobody", "").status == 200 && g.ask(g.other, "GET", activity, "queue/draw", "nobody", "").status == 200
	})
	c.promised = g.ask(g.one, "GET", activity, "queue/draw", "nobody", "").body["commitment"]
	taken := map[float64]bool{}
	for i := range people {
		name := fmt.Sprint("w", i)
		ats := []string{g.one, g.other}
		if i%2 == 1 {
			slices.Reverse(ats)
		}
		r := g.ask(ats[0], "POST", activity, "queue", name, "")
		if r.status != 200 || r.body["state"] != "registered" {
			g.Fatalf("%s joins: %s", name, r)
		}
		c.names = append(c.names, name)
		c.number[name], c.entry[name] = r.body["number"].(float64), r.body["entry"].(string)
		if taken[c.number[name]] {
			g.Errorf("number %v twice", c.number[name])
		}
		taken[c.number[name]] = true
		c.same(ats[1], name, "GET")
		c.same(ats[1], name, "POST")
	}
	return c
}

// same checks that somebody is known at a gateway as he is to others.
func (c *crowd) same(at, name, method string) reply {
	c.Helper()
	r := c.ask(at, method, c.activity, "queue", name, "")
	if r.status != 200 || r.body["number"] != c.number[name] || r.body["entry"] != c.entry[name] {
		c.Errorf("%s of %s, number %v, entry %s: %s", method, name, c.number[name], c.entry[name], r)
	}
	return r
}

// drawn: the draw is the same at both gateways, can be checked, and everybody has at both
// the place that follows from it.
func (c *crowd) drawn(opens time.Time) {
	c.Helper()
	<-time.After(time.Until(opens))
	c.eventually("drawn at both", func() bool {
		return c.ask(c.one, "GET", c.activity, "queue/draw", "nobody", "").body["drawn"] == true &&
			c.ask(c.other, "GET", c.activity, "queue/draw", "nobody", "").body["drawn"] == true
	})
	said := c.ask(c.one, "GET", c.activity, "queue/draw", "nobody", "")
	if again := c.ask(c.other, "GET", c.activity, "queue/draw", "nobody", ""); !maps.Equal(said.body, again.body) || said.body["commitment"] != c.promised {
		c.Fatalf("draws %s, %s, commitment %v", said, again, c.promised)
	}
	bytes := func(name string) (b [32]byte) {
		raw, err := hex.DecodeString(said.body[name].(string))
		if err != nil || copy(b[:], raw) != len(b) {
			c.Fatalf("%s: %s", name, said)
		}
		return b
	}
	draw := waiting.Draw{Commitment: bytes("commitment"), Drawn: true, Seed: bytes("seed"), Entries: int(said.body["drawn_entries"].(float64)), Digest: bytes("digest")}
	var entries []waiting.EntryID
	for _, text := range c.ask(c.other, "GET", c.activity, "queue/draw/entries", "nobody", "").body["entries"].([]any) {
		raw, _ := hex.DecodeString(text.(string))
		entries = append(entries, waiting.EntryID(raw))
	}
	places, err := draw.Verify(draw.Commitment, entries)
	if err != nil || len(places) != len(c.names) {
		c.Fatalf("%d places, %v", len(places), err)
	}
	for _, name := range c.names {
		c.place[name] = int(places[int(c.number[name])])
		for _, at := range []string{c.one, c.other} {
			if r := c.same(at, name, "GET"); r.body["state"] != "waiting" || r.body["position"] != float64(c.place[name]+1) {
				c.Errorf("%s has place %d: %s", name, c.place[name], r)
			}
		}
	}
}

// poll asks for everybody's place once, each at the next of the gateways, and
// answers how many have been called.
func (c *crowd) poll(turn int, ats ...string) int {
	c.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := part; i < len(c.names); i += 4 {
				name := c.names[i]
				r := c.same(ats[(i+turn)%len(ats)], name, "GET")
				pass, _ := r.body["pass"].(string)
				mu.Lock()
				// None where there was one: this gateway sees the call a moment later.
				if had := c.pass[name]; had != "" && pass != "" && idOf(had) != idOf(pass) {
					c.Errorf("%s had pass %s, has %s", name, had, pass)
				}
				if pass != "" {
					c.pass[name] = pass
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return len(c.pass)
}

// stream sends the states of somebody's place as they come.
func (c *crowd) stream(at, name string) <-chan string {
	c.Helper()
	return c.events(at+"/v1/activities/"+c.activity+"/queue/events", name, func(event map[string]any) string { return fmt.Sprint(event["state"]) })
}

// idOf is what the ledger knows a pass by.
func idOf(pass string) string {
	parts := strings.Split(pass, ".")
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// calls: people are called at both gateways while the worker that calls is killed,
// then the store, and then a gateway.
func (c *crowd) calls() {
	c.Helper()
	var early string // who is called soon
	for name, place := range c.place {
		if place == 5 {
			early = name
		}
	}
	told := c.stream(c.URL(), early)
	if state := c.next(told); state != "waiting" {
		c.Errorf("the stream begins with %s", state)
	}
	c.rules(`"rules":[],` + sections("20"))
	turn := 0
	until := func(what string, n int, ats ...string) {
		c.Helper()
		began := time.Now()
		c.eventually(what, func() bool { turn++; return c.poll(turn, ats...) >= n })
		c.Logf("%s: %d called after %v", what, len(c.pass), time.Since(began).Round(10*time.Millisecond))
	}
	until("some are called", 12, c.one, c.other)
	leader := c.caller()
	leader.Kill()
	c.Logf("%s called, and was killed", leader.Name)
	until("another calls", len(c.pass)+12, c.one, c.other)
	if now := c.caller(); now == leader {
		c.Errorf("%s still calls", now.Name)
	}
	// For longer than the caller's lease, which is in the store.
	c.SQL.Kill()
	until("while the store is away", len(c.pass)+75, c.one, c.other)
	if err := c.SQL.Restart(); err != nil {
		c.Fatal(err)
	}
	for state := c.next(told); state != "called"; state = c.next(told) {
		if state != "waiting" {
			c.Fatalf("the stream says %s", state)
		}
	}
	c.Gateways[1].Kill()
	until("at one gateway", len(c.names), c.one)
	ids := map[string]bool{}
	for _, pass := range c.pass {
		ids[idOf(pass)] = true
	}
	if len(ids) != len(c.names) {
		c.Errorf("%d passes of %d people", len(ids), len(c.names))
	}
	for _, p := range []*fleet.Process{c.Gateways[1], leader} {
		if err := p.Restart(); err != nil {
			c.Fatal(err)
		}
	}
	for _, name := range c.names {
		if r := c.same(c.other, name, "GET"); r.body["state"] != "called" || idOf(r.body["pass"].(string)) != idOf(c.pass[name]) {
			c.Errorf("%s after a restart: %s, pass %s", name, r, c.pass[name])
		}
	}
	for _, name := range c.names[:12] {
		c.once(c.activity, name, "pass", c.pass[name])
	}
	if r := c.purchase(c.one, c.activity, c.names[13], "k", "pass", c.pass[c.names[12]]); r.body["code"] != "queued" {
		c.Errorf("somebody else's pass: %s", r)
	}
}

// caller is the worker that calls, as its log tells.
func (c *crowd) caller() *fleet.Process {
	c.Helper()
	var last *fleet.Process
	var since string
	for _, w := range c.Workers {
		text, err := os.ReadFile(filepath.Join(w.Dir, w.Name+".log"))
		if err != nil {
			c.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "this process does it now") && strings.Contains(line, "calls from waiting rooms") {
				if at, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " "); at > since {
					last, since = w, at
				}
			}
		}
	}
	if last == nil {
		c.Fatal("nobody calls")
	}
	return last
}

// live: what is saved at the console is in force at both gateways within a second,
// and a playbook outlives the console that pulled it.
func (g *gated) live() {
	g.Helper()
	within := func(what string, method, path, body string, inForce func(at string) bool) {
		g.Helper()
		began := time.Now()
		g.operate(200, method, path, body)
		for _, at := range []string{g.one, g.other} {
			g.eventually(what, func() bool { return inForce(at) })
		}
		took := time.Since(began)
		g.Logf("%s: in force at both after %v", what, took.Round(time.Millisecond))
		if took > 1500*time.Millisecond {
			g.Errorf("%s took %v", what, took)
		}
	}
	ask := func(at, user string) reply { return g.purchase(at, "tick", user, "k9", "", "") }
	version := g.operate(200, "GET", "/v1/rules", "")["version"]
	within("a rule", "PUT", "/v1/rules", fmt.Sprintf(`{"version":%v,"rules":[],%s,"eligibility":[{"id":"adults","activity":"tick","mode":"on","when":"!(user startsWith \"kid\")"}]}`,
		version, sections("20")), func(at string) bool { return ask(at, "kid1").body["rule"] == "adults" })
	within("a list", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["dan"],"reason":"resells"}`,
		func(at string) bool { return ask(at, "dan").body["rule"] == "blacklist" })
	readOnly := func(at string) bool { return ask(at, "eve").body["rule"] == "playbook:readonly" }
	within("a playbook", "POST", "/v1/playbooks/readonly/pull", `{"reason":"the database moves"}`, readOnly)
	g.Console.Kill()
	if err := g.Console.Restart(); err != nil {
		g.Fatal(err)
	}
	if pulled := g.operate(200, "GET", "/v1/playbooks/readonly", "")["pulled"]; pulled == nil || !readOnly(g.one) || !readOnly(g.other) {
		g.Errorf("after the console was killed: %v", pulled)
	}
	within("a playbook is reverted", "POST", "/v1/playbooks/readonly/revert", "", func(at string) bool { return !readOnly(at) })
}

// without: Redis freezes, and is killed. Whoever asks is told so in time, and
// finds everything as it was when it is back.
func (c *crowd) without() {
	c.Helper()
	offers := map[string]string{}
	for _, at := range []string{c.one, c.other} {
		c.eventually("a challenge is ready", func() bool {
			r := c.ask(at, "POST", "vip", "challenges", "fay", "{}")
			offers[at], _ = r.body["challenge"].(string)
			return r.status == 201
		})
	}
	_, _, clearance := c.clear(c.one, c.other, "vip", "gus")
	var ticket reply
	if ticket = c.ask(c.one, "POST", "tick", "tickets", "gus", ""); ticket.status != 201 {
		c.Fatalf("a ticket: %s", ticket)
	}
	fresh := 0
	while := func(state string, patience time.Duration) {
		c.Helper()
		fresh++
		var mu sync.Mutex
		var all sync.WaitGroup
		try := func(what string, status int, code string, do func(at string) reply) {
			for _, at := range []string{c.one, c.other} {
				all.Go(func() {
					began := time.Now()
					r := do(at)
					took := time.Since(began).Round(time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					c.Logf("%s, %s: %d %v after %v", state, what, r.status, r.body["code"], took)
					if r.status != status || code != "" && r.body["code"] != code || took > patience {
						c.Errorf("%s, %s: %s after %v", state, what, r, took)
					}
				})
			}
		}
		try("join", 503, "", func(at string) reply { return c.ask(at, "POST", "drop", "queue", fmt.Sprint("late", fresh), "") })
		try("place of a stranger", 503, "", func(at string) reply { return c.ask(at, "GET", "drop", "queue", fmt.Sprint("stranger", fresh), "") })
		try("place", 200, "", func(at string) reply { return c.ask(at, "GET", "drop", "queue", c.names[20], "") })
		try("draw", 200, "", func(at string) reply { return c.ask(at, "GET", "drop", "queue/draw", "nobody", "") })
		try("entries", 503, "", func(at string) reply { return c.ask(at, "GET", "drop", "queue/draw/entries", "nobody", "") })
		try("ticket", 201, "", func(at string) reply { return c.ask(at, "POST", "tick", "tickets", "hal", "") })
		try("ticket for a clearance", 503, "overloaded", func(at string) reply {
			return c.ask(at, "POST", "vip", "tickets", "gus", fmt.Sprintf(`{"clearance":%q}`, clearance))
		})
		try("challenge", 201, "", func(at string) reply { return c.ask(at, "POST", "vip", "challenges", "ida", "{}") })
		try("answer", 503, "", func(at string) reply {
			answer, _ := challenge.Solve(c.secret, "vip", "fay", offers[at])
			return c.answer(at, "vip", "fay", offers[at], answer)
		})
		try("purchase with a pass", 503, "", func(at string) reply {
			return c.purchase(at, "drop", c.names[20], "k", "pass", c.pass[c.names[20]])
		})
		try("purchase with a ticket", 503, "", func(at string) reply {
			return c.purchase(at, "tick", "gus", "k", "ticket", ticket.body["ticket"].(string))
		})
		all.Wait()
	}
	c.Redis.Pause()
	while("frozen", 6*time.Second)
	c.Redis.Resume()
	c.Redis.Kill()
	while("killed", 6*time.Second)
	if err := c.Redis.Restart(); err != nil {
		c.Fatal(err)
	}
	began := time.Now()
	c.eventually("gus buys with his ticket", func() bool {
		return c.purchase(c.one, "tick", "gus", "k", "ticket", ticket.body["ticket"].(string)).status == 202
	})
	c.Logf("sells again %v after redis is back", time.Since(began).Round(time.Millisecond))
	c.eventually("somebody joins", func() bool { return c.ask(c.other, "POST", "drop", "queue", "jan", "").status == 200 })
	if r := c.ask(c.other, "GET", "drop", "queue", "jan", ""); r.body["number"].(float64) < float64(len(c.names)) {
		c.Errorf("a number of somebody else: %s", r)
	}
	for _, at := range []string{c.one, c.other} {
		for _, name := range c.names {
			c.same(at, name, "POST")
		}
	}
	c.once("drop", c.names[21], "pass", c.pass[c.names[21]])
	if r := c.purchase(c.other, "drop", c.names[0], "again", "pass", c.pass[c.names[0]]); r.body["code"] != "not_eligible" {
		c.Errorf("a pass that was used before: %s", r)
	}
}
