// Package servers starts the real programs that tests and benchmarks measure
// against (redis-server, nginx, and whatever joins them) as child processes:
// on a free port of 127.0.0.1, in a directory of their own, waiting until they
// answer, and ended with the test.
//
// Invariants: only processes started here are ever signalled, by their own
// process group; a child does not outlive the process that started it; the log
// of a child is shown when its test fails. A program that is not installed
// skips the test loudly, and fails it where CI=true.
//
// It refuses to share a server between tests and to use one that was there
// before: what a test finds in a server is what it put there.
package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// TB is the part of testing.TB that a server needs, so that programs outside
// of tests can bring their own.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	TempDir() string
	Cleanup(func())
}

const (
	startWithin = 20 * time.Second // until it answers
	stopWithin  = 10 * time.Second // after SIGTERM, before SIGKILL
	pollEvery   = 10 * time.Millisecond
	logShown    = 8 << 10 // bytes of the end of the log shown when a test fails
)

// Program says how to start one kind of server.
type Program struct {
	Name string
	Path string // the executable, as Find gives it
	// Args are its arguments for the address ("127.0.0.1:port") it shall serve
	// and the directory it may write to.
	Args func(addr, dir string) ([]string, error)
	Env  []string // added to the environment, "NAME=value"
	// Ready answers nil once the server at addr does its work; it is asked
	// again until then.
	Ready func(ctx context.Context, addr string) error
}

// Option changes how a server is started.
type Option func(*options)

type options struct {
	core   int
	dir    string
	config []string
}

// OnCore pins the server and its children to one CPU core (0, 1, …).
func OnCore(n int) Option { return func(o *options) { o.core = n } }

// InDir lets the server keep its files in dir instead of a fresh directory,
// for one that is started again on what it left behind.
func InDir(dir string) Option { return func(o *options) { o.dir = dir } }

// Config appends a line to the server's own configuration.
func Config(line string) Option { return func(o *options) { o.config = append(o.config, line) } }

func gather(list []Option) options {
	o := options{core: -1}
	for _, option := range list {
		option(&o)
	}
	return o
}

// Server is a running child process.
type Server struct {
	Name string
	Addr string // 127.0.0.1:port
	Dir  string // its own directory; the log is Dir/<name>.log

	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed once the process is gone
	once   sync.Once
}

// Start runs a program until it answers, and ends it with the test. A port
// that somebody takes between choosing and binding it is tried again.
func Start(t TB, p Program, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	var err error
	for range 3 {
		var s *Server
		if s, err = start(p, o); err == nil {
			t.Cleanup(func() {
				s.end()
				if t.Failed() {
					t.Logf("%s said:\n%s", s.Name, s.Log())
				}
			})
			return s
		}
	}
	t.Fatalf("servers: %v", err)
	return nil
}

func start(p Program, o options) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args, err := p.Args(addr, o.dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	path := p.Path
	if o.core >= 0 {
		// taskset replaces itself by the program, so the pid is the program's.
		taskset, err := exec.LookPath("taskset")
		if err != nil {
			return nil, err
		}
		path, args = taskset, append([]string{"-c", fmt.Sprint(o.core), p.Path}, args...)
	}
	s := &Server{Name: p.Name, Addr: addr, Dir: o.dir, exited: make(chan struct{}),
		log: filepath.Join(o.dir, p.Name+".log")}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = o.dir, out, out
	s.cmd.Env = append(os.Environ(), p.Env...)
	s.cmd.SysProcAttr = ownGroup()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // how it ended is in its log
		close(s.exited)
	}()
	if err := s.await(p.Ready); err != nil {
		s.Kill()
		return nil, fmt.Errorf("%s at %s: %w; it said:\n%s", p.Name, addr, err, s.Log())
	}
	return s, nil
}

func (s *Server) await(ready func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ready(ctx, s.Addr)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", startWithin, err)
		case <-ticker.C:
		}
	}
}

// PID is the process that was started; its children share its process group.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited is closed once the process is gone.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop asks the server to end (SIGTERM) and waits until it is gone; one that
// does not follow within 10 s is killed, which is an error.
func (s *Server) Stop() error {
	s.signal(syscall.SIGCONT) // a stopped process would keep the request pending
	s.signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopWithin):
		s.Kill()
		return fmt.Errorf("%s did not stop within %v", s.Name, stopWithin)
	}
}

// Kill ends the server and its children at once (SIGKILL), as a crash would,
// and waits until the process is gone and nobody listens at its address: a
// child such as an nginx worker may hold the socket a little longer.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.exited
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for range stopWithin / pollEvery {
		conn, err := net.DialTimeout("tcp", s.Addr, pollEvery)
		if err != nil {
			return
		}
		conn.Close()
		<-ticker.C
	}
}

// Pause freezes the server and its children (SIGSTOP): connections stay open
// and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// Log is the end of what the server wrote to stdout and stderr.
func (s *Server) Log() string {
	f, err := os.Open(s.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logShown {
		f.Seek(-logShown, io.SeekEnd) //nolint:errcheck // then it is shown from the start
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// signal goes to the process group, which is the child's own. Once the process
// has been waited for, its number may belong to somebody else.
func (s *Server) signal(sig syscall.Signal) {
	select {
	case <-s.exited:
	default:
		syscall.Kill(-s.PID(), sig) //nolint:errcheck // it may have just ended
	}
}

// end is Stop for the end of a test, where only being gone counts.
func (s *Server) end() {
	s.once.Do(func() {
		if err := s.Stop(); err != nil {
			s.Kill()
		}
	})
}

// Find looks a program up in PATH and, as Debian keeps daemons there, in the
// sbin directories. Where it is missing the test is skipped, loudly, or fails
// if CI=true.
func Find(t TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// Missing ends the test for want of something that make servers installs.
func Missing(t TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("MISSING: %s (make servers installs it)", what)
	}
	t.Skipf("MISSING: %s (make servers installs it); this test proves nothing here", what)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
