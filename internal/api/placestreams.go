package api

import (
	"context"
	"hash/maphash"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
)

// A stream of places is looked at every placeEvery: a place moves all the time, so
// there is nothing to wake a stream by. Each tick serves one slot of streams.
const (
	placeTick  = 100 * time.Millisecond
	placeSlots = 30
	placeEvery = placeSlots * placeTick
	// quietBeats are looks without news after which a keep-alive comment is due.
	quietBeats = 15 * time.Second / placeEvery
)

// placeStream is one open stream of a place.
type placeStream struct {
	conn     net.Conn
	activity string
	user     string
	told     uint64 // hash of what was written last
	quiet    int    // looks since then
}

// placeStreams serves all streams of places from one loop, as streams do.
type placeStreams struct {
	// look answers the place as it is written, and whether there is more to come.
	look func(ctx context.Context, activity, user string) (doc []byte, more bool, err error)
	now  func() time.Time
	open *gate.InFlight // all streams of the server
	seed maphash.Seed

	writing sync.Mutex // held by Step and close
	tick    int64      // the last one served

	mu     sync.Mutex
	slots  [placeSlots][]*placeStream
	next   int // the slot of the next stream
	closed bool
}

func newPlaceStreams(look func(ctx context.Context, activity, user string) ([]byte, bool, error), now func() time.Time, open *gate.InFlight) *placeStreams {
	return &placeStreams{look: look, now: now, open: open, seed: maphash.MakeSeed(), tick: now().UnixMilli() / placeTick.Milliseconds()}
}

// begin starts a stream with the place as it is.
func (h *placeStreams) begin(ctx context.Context, st *placeStream) {
	if h.open.Enter() != nil { // lost the race for the last place; the client connects again
		_ = st.conn.Close()
		return
	}
	if !write(st.conn, []byte(streamHead)) || !h.tell(ctx, st) || !h.attach(st) {
		h.end(st)
	}
}

// attach gives streams slots in turn, whenever they came.
func (h *placeStreams) attach(st *placeStream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.slots[h.next] = append(h.slots[h.next], st)
	h.next = (h.next + 1) % placeSlots
	return true
}

func (h *placeStreams) end(st *placeStream) {
	_ = st.conn.Close()
	h.open.Leave()
}

// tell writes the place if it is news; false means that the stream is over.
func (h *placeStreams) tell(ctx context.Context, st *placeStream) bool {
	doc, more, err := h.look(ctx, st.activity, st.user)
	if err != nil {
		return false // the client asks again and is told why
	}
	if is := maphash.Bytes(h.seed, doc); is != st.told {
		st.told, st.quiet = is, 0
		b := append(append(append(make([]byte, 0, len(doc)+32), "event: place\ndata: "...), doc...), "\n\n"...)
		return write(st.conn, b) && more
	}
	if st.quiet++; st.quiet >= int(quietBeats) {
		st.quiet = 0
		return alive(st.conn)
	}
	return true
}

// Step serves the slots that have become due, each at most once.
func (h *placeStreams) Step(ctx context.Context) (worked bool, err error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	tick := h.now().UnixMilli() / placeTick.Milliseconds()
	from := max(h.tick+1, tick-placeSlots+1)
	h.tick = tick
	for ; from <= tick && ctx.Err() == nil; from++ {
		slot := int(uint64(from) % placeSlots)
		h.mu.Lock()
		due := h.slots[slot]
		h.slots[slot] = nil // what begins meanwhile is appended to a new one
		h.mu.Unlock()
		stay := due[:0]
		for _, st := range due {
			if h.tell(ctx, st) {
				stay = append(stay, st)
			} else {
				h.end(st)
			}
		}
		clear(due[len(stay):])
		worked = worked || len(due) > 0
		h.mu.Lock()
		h.slots[slot] = append(stay, h.slots[slot]...)
		h.mu.Unlock()
	}
	return worked, nil
}

// close says good-bye on all streams and lets no more begin.
func (h *placeStreams) close() {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	h.closed = true
	all := h.slots
	h.slots = [placeSlots][]*placeStream{}
	h.mu.Unlock()
	for _, slot := range all {
		for _, st := range slot {
			write(st.conn, lastWords)
			h.end(st)
		}
	}
}

// placeEvents serves GET /v1/activities/{id}/queue/events.
func (s *Server) placeEvents(ctx *fasthttp.RequestCtx, activity string) {
	if s.refusesHead(ctx) {
		return
	}
	user, _, err := s.ownPlace(ctx, activity)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	st := &placeStream{activity: strings.Clone(activity), user: user}
	s.handOver(ctx, func(c net.Conn) {
		st.conn = c
		s.places.begin(s.life, st)
	})
}
