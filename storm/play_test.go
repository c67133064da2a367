package storm

import (
	"io"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// fair is a storm of people and bots on a stall with a gate.
func fair(t *testing.T) (*stallGate, Options) {
	t.Helper()
	s, o := openStall(t, honest)
	o.Users, o.Stock, o.Bots, o.Duration, o.Solve = 260, 60, 50, 4*time.Second, solveStall
	o.Rate, o.Connections = 1000, 32
	o.Misbehave, o.Abandon, o.Cancel, o.Forge, o.Greedy, o.Linearize = 0, 0, 0, 0, 0, 0
	return openGate(s), o
}

// treated runs a storm that must end without violations.
func treated(t *testing.T, o Options) (people, bots Treatment) {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	report, err := rehearse(t.Context(), o, hasty, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Violations) != 0 {
		t.Errorf("violations %s", strings.Join(report.Violations, "\n"))
	}
	if report.Sold != o.Stock {
		t.Errorf("sold %d of %d", report.Sold, o.Stock)
	}
	for _, p := range report.Profiles {
		switch p.Profile {
		case "people":
			people = p
		case "bots":
			bots = p
		}
	}
	var out strings.Builder
	if err := report.Write(&out, false); err != nil || !strings.Contains(out.String(), "of their share") || strings.Contains(out.String(), "%!") {
		t.Errorf("%v\n%s", err, out.String())
	}
	t.Logf("\n%s", out.String())
	return people, bots
}

// TestPeopleGetMoreThanBots: behind challenges, tickets and a queue everybody goes
// his way, and bots, who guess, get less than their share.
func TestPeopleGetMoreThanBots(t *testing.T) {
	t.Parallel()
	g, o := fair(t)
	o.Queue, o.Tickets, o.Challenge = true, true, "suspect"
	people, bots := treated(t, o)
	if people.Users != 130 || bots.Users != 130 || people.FairShare <= 1.2 || bots.FairShare >= 0.8 {
		t.Errorf("%d people got %.2f of their share, %d bots %.2f", people.Users, people.FairShare, bots.Users, bots.FairShare)
	}
	if people.Challenges.Shown != 0 || bots.Challenges.Shown == 0 || bots.Challenges.Failed == 0 {
		t.Errorf("challenges of people %+v, of bots %+v", people.Challenges, bots.Challenges)
	}
	q := people.Queue
	if q == nil || q.Called == 0 || q.WaitedMS == nil || q.WaitedMS.P99 < q.WaitedMS.P50 || q.ETAErrors == 0 || q.ETAErrMS.P50 > 2500 {
		t.Errorf("people in the queue: %+v", q)
	}
	if people.Tickets == 0 {
		t.Error("people got no tickets")
	}
	g.checkManners(t, 130, 130)
	if len(g.rules["rooms"])+len(g.rules["tickets"])+len(g.rules["challenges"]) != 0 || len(g.rules["rules"]) != 1 || len(g.rules["eligibility"]) != 1 {
		t.Errorf("rules afterwards: %v", g.rules)
	}
}

// TestQueueIsFair: among those who are there in time chance decides, and a bot has
// as good a one as anybody.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	_, o := fair(t)
	o.Queue = true
	people, bots := treated(t, o)
	// Of 208 who are there in time 130 are bots: 1.25 of their share, and 0.12 is a
	// standard deviation.
	if bots.FairShare < 0.8 || bots.FairShare > 1.7 || people.FairShare < 0.3 || people.Queue.Joined < 100 || bots.Queue.Joined < 100 {
		t.Errorf("people got %.2f of their share, bots %.2f", people.FairShare, bots.FairShare)
	}
}

// checkManners: people have an address each and say that they are browsers; bots share
// addresses, say what they are, and hammer before the opening.
func (g *stallGate) checkManners(t *testing.T, people, bots int) {
	t.Helper()
	const tool = "Go-http-client/1.1"
	if n := len(g.agents[tool]); n != bots {
		t.Errorf("%d accounts say that they are programs, want %d", n, bots)
	}
	one, many := 0, 0
	for _, accounts := range g.addresses {
		switch n := len(accounts); {
		case n == 1:
			one++
		case n == botsPerAddress:
			many++
		}
	}
	if one < people || many != bots/botsPerAddress {
		t.Errorf("%d addresses of one account and %d of %d", one, many, botsPerAddress)
	}
	if g.hasty[tool] < 5*bots {
		t.Errorf("%d requests of %d bots before the opening", g.hasty[tool], bots)
	}
}

// TestOpenDoorFavoursBots: without a gate, the quick get most. A storm that
// showed fairness here would show it of every shop.
func TestOpenDoorFavoursBots(t *testing.T) {
	t.Parallel()
	_, o := fair(t)
	o.Duration = 8 * time.Second // people take their time
	people, bots := treated(t, o)
	if bots.FairShare <= 1.2 || people.FairShare >= 0.8 {
		t.Errorf("people got %.2f of their share, bots %.2f", people.FairShare, bots.FairShare)
	}
}

// TestPeopleSolveChallenges asks everybody.
func TestPeopleSolveChallenges(t *testing.T) {
	t.Parallel()
	_, o := fair(t)
	o.Challenge, o.Bots, o.People = "always", 0, true
	people, bots := treated(t, o)
	if c := people.Challenges; c.Solved < 60 || c.Failed == 0 || c.Shown < c.Solved+c.Failed || people.FairShare != 1 || bots.Users != 0 {
		t.Errorf("%+v", people)
	}
}

func TestCast(t *testing.T) {
	o := Options{Users: 1000, Bots: 13, Rate: 500, Duration: time.Minute, Seed: 3}
	c := newCast(o)
	if c.count(bot) != 130 || c.count(person) != 870 || c.of(129) != bot || c.of(130) != person {
		t.Errorf("%d bots, %d people", c.count(bot), c.count(person))
	}
	if c.every != 260*time.Millisecond { // 130 bots at no more than 500 a second
		t.Errorf("bots act every %v", c.every)
	}
	at := map[netip.Addr]int{}
	for u := range o.Users {
		from := c.address(u)
		if !from.IsLoopback() {
			t.Fatalf("user %d comes from %v", u, from)
		}
		at[from]++
	}
	if len(at) != 870+3 || at[c.address(0)] != 64 || at[c.address(129)] != 2 || at[c.address(500)] != 1 {
		t.Errorf("%d addresses", len(at))
	}
	if last := (cast{users: maxUsers}).address(maxUsers - 1); !last.Less(netip.MustParseAddr("127.128.0.0")) {
		t.Errorf("the last person comes from %v, where bots do", last)
	}
	for u := range o.Users {
		d := c.arrival(u, 10*time.Second, time.Minute)
		if most := map[profile]time.Duration{bot: c.every, person: 25 * time.Second}[c.of(u)]; d < 0 || d >= most {
			t.Fatalf("user %d comes after %v", u, d)
		}
	}
}

func TestTimesOfPeople(t *testing.T) {
	c := newCast(Options{Users: 10, Rate: 1000, Duration: 2 * time.Minute, Seed: 3})
	const n = 20_000
	var logs []float64
	for i := range uint64(n) {
		logs = append(logs, math.Log(c.think(i).Seconds()))
		if d := c.solving(i); d < solveLeast || d > solveMost {
			t.Fatalf("a challenge took %v", d)
		}
	}
	slices.Sort(logs)
	var mean, square float64
	for _, l := range logs {
		mean += l / n
	}
	for _, l := range logs {
		square += (l - mean) * (l - mean) / n
	}
	if median := math.Exp(logs[n/2]); math.Abs(median-2) > 0.1 || math.Abs(math.Sqrt(square)-thinkSpread) > 0.03 {
		t.Errorf("median %v s, spread %v", median, math.Sqrt(square))
	}
	quick := newCast(Options{Users: 10, Rate: 1000, Duration: 3 * time.Second, Seed: 3})
	if quick.think(1) >= c.think(1)/10 || quick.solving(1) < solveFloor {
		t.Errorf("in a hurry: %v, %v", quick.think(1), quick.solving(1))
	}
}

func TestOffBy(t *testing.T) {
	n, off, mean := offBy([]time.Duration{-2 * time.Second, time.Second, 4 * time.Second})
	if n != 3 || off.P50 != 2000 || off.P99 != 4000 || off.Max != 4000 || mean != 1000 {
		t.Errorf("%d, %+v, %v", n, off, mean)
	}
	if n, off, mean := offBy(nil); n != 0 || off != (Waiting{}) || mean != 0 {
		t.Errorf("%d, %+v, %v", n, off, mean)
	}
}

func TestFairShare(t *testing.T) {
	c := cast{bots: 20, users: 100}
	tr := newTreatment()
	r := tr.report(bot, c, 5, 50)
	if r.UserShare != 0.2 || r.UnitShare != 0.1 || r.FairShare != 0.5 || r.Queue != nil {
		t.Errorf("%+v", r)
	}
	if r := tr.report(bot, c, 0, 0); r.FairShare != 0 { // nobody got anything
		t.Errorf("%+v", r)
	}
}

// TestStreet: whoever comes again does so over the same connection, from his own
// address, while there is room.
func TestStreet(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.SetBodyString(ctx.RemoteAddr().String() + " " + string(ctx.UserAgent()) + " " + string(ctx.Request.Header.Peek("Accept-Language")) + " " + string(ctx.Request.Body()))
	}}
	go server.Serve(ln) //nolint:errcheck // ends with the listener
	t.Cleanup(func() { ln.Close() })
	at := &url.URL{Scheme: "http", Host: ln.Addr().String()}
	s := newStreet(2)
	t.Cleanup(s.close)
	ask := func(n byte) (from string) {
		t.Helper()
		a, err := s.ask(at, netip.AddrFrom4([4]byte{127, 20, 0, n}), manner{"browser", "de"}, "POST", "/", []byte("t"), "k", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(string(a.body))
		if len(words) != 4 || !strings.HasPrefix(words[0], netip.AddrFrom4([4]byte{127, 20, 0, n}).String()+":") || strings.Join(words[1:], " ") != "browser de hello" {
			t.Errorf("the shop saw %q", a.body)
		}
		return words[0]
	}
	first, second := ask(1), ask(2)
	if ask(1) != first || ask(2) != second {
		t.Error("another connection although there was room")
	}
	ask(3) // takes the room of 1
	if ask(2) != second {
		t.Error("the connection used last was given up")
	}
	if ask(1) == first {
		t.Error("more connections than there is room for")
	}
}
