package api

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

// Header names in the canonical form in which they are looked up and written.
var (
	idempotencyKey = []byte("Idempotency-Key")
	authorization  = []byte("Authorization")
	location       = []byte("Location")
	cacheControl   = []byte("Cache-Control")
	allow          = []byte("Allow")
	noStore        = []byte("no-store")
)

// errMediaType: the body is not declared as JSON.
var errMediaType = errors.New("unsupported media type")

// identify verifies the bearer token. The identity is the caller's to keep.
func (s *Server) identify(ctx *fasthttp.RequestCtx) (gate.Identity, error) {
	return s.identifyHeader(ctx.Request.Header.PeekBytes(authorization))
}

func (s *Server) identifyHeader(h []byte) (gate.Identity, error) {
	const scheme = len("Bearer ")
	if len(h) <= scheme || !bytes.EqualFold(h[:scheme-1], bearerScheme) || h[scheme-1] != ' ' {
		return gate.Identity{}, gate.ErrUnauthenticated
	}
	return s.verifier.Verify(h[scheme:])
}

// identifyFor identifies the shopper of a request about an activity, which has to
// be one that can exist.
func (s *Server) identifyFor(ctx *fasthttp.RequestCtx, activity string) (gate.Identity, error) {
	who, err := s.identify(ctx)
	if err == nil && !validID(activity) {
		err = noSuch(activity)
	}
	return who, err
}

// isJSON accepts application/json with any parameters.
func isJSON(contentType []byte) bool {
	if end := bytes.IndexByte(contentType, ';'); end >= 0 {
		contentType = bytes.TrimRight(contentType[:end], " \t")
	}
	return bytes.EqualFold(contentType, plainJSON)
}

// optional reads a body that is either absent or a JSON object whose only
// fields are strings named in want: 1..limit printable ASCII characters each.
// The values are copies.
func optional(ctx *fasthttp.RequestCtx, limit int, want ...string) (map[string]string, error) {
	body := ctx.Request.Body()
	if len(body) == 0 {
		return nil, nil
	}
	if !isJSON(ctx.Request.Header.ContentType()) {
		return nil, errMediaType
	}
	var d decoder
	return d.strings(body, limit, want...)
}

// page is which part of a list is asked for.
type page struct {
	before stock.OrderID
	limit  int
}

// Page sizes of a list of orders.
const (
	defaultPage = 20
	maxPage     = 100
)

// readPage reads ?before=&limit= and refuses other parameters.
func readPage(ctx *fasthttp.RequestCtx) (page, error) {
	p := page{limit: defaultPage}
	seen := map[string]bool{}
	for key, value := range ctx.QueryArgs().All() {
		name := string(key)
		switch {
		case seen[name]:
			return p, once(name, true)
		case name == "before":
			if !printable(value, stock.MaxID) {
				return p, &fieldError{"before", "must be the id of an order"}
			}
			p.before = stock.OrderID(value)
		case name == "limit":
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 1 || n > maxPage {
				return p, &fieldError{"limit", fmt.Sprintf("must be an integer 1..%d", maxPage)}
			}
			p.limit = n
		default:
			return p, unknownField("", key)
		}
		seen[name] = true
	}
	return p, nil
}

// reply answers 200 or 201 with JSON that only this shopper may keep.
func reply(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(cacheControl, noStore)
	ctx.Response.SetBodyRaw(body)
}
