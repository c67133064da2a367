package gate

import (
	"context"
	"fmt"
	"slices"
)

// Preview is what pulling or reverting a playbook would change.
type Preview struct {
	Playbook   string          `json:"playbook"`
	Action     string          `json:"action" enum:"pull,revert"`
	Nothing    string          `json:"nothing,omitempty" doc:"Why it would change nothing"`
	Activities int             `json:"activities" doc:"Living activities for which something would change"`
	Unknown    []string        `json:"unknown,omitempty" doc:"Activities that the playbook names and that do not live: misspelt, or over"`
	Changes    []PreviewChange `json:"changes" nullable:"false"`
}

// PreviewChange is what would change for one activity, or for all that no step names.
type PreviewChange struct {
	Activity   string            `json:"activity" doc:"Empty: every activity that has no entry of its own"`
	Activities int               `json:"activities" doc:"How many living ones that is"`
	Before     Switches          `json:"before"`
	After      Switches          `json:"after"`
	By         map[string]string `json:"by" doc:"For each switch that would be on: playbook:<id> of who sets it"`
	Effects    []Effect          `json:"effects" nullable:"false"`
}

// Effect is one switch that would stand otherwise.
type Effect struct {
	Switch string   `json:"switch"`
	From   string   `json:"from" doc:"off, on, a duration or a percentage"`
	To     string   `json:"to"`
	Routes []string `json:"routes" doc:"Of the shopper API"`
	Means  string   `json:"means" doc:"What the switch does when it is on"`
}

// effects are the switches in words.
var effects = [switches]Effect{
	SwitchStaleDetail: {Routes: []string{"GET /v1/activities", "GET /v1/activities/{id}"},
		Means: "levels, titles and what an operator changes are shown that much later; openings and closings, countdowns and purchases are as exact as ever"},
	SwitchHideCounts: {Routes: []string{"POST /v1/activities/{id}/purchases"},
		Means: "409 insufficient comes without available"},
	SwitchStockTight: {Routes: []string{"GET /v1/activities", "GET /v1/activities/{id}"},
		Means: "plenty is told as few; all_held and sold_out stay as they are"},
	SwitchCaptcha: {Routes: []string{"POST /v1/activities/{id}/purchases", "POST /v1/activities/{id}/tickets", "POST /v1/activities/{id}/queue"},
		Means: "403 challenge_required for whoever shows no clearance and no pass or ticket; known keys get their receipt"},
	SwitchLimitPercent: {Routes: []string{"every route that a rule is about"},
		Means: "every rate of the rules is that much of what it says, so 429 rate_limited comes sooner"},
	SwitchQueue: {Routes: []string{"POST /v1/activities/{id}/purchases", "POST /v1/activities/{id}/queue"},
		Means: "429 queued for whoever shows no pass of the waiting room; known keys get their receipt"},
	SwitchCloseRegistration: {Routes: []string{"POST /v1/activities/{id}/tickets", "POST /v1/activities/{id}/queue"},
		Means: "409 registration_closed for whoever has no ticket and no place yet; places and tickets that were given stay good"},
	SwitchReadOnlyOrders: {Routes: []string{"POST /v1/activities/{id}/purchases", "POST /v1/orders/{id}/payments", "POST /v1/orders/{id}/cancel"},
		Means: "503 read_only; reads, known keys, callbacks of providers and time-outs go on, so what is held and not yet being paid runs out"},
}

// Preview says what pulling a playbook would change, or reverting it. Living are
// the activities that are not over: steps are compared with them, and they are
// counted. The error is ErrNoSuchPlaybook or the store's.
func (p *Playbooks) Preview(ctx context.Context, id string, revert bool, living []string) (Preview, error) {
	if _, err := p.Step(ctx); err != nil {
		return Preview{}, err
	}
	next := p.Shelf().copied()
	book, err := next.Playbook(id)
	if err != nil {
		return Preview{}, err
	}
	v := Preview{Playbook: id, Action: "pull", Changes: []PreviewChange{}}
	steps := book.Steps
	at := next.pulledAt(id)
	before := inForce(next.Pulled, slotsOf{})
	switch {
	case revert:
		v.Action = "revert"
		if at < 0 {
			v.Nothing = "it is not pulled"
			return v, nil
		}
		steps = next.Pulled[at].Steps
		next.Pulled = slices.Delete(next.Pulled, at, at+1)
	case at >= 0:
		v.Nothing = "it is pulled"
		if old := next.Pulled[at].Version; old != book.Version {
			v.Nothing = fmt.Sprintf("it is pulled as of version %d, and stays so: revert it and pull it again for version %d", old, book.Version)
		}
		return v, nil
	default:
		next.Pulled = append(next.Pulled, pulled(book, 0, "", ""))
	}
	v.compare(before, inForce(next.Pulled, slotsOf{}), living)
	for _, s := range steps {
		if s.Activity != "" && !slices.Contains(living, s.Activity) {
			v.Unknown = append(v.Unknown, s.Activity)
		}
	}
	if len(v.Changes) == 0 {
		v.Nothing = "other playbooks that are pulled say the same, or more"
	}
	return v, nil
}

// compare lists what differs, all activities without an entry of their own first.
func (v *Preview) compare(before, after *InForce, living []string) {
	scopes := append(before.Named(), after.Named()...)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	for _, activity := range slices.Concat([]string{""}, scopes) {
		was, is := before.Of(activity), after.Of(activity)
		c := PreviewChange{Activity: activity, Before: was.Switches(), After: is.Switches(), By: is.By()}
		if c.Before == c.After {
			continue
		}
		for s := range switches {
			if was.value(s) != is.value(s) {
				e := effects[s]
				e.Switch, e.From, e.To = s.String(), was.value(s), is.value(s)
				c.Effects = append(c.Effects, e)
			}
		}
		for _, id := range living {
			if id == activity || activity == "" && !slices.Contains(scopes, id) {
				c.Activities++
			}
		}
		v.Activities += c.Activities
		v.Changes = append(v.Changes, c)
	}
}
