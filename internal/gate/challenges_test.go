package gate

import (
	"testing"
	"time"
)

func TestChallengeRulesAreValidated(t *testing.T) {
	f := func(want string, edit func(*Challenge)) {
		t.Helper()
		c := Challenge{ID: "a", Mode: On, When: Suspect}
		edit(&c)
		if field, why := c.fault(); field != want || (why == "") != (want == "") {
			t.Errorf("%+v: %q, %q; want a fault in %q", c, field, why, want)
		}
	}
	f("", func(*Challenge) {})
	f("", func(c *Challenge) { c.Activity, c.Mode, c.Kind = "spring", Shadow, Slider })
	f("", func(c *Challenge) { c.When, c.Kind = Always, Arithmetic })
	f("", func(c *Challenge) {
		c.Regular, c.Accounts, c.Signals = 0.5, 400, []string{"headless", "regular", "accounts"}
	})
	f("id", func(c *Challenge) { c.ID = "" })
	f("activity", func(c *Challenge) { c.Activity = "a b" })
	f("mode", func(c *Challenge) { c.Mode = "" })
	f("when", func(c *Challenge) { c.When = "sometimes" })
	f("kind", func(c *Challenge) { c.Kind = "words" })
	f("regular", func(c *Challenge) { c.Regular = 0.51 })
	f("regular", func(c *Challenge) { c.Regular = -0.1 })
	nan := 0.0
	f("regular", func(c *Challenge) { c.Regular = nan / nan })
	f("accounts", func(c *Challenge) { c.Accounts = 401 })
	f("accounts", func(c *Challenge) { c.Accounts = -1 })
	f("signals", func(c *Challenge) { c.Signals = []string{"smell"} })
	f("signals", func(c *Challenge) { c.Signals = []string{"regular", "regular"} })
	f("signals", func(c *Challenge) { c.When, c.Signals = Always, []string{"regular"} })
	f("regular", func(c *Challenge) { c.When, c.Regular = Always, 0.1 })
	f("accounts", func(c *Challenge) { c.When, c.Accounts = Always, 10 })
}

// What is asked for, and in whose name.
func TestChallengesAreAskedFor(t *testing.T) {
	always := func(id, activity, kind string) Challenge {
		return Challenge{ID: id, Activity: activity, Mode: On, When: Always, Kind: kind}
	}
	suspects := Challenge{ID: "bots", Mode: On, When: Suspect, Kind: Slider}
	shadow := Challenge{ID: "shadow", Mode: Shadow, When: Always}
	off := Challenge{ID: "off", Mode: Off, When: Always}
	person, bot := &Facts{Activity: "spring", User: "ann"}, &Facts{Activity: "spring", User: "bot", Hints: HintTool}
	f := func(name string, facts *Facts, captcha, grey bool, want Demand, rules ...Challenge) {
		t.Helper()
		c := NewChallenges(rules, NewSuspicion(noon), nil)
		c.Observe(noon, facts)
		d, yes := c.Needs(noon, facts, captcha, grey)
		if d != want || yes != (want != Demand{}) {
			t.Errorf("%s: %+v, %v; want %+v", name, d, yes, want)
		}
	}
	f("no rules", bot, false, false, Demand{})
	f("switch", person, true, false, Demand{By: "captcha"})
	f("grey list", person, false, true, Demand{By: "greylist"})
	f("switch before list", person, true, true, Demand{By: "captcha"})
	f("rule before switch", person, true, true, Demand{By: "a", Kind: Arithmetic}, always("a", "", Arithmetic))
	f("of the activity", person, false, false, Demand{By: "a"}, always("a", "spring", ""))
	f("of another activity", person, false, false, Demand{}, always("a", "autumn", ""))
	f("shadow", person, false, false, Demand{}, shadow)
	f("off", person, false, false, Demand{}, off)
	f("a person is no suspect", person, false, false, Demand{}, suspects)
	f("a program is one", bot, false, false, Demand{By: "bots", Kind: Slider, Signal: "headless"}, suspects)
	f("the first", bot, false, false, Demand{By: "bots", Kind: Slider, Signal: "headless"}, shadow, off, suspects, always("a", "", ""))
	f("the first that asks", person, false, false, Demand{By: "a"}, shadow, off, suspects, always("a", "", ""))
}

// Counts go on over edits, name the signals, and tell what a shadow would do.
func TestChallengesAreCounted(t *testing.T) {
	rules := []Challenge{
		{ID: "bots", Mode: On, When: Suspect}, {ID: "try", Mode: Shadow, When: Suspect, Signals: []string{"regular"}}, {ID: "all", Activity: "autumn", Mode: On, When: Always},
	}
	s := NewSuspicion(noon)
	c := NewChallenges(rules, s, nil)
	f := &Facts{Activity: "spring", User: "bot"}
	for i := range 12 { // of which the last four are suspected
		now := noon.Add(time.Duration(i) * 100 * time.Millisecond)
		c.Observe(now, f)
		c.Needs(now, f, false, false)
	}
	f.Hints = HintTool
	if d, _ := c.Needs(noon.Add(2*time.Second), f, false, false); d.Signal != "headless" {
		t.Errorf("%+v", d)
	}
	if n := testing.AllocsPerRun(100, func() { c.Needs(noon.Add(2*time.Second), &Facts{Activity: "winter"}, true, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	off := append([]Challenge{{ID: "bots", Mode: Off, When: Suspect}}, rules[1:]...)
	c = NewChallenges(rules, s, NewChallenges(off, s, c))
	counts := c.Counts()
	if len(counts) != 3 || counts[0].Rule != "bots" || counts[0].Asked != 5 || counts[0].Shadow != 0 || counts[0].By["regular"] != 4 || counts[0].By["headless"] != 1 {
		t.Errorf("%+v", counts)
	}
	if counts[1].Asked != 0 || counts[1].Shadow != 5 || counts[1].By["regular"] != 5 || counts[2].Asked != 0 {
		t.Errorf("%+v", counts)
	}

	found := c.Explain(noon.Add(2*time.Second), f)
	if len(found) != 3 || found[0].Allowed || found[0].Why != "looks like a program: headless" || found[1].Allowed || found[2].Concerned || !found[2].Allowed {
		t.Errorf("%+v", found)
	}
	if again := c.Counts(); again[0].Asked != 5 {
		t.Error("explaining counts")
	}
}
