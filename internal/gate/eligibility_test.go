package gate

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// conditions makes them ready, each on and for every activity.
func conditions(t testing.TB, when ...string) *eligibility {
	t.Helper()
	var all []Condition
	for i, w := range when {
		all = append(all, Condition{ID: fmt.Sprintf("c%d", i), Mode: On, When: w})
	}
	return eligible(t, nil, all...)
}

func eligible(t testing.TB, old *eligibility, all ...Condition) *eligibility {
	t.Helper()
	for i := range all {
		if field, why := all[i].fault(); why != "" {
			t.Fatalf("%s: %s: %s", all[i].ID, field, why)
		}
	}
	e, err := newEligibility(all, old, func(name string) uint8 { return uint8(len(name)) })
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var ann = Facts{Class: Purchases, Activity: "drop", User: "ann", Phone: "+8613800138000",
	Claims: &Claims{Level: 3, Region: "CN-31", Newcomer: true, Groups: []string{"staff", "vip-gold"}}}

func TestConditions(t *testing.T) {
	f := func(when string, ofAnn, ofNobody bool) {
		t.Helper()
		e := conditions(t, when)
		for _, check := range []struct {
			facts Facts
			want  bool
		}{{ann, ofAnn}, {Facts{Class: Purchases, Activity: "drop", User: "bob"}, ofNobody}} {
			refused := e.Check(&check.facts)
			if (refused == nil) != check.want {
				t.Errorf("%s of %s: %v, want %v", when, check.facts.User, refused == nil, check.want)
			}
			if refused != nil && (!errors.Is(refused, ErrNotEligible) || refused.Rule != "c0" || refused.Slot != uint8(len("eligibility/c0"))) {
				t.Errorf("%s: %+v", when, refused)
			}
		}
		if c := e.Counts()[0]; c.Failed != 0 || c.Allowed+c.Refused != 2 {
			t.Errorf("%s: counts %+v", when, c)
		}
	}
	f(`level >= 2`, true, false)
	f(`level == 0`, false, true)
	f(`-1 < level and level in [1, 2, 3]`, true, false)
	f(`newcomer`, true, false)
	f(`!newcomer || level > 5`, false, true)
	f(`region in ["CN-31", "CN-11"]`, true, false)
	f(`region not in ["CN-31", "CN-11"]`, false, true)
	f(`region startsWith "CN" and level >= 3 or user == "bob"`, true, true)
	f(`"staff" in groups`, true, false)
	f(`not ("staff" in groups)`, false, true)
	f(`any(groups, # startsWith "vip-")`, true, false)
	f(`all(groups, {len(#) > 3})`, true, true)
	f(`none(groups, # == "banned") and count(groups, # contains "gold") == 1`, true, false)
	f(`one(groups, lower(#) == "staff")`, true, false)
	f(`len(groups) == 2 and phone startsWith "+86" and user != ""`, true, false)
	f(`upper(trim(region)) endsWith "31"`, true, false)
	f(`1 < level < 4`, true, false)
	f(`true`, true, true)
}

func TestConditionFaults(t *testing.T) {
	f := func(when, say string) {
		t.Helper()
		c := Condition{ID: "c", Mode: On, When: when}
		field, why := c.fault()
		if field != "when" || !strings.Contains(why, say) || strings.Contains(why, "\n") {
			t.Errorf("%s: %s: %q, want %q", when, field, why, say)
		}
	}
	f("", "unexpected token")
	f("level >=", "unexpected token")
	f("age > 18", "unknown name age")
	f("level", "expected bool")
	f(`level > "2"`, "invalid operation")
	f(`groups contains "a"`, "invalid operation")
	f(`level + 1 > 2`, `"+" cannot be used`)
	f(`level % 0 == 1`, `"%" cannot be used`)
	f(`level in 1..1000000`, `".." cannot be used`)
	f(`user matches "(a+)+$"`, `"matches" cannot be used`)
	f(`groups[9] == "a"`, "groups[9]")
	f(`user[0:1] == "a"`, "user[0:1]")
	f(`user.name == "a"`, "cannot be used in a condition")
	f(`let x = user; x == "a"`, "cannot be used in a condition")
	f(`$env.user == "a"`, "cannot be used in a condition")
	f(`(user ?? "a") == "a"`, `"??" cannot be used`)
	f(`user == nil`, "nil")
	f(`level > 1.5`, "1.5")
	f(`{"a": 1}.a == 1`, "cannot be used")
	f(`newcomer ? level : user`, "cannot be used")
	f(`if newcomer { level } else { user }`, "cannot be used")
	f(`[user] == [phone]`, "cannot be used")
	f(`len(repeat("a", 1000000000)) > 1`, `there is no "repeat"`)
	f(`now() > now()`, `there is no "now"`)
	f(`shout(user) == "A"`, `there is no "shout"`)
	f(`len(filter(groups, true)) > 1`, `there is no "filter"`)
	f(`all(1..100000, # > 0)`, "of groups only")
	f(`all(groups, any(groups, # == "a"))`, "cannot stand within")
	f(`all(groups, #index > 1)`, "cannot be used")
	f(`len() == 1`, "there is no")
	f(strings.Repeat("!", maxNodes+1)+"newcomer", "exceeds maximum allowed nodes")
	f(`"`+strings.Repeat("a", maxWhen)+`" == user`, "500 at most")

	g := func(c Condition, field string) {
		t.Helper()
		if got, _ := c.fault(); got != field {
			t.Errorf("%+v: %q, want %q", c, got, field)
		}
	}
	g(Condition{ID: "A", Mode: On, When: "true"}, "id")
	g(Condition{ID: "a", Mode: "maybe", When: "true"}, "mode")
	g(Condition{ID: "a", Mode: Off, When: "tru"}, "when")
	g(Condition{ID: "a", Mode: Off, Activity: "a b", When: "true"}, "activity")
	g(Condition{ID: "a", Mode: Off, Activity: "a", When: "true"}, "")
}

func TestFewConditionsMeet(t *testing.T) {
	f := func(everywhere, of, off int, field string) {
		t.Helper()
		var all []Condition
		for range everywhere {
			all = append(all, Condition{Mode: Shadow})
		}
		for range of {
			all = append(all, Condition{Mode: On, Activity: "drop"}, Condition{Mode: On, Activity: "other"})
		}
		for range off {
			all = append(all, Condition{Mode: Off, Activity: "drop"})
		}
		var bad *RuleError
		if err := fewMeet(all); err != nil && !errors.As(err, &bad) {
			t.Fatal(err)
		}
		if got := fmt.Sprint(bad); bad == nil && field != "" || bad != nil && bad.Field != field {
			t.Errorf("%d, %d, %d: %s, want %q", everywhere, of, off, got, field)
		}
	}
	f(8, 0, 50, "")
	f(3, 5, 0, "")
	f(9, 0, 0, "eligibility[8].activity")
	f(3, 6, 0, "eligibility[13].activity")
}

// The first that is on is named; shadows are asked whatever the others say, and
// refuse nobody; counts outlive an edit.
func TestWhichConditionRefuses(t *testing.T) {
	set := []Condition{
		{ID: "shadow", Mode: Shadow, When: "level > 100"},
		{ID: "off", Mode: Off, When: "false"},
		{ID: "other", Mode: On, Activity: "other", When: "false"},
		{ID: "first", Mode: On, Activity: "drop", When: `region == "US"`},
		{ID: "second", Mode: On, When: "level > 3"},
		{ID: "late", Mode: Shadow, Activity: "drop", When: "false"},
	}
	e := eligible(t, nil, set...)
	at := func(activity string) string {
		facts := ann
		facts.Activity = activity
		if r := e.Check(&facts); r != nil {
			return r.Rule
		}
		return ""
	}
	for activity, want := range map[string]string{"drop": "first", "other": "other", "third": "second"} {
		if got := at(activity); got != want {
			t.Errorf("%s: refused by %q, want %q", activity, got, want)
		}
	}
	findings, refuses := e.Explain(&ann)
	if refuses != "first" || findings[1].Why != "it is off" || findings[2].Why != "it is for another activity" ||
		!findings[4].Concerned || findings[4].Allowed || findings[0].Allowed {
		t.Errorf("%q, %+v", refuses, findings)
	}
	reading := ann
	reading.Class = Reads
	if findings, refuses := e.Explain(&reading); refuses != "" || findings[3].Concerned {
		t.Errorf("of a read: %q, %+v", refuses, findings)
	}
	set[4].When = "level > 2"
	e = eligible(t, e, set[0], set[4])
	if got := at("drop"); got != "" {
		t.Errorf("after the edit: %q", got)
	}
	want := []ConditionCount{{Condition: "shadow", ShadowRefused: 4}, {Condition: "second", Allowed: 1, Refused: 1}}
	if got := e.Counts(); got[0] != want[0] || got[1] != want[1] {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}

// A failure, which nothing that may be written leads to, refuses and is counted.
func TestFailingConditionsRefuse(t *testing.T) {
	e := conditions(t, `"staff" in groups`, `"staff" in groups`)
	e.all[1].Mode = Shadow
	e.every.asks = 0 // so that it is not told what its groups are
	e.spare.New = func() any { return &asker{env: map[string]any{"groups": 7}} }
	r := e.Check(&ann)
	want := [2]ConditionCount{{Condition: "c0", Refused: 1, Failed: 1}, {Condition: "c1", ShadowRefused: 1, Failed: 1}}
	if got := [2]ConditionCount(e.Counts()); r == nil || r.Rule != "c0" || got != want {
		t.Errorf("refused %v, counts %+v, want %+v", r, got, want)
	}
}

func TestConditionsAtOnce(t *testing.T) {
	e := conditions(t, `level >= 2 and region == "CN-31"`, `"staff" in groups`)
	bob := Facts{Class: Purchases, Activity: "drop", User: "bob", Claims: &Claims{Level: 9, Region: "CN-31", Groups: []string{"x"}}}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2000 {
				if e.Check(&ann) != nil || e.Check(&bob) == nil {
					t.Error("one was taken for the other")
					return
				}
			}
		})
	}
	all.Wait()
}

// Whatever is written is either refused or answers within its bounds.
func FuzzCondition(f *testing.F) {
	for _, when := range []string{
		`level >= 2 and "vip" in groups`, `any(groups, # startsWith "a") ? newcomer : user < phone`, `count(groups, len(#) in [1,2]) > 1`,
		`region in ["a","b"] or not newcomer`, `if level > 2 { true } else { user contains "bo" }`, `[1..9][0] == 1`, `all(groups, {none(groups, #)})`,
		`len("x") == -level`, `lower(upper(trim(user))) endsWith ""`, `let a = 1; a`, `1 < level < 3`, `"a" < "b" == true`, `one(groups)`, `user in groups in groups`,
	} {
		f.Add(when)
	}
	f.Fuzz(func(t *testing.T, when string) {
		c := Condition{ID: "c", Mode: On, When: when}
		started := time.Now()
		if _, why := c.fault(); why != "" {
			return
		}
		e, err := newEligibility([]Condition{c}, nil, func(string) uint8 { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		for _, facts := range []Facts{ann, {Class: Purchases}} {
			e.Check(&facts)
		}
		if e.Counts()[0].Failed != 0 {
			t.Errorf("%q failed when it ran", when)
		}
		if took := time.Since(started); took > time.Second {
			t.Errorf("%q took %s", when, took)
		}
	})
}

func BenchmarkEligibility(b *testing.B) {
	for _, when := range [][]string{{"level >= 2"}, {`region in ["CN-31", "CN-11"]`}, {`"vip-gold" in groups`}, {"level >= 2 and newcomer", `region == "CN-31"`, `any(groups, # startsWith "vip")`}} {
		e := conditions(b, when...)
		b.Run(strings.Join(when, "; "), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if e.Check(&ann) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
	e := conditions(b, "level > 100")
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e.Check(&ann) == nil {
				b.Fatal("allowed")
			}
		}
	})
}
