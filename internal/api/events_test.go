package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

const eventsPath = "/v1/reservations/act.0.1.7/events"

// Events as they stand on the wire.
const (
	heldEvent      = "id: 1\ndata: " + `{"reservation":"act.0.1.7","order":"42","state":"held","order_state":"created","expires_at":"2030-01-01T12:01:00.123Z","total":{"amount":1990,"currency":"CNY"}}` + "\n\n"
	confirmedEvent = "id: 2\ndata: " + `{"reservation":"act.0.1.7","order":"42","state":"confirmed","order_state":"paid","expires_at":"2030-01-01T12:01:00.123Z","total":{"amount":1990,"currency":"CNY"}}` + "\n\n"
)

// follow opens a stream of the reservation and returns a reader of its lines.
func (b *bench) follow(t *testing.T, headers ...string) *http.Response {
	t.Helper()
	return b.followAt(t, eventsPath, headers...)
}

// followAt opens any stream.
func (b *bench) followAt(t *testing.T, path string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequest("GET", b.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" || response.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", response.StatusCode, response.Header)
	}
	return response
}

// expect reads exactly these bytes.
func expect(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(from, got)
	if err != nil || string(got) != want {
		t.Fatalf("got  %q, %v\nwant %q", got[:n], err, want)
	}
}

func expectEnd(t *testing.T, from io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(from); err != nil || len(rest) > 0 {
		t.Fatalf("after the end: %q, %v", rest, err)
	}
}

func (b *bench) step(t *testing.T) {
	t.Helper()
	if _, err := b.server.streams.Step(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// attached waits until so many streams stand in the wheel.
func (b *bench) attached(t *testing.T, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		h := b.server.streams
		h.mu.Lock()
		n := 0
		for _, slot := range h.wheel {
			n += len(slot)
		}
		h.mu.Unlock()
		if n == want && h.open.Count() == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams attached, want %d", n, want)
		}
		runtime.Gosched()
	}
}

func (b *bench) become(state stock.State) {
	b.set(func() { b.state = state })
	b.watchers.Publish(order.Change{Reservation: reservation, State: state, Order: "42", OrderState: orderStateOf(state)})
}

// A reservation that was lost while it was pending is shown as refused, although
// nothing else is known of it.
func TestLostReservation(t *testing.T) {
	b := newBench(t, nil)
	b.set(func() { b.state = stock.Refused })
	const lost = `{"reservation":"act.0.1.7","state":"refused","order_state":"refused"}`
	if a := b.do(t, "GET", "/v1/reservations/act.0.1.7", ""); a.status != 200 || a.body != lost {
		t.Errorf("%d %s", a.status, a.body)
	}
	stream := b.follow(t)
	expect(t, stream.Body, "id: "+strconv.Itoa(stock.Refused.Version())+"\ndata: "+lost+"\n\n")
	expectEnd(t, stream.Body)
}

// What is not known of an order or a reservation is left out, and is no reason to
// answer 500.
func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	b := newBench(t, nil)
	b.set(func() {
		b.termsGone = true
		b.orders = []order.Order{
			{ID: "42", User: "alice", State: order.Refused, Reason: order.ReasonLost},
			{ID: "43", User: "alice", Reservation: reservation, Activity: "act", State: order.Created, CreatedAt: noon, ExpiresAt: noon + 60_000},
		}
	})
	b.do(t, "GET", "/v1/orders/42", "").wants(t, 200, `{"id":"42","state":"refused","reason":"lost","lines":[]}`)
	b.do(t, "GET", "/v1/orders/43", "").wants(t, 200, `{"id":"43","reservation":"act.0.1.7","activity":"act","state":"created",`+
		`"created_at":"2030-01-01T12:00:00.123Z","expires_at":"2030-01-01T12:01:00.123Z","lines":[]}`)
	const shown = `{"reservation":"act.0.1.7","order":"42","state":"held","order_state":"created","expires_at":"2030-01-01T12:01:00.123Z"}`
	b.do(t, "GET", "/v1/reservations/act.0.1.7", "").wants(t, 200, shown)
	stream := b.follow(t)
	expect(t, stream.Body, "id: 1\ndata: "+shown+"\n\n")
}

func TestStreamTellsStateThenChangesThenEnds(t *testing.T) {
	b := newBench(t, nil)
	stream := b.follow(t)
	expect(t, stream.Body, heldEvent)
	b.attached(t, 1)
	b.step(t) // nothing to tell
	b.become(stock.Held)
	b.step(t) // the same again: still nothing
	b.become(stock.Confirmed)
	b.watchers.Publish(order.Change{Reservation: reservation, State: stock.Held, OrderState: order.Created}) // late: the later state counts
	b.step(t)
	expect(t, stream.Body, confirmedEvent)
	expectEnd(t, stream.Body)
	b.attached(t, 0)
	if n := b.server.Metrics().Streams; n != 0 {
		t.Errorf("%d streams open", n)
	}
	// A final state is told and ends the stream at once.
	last := b.follow(t)
	expect(t, last.Body, confirmedEvent)
	expectEnd(t, last.Body)
}

func TestStreamDoesNotRepeatWhatWasSeen(t *testing.T) {
	b := newBench(t, nil)
	again := b.follow(t, "Last-Event-ID: 1")
	b.attached(t, 1)
	b.become(stock.Confirmed)
	b.step(t)
	expect(t, again.Body, confirmedEvent)
	expectEnd(t, again.Body)
	over := b.follow(t, "Last-Event-ID: 2")
	expectEnd(t, over.Body)

	for _, bad := range []string{"x", "-1", "4", "1.0", "99999999999999999999"} {
		a := b.do(t, "GET", eventsPath, "", "Last-Event-ID: "+bad)
		a.is(t, 400, "invalid_request")
	}
}

// TestChangeWhileAStreamBegins: the report arrives after the state was read
// and before the stream stands in the wheel.
func TestChangeWhileAStreamBegins(t *testing.T) {
	b := &business{state: stock.Held}
	at := &clock{now: noon.Time()}
	s, watched := newServer(t, b, at, nil)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	st := &stream{conn: ours, user: "alice", shown: shownReservation{id: reservation}, sent: -1}
	go s.streams.begin(context.Background(), st)
	in := bufio.NewReader(theirs)
	expect(t, in, streamHead[:10]) // begin is now in the middle of its first write
	watched.Publish(order.Change{Reservation: reservation, State: stock.Confirmed, OrderState: order.Paid})
	expect(t, in, streamHead[10:]+heldEvent)
	told := make(chan error, 1)
	go func() {
		<-s.streams.wake
		_, err := s.streams.Step(context.Background())
		told <- err
	}()
	expect(t, in, confirmedEvent)
	if err := <-told; err != nil {
		t.Error(err)
	}
}

func TestKeepAliveAndDepartedClients(t *testing.T) {
	b := newBench(t, nil)
	stays := b.follow(t)
	leaves := b.follow(t)
	expect(t, stays.Body, heldEvent)
	expect(t, leaves.Body, heldEvent)
	b.attached(t, 2)
	b.clock.pass(beatSlots * time.Second / 2)
	b.step(t) // too early for anyone
	leaves.Body.Close()
	b.clock.pass(beatSlots*time.Second/2 + time.Second)
	departs := func() bool { // the FIN has to arrive first
		b.step(t)
		b.clock.pass(beatSlots * time.Second)
		return b.server.open.Count() == 1
	}
	beats := 1
	for deadline := time.Now().Add(10 * time.Second); !departs(); beats++ {
		if time.Now().After(deadline) {
			t.Fatal("a departed client was never noticed")
		}
	}
	expect(t, stays.Body, strings.Repeat(string(keepAlive), beats))
	b.attached(t, 1)
}

// TestAReaderThatDoesNotReadIsCut: its stream is closed after one write limit
// and the loop goes on.
func TestAReaderThatDoesNotReadIsCut(t *testing.T) {
	b := newBench(t, nil)
	ours, theirs := net.Pipe() // no buffer: a write waits for its reader
	defer theirs.Close()
	st := &stream{conn: ours, user: "alice", shown: shownReservation{id: reservation}, sent: -1}
	began := make(chan struct{})
	go func() { defer close(began); b.server.streams.begin(context.Background(), st) }()
	expect(t, theirs, streamHead+heldEvent)
	<-began
	good := b.follow(t)
	expect(t, good.Body, heldEvent)
	b.attached(t, 2)
	b.become(stock.Confirmed)
	b.step(t)
	expect(t, good.Body, confirmedEvent)
	b.attached(t, 0)
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Error("the stuck stream is still open")
	}
}

func TestStreamsAreBoundedAndEndWithTheServer(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Limits.Streams = 2 })
	one, two := b.follow(t), b.follow(t)
	expect(t, one.Body, heldEvent)
	expect(t, two.Body, heldEvent)
	b.attached(t, 2)
	b.do(t, "GET", eventsPath, "").is(t, 503, "overloaded")
	b.server.streams.close()
	for _, stream := range []*http.Response{one, two} {
		expect(t, stream.Body, string(lastWords))
		expectEnd(t, stream.Body)
	}
	if n := b.server.open.Count(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestStreamsAreForTheirOwners(t *testing.T) {
	b := newBench(t, nil)
	b.do(t, "GET", eventsPath, "", "Authorization: ").is(t, 401, "unauthenticated")
	b.do(t, "GET", eventsPath, "", "Authorization: Bearer "+mint(t, "mallory", b.clock.Now())).is(t, 404, "no_such_reservation")
	b.do(t, "GET", "/v1/reservations/act.0.1.8/events", "").is(t, 404, "no_such_reservation")
	if a := b.do(t, "HEAD", eventsPath, ""); a.status != 405 || a.header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
}

// TestManyStreams follows one reservation many times over while its state
// changes, with the loop running as it does in production.
func TestManyStreams(t *testing.T) {
	b := newBench(t, nil)
	ctx, stop := context.WithCancel(context.Background())
	looped := make(chan struct{})
	go func() {
		defer close(looped)
		for ctx.Err() == nil {
			select {
			case <-b.server.Tasks()[0].Wake:
				_, _ = b.server.Tasks()[0].Step(ctx)
			case <-ctx.Done():
			}
		}
	}()
	defer func() { stop(); <-looped }()
	const n = 50
	ended := make(chan string, n)
	for range n {
		stream := b.follow(t)
		go func() {
			all, _ := io.ReadAll(stream.Body)
			ended <- string(all)
		}()
	}
	b.become(stock.Confirmed)
	for range n {
		got := <-ended
		if got != heldEvent+confirmedEvent && got != confirmedEvent {
			t.Errorf("%q", got)
		}
	}
}
