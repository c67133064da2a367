package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/gate/entrance"
	"sluice/internal/gate/waiting"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// queue is the waiting rooms: *entrance.Entrance. Places are of a user in an
// activity; who is not in its room is waiting.ErrNotWaiting.
type queue interface {
	Join(ctx context.Context, f *gate.Facts) (entrance.Place, error)
	Place(ctx context.Context, activity, user string) (entrance.Place, error)
	// Known is Place without asking any store. It keeps neither name.
	Known(activity, user string) (entrance.Place, bool)
	Leave(activity, user string)
	Draw(activity string) (waiting.Draw, error)
	Entries(ctx context.Context, activity string, from, limit int) ([]waiting.EntryID, error)
}

// entriesPage is how many entry ids are told at once.
const entriesPage = 1000

// noSuch is for an id that no activity can have.
func noSuch(activity string) error {
	return fmt.Errorf("%w: %.64q", sale.ErrNoSuchActivity, activity)
}

// join serves POST /v1/activities/{id}/queue.
func (s *Server) join(ctx *fasthttp.RequestCtx, activity string) {
	s.enter(ctx, activity, func(wait context.Context, f *gate.Facts) (int, []byte, error) {
		p, err := s.queue.Join(wait, f)
		if err != nil {
			return 0, nil, err
		}
		return fasthttp.StatusOK, s.appendPlace(nil, activity, &p), nil
	})
}

// place serves GET /v1/activities/{id}/queue.
func (s *Server) place(ctx *fasthttp.RequestCtx, activity string) {
	_, p, err := s.ownPlace(ctx, activity)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, fasthttp.StatusOK, s.appendPlace(nil, activity, &p))
}

// ownPlace identifies the shopper and answers where he stands. The user is the
// caller's to keep.
func (s *Server) ownPlace(ctx *fasthttp.RequestCtx, activity string) (user string, p entrance.Place, err error) {
	who, err := s.identifyFor(ctx, activity)
	if err != nil {
		return "", p, err
	}
	wait, cancel := s.call()
	defer cancel()
	p, err = s.queue.Place(wait, activity, string(who.User))
	return string(who.User), p, err
}

// leave serves POST /v1/activities/{id}/queue/leave.
func (s *Server) leave(ctx *fasthttp.RequestCtx, activity string) {
	who, err := s.identifyFor(ctx, activity)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	s.queue.Leave(activity, string(who.User))
	ctx.Response.SetStatusCode(fasthttp.StatusNoContent)
}

// draw serves GET /v1/activities/{id}/queue/draw, to anybody: whoever doubts the
// draw need not say who he is.
func (s *Server) draw(ctx *fasthttp.RequestCtx, activity string) {
	if !validID(activity) {
		s.answer(ctx, noSuchActivity)
		return
	}
	d, err := s.queue.Draw(activity)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, fasthttp.StatusOK, appendDraw(nil, &d))
}

// entries serves GET /v1/activities/{id}/queue/draw/entries.
func (s *Server) entries(ctx *fasthttp.RequestCtx, activity string) {
	if !validID(activity) {
		s.answer(ctx, noSuchActivity)
		return
	}
	from := 0
	for key, value := range ctx.QueryArgs().All() {
		n, err := strconv.Atoi(string(value))
		switch {
		case string(key) != "from":
			s.refuse(ctx, unknownField("", key), 0)
			return
		case err != nil || n < 0 || n > waiting.MaxJoined:
			s.refuse(ctx, &fieldError{"from", fmt.Sprintf("must be an integer 0..%d", waiting.MaxJoined)}, 0)
			return
		}
		from = n
	}
	wait, cancel := s.call()
	defer cancel()
	found, err := s.queue.Entries(wait, activity, from, entriesPage)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	b := []byte(`{"entries":[`)
	for i, e := range found {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHex(b, e[:])
	}
	b = append(b, ']')
	whole := len(found) == entriesPage
	if whole {
		b = strconv.AppendInt(append(b, `,"next":`...), int64(from+len(found)), 10)
	}
	reply(ctx, fasthttp.StatusOK, append(b, '}'))
	if whole { // it never changes
		ctx.Response.Header.SetCanonical(cacheControl, forLong)
	}
}

var forLong = []byte("public, max-age=86400")

func appendHex(b, raw []byte) []byte {
	return append(hex.AppendEncode(append(b, '"'), raw), '"')
}

// appendDraw writes what is known of a draw: the seed is, once it has been.
func appendDraw(b []byte, d *waiting.Draw) []byte {
	b = appendString(append(b, `{"algorithm":`...), waiting.Algorithm)
	b = appendHex(append(b, `,"commitment":`...), d.Commitment[:])
	b = strconv.AppendInt(append(b, `,"joined":`...), int64(d.Joined), 10)
	b = appendTime(append(b, `,"draw_at":`...), stock.Millis(d.DrawAt))
	if !d.Drawn {
		return append(b, `,"drawn":false}`...)
	}
	b = appendHex(append(b, `,"drawn":true,"seed":`...), d.Seed[:])
	b = strconv.AppendInt(append(b, `,"drawn_entries":`...), int64(d.Entries), 10)
	return append(appendHex(append(b, `,"digest":`...), d.Digest[:]), '}')
}

// appendPlace writes where somebody stands. A crowd that is to be calmed is told no
// numbers of others.
func (s *Server) appendPlace(b []byte, activity string, p *entrance.Place) []byte {
	b = appendString(append(b, `{"state":`...), string(p.State))
	if p.State == waiting.Lapsed || p.State == waiting.Over {
		return append(b, '}')
	}
	b = strconv.AppendInt(append(b, `,"number":`...), int64(p.Number), 10)
	b = appendHex(append(b, `,"entry":`...), p.Entry[:])
	switch p.State {
	case waiting.Registered:
		if !s.switches.Of(activity).HideCounts {
			b = strconv.AppendInt(append(b, `,"joined":`...), int64(p.Joined), 10)
		}
		b = appendTime(append(b, `,"draw_at":`...), stock.Millis(p.DrawAt))
		b = appendHex(append(b, `,"commitment":`...), p.Commitment[:])
	case waiting.Waiting:
		b = strconv.AppendInt(append(b, `,"position":`...), int64(p.Position), 10)
		if p.ETA >= 0 {
			b = strconv.AppendInt(append(b, `,"eta_seconds":`...), seconds(p.ETA), 10)
			b = strconv.AppendInt(append(b, `,"eta_error_seconds":`...), seconds(p.ETAError), 10)
		}
		outlook := "good"
		if p.Unlikely {
			outlook = "unlikely"
		}
		b = appendString(append(b, `,"outlook":`...), outlook)
	case waiting.Called:
		b = appendString(append(b, `,"pass":`...), p.Pass)
		return append(appendTime(append(b, `,"expires_at":`...), stock.Millis(p.Until)), '}')
	}
	return append(strconv.AppendInt(append(b, `,"poll_after_ms":`...), p.PollAfter.Milliseconds(), 10), '}')
}

// mustQueue answers a purchase without a pass: how far its shopper is, if he is
// in the waiting room, and where that is.
func (s *Server) mustQueue(ctx *fasthttp.RequestCtx, rule, activity, user string) {
	s.counts[queued].Add(1)
	problemHead(ctx, queued)
	var room [512]byte
	constant := problems[queued].body
	b := append(room[:0], constant[:len(constant)-1]...)
	b = appendString(append(b, `,"rule":`...), rule)
	b = append(append(append(b, `,"queue":"/v1/activities/`...), activity...), `/queue"`...) // an id needs no escapes
	// Only what is known here: a flood without passes asks no store.
	if p, ok := s.queue.Known(activity, user); ok && p.State == waiting.Waiting {
		b = strconv.AppendInt(append(b, `,"position":`...), int64(p.Position), 10)
		if p.ETA > 0 {
			b = strconv.AppendInt(append(b, `,"eta_seconds":`...), seconds(p.ETA), 10)
		}
	}
	ctx.Response.SetBody(append(b, '}'))
}

// lookAt is a place for a stream.
func (s *Server) lookAt(ctx context.Context, activity, user string) (doc []byte, more bool, err error) {
	p, err := s.queue.Place(ctx, activity, user)
	if err != nil {
		return nil, false, err
	}
	return s.appendPlace(nil, activity, &p), p.State == waiting.Registered || p.State == waiting.Waiting, nil
}
