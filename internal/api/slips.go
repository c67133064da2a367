package api

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fastjson"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/entrance"
	"sluice/internal/stock"
)

// slips hands out what purchases show: *entrance.Entrance. The facts are good for
// the call only.
type slips interface {
	Ticket(ctx context.Context, f *gate.Facts) (entrance.Slip, error)
	Challenge(ctx context.Context, f *gate.Facts) (challenge.Challenge, error)
	Answer(ctx context.Context, f *gate.Facts, challenge string, answer int) (entrance.Slip, error)
}

// maxChallenge bounds the text of a challenge that is answered, in bytes.
const maxChallenge = 512

// entering is a request of a shopper who wants to come in: who, and where to. It
// is good as long as the request.
func (s *Server) entering(ctx *fasthttp.RequestCtx, activity string) (gate.Facts, error) {
	who, err := s.identifyFor(ctx, activity)
	if err != nil {
		return gate.Facts{}, err
	}
	return s.facts(ctx, gate.Slips, activity, who), nil
}

// enter serves a shopper who wants to come in, with a clearance if he shows one: do
// answers what he gets. Why somebody is not let in is remembered.
func (s *Server) enter(ctx *fasthttp.RequestCtx, activity string, do func(wait context.Context, f *gate.Facts) (status int, body []byte, err error)) {
	f, err := s.entering(ctx, activity)
	if err == nil {
		var shown map[string]string
		shown, err = optional(ctx, maxSlip, "clearance")
		f.Shows.Clearance = shown["clearance"]
	}
	var status int
	var body []byte
	if err == nil {
		wait, cancel := s.call()
		defer cancel()
		status, body, err = do(wait, &f)
	}
	if err == nil {
		reply(ctx, status, body)
		return
	}
	c := s.refuse(ctx, err, 0)
	if f.User != "" {
		s.remember(ctx, f.Activity, stock.UserID(f.User), c, err)
	}
}

// ticket serves POST /v1/activities/{id}/tickets.
func (s *Server) ticket(ctx *fasthttp.RequestCtx, activity string) {
	s.enter(ctx, activity, func(wait context.Context, f *gate.Facts) (int, []byte, error) {
		slip, err := s.slips.Ticket(wait, f)
		return fasthttp.StatusCreated, appendSlip(nil, "ticket", slip), err
	})
}

// challenge serves POST /v1/activities/{id}/challenges.
func (s *Server) challenge(ctx *fasthttp.RequestCtx, activity string) {
	s.enter(ctx, activity, func(wait context.Context, f *gate.Facts) (int, []byte, error) {
		offer, err := s.slips.Challenge(wait, f)
		if err != nil {
			return 0, nil, err
		}
		offer.ExpiresAt = offer.ExpiresAt.UTC()
		body, err := json.Marshal(offer)
		return fasthttp.StatusCreated, body, err
	})
}

// answerChallenge serves POST /v1/activities/{id}/challenges/answers.
func (s *Server) answerChallenge(ctx *fasthttp.RequestCtx, activity string) {
	f, err := s.entering(ctx, activity)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	text, answer, err := readAnswer(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	wait, cancel := s.call()
	defer cancel()
	slip, err := s.slips.Answer(wait, &f, text, answer)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, fasthttp.StatusOK, appendSlip(nil, "clearance", slip))
}

// readAnswer reads {"challenge","answer"} and nothing else.
func readAnswer(ctx *fasthttp.RequestCtx) (text_ string, answer int, err error) {
	if !isJSON(ctx.Request.Header.ContentType()) {
		return "", 0, errMediaType
	}
	var d decoder
	o, err := d.object(ctx.Request.Body())
	if err != nil {
		return "", 0, err
	}
	answered := false
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch {
		case err != nil:
		case string(key) == "challenge":
			if err = once("challenge", text_ != ""); err == nil {
				text_, err = text("challenge", v, maxChallenge)
			}
		case string(key) == "answer":
			if err = once("answer", answered); err == nil {
				answered = true
				if answer, err = v.Int(); err != nil || v.Type() != fastjson.TypeNumber {
					err = &fieldError{"answer", "must be an integer"}
				}
			}
		default:
			err = unknownField("", key)
		}
	})
	switch {
	case err != nil:
		return "", 0, err
	case text_ == "":
		return "", 0, &fieldError{"challenge", "is missing"}
	case !answered:
		return "", 0, &fieldError{"answer", "is missing"}
	}
	return strings.Clone(text_), answer, nil
}

func appendSlip(b []byte, name string, slip entrance.Slip) []byte {
	b = append(append(append(b, `{"`...), name...), `":`...)
	b = appendString(b, slip.Text)
	return append(appendMoment(append(b, `,"expires_at":`...), slip.Until), '}')
}

// appendMoment writes a time of the machine's clock.
func appendMoment(b []byte, at time.Time) []byte {
	return append(at.UTC().AppendFormat(append(b, '"'), timeLayout), '"')
}
