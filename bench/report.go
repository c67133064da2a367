package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sluice/test/servers"
)

// results is everything measured.
type results struct {
	plan    plan
	quick   bool
	machine []string
	busy    float64   // share of the cores that others used before the start, 0..1
	refuse  []*series // Sluice, constant, chain
	accept  []*series // Sluice accepting, Sluice refusing, chain
	landing landing

	overload []*scene
	suites   []suite
	benches  []goBench
	took     time.Duration
}

// complete says whether all sections are there, as a published report needs.
func (r *results) complete() bool {
	return len(r.refuse) == 3 && len(r.accept) == 3 && len(r.overload) == 3 && len(r.benches) > 0
}

// comparison is one row: ours against the other within each round.
type comparison struct {
	what, against string
	speed, cost   estimate // ratio of answers/s; of CPU time per answer
	goal          float64
}

func compare(what, against string, ours, other *series, goal float64) comparison {
	cpu := func(s sample) float64 { return s.CPU }
	return comparison{what, against, estimateOf(ratios(ours.each(rate), other.each(rate))),
		estimateOf(ratios(ours.each(cpu), other.each(cpu))), goal}
}

func (c comparison) row() string {
	return fmt.Sprintf("| %s | %s | **%.2f ×** (%.2f–%.2f) | %.2f × | ≥ %g × | %s |\n",
		c.what, c.against, c.speed.Median, c.speed.Low, c.speed.High, c.cost.Median, c.goal, verdict(c.speed, c.goal))
}

// verdict is yes or no only where the whole interval is on one side.
func verdict(e estimate, goal float64) string {
	switch {
	case e.Low >= goal:
		return "yes"
	case e.High < goal:
		return "no"
	default:
		return "too close to say"
	}
}

func (r *results) markdown(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Written by `+"`make bench`"+` on %s in %.1f minutes; do not edit.

%s

`, now.UTC().Format("2006-01-02"), r.took.Minutes(), strings.Join(r.machine, "  \n"))
	if r.busy > quietAbove {
		fmt.Fprintf(&b, "**Other work used %.0f %% of the machine just before the start: no figure here can be quoted.**\n\n", r.busy*100)
	}
	if r.quick {
		b.WriteString("**A quick run: too few and too short rounds for a figure to be quoted.**\n\n")
	}
	b.WriteString("## Side by side\n\n")
	b.WriteString("| what | beside | answers per second | CPU time per answer | goal | met |\n|---|---|---|---|---|---|\n")
	if len(r.refuse) == 3 {
		ours, fixed, chain := r.refuse[0], r.refuse[1], r.refuse[2]
		b.WriteString(compare("(a) refuse: sold out", fixed.name+", the same reply to everything", ours, fixed, 0.8).row())
		b.WriteString(compare("(a) refuse: sold out", chain.name+", equal cores", ours, chain, 3).row())
	}
	if len(r.accept) == 3 {
		ours, refusing, chain := r.accept[0], r.accept[1], r.accept[2]
		b.WriteString(compare("(b) accept, durable, 512 in flight", "own refusals, 512 in flight", ours, refusing, 0.6).row())
		b.WriteString(compare("(b) accept, durable, 512 in flight", chain.name+", equal cores", ours, chain, 2).row())
	}
	r.inProcess(&b)
	covers := estimateOf(make([]float64, r.plan.rounds)).Covers
	fmt.Fprintf(&b, `
A ratio is the median over %d rounds of ours ÷ theirs within the same round, with an interval that holds the true
median with %.0f %% probability (order statistics). "Met" is judged by the whole interval.

## Each of them

| subject | answers/s | CPU µs per answer | its core used | generator's core used | p50 ms | p99 ms | bytes per reply | other answers |
|---|---|---|---|---|---|---|---|---|
`, r.plan.rounds, covers*100)
	for i, list := range [][]*series{r.refuse, r.accept} {
		for _, s := range list {
			fmt.Fprintf(&b, "| (%c) %s | %.0f | %.2f | %.0f %% | %.0f %% | %.2f | %.2f | %.0f | %.2f %% |\n", 'a'+i, s.name,
				s.median(rate), s.median(func(s sample) float64 { return s.CPU }),
				100*s.median(func(s sample) float64 { return s.Busy }), 100*s.median(func(s sample) float64 { return s.Gen }),
				s.median(func(s sample) float64 { return s.P50 }), s.median(func(s sample) float64 { return s.P99 }),
				s.median(func(s sample) float64 { return s.Bytes }), 100*s.median(func(s sample) float64 { return s.Other }))
		}
	}
	b.WriteString(`
Medians over the rounds. Where a subject does not use its core up, the generator or the disk is the bound and the CPU
time per answer says more than the rate.
`)
	if r.landing.orders > 0 {
		fmt.Fprintf(&b, `
Of one such run of accepting, all %d orders were in the store %.1f s after the load had ended; from request to row each
took %.1f µs of CPU time.
`, r.landing.orders, r.landing.after.Seconds(), r.landing.cpuEach)
	}
	r.gateSection(&b)
	r.overloadSection(&b)
	b.WriteString(r.method())
	return b.String()
}

// doors are what the gate's benchmarks are about, by the ends of their names.
var doors = []struct{ name, what string }{
	{"nothing", "no rule at all"},
	{"a-limit", "one limit by user, let through"},
	{"no-pass", "a condition, a ticket shown, and no pass: sent to the waiting room"},
	{"a-pass", "a waiting room, its pass shown"},
	{"all", "a condition, a ticket and a pass"},
}

// gateSection is what the gate adds to a purchase that the board has not refused.
func (r *results) gateSection(b *strings.Builder) {
	var rows strings.Builder
	for _, d := range doors {
		for _, bench := range r.benches {
			if bench.name == "Door/"+d.name {
				fmt.Fprintf(&rows, "| %s | %.0f ns | %.0f |\n", d.what, bench.metrics["ns/op"], bench.metrics["allocs/op"])
			}
		}
	}
	if rows.Len() == 0 {
		return
	}
	b.WriteString("\n## The gate\n\nWhat it adds to a purchase (`gate.Door.Enter`). A flood that is sold out does not get so far: row (a) has all of it in its way.\n\n" +
		"| it asks for | time | allocations |\n|---|---|---|\n" + rows.String())
}

// inProcess adds the rows that come from Go benchmarks.
func (r *results) inProcess(b *strings.Builder) {
	row := func(what, value, goal string, met bool) {
		fmt.Fprintf(b, "| %s | — | %s | — | %s | %s |\n", what, value, goal, map[bool]string{true: "yes", false: "no"}[met])
	}
	if v, name := best(r.benches, "Reserve", "decisions/s"); v > 0 {
		row("(b) decisions in process, log on disk, one core", fmt.Sprintf("%.0f/s (`%s`)", v, name), "≥ 1,000,000/s", v >= 1e6)
	}
	land, _ := best(r.benches, "Land", "orders/s")
	raw, name := best(r.benches, "RawInsert", "orders/s")
	if land > 0 && raw > 0 {
		row("(c) landing beside raw multi-row INSERT (`"+name+"`) of the same rows", fmt.Sprintf("%.2f × of %.0f orders/s", land/raw, raw), "≥ 0.8 ×", land/raw >= 0.8)
		row("(c) landing a million orders, at that rate", fmt.Sprintf("%.0f s (%.0f orders/s)", 1e6/land, land), "≤ 30 s", 1e6/land <= 30)
	}
	if v, name := best(r.benches, "Read", "records/s"); v > 0 {
		fmt.Fprintf(b, "| (f) log records read and checked, without applying them | — | %.0f/s (`%s`) | — | ≥ 2,000,000/s replayed | not measured whole |\n", v, name)
	}
}

// method says how, so that anybody can do it again, and what is not there.
func (r *results) method() string {
	var commands strings.Builder
	for _, s := range r.suites {
		fmt.Fprintf(&commands, "    %s\n", s)
	}
	return fmt.Sprintf(`
## How

    make bench

Server on core %d, wrk on core %d (`+"`taskset`"+`), loopback, keep-alive, one request at a time per connection. Every
other server is stopped (SIGSTOP) while one is measured. One run that does not count, then %d rounds of %v a run, in an
order that turns from round to round. CPU time is that of all processes of a subject, children included, from
/proc. Each run is:

    GOMAXPROCS=1 taskset -c %d sluice serve --data DIR --listen ADDR --ops ADDR
    taskset -c %d wrk -t1 -c64|-c512 -d%.0fs -s bench/wrk.lua http://ADDR/v1/activities/ID/purchases -- TOKENS repeat|fresh RUN

- **(a) refuse**: 64 connections; %d users, each with a token and a key, in turn, so that tokens have been seen before;
  a sale of one unit that is sold and paid. nginx sends the same status, body and headers to everything and looks at
  nothing. The chain checks the token, with a memory of those it has seen, and asks its script.
- **(b) accept**: 512 connections; every request is a purchase with a new key, by a new user until %d are used up, on a
  fresh server for each run. Sluice writes its log to disk, syncs it before it answers, and lands the orders in its
  store at the same time; wrk's count is checked against the ledger after each run. The chain syncs its
  append-only file before it answers (`+"`appendfsync always`"+`), and nothing takes its orders from the queue: its worker and
  its database would cost extra.
- **nginx-lua + Redis script** is in bench/rival: verified tokens remembered, unix socket, pooled connections, one
  script for known key, window, limits, stock, mark, receipt and queue. nginx and Redis share core %d, as Sluice's
  roles do.
- **overload**: a generator of its own (bench/flood_linux.go), since wrk sends when it has been answered; on core %d with the
  payers, MariaDB and the delay. Capacity is the best of closed loops of 4 to 64 connections. Each step has a second that
  does not count. %d users with one order each, their tokens seen before.
- Go benchmarks, on one core, with the log and the store on the same disk:

%s
## Not measured here

- Other machines, a network, TLS, HTTP/2; more than one core a server; Redis Cluster, MariaDB, a fleet.
- Tokens never seen before while refusing (while accepting they all are), and mixes of both.
- Latency of purchases at a given rate: wrk is a closed loop, so its percentiles are those of a saturated server.
  `+"`sluice storm`"+` is the open-loop one.
- Overload of a slow payment provider, and of purchases, which have bounds of their own.
- Product pages, open connections, memory, and (f) restart as a whole: only the log's reading is here.
`, serverCore, loadCore, r.plan.rounds, r.plan.duration, serverCore, loadCore, r.plan.duration.Seconds(), r.plan.users, r.plan.fresh, serverCore, loadCore, readers, &commands)
}

// quietAbove is the share of the machine's cores that others may use.
const quietAbove = 0.05

// othersUse is the share of all cores that was in use over two seconds in which
// this program did nothing; 0 where /proc does not tell.
func othersUse(ctx context.Context) float64 {
	idle, all := cpuTimes()
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	idle2, all2 := cpuTimes()
	if all2 == all {
		return 0
	}
	return 1 - (idle2-idle)/(all2-all)
}

// cpuTimes are the ticks that all cores were idle or waiting, and in total.
func cpuTimes() (idle, all float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(first) {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			continue // "cpu"
		}
		all += ticks
		if i == 4 || i == 5 { // idle, iowait
			idle += ticks
		}
	}
	return idle, all
}

// machine describes where it was measured, a line each.
func machine(t servers.TB, dir string) []string {
	cpu := "unknown CPU"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	say := func(name string, args ...string) string {
		// wrk answers -v with exit code 1.
		out, _ := exec.Command(name, args...).CombinedOutput() //nolint:errcheck // its words are what counts
		first, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(first)
	}
	redis := "Redis"
	for _, word := range strings.Fields(say(servers.Find(t, "redis-server"), "--version")) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			redis = "Redis " + v
		}
	}
	wrk := strings.Fields(say(servers.Find(t, "wrk"), "-v") + " ? ?")
	return []string{
		fmt.Sprintf("%s, %d cores, Linux %s, %s file system", cpu, runtime.NumCPU(), say("uname", "-r"), say("stat", "-f", "-c", "%T", dir)),
		fmt.Sprintf("%s, %s, %s, wrk %s", runtime.Version(), say(servers.Find(t, "nginx"), "-v"), redis, wrk[1]),
	}
}
