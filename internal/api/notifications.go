package api

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/internal/stock"
)

// notifications keeps what a shopper is told on the site.
type notifications interface {
	// Notifications answers those of a user with id < before (0: the newest),
	// newest first, at most limit.
	Notifications(ctx context.Context, user stock.UserID, before int64, limit int) ([]Notification, error)
}

// Notification is one thing that happened to a shopper's order. Event is the
// event's body as JSON.
type Notification struct {
	ID    int64
	Topic string
	At    stock.Millis
	Event []byte
}

type shownNotification struct {
	ID    string          `json:"id"`
	Topic string          `json:"topic"`
	At    string          `json:"at"`
	Event json.RawMessage `json:"event"`
}

// notificationsList serves GET /v1/notifications?before=&limit=: own ones,
// newest first.
func (s *Server) notificationsList(ctx *fasthttp.RequestCtx, _ string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	p, err := readPage(ctx)
	var before int64
	if err == nil && p.before != "" {
		if before, err = strconv.ParseInt(string(p.before), 10, 64); err != nil || before < 1 {
			err = &fieldError{"before", "must be the next of a page before this one"}
		}
	}
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	wait, cancel := s.call()
	defer cancel()
	// One more than asked for tells whether there is a next page.
	found, err := s.notices.Notifications(wait, who.User, before, p.limit+1)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	shown := struct {
		Notifications []shownNotification `json:"notifications"`
		Next          string              `json:"next,omitempty"`
	}{Notifications: []shownNotification{}}
	if len(found) > p.limit {
		found = found[:p.limit]
		shown.Next = strconv.FormatInt(found[p.limit-1].ID, 10)
	}
	for _, n := range found {
		shown.Notifications = append(shown.Notifications, shownNotification{strconv.FormatInt(n.ID, 10), n.Topic, rfc3339(n.At), n.Event})
	}
	s.replyJSON(ctx, fasthttp.StatusOK, shown)
}
