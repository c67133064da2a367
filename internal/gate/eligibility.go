package gate

import (
	"sync"
	"sync/atomic"

	"github.com/expr-lang/expr/vm"
)

// eligibility is all conditions of a rule set made ready for use. Immutable, but
// for its counts; safe for concurrent use.
type eligibility struct {
	all   []*condition
	every met            // of activities that have none of their own
	of    map[string]met // of the others
	spare sync.Pool      // of *asker
}

// met are the conditions that meet in a purchase, and what all of them ask for.
type met struct {
	conditions []*condition
	asks       topic
}

// condition is one that is ready; its counts survive an edit.
type condition struct {
	Condition
	compiled
	refused *Refused
	counts  *verdicts
}

// verdicts has a cache line to itself.
type verdicts struct {
	allowed, refused, shadow, failed atomic.Uint64
	_                                [32]byte
}

// asker is a machine that runs expressions, and what it runs them on.
type asker struct {
	vm  vm.VM
	env map[string]any
}

// runMemory is how many elements an expression may make while it runs. Those that
// are allowed make none.
const runMemory = 1000

// newEligibility makes valid conditions ready; old, if there is one, is what they
// follow. slotOf answers the slot of a name.
func newEligibility(conditions []Condition, old *eligibility, slotOf func(name string) uint8) (*eligibility, error) {
	had := map[string]*verdicts{}
	if old != nil {
		for _, c := range old.all {
			had[c.ID] = c.counts
		}
	}
	e := &eligibility{of: map[string]met{}}
	e.spare.New = func() any { return &asker{vm: vm.VM{MemoryBudget: runMemory}, env: typed()} }
	for _, c := range conditions {
		ready, err := compile(c.When)
		if err != nil {
			return nil, &RuleError{c.ID, err.Error()}
		}
		counts := had[c.ID]
		if counts == nil {
			counts = &verdicts{}
		}
		e.all = append(e.all, &condition{
			Condition: c, compiled: ready, counts: counts,
			refused: &Refused{Rule: c.ID, Slot: slotOf(eligibilitySection + c.ID), Err: ErrNotEligible},
		})
		e.of[c.Activity] = met{}
	}
	for activity := range e.of {
		e.of[activity] = e.meet(activity)
	}
	e.every = e.meet("")
	return e, nil
}

// meet are the conditions that an activity has, in their order.
func (e *eligibility) meet(activity string) (m met) {
	for _, c := range e.all {
		if c.Mode != Off && (c.Activity == "" || c.Activity == activity) {
			m.conditions = append(m.conditions, c)
			m.asks |= c.asks
		}
	}
	return m
}

// Check answers the first condition that refuses a purchase, or nil.
//
// A condition that fails when it runs refuses, as one that does not hold: what
// nobody can tell must not let anyone in. What the language is cut down to
// leaves no way to fail but a fault of the library; counted all the same.
func (e *eligibility) Check(f *Facts) *Refused {
	m := e.concerning(f.Activity)
	if len(m.conditions) == 0 {
		return nil
	}
	a := e.asker(m.asks, f)
	defer e.done(a)
	var refused *Refused
	for _, c := range m.conditions {
		if c.Mode == On && refused != nil {
			continue
		}
		holds, err := a.holds(c)
		if err != nil {
			c.counts.failed.Add(1)
		}
		switch {
		case holds:
			c.counts.allowed.Add(1)
		case c.Mode == Shadow:
			c.counts.shadow.Add(1)
		default:
			c.counts.refused.Add(1)
			refused = c.refused
		}
	}
	return refused
}

func (e *eligibility) concerning(activity string) met {
	if m, own := e.of[activity]; own {
		return m
	}
	return e.every
}

// asker takes a machine and tells it what it will be asked for. Putting a text
// or a list where anything can stand costs an allocation, so nothing else is put
// there.
func (e *eligibility) asker(asks topic, f *Facts) *asker {
	a := e.spare.Get().(*asker)
	told := f.Claims
	if told == nil {
		told = &Claims{}
	}
	if asks&aUser != 0 {
		a.env["user"] = f.User
	}
	if asks&aPhone != 0 {
		a.env["phone"] = f.Phone
	}
	if asks&aLevel != 0 {
		a.env["level"] = told.Level
	}
	if asks&aRegion != 0 {
		a.env["region"] = told.Region
	}
	if asks&aNewcomer != 0 {
		a.env["newcomer"] = told.Newcomer
	}
	if asks&aGroups != 0 {
		a.env["groups"] = told.Groups
	}
	return a
}

// done gives a machine back. It may still have what it was told, until it is
// told something else, and never looks at it.
func (e *eligibility) done(a *asker) { e.spare.Put(a) }

func (a *asker) holds(c *condition) (bool, error) {
	answer, err := a.vm.Run(c.program, a.env)
	if err != nil {
		return false, err
	}
	holds, _ := answer.(bool) // the compiler has seen to it
	return holds, nil
}

// ConditionFinding is what one condition says to a purchase.
type ConditionFinding struct {
	Condition string `json:"condition"`
	Mode      string `json:"mode"`
	When      string `json:"when"`
	Concerned bool   `json:"concerned" doc:"Whether the condition is about such a purchase"`
	Why       string `json:"why,omitempty" doc:"If not, why not"`
	Allowed   bool   `json:"allowed" doc:"Its own answer; that of a shadow refuses nothing"`
}

// Explain answers what every condition says, in their order, and counts nothing;
// refuses is the condition that a refusal would name, "" if none refuses.
func (e *eligibility) Explain(f *Facts) (findings []ConditionFinding, refuses string) {
	findings = make([]ConditionFinding, len(e.all))
	a := e.asker(^topic(0), f)
	defer e.done(a)
	for i, c := range e.all {
		at := &findings[i]
		*at = ConditionFinding{Condition: c.ID, Mode: c.Mode, When: c.When, Allowed: true}
		switch {
		case f.Class != Purchases:
			at.Why = reasons[otherClass]
		case c.Activity != "" && c.Activity != f.Activity:
			at.Why = reasons[otherActivity]
		case c.Mode == Off:
			at.Why = reasons[switchedOff]
		default:
			at.Concerned = true
			at.Allowed, _ = a.holds(c)
		}
		if !at.Allowed && c.Mode == On && refuses == "" {
			refuses = c.ID
		}
	}
	return findings, refuses
}

// ConditionCount is what one condition has decided in this process, over all its edits.
type ConditionCount struct {
	Condition     string `json:"condition"`
	Allowed       uint64 `json:"allowed"`
	Refused       uint64 `json:"refused"`
	ShadowRefused uint64 `json:"shadow_refused" doc:"That it would have refused if it were on"`
	Failed        uint64 `json:"failed" doc:"Of those refused: it could not be told whether the condition holds"`
}

// Counts are those of all conditions, in their order.
func (e *eligibility) Counts() []ConditionCount {
	counts := make([]ConditionCount, len(e.all))
	for i, c := range e.all {
		counts[i] = ConditionCount{c.ID, c.counts.allowed.Load(), c.counts.refused.Load(), c.counts.shadow.Load(), c.counts.failed.Load()}
	}
	return counts
}
