package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

// OnList says which entries a call is about: of one list, kind and activity, one
// for each subject.
type OnList struct {
	List     string           `json:"list" enum:"black,white,grey" doc:"black: refused; white: never challenged; grey: always challenged. Black counts before white, and white before grey"`
	Kind     string           `json:"kind" enum:"user,ip,phone"`
	Subjects []string         `json:"subjects" minItems:"1" maxItems:"1000" nullable:"false" doc:"User ids; addresses and networks (IPv4 /8 to /32, IPv6 /16 to /64 and /128); phone numbers as tokens claim them" example:"198.51.100.0/24"`
	Activity stock.ActivityID `json:"activity,omitempty" maxLength:"64" doc:"Only there. Left out: everywhere"`
	Revision int64            `json:"revision,omitempty" minimum:"1" doc:"With one subject: if its entry has changed since this revision, the answer is 409"`
}

type listInput struct {
	Overriding
	Body struct {
		OnList
		Reason string  `json:"reason,omitempty" maxLength:"200"`
		Until  instant `json:"until,omitzero" doc:"When it is over. Left out: when it is removed"`
	}
}

type unlistInput struct {
	Overriding
	Body struct {
		OnList
		Reason string `json:"reason,omitempty" maxLength:"200" doc:"For the audit log"`
	}
}

func (in *listInput) asked() (string, any) {
	shown := in.Body
	shown.OnList = shown.masked()
	return "lists/" + in.Body.List, shown
}

func (in *unlistInput) asked() (string, any) {
	shown := in.Body
	shown.OnList = shown.masked()
	return "lists/" + in.Body.List, shown
}

// masked is what the audit log, which keeps everything for good, says of phones:
// their last four characters. Whoever asks who is listed now is told all of it.
func (l *OnList) masked() OnList {
	shown := *l
	if l.Kind == gate.ListedPhone.String() {
		shown.Subjects = slices.Clone(l.Subjects)
		for i, phone := range shown.Subjects {
			shown.Subjects[i] = "*" + phone[max(len(phone)-4, 0):]
		}
	}
	return shown
}

func (l *OnList) entries(reason string, until instant) ([]gate.ListEntry, error) {
	if l.Revision != 0 && len(l.Subjects) != 1 {
		return nil, &gate.RuleError{Field: "revision", Why: "goes with one subject"}
	}
	entries := make([]gate.ListEntry, len(l.Subjects))
	for i, subject := range l.Subjects {
		entries[i] = gate.ListEntry{
			List: l.List, Kind: l.Kind, Subject: subject, Activity: string(l.Activity),
			Reason: reason, Until: stock.Millis(until), Revision: l.Revision,
		}
	}
	return entries, nil
}

// inTheCall names the field of the call where the gate names that of an entry.
func inTheCall(err error) error {
	bad, ok := errors.AsType[*gate.RuleError](err)
	if !ok {
		return err
	}
	at, field, _ := strings.Cut(bad.Field, ".")
	if rest, ok := strings.CutPrefix(at, "entries["); ok && (field == "" || field == "subject") {
		field = "subjects[" + rest
	} else if !ok {
		return err
	}
	return &gate.RuleError{Field: field, Why: bad.Why}
}

// listsBody is what a change has come to.
type listsBody struct {
	Revision int64 `json:"revision" doc:"Of the newest change of any entry"`
	Changed  int   `json:"changed" doc:"Entries that are new, other than before, or removed; the others were so already"`
}

// listEntryBody is an entry.
type listEntryBody struct {
	List     string  `json:"list"`
	Kind     string  `json:"kind"`
	Subject  string  `json:"subject"`
	Activity string  `json:"activity,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	By       string  `json:"by" doc:"Who changed it last"`
	Since    instant `json:"since"`
	Until    instant `json:"until,omitzero"`
	Revision int64   `json:"revision"`
}

func listEntries(found []gate.ListEntry) []listEntryBody {
	all := make([]listEntryBody, len(found))
	for i, e := range found {
		all[i] = listEntryBody{e.List, e.Kind, e.Subject, e.Activity, e.Reason, e.By, instant(e.Since), instant(e.Until), e.Revision}
	}
	return all
}

type listQuery struct {
	List     string `query:"list" enum:"black,white,grey" doc:"Only of this list"`
	Kind     string `query:"kind" enum:"user,ip,phone" doc:"Only of this kind"`
	Activity string `query:"activity" maxLength:"64" doc:"Only entries for this activity alone"`
	Before   int64  `query:"before" minimum:"0" doc:"Only revisions below this one"`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Entries of a page"`
}

type listPage struct {
	Entries []listEntryBody `json:"entries" nullable:"false"`
	Next    int64           `json:"next,omitempty" doc:"Ask again with before= this for more"`
}

type standingInput struct {
	Body struct {
		User     stock.UserID     `json:"user,omitempty" maxLength:"64"`
		Phone    string           `json:"phone,omitempty" maxLength:"32"`
		IP       string           `json:"ip,omitempty" maxLength:"45" example:"198.51.100.7"`
		Activity stock.ActivityID `json:"activity,omitempty" maxLength:"64"`
	}
}

type standingBody struct {
	Standing string          `json:"standing" enum:"none,black,white,grey" doc:"By what is in the store"`
	InForce  string          `json:"in_force" enum:"none,black,white,grey" doc:"What this process decides by. Changes are in force everywhere within a second"`
	Entries  []listEntryBody `json:"entries" nullable:"false" doc:"All that have a say in it, those of the list that counts first"`
}

// serveLists registers who is let in, and who is not, whatever the rules say.
func (c *console) serveLists() {
	mutate(c, about(route("lists.put", http.MethodPut, "/v1/lists/entries", "Put subjects on a list", http.StatusOK),
		"All of them or none. Who is there already gets the reason and the end that are given. In force here at once, and on every gateway within a second."),
		func(ctx context.Context, in *listInput) (*reply[listsBody], error) {
			entries, err := in.Body.entries(in.Body.Reason, in.Body.Until)
			if err != nil {
				return nil, err
			}
			saved, err := c.Lists.Put(ctx, entries, actor)
			return body(listsBody(saved), inTheCall(err))
		})
	mutate(c, about(route("lists.remove", http.MethodDelete, "/v1/lists/entries", "Take subjects off a list", http.StatusOK),
		"All of them or none. Who is not there stays so."),
		func(ctx context.Context, in *unlistInput) (*reply[listsBody], error) {
			entries, err := in.Body.entries("", 0)
			if err != nil {
				return nil, err
			}
			saved, err := c.Lists.Remove(ctx, entries, actor)
			return body(listsBody(saved), inTheCall(err))
		})
	read(c, route("lists.entries", http.MethodGet, "/v1/lists/entries", "Entries of the lists, the one changed last first", http.StatusOK),
		func(ctx context.Context, in *listQuery) (*reply[listPage], error) {
			q := gate.ListQuery{List: in.List, Kind: in.Kind, Before: in.Before}
			if in.Activity != "" {
				q.Activities = []string{in.Activity}
			}
			found, err := c.Lists.Entries(ctx, q, in.Limit)
			page := listPage{Entries: listEntries(found)}
			if len(found) == in.Limit {
				page.Next = found[len(found)-1].Revision
			}
			return body(page, err)
		})
	read(c, about(route("lists.standing", http.MethodPost, "/v1/lists/standing", "Whether somebody is listed, why, since when and by whom", http.StatusOK),
		"Nothing is changed: it is a POST so that phone numbers stand in no address."),
		func(ctx context.Context, in *standingInput) (*reply[standingBody], error) {
			f := gate.Facts{Activity: string(in.Body.Activity), User: string(in.Body.User), Phone: in.Body.Phone}
			if in.Body.IP != "" {
				var err error
				if f.IP, err = netip.ParseAddr(in.Body.IP); err != nil {
					return nil, &gate.RuleError{Field: "ip", Why: fmt.Sprintf("%q is not an address", in.Body.IP)}
				}
			}
			found, err := c.Lists.Find(ctx, &f)
			return body(standingBody{found.Standing.String(), c.Lists.Lists.Standing(c.Now(), &f).String(), listEntries(found.Entries)}, err)
		})
}
