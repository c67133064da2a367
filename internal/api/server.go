// Package api is the shopper's HTTP: it turns requests into calls of the
// business and their outcomes into replies. It owns the routes (routes.go), the
// reading of requests (requests.go, json.go), the only table from errors to
// status and code (errors.go), the event streams (handover.go) and the static
// storefront (static.go).
//
// Invariants: anything malformed is refused before the business sees it, with
// the field and the reason; every refusal is a problem document of that table;
// a refusal of a purchase allocates nothing; nothing of a request is kept after
// its handler returns; tokens are never logged; what is in flight is bounded.
//
// It refuses to decide: no rule about stock, money or orders is here. It also
// refuses to recover panics of the business: one of those is an impossible
// state, and a process that went on selling from it could oversell.
package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/lib/run"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// shop sells: *sale.Shop.
type shop interface {
	Purchase(ctx context.Context, r sale.PurchaseRequest) (stock.Receipt, error)
	Views() []sale.View
	View(id stock.ActivityID) (sale.View, error)
}

// orders reads a shopper's own orders and reservations: *order.Desk.
type orders interface {
	Get(ctx context.Context, user stock.UserID, id stock.OrderID) (order.Order, error)
	List(ctx context.Context, user stock.UserID, before stock.OrderID, limit int) ([]order.Order, error)
	Reservation(ctx context.Context, user stock.UserID, id stock.ID) (order.Reservation, error)
}

// payments changes orders: *order.Desk.
type payments interface {
	Pay(ctx context.Context, user stock.UserID, id stock.OrderID, returnURL string) (payURL string, err error)
	Cancel(ctx context.Context, user stock.UserID, id stock.OrderID) (order.Order, error)
	Callback(ctx context.Context, provider string, header func(name string) string, body []byte) error
}

// Config is what the server is made of. All but Standing, Rules, Trusted, Switches,
// Asks, Demo, Images, Assets and Limits are required.
type Config struct {
	Shop     shop
	Orders   orders
	Payments payments
	Notices  notifications
	Watchers watchers
	Verifier *gate.Verifier
	Now      func() time.Time
	Log      *slog.Logger

	// Standing is the state of a landed reservation by its order, which a replay
	// of its key then tells: where the ledger follows the orders at a distance, it
	// may still say "held" of what has been cancelled. nil: the ledger is as good.
	Standing func(ctx context.Context, id stock.ID) (state stock.State, ok bool)

	Rules   *gate.Limits   // how often shoppers may read and pay; nil: as often as they like
	Trusted []netip.Prefix // proxies whose X-Forwarded-For is believed

	Switches *gate.Active // what playbooks have turned on; nil: nothing

	Slips slips                          // tickets and challenges
	Queue queue                          // the waiting rooms
	Asks  func(activity string) []string // what a purchase has to show: queue, ticket, challenge; nil: nothing

	Demo   *Demo            // hands out shoppers; nil but in a demo
	Shell  Asset            // the page of GET / and GET /a/{id}
	Assets map[string]Asset // by URL path, "/assets/…"
	Images fs.FS            // pictures, served under /images/; read once, at New
	Limits Limits
}

// Limits bound what is in flight. Zero fields take their default.
type Limits struct {
	Connections int // open connections that are not event streams; 200,000
	Purchases   int // purchases being decided or made durable; 32,768
	Reads       int // reads of the store or the ledger; 4,096
	Payments    int // payments, cancellations, callbacks; 1,024
	Streams     int // open event streams, of reservations and of places together; 100,000
}

// Sizes and times that hold for every request.
const (
	maxBody      = 16 << 10
	maxHeader    = 16 << 10
	readTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 90 * time.Second
	// callTimeout is for calls that wait for landing (≤ 2 s) or a provider.
	callTimeout = 15 * time.Second
)

// Server serves the shopper API. It is safe for concurrent use.
type Server struct {
	shop     shop
	orders   orders
	payments payments
	notices  notifications
	verifier *gate.Verifier
	now      func() time.Time
	log      *slog.Logger
	standing func(ctx context.Context, id stock.ID) (state stock.State, ok bool)
	rules    *gate.Limits
	trusted  []netip.Prefix
	switches *gate.Active
	logged   logged // of refusals by rules
	demo     *Demo
	files    files
	http     fasthttp.Server
	slips    slips
	queue    queue
	asks     func(activity string) []string
	open     *gate.InFlight // event streams of both kinds
	streams  *streams
	places   *placeStreams
	bodies   activityBodies
	attempts sync.Pool
	refusals *gate.Refusals
	bounds   [classes]*gate.InFlight

	life     context.Context // ends when Shutdown has: what still waits then gives up
	end      context.CancelFunc
	draining atomic.Bool

	mu       sync.Mutex
	listener net.Listener // being served, or about to be
	over     bool         // nothing is served any more

	counts   [codes]atomic.Uint64
	accepted atomic.Uint64
	replayed atomic.Uint64
}

// New builds a server; nothing runs until Serve. It fails when the images
// cannot be read.
func New(c Config) (*Server, error) {
	l := c.Limits
	for _, d := range []struct {
		limit *int
		value int
	}{{&l.Connections, 200_000}, {&l.Purchases, 32_768}, {&l.Reads, 4_096}, {&l.Payments, 1_024}, {&l.Streams, 100_000}} {
		if *d.limit <= 0 {
			*d.limit = d.value
		}
	}
	files, err := newFiles(c.Shell, c.Assets, c.Images)
	if err != nil {
		return nil, err
	}
	s := &Server{
		shop: c.Shop, orders: c.Orders, payments: c.Payments, notices: c.Notices, verifier: c.Verifier,
		now: c.Now, log: c.Log, standing: c.Standing, rules: c.Rules, trusted: c.Trusted, switches: c.Switches, demo: c.Demo, files: files,
		open:     gate.NewInFlight(l.Streams),
		attempts: sync.Pool{New: func() any { return new(attempt) }},
		// Requests carry the machine's own time, and so does what is kept of them.
		refusals: gate.NewRefusals(maxRefusals, time.Now()),
	}
	s.slips, s.queue, s.asks = c.Slips, c.Queue, c.Asks
	if s.asks == nil {
		s.asks = func(string) []string { return nil }
	}
	s.streams = newStreams(c.Orders, c.Watchers, c.Now, s.open)
	s.places = newPlaceStreams(s.lookAt, c.Now, s.open)
	s.bounds[purchaseClass] = gate.NewInFlight(l.Purchases)
	s.bounds[readClass] = gate.NewInFlight(l.Reads)
	s.bounds[paymentClass] = gate.NewInFlight(l.Payments)
	s.life, s.end = context.WithCancel(context.Background())
	s.http = fasthttp.Server{
		Handler:               s.handle,
		ErrorHandler:          s.unreadable,
		Concurrency:           l.Connections,
		ReadBufferSize:        maxHeader,
		MaxRequestBodySize:    maxBody,
		ReadTimeout:           readTimeout,
		WriteTimeout:          writeTimeout,
		IdleTimeout:           idleTimeout,
		NoDefaultServerHeader: true,
		SecureErrorLogMessage: true,
		CloseOnShutdown:       true,
		// Bodies are JSON or nothing; a form must not be unpacked unasked.
		DisablePreParseMultipartForm: true,
		// The streams take their connections over.
		KeepHijackedConns: true,
		Logger:            httpLog{c.Log},
	}
	return s, nil
}

// Serve answers requests on ln until Shutdown, also one that came before, and
// closes ln.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listener = ln
	s.mu.Unlock()
	return s.http.Serve(ln)
}

// Tasks keep the event streams alive and up to date.
func (s *Server) Tasks() []run.Task {
	return []run.Task{
		{Name: "event streams", Step: s.streams.Step, Idle: time.Second, Wake: s.streams.wake},
		{Name: "streams of places", Step: s.places.Step, Idle: placeTick},
	}
}

// Ready is false from the beginning of Shutdown on.
func (s *Server) Ready() bool { return !s.draining.Load() }

// Drain makes Ready answer false while requests are still served, so that
// balancers have time to look elsewhere before Shutdown.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown stops accepting connections, tells event streams that this server
// is going, lets requests in flight finish, and returns when all have or when
// ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.streams.close()
	s.places.close()
	s.mu.Lock()
	s.over = true
	if s.listener != nil {
		_ = s.listener.Close() // the HTTP server forgets one that it has not begun to serve
	}
	s.mu.Unlock()
	err := s.http.ShutdownWithContext(ctx)
	s.streams.close() // those that began in between
	s.places.close()
	s.end()
	if errors.Is(err, net.ErrClosed) {
		return nil // by us
	}
	return err
}

// unreadable answers what is not a request: too large, or not HTTP. The
// connection is of no use afterwards.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	var slow net.Error
	if (errors.As(err, &slow) && slow.Timeout()) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		_ = ctx.Conn().Close() // nobody is waiting for an answer
		return
	}
	var small *fasthttp.ErrSmallBuffer
	if errors.Is(err, fasthttp.ErrBodyTooLarge) || errors.As(err, &small) {
		s.answer(ctx, tooLarge)
	} else {
		s.refuse(ctx, &fieldError{"request", "cannot be read as HTTP"}, 0)
	}
	ctx.SetConnectionClose()
	linger(ctx)
}

// Bounds of a lingering close.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// linger writes the answer itself and reads on for a moment: closing a
// connection with unread bytes resets it, and the client, still sending, would
// see that instead of the answer.
func linger(ctx *fasthttp.RequestCtx) {
	conn, ok := ctx.Conn().(*net.TCPConn)
	if !ok {
		return
	}
	deadline := time.Now().Add(lingerTime)
	if conn.SetDeadline(deadline) != nil {
		return
	}
	// The server's own attempt to write afterwards fails on the closed side,
	// which is what keeps the answer from being sent twice.
	if _, err := ctx.Response.WriteTo(conn); err == nil && conn.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, conn, lingerBytes)
	}
}

// Metrics is a snapshot of the server's counters.
type Metrics struct {
	Refused     map[string]uint64 // by code
	Accepted    uint64            // purchases accepted for the first time
	Replayed    uint64            // receipts given again
	InFlight    map[string]int    // by class of route
	Streams     int               // open event streams of both kinds
	Connections int               // open connections, streams left out
}

// Metrics reads the counters; codes that never occurred are there with 0.
func (s *Server) Metrics() Metrics {
	m := Metrics{
		Refused:     make(map[string]uint64, codes),
		Accepted:    s.accepted.Load(),
		Replayed:    s.replayed.Load(),
		InFlight:    make(map[string]int, classes),
		Streams:     s.open.Count(),
		Connections: int(s.http.GetOpenConnectionsCount()),
	}
	for c := range codes {
		m.Refused[problems[c].name] = s.counts[c].Load()
	}
	for class, f := range s.bounds {
		if f != nil {
			m.InFlight[classNames[class]] = f.Count()
		}
	}
	return m
}

// httpLog hands fasthttp's own messages (connections that fail) to slog.
type httpLog struct{ log *slog.Logger }

func (l httpLog) Printf(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("http", "message", fmt.Sprintf(format, args...))
	}
}

// call is the context of a call that may wait, bounded in time. Unlike the
// request's own it does not end when the server begins to drain.
func (s *Server) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.life, callTimeout)
}
