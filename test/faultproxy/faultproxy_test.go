package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"sluice/test/servers"
)

func TestMain(m *testing.M) {
	// A client of a cluster looks again at its nodes after a while, closed or not.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"))
}

const (
	patience = 5 * time.Second        // for what must come
	silence  = 100 * time.Millisecond // of what must not
)

// echo is a server that sends back what it hears, line by line, each also noted
// in heard.
type echo struct {
	addr  string
	heard chan string
	lost  chan error // how each connection ended; nil for in order
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	e := &echo{addr: listener.Addr().String(), heard: make(chan string, 100_000), lost: make(chan error, 100)}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if errors.Is(err, io.EOF) {
						err = nil
						e.lost <- err
						return
					}
					if err != nil {
						e.lost <- err
						return
					}
					e.heard <- strings.TrimSpace(line)
					if _, err := io.WriteString(conn, line); err != nil {
						e.lost <- err
						return
					}
				}
			}()
		}
	}()
	return e
}

func (e *echo) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-e.heard:
		if got != want {
			t.Errorf("the server heard %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Errorf("the server did not hear %q", want)
	}
}

func (e *echo) hearsNothing(t *testing.T) {
	t.Helper()
	select {
	case got := <-e.heard:
		t.Errorf("the server heard %q", got)
	case err := <-e.lost:
		t.Errorf("the server lost a connection: %v", err)
	case <-time.After(silence):
	}
}

type client struct {
	*net.TCPConn
	*bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Addr, patience)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &client{TCPConn: conn.(*net.TCPConn), Reader: bufio.NewReader(conn)}
}

func (c *client) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func (c *client) say(t *testing.T, line string) {
	t.Helper()
	_, err := fmt.Fprintln(c.TCPConn, line)
	must(t, err)
}

func (c *client) line(limit time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	text, err := c.ReadString('\n')
	return strings.TrimSpace(text), err
}

func (c *client) hears(t *testing.T, want string) {
	t.Helper()
	if got, err := c.line(patience); err != nil || got != want {
		t.Errorf("the client heard %q, %v, want %q", got, err, want)
	}
}

func (c *client) hearsNothing(t *testing.T) {
	t.Helper()
	if got, err := c.line(silence); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client heard %q, %v", got, err)
	}
}

func (c *client) isReset(t *testing.T) {
	t.Helper()
	if got, err := c.line(patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client heard %q, %v, want a reset", got, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWithoutFaultsNothingChanges(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	c := dial(t, p)
	sent := bytes.Repeat([]byte("all that was said comes back\n"), 50_000)
	go func() {
		c.Write(sent)  //nolint:errcheck // what is missing is seen below
		c.CloseWrite() //nolint:errcheck // then the answer does not end
	}()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	got, err := io.ReadAll(c.Reader)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	if err := <-e.lost; err != nil {
		t.Errorf("the server lost the connection: %v", err)
	}
}

func TestDelay(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	c := dial(t, p)
	f := func(fault Fault, atLeast time.Duration) {
		t.Helper()
		p.Set(Both, fault)
		begin := time.Now()
		c.say(t, "there and back")
		c.hears(t, "there and back")
		if took := time.Since(begin); took < atLeast {
			t.Errorf("%+v took %v, want %v at least", fault, took, atLeast)
		}
	}
	f(Fault{Delay: 30 * time.Millisecond}, 60*time.Millisecond)
	f(Fault{Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond}, 40*time.Millisecond)
	f(Fault{}, 0)

	// In order, whatever the dice say; and delays pass side by side.
	p.Set(Both, Fault{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
	begin := time.Now()
	for i := range 200 {
		c.say(t, fmt.Sprint(i))
	}
	for i := range 200 {
		c.hears(t, fmt.Sprint(i))
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("200 lines took %v", took)
	}

	p.Set(Up, Fault{Delay: time.Hour})
	c.say(t, "late")
	c.hearsNothing(t)
	p.Heal()
	c.hears(t, "late")
}

func TestRate(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	c := dial(t, p)
	f := func(fault Fault, bytes int, atLeast, atMost time.Duration) {
		t.Helper()
		p.Set(Both, Fault{})
		p.Set(Down, fault)
		line, begin := strings.Repeat("x", bytes-1), time.Now()
		c.say(t, line)
		c.hears(t, line)
		if took := time.Since(begin); took < atLeast || took > atMost {
			t.Errorf("%d bytes at %+v took %v, want %v to %v", bytes, fault, took, atLeast, atMost)
		}
	}
	f(Fault{Rate: 100_000}, 30_000, 290*time.Millisecond, patience)
	f(Fault{Rate: 100}, 20, 190*time.Millisecond, patience)
	f(Fault{Rate: 1 << 30}, 30_000, 0, patience)

	// What a cut held back comes at the rate too.
	p.Set(Both, Fault{Cut: true})
	line := strings.Repeat("x", 29_999)
	c.say(t, line)
	c.hearsNothing(t)
	p.Set(Up, Fault{})
	begin := time.Now()
	p.Set(Down, Fault{Rate: 100_000})
	c.hears(t, line)
	if took := time.Since(begin); took < 250*time.Millisecond {
		t.Errorf("after a cut it took %v", took)
	}
}

func TestCut(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	c := dial(t, p)
	f := func(way Direction, serverHears bool) {
		t.Helper()
		p.Set(way, Fault{Cut: true})
		c.say(t, "hello")
		if serverHears {
			e.hears(t, "hello")
		} else {
			e.hearsNothing(t)
		}
		c.hearsNothing(t)
		p.Heal()
		if !serverHears {
			e.hears(t, "hello")
		}
		c.hears(t, "hello")
	}
	f(Up, false)
	f(Down, true)
	f(Both, false)

	// Not even the end of a connection gets through, and what was said before it
	// does in the end.
	p.Set(Up, Fault{Cut: true})
	c.say(t, "last words")
	c.TCPConn.Close()
	e.hearsNothing(t)
	p.Heal()
	e.hears(t, "last words")
	select {
	case <-e.lost:
	case <-time.After(patience):
		t.Error("the server still has the connection")
	}
}

func TestConnectionsDuringACut(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	p.Set(Down, Fault{Cut: true})
	left, stays := dial(t, p), dial(t, p)
	left.say(t, "never")
	left.TCPConn.Close()
	stays.say(t, "at last")
	e.hearsNothing(t)
	settles(t, p, 1) // the proxy has seen that one is gone
	p.Heal()
	stays.hears(t, "at last")
	e.hears(t, "at last")
	e.hearsNothing(t)
}

func TestReset(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	c := dial(t, p)
	c.say(t, "hello")
	c.hears(t, "hello")
	p.Set(Both, Fault{Cut: true})
	p.Reset() // no cut keeps it
	c.isReset(t)
	if err := <-e.lost; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server lost the connection by %v", err)
	}
	p.Heal()
	again := dial(t, p)
	again.say(t, "again")
	again.hears(t, "again")

	// One side's reset is the other's.
	must(t, again.SetLinger(0))
	again.TCPConn.Close()
	if err := <-e.lost; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server lost the connection by %v", err)
	}
	settles(t, p, 0)
}

func TestArrivals(t *testing.T) {
	e := startEcho(t)
	p := Start(t, e.addr)
	before := dial(t, p)
	before.say(t, "before")
	before.hears(t, "before")
	e.hears(t, "before")

	p.Arrivals(HalfOpen)
	mute := dial(t, p)
	mute.say(t, "hello?")
	mute.hearsNothing(t)
	p.Arrivals(Refuse)
	refused(t, p)
	before.say(t, "still here")
	before.hears(t, "still here")
	e.hears(t, "still here")

	p.Heal()
	after := dial(t, p)
	after.say(t, "after")
	after.hears(t, "after")
	e.hears(t, "after")
	mute.hearsNothing(t)
	e.hearsNothing(t)
	for _, c := range []*client{before, mute, after} {
		c.TCPConn.Close()
	}
	settles(t, p, 0)
}

func TestRetarget(t *testing.T) {
	first, second := startEcho(t), startEcho(t)
	p := Start(t, first.addr)
	old := dial(t, p)
	old.say(t, "one")
	first.hears(t, "one")
	p.Retarget(second.addr)
	dial(t, p).say(t, "two")
	second.hears(t, "two")
	old.say(t, "three")
	first.hears(t, "three")
	p.Retarget(unused(t))
	refused(t, p) // as nobody listens there
}

// refused: the reset may come before or after the client thinks it is connected.
func refused(t *testing.T, p *Proxy) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Addr, patience)
	if err == nil {
		defer conn.Close()
		must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection ended by %v, want a reset", err)
	}
}

// unused is an address where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// settles waits until the proxy has so many connections.
func settles(t *testing.T, p *Proxy, want int) {
	t.Helper()
	eventually(t, func() string {
		if got := p.Conns(); got != want {
			return fmt.Sprintf("%d connections, want %d", got, want)
		}
		return ""
	})
}

// eventually fails with what is wrong, unless nothing is before long.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for range patience / time.Millisecond {
		if wrong() == "" {
			return
		}
		<-ticker.C
	}
	t.Error(wrong())
}

// TestClose in the midst of everything: TestMain sees that nothing is left.
func TestClose(t *testing.T) {
	e := startEcho(t)
	f := func(arrival Arrival, fault Fault) {
		t.Helper()
		p, err := Open(e.addr)
		must(t, err)
		p.Arrivals(arrival)
		early := dial(t, p)
		p.Set(Both, fault)
		for _, c := range []*client{early, dial(t, p), dial(t, p)} {
			c.say(t, strings.Repeat("x", 1<<18)) // more than is sent at once
		}
		p.Close()
		p.Close()
		if p.Conns() != 0 {
			t.Errorf("%d connections after Close", p.Conns())
		}
		if conn, err := net.DialTimeout("tcp", p.Addr, patience); err == nil {
			conn.Close()
			t.Error("a closed proxy accepts")
		}
	}
	f(Forward, Fault{})
	f(Forward, Fault{Cut: true})
	f(Forward, Fault{Delay: time.Hour})
	f(Forward, Fault{Rate: 1})
	f(HalfOpen, Fault{})
	f(HalfOpen, Fault{Cut: true})
}

// TestRedisBehindIt: an answer that does not come says nothing about the
// command, which is what the engine's keys are for.
func TestRedisBehindIt(t *testing.T) {
	s := servers.Redis(t)
	p := Start(t, s.Addr)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{p.Addr}, DisableCache: true,
		DisableRetry: true, ConnWriteTimeout: patience,
		PipelineMultiplex: -1}) // one connection: another made in the cut would carry nothing
	must(t, err)
	defer c.Close()
	take := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return c.Do(ctx, c.B().Incr().Key("taken").Build()).Error()
	}
	taken := func(want string) {
		t.Helper()
		eventually(t, func() string {
			if got, err := servers.Do(s, "GET", "taken"); err != nil || got != want {
				return fmt.Sprintf("taken is %v, %v, want %s", got, err, want)
			}
			return ""
		})
	}
	must(t, take(patience))
	taken("1")
	p.Set(Down, Fault{Cut: true})
	if err := take(silence); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("across a cut: %v", err)
	}
	taken("2") // it was done, and nobody was told
	p.Reset()
	p.Heal()
	eventually(t, func() string { // once the client has noticed
		if err := take(patience); err != nil {
			return err.Error()
		}
		return ""
	})
	taken("3")
}

// TestClusterBehindIt: a client that is told of the nodes by the cluster itself
// reaches them through the proxies, and one primary can be cut off from it.
func TestClusterBehindIt(t *testing.T) {
	c := servers.Cluster(t)
	var proxies []*Proxy
	var addrs []string
	at := map[*servers.Server]string{}
	for _, n := range c.Nodes {
		p := Start(t, n.Addr)
		proxies, addrs, at[n] = append(proxies, p), append(addrs, p.Addr), p.Addr
	}
	must(t, c.Announce(at))
	must(t, c.Await())
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, DisableCache: true, ConnWriteTimeout: patience})
	must(t, err)
	defer client.Close()
	set := func(key string, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return client.Do(ctx, client.B().Set().Key(key).Value("1").Build()).Error()
	}
	keyOf := make([]string, 3) // of each primary
	for i := 0; keyOf[0] == "" || keyOf[1] == "" || keyOf[2] == ""; i++ {
		key := fmt.Sprint("units:", i)
		must(t, set(key, patience))
		slot, err := c.Slot(key)
		must(t, err)
		owner, _, err := c.Owner(slot)
		must(t, err)
		for i, n := range c.Nodes[:3] {
			if n == owner {
				keyOf[i] = key
			}
		}
	}
	proxies[1].Set(Both, Fault{Cut: true})
	must(t, set(keyOf[0], patience))
	must(t, set(keyOf[2], patience))
	if err := set(keyOf[1], silence); err == nil {
		t.Error("a command went across a cut")
	}
	proxies[1].Heal()
	must(t, set(keyOf[1], patience))
}
