package gate

import (
	"time"

	"sluice/internal/lib/limit"
)

// Explanation is what the rules would say to a request now, each by itself.
type Explanation struct {
	Version    int64     `json:"version"`
	Percent    int       `json:"limit_percent" doc:"Of every rate, as playbooks leave it"`
	Allowed    bool      `json:"allowed"`
	Refuses    string    `json:"refuses,omitempty" doc:"The rule that a refusal would name"`
	RetryAfter int64     `json:"retry_after_ms,omitempty"`
	Delay      int64     `json:"delay_ms,omitempty" doc:"How long it would have to wait for its turn"`
	Rules      []Finding `json:"rules" nullable:"false"`

	Conditions []ConditionFinding `json:"conditions,omitempty"`
	Challenges []Finding          `json:"challenges,omitempty" doc:"Not allowed: it would ask for a clearance"`
	Asks       []string           `json:"asks,omitempty" doc:"What a purchase has to show, for everybody: queue (a pass), ticket, challenge (a clearance)"`
}

// Finding is what one rule says.
type Finding struct {
	Rule       string `json:"rule"`
	Mode       string `json:"mode"`
	Concerned  bool   `json:"concerned" doc:"Whether the rule is about such a request"`
	Why        string `json:"why,omitempty" doc:"If not, why not"`
	Allowed    bool   `json:"allowed" doc:"Its own answer; that of a shadow refuses nothing"`
	Remaining  int64  `json:"remaining" doc:"Requests that could come now, after this one"`
	RetryAfter int64  `json:"retry_after_ms,omitempty"`
	Delay      int64  `json:"delay_ms,omitempty"`
	Rate       string `json:"rate,omitempty" doc:"In force, unless the rule is off" example:"token 1 per 1s, burst 5"`
	From       string `json:"from,omitempty" enum:"budget,part" doc:"Of a rate that gateways share: whether this process goes by what it holds of it, or keeps its part by itself"`
}

// Explain answers what Admit would, and why, and charges nobody.
func (l *Limits) Explain(now time.Time, f *Facts) Explanation {
	set := l.now.Load()
	x := Explanation{Version: set.edition.Version, Percent: set.scale.percent, Rules: make([]Finding, len(set.all))}
	k := keys{facts: f, hash: l.hash}
	have := f.known()
	var asks []limit.Ask
	var of []*Finding
	for i, r := range set.all {
		at := &x.Rules[i]
		*at = Finding{Rule: r.ID, Mode: r.Mode, Allowed: true}
		if r.limiter != nil {
			at.Rate = r.rate.String()
		}
		why := switchedOff
		switch {
		case r.class != f.Class:
			why = otherClass
		case r.limiter != nil:
			why = r.concerns(f, have)
		}
		if at.Why = reasons[why]; why != concerned {
			continue
		}
		at.Concerned = true
		ask := limit.Ask{Limiter: r.limiter, Key: k.key(r.parts), N: 1, Shadow: r.Mode == Shadow}
		if r.shared != nil {
			at.From = "part"
			if a := r.shared.find(ask.Key, now.UnixNano()); a != nil {
				at.From, ask.Limiter, ask.Budget = "budget", nil, a.budget
			}
		}
		asks = append(asks, ask)
		of = append(of, at)
	}
	v := limit.PeekAll(asks, now.UnixNano())
	x.Allowed, x.Delay, x.RetryAfter = v.Allowed, millis(v.Delay), millis(v.RetryAfter)
	longest := time.Duration(-1)
	for i := range asks {
		d := asks[i].Decision
		at := of[i]
		at.Allowed, at.Remaining, at.RetryAfter, at.Delay = d.Allowed, d.Remaining, millis(d.RetryAfter), millis(d.Delay)
		if !d.Allowed && !asks[i].Shadow && d.RetryAfter > longest {
			longest, x.Refuses = d.RetryAfter, at.Rule
		}
	}
	return x
}

// millis rounds up: who comes then is not too early.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
