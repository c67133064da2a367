package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/storm"
)

func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sluice")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// freePorts answers n ports in a row that were free a moment ago: the pay
// sandbox stands on the port after the ops API's.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 50 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		open := []net.Listener{first}
		for i := 1; i < n; i++ {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
			if err != nil {
				break
			}
			open = append(open, ln)
		}
		for _, ln := range open {
			_ = ln.Close()
		}
		if len(open) == n {
			return port
		}
	}
	t.Fatal("no ports in a row")
	return 0
}

func awaitReady(t *testing.T, ops string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		if r, err := http.Get(ops + "/readyz"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("the server did not become ready")
		}
	}
}

// A server that is killed with -9 in the middle of a storm and started again
// has lost nothing, sells exactly its stock, and keeps every promise it made.
func TestKillInTheMiddleOfAStorm(t *testing.T) {
	bin := build(t)
	data := t.TempDir()
	port := freePorts(t, 3)
	shopper, ops := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
	t.Setenv("SLUICE_OPS_TOKEN", "test-token")
	serve := []string{bin, "serve", "--data", data, "--listen", shopper, "--ops", ops}
	first := exec.Command(serve[0], serve[1:]...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { _ = first.Wait(); close(reaped) }()
	t.Cleanup(func() { endServer(t, data); <-reaped })
	awaitReady(t, "http://"+ops)

	restart, err := filepath.Abs("../../bench/restart")
	if err != nil {
		t.Fatal(err)
	}
	report, err := storm.Run(t.Context(), storm.Options{
		Target: "http://" + shopper, Ops: "http://" + ops, OpsToken: "test-token", Data: data,
		Users: 5000, Stock: 200, Duration: 8 * time.Second, Rate: 2000, Connections: 32, Hold: 2,
		Pay: 70, Abandon: 15, Cancel: 15, DoubleClick: 3, Replay: 50, Greedy: 10, Forge: 1, Lose: 3, Misbehave: 20, Seed: 1, Linearize: time.Minute,
		RestartCmd: restart + " " + data + " " + ops + " " + strings.Join(serve, " "),
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Proof.OK || report.Sold != 200 || report.UnavailableMS <= 0 {
		text, _ := json.MarshalIndent(report, "", "  ")
		t.Errorf("%s", text)
	}
	endServer(t, data)
	out, err := exec.Command(bin, "audit", "--data", data, "--log", "text,error").CombinedOutput()
	if err != nil {
		t.Errorf("audit: %v\n%s", err, out)
	}
	t.Logf("unavailable for %.0f ms around the kill\n%s", report.UnavailableMS, out)
}

// endServer stops the server that holds the data directory, by its own pid.
func endServer(t *testing.T, data string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "lock"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || syscall.Kill(pid, syscall.SIGTERM) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if syscall.Kill(pid, 0) != nil {
			_ = os.Remove(filepath.Join(data, "lock")) // so that nobody signals this number again
			return
		}
		<-tick.C
	}
	t.Error("the server did not stop in 30 s")
}
