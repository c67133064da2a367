package console

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"sluice/internal/lib/outbox"
)

// deadLetters is the part of outbox.Queue that operators use.
type deadLetters interface {
	Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error)
	Redrive(ctx context.Context, id int64) error
}

type deadPath struct {
	ID int64 `path:"id" minimum:"1"`
}

func (in *deadPath) asked() (string, any) { return strconv.FormatInt(in.ID, 10), struct{}{} }

type deadQuery struct {
	After int64 `query:"after" minimum:"0" doc:"Only ids after this one"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"Dead letters of a page"`
}

type deadList struct {
	DeadLetters []deadBody `json:"dead_letters" nullable:"false"`
	Next        string     `json:"next,omitempty" doc:"Ask again with after= this for more"`
}

type deadBody struct {
	ID       string  `json:"id"`
	Key      string  `json:"key" doc:"Later messages of this key wait behind it"`
	Topic    string  `json:"topic"`
	Body     any     `json:"body"`
	At       instant `json:"at"`
	Attempts int     `json:"attempts"`
	Reason   string  `json:"reason"`
}

type redriven struct {
	ID string `json:"id"`
}

func deadOf(m outbox.Message) deadBody {
	b := deadBody{ID: strconv.FormatInt(m.ID, 10), Key: m.Key, Topic: m.Topic, At: instant(m.At), Attempts: m.Attempts, Reason: m.Reason}
	if b.Body = json.RawMessage(m.Body); !json.Valid(m.Body) {
		b.Body = string(m.Body) // it may be why nobody could take it
	}
	return b
}

func (c *console) serveDeadLetters() {
	read(c, route("dead_letter.list", http.MethodGet, "/v1/dead-letters", "Events that could not be delivered", http.StatusOK),
		func(ctx context.Context, in *deadQuery) (*reply[deadList], error) {
			found, err := c.DeadLetters.Dead(ctx, in.After, in.Limit)
			list := deadList{DeadLetters: make([]deadBody, len(found))}
			for i, m := range found {
				list.DeadLetters[i] = deadOf(m)
			}
			if len(found) >= in.Limit {
				list.Next = list.DeadLetters[len(found)-1].ID
			}
			return body(list, err)
		})
	mutate(c, route("dead_letter.redrive", http.MethodPost, "/v1/dead-letters/{id}/redrive", "Deliver a dead letter again", http.StatusOK),
		func(ctx context.Context, in *deadPath) (*reply[redriven], error) {
			return body(redriven{strconv.FormatInt(in.ID, 10)}, c.DeadLetters.Redrive(ctx, in.ID))
		})
}
