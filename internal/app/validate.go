package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/backend/kafkabus"
	"sluice/internal/backend/redisstock"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
)

// faults gathers what is wrong with a configuration.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

// Validate answers every fault at once, each with what to change.
func (c Config) Validate() error {
	var f faults
	if c.Data == "" {
		f.add("data: give the directory where everything durable is kept")
	}
	for _, l := range []struct{ key, value string }{{"listen", c.Listen}, {"ops", c.Ops}} {
		if _, _, err := net.SplitHostPort(l.value); err != nil {
			f.add("%s: %q is not host:port", l.key, l.value)
		}
	}
	c.checkDoors(&f)
	c.checkRole(&f)
	if c.OpsToken == "" && !loopback(c.Ops) {
		f.add("ops: %q can be reached from other machines and no token is set; set SLUICE_OPS_TOKEN or listen on 127.0.0.1", c.Ops)
	}
	if c.Drain < 0 || c.Drain > time.Minute {
		f.add("drain: %s is not in 0s..1m", c.Drain)
	}
	if c.Gateways < 1 || c.Gateways > maxGateways {
		f.add("gateways: %d is not in 1..%d", c.Gateways, maxGateways)
	}
	if c.KeepLogMB < 0 || c.KeepLogMB > maxKeepLogMB {
		f.add("keep_log_mb: %d is not in 0..%d", c.KeepLogMB, maxKeepLogMB)
	}
	if n := len(c.OpsToken); n > 0 && n < 4 {
		f.add("ops_token: %d characters are too few", n)
	}
	if u, err := url.Parse(c.Public); c.Public != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "") {
		f.add("public: %q is not http://host:port or https://host", redacted(c.Public))
	}
	for _, p := range c.Proxies {
		if _, err := network(p); err != nil {
			f.add("trusted_proxies: %q is neither an address nor a network such as 10.0.0.0/8", p)
		}
	}
	for _, k := range c.JWTKeys {
		if _, _, err := gate.KeysAt(k); err != nil {
			f.add("jwt_keys: %w", err)
		}
	}
	if _, _, err := c.logStyle(); err != nil {
		f.add("log: %w", err)
	}
	if len(f) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n%w", ErrConfig, errors.Join(f...))
}

const maxGateways = 1024

const maxKeepLogMB = 1 << 20 // a terabyte

// checkDoors looks at each door, and whether they go together.
func (c Config) checkDoors(f *faults) {
	switch scheme(c.Stock) {
	case "wal":
	case "redis", "rediss":
		if _, err := redisstock.ParseURL(c.Stock); err != nil {
			f.add("stock: %w", err)
		}
	default:
		f.add("stock: %q has no backend; write wal://path/of/directory or redis://host:6379", redacted(c.Stock))
	}
	switch u, err := url.Parse(c.Store); {
	case scheme(c.Store) == "sqlite" && err == nil:
	case scheme(c.Store) == "mysql" && (err != nil || u.Host == "" || len(u.Path) < 2):
		f.add("store: %q is not mysql://user:password@host:3306/database, with the password percent-encoded", redacted(c.Store))
	case scheme(c.Store) == "mysql":
		if err := sqlstore.CheckAddress(c.Store); err != nil {
			f.add("store: %w", err)
		}
	default:
		f.add("store: %q has no backend; write sqlite://path/of/file.db or mysql://user:password@host:3306/database", redacted(c.Store))
	}
	if u, err := url.Parse(c.Payment); err != nil || u.Scheme != "sandbox" {
		f.add("payment: %q has no backend; write sandbox://127.0.0.1:8082", redacted(c.Payment))
	}
	switch _, err := etcdlease.ParseURL(c.Lease); {
	case c.Lease == "" || c.Lease == "local:" || c.Lease == "sql:":
	case c.elects() && err != nil:
		f.add("lease: %q: %w", redacted(c.Lease), err)
	case !c.elects():
		f.add("lease: %q has no backend; write sql:, etcd://host:2379 or local:", redacted(c.Lease))
	}
	switch _, err := kafkabus.Brokers(c.Bus); {
	case c.Bus == "" || c.Bus == "outbox:":
	case !c.onKafka():
		f.add("bus: %q has no backend; write outbox: or kafka://host:9092,host:9092,host:9092", redacted(c.Bus))
	case err != nil:
		f.add("bus: %q: %w", redacted(c.Bus), err)
	}
	if !c.fleet() {
		if c.onKafka() {
			f.add("bus: %q is of no use to a process whose ledger is its own, which delivers its events itself; leave the line out, or write stock: redis://host:6379", redacted(c.Bus))
		}
		if c.elects() {
			f.add("lease: %q is of no use to a process whose ledger is its own; leave the line out, or write stock: redis://host:6379", redacted(c.Lease))
		}
		return
	}
	// Redis outlives this process, and another one may join at any time: it must
	// find the orders that belong to the ledger, and take nothing for its own
	// that this process does.
	if !c.onServer() {
		f.add("store: %q is this process's alone, and the ledger on Redis is not; write mysql://user:password@host:3306/database", redacted(c.Store))
	}
	if c.Lease == "local:" {
		f.add("lease: local: keeps no other process away from the ledger on Redis; write sql: or etcd://host:2379")
	}
}

// checkRole names the lines that keep a process from being one of several.
func (c Config) checkRole(f *faults) {
	if _, known := roles[c.Role]; !known {
		f.add("role: %q is none of all, gateway, worker, console", c.Role)
		return
	}
	if c.Role == "all" {
		return
	}
	alone := func(key, value, instead string) {
		f.add("%s: %q is one process's alone, and role is %s; write %s, or set role: all", key, redacted(value), c.Role, instead)
	}
	if scheme(c.Stock) == "wal" {
		alone("stock", c.Stock, "redis://host:6379")
	}
	if scheme(c.Store) == "sqlite" && !c.fleet() { // with a fleet's ledger it has been said
		alone("store", c.Store, "mysql://user:password@host:3306/database")
	}
	if c.Lease == "local:" && !c.fleet() {
		alone("lease", c.Lease, "sql:")
	}
	if u, err := url.Parse(c.Payment); err == nil && u.Scheme == "sandbox" && u.Host == "" {
		f.add("payment: %q does not say where the console listens for the sandbox, and role is %s; write sandbox://host:port, the same for every process", c.Payment, c.Role)
	}
}
