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
)

// Config is everything that can be configured: flag over SLUICE_* environment
// over file over default. A knob is here because somebody needed it.
type Config struct {
	Role   string `koanf:"role" help:"all: one process does everything"`
	Data   string `koanf:"data" help:"directory of everything durable: log, orders, secrets"`
	Listen string `koanf:"listen" help:"host:port of the shopper API and the storefront"`
	Ops    string `koanf:"ops" help:"host:port of the ops API; loopback only while no token is set"`

	Stock   string `koanf:"stock" help:"the ledger: wal:// with a path, by default stock in the data directory"`
	Store   string `koanf:"store" help:"orders: sqlite:// with a path, by default shop.db in the data directory"`
	Payment string `koanf:"payment" help:"the payment provider: sandbox://host:port, by default the ops API's host and the port after it"`

	Drain    time.Duration `koanf:"drain" help:"how long /readyz says no before a stopping server refuses connections; 0s without a balancer in front"`
	OpsToken string        `koanf:"ops_token" help:"bearer token of the ops API; better given as SLUICE_OPS_TOKEN" secret:"true"`
	JWTKeys  []string      `koanf:"jwt_keys" help:"files of keys that sign shoppers' tokens, [id=]path: HS256 secrets as hex or Ed25519 public keys as PEM; by default a secret made in the data directory"`
	Demo     bool          `koanf:"demo" help:"load the demo catalogue, open a sale, hand out shoppers' tokens to anyone"`
	Log      string        `koanf:"log" help:"json or text; debug, info, warn or error after a comma"`
}

// Default is the configuration without file, environment and flags.
func Default() Config {
	return Config{
		Role: "all", Data: "data", Listen: ":8080", Ops: "127.0.0.1:8081",
		Stock: "wal:", Store: "sqlite:", Payment: "sandbox:", Log: "text,info",
	}
}

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
		if key == "jwt_keys" {
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
			line = fmt.Sprintf("%s: %q", f.Tag.Get("koanf"), value.String())
		}
		fmt.Fprintf(&b, "# %s\n%s\n", f.Tag.Get("help"), line)
	}
	return b.String()
}

// Validate answers every fault at once, each with what to change.
func (c Config) Validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Role != "all" {
		bad("role: %q cannot run yet: stock, store and payment are single-process doors; set role: all", c.Role)
	}
	if c.Data == "" {
		bad("data: give the directory where everything durable is kept")
	}
	for _, l := range []struct{ key, value string }{{"listen", c.Listen}, {"ops", c.Ops}} {
		if _, _, err := net.SplitHostPort(l.value); err != nil {
			bad("%s: %q is not host:port", l.key, l.value)
		}
	}
	for _, d := range []struct{ key, value, scheme, example string }{
		{"stock", c.Stock, "wal", "wal://path/of/directory"},
		{"store", c.Store, "sqlite", "sqlite://path/of/file.db"},
		{"payment", c.Payment, "sandbox", "sandbox://127.0.0.1:8082"},
	} {
		if u, err := url.Parse(d.value); err != nil || u.Scheme != d.scheme {
			bad("%s: %q has no backend; write %s", d.key, d.value, d.example)
		}
	}
	if c.OpsToken == "" && !loopback(c.Ops) {
		bad("ops: %q can be reached from other machines and no token is set; set SLUICE_OPS_TOKEN or listen on 127.0.0.1", c.Ops)
	}
	if c.Drain < 0 || c.Drain > time.Minute {
		bad("drain: %s is not in 0s..1m", c.Drain)
	}
	if n := len(c.OpsToken); n > 0 && n < 4 {
		bad("ops_token: %d characters are too few", n)
	}
	if _, _, err := c.logStyle(); err != nil {
		bad("log: %w", err)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n%w", ErrConfig, errors.Join(faults...))
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

// StockPath and StorePath are where the embedded ledger and store live.
func (c Config) StockPath() string { return c.path(c.Stock, "stock") }
func (c Config) StorePath() string { return c.path(c.Store, "shop.db") }

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
	return os.MkdirAll(filepath.Dir(c.StorePath()), 0o700)
}
