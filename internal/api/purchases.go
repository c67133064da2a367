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

// maxClaim bounds a pass or ticket, in bytes.
const maxClaim = 120

// attempt is the working memory of one purchase. It is pooled: on the path of
// a refusal nothing is allocated, and the request handed to the shop consists
// of views of the token's identity, the request's header and body.
type attempt struct {
	body   decoder // owns the strings of lines, pass and ticket
	terms  decoder
	lines  []stock.Line
	pass   string
	ticket string
	reply  []byte
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
	defer s.attempts.Put(a)
	if err := a.read(ctx, key); err != nil {
		s.remember(ctx, activity, who.User, s.refuse(ctx, err, 0), err)
		return
	}
	receipt, err := s.shop.Purchase(s.life, sale.PurchaseRequest{
		Activity: stock.ActivityID(activity),
		User:     who.User,
		Key:      view(key),
		Lines:    a.lines,
		Pass:     a.pass,
		Ticket:   a.ticket,
		Origin:   s.origin(ctx, who),
	})
	if err != nil {
		s.remember(ctx, activity, who.User, s.refuse(ctx, err, len(a.lines)), err)
		free(err)
		return
	}
	if receipt.Replayed && receipt.State == stock.Held && s.standing != nil {
		if state, ok := s.standing(s.life, receipt.ID); ok {
			receipt.State = state
		}
	}
	s.accept(ctx, a, &receipt)
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
			s.logged.refusal(s.log, ctx, l, string(user))
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
		return gate.Refusal{Code: problems[rateLimited].name, Rule: s.rules.RuleIn(note-gate.RuleCode, at), At: at}, true
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

// parse reads {"sku","quantity"} or {"items":[{"sku","quantity"}]}, with "pass"
// and "ticket" where asked for, and nothing else.
func (a *attempt) parse(body []byte) error {
	a.lines, a.pass, a.ticket = a.lines[:0], "", ""
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
			if err = once("pass", a.pass != ""); err == nil {
				a.pass, err = text("pass", v, maxClaim)
			}
		case "ticket":
			if err = once("ticket", a.ticket != ""); err == nil {
				a.ticket, err = text("ticket", v, maxClaim)
			}
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
