package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sluice/test/servers"
)

// process is a server of which every start has the same command line.
type process struct {
	args  []string
	log   string // where its output goes
	ready string // URL that answers 200 once it does its work
	cmd   *exec.Cmd
}

func (p *process) start() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own copy
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), tokenVariable+"="+compareToken)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	const wait, limit = 5 * time.Millisecond, 30 * time.Second
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(wait) {
		if r, err := http.Get(p.ready); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	p.kill()
	said, _ := os.ReadFile(p.log)
	return fmt.Errorf("%v is not ready after %v; it said:\n%s", p.args, limit, said[max(0, len(said)-2000):])
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// stand is a system under the storm.
type stand struct {
	name               string
	shopper, ops, data string
	faults             map[fault]func() error // each ends when the system is ready again
}

// fault is what is done to a stand.
type fault string

const (
	killServer fault = "server killed"
	killRedis  fault = "Redis killed"
	failOver   fault = "Redis failed over"
	powerCut   fault = "power cut"
)

// chainStand is the chain on a Redis of its own, and a replica of that.
func chainStand(t *servers.Scope, dice *rand.Rand) *stand {
	r := newRedisPair(t)
	data := t.TempDir()
	port := freePorts(t, 2)
	s := &stand{name: "the usual chain", shopper: address(port), ops: address(port + 1), data: data}
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := &process{log: filepath.Join(data, "server.log"), ready: "http://" + s.ops + "/readyz",
		args: []string{self, "-serve", "-data", data, "-redis", r.socket, "-listen", s.shopper, "-ops", s.ops}}
	begin(t, p)
	s.faults = map[fault]func() error{
		killServer: func() error { p.kill(); return p.start() },
		killRedis:  r.kill,
		failOver:   r.failOver,
		powerCut: func() error {
			p.kill()
			if err := r.powerCut(time.Duration(dice.Float64() * float64(time.Second))); err != nil {
				return err
			}
			return p.start()
		},
	}
	return s
}

// sluiceStand is Sluice as make build leaves it. It is one process: whichever
// part of the chain is killed, here it is that one. All that it has answered
// was synced before, so a power cut leaves it what a kill does; what a disk may
// do beyond that is for the simulated one.
func sluiceStand(t *servers.Scope, binary string) *stand {
	data := t.TempDir()
	port := freePorts(t, 3) // the pay sandbox stands on the port after the ops API's
	s := &stand{name: "Sluice", shopper: address(port), ops: address(port + 1), data: data}
	p := &process{log: filepath.Join(data, "server.log"), ready: "http://" + s.ops + "/readyz",
		args: []string{binary, "serve", "--data", data, "--listen", s.shopper, "--ops", s.ops}}
	begin(t, p)
	kill := func() error { p.kill(); return p.start() }
	s.faults = map[fault]func() error{killServer: kill, killRedis: kill, failOver: kill, powerCut: kill}
	return s
}

func begin(t *servers.Scope, p *process) {
	if err := p.start(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(p.kill)
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// freePorts answers the first of n ports in a row that were free a moment ago.
func freePorts(t *servers.Scope, n int) int {
	for range 50 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("%v", err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		open := []net.Listener{first}
		for i := 1; i < n; i++ {
			if l, err := net.Listen("tcp", address(port+i)); err == nil {
				open = append(open, l)
			}
		}
		for _, l := range open {
			_ = l.Close()
		}
		if len(open) == n {
			return port
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}
