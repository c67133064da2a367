package console

import (
	"context"
	"net/http"

	"sluice/internal/gate"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// playbookBody is a playbook, and how it is pulled.
type playbookBody struct {
	gate.Playbook
	Pulled *pulledBody `json:"pulled,omitempty" doc:"Absent: it is not"`
}

type pulledBody struct {
	Version int64               `json:"version" doc:"Of the playbook when it was pulled"`
	Edited  bool                `json:"edited" doc:"It has been edited since. In force is what was pulled, until revert and pull"`
	Steps   []gate.PlaybookStep `json:"steps" nullable:"false" doc:"In force"`
	At      instant             `json:"at"`
	By      string              `json:"by"`
	Reason  string              `json:"reason,omitempty"`
}

func playbookOf(b gate.Playbook, p *gate.Pulled) playbookBody {
	body := playbookBody{Playbook: b}
	if p != nil {
		body.Pulled = &pulledBody{p.Version, p.Version != b.Version, p.Steps, instant(p.At), p.By, p.Note}
	}
	return body
}

// playbook is one as it stands now.
func (c *console) playbook(id string) (*reply[playbookBody], error) {
	s := c.Playbooks.Shelf()
	b, err := s.Playbook(id)
	if err != nil {
		return nil, err
	}
	return body(playbookOf(*b, s.PulledOf(id)), nil)
}

type playbookList struct {
	Playbooks []playbookBody `json:"playbooks" nullable:"false"`
}

type playbookPath struct {
	ID string `path:"id" maxLength:"40"`
}

type playbookInput struct {
	Overriding
	ID   string `path:"id" maxLength:"40"`
	Body struct {
		Version int64               `json:"version" minimum:"0" doc:"That this was made from: if the playbook has changed since, the answer is 409. 0: a new one"`
		Title   string              `json:"title" minLength:"1" maxLength:"100"`
		Note    string              `json:"note,omitempty" maxLength:"500" doc:"When to pull it, and what shoppers then see"`
		Steps   []gate.PlaybookStep `json:"steps" minItems:"1" maxItems:"20" nullable:"false"`
		Reason  string              `json:"reason,omitempty" maxLength:"200" doc:"Why it is edited, for the history"`
	}
}

func (in *playbookInput) asked() (string, any) { return in.ID, in.Body }

type playbookDeletion struct {
	Overriding
	ID      string `path:"id" maxLength:"40"`
	Version int64  `query:"version" required:"true" minimum:"1" doc:"The one that is to go: if it has changed since, the answer is 409"`
	Reason  string `query:"reason" maxLength:"200"`
}

func (in *playbookDeletion) asked() (string, any) {
	return in.ID, map[string]any{"version": in.Version, "reason": in.Reason}
}

// pullInput has a body that may be absent: pulling is for bad minutes.
type pullInput struct {
	ID   string `path:"id" maxLength:"40"`
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"200" doc:"For the history"`
	}
}

func (in *pullInput) asked() (string, any) { return in.ID, map[string]string{"reason": in.reason()} }

func (in *pullInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

type previewInput struct {
	ID   string `path:"id" maxLength:"40"`
	Body *struct {
		Action string `json:"action,omitempty" enum:"pull,revert" doc:"Default pull"`
	}
}

// switchesBody is what is in force.
type switchesBody struct {
	Switches []effectiveBody `json:"switches" nullable:"false" doc:"Of all activities, then of each that a step names"`
}

type effectiveBody struct {
	Activity string            `json:"activity" doc:"Empty: every activity that has no entry of its own"`
	On       gate.Switches     `json:"on"`
	By       map[string]string `json:"by" doc:"For each switch that is on: playbook:<id> of who sets it"`
}

func switchesOf(now *gate.InForce) switchesBody {
	b := switchesBody{}
	for _, activity := range append([]string{""}, now.Named()...) {
		e := now.Of(activity)
		b.Switches = append(b.Switches, effectiveBody{activity, e.Switches(), e.By()})
	}
	return b
}

// changeBody is a line of the trail.
type changeBody struct {
	Version  int64               `json:"version"`
	At       instant             `json:"at"`
	By       string              `json:"by"`
	Action   gate.PlaybookAction `json:"action" enum:"saved,deleted,pulled,reverted,freeze_planned,freeze_lifted"`
	Subject  string              `json:"subject" doc:"The id of the playbook or freeze"`
	Reason   string              `json:"reason,omitempty"`
	Playbook *gate.Playbook      `json:"playbook,omitempty" doc:"As it was saved, deleted or pulled"`
	Freeze   *freezeBody         `json:"freeze,omitempty"`
}

func changeOf(h gate.PlaybookChange) changeBody {
	b := changeBody{h.Version, instant(h.At), h.By, h.Action, h.Subject, h.Note, h.Playbook, nil}
	if h.Freeze != nil {
		f := freezeOf(*h.Freeze)
		b.Freeze = &f
	}
	return b
}

type changeList struct {
	Changes []changeBody `json:"changes" nullable:"false"`
	Next    int64        `json:"next,omitempty" doc:"Ask again with before= this for more"`
}

func (c *console) servePlaybooks() {
	read(c, route("playbook.list", http.MethodGet, "/v1/playbooks", "All playbooks, and which of them are pulled", http.StatusOK),
		func(context.Context, *none) (*reply[playbookList], error) {
			s := c.Playbooks.Shelf()
			list := playbookList{make([]playbookBody, len(s.Playbooks))}
			for i, b := range s.Playbooks {
				list.Playbooks[i] = playbookOf(b, s.PulledOf(b.ID))
			}
			return body(list, nil)
		})
	read(c, route("playbook.get", http.MethodGet, "/v1/playbooks/{id}", "A playbook, and how it is pulled", http.StatusOK),
		func(_ context.Context, in *playbookPath) (*reply[playbookBody], error) { return c.playbook(in.ID) })
	mutate(c, about(route("playbook.put", http.MethodPut, "/v1/playbooks/{id}", "Write a playbook, or edit it", http.StatusOK),
		"Of one that is pulled the steps that were pulled stay in force: revert it and pull it again to take the new ones."),
		func(ctx context.Context, in *playbookInput) (*reply[playbookBody], error) {
			b := in.Body
			book := gate.Playbook{ID: in.ID, Version: b.Version, Title: b.Title, Note: b.Note, Steps: b.Steps}
			if _, err := c.Playbooks.Save(ctx, book, actor, b.Reason); err != nil {
				return nil, err
			}
			return c.playbook(in.ID)
		})
	mutate(c, route("playbook.delete", http.MethodDelete, "/v1/playbooks/{id}", "Delete a playbook that is not pulled", http.StatusNoContent),
		func(ctx context.Context, in *playbookDeletion) (*none, error) {
			return &none{}, c.Playbooks.Delete(ctx, in.ID, in.Version, actor, in.Reason)
		})
	read(c, route("playbook.history", http.MethodGet, "/v1/playbooks/history", "Who has written, pulled and reverted what, and planned and lifted freezes, newest first", http.StatusOK),
		func(ctx context.Context, in *historyQuery) (*reply[changeList], error) {
			found, err := c.Playbooks.History(ctx, in.Before, in.Limit)
			list := changeList{Changes: make([]changeBody, len(found))}
			for i, h := range found {
				list.Changes[i] = changeOf(h)
			}
			if len(found) == in.Limit {
				list.Next = found[len(found)-1].Version
			}
			return body(list, err)
		})
	c.servePulls()
	c.serveFreezes()
}

// servePulls registers what is never frozen: pulling, reverting, and looking first.
func (c *console) servePulls() {
	read(c, about(route("playbook.preview", http.MethodPost, "/v1/playbooks/{id}/preview", "What pulling it would change, or reverting it; changes nothing", http.StatusOK),
		"The body may be absent."),
		func(ctx context.Context, in *previewInput) (*reply[gate.Preview], error) {
			living, err := c.living(ctx)
			if err != nil {
				return nil, err
			}
			return body(c.Playbooks.Preview(ctx, in.ID, in.Body != nil && in.Body.Action == "revert", living))
		})
	mutate(c, about(route("playbook.pull", http.MethodPost, "/v1/playbooks/{id}/pull", "Put a playbook into force", http.StatusOK),
		"In force here at once, and on every gateway within a second. Pulling one that is pulled changes nothing. The body may be absent. No freeze forbids it."),
		func(ctx context.Context, in *pullInput) (*reply[playbookBody], error) {
			if _, err := c.Playbooks.Pull(ctx, in.ID, actor, in.reason()); err != nil {
				return nil, err
			}
			return c.playbook(in.ID)
		})
	mutate(c, about(route("playbook.revert", http.MethodPost, "/v1/playbooks/{id}/revert", "Take a playbook out of force", http.StatusOK),
		"What other playbooks have turned on stays on. Reverting one that is not pulled changes nothing. The body may be absent. No freeze forbids it."),
		func(ctx context.Context, in *pullInput) (*reply[playbookBody], error) {
			if err := c.Playbooks.Revert(ctx, in.ID, actor, in.reason()); err != nil {
				return nil, err
			}
			return c.playbook(in.ID)
		})
	read(c, about(route("switches.get", http.MethodGet, "/v1/switches", "Which switches are on now, for which activities, and by which playbook", http.StatusOK),
		"Of several playbooks the strictest setting counts. Of the process that answers; the others follow within a second."),
		func(context.Context, *none) (*reply[switchesBody], error) {
			return body(switchesOf(c.Playbooks.Active.Now()), nil)
		})
}

// living are the activities that a switch can still concern.
func (c *console) living(ctx context.Context) (ids []string, err error) {
	all, err := c.Sale.Page(ctx, sale.Query{Living: true})
	for _, a := range all {
		if a.State != sale.Closed {
			ids = append(ids, string(a.ID))
		}
	}
	return ids, err
}

// Overriding is in the input of every change that a freeze forbids.
type Overriding struct {
	Override string `header:"Override-Freeze" maxLength:"200" doc:"Why this must be changed although the configuration is frozen. It is in the audit log then"`
}

func (o *Overriding) override() string { return o.Override }

// freezable is the input of a change that a freeze forbids.
type freezable interface{ override() string }

// overridden is how a change that was made in spite of a freeze stands in the
// audit log.
type overridden struct {
	Override string `json:"override_freeze"`
	Freeze   string `json:"freeze"`
	Asked    any    `json:"asked"`
}

// frozen answers the freeze that forbids a change, and what the audit log is to
// say of the change.
func (c *console) frozen(ctx context.Context, in, asked any) (*gate.Freeze, any, error) {
	change, is := in.(freezable)
	if !is || c.Playbooks == nil {
		return nil, asked, nil
	}
	f, err := c.Playbooks.Frozen(ctx)
	if f == nil || err != nil || change.override() == "" {
		return f, asked, err
	}
	return nil, overridden{change.override(), f.ID, asked}, nil
}

type freezeBody struct {
	ID   string  `json:"id"`
	From instant `json:"from"`
	To   instant `json:"to"`
	Why  string  `json:"why"`
	By   string  `json:"by"`
}

func freezeOf(f gate.Freeze) freezeBody {
	return freezeBody{f.ID, instant(f.From), instant(f.To), f.Why, f.By}
}

type freezeInput struct {
	Body struct {
		From instant `json:"from,omitzero" doc:"Absent or past: now"`
		To   instant `json:"to" doc:"At most 31 days after from"`
		Why  string  `json:"why" minLength:"1" maxLength:"200" doc:"Told to whoever is refused"`
	}
}

func (in *freezeInput) asked() (string, any) { return "freeze", in.Body }

type freezeEnd struct {
	ID     string `path:"id" maxLength:"24"`
	Reason string `query:"reason" maxLength:"200"`
}

func (in *freezeEnd) asked() (string, any) { return in.ID, map[string]string{"reason": in.Reason} }

type freezeList struct {
	Frozen  bool         `json:"frozen" doc:"Now"`
	Freezes []freezeBody `json:"freezes" nullable:"false" doc:"In force or planned, by when they begin"`
	Forbids []string     `json:"forbids" nullable:"false" doc:"The operations that a freeze forbids, without the header Override-Freeze; nothing else is ever frozen"`
}

func (c *console) serveFreezes() {
	read(c, route("freeze.list", http.MethodGet, "/v1/freezes", "When the configuration is frozen, and what that forbids", http.StatusOK),
		func(ctx context.Context, _ *none) (*reply[freezeList], error) {
			in, err := c.Playbooks.Frozen(ctx)
			list := freezeList{Frozen: in != nil, Freezes: []freezeBody{}, Forbids: c.forbidden}
			for _, f := range c.Playbooks.Shelf().Freezes {
				if f.To > stock.MillisOf(c.Now()) {
					list.Freezes = append(list.Freezes, freezeOf(f))
				}
			}
			return body(list, err)
		})
	mutate(c, route("freeze.plan", http.MethodPost, "/v1/freezes", "Freeze the configuration from a time to a time", http.StatusCreated),
		func(ctx context.Context, in *freezeInput) (*reply[freezeBody], error) {
			b := in.Body
			f, err := c.Playbooks.Freeze(ctx, gate.Freeze{From: stock.Millis(b.From), To: stock.Millis(b.To), Why: b.Why, By: actor})
			return body(freezeOf(f), err)
		})
	mutate(c, route("freeze.lift", http.MethodDelete, "/v1/freezes/{id}", "End a freeze now, or give up a planned one", http.StatusNoContent),
		func(ctx context.Context, in *freezeEnd) (*none, error) {
			return &none{}, c.Playbooks.Lift(ctx, in.ID, actor, in.Reason)
		})
}
