package faultproxy

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// pair is a client's connection and the one to the server it is joined to.
type pair struct {
	proxy   *Proxy
	client  *net.TCPConn
	number  uint64 // of the connection, from 1
	arrival Arrival

	mu     sync.Mutex
	server *net.TCPConn  // nil until reached
	done   chan struct{} // closed by abort
	left   chan struct{} // closed once the client has said all, or is gone
	over   bool          // it is
}

// chunk is what was read at once, or how reading ended.
type chunk struct {
	bytes []byte
	at    time.Time // when it was read
	end   error     // io.EOF if the sender has said all, else it is gone
}

// serve lives as long as the connection.
func (c *pair) serve() {
	defer c.abort() // no harm after an orderly end
	switch c.arrival {
	case Refuse:
		return
	case HalfOpen:
		io.Copy(io.Discard, c.client) //nolint:errcheck // until the client is gone, one way or another
		return
	}
	var ways sync.WaitGroup
	defer ways.Wait()
	defer c.abort() // ends the reader, where nothing else has
	up, down := make(chan chunk, queued), make(chan chunk, queued)
	ways.Go(func() {
		c.read(c.client, up)
		close(c.left)
	})
	server, err := c.proxy.reach(c)
	if err != nil || !c.join(server) {
		return
	}
	ways.Go(func() { c.read(server, down) })
	var writers sync.WaitGroup
	writers.Go(func() { c.write(server, up, 0) })
	writers.Go(func() { c.write(c.client, down, 1) })
	writers.Wait()
	c.part()
}

// part ends the connection in order, when both sides have said all that they
// had to say and heard it, unless it is over by now.
func (c *pair) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		close(c.done)
		c.client.Close()
		c.server.Close()
	}
}

// join answers false if the pair was aborted meanwhile.
func (c *pair) join(server *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		server.Close()
		return false
	}
	c.server = server
	return true
}

// abort ends the connection on both sides by RST.
func (c *pair) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	close(c.done)
	reset(c.client)
	if c.server != nil {
		reset(c.server)
	}
}

func reset(conn *net.TCPConn) {
	conn.SetLinger(0) //nolint:errcheck // it may be closed already
	conn.Close()
}

// read takes what a sender says as it comes, so that a delay holds up no more
// than what it delays, and ends with the sender or the pair.
func (c *pair) read(from *net.TCPConn, queue chan<- chunk) {
	for {
		buffer := make([]byte, chunkSize)
		n, err := from.Read(buffer)
		if n > 0 && !c.put(queue, chunk{bytes: buffer[:n], at: time.Now()}) {
			return
		}
		if err != nil {
			c.put(queue, chunk{at: time.Now(), end: err})
			return
		}
	}
}

// write lets it arrive. The dice are the connection's and the direction's own:
// a test that connects in the same order meets the same delays.
func (c *pair) write(to *net.TCPConn, queue <-chan chunk, way int) {
	w := writer{pair: c, way: way, to: to, dice: rand.New(rand.NewPCG(c.number, uint64(way)))}
	for w.next(queue) {
	}
}

// put answers false if the pair was aborted.
func (c *pair) put(queue chan<- chunk, k chunk) bool {
	select {
	case queue <- k:
		return true
	case <-c.done:
		return false
	}
}

// writer lets what was read arrive when the fault of its direction allows it.
type writer struct {
	*pair
	way  int
	to   *net.TCPConn
	dice *rand.Rand
	last time.Time // when the last byte arrived, or was due
	deaf bool      // the receiver is gone: nobody reads what is written
}

// next takes one chunk off the queue; false after the end.
func (w *writer) next(queue <-chan chunk) bool {
	var k chunk
	select {
	case k = <-queue:
	case <-w.done:
		return false
	}
	luck := 2*w.dice.Float64() - 1 // -1..1, of the jitter
	for first := true; first || len(k.bytes) > 0; first = false {
		size, alive := w.wait(k, luck)
		if !alive {
			return false
		}
		if k.end != nil {
			w.end(k.end)
			return false
		}
		// What a gone receiver does not read is dropped here; that it is gone
		// travels the other way, with that way's faults.
		if !w.deaf {
			_, err := w.to.Write(k.bytes[:size])
			w.deaf = err != nil
		}
		k.bytes = k.bytes[size:]
	}
	return true
}

// wait returns when the first size bytes of a chunk may arrive; false if the
// pair was aborted. It begins anew when the fault changes.
func (w *writer) wait(k chunk, luck float64) (size int, alive bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		f, changed := w.proxy.fault(w.way)
		size = len(k.bytes)
		due := k.at.Add(f.Delay + time.Duration(luck*float64(f.Jitter)))
		if due.Before(w.last) {
			due = w.last // in order
		}
		if f.Rate > 0 {
			size = min(size, max(f.Rate/pieces, 1))
			due = due.Add(time.Duration(size) * time.Second / time.Duration(f.Rate))
		}
		var arrival <-chan time.Time // never, if cut
		if !f.Cut {
			timer.Reset(time.Until(due))
			arrival = timer.C
		}
		select {
		case <-arrival:
			// Time lost otherwise, as in a cut, is not made up for by a burst.
			w.last = due
			if late := time.Now().Add(-time.Second / pieces); w.last.Before(late) {
				w.last = late
			}
			return size, true
		case <-changed:
		case <-w.done:
			return 0, false
		}
	}
}

// end passes on how the sender ended: its last word, or that it broke off.
func (w *writer) end(how error) {
	if errors.Is(how, io.EOF) {
		w.to.CloseWrite() //nolint:errcheck // it may be gone
		return
	}
	w.abort()
}
