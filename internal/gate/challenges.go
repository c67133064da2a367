package gate

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sluice/internal/stock"
)

// Challenge says when a challenge (captcha) has to be solved before a purchase, a
// ticket or a place in a queue.
type Challenge struct {
	ID       string   `json:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,39}$"`
	Activity string   `json:"activity,omitempty" maxLength:"64" doc:"Only for this activity"`
	Mode     string   `json:"mode" enum:"on,shadow,off" doc:"shadow: counted, and asks nobody"`
	When     string   `json:"when" enum:"always,suspect" doc:"suspect: only of whom a signal makes look like a program"`
	Kind     string   `json:"kind,omitempty" enum:"slider,arithmetic" doc:"By default any"`
	Signals  []string `json:"signals,omitempty" doc:"With suspect: which of regular, accounts, headless; by default all"`
	Regular  float64  `json:"regular,omitempty" minimum:"0" maximum:"0.5" doc:"With suspect: a user is taken for a program whose last 8 to 16 times between attempts have a coefficient of variation below this; people's is about 0.5, a program's that waits at random by ± 20 % is 0.12. By default 0.15"`
	Accounts int      `json:"accounts,omitempty" minimum:"0" maximum:"400" doc:"With suspect: more users than this behind one address (IPv6: /64) within 5 to 10 minutes. Whole towns can stand behind one address of a mobile network. By default 50"`
}

// When a challenge is asked for, and kinds of challenges.
const (
	Always     = "always"
	Suspect    = "suspect"
	Slider     = "slider"
	Arithmetic = "arithmetic"
)

// Defaults and bounds of what looks like a program.
const (
	defaultRegular  = 0.15
	maxRegular      = 0.5
	defaultAccounts = 50
	maxAccounts     = 400 // the most that neighbours can tell
)

// signal is one thing by which a program is known.
type signal uint8

const (
	regularSignal signal = iota
	accountsSignal
	headlessSignal
	signals
)

var signalNames = [signals]string{"regular", "accounts", "headless"}

// Thresholds are by what Suspicion judges.
type Thresholds struct {
	signals uint8   // bits
	regular float64 // coefficient of variation
	bits    int     // of neighbours, for so many accounts
}

// fault answers the field that is wrong and why, or nothing.
func (c *Challenge) fault() (field, why string) {
	switch {
	case !validRuleID(c.ID):
		return "id", wrongID
	case c.Activity != "" && (len(c.Activity) > stock.MaxID || !printable(c.Activity)):
		return "activity", "must be the id of an activity"
	case c.Mode != On && c.Mode != Shadow && c.Mode != Off:
		return "mode", fmt.Sprintf("%q is none of on, shadow, off", c.Mode)
	case c.When != Always && c.When != Suspect:
		return "when", fmt.Sprintf("%q is none of always, suspect", c.When)
	case c.Kind != "" && c.Kind != Slider && c.Kind != Arithmetic:
		return "kind", fmt.Sprintf("%q is none of slider, arithmetic; leave it out for any", c.Kind)
	case !(c.Regular >= 0 && c.Regular <= maxRegular):
		return "regular", fmt.Sprintf("%v is not in 0..%v", c.Regular, maxRegular)
	case c.Accounts < 0 || c.Accounts > maxAccounts:
		return "accounts", fmt.Sprintf("%d is not in 0..%d", c.Accounts, maxAccounts)
	case c.When == Always && len(c.Signals) > 0:
		return "signals", "signals are for suspect; leave them out"
	case c.When == Always && c.Regular != 0:
		return "regular", "it is for suspect; leave it out"
	case c.When == Always && c.Accounts != 0:
		return "accounts", "it is for suspect; leave it out"
	}
	for i, name := range c.Signals {
		switch {
		case !slices.Contains(signalNames[:], name):
			return "signals", fmt.Sprintf("%q is none of %s", name, strings.Join(signalNames[:], ", "))
		case slices.Contains(c.Signals[:i], name):
			return "signals", fmt.Sprintf("%q stands twice", name)
		}
	}
	return "", ""
}

// Thresholds are those of a valid rule, with the defaults; of the zero Challenge,
// the defaults.
func (c *Challenge) Thresholds() Thresholds {
	t := Thresholds{regular: c.Regular}
	for i, name := range signalNames {
		if len(c.Signals) == 0 || slices.Contains(c.Signals, name) {
			t.signals |= 1 << i
		}
	}
	if t.regular == 0 {
		t.regular = defaultRegular
	}
	accounts := c.Accounts
	if accounts == 0 {
		accounts = defaultAccounts
	}
	// So many accounts set so many of the bits, on average.
	t.bits = int(math.Round(accountBits * (1 - math.Pow(1-1.0/accountBits, float64(accounts)))))
	return t
}

// Challenges are the rules of an edition about challenges, made ready. They do
// not change but for their counts.
type Challenges struct {
	rules     []*asking         // those that are not off
	counts    map[string]*asked // of all
	suspicion *Suspicion
	watches   bool
}

// asking is one rule that is not off.
type asking struct {
	Challenge
	by     Thresholds
	counts *asked
}

// asked counts what a rule has asked, by signal; without one last.
type asked struct{ on, shadow [signals + 1]atomic.Uint64 }

// NewChallenges is for valid rules; counts of those that were in the set before
// (nil: none was) go on.
func NewChallenges(rules []Challenge, s *Suspicion, before *Challenges) *Challenges {
	c := &Challenges{counts: map[string]*asked{}, suspicion: s}
	for _, rule := range rules {
		counts := &asked{}
		if before != nil && before.counts[rule.ID] != nil {
			counts = before.counts[rule.ID]
		}
		if c.counts[rule.ID] = counts; rule.Mode == Off {
			continue
		}
		c.rules = append(c.rules, &asking{rule, rule.Thresholds(), counts})
		c.watches = c.watches || rule.When == Suspect
	}
	return c
}

// Observe notes an attempt, if any rule goes by suspicion. Suspicion.Observe says
// which attempts.
func (c *Challenges) Observe(now time.Time, f *Facts) {
	if c.watches {
		c.suspicion.Observe(now, f)
	}
}

// Demand is a challenge that is asked for.
type Demand struct {
	By     string // the rule's id; "captcha" for the switch, "greylist" for the list
	Kind   string // Slider, Arithmetic or "" for any
	Signal string // by which the rule suspects, "" if it does not go by that
}

// Needs says whether a request has to come with a clearance, and by which rule. Of
// several rules it is the first that is on; the switch that asks everybody and the
// grey list, on which the request's user or address stands, come after them. It
// counts, and so is asked once for a request; it allocates nothing.
func (c *Challenges) Needs(now time.Time, f *Facts, captcha, grey bool) (d Demand, yes bool) {
	for _, r := range c.rules {
		// After the first that is on, only shadows are of interest.
		if r.Activity != "" && r.Activity != f.Activity || yes && r.Mode == On {
			continue
		}
		at, asks := r.asks(c.suspicion, now, f)
		switch {
		case !asks:
		case r.Mode == Shadow:
			r.counts.shadow[at].Add(1)
		default:
			r.counts.on[at].Add(1)
			d, yes = Demand{By: r.ID, Kind: r.Kind}, true
			if at < signals {
				d.Signal = signalNames[at]
			}
		}
	}
	switch {
	case yes:
		return d, true
	case captcha:
		return Demand{By: "captcha"}, true
	case grey:
		return Demand{By: "greylist"}, true
	}
	return Demand{}, false
}

// asks is the answer of one rule that concerns a request; signals stands for none
// of them.
func (r *asking) asks(s *Suspicion, now time.Time, f *Facts) (signal, bool) {
	if r.When == Always {
		return signals, true
	}
	return s.suspect(now, f, &r.by)
}

// Explain answers what each rule says to a request now, and counts nothing.
func (c *Challenges) Explain(now time.Time, f *Facts) []Finding {
	found := make([]Finding, len(c.rules))
	for i, r := range c.rules {
		at := &found[i]
		*at = Finding{Rule: r.ID, Mode: r.Mode, Allowed: true}
		if r.Activity != "" && r.Activity != f.Activity {
			at.Why = reasons[otherActivity]
			continue
		}
		at.Concerned = true
		if signal, asks := r.asks(c.suspicion, now, f); asks {
			at.Allowed = false
			if signal < signals {
				at.Why = "looks like a program: " + signalNames[signal]
			}
		}
	}
	return found
}

// ChallengeCount is what one rule has asked in this process, over all its edits.
type ChallengeCount struct {
	Rule   string            `json:"rule"`
	Asked  uint64            `json:"asked" doc:"Requests that needed a clearance by it, with or without one"`
	Shadow uint64            `json:"shadow" doc:"That would have needed one if it were on"`
	By     map[string]uint64 `json:"by,omitempty" doc:"Of both, how many by each signal"`
}

// Counts are those of the rules that are not off, in their order.
func (c *Challenges) Counts() []ChallengeCount {
	counts := make([]ChallengeCount, len(c.rules))
	for i, r := range c.rules {
		at := &counts[i]
		at.Rule = r.ID
		for s := range signals + 1 {
			on, shadow := r.counts.on[s].Load(), r.counts.shadow[s].Load()
			at.Asked, at.Shadow = at.Asked+on, at.Shadow+shadow
			if r.When == Suspect && s < signals {
				if at.By == nil {
					at.By = make(map[string]uint64, signals)
				}
				at.By[signalNames[s]] = on + shadow
			}
		}
	}
	return counts
}
