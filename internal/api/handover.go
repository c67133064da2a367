package api

import (
	"net"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
)

// This file is what all event streams share: how a connection becomes one, and how
// it is written to.

// writeLimit is how long one write may take. A few hundred bytes fit into the
// kernel's buffer at once, unless the reader has stopped reading.
const writeLimit = 50 * time.Millisecond

// streamHead precedes the events. The stream ends with its connection.
const streamHead = "HTTP/1.1 200 OK\r\n" +
	"Content-Type: text/event-stream\r\n" +
	"Cache-Control: no-store\r\n" +
	"X-Accel-Buffering: no\r\n" +
	"Connection: close\r\n\r\n"

var (
	keepAlive = []byte(":\n\n")
	lastWords = []byte(": closing, connect again\n\n")
)

// refusesHead answers a HEAD request: a stream has no length to tell.
func (s *Server) refusesHead(ctx *fasthttp.RequestCtx) bool {
	if !ctx.IsHead() {
		return false
	}
	ctx.Response.Header.SetCanonical(allow, []byte("GET"))
	s.answer(ctx, methodNotAllowed)
	return true
}

// handOver ends a request by giving its connection to a stream, if there may be
// another one. begin is called when the handler has returned.
func (s *Server) handOver(ctx *fasthttp.RequestCtx, begin func(c net.Conn)) {
	if s.open.Full() || s.draining.Load() {
		s.refuse(ctx, gate.ErrOverloaded, 0)
		return
	}
	ctx.HijackSetNoResponse(true) // the head is written by hand: it must not promise a length
	ctx.Hijack(func(c net.Conn) {
		// The wrapper holds on to the 16 kB that the request was read with.
		if hijacked, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
			c = hijacked.UnsafeConn()
		}
		begin(c)
	})
}

// write writes to a stream at once; false means that it is over.
func write(c net.Conn, b []byte) bool {
	if c.SetWriteDeadline(time.Now().Add(writeLimit)) != nil {
		return false
	}
	_, err := c.Write(b)
	return err == nil
}

// alive writes a keep-alive comment; false means that the stream is over.
func alive(c net.Conn) bool { return !departed(c) && write(c, keepAlive) }

// departed looks whether the client has closed its side, without waiting. What
// a client says on a stream is thrown away.
func departed(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false // not a plain socket: a failing write will tell
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Read(func(fd uintptr) bool {
		var b [64]byte
		n, err := syscall.Read(int(fd), b[:])
		closed = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return closed || err != nil
}
