// Package servers starts the real programs that tests and benchmarks measure
// against as child processes: on a free port of 127.0.0.1, in a directory of
// their own, waiting until they answer, and ended with the test. There are
// Redis (alone, with a replica, with a sentinel, as a cluster), MariaDB (alone,
// and with a semi-synchronous replica), Kafka (one broker, three), etcd (one
// member, three) and nginx.
//
// Each can be stopped, killed, paused, and started again at its address on what
// it left, on nothing, or on an older image of its files.
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
	"sync/atomic"
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
	startWithin = time.Minute      // until it answers; three JVMs beside a storm take half of it
	stopWithin  = 10 * time.Second // after SIGTERM, before SIGKILL
	askEvery    = time.Second      // to stop
	pollEvery   = 10 * time.Millisecond
	logShown    = 8 << 10 // bytes of the end of the log shown when a test fails
)

// Program says how to start one kind of server.
type Program struct {
	Name string
	Path string // the executable, as Find gives it
	// Args are its arguments for the address ("127.0.0.1:port") it shall serve
	// and the directory it may write to. They are asked for once: a server that
	// is started again has the arguments, and the address, it had.
	Args func(addr, dir string) ([]string, error)
	Env  []string // added to the environment, "NAME=value"
	// Prepare makes what the server expects to find in its directory, where it
	// is missing. It is called before every start; nil for nothing.
	Prepare func(dir string) error
	// Keep names the files in its directory that are the server's identity and
	// not its data: they outlive RestartEmpty and RestartFrom.
	Keep []string
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

// Server is a child process, running or ended. Its methods may be called from
// several goroutines; two restarts at once make no sense.
type Server struct {
	Name string
	Addr string // 127.0.0.1:port, the same after a restart
	Dir  string // its own directory; the log is Dir/<name>.log

	program Program
	path    string // what is executed: the program, or what pins it to a core
	args    []string
	log     string

	mu  sync.Mutex
	now *process
}

// process is one life of a server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process is gone
	paused atomic.Bool
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
				if err := s.Stop(); err != nil {
					t.Logf("%v", err)
				}
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
	s := &Server{Name: p.Name, Addr: addr, Dir: o.dir, program: p, path: p.Path, args: args,
		log: filepath.Join(o.dir, p.Name+".log")}
	if o.core >= 0 {
		// taskset replaces itself by the program, so the pid is the program's.
		if s.path, err = exec.LookPath("taskset"); err != nil {
			return nil, err
		}
		s.args = append([]string{"-c", fmt.Sprint(o.core), p.Path}, args...)
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	return s, nil
}

// launch starts a process and waits until it answers.
func (s *Server) launch() error {
	if s.program.Prepare != nil {
		if err := s.program.Prepare(s.Dir); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own copy
	p := &process{cmd: exec.Command(s.path, s.args...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = s.Dir, out, out
	p.cmd.Env = append(os.Environ(), s.program.Env...)
	p.cmd.SysProcAttr = ownGroup()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // how it ended is in its log
		close(p.exited)
	}()
	s.mu.Lock()
	s.now = p
	s.mu.Unlock()
	if err := s.await(p); err != nil {
		s.Kill()
		return fmt.Errorf("%s at %s: %w; it said:\n%s", s.Name, s.Addr, err, s.Log())
	}
	return nil
}

var errEnded = errors.New("ended before it answered")

func (s *Server) await(p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return poll(ctx, p.exited, func(ctx context.Context) error { return s.program.Ready(ctx, s.Addr) })
}

// poll asks again and again until the answer is nil, the context is over or
// the server asked has ended (exited may be nil).
func poll(ctx context.Context, exited <-chan struct{}, ask func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func (s *Server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// PID is the process that was started last; its children share its group.
func (s *Server) PID() int { return s.process().cmd.Process.Pid }

// Exited is closed once the process that was started last is gone.
func (s *Server) Exited() <-chan struct{} { return s.process().exited }

// Stop asks the server to end (SIGTERM) and waits until it is gone; one that
// does not follow within 10 s is killed, which is an error. A server that has
// already ended is left alone.
func (s *Server) Stop() error {
	p := s.process()
	s.Resume() // a stopped process would keep the request pending
	// Asked more than once, because Redis refuses while it writes the first file
	// after a resynchronisation.
	for range stopWithin / askEvery {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.exited:
			return nil
		case <-time.After(askEvery):
		}
	}
	s.Kill()
	return fmt.Errorf("%s did not stop within %v", s.Name, stopWithin)
}

// Kill ends the server and its children at once (SIGKILL), as a crash would,
// and waits until the process is gone and nobody listens at its address: a
// child such as an nginx worker may hold the socket a little longer.
func (s *Server) Kill() {
	p := s.process()
	p.signal(syscall.SIGKILL)
	<-p.exited
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
// and nothing answers. It returns once the server stands still, which takes a
// moment after the signal.
func (s *Server) Pause() {
	p := s.process()
	p.paused.Store(true)
	p.signal(syscall.SIGSTOP)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for range stopWithin / time.Millisecond {
		if !p.paused.Load() || standsStill(p.cmd.Process.Pid) {
			return
		}
		<-ticker.C
	}
}

// Resume ends a Pause.
func (s *Server) Resume() {
	p := s.process()
	p.signal(syscall.SIGCONT)
	p.paused.Store(false)
}

// ended answers whether the process that was started last is gone.
func (s *Server) ended() bool {
	select {
	case <-s.process().exited:
		return true
	default:
		return false
	}
}

// mute answers whether the server cannot answer, by our own doing.
func (s *Server) mute() bool { return s.ended() || s.process().paused.Load() }

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
func (p *process) signal(sig syscall.Signal) {
	select {
	case <-p.exited:
	default:
		syscall.Kill(-p.cmd.Process.Pid, sig) //nolint:errcheck // it may have just ended
	}
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
