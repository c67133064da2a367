package storm

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// stallGate is a gate in front of a stall, with the API of the real one: rules,
// challenges, tickets and a waiting room. Its challenges can be read by whoever
// knows how, and its slips are lists of words.
type stallGate struct {
	rules   map[string][]map[string]any
	version int
	puts    int // of rules

	line    []string // users in the order in which they are called
	drawn   bool
	numbers map[string]int // places that have been given out
	spent   map[string]bool

	addresses map[string]map[string]bool // → accounts
	agents    map[string]map[string]bool // → accounts
	hasty     map[string]int             // requests before the opening, by agent
}

// callEvery is how long the gate waits between two calls.
const callEvery = 20 * time.Millisecond

func openGate(s *stall) *stallGate {
	s.gate = &stallGate{numbers: map[string]int{}, spent: map[string]bool{}, addresses: map[string]map[string]bool{},
		agents: map[string]map[string]bool{}, hasty: map[string]int{},
		rules: map[string][]map[string]any{"rules": {{"id": "user", "class": "purchases"}}, "eligibility": {{"id": "adults", "activity": "other"}}}}
	return s.gate
}

// rule answers the rule of a section that concerns the stall's activity.
func (g *stallGate) rule(s *stall, section string) map[string]any {
	for _, r := range g.rules[section] {
		if r["activity"] == s.activity {
			return r
		}
	}
	return nil
}

func (g *stallGate) serve(s *stall, ctx *fasthttp.RequestCtx, method string, at func(int) string) bool {
	if at(1) == "rules" {
		g.edit(s, ctx, method)
		return true
	}
	user, ok := s.user(ctx)
	if at(1) != "activities" || at(2) == "" || !ok {
		return false
	}
	g.note(s, ctx, user)
	var shown showing
	_ = json.Unmarshal(ctx.PostBody(), &shown) // of no body nothing is shown
	switch at(3) {
	case "":
		needs := []string{}
		if g.rule(s, "rooms") != nil {
			needs = append(needs, "queue")
		}
		if g.rule(s, "tickets") != nil {
			needs = append(needs, "ticket")
		}
		s.reply(ctx, 200, map[string]any{"id": s.activity, "opens_at": s.opens.Format(time.RFC3339Nano), "needs": needs})
	case "challenges":
		g.challenge(s, ctx, user, at(4) == "answers")
	case "tickets":
		switch lead, _ := time.ParseDuration(fmt.Sprint(g.rule(s, "tickets")["lead"])); {
		case g.rule(s, "tickets") == nil:
			s.refuse(ctx, 409, "no_ticket_needed")
		case time.Now().Before(s.opens.Add(-lead)):
			s.reply(ctx, 409, map[string]any{"code": "not_open", "opens_at": s.opens.Format(time.RFC3339Nano), "tickets_at": s.opens.Add(-lead).Format(time.RFC3339Nano)})
		case g.admitted(s, ctx, user, shown.Clearance):
			s.reply(ctx, 201, map[string]any{"ticket": g.slip("t", user), "expires_at": s.opens})
		}
	case "queue":
		g.queue(s, ctx, method, user, shown.Clearance)
	case "purchases":
		return !g.mayBuy(s, ctx, user, shown)
	default:
		return false
	}
	return true
}

// note remembers who came from where.
func (g *stallGate) note(s *stall, ctx *fasthttp.RequestCtx, user string) {
	ip := ctx.RemoteAddr().(*net.TCPAddr).IP.String()
	agent := string(ctx.UserAgent())
	if ip == "127.0.0.1" || agent == "" {
		return // an errand's
	}
	for in, key := range map[*map[string]map[string]bool]string{&g.addresses: ip, &g.agents: agent} {
		if (*in)[key] == nil {
			(*in)[key] = map[string]bool{}
		}
		(*in)[key][user] = true
	}
	if time.Now().Before(s.opens) {
		g.hasty[agent]++
	}
}

func (g *stallGate) edit(s *stall, ctx *fasthttp.RequestCtx, method string) {
	doc := map[string]json.RawMessage{"version": json.RawMessage(strconv.Itoa(g.version))}
	if method == "PUT" {
		if err := json.Unmarshal(ctx.PostBody(), &doc); err != nil || string(doc["version"]) != strconv.Itoa(g.version) {
			s.refuse(ctx, 409, "rules_changed")
			return
		}
		if g.puts++; g.puts == 1 { // somebody else was quicker
			g.version++
			s.refuse(ctx, 409, "rules_changed")
			return
		}
		g.version++
		g.rules = map[string][]map[string]any{}
		for _, section := range ruleSections {
			var all []map[string]any
			if doc[section] != nil {
				if err := json.Unmarshal(doc[section], &all); err != nil {
					s.t.Error(err)
				}
				g.rules[section] = all
			}
		}
	}
	out := map[string]any{"version": g.version, "counts": map[string]int{}}
	for section, all := range g.rules {
		out[section] = all
	}
	s.reply(ctx, 200, out)
}

func (g *stallGate) slip(kind, user string) string {
	return fmt.Sprintf("%s %s %d", kind, user, rand.Uint64())
}

func holds(kind, user, slip string) bool { return strings.HasPrefix(slip, kind+" "+user+" ") }

// admitted answers in place of the stall who has to solve a challenge first.
func (g *stallGate) admitted(s *stall, ctx *fasthttp.RequestCtx, user, clearance string) bool {
	r := g.rule(s, "challenges")
	suspect := string(ctx.UserAgent()) == "Go-http-client/1.1"
	if r == nil || r["when"] == "suspect" && !suspect || holds("c", user, clearance) {
		return true
	}
	s.refuse(ctx, 403, "challenge_required")
	return false
}

// challenge is a sum whose result stands in its token.
func (g *stallGate) challenge(s *stall, ctx *fasthttp.RequestCtx, user string, answers bool) {
	if !answers {
		s.reply(ctx, 201, map[string]any{"challenge": fmt.Sprintf("%s %d %d", user, 1000, 100+rand.IntN(800)), "kind": "slider", "width": 900, "piece_width": 44})
		return
	}
	var doc struct {
		Challenge string `json:"challenge"`
		Answer    int    `json:"answer"`
	}
	err := json.Unmarshal(ctx.PostBody(), &doc)
	words := strings.Fields(doc.Challenge)
	if err != nil || len(words) != 3 || words[0] != user || g.spent[doc.Challenge] || words[2] != strconv.Itoa(doc.Answer) {
		s.refuse(ctx, 403, "challenge_failed")
		g.spent[doc.Challenge] = true
		return
	}
	g.spent[doc.Challenge] = true
	s.reply(ctx, 200, map[string]any{"clearance": g.slip("c", user)})
}

// solveStall reads a challenge of a stall.
func solveStall(challenge, _, _ string) (int, bool) {
	words := strings.Fields(challenge)
	n, err := strconv.Atoi(words[len(words)-1])
	return n, err == nil
}

func (g *stallGate) queue(s *stall, ctx *fasthttp.RequestCtx, method, user, clearance string) {
	at := slices.Index(g.line, user)
	switch {
	case g.rule(s, "rooms") == nil:
		s.refuse(ctx, 409, "no_queue")
		return
	case at < 0 && method == "GET":
		s.refuse(ctx, 404, "not_queued")
		return
	case at < 0 && !g.admitted(s, ctx, user, clearance):
		return
	case at < 0:
		at = len(g.line)
		g.line = append(g.line, user)
	}
	now := time.Now()
	if now.Before(s.opens) {
		s.reply(ctx, 200, map[string]any{"state": "registered", "number": at, "poll_after_ms": 100})
		return
	}
	if !g.drawn { // whoever came before the opening, in any order
		g.drawn = true
		rand.Shuffle(len(g.line), func(i, j int) { g.line[i], g.line[j] = g.line[j], g.line[i] })
		at = slices.Index(g.line, user)
	}
	sold := 0
	for _, o := range s.orders {
		if o.State == "paid" {
			sold++
		}
	}
	head := int(now.Sub(s.opens)/callEvery) + 1
	switch {
	case sold == s.units:
		s.reply(ctx, 200, map[string]any{"state": "over"})
	case at < head:
		s.reply(ctx, 200, map[string]any{"state": "called", "number": at, "pass": g.slip("p", user)})
	default:
		eta := (time.Duration(at-head+1)*callEvery + time.Second - 1) / time.Second
		s.reply(ctx, 200, map[string]any{"state": "waiting", "number": at, "position": at - head + 1, "eta_seconds": int(eta), "poll_after_ms": 50})
	}
}

// mayBuy answers in place of the stall who may not.
func (g *stallGate) mayBuy(s *stall, ctx *fasthttp.RequestCtx, user string, shown showing) bool {
	if s.byKey[user+" "+string(ctx.Request.Header.Peek("Idempotency-Key"))] != nil {
		return true // a known key passes
	}
	pass, ticket := holds("p", user, shown.Pass), holds("t", user, shown.Ticket)
	switch {
	case time.Now().Before(s.opens):
		s.reply(ctx, 409, map[string]any{"code": "not_open", "opens_at": s.opens.Format(time.RFC3339Nano)})
	case g.rule(s, "tickets") != nil && !ticket:
		s.refuse(ctx, 403, "ticket_required")
	case g.rule(s, "rooms") != nil && !pass:
		s.refuse(ctx, 429, "queued")
	case !pass && !ticket && !g.admitted(s, ctx, user, shown.Clearance):
	default:
		return true
	}
	return false
}
