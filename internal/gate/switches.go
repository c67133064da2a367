package gate

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Switches say how the shop serves less than it could, in order to go on
// serving. The zero value is a shop that does all it can.
type Switches struct {
	StaleDetail       string `json:"stale_detail,omitempty" doc:"How old a page of an activity may be, 100ms to 60s: it is made again once in that time, whatever is sold meanwhile" example:"2s"`
	HideCounts        bool   `json:"hide_counts,omitempty" doc:"Shoppers are told no numbers of units"`
	StockTight        bool   `json:"stock_tight,omitempty" doc:"Every level but all_held and sold_out is told as few"`
	Captcha           bool   `json:"captcha,omitempty" doc:"Whoever wants to buy solves a challenge first"`
	LimitPercent      int    `json:"limit_percent,omitempty" minimum:"0" maximum:"100" doc:"What is left of every rate of the rules; 0 or absent: all of it. Only for all activities"`
	Queue             bool   `json:"queue,omitempty" doc:"The waiting room is on"`
	CloseRegistration bool   `json:"close_registration,omitempty" doc:"No new tickets, no new places in waiting rooms"`
	ReadOnlyOrders    bool   `json:"read_only_orders,omitempty" doc:"No purchases, no cancellations, no payments are begun; reads and reports of payments go on"`
}

// Bounds of stale_detail.
const (
	minStale = 100 * time.Millisecond
	maxStale = time.Minute
)

// fault answers the field that is wrong and why, or nothing.
func (s *Switches) fault() (field, why string) {
	if why = durationFault(s.StaleDetail, minStale, maxStale); why != "" {
		return "stale_detail", why
	}
	if s.LimitPercent < 0 || s.LimitPercent > 100 {
		return "limit_percent", fmt.Sprintf("%d is not in 1..100", s.LimitPercent)
	}
	return "", ""
}

// Switch is one of them.
type Switch uint8

const (
	SwitchStaleDetail Switch = iota
	SwitchHideCounts
	SwitchStockTight
	SwitchCaptcha
	SwitchLimitPercent
	SwitchQueue
	SwitchCloseRegistration
	SwitchReadOnlyOrders
	switches
)

var switchNames = [switches]string{"stale_detail", "hide_counts", "stock_tight", "captcha", "limit_percent", "queue",
	"close_registration", "read_only_orders"}

// String is the name in playbooks.
func (s Switch) String() string { return switchNames[s] }

// Effective is what the pulled playbooks come to for one activity: of each
// switch the strictest that any of them sets. It is immutable.
type Effective struct {
	StaleDetail       time.Duration // how old a page may be; 0: as fresh as ever
	HideCounts        bool
	StockTight        bool
	Captcha           bool
	LimitPercent      int // 1..100 of every rate
	Queue             bool
	CloseRegistration bool
	ReadOnlyOrders    bool

	refused [switches]Refused // by whom a switch is on, and what it says
}

// Rule names the playbook that has turned a switch on, as "playbook:<id>": of
// several that want the same the one that was pulled first. "" where it is off.
func (e *Effective) Rule(s Switch) string { return e.refused[s].Rule }

// Refused is the refusal of a switch that is on: of captcha, queue,
// close_registration and read_only_orders. It is shared by all whom it refuses.
func (e *Effective) Refused(s Switch) *Refused { return &e.refused[s] }

// Switches are those that are on, as a playbook would write them.
func (e *Effective) Switches() Switches {
	s := Switches{HideCounts: e.HideCounts, StockTight: e.StockTight, Captcha: e.Captcha, Queue: e.Queue,
		CloseRegistration: e.CloseRegistration, ReadOnlyOrders: e.ReadOnlyOrders}
	if e.StaleDetail > 0 {
		s.StaleDetail = e.StaleDetail.String()
	}
	if e.LimitPercent < 100 {
		s.LimitPercent = e.LimitPercent
	}
	return s
}

// By tells for each switch that is on which playbook it is by.
func (e *Effective) By() map[string]string {
	by := map[string]string{}
	for s := range switches {
		if rule := e.Rule(s); rule != "" {
			by[s.String()] = rule
		}
	}
	return by
}

// value is how a switch stands, for people.
func (e *Effective) value(s Switch) string {
	switch {
	case e.Rule(s) == "":
		return "off"
	case s == SwitchStaleDetail:
		return e.StaleDetail.String()
	case s == SwitchLimitPercent:
		return strconv.Itoa(e.LimitPercent) + "%"
	}
	return "on"
}

// add turns on what a valid step sets and nothing stricter had set before.
func (e *Effective) add(rule string, s *Switches) {
	stale, _ := time.ParseDuration(s.StaleDetail) // of "" it is 0
	if stale > e.StaleDetail {
		e.StaleDetail, e.refused[SwitchStaleDetail].Rule = stale, rule
	}
	if s.LimitPercent > 0 && s.LimitPercent < e.LimitPercent {
		e.LimitPercent, e.refused[SwitchLimitPercent].Rule = s.LimitPercent, rule
	}
	for _, b := range []struct {
		set bool
		is  *bool
		of  Switch
	}{
		{s.HideCounts, &e.HideCounts, SwitchHideCounts},
		{s.StockTight, &e.StockTight, SwitchStockTight},
		{s.Captcha, &e.Captcha, SwitchCaptcha},
		{s.Queue, &e.Queue, SwitchQueue},
		{s.CloseRegistration, &e.CloseRegistration, SwitchCloseRegistration},
		{s.ReadOnlyOrders, &e.ReadOnlyOrders, SwitchReadOnlyOrders},
	} {
		if b.set && !*b.is {
			*b.is, e.refused[b.of].Rule = true, rule
		}
	}
}

// InForce is what the pulled playbooks come to for every activity. It is
// immutable, so that two that are the same pointer say the same.
type InForce struct {
	every Effective
	of    map[string]*Effective // activities that a step names
	some  [switches]bool        // on for any activity
}

// Of is what holds for an activity.
func (f *InForce) Of(activity string) *Effective {
	if len(f.of) > 0 {
		if e := f.of[activity]; e != nil {
			return e
		}
	}
	return &f.every
}

// Anywhere says whether a switch is on for any activity.
func (f *InForce) Anywhere(s Switch) bool { return f.some[s] }

// Named are the activities that steps name, in order: for all others holds Of("").
func (f *InForce) Named() []string {
	names := make([]string, 0, len(f.of))
	for activity := range f.of {
		names = append(names, activity)
	}
	slices.Sort(names)
	return names
}

// slotsOf are the slots of switches that refuse, see Refused.
type slotsOf [switches]uint8

// inForce joins playbooks that were valid when they were pulled.
func inForce(pulled []Pulled, slots slotsOf) *InForce {
	f := &InForce{of: map[string]*Effective{}}
	f.every.begin(slots)
	for _, p := range pulled {
		for _, step := range p.Steps {
			if step.Activity != "" && f.of[step.Activity] == nil {
				e := &Effective{}
				e.begin(slots)
				f.of[step.Activity] = e
			}
		}
	}
	for _, p := range pulled {
		for i := range p.Steps {
			step, rule := &p.Steps[i], "playbook:"+p.Playbook
			if step.Activity != "" {
				f.of[step.Activity].add(rule, &step.Switches)
				continue
			}
			f.every.add(rule, &step.Switches)
			for _, e := range f.of {
				e.add(rule, &step.Switches)
			}
		}
	}
	for s := range switches {
		f.some[s] = f.every.Rule(s) != ""
		for _, e := range f.of {
			f.some[s] = f.some[s] || e.Rule(s) != ""
		}
	}
	return f
}

// begin is a shop that does all it can.
func (e *Effective) begin(slots slotsOf) {
	e.LimitPercent = 100
	for s, err := range map[Switch]error{SwitchCaptcha: ErrChallengeRequired, SwitchQueue: ErrQueued,
		SwitchCloseRegistration: ErrRegistrationClosed, SwitchReadOnlyOrders: ErrReadOnly} {
		e.refused[s] = Refused{Slot: slots[s], Err: err}
	}
}

// Active is the switches that are in force in this process. To look at them is
// one load, and for an activity that a step names a look into a map. A nil Active
// has everything off.
type Active struct {
	now   atomic.Pointer[InForce]
	slots slotsOf
}

// NewActive has everything off. Refusals by switches are remembered by slots of
// l's; nil: they are not remembered.
func NewActive(l *Limits, now time.Time) *Active {
	a := &Active{}
	if l != nil {
		for s, name := range map[Switch]string{SwitchCaptcha: captchaSwitch, SwitchCloseRegistration: closedSwitch, SwitchReadOnlyOrders: readOnlySwitch, SwitchQueue: queueSwitch} {
			a.slots[s] = l.slotOf(name, now)
		}
	}
	a.now.Store(inForce(nil, a.slots))
	return a
}

var allOff = inForce(nil, slotsOf{})

// Now is what is in force.
func (a *Active) Now() *InForce {
	if a == nil {
		return allOff
	}
	return a.now.Load()
}

// Of is what is in force for an activity.
func (a *Active) Of(activity string) *Effective { return a.Now().Of(activity) }

// Apply puts into force what these come to, in place of what was. The error is a
// *RuleError, and then nothing changed.
func (a *Active) Apply(pulled []Pulled) error {
	for _, p := range pulled {
		if err := validSteps(p.Steps); err != nil {
			return fmt.Errorf("playbook %s: %w", p.Playbook, err)
		}
	}
	a.now.Store(inForce(pulled, a.slots))
	return nil
}
