package point

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	f := func(value string, name string, n int64, after time.Duration) {
		t.Helper()
		got := parse(value)
		if got == nil || got.name != name || got.left.Load() != n || got.after != after {
			t.Errorf("%q: %+v", value, got)
		}
	}
	f(Arm("log: half written", 3, 1500*time.Millisecond), "log: half written", 3, 1500*time.Millisecond)
	f("a:1:0", "a", 1, 0)
	if parse("") != nil {
		t.Error("armed by nothing")
	}
	g := func(value string) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%q was read", value)
			}
		}()
		parse(value)
	}
	for _, value := range []string{"a", "a:1", ":1:0", "a:0:0", "a:x:0", "a:1:x"} {
		g(value)
	}
}

// The process ends at the pass that was asked for, by SIGKILL.
func TestPass(t *testing.T) {
	if os.Getenv(Variable) != "" {
		Pass("another")
		Pass("here")
		_, _ = os.Stdout.WriteString("passed once\n")
		Pass("here")
		_, _ = os.Stdout.WriteString("passed twice\n")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPass$")
	cmd.Env = append(os.Environ(), Variable+"="+Arm("here", 2, 0))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it ended with %v", err)
	}
	if !strings.Contains(string(out), "once") || strings.Contains(string(out), "twice") {
		t.Errorf("it said %q", out)
	}
}
