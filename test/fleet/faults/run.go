package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"sluice/storm"
	"sluice/test/overlay"
)

// settings of a run.
type settings struct {
	root     string // of the module
	binary   string // "": it is built
	dir      string // where fleets are put up
	seed     uint64
	users    int // 0: as many as each storm needs
	stock    int // likewise
	faults   *regexp.Regexp
	kinds    []kind
	size     size
	big      bool
	bug      *plant
	progress io.Writer
}

const firstShown = 5 // violations of a storm, as they come; the tally has all

var (
	errFound = errors.New("violations were found")
	errNever = errors.New("faults that did not take place")
)

// run plays all faults. The tally is there also beside an error.
func run(ctx context.Context, s settings) (t *tally, err error) {
	began := time.Now()
	t = newTally(s)
	work, err := os.MkdirTemp(s.dir, "fleet-")
	if err != nil {
		return t, err
	}
	defer func() {
		t.Seconds = time.Since(began).Seconds()
		if len(t.Violations) == 0 && !errors.Is(err, errNever) {
			err = errors.Join(err, os.RemoveAll(work))
			return
		}
		t.Kept = work
	}()
	if s.binary == "" {
		if s.binary, err = build(ctx, s.root, work, s.bug); err != nil {
			return t, err
		}
		fmt.Fprintf(s.progress, "built in %s\n", time.Since(began).Round(time.Second))
	}
	for _, k := range s.kinds {
		if err := s.on(ctx, t, k, work); err != nil {
			return t, err
		}
	}
	if never := t.never(); len(never) > 0 {
		return t, fmt.Errorf("%w: %q", errNever, never)
	}
	if len(t.Violations) > 0 {
		return t, errFound
	}
	return t, nil
}

// sizeOf is the size of a kind of fleet. A full one has so many servers that
// fewer processes of ours are left room for.
func (s settings) sizeOf(k kind) size {
	if k != full {
		return s.size
	}
	return size{gateways: min(s.size.gateways, 2), workers: min(s.size.workers, 2), buckets: min(s.size.buckets, 4)}
}

// storms are the faults of each storm on a kind of fleet.
func (s settings) storms(k kind) (all [][]*fault) {
	for i := range faults {
		f := &faults[i]
		switch {
		case !f.playable(k) || s.faults != nil && !s.faults.MatchString(f.name), s.big && !slices.Contains(f.big, k):
		case s.big && len(all) > 0:
			all[0] = append(all[0], f)
		default:
			all = append(all, []*fault{f})
		}
	}
	return all
}

// on plays the faults of one kind of fleet. What is found wrong ends a fleet,
// since it may be the cause of more.
func (s settings) on(ctx context.Context, t *tally, k kind, work string) (err error) {
	var st *stage
	defer func() {
		if st != nil {
			st.End()
		}
	}()
	for _, list := range s.storms(k) {
		if st == nil {
			began := time.Now()
			if st, err = open(k, s.sizeOf(k), s.binary, work); err != nil {
				return fmt.Errorf("start the %s fleet: %w", k, err)
			}
			fmt.Fprintf(s.progress, "%s: %d gateways, %d workers, %d buckets, up in %s; logs in %s\n", k, len(st.Gateways), len(st.Workers), s.sizeOf(k).buckets,
				time.Since(began).Round(100*time.Millisecond), st.Root)
		}
		known := len(t.Violations)
		if err := s.storm(ctx, t, st, list); err != nil {
			return err
		}
		if len(t.Violations) > known {
			st.End()
			st = nil
		}
	}
	return nil
}

// storm is one storm with its faults. An error is of the harness; what the
// fleet does wrong is a violation.
func (s settings) storm(ctx context.Context, t *tally, st *stage, list []*fault) error {
	sc := &scene{stage: st, n: s.sizeOf(st.kind)}
	for _, f := range list {
		sc.acts = append(sc.acts, &act{fault: f})
	}
	began := time.Now()
	report, err := storm.Run(ctx, s.shape(st, len(t.Rows), list, sc), nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	found := append(report.Violations, sc.wrong...)
	if err != nil {
		found = append(found, err.Error())
	}
	if err := st.running(); err != nil {
		found = append(found, err.Error())
	}
	wrong, errs, err := st.heard()
	if err != nil {
		return err
	}
	t.add(s, sc, report, append(found, wrong...), errs)
	for _, a := range sc.acts {
		fmt.Fprintf(s.progress, "%s, %s: fired %d, well again after %s; at last: %s\n", st.kind, a.fault.name, a.fired, a.whole.Round(10*time.Millisecond), a.last)
	}
	fmt.Fprintf(s.progress, "  %d accepted, %d refused while pending, %d violations, %s\n", report.Accepted, report.Refusals, len(found)+len(wrong), time.Since(began).Round(100*time.Millisecond))
	for i, v := range append(found, wrong...) {
		if i < firstShown {
			fmt.Fprintf(s.progress, "  - %s\n", v)
		}
	}
	// A fleet that keeps what is over for ever would be slower with each storm.
	if err := st.ask(ctx, http.MethodPost, "/v1/activities/"+report.Activity+"/close", nil); err != nil && len(found) == 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("%s could not be closed: %v", report.Activity, err))
	}
	return nil
}

// shape is the storm: as many units as are paid for during its faults, of the
// rest every second comes back, so that each fault meets a sale; and not many
// more, which would have to be sold off afterwards.
func (s settings) shape(st *stage, number int, list []*fault, sc *scene) storm.Options {
	lasts, queue := before, false
	for _, f := range list {
		lasts += before + after + time.Duration(cmp.Or(f.lasts, 5))*time.Second
		queue = queue || f.queue
	}
	const rate, paid = 80, 40
	o := storm.Options{
		Target: st.URL(), Ops: st.Console.Ops, OpsToken: opsToken, Data: st.Root,
		Users: 200 * int(lasts.Seconds()), Stock: 250 + rate*paid/100*int(lasts.Seconds()), Rate: rate, Connections: 24, Hold: 4, Duration: 3 * time.Minute,
		Pay: paid, Abandon: 25, Cancel: 35, Misbehave: 10, DoubleClick: 3, Replay: 30, Greedy: 5, Forge: 1, Lose: 2,
		Seed: s.seed + uint64(number)*1_000_003 + 1, Linearize: time.Minute, Buckets: sc.n.buckets, Lag: 500 * time.Millisecond, Queue: queue,
		Supervisor: func(ctx context.Context, w *storm.Watch) error { return sc.supervise(ctx, w) },
	}
	if s.big {
		o.Users, o.Stock, o.Rate, o.Connections, o.Duration, o.Hold = 100_000, 5000, 500, 128, 10*time.Minute, 10
		o.Pay, o.Abandon, o.Cancel = 10, 45, 45
	}
	if s.big && st.kind == full { // it has twice the servers on the same machine
		o.Users, o.Stock, o.Rate, o.Connections = 30_000, 3000, 250, 64
	}
	if s.users > 0 {
		o.Users = s.users
	}
	if s.stock > 0 {
		o.Stock = s.stock
	}
	return o
}

// build compiles the program from the module at root, with a planted bug if
// one is given.
func build(ctx context.Context, root, dir string, bug *plant) (binary string, err error) {
	if binary, err = filepath.Abs(filepath.Join(dir, "sluice")); err != nil {
		return "", err
	}
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if bug != nil {
		file, err := overlay.Write(root, dir, bug.edits)
		if err != nil {
			return "", fmt.Errorf("the planted bug: %w", err)
		}
		args = append(args, "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/sluice")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
}
