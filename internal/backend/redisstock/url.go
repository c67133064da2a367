package redisstock

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// Config is a URL taken apart:
//
//	redis://user:password@a:6379,b:6379?cluster=true&buckets=16&answer=held
//	rediss://:password@s1:26379,s2:26379?sentinel=mymaster
//
// rediss is TLS. The path may be a database's number, without a cluster.
// buckets is 1..256, default 1. answer=held lets Reserve wait until the
// reservation is in the store; by default it answers pending.
type Config struct {
	Addrs    []string
	Cluster  bool
	Sentinel string // name of the primary; Addrs are then sentinels
	TLS      bool
	Database int
	Buckets  uint16
	Held     bool

	user, password string // never logged, so not exported
}

// ParseURL reads a URL and names the first part of it that is not understood.
// No error of it contains the password.
func ParseURL(text string) (c Config, err error) {
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, fmt.Errorf("%w: stock URL: "+format, append([]any{stock.ErrInvalid}, args...)...)
	}
	scheme, rest, _ := strings.Cut(text, "://")
	if scheme != "redis" && scheme != "rediss" {
		return bad("it must start with redis:// or rediss://")
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, rest = rest[:end], rest[end:]
	} else {
		rest = ""
	}
	c = Config{TLS: scheme == "rediss", Buckets: 1}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		if c.user, err = url.PathUnescape(user); err == nil {
			c.password, err = url.PathUnescape(password)
		}
		if err != nil {
			return bad("the user or password is not well escaped")
		}
		authority = authority[at+1:]
	}
	for _, addr := range strings.Split(authority, ",") {
		host, port, err := net.SplitHostPort(addr)
		if n, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil || n == 0 || host == "" {
			return bad("%q is not host:port", addr)
		}
		c.Addrs = append(c.Addrs, addr)
	}
	u, err := url.Parse(rest)
	if err != nil {
		return bad("what follows the addresses is malformed")
	}
	if err := c.options(u); err != nil {
		return bad("%w", err)
	}
	return c, nil
}

func (c *Config) options(u *url.URL) (err error) {
	if path := strings.Trim(u.Path, "/"); path != "" {
		if c.Database, err = strconv.Atoi(path); err != nil || c.Database < 0 {
			return fmt.Errorf("%q is not the number of a database", path)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("malformed options")
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "cluster":
			c.Cluster, err = strconv.ParseBool(value)
		case "sentinel":
			c.Sentinel = value
		case "buckets":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 16)
			c.Buckets = uint16(n)
			if n < 1 || n > stock.MaxBuckets {
				err = fmt.Errorf("1..%d are possible", stock.MaxBuckets)
			}
		case "answer":
			c.Held = value == "held"
			if !c.Held && value != "pending" {
				err = errors.New("pending and held are possible")
			}
		default:
			return fmt.Errorf("no option %q", name)
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	if c.Cluster && (c.Sentinel != "" || c.Database != 0) {
		return errors.New("a cluster has neither sentinels nor databases")
	}
	return nil
}

// client are the client's options: no retries of its own and no cache.
// Flushing a little later halves the system calls of both sides under load.
func (c *Config) client(o Options) rueidis.ClientOption {
	option := rueidis.ClientOption{
		InitAddress: c.Addrs, Username: c.user, Password: c.password, SelectDB: c.Database, ClientName: "sluice",
		ForceSingleClient: !c.Cluster && c.Sentinel == "", ShuffleInit: c.Cluster,
		DisableRetry: true, DisableCache: true,
		Dialer:           net.Dialer{Timeout: o.Timeout},
		ConnWriteTimeout: 2 * o.Timeout, // a server that does not answer for so long is left
		MaxFlushDelay:    20 * time.Microsecond,
	}
	if c.TLS {
		option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.Sentinel != "" {
		option.Sentinel = rueidis.SentinelOption{MasterSet: c.Sentinel, Username: c.user, Password: c.password, TLSConfig: option.TLSConfig}
	}
	return option
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}
