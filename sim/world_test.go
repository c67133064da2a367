package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing/synctest"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/stock"
)

// world is one run: the engine, everybody around it, and the oracle.
type world struct {
	seed  uint64
	rng   *rand.Rand
	step  int
	tail  string           // of every name
	trace *strings.Builder // nil unless somebody reads it
	log   *slog.Logger

	// Time. What has passed is the bubble's own time plus what was skipped;
	// the wall clock is that plus its steps.
	begin            time.Time
	skipped, stepped time.Duration

	path   string // of the database
	store  *sqlstore.Store
	disk   *simdisk.Disk
	e      *engine
	faults faults

	oracle   *oracle
	provider *provider
	shoppers *shoppers
	ops      *operators

	fired     map[string]int
	violation string // the first one ends the run
	quiet     bool   // nobody misbehaves: before and after the steps

	film       *film           // of a run that is cut everywhere (cuts_test.go), else nil
	snapshotAt uint64          // entries to a snapshot, 0 is the default
	keepLog    int64           // bytes of log kept for trails
	evening    []time.Duration // the pauses in which it comes to rest
}

// base is when every run begins.
var base = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)

func (w *world) elapsed() time.Duration { return time.Since(w.begin) + w.skipped }
func (w *world) wall() time.Time        { return base.Add(w.elapsed() + w.stepped) }

// long says whether this run is to fill segments rather than meet every rule.
func (w *world) long() bool { return w.tail != "" }

// now is the engine's clock, as shoppers see it.
func (w *world) now() stock.Millis { return stock.MillisOf(w.e.clock.Now()) }

// violate records that a promise was broken. Any goroutine may call it, one at
// a time as everything here.
func (w *world) violate(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
		w.tell("VIOLATION %s", w.violation)
	}
}

// tell writes a line of the trace.
func (w *world) tell(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%4d %10s  %s\n", w.step, w.elapsed().Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// fire counts a kind of fault or misbehaviour that really happened.
func (w *world) fire(kind string) {
	if _, known := kinds[kind]; !known {
		panic("sim: unknown kind " + kind)
	}
	w.fired[kind]++
	w.tell("  * %s", kind)
}

// chance is true in n of m draws.
func (w *world) chance(n, m int) bool { return w.rng.IntN(m) < n }

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

// action is something that can be done in a step, with its weight.
type action struct {
	weight int
	name   string
	do     func()
}

// actions is who may act. Nobody acts on a machine that is down: it is
// restarted first.
func (w *world) actions() []action {
	return []action{
		{14, "commit", w.commit},
		{10, "land", w.land},
		{8, "relay", w.relay},
		{10, "keep", w.keep},
		{4, "life", w.life},
		{3, "compact", func() { w.prove(); w.compact() }},
		{16, "buy", w.shoppers.buy},
		{6, "retry", w.shoppers.retry},
		{2, "another body", w.shoppers.mismatch},
		{3, "double click", w.shoppers.doubleClick},
		{2, "give up", w.shoppers.giveUp},
		{1, "nonsense", w.shoppers.nonsense},
		{12, "pay", w.shoppers.pay},
		{12, "pay page", w.shoppers.payPage},
		{5, "cancel", w.shoppers.cancel},
		{4, "look", w.shoppers.look},
		{10, "callback", w.provider.callback},
		{2, "forge", w.provider.forge},
		{10, "operator", w.ops.act},
		{10, "time", w.passTime},
		{1, "clock step", w.stepClock},
		{4, "arm a fault", w.armFault},
		{1, "crash", w.crashNow},
		{1, "second lander", w.secondLander},
	}
}

// live runs so many steps, then lets everything come to rest and checks that
// it came to rest in the right place.
func (w *world) live(steps int) {
	if !w.found() {
		return
	}
	all := w.actions()
	total := 0
	for _, a := range all {
		total += a.weight
	}
	for w.step = 1; w.step <= steps && w.violation == ""; w.step++ {
		w.rng = rand.New(rand.NewPCG(w.seed, uint64(w.step)))
		draw := w.rng.IntN(total)
		for _, a := range all {
			if draw -= a.weight; draw < 0 {
				w.tell("%s", a.name)
				a.do()
				break
			}
		}
		w.settle()
		w.oracle.check(w.step%8 == 0)
	}
	if w.violation == "" {
		w.rng = rand.New(rand.NewPCG(w.seed, ^uint64(0)))
		w.rest()
	}
}

// settle lets every goroutine run until it waits, takes replies, and replaces
// a machine that went down.
func (w *world) settle() {
	synctest.Wait()
	w.shoppers.replies()
	for tries := 0; w.faults.dark && w.violation == ""; tries++ {
		if tries == 5 {
			w.faults.fuse = 0 // it may come up now
		}
		w.restart()
	}
	patience := 40
	if w.long() {
		patience = 1000 // until the segment is full too
	}
	if w.violation == "" && w.faults.full && w.chance(1, patience) {
		w.tell("the disk has room again")
		w.faults.full = false
		w.disk.Fill(-1)
	}
	if w.violation == "" && w.broken() && w.chance(1, 4) {
		w.tell("an operator restarts the server")
		w.restart()
	}
}

// broken says whether the engine has stopped for good and says so.
func (w *world) broken() bool {
	return w.e.ledger.Failed() != nil || w.e.lander.Stats().Fenced
}

// The steps of the engine's own tasks. Their errors are the business of the
// loop that runs them: it tries again.

func (w *world) commit() {
	before := w.e.ledger.Head()
	_, err := w.e.ledger.Commit(context.Background())
	if err != nil {
		w.tell("  commit: %v", err)
		if errors.Is(err, simdisk.ErrFull) {
			w.fire("disk full")
		}
	}
	synctest.Wait()
	w.oracle.follow()
	w.shoppers.replies()
	if w.e.ledger.Head().Position < before.Position {
		w.violate("the durable head went back from %d", before.Position)
	}
}

func (w *world) land()  { w.run("land", w.e.lander.Step) }
func (w *world) relay() { w.run("relay", w.e.relay.Step) }
func (w *world) keep()  { w.run("keep", w.e.keeper.Step) }

func (w *world) life() {
	w.run("life", func(ctx context.Context) (bool, error) {
		worked, err := w.e.sales.Step(ctx)
		w.ops.unshown = w.ops.unshown && err != nil
		return worked, err
	})
}

func (w *world) compact() {
	w.run("prepare", w.e.ledger.Prepare)
	if w.run("compact", func(ctx context.Context) (bool, error) {
		if mark := w.e.lander.Landed(); mark.Position > 0 {
			if err := w.e.ledger.Trim(ctx, mark); err != nil {
				return false, err
			}
		}
		return w.trim(ctx)
	}) {
		w.fire("snapshot")
	}
}

func (w *world) run(name string, step func(context.Context) (bool, error)) (worked bool) {
	worked, err := step(context.Background())
	if err != nil {
		w.tell("  %s: %v", name, err)
	}
	if errors.Is(err, simdisk.ErrFull) {
		w.fire("disk full")
	}
	return worked
}

func (w *world) passTime() {
	by := pick(w, []time.Duration{time.Millisecond, time.Millisecond, 100 * time.Millisecond, time.Second, time.Second, 5 * time.Second, 20 * time.Second, time.Minute, 5 * time.Minute})
	w.skipped += by
	w.tell("  %s pass", by)
	w.provider.tick()
}

// stepClock steps the wall clock. A running engine must not follow it.
func (w *world) stepClock() {
	by := pick(w, []time.Duration{-time.Hour, time.Hour, -10 * time.Second, 10 * time.Second, -3 * time.Second})
	if w.stepped != 0 && w.chance(1, 2) {
		by = -w.stepped // somebody set it right
	}
	before := w.e.clock.Now()
	w.stepped += by
	if d := w.e.clock.Now().Sub(before); d < 0 || d > time.Second {
		w.violate("the engine's clock followed a step of the wall clock by %s", d)
	}
	if by > 0 {
		w.fire("clock forward")
	} else {
		w.fire("clock back")
	}
}
