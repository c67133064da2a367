package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/storm"
)

// tally counts a run.
type tally struct {
	Seed       uint64         `json:"seed"`
	Seconds    float64        `json:"seconds"`
	Rows       []Row          `json:"faults"`
	Requests   uint64         `json:"requests"`
	Unknown    int            `json:"unknown"`       // keys of which some reply never came
	Errors     map[string]int `json:"logged_errors"` // by message; none of these is a violation
	Notes      []string       `json:"notes,omitempty"`
	Violations []Violation    `json:"violations"`
	Kept       string         `json:"kept,omitempty"` // where data and logs of fleets with violations are
}

// Row is one fault. What a storm counts is in the first row of its faults,
// where it had several.
type Row struct {
	Fault         string   `json:"fault"`
	Fleet         kind     `json:"fleet"`
	Fired         int      `json:"fired"`
	Accepted      int      `json:"accepted"`        // distinct reservations acknowledged
	PendingEnded  int      `json:"pending_refused"` // of these refused while they were pending, which is legal
	Rechecked     int64    `json:"rechecked"`       // promises asked for again behind the fault and at the end
	Violations    int      `json:"violations"`
	Failed        int      `json:"failed"`         // requests without an answer, or told to come again
	UnavailableMS float64  `json:"unavailable_ms"` // longest time in which no shopper at all was served
	BucketMS      float64  `json:"bucket_ms"`      // and none of some bucket
	Rebuilt       int      `json:"rebuilt"`        // buckets
	RecoveryMS    float64  `json:"recovery_ms"`    // longest of these, from when it was noticed
	WholeMS       float64  `json:"whole_ms"`       // from the first blow until each process was ready and each bucket served, its own length included
	Marks         []string `json:"marks,omitempty"`
	first         bool
	loses         bool
	rebuilds      bool
}

// Violation is a sentence and how to have the storm that it is about again.
type Violation struct {
	Faults []string `json:"faults"`
	Again  string   `json:"again"`
	Text   string   `json:"text"`
}

func newTally(s settings) *tally {
	return &tally{Seed: s.seed, Errors: map[string]int{}, Rows: []Row{}, Violations: []Violation{}}
}

// add takes a storm in.
func (t *tally) add(s settings, sc *scene, r storm.Report, wrong []string, errs map[string]int) {
	t.Requests += r.Attempts
	t.Unknown += r.Unknown
	for what, n := range errs {
		t.Errors[what] += n
	}
	var names []string
	for i, a := range sc.acts {
		names = append(names, a.fault.name)
		row := Row{Fault: a.fault.name, Fleet: sc.kind, Fired: a.fired, Rebuilt: a.epoch, RecoveryMS: a.worst, Marks: a.marks, first: i == 0,
			WholeMS: float64(a.whole.Microseconds()) / 1000, loses: a.fault.loses, rebuilds: a.fault.rebuilds}
		if row.first {
			row.Accepted, row.PendingEnded, row.Rechecked, row.Violations = r.Accepted, r.Refusals, r.Rechecked, len(wrong)
		}
		if i < len(r.Faults) { // the storm has each once, however many blows it was
			f := r.Faults[i]
			row.Failed, row.UnavailableMS, row.BucketMS = f.Failed, f.AllMS, f.OneMS
		}
		t.Rows = append(t.Rows, row)
	}
	for _, n := range r.Notes {
		t.Notes = append(t.Notes, fmt.Sprintf("%s: %s", strings.Join(names, ", "), n))
	}
	for _, text := range wrong {
		t.Violations = append(t.Violations, Violation{names, again(s, sc.kind, names), text})
	}
}

func again(s settings, k kind, names []string) string {
	line := fmt.Sprintf("go run ./test/fleet/faults -seed %d -on %s", s.seed, k)
	switch {
	case s.big:
		line += " -big"
	default:
		line += fmt.Sprintf(" -fault '^(%s)$'", strings.Join(names, "|"))
	}
	return line
}

// never are the faults that did not do what they are for.
func (t *tally) never() (names []string) {
	for _, r := range t.Rows {
		switch {
		case r.Fired == 0:
			names = append(names, r.Fault)
		case r.rebuilds && r.Rebuilt == 0:
			names = append(names, r.Fault+" (nothing had to be rebuilt)")
		case r.loses && r.first && r.PendingEnded == 0:
			names = append(names, r.Fault+" (nothing was lost)")
		}
	}
	return names
}

// write prints the tally for people, the table as Markdown.
func (t *tally) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("| fault\t| on\t| fired\t| accepted\t| refused while pending\t| rechecked\t| violations\t| failed\t| nobody served, ms\t| nobody of a bucket, ms\t| rebuilt\t| rebuilding, ms\t| whole after, s\t|")
	line("|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range t.Rows {
		storm := [4]string{}
		if r.first {
			storm = [4]string{fmt.Sprint(r.Accepted), fmt.Sprint(r.PendingEnded), fmt.Sprint(r.Rechecked), fmt.Sprint(r.Violations)}
		}
		line("| %s\t| %s\t| %d\t| %s\t| %s\t| %s\t| %s\t| %d\t| %.0f\t| %.0f\t| %d\t| %.0f\t| %.1f\t|", r.Fault, r.Fleet, r.Fired,
			storm[0], storm[1], storm[2], storm[3], r.Failed, r.UnavailableMS, r.BucketMS, r.Rebuilt, r.RecoveryMS, r.WholeMS/1000)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nseed %d, %s; %d purchases sent, %d keys with an unknown answer\n", t.Seed, time.Duration(t.Seconds*float64(time.Second)).Round(time.Second),
		t.Requests, t.Unknown)
	for _, r := range t.Rows {
		if len(r.Marks) > 0 {
			fmt.Fprintf(out, "%s, %s: %s\n", r.Fleet, r.Fault, strings.Join(r.Marks, ", "))
		}
	}
	for _, what := range slices.SortedFunc(maps.Keys(t.Errors), func(a, b string) int { return cmp.Compare(t.Errors[b], t.Errors[a]) }) {
		fmt.Fprintf(out, "logged %d times: %s\n", t.Errors[what], what)
	}
	for _, n := range t.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	_, err := fmt.Fprintf(out, "%d violations\n", len(t.Violations))
	last := ""
	for _, v := range t.Violations {
		if v.Again != last {
			last = v.Again
			fmt.Fprintf(out, "%s; again with: %s\n", strings.Join(v.Faults, ", "), last)
		}
		fmt.Fprintf(out, "  - %s\n", v.Text)
	}
	if t.Kept != "" {
		fmt.Fprintf(out, "data and logs are kept in %s\n", t.Kept)
	}
	return err
}
