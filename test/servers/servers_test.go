package servers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// dialogue sends one inline command on a connection of its own and answers the
// first line of the reply.
func dialogue(t *testing.T, s *Server, command string, patience time.Duration) (string, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s\r\n", command)
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

func ask(t *testing.T, s *Server, command, want string) {
	t.Helper()
	got, err := dialogue(t, s, command, 5*time.Second)
	if err != nil || got != want {
		t.Errorf("%s: %q, %v, want %q", command, got, err, want)
	}
}

func TestRedis(t *testing.T) {
	s := Redis(t, Config("appendfsync always"))
	ask(t, s, "SET units 7", "+OK")
	ask(t, s, "INCR units", ":8")

	s.Pause()
	if got, err := dialogue(t, s, "PING", 200*time.Millisecond); err == nil {
		t.Errorf("a paused server answered %q", got)
	}
	s.Resume()
	ask(t, s, "INCR units", ":9")

	s.Kill()
	if got, err := dialogue(t, s, "PING", time.Second); err == nil {
		t.Errorf("a killed server answered %q", got)
	}
	again := Redis(t, InDir(s.Dir), Config("appendfsync always"))
	ask(t, again, "INCR units", ":10") // what was synced survived the kill
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
	if err := again.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

func TestNginx(t *testing.T) {
	s := Nginx(t, `server { listen {{addr}}; location / { return 200 "hello from {{addr}}"; } }`)
	if got, want := fetch(t, s), "hello from "+s.Addr; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Pause()
	s.Resume()
	s.Kill()
	if _, err := net.DialTimeout("tcp", s.Addr, time.Second); err == nil {
		t.Error("a worker survived the kill of nginx")
	}
}

func TestNginxLua(t *testing.T) {
	s := Nginx(t, `server { listen {{addr}}; location / { content_by_lua_block { ngx.print(6 * 7) } } }`)
	if got := fetch(t, s); got != "42" {
		t.Errorf("got %q", got)
	}
}

func fetch(t *testing.T, s *Server) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get("http://" + s.Addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// witness is a TB that only notes how its test would have ended.
type witness struct {
	*testing.T
	fatal, skip string
	cleanups    []func()
}

func (w *witness) Fatalf(format string, args ...any) {
	w.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (w *witness) Skipf(format string, args ...any) {
	w.skip = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (w *witness) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }

// see runs f to its end, which may be a Fatalf or Skipf.
func see(t *testing.T, f func(TB)) *witness {
	w := &witness{T: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(w)
	}()
	<-done
	return w
}

func TestMissingIsLoud(t *testing.T) {
	f := func(ci string, wantFatal, wantSkip bool) {
		t.Helper()
		t.Setenv("CI", ci)
		w := see(t, func(t TB) { Find(t, "no-such-server") })
		if (w.fatal != "") != wantFatal || (w.skip != "") != wantSkip {
			t.Errorf("CI=%q: fatal %q, skip %q", ci, w.fatal, w.skip)
		}
	}
	f("", false, true)
	f("true", true, false)
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	f := func(want string, start func(TB)) {
		t.Helper()
		if w := see(t, start); !strings.Contains(w.fatal, want) {
			t.Errorf("failed with %q, want %q in it", w.fatal, want)
		}
	}
	f("appendfsync", func(t TB) { Redis(t, Config("appendfsync sometimes")) })
	f("ended before it answered", func(t TB) {
		Start(t, Program{
			Name:  "nothing",
			Path:  Find(t, "true"),
			Args:  func(string, string) ([]string, error) { return nil, nil },
			Ready: func(context.Context, string) error { return io.ErrUnexpectedEOF },
		})
	})
}

func TestServersEndWithTheirTest(t *testing.T) {
	var s *Server
	w := see(t, func(t TB) { s = Redis(t, OnCore(0)) })
	for _, f := range w.cleanups {
		f()
	}
	select {
	case <-s.Exited():
	default:
		t.Error("still running after the cleanup")
	}
}
