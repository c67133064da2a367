package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"sluice/storm"
)

// finding is what one storm found in one system.
type finding struct {
	System   string `json:"system"`
	Fault    string `json:"fault"`
	Seed     uint64 `json:"seed"`
	Faults   int    `json:"faults"`
	Accepted int    `json:"accepted"` // reservations acknowledged
	Sold     int    `json:"sold"`     // units held or sold at the end

	UnitsLost  int     `json:"units_lost"`  // allocated, and at rest neither sellable nor held nor sold
	Oversold   int     `json:"oversold"`    // promised to somebody beyond the allocation, or there twice in the books
	OrdersLost int     `json:"orders_lost"` // acknowledged, and there is no such order
	ToldWrong  int     `json:"told_wrong"`  // users about whom the oracle found something
	ForNothing int     `json:"for_nothing"` // payments kept that pay for nothing
	DownMS     float64 `json:"down_ms"`     // nobody could buy, around the first fault

	Violations int      `json:"violations"` // sentences of the oracle
	AtLeast    bool     `json:"at_least"`   // it stopped writing them down: told_wrong is a lower bound
	Examples   []string `json:"examples,omitempty"`
}

var (
	aUser    = regexp.MustCompile(`\bu[0-9]{7}\b`)
	aLeft    = regexp.MustCompile(`^and ([0-9]+) more$`)
	someMore = 6 // examples, one of a kind
)

// judge counts by the books where they tell, and by the oracle's sentences
// where only it can know. Where both do, the greater counts.
func judge(system, fault string, faults int, r storm.Report, b ledgers) finding {
	i := b.Ledger[0]
	f := finding{System: system, Fault: fault, Seed: r.Seed, Faults: faults, Accepted: r.Accepted, Sold: i.Held + i.Confirmed, DownMS: r.UnavailableMS}
	astray := i.Allocated - i.Free - i.Held - i.Confirmed
	rows := 0
	for _, n := range b.Orders {
		rows += n
	}
	// A refused order was accepted before there was known to be no unit for it.
	f.UnitsLost, f.Oversold = max(astray, 0), max(-astray, r.PeakHeld-i.Allocated, 0)+b.Orders["refused"]
	kept := b.Payments.Captured - b.Payments.Refunded - b.Payments.Owed
	goods := b.Orders["paid"] + b.Orders["fulfilled"]
	if goods > 0 || kept > 0 {
		f.ForNothing = max(int(kept/stormPrice)-goods, 0)
	}
	users, kinds, lost, charged := map[string]bool{}, map[string]bool{}, 0, 0
	for _, v := range r.Violations {
		if more := aLeft.FindStringSubmatch(v); more != nil {
			n := 0
			_, _ = fmt.Sscan(more[1], &n) // digits, by the expression
			f.Violations += n
			f.AtLeast = true
			continue
		}
		f.Violations++
		for _, u := range aUser.FindAllString(v, -1) {
			users[u] = true
		}
		if strings.HasPrefix(v, "lost order:") || strings.HasSuffix(v, "held (not there in the end)") {
			lost++
		}
		if strings.Contains(v, " was charged ") {
			charged++
		}
		if kind := kindOf(v); !kinds[kind] && len(f.Examples) < someMore {
			kinds[kind] = true
			f.Examples = append(f.Examples, v)
		}
	}
	f.OrdersLost = max(lost, r.Accepted-rows, 0)
	f.ToldWrong = max(len(users), f.OrdersLost+b.Orders["refused"])
	f.ForNothing = max(f.ForNothing, charged)
	return f
}

// stormPrice is what the one thing on sale costs, in minor units.
const stormPrice = 1999

var aName = regexp.MustCompile(`[0-9a-z.|-]*[0-9][0-9a-z.|-]*`)

// kindOf is a sentence without what is particular in it.
func kindOf(v string) string { return aName.ReplaceAllString(v, "·") }

// table sums the findings up, by fault and system.
func table(all []finding) string {
	type line struct{ fault, system string }
	var order []line
	sums := map[line]finding{}
	storms := map[line]int{}
	for _, f := range all {
		l := line{f.Fault, f.System}
		s, known := sums[l]
		if !known {
			order = append(order, l)
		}
		s.Faults += f.Faults
		s.Accepted += f.Accepted
		s.UnitsLost += f.UnitsLost
		s.Oversold += f.Oversold
		s.OrdersLost += f.OrdersLost
		s.ToldWrong += f.ToldWrong
		s.ForNothing += f.ForNothing
		s.DownMS += f.DownMS
		s.Violations += f.Violations
		s.AtLeast = s.AtLeast || f.AtLeast
		s.Examples = append(s.Examples, f.Examples...)
		sums[l] = s
		storms[l]++
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| fault\t| system\t| storms, faults\t| accepted\t| units lost\t| oversold\t| orders lost\t| users told wrong\t| charged for nothing\t| unavailable ms\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, l := range order {
		s := sums[l]
		bound := ""
		if s.AtLeast {
			bound = "≥ "
		}
		down := "–" // no connection failed; what answers 503 is not counted as away
		if s.DownMS > 0 {
			down = fmt.Sprintf("%.0f", s.DownMS/float64(storms[l]))
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %d, %d\t| %d\t| %d\t| %d\t| %d\t| %s%d\t| %d\t| %s\t|\n", l.fault, l.system, storms[l], s.Faults, s.Accepted,
			s.UnitsLost, s.Oversold, s.OrdersLost, bound, s.ToldWrong, s.ForNothing, down)
	}
	_ = t.Flush() // into memory
	kinds := map[string]string{}
	for _, l := range order {
		for _, v := range sums[l].Examples {
			kinds[l.system+": "+kindOf(v)] = l.system + ", " + l.fault + ": " + v
		}
	}
	for _, v := range slices.SortedFunc(maps.Values(kinds), cmp.Compare) {
		fmt.Fprintf(&b, "  %s\n", v)
	}
	return b.String()
}
