package api

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

// Demo hands out shoppers to whoever asks, so it must not exist outside a demo.
type Demo struct {
	Key []byte        // HS256 secret that the Verifier accepts
	TTL time.Duration // of a token
}

// demoToken serves POST /demo/token {"user"?}: a token for that user, or for a
// new one.
func (s *Server) demoToken(ctx *fasthttp.RequestCtx, _ string) {
	if s.demo == nil {
		s.answer(ctx, notFound)
		return
	}
	fields, err := optional(ctx, stock.MaxID, "user")
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	user := fields["user"]
	if user == "" {
		user = "demo-" + strings.ToLower(rand.Text()[:10])
	}
	now := s.now()
	token, err := gate.Mint(s.demo.Key, user, now, s.demo.TTL)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	s.replyJSON(ctx, fasthttp.StatusOK, struct {
		Token     string `json:"token"`
		User      string `json:"user"`
		ExpiresAt string `json:"expires_at"`
	}{token, user, rfc3339(stock.MillisOf(now.Add(s.demo.TTL)))})
}
