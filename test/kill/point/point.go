// Package point ends the process where it stands, as kill -9 from outside
// would, but at a place that was chosen. No product code calls it: the calls
// are put into a build of the server by an overlay (see test/kill).
package point

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Variable is the environment variable that arms one point:
// "<name>:<n>:<ms>" kills the process at the n-th pass (from 1) of the point of
// that name, of those that happen when the process is at least ms old.
const Variable = "KILL_AT"

var (
	started = time.Now()
	armed   = parse(os.Getenv(Variable))
)

type trap struct {
	name  string
	left  atomic.Int64 // passes until it springs
	after time.Duration
}

// Arm writes the value of Variable.
func Arm(name string, n int, after time.Duration) string {
	return name + ":" + strconv.Itoa(n) + ":" + strconv.FormatInt(after.Milliseconds(), 10)
}

// parse answers nil when nothing is armed. Names hold colons, so it reads from
// the end. What Arm did not write panics: a typing error must not look like a
// point that is never reached.
func parse(value string) *trap {
	if value == "" {
		return nil
	}
	rest, ms, ok := cutLast(value)
	name, n, ok2 := cutLast(rest)
	passes, err := strconv.ParseInt(n, 10, 32)
	after, err2 := strconv.ParseInt(ms, 10, 32)
	if !ok || !ok2 || err != nil || err2 != nil || passes < 1 || name == "" {
		panic(Variable + " is not name:n:ms")
	}
	t := &trap{name: name, after: time.Duration(after) * time.Millisecond}
	t.left.Store(passes)
	return t
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// Pass is called at the point of that name.
func Pass(name string) {
	if armed == nil || armed.name != name || time.Since(started) < armed.after || armed.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing more happens on this goroutine
}
