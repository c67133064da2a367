package api

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
)

// admit decides a request by the rules of its route. It has no place in flight
// yet: who comes too often takes none away.
func (s *Server) admit(ctx *fasthttp.RequestCtx, to route, param string) error {
	e := &endpoints[to]
	some, user, ip := s.rules.Needs(e.limited)
	if !some {
		return nil
	}
	f := gate.Facts{Class: e.limited, Path: view(ctx.Path())}
	if to == routeActivity {
		f.Activity = param
	}
	if user {
		// A token that is not good is refused further on, and limited by address
		// only: nobody is charged for what he has not signed.
		if who, err := s.identify(ctx); err == nil {
			f.User, f.Phone = string(who.User), who.Phone
		}
	}
	if ip {
		f.IP = s.client(ctx)
	}
	err := s.rules.Enter(s.life, ctx.Time(), &f)
	if l, ok := err.(*gate.Limited); ok {
		s.logged.refusal(s.log, ctx, l.Rule, err, f.User)
	}
	return err
}

// Facts implements gate.Origin. They are looked up when the gate asks for them:
// most attempts of a flood are refused before.
func (a *attempt) Facts() *gate.Facts {
	a.facts = a.of.facts(a.ctx, gate.Purchases, a.activity, a.who)
	a.facts.Shows = a.shows
	return &a.facts
}

// facts are what the gate goes by in a request.
func (s *Server) facts(ctx *fasthttp.RequestCtx, class gate.Class, activity string, who gate.Identity) gate.Facts {
	h := &ctx.Request.Header
	return gate.Facts{
		Class: class, Activity: activity, Path: view(ctx.Path()), User: string(who.User), Phone: who.Phone, IP: s.client(ctx),
		Claims: who.Claims, Hints: gate.HintsOf(h.UserAgent(), h.PeekBytes(acceptLanguage)),
	}
}

var acceptLanguage = []byte("Accept-Language")

// free gives a refusal by a rule back, once it has been answered.
func free(err error) {
	if l, ok := err.(*gate.Limited); ok {
		l.Free()
	}
}

// maxHops bounds how many proxies are looked past.
const maxHops = 16

// client is the shopper's address: the other end of the connection, unless that
// is a trusted proxy. Then it is the last address of X-Forwarded-For that is no
// trusted proxy's. What stands before it was written by the client itself or by
// who knows whom: it is not read, so that forging it changes nothing.
func (s *Server) client(ctx *fasthttp.RequestCtx) netip.Addr {
	var peer netip.Addr
	if tcp, ok := ctx.RemoteAddr().(*net.TCPAddr); ok {
		peer = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if !s.trusts(peer) {
		return peer
	}
	lines := ctx.Request.Header.PeekAll("X-Forwarded-For")
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest := lines[i]; len(rest) > 0; hops++ {
			last := rest
			if comma := bytes.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				rest = nil
			}
			hop, ok := readAddress(bytes.TrimSpace(last))
			if !ok || hops == maxHops {
				return peer // the last one that can be relied on
			}
			if peer = hop; !s.trusts(peer) {
				return peer
			}
		}
	}
	return peer
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// readAddress reads what proxies write: an address, with some also its port.
func readAddress(text []byte) (netip.Addr, bool) {
	a, err := netip.ParseAddr(view(text))
	if err != nil {
		both, err := netip.ParseAddrPort(view(text))
		if err != nil {
			return netip.Addr{}, false
		}
		a = both.Addr()
	}
	return a.Unmap().WithZone(""), true
}

var (
	rateLimit       = []byte("RateLimit")
	rateLimitPolicy = []byte("RateLimit-Policy")
)

// tooOften answers a request that a rule refuses: 429 with the rule, when to come
// again, and the fields of draft-ietf-httpapi-ratelimit-headers. It allocates
// nothing.
func (s *Server) tooOften(ctx *fasthttp.RequestCtx, err error) {
	l, ok := err.(*gate.Limited)
	if !ok {
		s.answer(ctx, rateLimited)
		return
	}
	s.counts[rateLimited].Add(1)
	problemHead(ctx, rateLimited)
	h := &ctx.Response.Header
	var room [256]byte
	wait := seconds(l.RetryAfter)
	h.SetCanonical(retryAfter, strconv.AppendInt(room[:0], wait+jitter(wait), 10))
	b := append(append(append(room[:0], '"'), l.Rule...), `";q=`...)
	b = strconv.AppendInt(b, l.Limit, 10)
	h.SetCanonical(rateLimitPolicy, strconv.AppendInt(append(b, ";w="...), seconds(l.Per), 10))
	b = append(append(append(room[:0], '"'), l.Rule...), `";r=`...)
	b = strconv.AppendInt(b, l.Remaining, 10)
	h.SetCanonical(rateLimit, strconv.AppendInt(append(b, ";t="...), wait, 10))

	constant := problems[rateLimited].body
	b = append(room[:0], constant[:len(constant)-1]...)
	b = appendString(append(b, `,"rule":`...), l.Rule)
	ctx.Response.SetBody(append(b, '}'))
}

// byRule answers a refusal by another rule than of how often, with its name.
func (s *Server) byRule(ctx *fasthttp.RequestCtx, c code, rule string) {
	s.counts[c].Add(1)
	problemHead(ctx, c)
	var room [256]byte
	constant := problems[c].body
	b := append(room[:0], constant[:len(constant)-1]...)
	ctx.Response.SetBody(append(appendString(append(b, `,"rule":`...), rule), '}'))
}

// seconds rounds up, and is at least one: the fields know nothing finer.
func seconds(d time.Duration) int64 { return max(int64((d+time.Second-1)/time.Second), 1) }

// jitter is up to twice the time of a short wait, and some of a long one, so that
// those who were refused together do not come back together.
func jitter(wait int64) int64 { return rand.Int64N(min(2*wait, 10+wait/10) + 1) }

// logged bounds what a flood writes into the log: one line a second.
type logged struct {
	last  atomic.Int64  // Unix s
	since atomic.Uint64 // refusals without a line
}

func (g *logged) refusal(log *slog.Logger, ctx *fasthttp.RequestCtx, rule string, why error, user string) {
	level := slog.LevelDebug
	now, last := ctx.Time().Unix(), g.last.Load()
	others := g.since.Load()
	if now != last && g.last.CompareAndSwap(last, now) {
		level, others = slog.LevelInfo, g.since.Swap(0)
	} else {
		g.since.Add(1)
	}
	if !log.Enabled(ctx, level) {
		return
	}
	log.LogAttrs(ctx, level, "refused by a rule", slog.String("rule", rule), slog.String("code", problems[codeOf(why)].name), slog.String("path", string(ctx.Path())),
		slog.String("user", strings.Clone(user)), slog.Uint64("others", others))
}
