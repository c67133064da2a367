package api

import (
	"errors"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fastjson"

	"sluice/internal/gate"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// maxSlip bounds a pass, ticket or clearance, in bytes.
const maxSlip = 120

// slip reads one of them.
func slip(field string, v *fastjson.Value, to *string) (err error) {
	if err = once(field, *to != ""); err == nil {
		*to, err = text(field, v, maxSlip)
	}
	return err
}

// attempt is the working memory of one purchase. It is pooled: on the path of
// a refusal nothing is allocated, and the request handed to the shop consists
// of views of the token's identity, the request's header and body.
type attempt struct {
	body  decoder // owns the strings of lines and of what is shown
	terms decoder
	lines []stock.Line
	shows gate.Shows
	reply []byte

	// Of the request, for the gate; see Facts.
	of       *Server
	ctx      *fasthttp.RequestCtx
	activity string
	who      gate.Identity
	facts    gate.Facts
}

// purchase serves POST /v1/activities/{id}/purchases: 202 with the receipt, the
// same one again for a key that is known, or the reason why not.
func (s *Server) purchase(ctx *fasthttp.RequestCtx, activity string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	if !validID(activity) {
		s.answer(ctx, noSuchActivity)
		return
	}
	key := ctx.Request.Header.PeekBytes(idempotencyKey)
	if len(key) == 0 {
		s.answer(ctx, idempotencyKeyMissing)
		return
	}
	a := s.attempts.Get().(*attempt)
	defer func() {
		a.ctx = nil // it is not to be kept
		s.attempts.Put(a)
	}()
	a.of, a.ctx, a.activity, a.who = s, ctx, activity, who
	if err := a.read(ctx, key); err != nil {
		s.remember(ctx, activity, who.User, s.refuse(ctx, err, 0), err)
		return
	}
	receipt, err := s.shop.Purchase(s.life, sale.PurchaseRequest{
		Activity: stock.ActivityID(activity),
		User:     who.User,
		Key:      view(key),
		Lines:    a.lines,
		Origin:   a,
	})
	if err != nil {
		s.refusePurchase(ctx, a, err)
		return
	}
	if receipt.Replayed && receipt.State == stock.Held && s.standing != nil {
		if state, ok := s.standing(s.life, receipt.ID); ok {
			receipt.State = state
		}
	}
	s.accept(ctx, a, &receipt)
}

// refusePurchase answers a purchase that was not accepted, and remembers why. a is
// of the request.
func (s *Server) refusePurchase(ctx *fasthttp.RequestCtx, a *attempt, err error) {
	c := queued
	if r, ok := err.(*gate.Refused); ok && r.Err == gate.ErrQueued {
		s.mustQueue(ctx, r.Rule, a.activity, string(a.who.User))
	} else {
		c = s.refuse(ctx, err, len(a.lines))
	}
	s.remember(ctx, a.activity, a.who.User, c, err)
	free(err)
}

// maxRefusals bounds the users whose last refusal is remembered, 8 bytes each.
const maxRefusals = 1 << 16

// remember keeps why a user was refused, for LastRefusal. An activity that
// does not exist would only take places away.
func (s *Server) remember(ctx *fasthttp.RequestCtx, activity string, user stock.UserID, c code, err error) {
	note := uint8(c)
	switch c {
	case noSuchActivity:
		return
	case rateLimited:
		if l, ok := errors.AsType[*gate.Limited](err); ok {
			note = gate.RuleCode + l.Slot
			s.logged.refusal(s.log, ctx, l.Rule, err, string(user))
		}
	case notEligible, ticketRequired, challengeRequired, queued, registrationClosed, readOnly:
		if r, ok := errors.AsType[*gate.Refused](err); ok {
			note = gate.RuleCode + r.Slot
			s.logged.refusal(s.log, ctx, r.Rule, err, string(user))
		}
	}
	// The request's own time: it has been read already.
	s.refusals.Note(activity, string(user), note, ctx.Time())
}

// LastRefusal answers with what a purchase of this user was refused last in
// this activity by this process, and when, to a tenth of a second. ok
// is false when there was none, or when it has been forgotten for the sake of
// newer ones. A request that was refused before it was known whose it is
// (unauthenticated, overloaded) counts for nobody.
func (s *Server) LastRefusal(activity stock.ActivityID, user stock.UserID) (last gate.Refusal, ok bool) {
	note, at, ok := s.refusals.Last(string(activity), string(user))
	switch {
	case !ok:
		return gate.Refusal{}, false
	case note >= gate.RuleCode:
		rule, why := s.rules.RuleIn(note-gate.RuleCode, at)
		if rule == "" {
			why = gate.ErrRateLimited // as most are
		}
		return gate.Refusal{Code: problems[codeOf(why)].name, Rule: rule, At: at}, true
	case int(note) >= len(problems):
		return gate.Refusal{}, false
	}
	return gate.Refusal{Code: problems[note].name, At: at}, true
}

// accept answers a receipt.
func (s *Server) accept(ctx *fasthttp.RequestCtx, a *attempt, r *stock.Receipt) {
	total, err := a.terms.totalOf(r.Terms)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	if r.Replayed {
		s.replayed.Add(1)
	} else {
		s.accepted.Add(1)
	}
	id := r.ID.String()
	b := appendString(append(a.reply[:0], `{"reservation":`...), id)
	b = appendString(append(b, `,"order":`...), string(r.Order))
	b = appendString(append(b, `,"state":`...), r.State.String())
	b = append(appendTerms(b, r.Expires, total), '}')
	a.reply = b
	ctx.Response.SetStatusCode(fasthttp.StatusAccepted)
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(location, []byte("/v1/reservations/"+id))
	ctx.Response.Header.SetCanonical(cacheControl, noStore)
	ctx.Response.SetBody(b)
}

// read checks headers and body of a purchase.
func (a *attempt) read(ctx *fasthttp.RequestCtx, key []byte) error {
	if !printable(key, stock.MaxKey) {
		return &fieldError{"Idempotency-Key", "must be 1..64 printable ASCII characters without spaces"}
	}
	// The engine itself uses such keys, for money that arrives late.
	if strings.HasPrefix(view(key), "late:") {
		return &fieldError{"Idempotency-Key", `must not begin with "late:"`}
	}
	if !isJSON(ctx.Request.Header.ContentType()) {
		return errMediaType
	}
	return a.parse(ctx.Request.Body())
}

// parse reads {"sku","quantity"} or {"items":[{"sku","quantity"}]}, with "pass",
// "ticket" and "clearance" where asked for, and nothing else.
func (a *attempt) parse(body []byte) error {
	a.lines, a.shows = a.lines[:0], gate.Shows{}
	o, err := a.body.object(body)
	if err != nil {
		return err
	}
	var single line
	var items *fastjson.Value
	o.Visit(func(key []byte, v *fastjson.Value) {
		if err != nil {
			return
		}
		switch string(key) {
		case "sku", "quantity":
			err = single.read("", key, v)
		case "items":
			err = once("items", items != nil)
			items = v
		case "pass":
			err = slip("pass", v, &a.shows.Pass)
		case "ticket":
			err = slip("ticket", v, &a.shows.Ticket)
		case "clearance":
			err = slip("clearance", v, &a.shows.Clearance)
		default:
			err = unknownField("", key)
		}
	})
	switch {
	case err != nil:
		return err
	case items != nil && single != line{}:
		return &fieldError{"items", "must not stand beside sku or quantity"}
	case items != nil:
		return a.parseItems(items)
	}
	return a.add("", single)
}

func (a *attempt) parseItems(items *fastjson.Value) error {
	if items.Type() != fastjson.TypeArray {
		return &fieldError{"items", "must be an array"}
	}
	list := items.GetArray()
	if len(list) < 1 || len(list) > stock.MaxLines {
		return &fieldError{"items", "must hold 1.." + strconv.Itoa(stock.MaxLines) + " items"}
	}
	for i, item := range list {
		if err := a.parseItem(i, item); err != nil {
			return err
		}
	}
	return nil
}

// fields of an item: their prefixes in error messages, by position.
var itemPrefix = func() (names [stock.MaxLines]string) {
	for i := range names {
		names[i] = "items[" + strconv.Itoa(i) + "]."
	}
	return names
}()

func (a *attempt) parseItem(i int, item *fastjson.Value) error {
	prefix := itemPrefix[i]
	if item.Type() != fastjson.TypeObject {
		return &fieldError{strings.TrimSuffix(prefix, "."), "must be an object"}
	}
	var one line
	var err error
	item.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		switch {
		case err != nil:
		case string(key) == "sku" || string(key) == "quantity":
			err = one.read(prefix, key, v)
		default:
			err = unknownField(prefix, key)
		}
	})
	if err != nil {
		return err
	}
	return a.add(prefix, one)
}

// add appends a complete line; lines are so few that comparing each with each
// is the cheapest way to find a SKU that stands twice.
func (a *attempt) add(prefix string, l line) error {
	if l.sku == "" {
		return &fieldError{prefix + "sku", "is missing"}
	}
	if l.quantity == 0 {
		return &fieldError{prefix + "quantity", "is missing"}
	}
	for _, other := range a.lines {
		if string(other.SKU) == l.sku {
			return &fieldError{prefix + "sku", "stands twice"}
		}
	}
	a.lines = append(a.lines, stock.Line{SKU: stock.SKU(l.sku), Quantity: l.quantity})
	return nil
}

// line is a line being read: no value that has been read is zero.
type line struct {
	sku      string
	quantity int
}

func (l *line) read(prefix string, key []byte, v *fastjson.Value) error {
	if string(key) == "sku" {
		return l.readSKU(prefix, v)
	}
	if l.quantity != 0 {
		return once(prefix+"quantity", true)
	}
	n, err := v.Int() // accepts neither fractions nor exponents
	if v.Type() != fastjson.TypeNumber || err != nil || n < 1 || n > stock.MaxQuantity {
		return &fieldError{prefix + "quantity", "must be an integer 1.." + strconv.Itoa(stock.MaxQuantity)}
	}
	l.quantity = n
	return nil
}

func (l *line) readSKU(prefix string, v *fastjson.Value) error {
	if l.sku != "" {
		return once(prefix+"sku", true)
	}
	if v.Type() != fastjson.TypeString || !validID(view(v.GetStringBytes())) {
		return &fieldError{prefix + "sku", "must be a string of 1..64 letters, digits, '-' or '_'"}
	}
	l.sku = view(v.GetStringBytes())
	return nil
}

// once refuses a field that was there before: parsers disagree about which of
// two counts, so neither does.
func once(field string, seen bool) error {
	if seen {
		return &fieldError{field, "stands twice"}
	}
	return nil
}
