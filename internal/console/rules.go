package console

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

type rulesInput struct {
	Overriding
	Body struct {
		gate.RuleSet
		Note string `json:"note,omitempty" maxLength:"200" doc:"Why, for the history"`
	}
}

func (in *rulesInput) asked() (string, any) {
	return "rules/" + strconv.FormatInt(in.Body.Version, 10), in.Body
}

type rollbackInput struct {
	Overriding
	Body struct {
		Version int64  `json:"version" minimum:"0" doc:"Whose rules are to be in force again, as a new version; 0: the default"`
		Note    string `json:"note,omitempty" maxLength:"200"`
	}
}

func (in *rollbackInput) asked() (string, any) {
	return "rules/" + strconv.FormatInt(in.Body.Version, 10), in.Body
}

type explainInput struct {
	Body struct {
		Class    string           `json:"class" enum:"purchases,reads,payments,gate"`
		Path     string           `json:"path,omitempty" maxLength:"400"`
		Activity stock.ActivityID `json:"activity,omitempty" maxLength:"64"`
		User     stock.UserID     `json:"user,omitempty" maxLength:"64"`
		Phone    string           `json:"phone,omitempty" maxLength:"32"`
		IP       string           `json:"ip,omitempty" maxLength:"45" example:"198.51.100.7"`
	}
}

// editionBody is a version of the rules.
type editionBody struct {
	gate.RuleSet
	At   instant `json:"at,omitzero"`
	By   string  `json:"by,omitempty"`
	Note string  `json:"note,omitempty"`
}

func editionOf(e gate.Edition) editionBody {
	e.Rules = orEmpty(e.Rules)
	return editionBody{e.RuleSet, instant(e.At), e.By, e.Note}
}

// rulesBody is what is in force here, and what it has decided here.
type rulesBody struct {
	editionBody
	Counts []gate.RuleCount `json:"counts" nullable:"false" doc:"Of the process that answers; of a fleet see the metrics of each gateway"`
}

func (c *console) rulesNow() rulesBody {
	return rulesBody{editionOf(c.Rules.Limits.Edition()), c.Rules.Door.Counts()}
}

type historyQuery struct {
	Before int64 `query:"before" minimum:"0" doc:"Only versions below this one"`
	Limit  int   `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"Versions of a page"`
}

type historyList struct {
	Versions []editionBody `json:"versions" nullable:"false"`
	Next     int64         `json:"next,omitempty" doc:"Ask again with before= this for more"`
}

func (c *console) serveRules() {
	read(c, route("rules.get", http.MethodGet, "/v1/rules", "How often shoppers may ask: the rules in force, with counts", http.StatusOK),
		func(context.Context, *none) (*reply[rulesBody], error) { return body(c.rulesNow(), nil) })
	mutate(c, about(route("rules.put", http.MethodPut, "/v1/rules", "Replace the rules", http.StatusOK),
		"In force here at once, and on every gateway within a second. What was used of a rule that keeps its id and key stays used."),
		func(ctx context.Context, in *rulesInput) (*reply[rulesBody], error) {
			if _, err := c.Rules.Save(ctx, in.Body.Version, in.Body.RuleSet, actor, in.Body.Note); err != nil {
				return nil, err
			}
			return body(c.rulesNow(), nil)
		})
	mutate(c, route("rules.rollback", http.MethodPost, "/v1/rules/rollback", "Put an earlier version into force again", http.StatusOK),
		func(ctx context.Context, in *rollbackInput) (*reply[rulesBody], error) {
			if _, err := c.Rules.Rollback(ctx, in.Body.Version, actor, in.Body.Note); err != nil {
				return nil, err
			}
			return body(c.rulesNow(), nil)
		})
	read(c, route("rules.history", http.MethodGet, "/v1/rules/history", "All versions of the rules, newest first", http.StatusOK),
		func(ctx context.Context, in *historyQuery) (*reply[historyList], error) {
			found, err := c.Rules.History(ctx, in.Before, in.Limit)
			list := historyList{Versions: make([]editionBody, len(found))}
			for i, e := range found {
				list.Versions[i] = editionOf(e)
			}
			if len(found) == in.Limit {
				list.Next = found[len(found)-1].Version
			}
			return body(list, err)
		})
	read(c, about(route("rules.explain", http.MethodPost, "/v1/rules/explain", "Which rule would refuse such a request now, and why", http.StatusOK),
		"Nobody is charged. What has been used is known of the process that answers: of a fleet's gateways it is their own business, and the answer of a console tells which rules concern the request."),
		func(_ context.Context, in *explainInput) (*reply[gate.Explanation], error) {
			f, err := in.facts()
			if err != nil {
				return nil, err
			}
			return body(c.Rules.Explain(&f), nil)
		})
}

func (in *explainInput) facts() (f gate.Facts, err error) {
	b := in.Body
	f = gate.Facts{Activity: string(b.Activity), Path: b.Path, User: string(b.User), Phone: b.Phone}
	if f.Class, err = gate.ClassOf(b.Class); err != nil || b.IP == "" {
		return f, err
	}
	if f.IP, err = netip.ParseAddr(b.IP); err != nil {
		return f, &gate.RuleError{Field: "ip", Why: fmt.Sprintf("%q is not an address", b.IP)}
	}
	return f, nil
}
