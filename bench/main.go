// Command bench measures Sluice beside nginx and Redis on one machine and
// writes docs/BENCHMARKS.md. The server under measurement has core 0, the
// generator (wrk) core 1; every server is started fresh on loopback and paused
// outside of its turn; rounds are interleaved and compared within the round.
//
//	make bench            all of it, about eight minutes
//	make bench QUICK=1    three short rounds, into bench/out, to see that it runs
//	go run ./bench -sections overload    one part, into bench/out; this one takes two and a half minutes
//
// A measurement counts only if every answer was of the kind it is meant to be,
// and if what was answered was found in the ledger afterwards.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/test/servers"
)

// limit bounds the whole program.
const limit = 10 * time.Minute

func main() {
	quick := os.Getenv("QUICK") != "" && os.Getenv("QUICK") != "0"
	p := plan{rounds: 10, duration: 3 * time.Second, users: 20_000, fresh: 300_000}
	if quick {
		p.rounds, p.duration, p.fresh = 3, time.Second, 100_000
	}
	binary := flag.String("binary", "bin/sluice", "the server to measure, as make build leaves it")
	sections := flag.String("sections", "refuse,accept,overload,go", "what to measure")
	flag.IntVar(&p.rounds, "rounds", p.rounds, "rounds that count")
	flag.DurationVar(&p.duration, "duration", p.duration, "of one run, whole seconds")
	flag.Parse()
	if err := bench(*binary, strings.Split(*sections, ","), p, quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(binary string, sections []string, p plan, quick bool) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("two cores are needed, one for the server and one for the generator")
	}
	top, err := os.Getwd()
	if err != nil {
		return err
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	out := filepath.Join(top, "bench", "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	t := servers.NewScope(out)
	defer t.End()
	defer func() {
		if f, ok := recover().(servers.Failure); ok {
			err = fmt.Errorf("%s", string(f))
		}
	}()

	r := results{plan: p, quick: quick, machine: machine(t, out), busy: othersUse(ctx)}
	if r.busy > quietAbove {
		t.Logf("other work uses %.0f %% of the machine: these figures will not mean much", r.busy*100)
	}
	began := time.Now()
	if err := r.measure(ctx, t, binary, top, sections); err != nil {
		return err
	}
	r.took = time.Since(began)
	text := r.markdown(time.Now())
	file := filepath.Join(top, "docs", "BENCHMARKS.md")
	if quick || !r.complete() {
		file = filepath.Join(out, "BENCHMARKS.md")
	}
	fmt.Print(text)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	t.Logf("written to %s", file)
	return nil
}

// measure does the sections, one after the other.
func (r *results) measure(ctx context.Context, t servers.TB, binary, top string, sections []string) (err error) {
	if slices.Contains(sections, "refuse") {
		if r.refuse, err = inScope(t, func(t servers.TB) ([]*series, error) { return refuse(ctx, t, binary, r.plan) }); err != nil {
			return err
		}
	}
	if slices.Contains(sections, "accept") {
		if r.accept, err = inScope(t, func(t servers.TB) (s []*series, err error) {
			s, r.landing, err = accept(ctx, t, binary, r.plan)
			return s, err
		}); err != nil {
			return err
		}
	}
	if slices.Contains(sections, "overload") {
		if r.overload, err = overload(ctx, t, binary, r.plan); err != nil {
			return err
		}
	}
	if slices.Contains(sections, "go") {
		r.suites = suites(r.quick)
		for _, s := range r.suites {
			t.Logf("%v", s)
			list, err := s.run(ctx, top)
			if err != nil {
				return err
			}
			r.benches = append(r.benches, list...)
		}
	}
	return nil
}

// inScope ends what a section started before the next one begins.
func inScope(t servers.TB, section func(servers.TB) ([]*series, error)) ([]*series, error) {
	inner := servers.NewScope(t.TempDir())
	defer inner.End()
	return section(inner)
}

// suites are the Go benchmarks of the report.
func suites(quick bool) []suite {
	orders, count := "60000x", 3
	if quick {
		orders, count = "20000x", 1
	}
	return []suite{
		{"./internal/backend/walstock", "Reserve|Refuse", "1s", count},
		{"./internal/gate", "Door", "1s", count},
		{"./internal/lib/wal", "Read", "1s", count},
		{"./internal/backend/sqlstore", "Land|RawInsert", orders, count},
	}
}
