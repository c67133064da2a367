package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/wal/simdisk"
)

// Knobs: SEED replays one seed with its trace, N is how many seeds TestSeeds
// runs (default 100), FROM the first of them, STEPS the steps of each.
const (
	defaultSeeds = 100
	defaultSteps = 160
	longRun      = 6 // times the steps of others, through segments and snapshots
)

// long says whether a seed is one of the long runs.
func long(seed uint64) bool { return seed%20 == 0 }

func stepsOf(seed uint64, steps int) int {
	if long(seed) {
		return longRun * steps
	}
	return steps
}

func number(t testing.TB, name string, def uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

// result of one run.
type result struct {
	violation string
	step      int
	trace     string
	fired     map[string]int
	entries   int
	elapsed   time.Duration // of the run's own time
}

// scratch is a directory in memory if the machine has one: a seed makes
// hundreds of commits, and what a sync does is simulated anyway.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// template makes an empty database with the catalogue: migrations cost more
// than a whole run.
func template(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "template.db")
	s, err := sqlstore.Open(t.Context(), path, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range products() {
		if _, err := s.SaveProduct(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// simulate runs one seed for so many steps, on a copy of the template.
func simulate(t *testing.T, template string, seed uint64, steps int, traced bool) (r result) {
	t.Helper()
	path := fmt.Sprintf("%s-%d", template, seed)
	defer func() {
		for _, end := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(path + end)
		}
	}()
	b, err := os.ReadFile(template)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p != nil { // every goroutine waits for another
			r.violation = fmt.Sprintf("panic: %v", p)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), log: slog.New(slog.DiscardHandler), begin: time.Now(),
			path: path, disk: simdisk.New(), fired: map[string]int{}, evening: longEvening, keepLog: keepLog(seed)}
		if long(seed) {
			w.tail = longTail
		}
		if traced {
			w.trace = &strings.Builder{}
			w.log = slog.New(slog.NewTextHandler(logged{w}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == "stack" { // it names goroutines, which differ from run to run
					return slog.Attr{}
				}
				return a
			}}))
		}
		w.oracle, w.provider, w.shoppers, w.ops = newOracle(w), newProvider(w), newShoppers(w), newOperators(w)
		defer func() {
			if p := recover(); p != nil {
				w.violate("panic: %v\n%s", p, debug.Stack())
			}
			if w.e != nil {
				w.shoppers.hangUp()
			}
			if w.store != nil {
				_ = w.store.Close()
			}
			r = result{violation: w.violation, step: w.step, fired: w.fired, entries: len(w.oracle.entries), elapsed: w.elapsed()}
			if w.trace != nil {
				r.trace = w.trace.String()
			}
		}()
		if w.store, err = sqlstore.Open(context.Background(), path, sqlstore.Options{Readers: 1}); err != nil {
			w.violate("open the store: %v", err)
			return
		}
		w.live(steps)
	})
	return r
}

// logged writes the engine's log into the trace.
type logged struct{ w *world }

func (l logged) Write(p []byte) (int, error) {
	if _, text, ok := strings.Cut(string(p), "level="); ok {
		l.w.tell("    log %s", strings.TrimSpace(text))
	}
	return len(p), nil
}

// shrink finds the shortest run of a seed that still fails.
func shrink(t *testing.T, template string, seed uint64, steps int) (result, int) {
	t.Helper()
	best, at := simulate(t, template, seed, steps, true), steps
	for lo, hi := 0, steps-1; lo <= hi; {
		mid := (lo + hi) / 2
		if r := simulate(t, template, seed, mid, true); r.violation != "" {
			best, at, hi = r, mid, mid-1
		} else {
			lo = mid + 1
		}
	}
	return best, at
}

// TestSeed replays one seed with its trace: SEED=… go test ./sim -run TestSeed -v
func TestSeed(t *testing.T) {
	seed := number(t, "SEED", 20)
	steps := int(number(t, "STEPS", uint64(stepsOf(seed, defaultSteps))))
	base := template(t, scratch(t))
	r := simulate(t, base, seed, steps, true)
	if os.Getenv("SEED") != "" {
		t.Logf("seed %d:\n%s", seed, r.trace)
	}
	if r.violation != "" {
		least, n := shrink(t, base, seed, r.step)
		t.Fatalf("seed %d fails at step %d: %s\nshortest: STEPS=%d SEED=%d fails at step %d: %s", seed, r.step, r.violation, n, seed, least.step, least.violation)
	}
	// A seed that does not replay would be worth nothing.
	if again := simulate(t, base, seed, steps, true); again.trace != r.trace {
		t.Fatalf("seed %d runs otherwise the second time: %s", seed, difference(r.trace, again.trace))
	}
}

// difference is where two traces part.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d:\n%s\n%s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

// TestSeeds runs N seeds and counts what happened in them.
func TestSeeds(t *testing.T) {
	n, from := number(t, "N", defaultSeeds), number(t, "FROM", 1)
	steps := int(number(t, "STEPS", defaultSteps))
	base := template(t, scratch(t))
	var mu sync.Mutex
	fired, entries, simulated, failures := map[string]int{}, 0, time.Duration(0), 0
	next := from
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for hand := range 2 {
			t.Run(strconv.Itoa(hand), func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					seed := next
					next++
					stop := seed >= from+n || failures >= 5
					mu.Unlock()
					if stop {
						return
					}
					r := simulate(t, base, seed, stepsOf(seed, steps), false)
					mu.Lock()
					for kind, count := range r.fired {
						fired[kind] += count
					}
					entries += r.entries
					simulated += r.elapsed
					if r.violation != "" {
						failures++
						t.Errorf("seed %d fails at step %d: %s\nreplay: make sim SEED=%d", seed, r.step, r.violation, seed)
					}
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d seeds in %s (%.1f/s), %d log entries, %s of simulated time", n, took.Round(time.Millisecond),
		float64(n)/took.Seconds(), entries, simulated.Round(time.Minute))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%8d %s", fired[kind], kind)
		if fired[kind] == 0 && n >= defaultSeeds && failures == 0 {
			t.Errorf("%q never happened in %d seeds", kind, n)
		}
	}
}
