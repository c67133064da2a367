package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"sluice/internal/stock"
)

// actor is who every call is by: there is one token, and it is the operators'.
const actor = "ops"

// AuditEntry is one change that an operator asked for. ID is given by the
// log, ascending. Detail is the request as JSON.
type AuditEntry struct {
	ID      int64
	At      stock.Millis
	Actor   string
	Action  string // as the OpenAPI document names the operation
	Subject string // the SKU, activity, order or dead letter
	Detail  string
}

// auditLog keeps entries for good.
type auditLog interface {
	// Audit saves an entry; it is durable when this returns nil.
	Audit(ctx context.Context, e AuditEntry) error
	// AuditLog lists entries with id < before (0: the newest), newest first.
	AuditLog(ctx context.Context, before int64, limit int) ([]AuditEntry, error)
}

// record saves that a change is about to be tried.
func (c *console) record(ctx context.Context, action, subject string, asked any) error {
	detail, err := json.Marshal(asked)
	if err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	e := AuditEntry{At: stock.MillisOf(c.Now()), Actor: actor, Action: action, Subject: subject, Detail: string(detail)}
	if err := c.Audit.Audit(ctx, e); err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	return nil
}

type auditQuery struct {
	Before int64 `query:"before" minimum:"0" doc:"Only ids below this one"`
	Limit  int   `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"Entries of a page"`
}

type auditList struct {
	Entries []auditBody `json:"entries" nullable:"false"`
	Next    string      `json:"next,omitempty" doc:"Ask again with before= this for more"`
}

type auditBody struct {
	ID      string          `json:"id"`
	At      instant         `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Detail  json.RawMessage `json:"detail" doc:"The body of the request"`
}

func (c *console) serveAudit() {
	read(c, route("audit.list", http.MethodGet, "/v1/audit", "Changes that were asked for, newest first, whether granted or not", http.StatusOK),
		func(ctx context.Context, in *auditQuery) (*reply[auditList], error) {
			found, err := c.Audit.AuditLog(ctx, in.Before, in.Limit)
			list := auditList{Entries: make([]auditBody, len(found))}
			for i, e := range found {
				list.Entries[i] = auditBody{strconv.FormatInt(e.ID, 10), instant(e.At), e.Actor, e.Action, e.Subject, json.RawMessage(e.Detail)}
			}
			if len(found) == in.Limit {
				list.Next = list.Entries[len(found)-1].ID
			}
			return body(list, err)
		})
}
