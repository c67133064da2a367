package gate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/lib/limit"
)

// rule is a rule on purchases; edits change it.
func rule(id string, edits ...func(*Rule)) Rule {
	r := Rule{ID: id, Class: "purchases", Key: []string{"user"}, Mode: On, Percent: 100,
		Rate: Rate{Algorithm: "fixed", Limit: 2, Per: "1m"}}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func by(parts ...string) func(*Rule) { return func(r *Rule) { r.Key = parts } }
func in(mode string) func(*Rule)     { return func(r *Rule) { r.Mode = mode } }
func upTo(n int64) func(*Rule)       { return func(r *Rule) { r.Rate.Limit = n } }
func of(percent int) func(*Rule)     { return func(r *Rule) { r.Percent = percent } }
func leaky(queue int64) func(*Rule) {
	return func(r *Rule) { r.Rate = Rate{Algorithm: "leaky", Limit: 1, Per: "1s", Burst: queue} }
}

// together is kept by the fleet together.
func together(limit, burst int64) func(*Rule) {
	return func(r *Rule) {
		r.Scope, r.Key, r.Rate = Fleet, []string{}, Rate{Algorithm: "token", Limit: limit, Per: "1s", Burst: burst}
	}
}

func edition(version int64, rules ...Rule) Edition {
	return Edition{RuleSet: RuleSet{Version: version, Rules: rules}}
}

// ruleIn is the name alone.
func ruleIn(l *Limits, slot uint8, at time.Time) string {
	rule, _ := l.RuleIn(slot, at)
	return rule
}

func limitsOf(t testing.TB, rules ...Rule) *Limits {
	t.Helper()
	l := NewLimits(noon)
	if err := l.Apply(edition(1, rules...), noon); err != nil {
		t.Fatal(err)
	}
	return l
}

func buys(user string) *Facts {
	return &Facts{Class: Purchases, User: user, Activity: "act", Path: "/v1/activities/act/purchases", IP: netip.MustParseAddr("198.51.100.7")}
}

func TestRuleFaults(t *testing.T) {
	f := func(want string, rules ...Rule) {
		t.Helper()
		err := RuleSet{Rules: rules}.Validate()
		if want == "" {
			if err != nil {
				t.Errorf("%+v: %v", rules, err)
			}
			return
		}
		bad, ok := errors.AsType[*RuleError](err)
		if !ok || !errors.Is(err, ErrRules) || bad.Field != want || bad.Why == "" {
			t.Errorf("%v, want a fault of %s", err, want)
		}
	}
	edit := func(change func(*Rule)) Rule { return rule("a", change) }
	many := func(n int, change func(i int, r *Rule)) (all []Rule) {
		for i := range n {
			all = append(all, rule(fmt.Sprint("r", i), by(), func(r *Rule) { change(i, r) }))
		}
		return all
	}
	f("")
	f("", DefaultRules().Rules...)
	f("", edit(leaky(5)))
	f("rules[0].id", rule(""))
	f("rules[0].id", rule("-a"))
	f("rules[0].id", rule("A"))
	f("rules[0].id", rule(`a"b`))
	f("rules[0].id", rule(strings.Repeat("a", 41)))
	f("rules[1].id", rule("a"), rule("a"))
	f("rules[0].class", edit(func(r *Rule) { r.Class = "unlimited" }))
	f("rules[0].activity", edit(func(r *Rule) { r.Activity = "a b" }))
	f("rules[0].activity", edit(func(r *Rule) { r.Class, r.Activity = "payments", "a" }))
	f("rules[0].path", edit(func(r *Rule) { r.Path = "/assets/" }))
	f("rules[0].mode", edit(in("")))
	f("rules[0].percent", edit(of(-1)))
	f("rules[0].percent", edit(of(101)))
	f("", edit(func(r *Rule) { together(100, 0)(r); r.Key = []string{"activity", "path"} }))
	f("", edit(together(1, 100)))
	f("rules[0].scope", edit(together(99, 0)))
	f("rules[0].scope", edit(together(1000, 99)))
	f("rules[0].scope", edit(func(r *Rule) { together(100, 0)(r); r.Key = []string{"user"} }))
	f("rules[0].scope", edit(func(r *Rule) { together(100, 0)(r); r.Key = []string{"activity", "ip"} }))
	f("rules[0].scope", edit(func(r *Rule) { together(100, 0)(r); r.Rate.Algorithm = "fixed" }))
	f("rules[0].scope", edit(func(r *Rule) { r.Scope = "moon" }))
	f("rules[0].key", edit(by("user", "user")))
	f("rules[0].key", edit(by("name")))
	f("rules[0].key", edit(func(r *Rule) { r.Class, r.Key = "payments", []string{"activity"} }))
	f("rules[0].rate.algorithm", edit(func(r *Rule) { r.Rate.Algorithm = "" }))
	f("rules[0].rate.algorithm", edit(func(r *Rule) { leaky(1)(r); r.Class = "reads" }))
	f("rules[0].rate.limit", edit(upTo(0)))
	f("rules[0].rate.per", edit(func(r *Rule) { r.Rate.Per = "1" }))
	f("rules[0].rate.per", edit(func(r *Rule) { r.Rate.Per = "0s" }))
	f("rules[0].rate.burst", edit(func(r *Rule) { r.Rate.Burst = 1 }))
	f("rules[0].rate.burst", edit(leaky(6)))
	f("rules", many(MaxRules+1, func(int, *Rule) {})...)
	f("rules", many(limit.MaxGroup+1, func(int, *Rule) {})...)
	f("", many(limit.MaxGroup+1, func(i int, r *Rule) { r.Activity = fmt.Sprint("a", i) })...)
	f("rules", many(limit.MaxGroup+1, func(i int, r *Rule) {
		if i%2 == 0 {
			r.Activity = "a"
		}
	})...)
	f("", many(MaxRules, func(i int, r *Rule) { r.Mode = Off })...)
	f("", many(16, func(_ int, r *Rule) { r.Key = []string{"ip"} })...)
	f("rules[16].key", many(17, func(i int, r *Rule) { r.Key, r.Activity = []string{"ip"}, fmt.Sprint("a", i) })...)
}

// plain is the meaning of a set of rules, written as plainly as can be: maps, and
// each rule asked for itself. Fixed windows only: the algorithms are tested where
// they are.
type plain struct {
	rules []Rule
	used  map[string]int64 // by rule, key and window
}

func (p *plain) admit(now time.Time, f *Facts) (allowed bool, rules map[string]bool) {
	rules = map[string]bool{}
	var charge []string
	for _, r := range p.rules {
		if r.Mode == Off || r.Class != f.Class.String() || r.Activity != "" && r.Activity != f.Activity || !strings.HasPrefix(f.Path, r.Path) {
			continue
		}
		place, lacks := r.ID, false
		for _, part := range []string{"user", "ip", "phone", "path", "activity"} {
			for _, of := range r.Key {
				if of != part {
					continue
				}
				value := map[string]string{"user": f.User, "ip": f.IP.String(), "phone": f.Phone, "path": f.Path, "activity": f.Activity}[part]
				lacks = lacks || value == "" || value == "invalid IP"
				place += "|" + part + "=" + value
			}
		}
		if lacks {
			continue
		}
		per, _ := time.ParseDuration(r.Rate.Per)
		place += fmt.Sprint("|", now.UnixNano()/int64(per))
		if p.used[place] < r.Rate.Limit {
			charge = append(charge, place)
		} else if r.Mode == On {
			rules[r.ID] = true
		}
	}
	if len(rules) > 0 {
		return false, rules
	}
	for _, place := range charge {
		p.used[place]++
	}
	return true, nil
}

// Random rules, random requests, edited as they come: the answers are those of
// the plain meaning, a refusal names a rule that refuses, and Explain says before
// what Admit says then.
func TestLimitsMeanWhatTheRulesSay(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		pick := func(of ...string) string { return of[random.IntN(len(of))] }
		l, model, now := NewLimits(noon), plain{used: map[string]int64{}}, noon
		keyOf := map[string][]string{} // a rule keeps its key, and with it what was used
		change := func(version int) {
			model.rules = nil
			for i := range random.IntN(8) {
				r := rule(fmt.Sprint("r", i))
				if keyOf[r.ID] == nil {
					keyOf[r.ID] = []string{}
					for _, part := range partNames {
						if random.IntN(3) == 0 {
							keyOf[r.ID] = append([]string{part}, keyOf[r.ID]...)
						}
					}
				}
				r.Key, r.Class, r.Mode = keyOf[r.ID], "purchases", pick(On, On, On, Shadow)
				r.Activity, r.Path = pick("", "", "act", "bct"), pick("", "", "/v1/activities/act")
				r.Rate.Limit, r.Rate.Per = 1+random.Int64N(6), fmt.Sprint(1+i%3, "m")
				model.rules = append(model.rules, r)
			}
			// One that is away for a while is fresh when it comes back.
			for place := range model.used {
				id, _, _ := strings.Cut(place, "|")
				if !strings.Contains(fmt.Sprint(model.rules), "{"+id+" ") {
					delete(model.used, place)
				}
			}
			if err := l.Apply(edition(int64(version), model.rules...), now); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 600 {
			if i%50 == 0 {
				change(i + 1)
			}
			now = now.Add(time.Duration(random.Int64N(int64(4 * time.Second))))
			activity := pick("act", "bct", "")
			f := Facts{Class: Purchases, Activity: activity, Path: "/v1/activities/" + activity, User: pick("ann", "bob", ""), Phone: pick("1", "2", "")}
			if random.IntN(4) > 0 {
				f.IP = netip.MustParseAddr(pick("198.51.100.7", "198.51.100.8"))
			}
			told := l.Explain(now, &f)
			want, refusing := model.admit(now, &f)
			got := l.Admit(now, &f)
			if got.Allowed != want || !want && !refusing[got.Rule] {
				t.Fatalf("seed %d, request %d %+v: %+v, want %v by %v\n%+v", seed, i, f, got, want, refusing, model.rules)
			}
			if told.Allowed != want || told.Refuses != got.Rule || told.RetryAfter != millis(got.RetryAfter) {
				t.Fatalf("seed %d, request %d: explained as %+v, answered %+v", seed, i, told, got)
			}
		}
	}
}

// An edit under load neither lets anybody through twice nor loses a count.
func TestEditUnderLoad(t *testing.T) {
	const most = 500
	keep := rule("keep", by(), upTo(most), func(r *Rule) { r.Rate.Per = "1h" })
	l := limitsOf(t, keep)
	done := make(chan struct{})
	var edits sync.WaitGroup
	edits.Go(func() {
		for version := int64(2); ; version++ {
			select {
			case <-done:
				return
			default:
			}
			other := rule("other", upTo(1_000_000), func(r *Rule) {
				if version%2 == 0 {
					r.Key = []string{"ip"}
				}
			})
			set := [][]Rule{{keep}, {keep, other}, {other, keep}}[version%3]
			if err := l.Apply(edition(version, set...), noon); err != nil {
				t.Error(err)
			}
		}
	})
	var allowed, refused atomic.Int64
	var load sync.WaitGroup
	for g := range 4 {
		load.Go(func() {
			for i := range 2000 {
				if l.Admit(noon, buys(fmt.Sprint("u", g, i))).Allowed {
					allowed.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	load.Wait()
	close(done)
	edits.Wait()
	if allowed.Load() != most || refused.Load() != 8000-most {
		t.Errorf("%d allowed, %d refused", allowed.Load(), refused.Load())
	}
	for _, n := range l.Counts() {
		if n.Rule == "keep" && (n.Allowed != most || n.Refused != 8000-most) {
			t.Errorf("counted %+v", n)
		}
	}
}

// A part of the users is that part, and always the same one, on every gateway; a
// larger part has them all, and another rule chooses others.
func TestPercent(t *testing.T) {
	const users = 20_000
	limited := func(l *Limits, i int, ip netip.Addr) bool {
		f := buys(fmt.Sprint("user-", i))
		f.IP = ip
		l.Admit(noon, f)
		return !l.Admit(noon, f).Allowed
	}
	home := netip.MustParseAddr("198.51.100.7")
	part := func(id string, percent int) (chosen []bool) {
		l, again := limitsOf(t, rule(id, of(percent), upTo(1))), limitsOf(t, rule(id, of(percent), upTo(1)))
		n := 0
		for i := range users {
			is := limited(l, i, home)
			if is != limited(again, i, netip.MustParseAddr("2001:db8::1")) {
				t.Fatalf("user %d is chosen on one gateway or at one address only", i)
			}
			chosen = append(chosen, is)
			if is {
				n++
			}
		}
		if want := users * percent / 100; n < want-users/100 || n > want+users/100 {
			t.Errorf("%d%% of %d are %d", percent, users, n)
		}
		return chosen
	}
	part("a", 0)
	part("a", 100)
	ten, thirty, other := part("a", 10), part("a", 30), part("b", 30)
	both := 0
	for i := range users {
		if ten[i] && !thirty[i] {
			t.Fatalf("user %d is in 10%% and not in 30%%", i)
		}
		if thirty[i] && other[i] {
			both++
		}
	}
	if both < users*7/100 || both > users*11/100 { // 30% of 30%
		t.Errorf("two rules share %d of %d users", both, users)
	}

	// By address the part is of addresses, whoever the user.
	byIP := limitsOf(t, rule("a", by("ip"), of(50), upTo(1)))
	for i := range 200 {
		ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		if limited(byIP, i, ip) != !byIP.Admit(noon, &Facts{Class: Purchases, User: "somebody", IP: ip}).Allowed {
			t.Fatalf("%s is chosen for one user only", ip)
		}
	}
}

func TestShadowRefusesNobody(t *testing.T) {
	l := limitsOf(t, rule("tried", in(Shadow), upTo(3)), rule("none", in(Off), upTo(1)), rule("nobody", of(0), upTo(1)))
	for range 10 {
		if v := l.Admit(noon, buys("ann")); !v.Allowed {
			t.Fatalf("%+v", v)
		}
	}
	n := l.Counts()
	if n[0] != (RuleCount{Rule: "tried", Allowed: 3, ShadowRefused: 7, Rate: "fixed 3 per 1m0s"}) || n[1] != (RuleCount{Rule: "none"}) || n[2] != (RuleCount{Rule: "nobody", Rate: "fixed 1 per 1m0s"}) {
		t.Errorf("%+v", n)
	}
}

// A whole network of IPv6 is one shopper's; an address of IPv4 is one, however
// it is written.
func TestNetworks(t *testing.T) {
	f := func(a, b string, same bool) {
		t.Helper()
		l := limitsOf(t, rule("net", by("ip"), upTo(1)))
		l.Admit(noon, &Facts{Class: Purchases, IP: netip.MustParseAddr(a)})
		if v := l.Admit(noon, &Facts{Class: Purchases, IP: netip.MustParseAddr(b)}); v.Allowed == same {
			t.Errorf("%s and %s: %+v", a, b, v)
		}
	}
	f("198.51.100.7", "198.51.100.8", false)
	f("198.51.100.7", "::ffff:198.51.100.7", true)
	f("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true)
	f("2001:db8:1:2::1", "2001:db8:1:3::1", false)
}

// Purchases of a leaky rule go one by one, as many as the queue holds, and no
// longer than the caller lasts.
func TestPurchasesWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(time.Now())
		if err := l.Apply(edition(1, rule("slow", by(), leaky(2))), time.Now()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		enter := func(ctx context.Context) error { return l.Enter(ctx, time.Now(), buys("ann")) }
		waited := make(chan time.Duration, 3)
		for range 3 {
			go func() {
				if err := enter(t.Context()); err != nil {
					t.Error(err)
				}
				waited <- time.Since(began)
			}()
			synctest.Wait()
		}
		err := enter(t.Context())
		limited, ok := errors.AsType[*Limited](err)
		if !ok || !errors.Is(err, ErrRateLimited) || limited.Rule != "slow" || limited.RetryAfter != time.Second {
			t.Errorf("one too many: %v", err)
		}
		for want := range 3 {
			if got := <-waited; got != time.Duration(want)*time.Second {
				t.Errorf("number %d waited for %s", want, got)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who gives up: %v", err)
		}
		l.waiting.Store(maxWaiting)
		if err := enter(t.Context()); !errors.Is(err, ErrOverloaded) {
			t.Errorf("where too many wait: %v", err)
		}
		if n := l.waiting.Load(); n != maxWaiting {
			t.Errorf("%d wait", n)
		}
	})
}

// sixteen rules that all concern a purchase.
func sixteen(n int, limit int64) (rules []Rule) {
	keys := [][]string{{"user"}, {}, {"ip"}, {"user", "path"}, {"activity"}, {"ip", "activity"}, {"path"}, {"user", "ip"}}
	for i := range n {
		rules = append(rules, rule(fmt.Sprint("r", i), by(keys[i%len(keys)]...), upTo(limit)))
	}
	return rules
}

func TestDecidingAllocatesNothing(t *testing.T) {
	f := func(name string, rules ...Rule) {
		t.Helper()
		l, facts := limitsOf(t, rules...), buys("ann")
		if n := testing.AllocsPerRun(200, func() {
			err := l.Enter(context.Background(), noon, facts)
			if limited, ok := err.(*Limited); ok {
				limited.Free()
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	f("no rule")
	f("allowed", sixteen(16, 1_000_000)...)
	f("refused", sixteen(16, 1)...)
	f("a part", rule("a", of(50)), rule("b", of(50), by()))
}

// A rule's number means it for as long as it can, and never another.
func TestSlots(t *testing.T) {
	l := limitsOf(t, rule("first", by()))
	at := noon
	noted := map[string]uint8{}
	slotOf := func(id string) uint8 {
		for _, r := range l.now.Load().all {
			if r.ID == id {
				return r.slot
			}
		}
		t.Fatalf("%s is not in the set", id)
		return 0
	}
	noted["first"] = slotOf("first")
	for i := range 1000 {
		at = at.Add(time.Minute)
		id := fmt.Sprint("r", i)
		if err := l.Apply(edition(int64(i+2), rule("stays", by()), rule(id, by())), at); err != nil {
			t.Fatal(err)
		}
		noted[id] = slotOf(id)
		for age := 1; age <= 100 && age <= i; age++ {
			old, then := fmt.Sprint("r", i-age), at.Add(-time.Duration(age)*time.Minute)
			if got := ruleIn(l, noted[old], then); got != old {
				t.Fatalf("%s, %d rules later: %q", old, age, got)
			}
		}
		if got := ruleIn(l, noted["first"], noon); got != "first" && got != "" {
			t.Fatalf("the first is called %q", got)
		}
		if got := ruleIn(l, slotOf("stays"), at); got != "stays" {
			t.Fatalf("what stays is called %q", got)
		}
	}
	if got := ruleIn(l, noted["first"], noon); got != "" {
		t.Errorf("after a thousand rules the first is still %q", got)
	}
}

func BenchmarkAdmit(b *testing.B) {
	users := make([]string, 1<<12)
	for i := range users {
		users[i] = fmt.Sprint("user-", i)
	}
	for _, n := range []int{1, 4, 16} {
		for what, most := range map[string]int64{"allowed": 1_000_000_000, "refused": 1} {
			b.Run(fmt.Sprintf("%d rules %s", n, what), func(b *testing.B) {
				l, f, now := limitsOf(b, sixteen(n, most)...), buys(""), noon
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					f.User = users[i&(len(users)-1)]
					l.Admit(now, f)
					i++
				}
			})
		}
	}
}
