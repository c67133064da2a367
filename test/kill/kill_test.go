package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A short run of what make kill does: some kills at points, some at random.
func TestKills(t *testing.T) {
	t.Parallel()
	const kills = 10
	got, err := run(t.Context(), settings{root: root, dir: t.TempDir(), seed: 5, kills: kills, only: -1, progress: testLog{t}})
	if err != nil {
		t.Error(err)
	}
	for _, v := range got.Violations {
		t.Errorf("%s\nagain: %s", v.Text, v.Again)
	}
	atPoints := 0
	for _, p := range got.Points {
		atPoints += p.Kills
	}
	if got.Cycles != kills || atPoints < 3 || got.Random["at random"] == 0 || got.Storms != 1 {
		t.Errorf("%d kills, %d at points, others %v, %d storms", got.Cycles, atPoints, got.Random, got.Storms)
	}
	if got.Accepted == 0 || got.Paid == 0 || got.Rechecked == 0 || got.Unknown == 0 || got.Outages == 0 || got.OutageMS.Max <= 0 {
		t.Errorf("some of it never happened: %+v", got)
	}
	var text strings.Builder
	if err := got.write(&text); err != nil {
		t.Error(err)
	}
	t.Log(text.String())
}

// The harness reports what a kill brings to light.
func TestPlantedBugIsFound(t *testing.T) {
	t.Parallel()
	bug := planted("answers from memory")
	got, err := run(t.Context(), settings{root: root, dir: t.TempDir(), seed: 5, kills: 6, only: -1, bug: bug,
		points: regexp.MustCompile("^log: batch taken"), progress: testLog{t}})
	if !errors.Is(err, errFound) {
		t.Errorf("the run ended with %v", err)
	}
	lost := 0
	for _, v := range got.Violations {
		if strings.HasPrefix(v.Text, "lost order") || strings.HasPrefix(v.Text, "key ") {
			lost++
		}
		if !strings.Contains(v.Again, "-seed 5 ") {
			t.Errorf("how to make it again: %q", v.Again)
		}
	}
	if lost == 0 {
		t.Errorf("acceptances were answered from memory, and of %d violations none says that one is lost", len(got.Violations))
	}
	t.Logf("%d violations, %d of lost acceptances", len(got.Violations), lost)
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

// A storm is a function of seed and number, a third of its kills is at random,
// and a full run gives every point several turns.
func TestPlan(t *testing.T) {
	p := planner{seed: 9, kills: perStorm - 1}
	turns, random, all := map[string]int{}, 0, 0
	for storm := range 1000 / perStorm {
		lives := p.lives(storm)
		if storm%perHouse == 0 {
			lives = append(lives, p.founding(storm/perHouse)...)
		}
		again := p.lives(storm)
		for i, l := range lives {
			if i < len(again) && l != again[i] {
				t.Errorf("storm %d, life %d: %s, and then %s", storm, i, l, again[i])
			}
			all++
			if l.at == nil {
				random++
				continue
			}
			turns[l.at.name]++
			if l.n < 1 || l.n > l.at.most || (l.at.when == stopping) != l.term {
				t.Errorf("%s: %+v", l, l)
			}
		}
	}
	if random < all/3 || random > all/2 {
		t.Errorf("%d of %d kills at random", random, all)
	}
	for _, at := range places {
		if turns[at.name] < 5 {
			t.Errorf("%q has %d turns in a full run", at.name, turns[at.name])
		}
	}
	only := planner{seed: 9, kills: 5, points: regexp.MustCompile("^landing")}
	for _, l := range only.lives(0) {
		if l.at != nil && !strings.HasPrefix(l.at.name, "landing") {
			t.Errorf("chosen against the filter: %s", l)
		}
	}
	if lives := only.founding(0); len(lives) != 1 {
		t.Errorf("no point of founding is chosen, and %v", lives)
	}
	if first, other := (planner{seed: 1, kills: 9}).lives(0), (planner{seed: 2, kills: 9}).lives(0); first[0] == other[0] && first[1] == other[1] {
		t.Error("the seed makes no difference")
	}
}

// What the server logs decides which sentences of it are violations.
func TestHeard(t *testing.T) {
	h := &house{data: t.TempDir()}
	text := `time=x level=INFO msg="ledger recovered" position=1
time=x level=ERROR msg=alarm kind=second_capture order=1
time=x level=ERROR msg=alarm kind=settle_violation order=2
time=x level=ERROR msg="task is failing" task="order keeper" err=x
panic: impossible
`
	if err := os.WriteFile(h.log(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong, errs, err := h.heard()
	if err != nil || len(wrong) != 2 || !strings.Contains(wrong[0], "settle_violation") || !strings.Contains(wrong[1], "panic") {
		t.Errorf("%q, %v", wrong, err)
	}
	if len(errs) != 2 || errs["alarm second_capture"] != 1 || errs["task is failing order keeper"] != 1 {
		t.Errorf("%v", errs)
	}
	if wrong, _, err := h.heard(); len(wrong) != 0 || err != nil {
		t.Errorf("heard twice: %q, %v", wrong, err)
	}
	if _, _, err := (&house{data: filepath.Join(h.data, "none")}).heard(); err == nil {
		t.Error("a log that is not there")
	}
}

func TestTally(t *testing.T) {
	tl := newTally(planner{})
	at := &places[0]
	tl.died(life{at: at, n: 1}, true, false)
	tl.died(life{at: at, n: 1}, false, false)
	tl.died(life{}, false, false)
	tl.died(life{term: true}, false, true)
	if p := tl.Points[0]; p.Armed != 2 || p.Kills != 1 || tl.Cycles != 3 || tl.Clean != 1 || tl.Random["at random"] != 1 || len(tl.Random) != 2 {
		t.Errorf("%+v of %+v", p, tl)
	}
	if never := tl.never(); len(never) != len(places)-1 {
		t.Errorf("%d points without a kill", len(never))
	}
	tl.outages = []float64{3, 1, 2, 100}
	tl.close(time.Second)
	if want := (Spread{3, 100, 100}); tl.OutageMS != want || tl.Outages != 4 || tl.ReadyMS != (Spread{}) {
		t.Errorf("%+v", tl)
	}
}

// A server that ends by anything but the kill is called out.
func TestStrangeEnd(t *testing.T) {
	f := func(script, want string, lives ...life) {
		t.Helper()
		dir := t.TempDir()
		binary := filepath.Join(dir, "server")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := newHouse(binary, dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &supervisor{h: h, tally: newTally(planner{}), lives: lives}
		if err := s.run(t.Context(), deaf{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want it to say %q", script, err, want)
		}
		if !s.alive.gone() {
			s.alive.kill()
			t.Errorf("%q: it lives", script)
		}
	}
	f("echo the disk is gone; exit 3", "exit status 3")
	f("echo the disk is gone; exit 3", "the disk is gone", life{at: &places[0], n: 1})
	f("kill -TERM $$", "signal terminated", life{after: time.Minute})
}
