package call

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// TransportOptions of a Transport. The zero value is usable.
type TransportOptions struct {
	// MaxBody bounds an answer, in bytes; default 1 MiB, at least 1.
	MaxBody int64
	// Base makes the calls; default an http.Transport of its own with as many
	// connections to a host as the bulkhead has places, 2 s to connect, 3 s for
	// TLS and 16 kB of headers.
	Base http.RoundTripper
}

// Transport is a Dependency as an http.RoundTripper. It is for calls with an
// answer, not for streams: each attempt reads its answer to the end before it is
// over, so that the time-out, the bulkhead and the verdict are about all of it.
//
// 408, 429 and 5xx, except 501, are failures. They are retried if the request
// is idempotent by its method (RFC 9110, 9.2.2) or carries an Idempotency-Key,
// and its body can be had again; Retry-After is heeded. What is left of it at the
// end is returned as an answer and not as an error, as http.RoundTripper demands.
type Transport struct {
	through *Dependency
	base    http.RoundTripper
	maxBody int64
}

// NewTransport calls through d. The error wraps ErrOptions.
func NewTransport(d *Dependency, o TransportOptions) (*Transport, error) {
	o.MaxBody = cmp.Or(o.MaxBody, 1<<20)
	if err := faults("transport", check(o.MaxBody >= 1, "max body %d is below 1", o.MaxBody)); err != nil {
		return nil, err
	}
	if o.Base == nil {
		places := cap(d.Bulkhead.places)
		o.Base = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:    3 * time.Second,
			MaxConnsPerHost:        places,
			MaxIdleConnsPerHost:    places,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
			ForceAttemptHTTP2:      true,
		}
	}
	return &Transport{through: d, base: o.Base, maxBody: o.MaxBody}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close() // attempts may have had copies, or there was none
	}
	var answer *http.Response
	err := t.through.Do(req.Context(), safety(req), func(ctx context.Context) error {
		var err error
		if answer, err = t.attempt(ctx, req); err != nil {
			return err
		}
		return t.judge(answer)
	})
	var status *StatusError
	if errors.As(err, &status) {
		return status.answer, nil
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// CloseIdleConnections lets http.Client's method of that name work.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// attempt makes the request once and reads the answer into memory.
func (t *Transport) attempt(ctx context.Context, req *http.Request) (*http.Response, error) {
	once := req.WithContext(ctx)
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		once.Body = body
	}
	resp, err := t.base.RoundTrip(once)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // an answer that is too large costs its connection
	body, err := io.ReadAll(io.LimitReader(resp.Body, t.maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("answer of status %d: %w", resp.StatusCode, err)
	}
	if int64(len(body)) > t.maxBody {
		return nil, fmt.Errorf("%w: more than %d bytes, status %d", ErrTooLarge, t.maxBody, resp.StatusCode)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// judge makes an error of an answer that is a failure.
func (t *Transport) judge(answer *http.Response) error {
	code := answer.StatusCode
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests:
	case code >= 500 && code != http.StatusNotImplemented:
	default:
		return nil
	}
	err := &StatusError{Code: code, answer: answer}
	if pause := retryAfter(answer.Header.Get("Retry-After"), t.through.retry.o.Now()); pause > 0 {
		return After(err, pause)
	}
	return err
}

// StatusError is a failure told by the status of an answer. Only a Judge meets
// it: at the end the answer itself is returned.
type StatusError struct {
	Code   int
	answer *http.Response
}

func (e *StatusError) Error() string { return "status " + strconv.Itoa(e.Code) }

// safety says whether req may be made twice.
func safety(req *http.Request) Safety {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return Once // its body is gone after the first time
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return Idempotent
	default:
		return Safety(req.Header.Get("Idempotency-Key") != "")
	}
}

// retryAfter reads a Retry-After field: seconds or a date. What cannot be read
// is 0.
func retryAfter(field string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(field, 10, 64); err == nil {
		const year = 365 * 24 * 3600 // and so no overflow
		return time.Duration(min(s, year)) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
