package proof

import (
	"fmt"
	"time"

	"sluice/internal/stock"
)

// Part is the newest report on one bucket, as its keeper's worker leaves it in
// the store.
type Part struct {
	Report Report `json:"report"`
	At     Bucket `json:"at"`
	// Rest says that nothing of the bucket is left to happen.
	Rest bool `json:"rest"`
	// Answers is the greatest Ask that it is an answer to.
	Answers int64 `json:"answers"`
	// Slack is how much later than planned the next one may come, because audits
	// are not to take more than their share of the worker; ms.
	Slack int64 `json:"slack"`
}

// Place is the bucket's.
func (p *Part) Place() stock.Place {
	return stock.Place{Activity: p.Report.Activity, Bucket: p.At.Bucket}
}

// Ask is something that is wanted of the workers that keep buckets. Numbers of
// the same thing ascend: who has seen one has seen all before it.
type Ask struct {
	Kind   AskKind
	Name   string // an activity, or the log of a bucket
	Number int64
}

// AskKind says what is wanted.
type AskKind string

const (
	AskProof   AskKind = "proof"   // a report on each bucket of an activity that begins after this
	AskRebuild AskKind = "rebuild" // the rebuilding of one bucket
)

// Ground is what the store has of an activity in buckets, all at one moment.
type Ground struct {
	Parts   map[stock.LogID]Part
	Rules   map[stock.LogID][]stock.Entry // opened and adjusted, in the order of each log
	Marks   map[stock.LogID]stock.Cursor
	Retired map[stock.LogID]bool
}

// opened are the allocations with which the buckets were opened, by number; nil
// for one that is not open yet. It is empty when none is.
func (g *Ground) opened() (all []*stock.Allocation) {
	for _, rules := range g.Rules {
		if len(rules) == 0 || rules[0].Allocation == nil {
			continue
		}
		a := rules[0].Allocation
		for len(all) < int(max(a.Buckets, 1)) {
			all = append(all, nil)
		}
		if int(a.Bucket) < len(all) {
			all[a.Bucket] = a
		}
	}
	return all
}

// units adds up what the rules of a bucket give it of each SKU.
func units(rules []stock.Entry) map[stock.SKU]int {
	sum := map[stock.SKU]int{}
	for i := range rules {
		if a := rules[i].Allocation; a != nil {
			for _, it := range a.Items {
				sum[it.SKU] += it.Units
			}
		}
		if a := rules[i].Adjustment; a != nil && a.SKU != "" {
			sum[a.SKU] += a.Delta
		}
	}
	return sum
}

// differs says how far the engine's reading of a bucket is from the book's, in
// the first SKU in which it is; empty: not at all. A standing difference is
// always the same sentence, whatever happens in the bucket meanwhile.
func differs(engine, book *stock.Counts) string {
	if engine.Phase != book.Phase {
		return fmt.Sprintf("the engine is %s, the book %s", engine.Phase, book.Phase)
	}
	theirs := map[stock.SKU]stock.Count{}
	for _, c := range engine.Items {
		theirs[c.SKU] = c
	}
	for _, b := range book.Items {
		e := theirs[b.SKU]
		if d := [...]int{e.Allocated - b.Allocated, e.Free - b.Free, e.Held - b.Held, e.Confirmed - b.Confirmed, e.Returned - b.Returned}; d != [5]int{} {
			return fmt.Sprintf("the engine's counts of %s are off the book's by %+d allocated, %+d free, %+d held, %+d confirmed, %+d returned",
				b.SKU, d[0], d[1], d[2], d[3], d[4])
		}
	}
	return ""
}

// age is how old a part may be: one in whose bucket something has landed since
// is renewed sooner.
func (p *Part) age(mark stock.Cursor) time.Duration {
	due := Sweep
	if mark.Epoch != p.At.Position.Epoch || mark.Position != p.At.Position.Position || !p.Report.OK {
		due = Interval
	}
	return due + grace + time.Duration(p.Slack)*time.Millisecond
}

// grace is what a report may be late without being missed: with Interval, the
// parts of an activity in which things happen are at most 15 s old.
const grace = 10 * time.Second
