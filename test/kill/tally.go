package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"sluice/storm"
)

// tally counts a run.
type tally struct {
	Seed    uint64         `json:"seed"`
	Points  []pointTally   `json:"points"`
	Random  map[string]int `json:"random"` // kills from outside, by what the server was to do
	Clean   int            `json:"clean_stops"`
	Cycles  int            `json:"cycles"` // starts that ended by a kill
	Storms  int            `json:"storms"`
	Houses  int            `json:"data_directories"`
	Seconds float64        `json:"seconds"`

	Requests    uint64 `json:"requests"`     // purchases sent, with second clicks, retries and replays
	Accepted    int    `json:"accepted"`     // distinct reservations acknowledged
	Paid        int    `json:"paid"`         // orders, at the end of their storm
	Rechecked   int64  `json:"rechecked"`    // receipts asked for again after a restart or after the rush
	Unknown     int    `json:"unknown"`      // keys of which some reply never came
	UnknownHeld int    `json:"unknown_held"` // of these, found to have been accepted

	OutageMS   Spread         `json:"outage_ms"` // from a kill to the next definite answer to a shopper
	ReadyMS    Spread         `json:"ready_ms"`  // from a start to readiness
	Outages    int            `json:"outages"`
	Errors     map[string]int `json:"logged_errors"` // by message; none of these is a violation
	Notes      []string       `json:"notes,omitempty"`
	Violations []Violation    `json:"violations"`

	outages, readies []float64
}

// pointTally is one point's.
type pointTally struct {
	Name   string `json:"name"`
	When   string `json:"when"`
	Armed  int    `json:"armed"`
	Kills  int    `json:"kills"`
	chosen bool
}

// Spread of a measure.
type Spread struct {
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// Violation is a sentence and how to have the storm that it is about again.
type Violation struct {
	Storm int    `json:"storm"`
	Again string `json:"again"`
	Text  string `json:"text"`
}

func newTally(p planner) *tally {
	t := &tally{Seed: p.seed, Random: map[string]int{}, Errors: map[string]int{}, Violations: []Violation{}}
	for _, at := range places {
		t.Points = append(t.Points, pointTally{Name: at.name, When: at.when.String(), chosen: p.points == nil || p.points.MatchString(at.name)})
	}
	return t
}

func (t *tally) ready(took time.Duration) {
	t.readies = append(t.readies, float64(took.Microseconds())/1000)
}

// died counts the end of a life: at its point, from outside, or in order.
func (t *tally) died(l life, atPoint, clean bool) {
	what := "at random"
	if l.at != nil {
		at := &t.Points[slices.IndexFunc(t.Points, func(p pointTally) bool { return p.Name == l.at.name })]
		at.Armed++
		if atPoint {
			at.Kills++
		}
		what = "point not reached in time"
	}
	switch {
	case clean:
		t.Clean++
		return
	case !atPoint:
		t.Random[what]++
	}
	t.Cycles++
}

// storm adds what a storm reported.
func (t *tally) storm(r storm.Report) {
	t.Storms++
	t.Requests += r.Attempts
	t.Accepted += r.Accepted
	t.Paid += r.Orders["paid"]
	t.Rechecked += r.Rechecked
	t.Unknown += r.Unknown
	t.UnknownHeld += r.UnknownHeld
	t.outages = append(t.outages, r.OutagesMS...)
}

// close works out what is known at the end only.
func (t *tally) close(took time.Duration) {
	t.Seconds, t.Outages = took.Seconds(), len(t.outages)
	t.OutageMS, t.ReadyMS = spread(t.outages), spread(t.readies)
}

func spread(all []float64) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(q float64) float64 { return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)] }
	return Spread{at(0.5), at(0.99), sorted[len(sorted)-1]}
}

// never are the chosen points that no kill has happened at.
func (t *tally) never() (names []string) {
	for _, p := range t.Points {
		if p.chosen && p.Kills == 0 {
			names = append(names, p.Name)
		}
	}
	return names
}

// write prints the tally for people, the table as Markdown. Points that had no
// turn are left out.
func (t *tally) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("| killed\t| while\t| kills\t|")
	line("|---\t|---\t|---\t|")
	for _, p := range t.Points {
		if p.Armed > 0 {
			line("| %s\t| %s\t| %d\t|", p.Name, p.When, p.Kills)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(t.Random)) {
		line("| (%s)\t| any time\t| %d\t|", what, t.Random[what])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, `
seed %d: %d kills in %d storms on %d data directories, %.0f s; %d stops in order instead
%d requests, %d acceptances, %d orders paid
%d promises checked again; %d keys with an unknown answer, of which %d turned out accepted
without service: median %.0f ms, p99 %.0f ms, longest %.0f ms, %d times; start until ready: median %.0f ms, p99 %.0f ms
`, t.Seed, t.Cycles, t.Storms, t.Houses, t.Seconds, t.Clean, t.Requests, t.Accepted, t.Paid, t.Rechecked, t.Unknown, t.UnknownHeld,
		t.OutageMS.Median, t.OutageMS.P99, t.OutageMS.Max, t.Outages, t.ReadyMS.Median, t.ReadyMS.P99)
	for _, what := range slices.SortedFunc(maps.Keys(t.Errors), func(a, b string) int { return cmp.Compare(t.Errors[b], t.Errors[a]) }) {
		fmt.Fprintf(out, "logged %d times: %s\n", t.Errors[what], what)
	}
	for _, n := range t.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	if never := t.never(); len(never) > 0 {
		fmt.Fprintf(out, "no kill yet at %d points\n", len(never))
	}
	_, err := fmt.Fprintf(out, "%d violations\n", len(t.Violations))
	again := ""
	for _, v := range t.Violations {
		if v.Again != again {
			again = v.Again
			fmt.Fprintf(out, "storm %d, again with: %s\n", v.Storm, again)
		}
		fmt.Fprintf(out, "  - %s\n", v.Text)
	}
	return err
}
