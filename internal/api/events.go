package api

import (
	"net"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// watchers tell of changes: *order.Watchers. notify must not block.
type watchers interface {
	Watch(id stock.ID, notify func(order.Change)) (stop func(), err error)
}

var lastEventID = []byte("Last-Event-ID")

// events serves GET /v1/reservations/{id}/events: the state now and at each
// change, as server-sent events, until a final state. A stream outlives its
// handler: the connection is handed over, and no goroutine waits with it.
func (s *Server) events(ctx *fasthttp.RequestCtx, param string) {
	if ctx.IsHead() { // a stream has no length to tell
		ctx.Response.Header.SetCanonical(allow, []byte("GET"))
		s.answer(ctx, methodNotAllowed)
		return
	}
	user, r, err := s.ownReservation(ctx, param)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	seen, err := readLastEventID(ctx.Request.Header.PeekBytes(lastEventID))
	if err == nil && (s.streams.full() || s.draining.Load()) {
		err = gate.ErrOverloaded
	}
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	st := &stream{user: user, shown: r, sent: seen}
	ctx.HijackSetNoResponse(true) // the head is written by hand: it must not promise a length
	ctx.Hijack(func(c net.Conn) {
		// The wrapper holds on to the 16 kB that the request was read with.
		if hijacked, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
			c = hijacked.UnsafeConn()
		}
		st.conn = c
		s.streams.begin(s.life, st)
	})
}

// readLastEventID reads the version of the last state that the client has
// seen; -1 for none.
func readLastEventID(header []byte) (int, error) {
	if len(header) == 0 {
		return -1, nil
	}
	n, err := strconv.Atoi(string(header))
	if err != nil || n < 0 || n > maxVersion {
		return 0, &fieldError{"Last-Event-ID", "must be the id of an event of this stream"}
	}
	return n, nil
}

// maxVersion is the version of the last state a reservation can reach.
var maxVersion = stock.Returned.Version()

// streamHead precedes the events. The stream ends with its connection.
const streamHead = "HTTP/1.1 200 OK\r\n" +
	"Content-Type: text/event-stream\r\n" +
	"Cache-Control: no-store\r\n" +
	"X-Accel-Buffering: no\r\n" +
	"Connection: close\r\n\r\n"

// appendEvent writes the state of a reservation as one event. Its id is the
// state's version, the same on every gateway.
func appendEvent(dst []byte, r *shownReservation) []byte {
	dst = strconv.AppendInt(append(dst, "id: "...), int64(r.state.Version()), 10)
	dst = r.append(append(dst, "\ndata: "...))
	return append(dst, "\n\n"...)
}
