package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/entrance"
	"sluice/internal/gate/waiting"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// code numbers the problems a shopper can be told (RFC 9457). It indexes
// problems and the server's counters.
type code uint8

const (
	invalidRequest code = iota
	idempotencyKeyMissing
	unauthenticated
	notEligible
	ticketRequired
	challengeRequired
	challengeFailed
	notFound
	noSuchActivity
	noSuchSKU
	noSuchOrder
	noSuchReservation
	notQueued
	methodNotAllowed
	notOpen
	ended
	soldOut
	allHeld
	insufficient
	limitReached
	orderState
	noQueue
	noTicketNeeded
	registrationClosed
	tooLarge
	unsupportedMediaType
	idempotencyMismatch
	rateLimited
	queued
	internal
	overloaded
	paused
	notReady
	unknown
	queueFull
	readOnly
	codes // how many there are
)

// problem is one row: what goes on the wire for a code. Name is stable for
// clients; title is for people. Retry is the least Retry-After in seconds, 0
// for none; up to twice as much is added at random, so that those who were
// refused together do not come back together.
type problem struct {
	status int
	name   string
	title  string
	retry  int
	body   []byte // the whole body when there is no detail, made once
}

var problems = withBodies([codes]problem{
	invalidRequest:        {status: 400, name: "invalid_request", title: "The request is not valid"},
	idempotencyKeyMissing: {status: 400, name: "idempotency_key_missing", title: "An Idempotency-Key header is required"},
	unauthenticated:       {status: 401, name: "unauthenticated", title: "A valid bearer token is required"},
	notEligible:           {status: 403, name: "not_eligible", title: "This sale is not for you, or what you show has been used"},
	ticketRequired:        {status: 403, name: "ticket_required", title: "A ticket is required"},
	challengeRequired:     {status: 403, name: "challenge_required", title: "A challenge has to be solved first"},
	challengeFailed:       {status: 403, name: "challenge_failed", title: "Not the answer, or not in time; ask for a new challenge"},
	notFound:              {status: 404, name: "not_found", title: "There is nothing here"},
	noSuchActivity:        {status: 404, name: "no_such_activity", title: "No such activity"},
	noSuchSKU:             {status: 404, name: "no_such_sku", title: "No such SKU in this activity"},
	noSuchOrder:           {status: 404, name: "no_such_order", title: "No such order"},
	noSuchReservation:     {status: 404, name: "no_such_reservation", title: "No such reservation"},
	notQueued:             {status: 404, name: "not_queued", title: "You are not in the waiting room"},
	methodNotAllowed:      {status: 405, name: "method_not_allowed", title: "Method not allowed"},
	notOpen:               {status: 409, name: "not_open", title: "Not open yet"},
	ended:                 {status: 409, name: "ended", title: "The activity has ended"},
	soldOut:               {status: 409, name: "sold_out", title: "Sold out"},
	allHeld:               {status: 409, name: "all_held", title: "All units are held; some may return"},
	insufficient:          {status: 409, name: "insufficient", title: "Fewer units are free than asked for"},
	limitReached:          {status: 409, name: "limit_reached", title: "Purchase limit reached"},
	orderState:            {status: 409, name: "order_state", title: "The order's state does not allow this"},
	noQueue:               {status: 409, name: "no_queue", title: "There is no waiting room"},
	noTicketNeeded:        {status: 409, name: "no_ticket_needed", title: "This activity asks for no ticket"},
	registrationClosed:    {status: 409, name: "registration_closed", title: "Nobody new is let in at the moment"},
	tooLarge:              {status: 413, name: "too_large", title: "Body and headers are limited to 16 kB each"},
	unsupportedMediaType:  {status: 415, name: "unsupported_media_type", title: "Content-Type must be application/json"},
	idempotencyMismatch:   {status: 422, name: "idempotency_mismatch", title: "This Idempotency-Key was used with other terms"},
	rateLimited:           {status: 429, name: "rate_limited", title: "Too many requests", retry: 1}, // as a rule, its rule knows better
	queued:                {status: 429, name: "queued", title: "There is a waiting room; come with its pass", retry: 1},
	internal:              {status: 500, name: "internal", title: "Internal error"},
	overloaded:            {status: 503, name: "overloaded", title: "Too busy, try again", retry: 1},
	paused:                {status: 503, name: "paused", title: "The activity is paused", retry: 5},
	notReady:              {status: 503, name: "not_ready", title: "Not ready yet, try again", retry: 1},
	unknown:               {status: 503, name: "unknown", title: "Outcome unknown, retry with the same key", retry: 1},
	queueFull:             {status: 503, name: "queue_full", title: "The waiting room is full", retry: 5},
	readOnly:              {status: 503, name: "read_only", title: "Orders can only be read at the moment", retry: 5},
})

// causes is the only place where an error becomes a code: the first row whose
// error is in err's chain counts. The answers of a flood come first. Sentinels
// that no shopper's request can meet are listed too, as internal, so that a
// new one is never overlooked (a test compares this list with the rooms).
var causes = []struct {
	err  error
	code code
}{
	{stock.ErrSoldOut, soldOut},
	{stock.ErrAllHeld, allHeld},
	{stock.ErrLimit, limitReached},
	{stock.ErrNotOpen, notOpen},
	{stock.ErrEnded, ended},
	{stock.ErrInsufficient, insufficient},
	{gate.ErrRateLimited, rateLimited},
	{gate.ErrQueued, queued},
	{gate.ErrTicketRequired, ticketRequired},
	{gate.ErrChallengeRequired, challengeRequired},
	{gate.ErrNotEligible, notEligible},
	{gate.ErrUnauthenticated, unauthenticated},
	{gate.ErrOverloaded, overloaded},
	{stock.ErrOverloaded, overloaded},
	{stock.ErrPaused, paused},
	{stock.ErrNotReady, notReady},
	{stock.ErrStale, notReady},
	{order.ErrNotReady, notReady},
	{stock.ErrUnknown, unknown},
	{stock.ErrMismatch, idempotencyMismatch},
	{stock.ErrClaimUsed, notEligible},
	{stock.ErrNoSuchActivity, noSuchActivity},
	{sale.ErrNoSuchActivity, noSuchActivity},
	{stock.ErrNoSuchSKU, noSuchSKU},
	{catalog.ErrNoSuchSKU, noSuchSKU},
	{stock.ErrNoSuchReservation, noSuchReservation},
	{order.ErrNoSuchOrder, noSuchOrder},
	{order.ErrState, orderState},
	{gate.ErrReadOnly, readOnly},
	{gate.ErrRegistrationClosed, registrationClosed},
	{gate.ErrNoTicketNeeded, noTicketNeeded},
	{challenge.ErrFailed, challengeFailed},
	{waiting.ErrNotWaiting, notQueued},
	{waiting.ErrNoRoom, noQueue},
	{waiting.ErrFull, queueFull},
	{errMediaType, unsupportedMediaType},
	{stock.ErrInvalid, invalidRequest},
	{pricing.ErrMoney, invalidRequest}, // quantity × price out of range

	{payment.ErrForged, unauthenticated},
	{payment.ErrMalformed, invalidRequest},
	{payment.ErrNoSuchPayment, noSuchOrder},
	{payment.ErrRefused, orderState},
	{payment.ErrAway, overloaded}, // before ErrProvider, which it comes with: here the outcome is known
	{payment.ErrProvider, unknown},
	{context.DeadlineExceeded, unknown},
	{context.Canceled, unknown}, // only when the server stops: clients do not cancel

	{gate.ErrKey, internal},
	{gate.ErrForged, internal}, // what shoppers show is refused for the want of what can be used
	{gate.ErrExpired, internal},
	{gate.ErrSharing, internal},
	{waiting.ErrMoved, internal},
	{waiting.ErrTooEarly, notOpen}, // said with the time by the entrance
	{waiting.ErrDraw, internal},
	{gate.ErrRules, internal},
	{gate.ErrRulesChanged, internal},
	{gate.ErrNoSuchRules, internal},
	{gate.ErrListChanged, internal},
	{gate.ErrListsFull, internal},
	{gate.ErrNoSuchPlaybook, internal},
	{gate.ErrPlaybookChanged, internal},
	{gate.ErrPlaybookPulled, internal},
	{gate.ErrFrozen, internal},
	{gate.ErrNoSuchFreeze, internal},
	{stock.ErrOutcome, internal},
	{stock.ErrConflict, internal},
	{stock.ErrTruncated, internal},
	{stock.ErrCorrupt, internal},
	{order.ErrFenced, internal},
	{order.ErrWatermark, internal},
	{proof.ErrNoDrift, internal},
	{sale.ErrExists, internal},
	{sale.ErrInvalid, internal},
	{sale.ErrTransition, internal},
	{catalog.ErrInvalid, internal},
}

// codeOf finds the row of an error; one that is in no row is internal.
func codeOf(err error) code {
	for i := range causes {
		if errors.Is(err, causes[i].err) {
			return causes[i].code
		}
	}
	return internal
}

// fieldError is a request that cannot be read: which field, and why.
type fieldError struct{ field, why string }

func (e *fieldError) Error() string { return e.field + " " + e.why }

func (e *fieldError) Unwrap() error { return stock.ErrInvalid }

// answer refuses a request with nothing to add to the code. It allocates nothing.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c code) {
	s.counts[c].Add(1)
	problemHead(ctx, c)
	ctx.Response.SetBodyRaw(problems[c].body)
}

// refuse tells the shopper why not, and answers the code it told. lines is how
// many lines the request had: with several, the answer names the SKU that it
// failed on.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, err error, lines int) code {
	c := codeOf(err)
	switch c {
	case soldOut, allHeld, noSuchSKU:
		if lines > 1 {
			s.explain(ctx, c, err)
			return c
		}
	case insufficient, limitReached, notOpen, invalidRequest:
		s.explain(ctx, c, err)
		return c
	case rateLimited:
		s.tooOften(ctx, err)
		return c
	case notEligible, ticketRequired, challengeRequired, queued, registrationClosed, readOnly:
		if r, ok := errors.AsType[*gate.Refused](err); ok && c != queued {
			s.byRule(ctx, c, r.Rule)
			return c
		}
	case internal:
		s.log.Error("request failed", "method", string(ctx.Method()), "path", string(ctx.Path()), "err", err)
	}
	s.answer(ctx, c)
	return c
}

// explain answers with what the error knows beside its code.
func (s *Server) explain(ctx *fasthttp.RequestCtx, c code, err error) {
	var room [512]byte
	constant := problems[c].body
	b := append(room[:0], constant[:len(constant)-1]...)
	var bad *fieldError
	var r *stock.Refusal
	var early *entrance.TooEarly
	switch {
	case errors.As(err, &bad):
		b = appendString(append(b, `,"field":`...), bad.field)
		b = appendString(append(b, `,"detail":`...), bad.Error())
	case errors.As(err, &r):
		if r.SKU != "" {
			b = appendString(append(b, `,"sku":`...), string(r.SKU))
		}
		switch c {
		case insufficient:
			if !s.hidesCounts(ctx) {
				b = strconv.AppendInt(append(b, `,"available":`...), int64(r.Available), 10)
			}
		case limitReached:
			b = strconv.AppendInt(append(b, `,"limit":`...), int64(r.Limit), 10)
			b = appendString(append(b, `,"scope":`...), r.Scope)
		case notOpen:
			b = appendTime(append(b, `,"opens_at":`...), r.OpensAt)
		}
	case errors.As(err, &early):
		b = appendMoment(append(b, `,"opens_at":`...), early.OpensAt)
		if !early.TicketsFrom.IsZero() {
			b = appendMoment(append(b, `,"tickets_at":`...), early.TicketsFrom)
		}
		if !early.QueueFrom.IsZero() {
			b = appendMoment(append(b, `,"queue_opens_at":`...), early.QueueFrom)
		}
	case errors.Is(err, stock.ErrInvalid):
		b = appendString(append(b, `,"detail":`...), err.Error())
	}
	s.counts[c].Add(1)
	problemHead(ctx, c)
	ctx.Response.SetBody(append(b, '}'))
}

var (
	problemJSON     = []byte("application/problem+json")
	plainJSON       = []byte("application/json")
	retryAfter      = []byte("Retry-After")
	wwwAuthenticate = []byte("Www-Authenticate")
	bearerScheme    = []byte("Bearer")
)

// problemHead sets status and headers of a problem.
func problemHead(ctx *fasthttp.RequestCtx, c code) {
	p := &problems[c]
	ctx.Response.SetStatusCode(p.status)
	ctx.Response.Header.SetContentTypeBytes(problemJSON)
	if p.retry > 0 {
		var digits [4]byte
		seconds := p.retry + rand.IntN(2*p.retry+1)
		ctx.Response.Header.SetCanonical(retryAfter, strconv.AppendInt(digits[:0], int64(seconds), 10))
	}
	if c == unauthenticated {
		ctx.Response.Header.SetCanonical(wwwAuthenticate, bearerScheme)
	}
}

// withBodies makes the constant bodies.
func withBodies(rows [codes]problem) [codes]problem {
	for i := range rows {
		p := &rows[i]
		b := appendString([]byte(`{"title":`), p.title)
		b = strconv.AppendInt(append(b, `,"status":`...), int64(p.status), 10)
		p.body = append(appendString(append(b, `,"code":`...), p.name), '}')
	}
	return rows
}
