package storm

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"time"
)

// actor is one user who acts for himself, a person or a bot. Both go the way the
// shop asks them to: they join its queue, get its ticket, answer its challenge,
// and buy. Bots go it at once and at a fixed pace, ask before it makes sense,
// and guess answers.
//
// An actor has one step planned at a time, so nothing in it is locked.
type actor struct {
	p    *play
	user int
	kind profile
	from netip.Addr
	as   manner
	at   *url.URL
	n    uint64 // of the steps of this actor
	due  time.Time

	ticket, pass, clearance string
	queued                  bool
	joined                  time.Time // when the queue took him in, or the opening if that is later
	told                    time.Time // when he is to be called, as first told; zero = not told yet
	seen                    picture   // the challenge before him
}

// step is what an actor does next. It plans the one after it, or nobody does.
type step func(a *actor)

// then plans a step.
func (a *actor) then(d time.Duration, do step) {
	a.n++
	if !a.p.on.Load() {
		return
	}
	if a.kind == bot {
		d = a.p.cast.every
	}
	a.plan(time.Now().Add(d), do)
}

func (a *actor) plan(due time.Time, do step) {
	a.due = due
	a.p.stage.at(due, func() {
		if a.p.on.Load() {
			a.p.late(time.Since(due))
			do(a)
		}
	})
}

// until plans a step at a time by the shop's clock, after which a person needs a
// moment; bots do not wait for anything.
func (a *actor) until(at time.Time, do step) {
	d := time.Duration(0)
	if !at.IsZero() {
		d = max(time.Until(at.Add(-a.p.r.oracle.ahead)), 0)
	}
	a.then(d+a.p.cast.react(a.dice()), do)
}

func (a *actor) dice() uint64         { return uint64(a.user)<<20 | a.n&(1<<20-1) }
func (a *actor) think() time.Duration { return a.p.cast.think(a.dice()) }

// path of the sale.
func (a *actor) path(of string) string { return "/v1/activities/" + a.p.r.shop.activity + of }

// ask makes a request. ok is false when it has to be made again.
func (a *actor) ask(method, path, key string, body []byte) (reply answer, err error) {
	a.p.treated(a.kind).add(func(c *Treatment) { c.Requests++ })
	return a.p.street.ask(a.at, a.from, a.as, method, path, a.p.r.crowd.token(a.user), key, body)
}

// post asks for something that costs nothing to ask for twice, and reads it. It
// answers whether it was given; if not, what follows is planned.
func (a *actor) post(method, path string, body any, into any, again step) bool {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // of strings and integers
	}
	reply, err := a.ask(method, path, "", text)
	switch {
	case err != nil:
		a.then(a.think(), again)
	case !reply.ok():
		a.refused(reply, again)
	case json.Unmarshal(reply.body, into) != nil:
		a.p.r.oracle.broken.add("%s %s was answered %s", method, path, reply)
	default:
		return true
	}
	return false
}

// enter is how an actor begins: a person looks at the page, which says what a
// purchase needs; a bot tries what there may be.
func enter(a *actor) {
	if a.kind == bot {
		join(a)
		return
	}
	var page struct {
		Needs   []string  `json:"needs"`
		OpensAt time.Time `json:"opens_at"`
	}
	if !a.post("GET", a.path(""), nil, &page, enter) {
		return
	}
	needs := map[string]bool{}
	for _, what := range page.Needs {
		needs[what] = true
	}
	switch {
	case needs["queue"]:
		a.then(a.think(), join)
	case needs["ticket"]:
		a.then(a.think(), getTicket)
	default:
		a.until(page.OpensAt, buy)
	}
}

// buy is an attempt. What it teaches is learned as from every other one.
func buy(a *actor) {
	r := a.p.r
	generation, is := r.crowd.claim(a.user)
	switch is {
	case busy: // it is being found out what became of the last one
		a.then(a.think(), buy)
		return
	case holding, bought:
		return
	}
	sent := time.Now()
	try := tryID{a.user, generation}
	body, _ := json.Marshal(showing{r.shop.sku, 1, a.pass, a.ticket, a.clearance}) // of strings and an integer
	a.p.treated(a.kind).add(func(c *Treatment) { c.Attempts++ })
	reply, err := a.ask("POST", a.path("/purchases"), try.key(), body)
	now := time.Now()
	t := r.lanes[a.user%len(r.lanes)]
	if err != nil {
		r.failed(t, err, try, sent, now)
		a.then(a.think(), buy)
		return
	}
	v, code := judge(reply.status, reply.body)
	latency := now.Sub(a.due)
	if v == unknown || v == unavailable {
		latency = -1
	}
	t.answered(v, code, latency)
	r.learn(v, code, reply.status, reply.body, try, sent, now)
	switch v {
	case accepted, broken:
	case unknown:
		a.then(a.think(), buy)
	default:
		a.refused(reply, buy)
	}
}

// refused does what a refusal asks for, and goes on with again where nothing is.
func (a *actor) refused(reply answer, again step) {
	var no denial
	if err := json.Unmarshal(reply.body, &no); err != nil || no.Code == "" {
		no.Code = "without a code" // of whatever stands before the shop
	}
	code := no.Code
	a.p.treated(a.kind).add(func(c *Treatment) { c.Refused[code]++ })
	switch code {
	case "sold_out", "ended", "limit_reached", "not_eligible", "registration_closed", "invalid_request", "no_such_activity", "unauthenticated":
		return // nothing is to be had here
	case "no_queue":
		if a.kind == bot && a.ticket == "" {
			a.then(a.think(), getTicket)
			return
		}
		a.then(a.think(), buy)
	case "no_ticket_needed":
		a.then(a.think(), buy)
	case "not_queued":
		a.then(a.think(), join)
	case "challenge_required":
		a.clearance = ""
		a.then(a.think(), func(a *actor) { face(a, again) })
	case "ticket_required":
		a.ticket = ""
		a.then(a.think(), getTicket)
	case "queued":
		a.pass = ""
		if a.queued {
			a.then(a.think(), stand)
			return
		}
		a.then(a.think(), join)
	case "not_open":
		for _, at := range []time.Time{no.TicketsAt, no.QueueOpensAt, no.OpensAt} {
			if !at.IsZero() {
				a.until(at, again)
				return
			}
		}
		a.then(a.think(), again)
	case "all_held":
		if a.kind == person && !a.p.cast.dice.hit(chooseStay, a.dice(), 70) {
			return // tired of it
		}
		a.then(a.think(), again)
	default: // too often, overloaded, not ready: later
		a.then(time.Second+a.think(), again)
	}
}

// getTicket asks for a ticket, and buys when the sale is open.
func getTicket(a *actor) {
	var given slip
	if !a.post("POST", a.path("/tickets"), struct {
		Clearance string `json:"clearance,omitempty"`
	}{a.clearance}, &given, getTicket) {
		return
	}
	a.ticket = given.Ticket
	a.p.treated(a.kind).add(func(c *Treatment) { c.Tickets++ })
	a.until(a.p.r.oracle.opens.Add(a.p.r.oracle.ahead), buy)
}

// face looks at a challenge; what it was asked for is tried again with its clearance.
func face(a *actor, again step) {
	look := func(a *actor) { face(a, again) }
	a.seen = picture{}
	if !a.post("POST", a.path("/challenges"), struct{}{}, &a.seen, look) {
		return
	}
	a.p.treated(a.kind).add(func(c *Treatment) { c.Challenges.Shown++ })
	a.then(a.p.cast.solving(a.dice()), func(a *actor) { solve(a, again) })
}

// solve answers the challenge: a person as it is, but for mistakes; a bot by chance.
func solve(a *actor, again step) {
	n := a.dice()
	most := a.seen.Width - a.seen.PieceWidth // of a slider
	if a.seen.Kind != "slider" {
		most = 40 // sums that people do in their head
	}
	reply := int(a.p.cast.dice.bits(chooseGuess, n) % uint64(max(most, 1)))
	if a.kind == person && !a.p.cast.dice.hit(chooseMistake, n, mistaken) {
		right, ok := 0, false
		if a.p.r.o.Solve != nil {
			right, ok = a.p.r.o.Solve(a.seen.Challenge, a.p.r.shop.activity, userName(a.user))
		}
		if !ok {
			a.p.treated(a.kind).add(func(c *Treatment) { c.GaveUp++ })
			return
		}
		reply = right
	}
	body, _ := json.Marshal(map[string]any{"challenge": a.seen.Challenge, "answer": reply}) // of a string and an integer
	got, err := a.ask("POST", a.path("/challenges/answers"), "", body)
	var given slip
	switch {
	case err == nil && got.ok() && json.Unmarshal(got.body, &given) == nil && given.Clearance != "":
		a.clearance = given.Clearance
		a.p.treated(a.kind).add(func(c *Treatment) { c.Challenges.Solved++ })
		a.then(a.p.cast.react(n), again)
	default:
		if err == nil && got.status == 403 {
			a.p.treated(a.kind).add(func(c *Treatment) { c.Challenges.Failed++ })
		}
		a.then(a.think(), func(a *actor) { face(a, again) })
	}
}
