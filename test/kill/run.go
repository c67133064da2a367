package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sluice/storm"
)

// settings of a run.
type settings struct {
	root     string // of the module
	dir      string // where data directories are made
	seed     uint64
	kills    int
	only     int // number of the storm whose data directory alone is made, -1 = all
	points   *regexp.Regexp
	bug      *plant
	progress io.Writer
}

// everyPoint is from how many kills on a point that was never reached fails
// the run: by then each has had several turns.
func everyPoint() int { return 10 * len(places) }

var errFound = errors.New("violations were found")

// run makes all storms. The tally is there also beside an error.
func run(ctx context.Context, s settings) (t *tally, err error) {
	plan := planner{seed: s.seed, points: s.points, kills: min(perStorm, s.kills) - 1} // and the life it begins with
	t = newTally(plan)
	work, err := os.MkdirTemp(s.dir, "kill-")
	if err != nil {
		return t, err
	}
	began := time.Now()
	defer func() {
		t.close(time.Since(began))
		if len(t.Violations) == 0 {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	binary, err := build(ctx, s.root, work, s.bug)
	if err != nil {
		return t, err
	}
	fmt.Fprintf(s.progress, "built in %s\n", time.Since(began).Round(time.Second))
	for first := 0; t.Cycles < s.kills; first += perHouse {
		if s.only >= 0 {
			first = s.only - s.only%perHouse
		}
		if err := one(ctx, s, plan, t, binary, filepath.Join(work, fmt.Sprintf("data-%d", first)), first); err != nil {
			return t, err
		}
		if s.only >= 0 {
			break
		}
	}
	if never := t.never(); s.only < 0 && s.kills >= everyPoint() && len(never) > 0 {
		return t, fmt.Errorf("no kill at %d points: %q", len(never), never)
	}
	if len(t.Violations) > 0 {
		return t, fmt.Errorf("%w; the data directories are kept in %s", errFound, work)
	}
	return t, nil
}

// one data directory with its storms, from number first on. An error is of the
// harness; what the server does wrong is a violation.
func one(ctx context.Context, s settings, plan planner, t *tally, binary, data string, first int) error {
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	h, err := newHouse(binary, data)
	if err != nil {
		return err
	}
	t.Houses++
	v := &supervisor{h: h, tally: t, lives: plan.founding(first / perHouse)}
	defer func() {
		if v.alive != nil {
			v.alive.kill()
		}
	}()
	if err := v.run(ctx, deaf{}); err != nil {
		t.found(s, first, err)
		return ctx.Err()
	}
	number := first
	for last := first + perHouse - 1; ; number++ {
		v.lives = plan.lives(number)
		if left := s.kills - t.Cycles - 1; len(v.lives) > left {
			v.lives = v.lives[:left]
		}
		if err := stormed(ctx, s, t, v, number); err != nil {
			return err
		}
		// A server that did not come back: nothing more can be learnt here.
		if number == last || t.Cycles >= s.kills || v.alive.gone() {
			break
		}
	}
	if !v.alive.gone() {
		t.found(s, number, h.stop(v.alive))
	}
	t.found(s, number, h.audit(ctx))
	if len(t.Violations) > 0 {
		return nil
	}
	return os.RemoveAll(data)
}

// stormed is one storm on a running server, with its kills.
func stormed(ctx context.Context, s settings, t *tally, v *supervisor, number int) error {
	begun, before, known := time.Now(), t.Cycles, len(t.Violations)
	report, err := storm.Run(ctx, shape(s.seed, number, len(v.lives)+1, v.h, v.Run), nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.found(s, number, err)
	t.storm(report)
	for _, sentence := range report.Violations {
		t.found(s, number, errors.New(sentence))
	}
	for _, note := range report.Notes {
		t.Notes = append(t.Notes, fmt.Sprintf("storm %d: %s", number, note))
	}
	for _, err := range v.wrong {
		t.found(s, number, err)
	}
	v.wrong = nil
	alarmed, errs, err := v.h.heard()
	if err != nil {
		return err
	}
	for _, line := range alarmed {
		t.found(s, number, errors.New(line))
	}
	for what, n := range errs {
		t.Errors[what] += n
	}
	_, err = fmt.Fprintf(s.progress, "storm %d: %d kills, %d in all; %d accepted, %d unknown; %d violations; %s\n", number, t.Cycles-before, t.Cycles,
		report.Accepted, report.Unknown, len(t.Violations)-known, time.Since(begun).Round(100*time.Millisecond))
	return err
}

// found adds a violation, with how to make its storm again; nil is none.
func (t *tally) found(s settings, number int, what error) {
	if what == nil {
		return
	}
	again := fmt.Sprintf("go run ./test/kill -seed %d -n %d -storm %d", s.seed, s.kills, number)
	if s.points != nil {
		again += fmt.Sprintf(" -points '%s'", s.points)
	}
	t.Violations = append(t.Violations, Violation{number, again, what.Error()})
}

// shape is the storm of a number: three sales with enough units for all its
// kills, then one whose few units come back and are taken again.
func shape(seed uint64, number, kills int, h *house, v storm.Supervisor) storm.Options {
	o := storm.Options{
		Target: "http://" + h.shopper, Ops: "http://" + h.ops, OpsToken: opsToken, Data: h.data,
		Users: 8000, Stock: 100 * kills, Rate: 160, Connections: 16, Hold: 2, Duration: max(5*time.Duration(kills)*time.Second, 20*time.Second),
		Pay: 60, Abandon: 20, Cancel: 20, Misbehave: 25, DoubleClick: 3, Replay: 30, Greedy: 10, Forge: 1, Lose: 3,
		Seed: seed + uint64(number)*1_000_003 + 1, Supervisor: v, Linearize: time.Minute,
	}
	if number%4 == 3 {
		o.Stock, o.Users, o.Rate, o.Pay, o.Abandon, o.Cancel = 10*kills, 2000, 250, 12, 44, 44
	}
	return o
}
