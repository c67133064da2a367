// Package etcdlease has in etcd what the processes of a fleet must agree on
// beside the sale: leases with fencing tokens (lease.Leases), who is there
// (cluster.Member), and what is set for all (cluster.Document), with views of
// the last two that follow every change and outlive etcd.
//
// Invariants: a lease has at most one key, and its token is that key's create
// revision, so writes in etcd are fenced by comparing it in their own
// transaction (Under); a document's version is etcd's count of its key's
// writes. Every call ends after about 3 s, however etcd is away.
//
// It refuses to decide about stock and orders, which are the ledger's and the
// store's, and to serve a lease from a memory of its own while etcd is away. The
// layout of the keys, and why, is in DESIGN.md.
package etcdlease

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/internal/lib/lease"
)

// Bounds of a call. A member of etcd that hangs costs one attempt: the next one,
// and all that follow, are made at another member.
const (
	attemptWithin = time.Second
	attempts      = 3
	repeatAfter   = 20 * time.Millisecond
)

// comeBack is how a connection is tried again. The library's own pauses grow to
// two minutes, for which a fleet would do without an etcd that is there.
var comeBack = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// ErrConfig: a URL is not that of an etcd.
var ErrConfig = errors.New("not etcd://host:2379,host:2379/namespace")

// ErrAway: etcd did not answer in time. Whether a write took effect is open.
var ErrAway = errors.New("etcd does not answer")

// Config is where an etcd is.
type Config struct {
	Addrs          []string // host:port, at least one
	Namespace      string   // fleets of different namespaces know nothing of one another
	User, Password string   // "" for an etcd without authentication
	TLS            bool     // against the system's certificates
}

const defaultNamespace = "sluice"

// ParseURL reads etcd://user:password@a:2379,b:2379/namespace, or etcds:// for
// TLS. The port is 2379 where none is given, the namespace is sluice.
func ParseURL(door string) (Config, error) {
	scheme, rest, found := strings.Cut(door, "://")
	if !found || scheme != "etcd" && scheme != "etcds" {
		return Config{}, ErrConfig
	}
	// By hand, because url.Parse takes a list of hosts with ports for one bad port.
	place, namespace, _ := strings.Cut(rest, "/")
	c := Config{Namespace: namespace, TLS: scheme == "etcds"}
	if at := strings.LastIndexByte(place, '@'); at >= 0 {
		user, err := url.Parse("etcd://" + place[:at] + "@host")
		if err != nil || user.User == nil {
			return Config{}, fmt.Errorf("%w: user and password must be percent-encoded", ErrConfig)
		}
		c.User = user.User.Username()
		c.Password, _ = user.User.Password()
		place = place[at+1:]
	}
	if c.Namespace == "" {
		c.Namespace = defaultNamespace
	}
	if strings.ContainsAny(c.Namespace, "/?#% ") {
		return Config{}, fmt.Errorf("%w: %q is not a namespace", ErrConfig, c.Namespace)
	}
	for host := range strings.SplitSeq(place, ",") {
		if !strings.Contains(host, ":") {
			host += ":2379"
		}
		if name, port, err := net.SplitHostPort(host); err != nil || name == "" || port == "" {
			return Config{}, fmt.Errorf("%w: %q is not host:port", ErrConfig, host)
		}
		c.Addrs = append(c.Addrs, host)
	}
	return c, nil
}

// Options are what may be given to Open.
type Options struct {
	Log *slog.Logger
	Now func() time.Time // dates documents; nil: time.Now
}

// Etcd is a client of one etcd, for any number of goroutines.
type Etcd struct {
	*shared
	fence *lease.Grant // under which documents are written; nil: none
}

type shared struct {
	settings clientv3.Config
	members  []member
	current  atomic.Int64 // index of the member that is asked
	root     string       // begins every key
	log      *slog.Logger
	now      func() time.Time
	floor    atomic.Int64 // seconds: the shortest lease this etcd gives, as far as we know

	careless bool // tests show by it what goes wrong when a lease is taken without comparing
}

// member is a connection to one member of etcd. The client library would spread
// calls over all members, so that while one hangs, as a frozen machine does,
// every third call hangs with it until the connection is given up 13 s later:
// too long for a lease.
type member struct {
	addr   string
	mu     sync.Mutex
	client *clientv3.Client
}

var _ lease.Leases = (*Etcd)(nil)

// Open connects. It asks etcd nothing, so that a process can start with what it
// knew last while etcd is away; but with a user, for whom it needs a token.
// Errors are ErrConfig, and then ErrAway and what etcd says.
func Open(ctx context.Context, door string, o Options) (*Etcd, error) {
	c, err := ParseURL(door)
	if err != nil {
		return nil, err
	}
	e := &Etcd{shared: &shared{members: make([]member, len(c.Addrs)), root: c.Namespace + "/", log: o.Log, now: o.Now}}
	e.settings = clientv3.Config{
		Context: context.WithoutCancel(ctx), DialTimeout: attemptWithin,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: comeBack, MinConnectTimeout: attempts * attemptWithin})},
		Username:    c.User, Password: c.Password, Logger: zap.NewNop(), // errors are logged once, by who gets them
	}
	if c.TLS {
		e.settings.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	for i, addr := range c.Addrs {
		e.members[i].addr = addr
	}
	first := rand.N(int64(len(e.members))) // not all processes at the same one
	for i := range e.members {
		e.current.Store((first + int64(i)) % int64(len(e.members)))
		if _, err = e.dial(e.current.Load()); err == nil {
			return e, nil
		}
	}
	return nil, fmt.Errorf("etcd: %w", away(err))
}

// dial answers the client of a member. It asks nothing of the member, unless
// there is a user, for whom it needs a token.
func (e *Etcd) dial(i int64) (*clientv3.Client, error) {
	m := &e.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		settings := e.settings
		settings.Endpoints = []string{m.addr}
		client, err := clientv3.New(settings)
		if err != nil {
			return nil, err
		}
		m.client = client
	}
	return m.client, nil
}

// at is the client to ask. Open has seen to it that there is one.
func (e *Etcd) at() *clientv3.Client {
	for {
		i := e.current.Load()
		if client, err := e.dial(i); err == nil {
			return client
		}
		e.turn(i)
	}
}

// turn goes to another member, unless somebody has by now.
func (e *Etcd) turn(from int64) { e.current.CompareAndSwap(from, (from+1)%int64(len(e.members))) }

// Close ends the connections, and with them the views.
func (e *Etcd) Close() {
	for i := range e.members {
		m := &e.members[i]
		m.mu.Lock()
		if m.client != nil {
			_ = m.client.Close() // what it says is that its context has ended
		}
		m.mu.Unlock()
	}
}

// Ping answers nil if a majority of etcd answers.
func (e *Etcd) Ping(ctx context.Context) error {
	return e.repeat(ctx, "ping", func(ctx context.Context) error {
		_, err := e.at().Get(ctx, e.root+"base")
		return err
	})
}

// repeat makes a call that may be made twice, up to three times while no answer
// comes.
func (e *Etcd) repeat(ctx context.Context, what string, call func(context.Context) error) (err error) {
	for range attempts {
		if err = e.once(ctx, what, call); !errors.Is(err, ErrAway) || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(repeatAfter)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("etcd: %s: %w", what, ctx.Err())
		}
	}
	return err
}

// once makes a call within a second.
func (e *Etcd) once(ctx context.Context, what string, call func(context.Context) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("etcd: %s: %w", what, ctx.Err())
	}
	asked := e.current.Load()
	attempt, cancel := context.WithTimeout(ctx, attemptWithin)
	defer cancel()
	err := call(attempt)
	if err == nil {
		return nil
	}
	// Whatever text the end of the time was put into.
	if attempt.Err() == nil {
		err = away(err)
	} else {
		err = fmt.Errorf("%w: %w", ErrAway, err)
	}
	if errors.Is(err, ErrAway) {
		e.turn(asked)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("etcd: %s: %w", what, err)
}

// away marks the errors by which etcd says, or does not even say, that it
// cannot answer now.
func away(err error) error {
	var coded interface{ Code() codes.Code } // as the client's own errors have it
	code := status.Code(err)
	if errors.As(err, &coded) {
		code = coded.Code()
	}
	// A member whose time for the call was over first says so without a code.
	late := code == codes.Unknown && status.Convert(err).Message() == context.DeadlineExceeded.Error()
	if late || errors.Is(err, context.DeadlineExceeded) || code == codes.Unavailable || code == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	return err
}
