package api

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"sluice/internal/gate"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// beatSlots is how many seconds lie between two keep-alive comments of a
// stream; each second serves one slot of streams.
const beatSlots = 15

// stream is one open event stream: some 300 bytes and a socket. Until it is
// attached it belongs to the goroutine that begins it, afterwards to the loop.
type stream struct {
	conn  net.Conn
	user  stock.UserID
	shown shownReservation // as last written, or as it was when the stream began
	sent  int              // version of the last state the client has, -1 for none
	stop  func()           // ends the watch

	// Guarded by streams.mu.
	next     order.Change // the newest change reported
	queued   bool         // in the queue
	attached bool         // in the wheel, at:
	slot     int
	position int
}

// reservations reads a reservation as it is now.
type reservations interface {
	Reservation(ctx context.Context, user stock.UserID, id stock.ID) (order.Reservation, error)
}

// streams serves all event streams from one loop: a stream waits as an entry
// in a wheel, not as a goroutine. Reports of changes only queue it.
type streams struct {
	reservations reservations
	watchers     watchers
	now          func() time.Time
	open         *gate.InFlight // all streams of the server
	wake         chan struct{}

	writing sync.Mutex // held by Step and close: one writer at a time
	beat    int64      // the second whose slot had its keep-alive last
	buffer  []byte
	due     []*stream // reused

	mu     sync.Mutex
	wheel  [beatSlots][]*stream
	queue  []*stream // attached and changed, each once
	closed bool
}

func newStreams(r reservations, w watchers, now func() time.Time, open *gate.InFlight) *streams {
	return &streams{reservations: r, watchers: w, now: now, open: open, wake: make(chan struct{}, 1), beat: now().Unix()}
}

// begin starts a stream: head, the state now unless the client has it, and
// from then on whatever Step writes. The watch begins before the state is
// read, so no change falls between them.
func (h *streams) begin(ctx context.Context, st *stream) {
	if h.open.Enter() != nil { // lost the race for the last place; the client connects again
		_ = st.conn.Close()
		return
	}
	var err error
	if st.stop, err = h.watchers.Watch(st.shown.id, func(c order.Change) { h.changed(st, c) }); err != nil {
		h.end(st)
		return
	}
	if !h.greet(ctx, st) || !h.attach(st) {
		h.end(st)
	}
}

// greet writes the beginning of a stream; false means that this is all of it.
func (h *streams) greet(ctx context.Context, st *stream) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := h.reservations.Reservation(ctx, st.user, st.shown.id)
	if err != nil {
		return false
	}
	if st.shown, err = showReservation(&r); err != nil {
		return false
	}
	b := append(make([]byte, 0, 512), streamHead...)
	if version := st.shown.state.Version(); version > st.sent {
		st.sent = version
		b = appendEvent(b, &st.shown)
	}
	return write(st.conn, b) && !st.shown.state.Ended()
}

// changed is called by whoever changed the reservation: it only takes note.
func (h *streams) changed(st *stream, c order.Change) {
	h.mu.Lock()
	if st.next.State == 0 || c.State.Version() > st.next.State.Version() {
		st.next = c
		h.enqueue(st)
	}
	h.mu.Unlock()
}

// enqueue hands a stream to the loop; mu is held.
func (h *streams) enqueue(st *stream) {
	if !st.attached || st.queued {
		return
	}
	st.queued = true
	h.queue = append(h.queue, st)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// attach puts a stream into the wheel; false means that the streams are closed.
func (h *streams) attach(st *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	st.slot = slotOf(h.now().Unix())
	st.position = len(h.wheel[st.slot])
	h.wheel[st.slot] = append(h.wheel[st.slot], st)
	st.attached = true
	if st.next.State != 0 { // changed while it began
		h.enqueue(st)
	}
	return true
}

func slotOf(second int64) int { return int(uint64(second) % beatSlots) }

// drop takes a stream out of the wheel and ends it.
func (h *streams) drop(st *stream) {
	h.mu.Lock()
	attached := st.attached
	if attached {
		st.attached = false
		slot := h.wheel[st.slot]
		last := len(slot) - 1
		slot[st.position], slot[last].position = slot[last], st.position
		slot[last] = nil
		h.wheel[st.slot] = slot[:last]
	}
	h.mu.Unlock()
	if attached {
		h.end(st)
	}
}

// end closes a stream that is not in the wheel (any more).
func (h *streams) end(st *stream) {
	if st.stop != nil {
		st.stop()
	}
	_ = st.conn.Close()
	h.open.Leave()
}

// Step writes what has changed and the keep-alives that are due. A stream that
// has reached a final state, cannot take a write at once, or whose client has
// gone, is closed.
func (h *streams) Step(ctx context.Context) (worked bool, err error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	changed := h.takeQueue()
	for _, st := range changed {
		if !h.tell(st) {
			h.drop(st)
		}
	}
	beaten := h.keepAlive(ctx)
	clear(h.due[:cap(h.due)]) // reused, and must not keep closed streams alive
	return len(changed) > 0 || beaten, nil
}

// takeQueue empties the queue and moves the changes to where the loop may use
// them without the lock.
func (h *streams) takeQueue() []*stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.due = append(h.due[:0], h.queue...)
	clear(h.queue)
	h.queue = h.queue[:0]
	for _, st := range h.due {
		st.queued = false
		if st.next.State.Version() >= st.shown.state.Version() {
			st.shown.state, st.shown.orderState = st.next.State, st.next.OrderState
		}
	}
	return h.due
}

// tell writes the state if the client does not have it; false means that the
// stream is over.
func (h *streams) tell(st *stream) bool {
	if version := st.shown.state.Version(); version > st.sent {
		st.sent = version
		h.buffer = appendEvent(h.buffer[:0], &st.shown)
		if !write(st.conn, h.buffer) {
			return false
		}
	}
	return !st.shown.state.Ended()
}

// keepAlive serves the slots that have become due, each at most once.
func (h *streams) keepAlive(ctx context.Context) (worked bool) {
	second := h.now().Unix()
	from := max(h.beat+1, second-beatSlots+1)
	h.beat = second
	for ; from <= second && ctx.Err() == nil; from++ {
		h.mu.Lock()
		h.due = append(h.due[:0], h.wheel[slotOf(from)]...)
		h.mu.Unlock()
		for _, st := range h.due {
			worked = true
			if !alive(st.conn) {
				h.drop(st)
			}
		}
	}
	return worked
}

// close says good-bye on all streams and lets no more begin.
func (h *streams) close() {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	h.closed = true
	all := slices.Concat(h.wheel[:]...)
	h.mu.Unlock()
	for _, st := range all {
		write(st.conn, lastWords)
		h.drop(st)
	}
}
