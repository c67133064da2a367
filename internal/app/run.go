package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/internal/api"
	"sluice/internal/console"
	"sluice/internal/gate"
	"sluice/internal/lib/cluster"
	"sluice/internal/lib/run"
	"sluice/internal/stock"
)

// Version is the program's, set by the build.
var Version = "dev"

// Deadlines of stopping. What is accepted is durable before it is answered, so
// a worker that is cut off has nothing to lose.
const (
	listenerDeadline = 20 * time.Second
	workerDeadline   = 10 * time.Second
	doorDeadline     = 30 * time.Second
)

// Addresses are where a running server listens; nil where its role has nothing.
type Addresses struct{ Shopper, Ops, Pay net.Addr }

// Run serves until ctx ends or a part fails. It calls started, if not nil,
// when shoppers can be served. out gets the few lines for a person.
func Run(ctx context.Context, c Config, out io.Writer, log *slog.Logger, started func(Addresses)) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if c.keeps() {
		unlock, err := lockServer(c.Data)
		if err != nil {
			return err
		}
		defer unlock()
	}
	at, err := listen(c, log)
	if err != nil {
		return err
	}
	// From here on the ops port answers: alive, and not ready until replay is done.
	front := &switchboard{}
	front.set(booting())
	ops := console.Server(front)
	opsEnded := make(chan error, 1)
	go func() { opsEnded <- serving(ops.Serve(at.ops)) }()

	err = serve(ctx, c, at, front, out, log, started)

	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), listenerDeadline)
	defer cancel()
	return errors.Join(err, ops.Shutdown(last), <-opsEnded)
}

// serve opens the doors, runs everything until ctx ends, and closes them.
func serve(ctx context.Context, c Config, at *listeners, front *switchboard, out io.Writer, log *slog.Logger, started func(Addresses)) (err error) {
	d, err := openDoors(ctx, c, log)
	if err != nil {
		return errors.Join(err, at.close())
	}
	e, err := newEngine(c, d, at.addresses(), log)
	if err != nil {
		return errors.Join(err, d.close(), at.close())
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var gateway *api.Server
	if e.role.gateway {
		if gateway, err = e.gateway(c); err != nil {
			return errors.Join(err, at.close())
		}
	}

	g := &run.Group{Log: slog.New(slog.DiscardHandler)}
	if e.fleet != nil {
		e.fleet.join(g)
	}
	for _, t := range e.tasks() {
		g.Task(log, t, workerDeadline)
	}
	if gateway != nil {
		for _, t := range append(gateway.Tasks(), e.followKeys()) {
			g.Task(log, t, workerDeadline)
		}
	}
	g.Add("rules", e.known, nil, workerDeadline)
	g.Add("activities", func(ctx context.Context) error {
		defer e.seat(ctx)
		return e.show(ctx, c)
	}, nil, workerDeadline)
	if e.role.console {
		pay := console.Server(e.sandbox.Handler())
		g.Go("payment sandbox", func(ctx context.Context) error { return untilTold(ctx, serving(pay.Serve(at.pay))) }, listenerDeadline)
		g.Add("payment sandbox closing", nil, pay.Shutdown, listenerDeadline)
	}
	if gateway != nil {
		g.Go("shopper API", func(ctx context.Context) error { return untilTold(ctx, gateway.Serve(at.shopper)) }, listenerDeadline)
	}
	g.Add("draining", func(context.Context) error {
		front.set(e.operations(c, gateway))
		greet(out, c, at)
		if started != nil {
			started(at.addresses())
		}
		return nil
	}, func(ctx context.Context) error { return e.drain(ctx, c, gateway) }, listenerDeadline+c.Drain)
	if e.etcd != nil {
		e.announce(g, c, at.addresses())
	}
	return g.Run(ctx)
}

// drain says that this process is going, and lets what shoppers have begun end.
func (e *engine) drain(ctx context.Context, c Config, gateway *api.Server) error {
	e.stopping.Store(true)
	if gateway != nil {
		gateway.Drain()
		select { // balancers see /readyz before connections are refused
		case <-time.After(c.Drain):
		case <-ctx.Done():
		}
		return gateway.Shutdown(ctx)
	}
	return nil
}

// show reads what is on sale before anybody is served.
func (e *engine) show(ctx context.Context, c Config) error {
	if c.Demo && e.role.console {
		if err := e.loadDemo(ctx); err != nil {
			return err
		}
	}
	if err := e.store.Ping(ctx); err != nil {
		return err
	}
	if _, err := e.rules.Step(ctx); err != nil { // shoppers are served by the default, until its task has read them
		e.log.Error("the rules cannot be read", "error", err)
	}
	if e.verifier != nil {
		if _, err := e.verifier.Step(ctx); err != nil { // the other keys serve their shoppers
			e.log.Error("keys of an identity provider cannot be read", "error", err)
		}
	}
	if e.alone != nil {
		e.alone.show(ctx)
		return nil
	}
	return e.fleet.show(ctx)
}

// operations is what the ops port answers: the ops API where operators are
// served, elsewhere health and metrics.
func (e *engine) operations(c Config, gateway *api.Server) http.Handler {
	ready := func(ctx context.Context) error {
		if e.stopping.Load() {
			return errors.New("draining")
		}
		return e.ready(ctx)
	}
	if !e.role.console {
		return probes(c.token(), ready, e.metrics(gateway))
	}
	var members func() ([]cluster.Seen, time.Time, bool) // nil: nobody keeps a list
	if e.crew != nil {
		members = e.crew.members
	}
	refusal := func(stock.ActivityID, stock.UserID) (gate.Refusal, bool) { return gate.Refusal{}, false }
	if gateway != nil {
		refusal = gateway.LastRefusal
	}
	return console.New(console.Config{
		Token: c.token(), Version: Version, Log: e.log, Now: e.clock.Now, Metrics: e.metrics(gateway), Ready: ready,
		Sale: e.sales, Orders: e.orders, Products: e.store, OrderRows: e.shown, Ledger: e.ledger,
		Proof: e.books.check, Proofs: e.books.reports, Repair: e.books.repair, Trail: e.books.trail,
		LastRefusal: refusal, Rules: e.rules, Lists: e.lists, Playbooks: e.playbooks, DeadLetters: e.letters(), Audit: auditLog{e.store.Store}, Dependencies: e.outside(),
		Members: members,
	})
}

// switchboard hands requests to whatever handler stands now.
type switchboard struct{ to atomic.Pointer[http.Handler] }

func (s *switchboard) set(h http.Handler) { s.to.Store(&h) }

func (s *switchboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.to.Load()).ServeHTTP(w, r)
}

// untilTold keeps a listener's part up after its shutdown has begun: the part
// that drains it is another one, and stops first.
func untilTold(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func serving(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type listeners struct{ shopper, ops, pay net.Listener }

// listen takes the ports of the process's role before anything is opened, so
// that a taken one is told at once.
func listen(c Config, log *slog.Logger) (*listeners, error) {
	l := &listeners{}
	role := roles[c.Role]
	var err error
	if role.gateway {
		if l.shopper, err = net.Listen("tcp", c.Listen); err != nil {
			return nil, fmt.Errorf("listen: %w; give another address with --listen", err)
		}
	}
	if l.ops, err = net.Listen("tcp", c.Ops); err != nil {
		return nil, errors.Join(fmt.Errorf("ops: %w; give another address with --ops", err), l.close())
	}
	if !role.console {
		return l, nil
	}
	if l.pay, err = listenPay(c, l.ops.Addr(), log); err != nil {
		return nil, errors.Join(fmt.Errorf("payment: %w; give another address with payment: sandbox://host:port", err), l.ops.Close(), l.close())
	}
	return l, nil
}

// listenPay puts the sandbox provider where it is configured, else on the port
// after the ops API's: pay pages must be found again after a restart.
func listenPay(c Config, ops net.Addr, log *slog.Logger) (net.Listener, error) {
	u, err := url.Parse(c.Payment)
	if err != nil {
		return nil, err
	}
	if u.Host != "" {
		return net.Listen("tcp", u.Host)
	}
	host, port, err := net.SplitHostPort(ops.String())
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(port)
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n+1)))
	if err != nil {
		ln, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err == nil {
			log.Warn("the port after the ops API's is taken; pay pages already handed out will not be found after a restart", "using", ln.Addr().String())
		}
	}
	return ln, err
}

func (l *listeners) addresses() Addresses {
	return Addresses{addressOf(l.shopper), addressOf(l.ops), addressOf(l.pay)}
}

// addressOf is nil where nobody listens.
func addressOf(ln net.Listener) net.Addr {
	if ln == nil {
		return nil
	}
	return ln.Addr()
}

// close is for a start that failed. The ops API's listener, once it serves, is
// its server's to close.
func (l *listeners) close() (err error) {
	for _, ln := range []net.Listener{l.shopper, l.pay} {
		if ln != nil {
			err = errors.Join(err, ln.Close())
		}
	}
	return err
}

// greet says where everything is.
func greet(out io.Writer, c Config, at *listeners) {
	fmt.Fprintln(out)
	ops := "ops API       "
	if !roles[c.Role].console {
		ops = "health        "
	}
	for _, place := range []struct {
		name string
		at   net.Listener
	}{{"storefront    ", at.shopper}, {ops, at.ops}, {"pay sandbox   ", at.pay}} {
		if place.at != nil {
			fmt.Fprintf(out, "  %s http://%s\n", place.name, reachable(place.at.Addr()))
		}
	}
	switch {
	case !roles[c.Role].console:
	case c.OpsToken == "" && c.Demo:
		fmt.Fprintf(out, "\n  This is a demo: the ops API takes the bearer token %q, and anyone gets a shopper's token.\n  A sale opens within 20 seconds.\n", demoOpsToken)
	case c.OpsToken == "":
		fmt.Fprintf(out, "\n  The ops API is off: start with SLUICE_OPS_TOKEN set to use it.\n")
	}
	fmt.Fprintln(out)
}
