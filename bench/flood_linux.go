package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// flood is an open-loop generator: one thread, one epoll, many connections with
// one request at a time on each. wrk cannot do this: it sends when it has been
// answered. A goroutine for each connection could, at three times the CPU time.
type flood struct {
	addr        string
	requests    [][]byte // in turn
	connections int
	noQueue     bool // who finds no connection free is turned away at once, else waits in line

	epoll int
	wires []*wire // by descriptor
	idle  []*wire
	start time.Time
	sent  int
	open  int // requests without an answer
	seen  counted
}

// wire is one connection.
type wire struct {
	file *os.File // keeps the descriptor open
	fd   int
	in   []byte // of the answer so far
	due  time.Duration
	busy bool
}

const replyRoom = 32 << 10

// run lets people come for the time of the arrivals, and counts those due after
// the lead.
func (f *flood) run(ctx context.Context, a *arrivals, lead time.Duration) (counted, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer f.close()
	f.seen = counted{from: lead}
	var err error
	if f.epoll, err = syscall.EpollCreate1(0); err != nil {
		return f.seen, err
	}
	for range f.connections {
		w := &wire{in: make([]byte, 0, replyRoom)}
		if err := f.dial(w); err != nil {
			return f.seen, err
		}
		f.idle = append(f.idle, w)
	}
	f.start = time.Now()
	var queue waiting
	for ctx.Err() == nil {
		now := time.Since(f.start)
		for a.perSecond > 0 || queue.len() < len(f.idle) {
			due, ok := a.take(now)
			if !ok {
				break
			}
			queue.push(due)
		}
		for !queue.empty() && now-queue.first() > inTime { // has gone away unanswered
			f.seen.note(queue.pop(), now, 0)
		}
		for !queue.empty() && len(f.idle) > 0 {
			if err := f.send(queue.pop()); err != nil {
				return f.seen, err
			}
		}
		for f.noQueue && !queue.empty() {
			f.seen.turnAway(queue.pop())
		}
		if a.over(now) && queue.empty() && (f.open == 0 || now > a.end+inTime) {
			break
		}
		if err := f.receive(f.pause(a, now, queue.empty())); err != nil {
			return f.seen, err
		}
	}
	for _, w := range f.wires {
		if w != nil && w.busy {
			f.seen.note(w.due, 0, 0)
		}
	}
	return f.seen, ctx.Err()
}

// pause is how long nothing but an answer can happen.
func (f *flood) pause(a *arrivals, now time.Duration, nobodyWaits bool) time.Duration {
	const most = 10 * time.Millisecond
	switch {
	case !nobodyWaits && len(f.idle) > 0, a.perSecond == 0 && len(f.idle) > 0 && !a.over(now):
		return 0
	case a.perSecond > 0 && !a.over(now):
		return min(max(a.next-now, 0), most)
	}
	return most
}

func (f *flood) send(due time.Duration) error {
	w := f.idle[len(f.idle)-1]
	f.idle = f.idle[:len(f.idle)-1]
	w.due, w.busy, w.in = due, true, w.in[:0]
	f.open++
	text := f.requests[f.sent%len(f.requests)]
	f.sent++
	if n, err := syscall.Write(w.fd, text); err != nil || n < len(text) {
		return f.lost(w)
	}
	return nil
}

// receive waits for answers, so long at most, and reads them.
func (f *flood) receive(wait time.Duration) error {
	if wait > 0 { // an epoll's own time-out knows only whole milliseconds
		ready := struct {
			fd              int32
			events, revents int16
		}{int32(f.epoll), 1, 0} // POLLIN
		spec := syscall.NsecToTimespec(wait.Nanoseconds())
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&ready)), 1, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
		if errno != 0 && errno != syscall.EINTR {
			return errno
		}
	}
	var events [256]syscall.EpollEvent
	n, err := syscall.EpollWait(f.epoll, events[:], 0)
	if err == syscall.EINTR {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range events[:n] {
		if err := f.read(f.wires[e.Fd]); err != nil {
			return err
		}
	}
	return nil
}

func (f *flood) read(w *wire) error {
	n, err := syscall.Read(w.fd, w.in[len(w.in):cap(w.in)])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return nil
	case err != nil || n == 0:
		return f.lost(w)
	}
	w.in = w.in[:len(w.in)+n]
	status, length := parseReply(w.in)
	switch {
	case length == 0 && len(w.in) < cap(w.in):
		return nil // there is more to come
	case length != len(w.in) || !w.busy:
		return fmt.Errorf("an answer that cannot be understood: %.200q", w.in)
	}
	f.done(w, status)
	return nil
}

func (f *flood) done(w *wire, status int) {
	f.seen.note(w.due, time.Since(f.start), status)
	w.busy = false
	f.open--
	f.idle = append(f.idle, w)
}

// lost is a connection that the server has ended: a new one takes its place.
func (f *flood) lost(w *wire) error {
	f.wires[w.fd] = nil
	w.file.Close()
	if err := f.dial(w); err != nil {
		return err
	}
	if w.busy {
		f.done(w, 0)
	}
	return nil
}

func (f *flood) dial(w *wire) error {
	conn, err := net.DialTimeout("tcp", f.addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Go's own poller knows nothing of the copy.
	if w.file, err = conn.(*net.TCPConn).File(); err != nil {
		return err
	}
	w.fd = int(w.file.Fd())
	if err := syscall.SetNonblock(w.fd, true); err != nil {
		return err
	}
	for len(f.wires) <= w.fd {
		f.wires = append(f.wires, nil)
	}
	f.wires[w.fd] = w
	return syscall.EpollCtl(f.epoll, syscall.EPOLL_CTL_ADD, w.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(w.fd)})
}

func (f *flood) close() {
	for _, w := range f.wires {
		if w != nil {
			w.file.Close()
		}
	}
	f.wires, f.idle, f.open = nil, nil, 0
	if f.epoll > 0 {
		syscall.Close(f.epoll)
	}
}

// spent is the CPU time of this process.
func spent() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
