package api

import (
	"net"
	"strconv"

	"github.com/valyala/fasthttp"

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
	if s.refusesHead(ctx) {
		return
	}
	user, r, err := s.ownReservation(ctx, param)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	seen, err := readLastEventID(ctx.Request.Header.PeekBytes(lastEventID))
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	st := &stream{user: user, shown: r, sent: seen}
	s.handOver(ctx, func(c net.Conn) {
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

// appendEvent writes the state of a reservation as one event. Its id is the
// state's version, the same on every gateway.
func appendEvent(dst []byte, r *shownReservation) []byte {
	dst = strconv.AppendInt(append(dst, "id: "...), int64(r.state.Version()), 10)
	dst = r.append(append(dst, "\ndata: "...))
	return append(dst, "\n\n"...)
}
