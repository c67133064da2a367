// Package app puts the parts together: configuration (config.go), doors to
// backends by URL (doors.go), what runs where (roles.go), and the life of the
// process (run.go). It holds no rule of the business and is imported by cmd
// and the simulation only.
package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"sluice/internal/gate"
)

// Config is everything that can be configured: flag over SLUICE_* environment
// over file over default. A knob is here because somebody needed it.
type Config struct {
	Role    string `koanf:"role" help:"what this process does. all: everything; of a fleet, gateway: serve shoppers, worker: land orders and keep the buckets, console: the ops API"`
	Data    string `koanf:"data" help:"directory of everything durable: log, orders, secrets"`
	Secrets string `koanf:"secrets" help:"directory of the secrets that all processes of a fleet share; by default secrets in the data directory"`
	Listen  string `koanf:"listen" help:"host:port of the shopper API and the storefront"`
	Public  string `koanf:"public" help:"URL at which the payment provider reaches the shopper API, of a fleet its balancer's; by default this process's own address"`
	Ops     string `koanf:"ops" help:"host:port of the ops API, or of the health and metrics of a gateway or worker; loopback only while no token is set"`

	Stock   string `koanf:"stock" help:"the ledger: wal:// with a path, by default stock in the data directory, or redis://a:6379,b:6379?cluster=true&buckets=16"`
	Store   string `koanf:"store" help:"orders: sqlite:// with a path, by default shop.db in the data directory, or mysql://user:password@host:3306/database, better given as SLUICE_STORE"`
	Lease   string `koanf:"lease" help:"who does what only one process may do: sql: in the store, the default with a ledger on Redis, etcd://a:2379,b:2379/namespace, or local: for a process that is alone"`
	Bus     string `koanf:"bus" help:"how events of orders reach the workers: outbox: from the store, by one of them, or kafka://a:9092,b:9092?topic=sluice.events&partitions=12, over three brokers or more, of a fleet; with a password, kafka://user:password@…?tls=true, better given as SLUICE_BUS"`
	Payment string `koanf:"payment" help:"the payment provider: sandbox://host:port, by default the ops API's host and the port after it"`

	KeepLogMB int           `koanf:"keep_log_mb" help:"megabytes of log kept so that the trail of activities without a final proof can be read; past it the oldest goes, with an alarm; 0: none"`
	Drain     time.Duration `koanf:"drain" help:"how long /readyz says no before a stopping server refuses connections; 0s without a balancer in front"`
	OpsToken  string        `koanf:"ops_token" help:"bearer token of the ops API; better given as SLUICE_OPS_TOKEN" secret:"true"`
	JWTKeys   []string      `koanf:"jwt_keys" help:"keys that sign shoppers' tokens: [id=]path of a file with an HS256 secret as hex or a public key (Ed25519, P-256, RSA) as PEM, or a JSON Web Key Set, https://… or the path of a .json file, then perhaps #iss=…&aud=…; by default a secret made in the data directory"`
	Proxies   []string      `koanf:"trusted_proxies" help:"addresses and networks (10.0.0.0/8) of the proxies in front of the shopper API, whose X-Forwarded-For says where a shopper is; by default none is believed"`
	Gateways  int           `koanf:"gateways" help:"how many gateways there may be: by so much limits of scope fleet can be exceeded, and with Redis away each keeps that part of them"`
	Demo      bool          `koanf:"demo" help:"load the demo catalogue, open a sale, hand out shoppers' tokens to anyone"`
	Log       string        `koanf:"log" help:"json or text; debug, info, warn or error after a comma"`
}

// Default is the configuration without file, environment and flags.
func Default() Config {
	return Config{
		Role: "all", Data: "data", Listen: ":8080", Ops: "127.0.0.1:8081",
		Stock: "wal:", Store: "sqlite:", Bus: "outbox:", Payment: "sandbox:", KeepLogMB: defaultKeepLogMB, Gateways: defaultGateways, Log: "text,info",
	}
}

// defaultGateways is more than a shop of a million attempts a second has.
const defaultGateways = 16

// defaultKeepLogMB is the log of 3.6 million orders (some 290 bytes each, from
// reservation to settlement): more than most shops sell before a sale is closed
// and proved. It is not more, because a restart reads it all to check it, in
// half a second when it is cached and in 5 s from a disk of 200 MB/s.
const defaultKeepLogMB = 1024

// ErrConfig: the configuration cannot be read or is not valid.
var ErrConfig = errors.New("configuration")

// Load reads the configuration. path may be empty; flags holds what was given
// on the command line, by key. Unknown keys are errors wherever they come from.
func Load(path string, flags map[string]any) (Config, error) {
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
		}
	}
	var strange []string
	known := keys()
	fromEnv := env.Provider(".", env.Opt{Prefix: "SLUICE_", TransformFunc: func(name, value string) (string, any) {
		key := strings.ToLower(strings.TrimPrefix(name, "SLUICE_"))
		if key == "config_file" { // says where the file is, and is read before it
			return "", nil
		}
		if key == "jwt_keys" || key == "trusted_proxies" {
			return key, strings.Split(value, ",")
		}
		return key, value
	}})
	if err := k.Load(fromEnv, nil); err != nil {
		return Config{}, fmt.Errorf("%w: environment: %w", ErrConfig, err)
	}
	if err := k.Load(confmap.Provider(flags, "."), nil); err != nil {
		return Config{}, fmt.Errorf("%w: flags: %w", ErrConfig, err)
	}
	for _, key := range k.Keys() {
		if !slices.Contains(known, key) {
			strange = append(strange, key)
		}
	}
	if len(strange) > 0 {
		return Config{}, fmt.Errorf("%w: unknown keys %s; known are %s", ErrConfig, strings.Join(strange, ", "), strings.Join(known, ", "))
	}
	c := Default()
	if err := k.Unmarshal("", &c); err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c, c.Validate()
}

func keys() (known []string) {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		known = append(known, t.Field(i).Tag.Get("koanf"))
	}
	return known
}

// Print writes the configuration as a commented file; secrets are left out.
func (c Config) Print() string {
	var b strings.Builder
	v, t := reflect.ValueOf(c), reflect.TypeFor[Config]()
	for i := range t.NumField() {
		f := t.Field(i)
		value := v.Field(i)
		line := fmt.Sprintf("%s: %v", f.Tag.Get("koanf"), value.Interface())
		switch {
		case f.Tag.Get("secret") == "true" && value.String() != "":
			line = "# " + f.Tag.Get("koanf") + ": is set"
		case f.Type.Kind() == reflect.Slice:
			line = fmt.Sprintf("%s: [%s]", f.Tag.Get("koanf"), strings.Join(value.Interface().([]string), ", "))
		case f.Type == reflect.TypeFor[time.Duration]():
			line = fmt.Sprintf("%s: %s", f.Tag.Get("koanf"), value.Interface())
		case f.Type.Kind() == reflect.String:
			line = fmt.Sprintf("%s: %q", f.Tag.Get("koanf"), redacted(value.String()))
		}
		fmt.Fprintf(&b, "# %s\n%s\n", f.Tag.Get("help"), line)
	}
	return b.String()
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// path answers where a door keeps its files: what the URL says, or a name in
// the data directory.
func (c Config) path(door, name string) string {
	u, err := url.Parse(door)
	if err != nil {
		return filepath.Join(c.Data, name)
	}
	if p := u.Host + u.Path + u.Opaque; p != "" {
		return filepath.FromSlash(p)
	}
	return filepath.Join(c.Data, name)
}

// redacted is a value that may be a URL, without the password in it. It does
// not parse it: where the password of a URL that is not well formed ends, nobody
// can say, so all that could be it is left out.
func redacted(value string) string {
	scheme, rest, found := strings.Cut(value, "://")
	at := strings.LastIndexByte(rest, '@')
	if !found || at < 0 {
		return value
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	return scheme + "://" + user + ":xxxxx" + rest[at:]
}

// scheme is the kind of a door.
func scheme(door string) string {
	kind, _, _ := strings.Cut(door, ":")
	return kind
}

// fleet: the ledger is a server's, so that there may be other processes.
func (c Config) fleet() bool { return scheme(c.Stock) == "redis" || scheme(c.Stock) == "rediss" }

// elects: leases are an etcd's.
func (c Config) elects() bool { return scheme(c.Lease) == "etcd" || scheme(c.Lease) == "etcds" }

// onKafka: events go over Kafka.
func (c Config) onKafka() bool { return scheme(c.Bus) == "kafka" }

// onServer: the store is a server's, and no file of ours.
func (c Config) onServer() bool { return scheme(c.Store) == "mysql" }

// StockPath and StorePath are where the embedded ledger and store live.
func (c Config) StockPath() string { return c.path(c.Stock, "stock") }
func (c Config) StorePath() string { return c.path(c.Store, "shop.db") }

// SecretsPath is the directory of secrets.
func (c Config) SecretsPath() string {
	if c.Secrets != "" {
		return c.Secrets
	}
	return gate.SecretsPath(c.Data)
}

// keeps says whether the process has something durable of its own, which no
// other process may touch: a log, orders in a file, the sandbox's payments.
func (c Config) keeps() bool { return roles[c.Role].console }

// token is what the ops API asks for: the one configured, or in a demo on
// loopback a word that everybody knows.
func (c Config) token() string {
	if c.OpsToken == "" && c.Demo {
		return demoOpsToken
	}
	return c.OpsToken
}

const demoOpsToken = "demo"

// prepare makes the data directory.
func (c Config) prepare() error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if c.onServer() {
		return nil
	}
	return os.MkdirAll(filepath.Dir(c.StorePath()), 0o700)
}
