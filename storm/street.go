package storm

import (
	"bufio"
	"container/list"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// street is how people and bots reach the shop: each from an address of its own,
// over a connection that is kept while there is room. Only a shop on this machine
// can be met so, since the addresses are of the loopback network; elsewhere all
// come from the one address that this machine has.
type street struct {
	most int // idle connections

	mu   sync.Mutex
	idle map[corner]*list.Element // of *walk; one for each corner
	used *list.List               // the longest unused first
}

// corner is an address and where it leads.
type corner struct {
	target string
	from   netip.Addr
}

// walk is one keep-alive connection.
type walk struct {
	corner corner
	conn   net.Conn
	in     *bufio.Reader
}

// maxPicture bounds replies with pictures of challenges.
const maxPicture = 1 << 20

func newStreet(most int) *street {
	return &street{most: max(most, 1), idle: map[corner]*list.Element{}, used: list.New()}
}

// isLocal says whether a shop is on the loopback network.
func isLocal(target *url.URL) bool {
	ip, err := netip.ParseAddr(target.Hostname())
	return target.Hostname() == "localhost" || err == nil && ip.Is4() && ip.IsLoopback()
}

// ask makes one request from an address. An error that is not errNotSent leaves
// the outcome unknown. body nil is none.
func (s *street) ask(target *url.URL, from netip.Addr, m manner, method, path string, token []byte, key string, body []byte) (answer, error) {
	w, err := s.take(target, corner{target.Host, from})
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNotSent, err)
	}
	b := make([]byte, 0, 1024)
	b = append(append(append(append(append(b, method...), ' '), path...), " HTTP/1.1\r\nHost: "...), target.Host...)
	b = append(append(b, "\r\nAccept: application/json\r\nUser-Agent: "...), m.agent...)
	if m.language != "" {
		b = append(append(b, "\r\nAccept-Language: "...), m.language...)
	}
	if len(token) > 0 {
		b = append(append(b, "\r\nAuthorization: Bearer "...), token...)
	}
	if key != "" {
		b = append(append(b, "\r\nIdempotency-Key: "...), key...)
	}
	if body != nil {
		b = strconv.AppendInt(append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...), int64(len(body)), 10)
	}
	b = append(append(b, "\r\n\r\n"...), body...)
	if err := w.conn.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		w.conn.Close()
		return answer{}, fmt.Errorf("%w: %w", errNotSent, err)
	}
	if _, err := w.conn.Write(b); err != nil {
		w.conn.Close()
		return answer{}, fmt.Errorf("%s %s: write: %w", method, path, err)
	}
	var reply fasthttp.Response
	if err := reply.ReadLimitBody(w.in, maxPicture); err != nil {
		w.conn.Close()
		return answer{}, fmt.Errorf("%s %s: read: %w", method, path, err)
	}
	if reply.ConnectionClose() {
		w.conn.Close()
	} else {
		s.keep(w)
	}
	return answer{reply.StatusCode(), reply.Body()}, nil
}

// take answers a connection that is kept, or a new one.
func (s *street) take(target *url.URL, at corner) (*walk, error) {
	s.mu.Lock()
	if e := s.idle[at]; e != nil {
		delete(s.idle, at)
		w := s.used.Remove(e).(*walk)
		s.mu.Unlock()
		return w, nil
	}
	s.mu.Unlock()
	d := net.Dialer{Timeout: dialTimeout}
	if isLocal(target) {
		d.LocalAddr = &net.TCPAddr{IP: at.from.AsSlice()}
	}
	var conn net.Conn
	var err error
	if target.Scheme == "https" {
		conn, err = tls.DialWithDialer(&d, "tcp", hostPort(target), nil)
	} else {
		conn, err = d.Dial("tcp", hostPort(target))
	}
	if err != nil {
		return nil, err
	}
	return &walk{at, conn, bufio.NewReaderSize(conn, 4<<10)}, nil
}

// keep puts a connection back, and gives up the one unused longest where there is
// no room.
func (s *street) keep(w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle[w.corner] != nil {
		w.conn.Close()
		return
	}
	s.idle[w.corner] = s.used.PushBack(w)
	if s.used.Len() > s.most {
		old := s.used.Remove(s.used.Front()).(*walk)
		delete(s.idle, old.corner)
		old.conn.Close()
	}
}

// close ends all connections that are kept.
func (s *street) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.used.Front(); e != nil; e = e.Next() {
		e.Value.(*walk).conn.Close()
	}
	s.idle, s.used = map[corner]*list.Element{}, list.New()
}

// hostPort is a target's address with its port.
func hostPort(target *url.URL) string {
	if target.Port() != "" {
		return target.Host
	}
	return net.JoinHostPort(target.Hostname(), map[string]string{"http": "80", "https": "443"}[target.Scheme])
}
