package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// opsToken is the ops API's in these storms.
const (
	opsToken     = "kill-harness"
	startLimit   = 30 * time.Second // a server that is not ready by then has not come back
	stopLimit    = 60 * time.Second // the sum of its own deadlines, and more
	readyPace    = 4 * time.Millisecond
	lowestPort   = 12_000
	highestPort  = 32_000
	portAttempts = 100
)

// house is a data directory and the addresses at which its server is found,
// life after life.
type house struct {
	binary            string
	data              string
	shopper, ops, pay string // host:port
	client            http.Client
	logged            int // bytes of the log that have been read
}

func newHouse(binary, data string) (*house, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	h := &house{binary: binary, data: data, shopper: at(0), ops: at(1), pay: at(2)}
	h.client = http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return h, nil
}

// freePorts answers ports below those that the kernel hands out to clients: a
// client that dials a port of that range while the server is dead may be given
// the very same one, be connected with itself, and keep the server from
// listening there again.
func freePorts(n int) (ports []int, err error) {
	for range portAttempts {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		l, listenErr := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err = listenErr; err != nil {
			continue
		}
		_ = l.Close()
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
		if len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.Join(errors.New("no free ports"), err)
}

func (h *house) log() string { return filepath.Join(h.data, "server.log") }

// process is one life of the server.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	ended chan struct{} // closed when it has gone; then the rest may be read
	at    time.Time     // when it had
	how   syscall.WaitStatus
	err   error // it could not be waited for
}

func (h *house) start(env []string) (*process, error) {
	out, err := os.OpenFile(h.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.Command(h.binary, "serve", "--data", h.data, "--listen", h.shopper, "--ops", h.ops)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), append(env, "SLUICE_OPS_TOKEN="+opsToken, "SLUICE_PAYMENT=sandbox://"+h.pay)...)
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := p.cmd.Wait()
		p.at = time.Now()
		p.how = p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			p.err = err
		}
		close(p.ended)
	}()
	return p, nil
}

// signal sends one to the process if it has not gone.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// kill is kill -9, unless the process was faster.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// killed says that the process, which has gone, was ended by kill -9.
func (p *process) killed() bool { return p.how.Signaled() && p.how.Signal() == syscall.SIGKILL }

// awaitReady returns when the server says that it is ready. It is false when
// the process has ended before, or when the time is over.
func (h *house) awaitReady(ctx context.Context, p *process, until time.Time) bool {
	pace := time.NewTicker(readyPace)
	defer pace.Stop()
	for ctx.Err() == nil && time.Now().Before(until) {
		if r, err := h.client.Get("http://" + h.ops + "/readyz"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-pace.C:
		case <-p.ended:
			return false
		}
	}
	return false
}

// stop ends the server in order and says what was wrong with that.
func (h *house) stop(p *process) error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		p.kill()
		return fmt.Errorf("the server did not stop within %s of SIGTERM", stopLimit)
	}
	if p.err != nil || p.how.ExitStatus() != 0 {
		return h.strange("stopped", p)
	}
	return nil
}

// strange tells of an end that nobody asked for.
func (h *house) strange(what string, p *process) error {
	text, _ := os.ReadFile(h.log())
	return fmt.Errorf("the server %s with exit status %d, signal %v (%v); its last words:\n%s", what, p.how.ExitStatus(), p.how.Signal(), p.err,
		text[max(0, len(text)-3000):])
}

// alarms are the kinds that no kill excuses.
var alarms = []string{"landing_stopped", "landing_fenced", "settle_violation", "refund_stuck", "dead_letter", "payment_unresolved", "proof_violation"}

// heard reads what the server has logged since the last call: the alarms among
// it, and how often which other error was logged.
func (h *house) heard() (wrong []string, errs map[string]int, err error) {
	text, err := os.ReadFile(h.log())
	if err != nil {
		return nil, nil, err
	}
	errs = map[string]int{}
	fresh := text[min(h.logged, len(text)):]
	h.logged = len(text)
	for line := range bytes.Lines(fresh) {
		line := strings.TrimSpace(string(line))
		kind := field(line, "kind=")
		switch {
		case !strings.Contains(line, "level=ERROR") && !strings.HasPrefix(line, "panic:") && !strings.HasPrefix(line, "fatal error:"):
		case strings.Contains(line, "level=ERROR") && !(strings.Contains(line, "msg=alarm") && slices.Contains(alarms, kind)):
			errs[strings.TrimSpace(field(line, "msg=")+" "+kind+field(line, "task="))]++
		default:
			wrong = append(wrong, "the server's log: "+line)
		}
	}
	return wrong, errs, nil
}

// field is the value behind a key of a log line, with the quotes it may have.
func field(line, key string) string {
	_, rest, ok := strings.Cut(line, key)
	if !ok {
		return ""
	}
	if strings.HasPrefix(rest, `"`) {
		value, _, _ := strings.Cut(rest[1:], `"`)
		return value
	}
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// audit is sluice audit on a directory that no server holds.
func (h *house) audit(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, h.binary, "audit", "--data", h.data, "--log", "text,error")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sluice audit: %w\n%s", err, out)
	}
	return nil
}
