package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/storm"
	"sluice/test/fleet"
	"sluice/test/overlay"
)

const root = "../../.."

func small(t *testing.T, names string) settings {
	return settings{root: root, dir: t.TempDir(), seed: 5, kinds: []kind{single}, size: size{gateways: 2, workers: 2, buckets: 2},
		faults: regexp.MustCompile(names), progress: testLog{t}}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

// A planted bug whose text is not in the code any more is found here, not in
// the next long run.
func TestPlantsFit(t *testing.T) {
	for _, p := range plants {
		if _, err := overlay.Apply(root, p.edits); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		if planted(p.name) == nil {
			t.Errorf("%s is not found by its name", p.name)
		}
	}
}

// Every fault has a fleet to be played on, and a name of its own; the filter and
// the big run choose as they say.
func TestStorms(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults {
		if f.play == nil || len(f.on) == 0 || names[f.name] {
			t.Errorf("%q: no fleet, nothing to do, or twice", f.name)
		}
		names[f.name] = true
	}
	f := func(s settings, k kind, storms, acts int) {
		t.Helper()
		all := s.storms(k)
		if n := len(slices.Concat(all...)); len(all) != storms || n != acts {
			t.Errorf("%d storms of %d faults, want %d of %d", len(all), n, storms, acts)
		}
	}
	f(settings{big: true}, cluster, 1, 6)
	f(settings{big: true}, full, 1, 4)
	f(settings{faults: regexp.MustCompile("^network")}, single, 4, 4)
	f(settings{faults: regexp.MustCompile("^network")}, cluster, 0, 0)
	if n := (settings{kinds: every, faults: regexp.MustCompile("^network")}).chosen(); n != 4 {
		t.Errorf("%d storms are chosen of all kinds, want 4", n)
	}
}

// A fault that did nothing is told of.
func TestNever(t *testing.T) {
	f := func(r Row, want bool) {
		t.Helper()
		r.first = true
		if got := len((&tally{Rows: []Row{r}}).never()) > 0; got != want {
			t.Errorf("%+v: %v", r, got)
		}
	}
	f(Row{Fired: 1}, false)
	f(Row{}, true)
	f(Row{Fired: 1, rebuilds: true}, true)
	f(Row{Fired: 1, rebuilds: true, Rebuilt: 1}, false)
	f(Row{Fired: 1, loses: true}, true)
	f(Row{Fired: 1, loses: true, PendingEnded: 1}, false)
}

// What a process logs decides which lines of it are violations.
func TestJudge(t *testing.T) {
	errs := map[string]int{}
	wrong := judge(`time=x level=INFO msg="bucket rebuilt" log=a/0
time=x level=ERROR msg=alarm kind=refused_by_book order=1
time=x level=ERROR msg=alarm kind=settle_violation order=2
time=x level=ERROR msg="task is failing" task="order keeper" err=x
panic: impossible
`, errs)
	if len(wrong) != 2 || !strings.Contains(wrong[0], "settle_violation") || !strings.Contains(wrong[1], "panic") {
		t.Errorf("%q", wrong)
	}
	if len(errs) != 2 || errs["alarm refused_by_book"] != 1 || errs["task is failing order keeper"] != 1 {
		t.Errorf("%v", errs)
	}
}

func TestReadMetric(t *testing.T) {
	m, ok := readMetric(`sluice_bucket_state{activity="storm-x",bucket="3",state="serving"} 1`)
	if !ok || m.name != "bucket_state" || m.value != 1 || m.labels["activity"] != "storm-x" || m.labels["bucket"] != "3" || m.labels["state"] != "serving" {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := readMetric("sluice_worker_number 7"); !ok || m.name != "worker_number" || m.value != 7 {
		t.Errorf("%+v, %v", m, ok)
	}
	for _, line := range []string{"", "# HELP x y", "sluice_x", "sluice_x nothing"} {
		if m, ok := readMetric(line); ok {
			t.Errorf("%q: %+v", line, m)
		}
	}
}

// The table tells of each storm once, and how to have it again.
func TestTally(t *testing.T) {
	s := settings{seed: 9}
	tl := newTally(s)
	sc := &scene{stage: &stage{kind: cluster, Fleet: &fleet.Fleet{}}, acts: []*act{
		{fault: &faults[0], fired: 1, whole: time.Second}, {fault: &faults[1], fired: 2, epoch: 3, worst: 70, marks: []string{"late"}}}}
	tl.add(s, sc, storm.Report{Accepted: 12, Rechecked: 5, Faults: []*storm.Fault{{AllMS: 40}, {AllMS: 30}}}, []string{"it is wrong"}, map[string]int{"e": 1})
	if a, b := tl.Rows[0], tl.Rows[1]; a.Accepted != 12 || a.UnavailableMS != 40 || b.UnavailableMS != 30 || b.Accepted != 0 || b.Rebuilt != 3 || a.Violations != 1 || b.Violations != 0 {
		t.Errorf("%+v\n%+v", a, b)
	}
	var text strings.Builder
	if err := tl.write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| gateway killed ", "it is wrong", "-seed 9 -on cluster -fault '^(gateway killed|kafka broker killed)$'", "kafka broker killed: late", "1 violations"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

// A fleet that cannot be started is an error of the run, with what it said.
func TestNoFleet(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sluice")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho the disk is gone; exit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := small(t, "^redis restarted empty$")
	s.binary = binary
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if _, err := run(ctx, s); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("the run ended with %v", err)
	}
}
