// Package console is the operators' HTTP API: SKUs, activities and their
// lives, stock deltas, orders, the proof, dead letters, the gate's rules, lists
// and playbooks, the processes of the fleet, and the audit log,
// described by an OpenAPI 3.1 document at /openapi.json. It runs on its own
// listener, never on the shoppers' port.
//
// Invariants: nothing under /v1 or /debug answers without the bearer token; a change is
// in the audit log before it is tried; every error is problem+json with a
// stable code, and errors.go is the only table of them.
//
// It refuses to decide anything: rules live in sale, order and stock. It
// knows no backend.
package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/internal/gate"
	"sluice/internal/lib/cluster"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

const (
	maxBody      = 64 << 10 // bytes
	requestLimit = 30 * time.Second
	readyLimit   = 2 * time.Second
)

// Config is everything the console serves. All fields are needed but Token,
// Log, Lists and Playbooks.
type Config struct {
	Token   string // of the operators; empty: /v1 is off
	Version string // of the program, for the OpenAPI document
	Log     *slog.Logger
	Now     func() time.Time
	Metrics prometheus.Gatherer
	Ready   func(context.Context) error // nil when the process can serve shoppers

	Sale        *sale.Desk
	Orders      *order.Desk
	Products    products
	OrderRows   orderRows
	Ledger      counter
	Proof       func(context.Context, stock.ActivityID) (proof.Report, error)
	Proofs      func() []proof.Report // the newest of each activity
	Repair      func(context.Context, stock.ActivityID, proof.RepairRequest) (proof.Repair, error)
	Trail       trail
	LastRefusal func(stock.ActivityID, stock.UserID) (gate.Refusal, bool)
	Rules       *gate.Rulebook
	Lists       *gate.Listbook  // nil: there are none
	Playbooks   *gate.Playbooks // nil: there are none, and nothing is ever frozen
	DeadLetters deadLetters
	// Dependencies are what this process calls; none is fine.
	Dependencies []Dependency
	// Members are the processes of the fleet and those that have gone lately, the
	// moment at which it was so, and whether that is now; nil: nobody keeps a list.
	Members func() (list []cluster.Seen, asOf time.Time, fresh bool)
	Audit   auditLog
}

type console struct {
	Config
	api       huma.API
	forbidden []string // operations that a freeze forbids
}

// New builds the handler. It starts nothing.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	c := &console{Config: cfg, api: humago.New(mux, humaConfig(cfg.Version))}
	c.api.UseMiddleware(plainStatus)
	c.serveSKUs()
	c.serveActivities()
	c.serveLives()
	c.serveOrders()
	c.serveProof()
	c.serveTrail()
	c.serveRepairs()
	c.serveDeadLetters()
	c.serveRules()
	if c.Lists != nil {
		c.serveLists()
	}
	if c.Playbooks != nil {
		c.servePlaybooks()
	}
	c.serveDependencies()
	c.serveMembers()
	c.serveAudit()
	forgetUnused(c.api.OpenAPI())
	mux.HandleFunc("GET /livez", c.livez)
	mux.HandleFunc("GET /readyz", c.readyz)
	profiles(mux)
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: requestLimit}))
	return c.guard(mux)
}

// Server wraps the handler in the time-outs that a listener needs.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: requestLimit + 15*time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

// humaConfig is huma's configuration, without its schema links and its page of
// documentation, which would load scripts from elsewhere.
func humaConfig(version string) huma.Config {
	h := huma.DefaultConfig("Sluice ops API", version)
	h.CreateHooks, h.DocsPath, h.SchemasPath = nil, "", ""
	h.RejectUnknownQueryParameters = true
	h.Transformers = []huma.Transformer{func(_ huma.Context, _ string, v any) (any, error) {
		if e, ok := v.(*huma.ErrorModel); ok {
			return problemOfHuma(e), nil
		}
		return v, nil
	}}
	h.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	h.Info.Description = "For operators. Errors are RFC 9457 problem documents with a stable code. " +
		"Money counts minor units; times are RFC 3339 in UTC with milliseconds; ids are strings."
	return h
}

// guard stands before every route: bounds, the token, and problem+json for
// what no route takes.
func (c *console) guard(mux *http.ServeMux) http.Handler {
	want := sha256.Sum256([]byte(c.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
		defer cancel()
		r = r.WithContext(ctx)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/debug/") {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			got := sha256.Sum256([]byte(token)) // equal lengths, so that the comparison tells nothing
			switch {
			case c.Token == "":
				write(w, opsDisabled.with("no operator token is configured: start the server with SLUICE_OPS_TOKEN set, and send it as Authorization: Bearer <token>"))
				return
			case subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer"):
				w.Header().Set("WWW-Authenticate", "Bearer")
				write(w, unauthenticated.with("send the operator token as Authorization: Bearer <token>"))
				return
			}
		}
		h, pattern := mux.Handler(r)
		if pattern == "" { // the mux answers 404 or 405 in plain text: take its status only
			var plain verdict
			h.ServeHTTP(&plain, r)
			if plain.status == http.StatusMethodNotAllowed {
				w.Header().Set("Allow", plain.Header().Get("Allow"))
				write(w, methodNotAllowed.with(r.Method+" is not among: "+plain.Header().Get("Allow")))
				return
			}
			write(w, notFound.with(""))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// profiles are the runtime's own, for go tool pprof, behind the token.
func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// verdict keeps the status and headers of an answer and drops its body.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header {
	if v.header == nil {
		v.header = http.Header{}
	}
	return v.header
}
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(b []byte) (int, error) { return len(b), nil }

// livez says that the process runs. It touches nothing else: a restart cures
// no dependency.
func (c *console) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

func (c *console) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		write(w, notReady.with(err.Error()))
		return
	}
	c.livez(w, r)
}
