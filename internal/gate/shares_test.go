package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/lib/limit"
)

// pools are those of a fleet, on a virtual clock, behind a network that can be
// down.
type pools struct {
	mu    sync.Mutex
	at    time.Time
	down  bool
	calls int

	opening sync.Mutex
	of      map[string]*versioned
}

// versioned obeys the newest rate that it has heard of.
type versioned struct {
	*limit.LocalPool
	version int64
}

var errDown = errors.New("the network is down")

func newPools() *pools { return &pools{at: noon, of: map[string]*versioned{}} }

func (p *pools) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

func (p *pools) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = p.at.Add(d)
}

func (p *pools) call() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.down {
		return errDown
	}
	return nil
}

// distant is one process's way to a pool.
type distant struct {
	*limit.LocalPool
	net *pools
}

func (d distant) Grant(ctx context.Context, id string, want int64) (limit.Lease, error) {
	if err := d.net.call(); err != nil {
		return limit.Lease{}, err
	}
	return d.LocalPool.Grant(ctx, id, want)
}

func (d distant) Return(ctx context.Context, id string, unspent int64) error {
	if err := d.net.call(); err != nil {
		return err
	}
	return d.LocalPool.Return(ctx, id, unspent)
}

func (p *pools) open(name string, version int64, r limit.Rate) (limit.Pool, error) {
	p.opening.Lock()
	defer p.opening.Unlock()
	has := p.of[name]
	if has == nil {
		pool, err := limit.NewLocalPool(r, 10*time.Second, p.now)
		if err != nil {
			return nil, err
		}
		p.of[name] = &versioned{pool, version}
		return distant{pool, p}, nil
	}
	if version > has.version {
		has.version = version
		return distant{has.LocalPool, p}, has.Edit(r)
	}
	return distant{has.LocalPool, p}, nil
}

func (p *pools) sharing(holder string, processes int) Sharing {
	return Sharing{Open: p.open, Holder: holder, Processes: processes, Every: 20 * time.Millisecond, Timeout: time.Second, Now: p.now}
}

// gateway is one process of a fleet.
func (p *pools) gateway(t testing.TB, name string, processes int, rules ...Rule) *Limits {
	t.Helper()
	l := limitsOf(t, rules...)
	err := l.Share(p.sharing(name, processes), p.now())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fleet has so many gateways with the same rules.
func (p *pools) fleet(t testing.TB, n int, rules ...Rule) (all []*Limits) {
	t.Helper()
	for i := range n {
		all = append(all, p.gateway(t, fmt.Sprint("g", i), n, rules...))
	}
	return all
}

// settle runs a gateway's steps until there is nothing to do.
func settle(t testing.TB, l *Limits) {
	t.Helper()
	for range 100 {
		if worked, err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		} else if !worked {
			return
		}
	}
	t.Fatal("the steps have no end")
}

func TestSharingIsChecked(t *testing.T) {
	p := newPools()
	good := p.sharing("g", 1)
	f := func(change func(*Sharing), want error) {
		t.Helper()
		s := good
		change(&s)
		if err := NewLimits(noon).Share(s, noon); !errors.Is(err, want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	f(func(*Sharing) {}, nil)
	f(func(s *Sharing) { s.Open = nil }, ErrSharing)
	f(func(s *Sharing) { s.Now = nil }, ErrSharing)
	f(func(s *Sharing) { s.Holder = "" }, ErrSharing)
	f(func(s *Sharing) { s.Processes = 0 }, ErrSharing)
	f(func(s *Sharing) { s.Every = 0 }, ErrSharing)
	f(func(s *Sharing) { s.Timeout = 0 }, ErrSharing)
}

// By itself a process is the fleet, and exact.
func TestFleetOfOne(t *testing.T) {
	l := limitsOf(t, rule("all", together(100, 0)))
	for i := range 101 {
		if v := l.Admit(noon, buys("ann")); v.Allowed != (i < 100) {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if worked, err := l.Step(t.Context()); worked || err != nil || l.Woken() != nil || l.Counts()[0].Shared != nil {
		t.Errorf("%v, %v, %+v: there is nobody to share with", worked, err, l.Counts())
	}
}

// TestFleetKeepsTheRate is the promise of Sharing, over every interval: gateways
// that are asked unevenly, and that lose their network and get it back, pass the
// rate of any key by no more than was said.
func TestFleetKeepsTheRate(t *testing.T) {
	absences := 0
	rapid.Check(t, func(t *rapid.T) {
		r := rule("all", together(rapid.Int64Range(1, 3000).Draw(t, "limit"), rapid.Int64Range(100, 3000).Draw(t, "burst")))
		if rapid.Bool().Draw(t, "by activity") {
			r.Key = []string{"activity"}
		}
		p, n := newPools(), rapid.IntRange(1, 4).Draw(t, "gateways")
		all := make([]*Limits, n)
		for i := range all {
			all[i] = NewLimits(noon)
			if err := errors.Join(all[i].Apply(edition(1, r), noon), all[i].Share(p.sharing(fmt.Sprint(i), n), noon)); err != nil {
				t.Fatal(err)
			}
		}
		reliable, burst, away := rapid.Bool().Draw(t, "reliable"), r.Rate.Burst, int64(0)
		steps := func() {
			for i := range all {
				for range rapid.IntRange(1, 4).Draw(t, "steps") {
					if _, err := all[i].Step(context.Background()); err != nil && !p.down {
						t.Fatal(err)
					}
				}
			}
		}
		// ahead is how far a key is ahead of Limit × x/Per over the worst of all
		// intervals that end now, in requests × ns.
		type spending struct{ ahead, last int64 }
		spent := map[string]*spending{}
		for _, key := range []string{"a", "b", "all"} {
			spent[key] = &spending{last: noon.UnixNano()}
		}
		for range rapid.IntRange(1, 100).Draw(t, "actions") {
			p.pass(rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 30 * time.Millisecond, 2 * time.Second}).Draw(t, "pass"))
			if !reliable && rapid.IntRange(0, 9).Draw(t, "network") == 0 {
				if p.down = !p.down; p.down {
					away++
					absences++
				}
			}
			steps()
			l, f := all[rapid.IntRange(0, n-1).Draw(t, "gateway")], buys("ann")
			f.Activity = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "activity")
			s := spent["all"]
			if len(r.Key) > 0 {
				s = spent[f.Activity]
			}
			for range rapid.IntRange(1, 1000).Draw(t, "requests") {
				if !l.Admit(p.at, f).Allowed {
					break
				}
				now := p.at.UnixNano()
				s.ahead = max(s.ahead-(now-s.last)*r.Rate.Limit, 0) + int64(time.Second)
				s.last = now
			}
			over := l.Counts()[0].Shared.Overshoot
			if told := max(burst/4, int64(3*n)); over > told {
				t.Fatalf("%d gateways, burst %d: overshoot of %d", n, burst, over)
			}
			if most := burst + over + 2*away*burst; s.ahead > most*int64(time.Second) {
				t.Fatalf("%d gateways, %+v, %d times away: %d ahead of the rate, at most %d", n, r.Rate, away, s.ahead/int64(time.Second), most)
			}
		}
	})
	if absences == 0 {
		t.Error("the network was never down")
	}
}

// The bound is not loose: gateways that hold two leases each spend them when the
// pool is full again. The third lease that it counts is advanced to who begins.
func TestFleetOvershootIsReached(t *testing.T) {
	const gateways, burst, lease = 4, 1200, 25
	p := newPools()
	all := p.fleet(t, gateways, rule("all", together(burst, 0)))
	for _, l := range all {
		l.Admit(p.at, buys("ann"))
		settle(t, l)
	}
	p.pass(7 * time.Second) // the leases are to run out in three, so the next are drawn
	for _, l := range all {
		settle(t, l)
	}
	p.pass(time.Second)
	n := 0
	for range 100 { // at one instant
		for _, l := range all {
			for l.Admit(p.at, buys("ann")).Allowed {
				n++
			}
			settle(t, l)
		}
	}
	if over := all[0].Counts()[0].Shared.Overshoot; n < burst+gateways*(2*lease-1) || n > burst+int(over) {
		t.Errorf("%d at one instant; told are %d more than %d", n, over, burst)
	}
}

// Under more demand than the rate, nearly all of it is served, also when the crowd
// is at one gateway.
func TestFleetServesTheRate(t *testing.T) {
	p := newPools()
	all := p.fleet(t, 4, rule("all", together(1000, 0)))
	spent := 0
	const seconds = 20
	for tick := range seconds * 50 { // every 20 ms
		for i, l := range all {
			settle(t, l)
			for range []int{80, 10, 5, 0}[(i+tick/250)%4] { // 4,750 a second
				if l.Admit(p.at, buys("ann")).Allowed {
					spent++
				}
				select {
				case <-l.Woken():
					settle(t, l)
				default:
				}
			}
		}
		p.pass(20 * time.Millisecond)
	}
	t.Logf("%d of %d + 1000, in %d calls", spent, seconds*1000, p.calls)
	if spent < seconds*950+1000 || spent > seconds*1000+1250 {
		t.Errorf("%d of %d", spent, seconds*1000)
	}
	if p.calls > seconds*1000/2 {
		t.Errorf("%d calls", p.calls)
	}
}

// Whoever comes first is served, before any pool has answered; neither that nor a
// refusal costs a call.
func TestDecisionsCostNoCall(t *testing.T) {
	p := newPools()
	l := p.gateway(t, "g", 1, rule("all", together(1, 120)))
	f := buys("ann")
	for i := range 10 { // the advance: a lease
		if v := l.Admit(p.at, f); !v.Allowed {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if v := l.Admit(p.at, f); v.Allowed || v.RetryAfter > time.Second || v.Limit != 1 || p.calls != 0 {
		t.Errorf("%+v after %d calls", v, p.calls)
	}
	granted := 10
	for settle(t, l); l.Admit(p.at, f).Allowed; settle(t, l) {
		granted++
	}
	calls := p.calls
	for range 10_000 {
		if v := l.Admit(p.at, f); v.Allowed || v.RetryAfter < time.Second {
			t.Fatalf("%+v", v)
		}
	}
	if granted != 120 || p.calls != calls {
		t.Errorf("%d granted, %d calls for refusals", granted, p.calls-calls)
	}
}

// A group is charged to all of its limits or to none, whatever kind they are.
func TestBudgetsInGroups(t *testing.T) {
	p := newPools()
	all := rule("all", together(1, 120))
	l := p.gateway(t, "g", 1, all, rule("user", upTo(2)), rule("tried", in(Shadow), by(), upTo(1)))
	for i := range 5 {
		v := l.Admit(p.at, buys("ann"))
		if v.Allowed != (i < 2) || !v.Allowed && v.Rule != "user" {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if x := l.Explain(p.at, buys("bob")); !x.Allowed || x.Rules[0].Remaining != 7 || x.Rules[0].From != "budget" {
		t.Errorf("%+v", x)
	}
	// And where the budget refuses, the user is not charged.
	for i := range 8 {
		l.Admit(p.at, buys(fmt.Sprint("guest", i)))
	}
	if v := l.Admit(p.at, buys("bob")); v.Allowed || v.Rule != "all" {
		t.Errorf("%+v", v)
	}
	if x := l.Explain(p.at, buys("bob")); x.Allowed || x.Refuses != "all" || x.Rules[1].Remaining != 1 {
		t.Errorf("%+v", x)
	}
}

// Explaining opens no budget.
func TestExplainingSharesIsFree(t *testing.T) {
	p := newPools()
	l := p.gateway(t, "g", 2, rule("all", together(1, 120)))
	x := l.Explain(p.at, buys("ann"))
	if !x.Allowed || x.Rules[0].From != "part" || x.Rules[0].Rate != "token 1 per 1s, burst 120" || x.Percent != 100 {
		t.Errorf("%+v", x)
	}
	if n := l.Counts()[0]; *n.Shared != (Held{Overshoot: 30}) || len(p.of) != 0 {
		t.Errorf("%+v, %d pools", n.Shared, len(p.of))
	}
}

// Edits reach the pools and what is drawn of them; a rule that goes gives back
// what it held.
func TestEditsOfShares(t *testing.T) {
	p := newPools()
	all := p.fleet(t, 2, rule("all", together(1000, 2400)))
	edit := func(version int64, rules ...Rule) {
		t.Helper()
		for _, l := range all {
			if err := l.Apply(edition(version, rules...), p.at); err != nil {
				t.Fatal(err)
			}
		}
	}
	second := func() (n int) {
		t.Helper()
		for range 50 {
			for _, l := range all {
				for settle(t, l); l.Admit(p.at, buys("ann")).Allowed; settle(t, l) {
					n++
				}
			}
			p.pass(20 * time.Millisecond)
		}
		return n
	}
	f := func(what string, got, want int) {
		t.Helper()
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("%s: %d in a second, want %d", what, got, want)
		}
	}
	f("full", second(), 3400)
	f("at the rate", second(), 1000)
	edit(2, rule("all", together(100, 240)))
	second()
	f("a tenth", second(), 100)
	for _, l := range all {
		if err := l.Scale(50, 1, p.at); err != nil {
			t.Fatal(err)
		}
	}
	second()
	f("half of it", second(), 50)
	edit(3, rule("all", together(2000, 240)))
	second()
	f("half of another", second(), 1000)
	for _, l := range all {
		if err := l.Scale(100, 2, p.at); err != nil {
			t.Fatal(err)
		}
	}
	second()
	f("all of it", second(), 2000)

	edit(4)
	if n := all[0].sharing.accounts.Load(); n != 0 || len(all[0].sharing.leaving) != 1 {
		t.Errorf("%d budgets of no rule, %d leave", n, len(all[0].sharing.leaving))
	}
	p.pass(grace)
	for _, l := range all {
		settle(t, l)
	}
	edit(5, rule("all", together(1, 240)))
	n := 0
	for _, l := range all {
		for settle(t, l); l.Admit(p.at, buys("ann")).Allowed; settle(t, l) {
			n++
		}
	}
	if n < 230 || n > 300 { // the bucket is full again: nothing lies about
		t.Errorf("%d after the rule came back", n)
	}
}

// While the pools are away each gateway keeps its part; when they are back the
// fleet shares again.
func TestPoolsAway(t *testing.T) {
	p := newPools()
	all := p.fleet(t, 4, rule("all", together(100, 200)))
	round := func(seconds int) (n int) {
		for range seconds * 20 {
			for _, l := range all {
				_, err := l.Step(t.Context())
				if err != nil && !(p.down && errors.Is(err, errDown)) {
					t.Fatal(err)
				}
				for l.Admit(p.at, buys("ann")).Allowed {
					n++
				}
			}
			p.pass(50 * time.Millisecond)
		}
		return n
	}
	round(4)
	p.down = true
	round(4) // the leases, then the parts' bursts
	if n := round(10); n < 990 || n > 1010 || !all[0].Counts()[0].Shared.Away {
		t.Errorf("%d in 10 s by parts, want 1000; %+v", n, all[0].Counts()[0].Shared)
	}
	if x := all[0].Explain(p.at, buys("ann")); x.Rules[0].From != "part" {
		t.Errorf("%+v", x)
	}
	p.down = false
	round(4)
	if n := round(10); n < 950 || n > 1050 || all[0].Counts()[0].Shared.Away {
		t.Errorf("%d in 10 s when they are back; %+v", n, all[0].Counts()[0].Shared)
	}
}

// Whoever makes up keys fills the places for budgets and no more; those that
// nobody asks for go, with what they held.
func TestBudgetsAreBounded(t *testing.T) {
	p := newPools()
	l := p.gateway(t, "g", 2, rule("path", together(1, 100), by("path")), rule("activity", together(1_000_000, 0), by("activity")))
	for i := range 2 * maxBudgets {
		f := buys("ann")
		f.Path = fmt.Sprint("/v1/made-up/", i)
		if v := l.Admit(p.at, f); !v.Allowed {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	n := l.Counts()
	if n[0].Shared.Budgets != maxBudgets-1 || n[1].Shared.Budgets != 1 {
		t.Fatalf("%+v, %+v", n[0].Shared, n[1].Shared)
	}
	late := &Facts{Class: Purchases, Activity: "late", Path: "/v1/late"}
	admitted := 0
	for l.Admit(p.at, late).Allowed {
		admitted++
	}
	if admitted != 50 { // no room: its part
		t.Errorf("%d without a budget", admitted)
	}
	settle(t, l)
	for range 100 {
		p.pass(500 * time.Millisecond)
		l.Admit(p.at, &Facts{Class: Purchases, Activity: "act"})
		settle(t, l)
	}
	if n := l.Counts(); n[0].Shared.Budgets != 0 || n[1].Shared.Budgets != 1 || l.sharing.accounts.Load() != 1 || len(l.sharing.leaving) != 0 {
		t.Errorf("%+v, %+v", n[0].Shared, n[1].Shared)
	}
	if err := l.Leave(t.Context()); err != nil || l.sharing.accounts.Load() != 0 {
		t.Errorf("%v, %d stay", err, l.sharing.accounts.Load())
	}
}

// Requests, steps, edits and scales at once: what is admitted is what was granted,
// and what was not is given back.
func TestSharesUnderLoad(t *testing.T) {
	p := newPools()
	const most = 3000
	r := rule("all", together(1, most))
	r.Rate.Per = "1h"
	all := p.fleet(t, 2, r)
	done := make(chan struct{})
	var beside, load sync.WaitGroup
	for i, l := range all {
		beside.Go(func() {
			for version := int64(2); ; version++ {
				select {
				case <-done:
					return
				default:
				}
				_, err := l.Step(context.Background())
				err = errors.Join(err, l.Apply(edition(version, r, rule(fmt.Sprint("other", version%3), upTo(1_000_000))), noon))
				if version%16 == 0 {
					err = errors.Join(err, l.Scale(100-int(version%2), version, noon))
				}
				l.Explain(noon, buys("ann"))
				if l.Counts(); err != nil {
					t.Error(i, err)
					return
				}
			}
		})
	}
	var admitted [4]int
	for g := range admitted {
		load.Go(func() {
			for range 4000 {
				if all[g%2].Admit(noon, buys("ann")).Allowed {
					admitted[g]++
				}
			}
		})
	}
	load.Wait()
	close(done)
	beside.Wait()
	n := admitted[0] + admitted[1] + admitted[2] + admitted[3]
	for _, l := range all {
		if err := l.Leave(t.Context()); err != nil {
			t.Error(err)
		}
	}
	back, err := p.of["all"].Grant(t.Context(), "rest", most)
	if over := all[0].Counts()[0].Shared.Overshoot; err != nil || n == 0 || n+int(back.Permits) < most-1 || n > most+int(over) {
		t.Errorf("%d admitted and %d left of %d, %v", n, back.Permits, most, err)
	}
}

func TestSharedDecisionsAllocateNothing(t *testing.T) {
	p, f := newPools(), buys("ann")
	l := p.gateway(t, "g", 1, rule("all", together(1_000_000_000, 0)), rule("act", together(1, 1000), by("activity")), rule("user", upTo(1_000_000)))
	none := func(what string, allowed bool) {
		t.Helper()
		if n := testing.AllocsPerRun(20, func() {
			if v := l.Admit(p.at, f); v.Allowed != allowed {
				t.Errorf("%s: %+v", what, v)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	l.Admit(p.at, f)
	settle(t, l)
	none("granted", true)
	for settle(t, l); l.Admit(p.at, f).Allowed; settle(t, l) {
	}
	none("refused", false)
	p.pass(2 * silence)
	none("by its part", true)
	if !l.Counts()[0].Shared.Away {
		t.Error("not away")
	}
}

func BenchmarkAdmitShared(b *testing.B) {
	p := newPools()
	l := p.gateway(b, "g", 1, rule("all", together(1_000_000_000, 0)), rule("act", together(1_000_000_000, 0), by("activity")))
	f := buys("ann")
	l.Admit(p.at, f)
	settle(b, l)
	b.ReportAllocs()
	for b.Loop() {
		l.Admit(noon, f)
	}
}
