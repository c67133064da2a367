package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"
)

func TestArrivalsKeepTheClock(t *testing.T) {
	// Whoever asks rarely is told of all who came meanwhile, at their own times.
	f := func(perSecond float64, look time.Duration) {
		t.Helper()
		const lasts = 20 * time.Second
		a := newArrivals(perSecond, lasts, 7)
		n, last := 0, time.Duration(0)
		for now := time.Duration(0); !a.over(now); now += look {
			for {
				due, ok := a.take(now)
				if !ok {
					break
				}
				if due > now || due < last || due >= lasts {
					t.Fatalf("due at %v, asked at %v, the one before at %v", due, now, last)
				}
				n, last = n+1, due
			}
		}
		want := perSecond * lasts.Seconds()
		if math.Abs(float64(n)-want) > 5*math.Sqrt(want) { // five standard deviations
			t.Errorf("%d came, want about %.0f", n, want)
		}
	}
	f(1000, time.Millisecond)
	f(1000, 3*time.Second)
	f(0.5, time.Second)
	closed := newArrivals(0, time.Second, 7)
	for _, now := range []time.Duration{0, 0, time.Millisecond} {
		if due, ok := closed.take(now); !ok || due != now {
			t.Errorf("a closed loop at %v: %v, %v", now, due, ok)
		}
	}
	if _, ok := closed.take(time.Second); ok || !closed.over(time.Second) {
		t.Error("a closed loop has no end")
	}
}

func TestCounted(t *testing.T) {
	c := counted{from: time.Second}
	c.note(999*time.Millisecond, 1100*time.Millisecond, 200) // of the lead
	c.turnAway(0)
	for _, ms := range []time.Duration{1, 2, 3, 4} {
		c.note(time.Second, time.Second+ms*time.Millisecond, 200)
	}
	c.note(time.Second, 2001*time.Millisecond, 200) // too late to help
	c.note(time.Second, 1001*time.Millisecond, 503)
	c.note(time.Second, 1001*time.Millisecond, 429)
	c.note(time.Second, 1001*time.Millisecond, 404)
	c.note(time.Second, 0, 0)
	c.turnAway(time.Second)
	if c.Due != 10 || c.Good != 4 || c.No != 2 || c.Wrong != 1 || c.Late != 2 || c.Away != 1 {
		t.Errorf("counted %+v", c)
	}
	if p50, p99 := c.percentile(0.5), c.percentile(0.99); p50 != 2 || p99 != 4 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if got := (&counted{}).percentile(0.99); got != 0 {
		t.Errorf("p99 of nothing is %v", got)
	}
}

func TestWaitingIsALine(t *testing.T) {
	var w waiting
	pushed, popped := 0, 0
	for round := range 3000 {
		for range round % 7 {
			w.push(time.Duration(pushed))
			pushed++
		}
		for range min(round%5, w.len()) {
			if got := w.pop(); got != time.Duration(popped) {
				t.Fatalf("popped %d, want %d", got, popped)
			}
			popped++
		}
	}
	if w.len() != pushed-popped || cap(w.due) > 4*w.len()+4096 {
		t.Errorf("%d wait, want %d, in room for %d", w.len(), pushed-popped, cap(w.due))
	}
}

func TestParseReply(t *testing.T) {
	f := func(text string, status, length int) {
		t.Helper()
		if s, l := parseReply([]byte(text)); s != status || l != length {
			t.Errorf("%q: %d, %d bytes, want %d, %d", text, s, l, status, length)
		}
	}
	f("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, 40)
	f("HTTP/1.1 503 Service Unavailable\r\nA: b\r\nContent-Length: 0\r\nC: d\r\n\r\nrest", 503, 67)
	f("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", 0, 0)
	f("HTTP/1.1 200 OK\r\nContent-Le", 0, 0)
	f("HTTP/1.1 xxx OK\r\n\r\n", 0, 0)
	f("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 0, 0)
	f("", 0, 0)
}

// TestFlood meets a server that serves one, refuses one, and hangs up on the
// third, in turn.
func TestFlood(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	answers := make(chan string)
	go func() {
		for n := 0; ; n++ {
			text := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
			switch n % 3 {
			case 1:
				text = "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}"
			case 2:
				text = ""
			}
			select {
			case answers <- text:
			case <-t.Context().Done():
				return
			}
		}
	}()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewReader(conn); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					if line != "\r\n" {
						continue
					}
					text := <-answers
					if text == "" {
						return
					}
					if _, err := fmt.Fprint(conn, text); err != nil {
						return
					}
				}
			}()
		}
	}()
	f := func(rate float64, noQueue bool) counted {
		t.Helper()
		seen, err := (&flood{addr: ln.Addr().String(), requests: [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, connections: 4, noQueue: noQueue}).
			run(context.Background(), newArrivals(rate, 200*time.Millisecond, 3), 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if sum := seen.Good + seen.No + seen.Late + seen.Away; sum != seen.Due || seen.Wrong > 0 || seen.Good == 0 || seen.No == 0 {
			t.Errorf("at %g/s: %d of %d accounted for: %+v", rate, sum, seen.Due, seen)
		}
		return seen
	}
	if seen := f(1000, false); seen.Late == 0 {
		t.Error("nobody was hung up on")
	}
	if seen := f(0, false); seen.Away > 0 {
		t.Errorf("a closed loop turned %d away", seen.Away)
	}
	if seen := f(1_000_000, true); seen.Away == 0 {
		t.Error("nobody was turned away from four connections")
	}
}

func TestShareLeft(t *testing.T) {
	f := func(k, ratio, want float64) {
		t.Helper()
		if got := shareLeft(k, ratio); math.Abs(got-want) > 1e-3 {
			t.Errorf("at %g times with a refusal of %g: %g, want %g", k, ratio, got, want)
		}
	}
	f(0.5, 0.2, 0.5)
	f(1, 0.2, 1)
	f(2, 0.2, 0.75)
	f(5, 0.2, 0)
	f(20, 0.2, 0)
	f(20, 0.1/19.1, 0.9)
	f(20, 0, 1)
}

func TestOverloadSection(t *testing.T) {
	at := func(factor, served, refused, busy float64) step {
		return step{factor: factor, offered: factor * 1000, lasted: time.Second, busy: busy, other: 0.5,
			seen:   counted{Due: int(factor * 1000), Good: int(served), No: int(refused), took: []time.Duration{5 * time.Millisecond}},
			payers: &paying{People: 1000, Paid: 999, Starts: served200(4), Looks: served200(2)}}
	}
	r := results{overload: []*scene{
		{name: "a slow store", about: "Slow.", capacity: 1000, cost: 60, steps: []step{at(1, 1000, 0, 0.1), at(20, 950, 19050, 0.2875)}},
		{name: "the core itself", onCore: true, about: "Core.", capacity: 10000, cost: 50, steps: []step{at(1, 1000, 0, 0.5), at(20, 10, 0, 1)}},
	}}
	var b strings.Builder
	r.overloadSection(&b)
	for _, want := range []string{
		"| a slow store | 1000/s | 60.0 | 10.0 | **95 %** of the peak | ≥ 90 % | yes | 99.9 % |",
		"| the core itself | 10000/s | 50.0 | — | **1 %** of the peak | ≥ 90 % | no | 99.9 % |",
		"| 20 × | 20000 | 950 | 95 % | 19050 | 0 | 5.0, 5.0 | 29 % | 50 % | 99.9 % | 100 %, 2 | 100 %, 2 |",
		"r/w is 0.20", "| left to serve with | 50 % | 100 % | 75 % | 0 % | 0 % | 0 % |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "%!") {
		t.Errorf("a format went wrong:\n%s", b.String())
	}
}

func served200(n int) (s served) {
	for range n {
		s.note(2*time.Millisecond, "")
	}
	return s
}
