package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// KeySource is where an identity provider publishes the keys that it signs with,
// as a JSON Web Key Set. They are read again every RefreshKeys, and sooner when a
// token names a key that is not known.
//
// While the provider is away, or answers what is no set of keys, the last known
// keys stay. A key that is no longer in the set stops working with the read that
// misses it, also for tokens that were verified before.
//
// A token must name a key that has a name: who forges tokens shall not make us try
// them all.
type KeySource struct {
	Name string                                    // for people
	Read func(ctx context.Context) ([]byte, error) // the document

	// Issuer, if any, is what tokens must say they are from, and Audience whom
	// they must say they are for. A provider that signs for other shops as well
	// signs their users' tokens with the same keys: then Audience is what keeps
	// those out.
	Issuer, Audience string
}

// Pace of reading keys.
const (
	// RefreshKeys is the longest that a withdrawn key still works.
	RefreshKeys = 5 * time.Minute
	// keysAgain is the least time between two reads. Whoever makes up key ids can
	// cause one that often, and no request waits for it.
	keysAgain = 10 * time.Second
	// keysWithin bounds one read.
	keysWithin = 5 * time.Second
)

// source is a KeySource in use. What is not atomic is of Step alone.
type source struct {
	KeySource
	keys  []*trusted
	tried time.Time   // zero: never
	fault error       // then
	asked atomic.Bool // for a key that it may have by now
}

// due says whether to read.
func (s *source) due(now time.Time) bool {
	since := now.Sub(s.tried)
	return s.tried.IsZero() || since >= RefreshKeys || since >= keysAgain && (s.fault != nil || s.asked.Load())
}

// NewVerifierFrom is NewVerifier of up to MaxKeys fixed keys, or none, and the keys
// of identity providers, which are known from their first Step on. What changes in
// their keys is told to log.
func NewVerifierFrom(now func() time.Time, remember int, log *slog.Logger, sources []KeySource, fixed ...VerifyingKey) (*Verifier, error) {
	if len(fixed)+len(sources) < 1 || len(fixed) > MaxKeys || len(sources) > MaxKeys {
		return nil, fmt.Errorf("%w: %d keys and %d sources given; at least one, and %d of each can be accepted", ErrKey, len(fixed), len(sources), MaxKeys)
	}
	keys, err := trust(fixed, nil, nil)
	if err != nil {
		return nil, err
	}
	v := newTable(now, remember)
	v.log, v.fixed, v.woken = log, keys, make(chan struct{}, 1)
	for _, s := range sources {
		v.sources = append(v.sources, &source{KeySource: s})
	}
	v.gather()
	return v, nil
}

// gather puts the keys of all into use.
func (v *Verifier) gather() {
	all := slices.Clone(v.fixed)
	for _, s := range v.sources {
		all = append(all, s.keys...)
	}
	v.keys.Store(&all)
}

// Woken tells when a token names a key that is not known.
func (v *Verifier) Woken() <-chan struct{} { return v.woken }

// Step reads the keys of each provider whose turn it is, and answers what is wrong
// with any since its last read. It is to run once before
// anybody is served, then each second or so, and when it is woken.
func (v *Verifier) Step(ctx context.Context) (worked bool, err error) {
	v.reading.Lock()
	defer v.reading.Unlock()
	for _, s := range v.sources {
		if now := v.now(); s.due(now) {
			s.asked.Store(false)
			s.tried, s.fault = now, v.read(ctx, s)
		}
		err = errors.Join(err, s.fault)
	}
	return false, err
}

// read takes up what a provider publishes now.
func (v *Verifier) read(ctx context.Context, s *source) error {
	ctx, cancel := context.WithTimeout(ctx, keysWithin)
	defer cancel()
	document, err := s.Read(ctx)
	if err != nil {
		return fmt.Errorf("keys of %s: %w", s.Name, err)
	}
	found, err := ParseJWKS(document)
	if err != nil {
		return fmt.Errorf("keys of %s: %w", s.Name, err)
	}
	had := s.keys
	if s.keys, err = trust(found, s, had); err != nil {
		return fmt.Errorf("keys of %s: %w", s.Name, err)
	}
	v.gather()
	// Only now, so that nothing is verified with a key after it was withdrawn.
	gone := 0
	for _, old := range had {
		if !slices.Contains(s.keys, old) {
			old.withdrawn.Store(true)
			gone++
		}
	}
	if fresh := len(s.keys) - (len(had) - gone); fresh > 0 || gone > 0 {
		v.log.Info("keys of an identity provider", "source", s.Name, "accepted", len(s.keys), "new", fresh, "withdrawn", gone)
	}
	return nil
}

// KeysAt reads a line of configuration: the address of a key set, https (http on
// loopback), or the path of a file that ends in .json, then perhaps # with iss=,
// aud= or both (with & between), as in https://id.example/keys#aud=shop. ok is
// whether the line looks like one; the error is ErrKey.
func KeysAt(line string) (s KeySource, ok bool, err error) {
	at, meant, _ := strings.Cut(line, "#")
	remote := strings.HasPrefix(at, "https://") || strings.HasPrefix(at, "http://")
	switch {
	case !remote && !strings.HasSuffix(at, ".json"):
		return s, false, nil
	case !remote && strings.Contains(at, "="):
		return s, true, fmt.Errorf("%w: %s: a key set names its keys itself; write the path alone", ErrKey, at)
	}
	if s = fileKeys(at); remote {
		if s, err = remoteKeys(at); err != nil {
			return s, true, err
		}
	}
	claims, err := url.ParseQuery(meant)
	if err != nil {
		return s, true, fmt.Errorf("%w: %s: after # write iss=… or aud=…, percent-encoded", ErrKey, at)
	}
	for claim, values := range claims {
		switch {
		case claim == "iss" && len(values) == 1 && values[0] != "":
			s.Issuer = values[0]
		case claim == "aud" && len(values) == 1 && values[0] != "":
			s.Audience = values[0]
		default:
			return s, true, fmt.Errorf("%w: %s: %q after # is neither iss=… nor aud=…, once", ErrKey, at, claim)
		}
	}
	return s, true, nil
}

// miss asks providers for their keys: one may have the key by now.
func (v *Verifier) miss() {
	if len(v.sources) == 0 {
		return
	}
	for _, s := range v.sources {
		s.asked.Store(true)
	}
	select {
	case v.woken <- struct{}{}:
	default:
	}
}

// remoteKeys are published at an address: https, or http on loopback. A read ends
// after 5 s or 64 kB, and follows nowhere else. The error is ErrKey.
func remoteKeys(address string) (KeySource, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return KeySource{}, fmt.Errorf("%w: %q is no address", ErrKey, address)
	case u.User != nil:
		return KeySource{}, fmt.Errorf("%w: the address of %s has credentials, and public keys need none", ErrKey, u.Host)
	case u.Scheme != "https" && !(u.Scheme == "http" && onLoopback(u.Hostname())):
		return KeySource{}, fmt.Errorf("%w: %q: whoever can change what is read over plain http can sign in as anybody; write https", ErrKey, address)
	}
	client := &http.Client{
		Timeout: keysWithin,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("it sends us to %s; write that address if it is to be trusted", r.URL.Redacted())
		},
	}
	return KeySource{Name: address, Read: func(ctx context.Context) ([]byte, error) { return fetch(ctx, client, address) }}, nil
}

func fetch(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", answer.Status)
	}
	return readBounded(answer.Body)
}

// readBounded reads one byte more than ParseJWKS accepts, so that it refuses what
// was cut.
func readBounded(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, maxJWKS+1)) }

// fileKeys are published in a file, which others may replace.
func fileKeys(path string) KeySource {
	return KeySource{Name: path, Read: func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return readBounded(f)
	}}
}

// onLoopback says that a host is this machine.
func onLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
