package storm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// restartLimit bounds the restart command.
const restartLimit = time.Minute

// outage measures for how long nobody could buy: from the first request that
// failed after the restart began, or from when the server was known to be dead,
// to the first definite answer to a request that was sent after that.
type outage struct {
	watching atomic.Bool
	mu       sync.Mutex
	began    time.Time // of the one being watched; zero while nothing has failed
	ended    time.Time // of the last one
	lasted   []time.Duration
}

func (o *outage) watch() { o.down(time.Time{}) }

// down says that the server is dead since at. One that dies again before it
// has answered anybody makes the same outage longer.
func (o *outage) down(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.watching.Load() {
		o.began = at
		o.watching.Store(true)
	}
}

// active says that failures are to be expected now.
func (o *outage) active() bool { return o.watching.Load() }

func (o *outage) failed(now time.Time) {
	if !o.watching.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		o.began = now
	}
}

func (o *outage) answered(sent, now time.Time) {
	if !o.watching.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// An answer to an earlier request may have waited in a socket's buffer.
	if o.began.IsZero() || !sent.After(o.began) {
		return
	}
	o.lasted, o.ended = append(o.lasted, now.Sub(o.began)), now
	o.watching.Store(false)
}

// length is how long the longest outage lasted; ok is false when there was none, or no end of it.
func (o *outage) length() (d time.Duration, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lasted) == 0 {
		return 0, false
	}
	return slices.Max(o.lasted), true
}

// lengths are those of all outages that have ended, in ms.
func (o *outage) lengths() (ms []float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.lasted {
		ms = append(ms, float64(d.Microseconds())/1000)
	}
	return ms
}

// clearSince says that the server has been up since t, as far as is known.
func (o *outage) clearSince(t time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.watching.Load() && (o.ended.IsZero() || t.After(o.ended))
}

// restart runs the restart command half-way through the rush. The command
// should start the server in the background with its output redirected.
func (r *rehearsal) restart(ctx context.Context) {
	timer := time.NewTimer(time.Until(r.began.Add(r.o.Duration / 2)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	r.outage.watch()
	ctx, stop := context.WithTimeout(ctx, restartLimit)
	defer stop()
	cmd := exec.CommandContext(ctx, "sh", "-c", r.o.RestartCmd)
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	// A server started in the background may keep the pipe open for ever.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		r.oracle.broken.add("the restart command failed: %v: %s", err, said.text())
		return
	}
	// What was promised before the kill must be there after it.
	r.recheck()
}

// tail keeps the last of what a command said.
type tail struct {
	mu   sync.Mutex
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if extra := len(t.last) - 1000; extra > 0 {
		t.last = t.last[extra:]
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%q", t.last)
}
