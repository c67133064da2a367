package gate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func book(id string, steps ...PlaybookStep) Pulled { return Pulled{Playbook: id, Steps: steps} }

func step(activity string, s Switches) PlaybookStep { return PlaybookStep{activity, s} }

func activeWith(t testing.TB, pulled ...Pulled) *Active {
	t.Helper()
	a := NewActive(nil, noon)
	if err := a.Apply(pulled); err != nil {
		t.Fatal(err)
	}
	return a
}

// Of several playbooks the strictest counts, and is named; of those that want
// the same, the first.
func TestEffectiveSwitches(t *testing.T) {
	a := activeWith(t,
		book("calm", step("", Switches{StaleDetail: "2s", HideCounts: true, LimitPercent: 80})),
		book("here", step("drop", Switches{StaleDetail: "1s", ReadOnlyOrders: true})),
		book("later", step("", Switches{StaleDetail: "500ms", HideCounts: true, LimitPercent: 50, Captcha: true})))
	f := func(activity string, want Switches, by string) {
		t.Helper()
		e := a.Of(activity)
		if got := e.Switches(); got != want {
			t.Errorf("%q: %+v, want %+v", activity, got, want)
		}
		var names []string
		for s := range switches {
			if r := e.Rule(s); r != "" {
				names = append(names, s.String()+" "+strings.TrimPrefix(r, "playbook:"))
			}
		}
		if got := strings.Join(names, ", "); got != by || len(e.By()) != len(names) {
			t.Errorf("%q: %s, want %s", activity, got, by)
		}
	}
	f("else", Switches{StaleDetail: "2s", HideCounts: true, LimitPercent: 50, Captcha: true},
		"stale_detail calm, hide_counts calm, captcha later, limit_percent later")
	f("drop", Switches{StaleDetail: "2s", HideCounts: true, LimitPercent: 50, Captcha: true, ReadOnlyOrders: true},
		"stale_detail calm, hide_counts calm, captcha later, limit_percent later, read_only_orders here")
	if !a.Now().Anywhere(SwitchReadOnlyOrders) || a.Now().Anywhere(SwitchQueue) {
		t.Error("what is on anywhere")
	}
	r := a.Of("drop").Refused(SwitchReadOnlyOrders)
	if r.Rule != "playbook:here" || !errors.Is(r, ErrReadOnly) {
		t.Errorf("the refusal: %v", r)
	}
	if err := a.Apply([]Pulled{book("bad", step("", Switches{StaleDetail: "soon"}))}); !errors.Is(err, ErrRules) {
		t.Errorf("what cannot be read: %v", err)
	}
	if a.Of("drop").Rule(SwitchReadOnlyOrders) == "" {
		t.Error("what cannot be read has put out of force what was")
	}
}

// All is off in a shop without pulled playbooks, and for an API without switches.
func TestNothingPulled(t *testing.T) {
	for _, a := range []*Active{nil, NewActive(nil, noon), NewActive(NewLimits(noon), noon)} {
		e := a.Of("drop")
		if e.Switches() != (Switches{}) || e.LimitPercent != 100 || len(e.By()) != 0 || len(a.Now().Named()) != 0 {
			t.Errorf("%+v", e)
		}
	}
}

// Refusals by switches are told apart in the memory of last refusals.
func TestSlotsOfSwitches(t *testing.T) {
	l := NewLimits(noon)
	a := NewActive(l, noon)
	if err := a.Apply([]Pulled{book("p", step("", Switches{ReadOnlyOrders: true, Captcha: true, CloseRegistration: true}))}); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[Switch]error{SwitchReadOnlyOrders: ErrReadOnly, SwitchCaptcha: ErrChallengeRequired, SwitchCloseRegistration: ErrRegistrationClosed} {
		if rule, why := l.RuleIn(a.Of("x").Refused(s).Slot, noon); why != want {
			t.Errorf("%s is remembered as %s: %v", s, rule, why)
		}
	}
}

// The switches against a model that looks at every step.
func TestSwitchesAgainstModel(t *testing.T) {
	names := []string{"", "a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) Switches {
			return Switches{
				StaleDetail:  rapid.SampledFrom([]string{"", "100ms", "2s", "1m"}).Draw(t, "stale"),
				LimitPercent: rapid.IntRange(0, 100).Draw(t, "percent"),
				HideCounts:   rapid.Bool().Draw(t, "hide"), StockTight: rapid.Bool().Draw(t, "tight"),
				Captcha: rapid.Bool().Draw(t, "captcha"), Queue: rapid.Bool().Draw(t, "queue"),
				CloseRegistration: rapid.Bool().Draw(t, "close"), ReadOnlyOrders: true,
			}
		})
		var pulled []Pulled
		for i := range rapid.IntRange(0, 4).Draw(t, "playbooks") {
			p := Pulled{Playbook: string(rune('a' + i))}
			for _, activity := range names {
				if rapid.Bool().Draw(t, "step") {
					p.Steps = append(p.Steps, step(activity, draw.Draw(t, "switches")))
				}
			}
			if len(p.Steps) > 0 {
				pulled = append(pulled, p)
			}
		}
		f := inForce(pulled, slotsOf{})
		for _, activity := range append(names[1:], "of no step") {
			want := Switches{}
			var stale time.Duration
			percent := 100
			for _, p := range pulled {
				for _, s := range p.Steps {
					if s.Activity != "" && s.Activity != activity {
						continue
					}
					d, _ := time.ParseDuration(s.StaleDetail)
					stale = max(stale, d)
					if s.LimitPercent > 0 {
						percent = min(percent, s.LimitPercent)
					}
					want.HideCounts = want.HideCounts || s.HideCounts
					want.StockTight = want.StockTight || s.StockTight
					want.Captcha = want.Captcha || s.Captcha
					want.Queue = want.Queue || s.Queue
					want.CloseRegistration = want.CloseRegistration || s.CloseRegistration
					want.ReadOnlyOrders = true
				}
			}
			if stale > 0 {
				want.StaleDetail = stale.String()
			}
			if percent < 100 {
				want.LimitPercent = percent
			}
			if got := f.Of(activity).Switches(); got != want {
				t.Fatalf("%q: %+v, want %+v", activity, got, want)
			}
		}
	})
}

func TestLookingAtSwitchesIsCheap(t *testing.T) {
	a := activeWith(t, book("here", step("drop", Switches{Captcha: true})))
	if n := testing.AllocsPerRun(100, func() {
		if !a.Of("drop").Captcha || a.Of("else").Refused(SwitchCaptcha).Rule != "" {
			t.Error("wrong switches")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSwitches(b *testing.B) {
	for name, a := range map[string]*Active{
		"nothing pulled": NewActive(nil, noon),
		"all":            activeWith(b, book("calm", step("", Switches{Captcha: true}))),
		"named":          activeWith(b, book("here", step("drop", Switches{Captcha: true}))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			on := 0
			for b.Loop() {
				if a.Of("double-eleven-2025").ReadOnlyOrders {
					on++
				}
			}
		})
	}
}
