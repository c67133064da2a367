package storm

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// errNotSent: the request never left, so nothing can have been accepted.
var errNotSent = errors.New("request not sent")

const (
	dialTimeout  = 2 * time.Second
	replyTimeout = 15 * time.Second
	maxReply     = 64 << 10
)

// request is the purchase of a sale as bytes, ready but for token and key.
type request struct{ head, middle, tail []byte }

func newRequest(target *url.URL, activity, sku string) request {
	body := purchaseBody(sku)
	return request{
		head: []byte("POST /v1/activities/" + activity + "/purchases HTTP/1.1\r\nHost: " + target.Host +
			"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nAuthorization: Bearer "),
		middle: []byte("\r\nIdempotency-Key: "),
		tail:   append([]byte("\r\n\r\n"), body...),
	}
}

func purchaseBody(sku string) []byte { return []byte(`{"sku":"` + sku + `","quantity":1}`) }

// target is a gateway, and the purchase as it is to be told it.
type target struct {
	url     *url.URL
	request request
}

// wire is one keep-alive connection driven by hand: write, then read, on one
// goroutine. It costs a third of a pooled client, and a reply can be lost for
// real, by closing the connection under it.
type wire struct {
	target   target
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	reply    fasthttp.Response
	deadline time.Time // of conn; renewed now and then, since renewing costs a timer
}

func newWire(at target) *wire {
	return &wire{target: at, in: bufio.NewReaderSize(nil, 8<<10)}
}

// buy sends one purchase and reads the answer. The body is valid until the
// next call. An error that is not errNotSent leaves the outcome unknown.
func (w *wire) buy(token, key []byte) (statusCode int, body []byte, err error) {
	if err := w.send(token, key); err != nil {
		return 0, nil, err
	}
	if err := w.reply.ReadLimitBody(w.in, maxReply); err != nil {
		w.close()
		return 0, nil, fmt.Errorf("read reply: %w", err)
	}
	if w.reply.ConnectionClose() {
		w.close()
	}
	return w.reply.StatusCode(), w.reply.Body(), nil
}

// lose sends one purchase and hangs up without waiting for the answer.
func (w *wire) lose(token, key []byte) error {
	err := w.send(token, key)
	w.close()
	return err
}

func (w *wire) send(token, key []byte) error {
	r := w.target.request
	if w.conn == nil {
		if err := w.dial(); err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
	now := time.Now()
	if w.deadline.Sub(now) < replyTimeout {
		w.deadline = now.Add(2 * replyTimeout)
		if err := w.conn.SetDeadline(w.deadline); err != nil {
			w.close()
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
	w.out = append(w.out[:0], r.head...)
	w.out = append(w.out, token...)
	w.out = append(w.out, r.middle...)
	w.out = append(w.out, key...)
	w.out = append(w.out, r.tail...)
	if _, err := w.conn.Write(w.out); err != nil {
		w.close()
		return fmt.Errorf("write request: %w", err)
	}
	return nil
}

func (w *wire) dial() error {
	d := net.Dialer{Timeout: dialTimeout}
	host := hostPort(w.target.url)
	var conn net.Conn
	var err error
	if w.target.url.Scheme == "https" {
		conn, err = tls.DialWithDialer(&d, "tcp", host, nil)
	} else {
		conn, err = d.Dial("tcp", host)
	}
	if err != nil {
		return err
	}
	w.conn, w.deadline = conn, time.Time{}
	w.in.Reset(conn)
	return nil
}

func (w *wire) close() {
	if w.conn != nil {
		// Nothing depends on how a connection that is given up was closed.
		_ = w.conn.Close()
		w.conn = nil
	}
}
