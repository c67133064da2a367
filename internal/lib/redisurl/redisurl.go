// Package redisurl reads the URL of a Redis and makes of it the options of the
// client, the same for whatever is kept there:
//
//	redis://user:password@a:6379,b:6379/2
//	redis://a:6379,b:6379?cluster=true
//	rediss://:password@s1:26379,s2:26379?sentinel=mymaster
//
// rediss is TLS, the path a database's number, user and password are
// percent-encoded. No error contains the password. Options that it does not
// know are the caller's, to be understood or refused.
package redisurl

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

// ErrInvalid: a URL is not one of Redis. The message names the first part of it
// that is not understood.
var ErrInvalid = errors.New("invalid redis URL")

// URL is where a Redis is, and how to come in.
type URL struct {
	Addrs    []string // host:port, at least one
	Cluster  bool
	Sentinel string // name of the primary; Addrs are then sentinels
	TLS      bool
	Database int // 0 in a cluster

	user, password string // never logged, so not exported
}

// Parse also answers the options that are not of its own, as they stand in the
// query. Its error is ErrInvalid.
func Parse(text string) (URL, url.Values, error) {
	u, others, err := parse(text)
	if err != nil {
		return URL{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return u, others, nil
}

func parse(text string) (u URL, others url.Values, err error) {
	scheme, rest, _ := strings.Cut(text, "://")
	if scheme != "redis" && scheme != "rediss" {
		return u, nil, errors.New("it must start with redis:// or rediss://")
	}
	u.TLS = scheme == "rediss"
	// Several addresses are no host to net/url, so it gets only what follows them.
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, rest = rest[:end], rest[end:]
	} else {
		rest = ""
	}
	if err := u.enter(authority); err != nil {
		return u, nil, err
	}
	tail, err := url.Parse(rest)
	if err != nil {
		return u, nil, errors.New("what follows the addresses is malformed")
	}
	if path := strings.Trim(tail.Path, "/"); path != "" {
		if u.Database, err = strconv.Atoi(path); err != nil || u.Database < 0 {
			return u, nil, fmt.Errorf("%q is not the number of a database", path)
		}
	}
	if others, err = url.ParseQuery(tail.RawQuery); err != nil {
		return u, nil, errors.New("malformed options")
	}
	if text := others.Get("cluster"); text != "" {
		if u.Cluster, err = strconv.ParseBool(text); err != nil {
			return u, nil, fmt.Errorf("cluster=%s: true and false are possible", text)
		}
	}
	u.Sentinel = others.Get("sentinel")
	others.Del("cluster")
	others.Del("sentinel")
	if u.Cluster && (u.Sentinel != "" || u.Database != 0) {
		return u, nil, errors.New("a cluster has neither sentinels nor databases")
	}
	return u, others, nil
}

// enter reads user, password and addresses.
func (u *URL) enter(authority string) (err error) {
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		if u.user, err = url.PathUnescape(user); err == nil {
			u.password, err = url.PathUnescape(password)
		}
		if err != nil {
			return errors.New("the user or password is not well escaped")
		}
		authority = authority[at+1:]
	}
	u.Addrs = strings.Split(authority, ",")
	for _, addr := range u.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if n, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil || n == 0 || host == "" {
			return fmt.Errorf("%q is not host:port", addr)
		}
	}
	return nil
}

// Client are the client's options: no retries of its own and no cache. A server
// that is silent for twice the timeout is left. Flushing a little later halves
// the system calls of both sides under load. name is what CLIENT LIST shows.
func (u URL) Client(name string, timeout time.Duration) rueidis.ClientOption {
	option := rueidis.ClientOption{
		InitAddress: u.Addrs, Username: u.user, Password: u.password, SelectDB: u.Database, ClientName: name,
		ForceSingleClient: !u.Cluster && u.Sentinel == "", ShuffleInit: u.Cluster,
		DisableRetry: true, DisableCache: true,
		Dialer:           net.Dialer{Timeout: timeout},
		ConnWriteTimeout: 2 * timeout,
		MaxFlushDelay:    20 * time.Microsecond,
	}
	if u.TLS {
		option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if u.Sentinel != "" {
		option.Sentinel = rueidis.SentinelOption{MasterSet: u.Sentinel, Username: u.user, Password: u.password, TLSConfig: option.TLSConfig}
	}
	return option
}
