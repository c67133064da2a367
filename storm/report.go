package storm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is the outcome of a rehearsal, as printed with --json.
type Report struct {
	Attempts  uint64            `json:"attempts"` // purchases sent: the schedule's, second clicks, retries and replays
	Accepted  int               `json:"accepted"` // distinct reservations acknowledged
	Sold      int               `json:"sold"`     // held + confirmed at the end
	Refused   map[string]uint64 `json:"refused"`  // by code
	Errors    uint64            `json:"errors"`   // attempts without an answer that decides anything
	LatencyMS Latency           `json:"latency_ms"`
	Orders    map[string]int    `json:"orders"` // by state
	Proof     Proof             `json:"proof"`

	Activity      string         `json:"activity"`
	Users         int            `json:"users"`
	Stock         int            `json:"stock"`
	Seconds       float64        `json:"seconds"` // length of the rush
	Rate          int            `json:"rate"`    // attempts a second asked for
	AchievedRate  float64        `json:"achieved_rate"`
	Connections   int            `json:"connections"`
	Seed          uint64         `json:"seed"`
	PeakHeld      int            `json:"peak_held"`      // most units known to be held or sold at one moment
	Lost          uint64         `json:"lost"`           // replies dropped on purpose
	Unsent        uint64         `json:"unsent"`         // slots given up: every connection was busy for a second, or errands were late
	Unwanted      uint64         `json:"unwanted"`       // slots for which no user wanted to buy
	Forged        uint64         `json:"forged"`         // forged attempts and looks at others' orders
	Pressed       map[string]int `json:"pressed"`        // buttons of the provider's pages, by name
	LateBought    int            `json:"late_bought"`    // payments that came too late and bought the same again
	LateRefunded  int            `json:"late_refunded"`  // captures that came too late and were given back
	OverdueMS     float64        `json:"overdue_ms"`     // the longest that an unpaid order was seen to outlive its expiry
	UnavailableMS float64        `json:"unavailable_ms"` // around the restart, the longest of several; 0 without one
	OutagesMS     []float64      `json:"outages_ms,omitempty"`
	Buckets       int            `json:"buckets"`
	Pending       int            `json:"pending"`          // receipts that said pending at first
	Refusals      int            `json:"refused_later"`    // of these, those that were refused, or lost with an engine
	Held          *Waiting       `json:"held_after_ms"`    // from the receipt until it was seen held; null = none was pending
	Faults        []*Fault       `json:"faults,omitempty"` // parts that were away
	Rechecked     int64          `json:"rechecked"`        // receipts whose keys were sent again, after restarts and after the rush
	Unknown       int            `json:"unknown"`          // keys of which some reply never came
	UnknownHeld   int            `json:"unknown_held"`     // of these, those that turned out to have been accepted
	Notes         []string       `json:"notes,omitempty"`
	Linear        *Linear        `json:"linear,omitempty"`   // nil = the history was not checked
	Profiles      []Treatment    `json:"profiles,omitempty"` // people and bots, where users act for themselves
	Thirds        []Third        `json:"thirds,omitempty"`   // of the rush, with --playbook
	Knee          *Knee          `json:"knee,omitempty"`     // with --steps

	// Violations are what the oracle and the server's own proof found wrong,
	// as sentences; the same list as in Proof. Empty = passed.
	Violations []string `json:"-"`
}

// Latency of scheduled attempts in milliseconds, from when each was due.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// Waiting is how long receipts were pending, in milliseconds.
type Waiting struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Proof is the verdict of oracle and server together.
type Proof struct {
	OK         bool     `json:"ok"`
	Violations []string `json:"violations"`
}

// report sums up. It must be called when everything has stopped.
func (r *rehearsal) report(m *meter, f facts) Report {
	m.drain()
	violations := r.oracle.broken.list()
	report := Report{
		Attempts: m.total.attempts, Accepted: len(r.oracle.known()), Sold: f.counts.Held + f.counts.Confirmed,
		Refused: map[string]uint64{}, Errors: m.total.errors, LatencyMS: latencyOf(m.latency), Orders: byState(f.orders),
		Proof:    Proof{len(violations) == 0, violations},
		Activity: r.shop.activity, Users: r.o.Users, Stock: r.o.Stock, Seconds: r.rushed.Seconds(), Rate: r.o.Rate, AchievedRate: float64(r.rushAttempts) / r.rushed.Seconds(),
		Connections: r.o.Connections, Seed: r.o.Seed, PeakHeld: r.oracle.peak, Lost: m.total.lost, Unsent: m.total.unsent,
		Unwanted: m.total.unwanted, Forged: m.total.forged, Pressed: r.oracle.pressed, Violations: violations,
	}
	report.Buckets, report.Pending, report.Refusals = r.oracle.buckets, r.oracle.pending, r.oracle.refusals
	report.Held, report.Faults = r.landings.waiting(), r.faults
	if n := r.oracle.astray; n > 0 {
		r.notes.add("%d reservations are not in the bucket that %d buckets give their users: times without service of one bucket mean nothing", n, r.oracle.buckets)
	}
	report.OutagesMS, report.Rechecked, report.Unknown = r.outage.lengths(), r.rechecked.Load(), len(r.oracle.unsure)
	for try := range r.oracle.unsure {
		if r.oracle.receipts[try] != nil {
			report.UnknownHeld++
		}
	}
	report.OverdueMS = float64(max(r.oracle.overdue, 0).Microseconds()) / 1000
	for _, row := range f.orders {
		if row.ReplacedBy != "" {
			report.LateBought++
		}
		for _, back := range row.Refunds {
			if back.Reason == "late" {
				report.LateRefunded++
			}
		}
	}
	for i, n := range m.total.refused {
		if n > 0 {
			report.Refused[codes[i]] = n
		}
	}
	if d, ok := r.outage.length(); ok {
		report.UnavailableMS = float64(d.Microseconds()) / 1000
	} else if r.o.RestartCmd != "" || r.o.Supervisor != nil && len(r.faults) == 0 {
		r.notes.add("the server was to be restarted, but no outage with an end was seen")
	}
	if r.play != nil {
		report.Profiles = r.play.results
	}
	report.Linear, report.Thirds = r.linear, r.thirds
	report.Notes = r.notes.list()
	return report
}

// Write prints the report, as JSON or as a table for people.
func (r Report) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		out, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", out)
		return err
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	row("activity", "%s", r.Activity)
	row("users, units", "%d, %d", r.Users, r.Stock)
	row("attempts", "%d; %.0f/s over %.1f s (%d/s asked for, %d not sent)", r.Attempts, r.AchievedRate, r.Seconds, r.Rate, r.Unsent)
	row("accepted", "%d reservations, at most %d at once", r.Accepted, r.PeakHeld)
	row("refused", "%s", ranked(r.Refused, len(r.Refused)))
	for _, third := range r.Thirds {
		row("playbook "+third.When, "%s", third)
	}
	row("no answer", "%d errors, %d dropped on purpose", r.Errors, r.Lost)
	for _, t := range r.Profiles {
		t.rows(row)
	}
	row("forged", "%d", r.Forged)
	row("latency", "p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms", r.LatencyMS.P50, r.LatencyMS.P99, r.LatencyMS.P999)
	if r.UnavailableMS > 0 {
		row("unavailable", "%.0f ms around the restart; the longest of %d", r.UnavailableMS, len(r.OutagesMS))
	}
	for _, f := range r.Faults {
		row("away", "%s", f)
	}
	if r.Held != nil {
		row("pending", "%d receipts, %d of them refused later; held after p50 %.1f ms, p99 %.1f ms, at most %.0f ms", r.Pending, r.Refusals, r.Held.P50, r.Held.P99, r.Held.Max)
	}
	row("payments", "%s; of late ones %d bought again, %d refunded", ranked(r.Pressed, len(r.Pressed)), r.LateBought, r.LateRefunded)
	row("time-outs", "at most %.1f s late", r.OverdueMS/1000)
	row("orders", "%s", ranked(r.Orders, len(r.Orders)))
	row("sold", "%d of %d", r.Sold, r.Stock)
	if r.Knee != nil {
		r.Knee.rows(row)
	}
	if r.Linear != nil {
		row("history", "%s", r.Linear.line)
	}
	for _, n := range r.Notes {
		row("note", "%s", n)
	}
	row("violations", "%d", len(r.Violations))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "  - %s\n", v)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ranked writes the greatest few of a map of counts.
func ranked[N int | uint64](counts map[string]N, most int) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if c := cmp.Compare(counts[b], counts[a]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, k := range keys[:min(most, len(keys))] {
		parts = append(parts, fmt.Sprintf("%s %d", k, counts[k]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
