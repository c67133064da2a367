// Package faultproxy is a TCP proxy inside of a test that makes the network
// between a client and a server slow, one-sided, mute or broken, and whole again,
// when the test says so.
//
// Invariants: what arrives, arrives in order and unchanged, as TCP has it; a
// fault only makes bytes late or ends a connection. What a Cut holds back comes
// through after Heal, as retransmissions do, even if whoever sent it has long
// given up: a server must bear that. Goroutines and memory are bounded by
// maxConns; Close leaves none behind.
//
// It refuses to drop or change bytes within a connection, which no network does
// to TCP, and it cannot keep a client from connecting: a connection made during
// a Cut is accepted and stays mute.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	maxConns  = 1024 // open at once; more wait to be accepted
	chunkSize = 16 << 10
	pieces    = 50 // a second, of what a Rate limits
	queued    = 16 // chunks on their way in one direction of one connection
	dialLimit = 5 * time.Second
)

// Direction is a way through the proxy.
type Direction uint8

const (
	Up   Direction = 1 << iota // from the client to the server
	Down                       // from the server to the client
	Both = Up | Down
)

// Fault is what happens to bytes in one direction. The zero Fault is none.
type Fault struct {
	Delay  time.Duration // how much later bytes arrive, 0 or more
	Jitter time.Duration // the delay of each chunk is off by up to this, either way
	Rate   int           // bytes per second of each connection; 0 for no limit
	Cut    bool          // nothing arrives, not even the end of a connection
}

// Arrival is what happens to a new connection.
type Arrival uint8

const (
	Forward  Arrival = iota // it is joined to one to the server
	HalfOpen                // it is accepted and nothing comes of it, ever
	Refuse                  // it is accepted and reset at once
)

// Proxy passes connections on to a server. Its methods may be called from
// several goroutines and take effect at once, for bytes already on their way too.
type Proxy struct {
	Addr string // 127.0.0.1:port, for the client

	listener net.Listener
	ctx      context.Context // over with Close
	stop     context.CancelFunc
	slots    chan struct{} // one is taken by each connection
	all      sync.WaitGroup

	mu      sync.Mutex
	target  string
	arrival Arrival
	faults  [2]Fault      // Up, Down
	changed chan struct{} // closed when any of the above changes
	conns   map[*pair]bool
	count   uint64 // of connections so far
}

// TB is the part of testing.TB that Start needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Start opens a proxy to a server at target ("host:port") for a test.
func Start(t TB, target string) *Proxy {
	t.Helper()
	p, err := Open(target)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(p.Close)
	return p
}

// Open listens on a free port of 127.0.0.1 and passes connections on to target
// ("host:port"), faultlessly at first, until Close.
func Open(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p := &Proxy{Addr: listener.Addr().String(), listener: listener, target: target,
		slots: make(chan struct{}, maxConns), changed: make(chan struct{}), conns: map[*pair]bool{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.all.Go(p.accept)
	return p, nil
}

// Close ends every connection and the proxy, and waits until nothing of it runs.
func (p *Proxy) Close() {
	p.stop()
	p.listener.Close()
	p.Reset()
	p.all.Wait()
}

// Set replaces the fault of a direction, or of both; the other keeps its own.
// An asymmetric cut is Set(Down, Fault{Cut: true}): the server works and nobody
// hears of it.
func (p *Proxy) Set(d Direction, f Fault) {
	p.change(func() {
		for i, way := range []Direction{Up, Down} {
			if d&way != 0 {
				p.faults[i] = f
			}
		}
	})
}

// Arrivals says what happens to connections from now on; those that are open
// keep what they have.
func (p *Proxy) Arrivals(a Arrival) { p.change(func() { p.arrival = a }) }

// Retarget has connections from now on go to another server, as a moved
// address would.
func (p *Proxy) Retarget(target string) { p.change(func() { p.target = target }) }

// Heal ends every fault: what was held back arrives, and new connections are
// forwarded. Those that began half-open stay mute.
func (p *Proxy) Heal() {
	p.change(func() { p.faults, p.arrival = [2]Fault{}, Forward })
}

// Reset ends all open connections by RST on both sides, in spite of any cut.
// What was on its way is lost. New connections are not affected.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.abort()
	}
}

// Conns counts the open connections, half-open ones too.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// fault is the present fault of a direction, and what is closed once it may be
// another.
func (p *Proxy) fault(way int) (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[way], p.changed
}

func (p *Proxy) accept() {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		client, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-p.slots
			select { // such as too many open files: it passes
			case <-time.After(time.Second / pieces):
			case <-p.ctx.Done():
			}
			continue
		}
		c := p.admit(client.(*net.TCPConn))
		p.all.Go(func() {
			defer func() { <-p.slots }()
			c.serve()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, c)
		})
	}
}

func (p *Proxy) admit(client *net.TCPConn) *pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	c := &pair{proxy: p, client: client, number: p.count, arrival: p.arrival, done: make(chan struct{}), left: make(chan struct{})}
	p.conns[c] = true
	if p.ctx.Err() != nil {
		c.abort() // Close has passed by already
	}
	return c
}

// reach dials the server for a client once nothing is cut: a network that is
// would not have let the connection through. Of a client that gave up before,
// nothing is ever heard.
func (p *Proxy) reach(c *pair) (*net.TCPConn, error) {
	if err := p.whole(c); err != nil {
		return nil, err
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.ctx, dialLimit)
	defer cancel()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	return server.(*net.TCPConn), nil
}

// whole waits until no direction is cut; an error if the client left meanwhile.
func (p *Proxy) whole(c *pair) error {
	for waited := false; ; waited = true {
		p.mu.Lock()
		cut, changed := p.faults[0].Cut || p.faults[1].Cut, p.changed
		p.mu.Unlock()
		if !cut && !waited {
			return nil // whatever the client does
		}
		select {
		case <-c.left:
			return net.ErrClosed
		case <-c.done:
			return net.ErrClosed
		default:
		}
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-c.left:
		case <-c.done:
		}
	}
}
