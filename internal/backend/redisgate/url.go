package redisgate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// ErrURL: a URL is not one of Redis.
var ErrURL = errors.New("invalid redis URL")

// parseURL reads redis://user:password@a:6379,b:6379/2?cluster=true and the
// like. No error of it contains the password.
func parseURL(text string) (o rueidis.ClientOption, err error) {
	bad := func(format string, args ...any) (rueidis.ClientOption, error) {
		return rueidis.ClientOption{}, fmt.Errorf("%w: "+format, append([]any{ErrURL}, args...)...)
	}
	scheme, rest, _ := strings.Cut(text, "://")
	switch scheme {
	case "redis":
	case "rediss":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return bad("it must start with redis:// or rediss://")
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, rest = rest[:end], rest[end:]
	} else {
		rest = ""
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		o.Username, err = url.PathUnescape(user)
		if err == nil {
			o.Password, err = url.PathUnescape(password)
		}
		if err != nil {
			return bad("the user or password is not well escaped")
		}
		authority = authority[at+1:]
	}
	o.InitAddress = strings.Split(authority, ",")
	for _, addr := range o.InitAddress {
		host, port, err := net.SplitHostPort(addr)
		if n, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil || n == 0 || host == "" {
			return bad("%q is not host:port", addr)
		}
	}
	u, err := url.Parse(rest)
	if err != nil {
		return bad("what follows the addresses is malformed")
	}
	if err := options(&o, u); err != nil {
		return bad("%w", err)
	}
	return o, nil
}

// options reads the database from the path, and of the query what says how to
// connect.
func options(o *rueidis.ClientOption, u *url.URL) (err error) {
	if path := strings.Trim(u.Path, "/"); path != "" {
		if o.SelectDB, err = strconv.Atoi(path); err != nil || o.SelectDB < 0 {
			return fmt.Errorf("%q is not the number of a database", path)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("malformed options")
	}
	cluster := false
	if text := query.Get("cluster"); text != "" {
		if cluster, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("cluster=%s: true and false are possible", text)
		}
	}
	name := query.Get("sentinel")
	if cluster && (name != "" || o.SelectDB != 0) {
		return errors.New("a cluster has neither sentinels nor databases")
	}
	if name != "" {
		o.Sentinel = rueidis.SentinelOption{MasterSet: name, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig}
	}
	o.ShuffleInit, o.ForceSingleClient = cluster, !cluster && name == ""
	return nil
}

// tuned adds what does not come from the URL: no retries of the client's own
// and no cache; a server that is silent for twice a call's time is left.
func tuned(o rueidis.ClientOption, timeout time.Duration) rueidis.ClientOption {
	o.ClientName = "sluice-gate"
	o.DisableRetry, o.DisableCache = true, true
	o.Dialer = net.Dialer{Timeout: timeout}
	o.ConnWriteTimeout = 2 * timeout
	o.MaxFlushDelay = 20 * time.Microsecond
	return o
}
