package api

import (
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"
)

// maxURL bounds a return_url, in bytes.
const maxURL = 500

// pay serves POST /v1/orders/{id}/payments {"return_url"?}: 201 with where to
// pay. Again, while a payment is open, is the same payment.
func (s *Server) pay(ctx *fasthttp.RequestCtx, param string) {
	who, err := s.identify(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	returnURL, err := readReturnURL(ctx)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	wait, cancel := s.call()
	defer cancel()
	id := orderID(param)
	if err := s.changeable(wait, who.User, id); err != nil {
		s.refuseChange(ctx, who.User, err)
		return
	}
	payURL, err := s.payments.Pay(wait, who.User, id, returnURL)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	s.replyJSON(ctx, fasthttp.StatusCreated, struct {
		PayURL string `json:"pay_url"`
	}{payURL})
}

// readReturnURL reads where the shopper wants to be sent after paying; "" when
// the request does not say.
func readReturnURL(ctx *fasthttp.RequestCtx) (string, error) {
	fields, err := optional(ctx, maxURL, "return_url")
	if err != nil || fields["return_url"] == "" {
		return "", err
	}
	u, err := url.Parse(fields["return_url"])
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return "", &fieldError{"return_url", "must be an absolute http or https URL without credentials"}
	}
	return fields["return_url"], nil
}

// callback serves POST /v1/payments/callbacks/{provider}: 200 once the report
// has taken effect, so that a provider repeats it until then. Who may report
// is judged by the provider's signature, not by a bearer token.
func (s *Server) callback(ctx *fasthttp.RequestCtx, provider string) {
	wait, cancel := s.call()
	defer cancel()
	header := func(name string) string { return string(ctx.Request.Header.Peek(name)) }
	err := s.payments.Callback(wait, strings.Clone(provider), header, append([]byte(nil), ctx.Request.Body()...))
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, fasthttp.StatusOK, received)
}

var received = []byte(`{"received":true}`)
