package proof

import (
	"context"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// inspection is one under way.
type inspection struct {
	*comparison
	made    int
	at      stock.Cursor
	took    time.Duration
	book    []entered
	counts  stock.Counts // of the book, at at
	broken  error        // what the book says of itself
	engine  stock.Counts // of the engine, at probe.at
	probe   *probe       // nil: the engine did not answer, or is not where it could be compared
	trusted bool         // the engine had been told by then all that the book had from the store
	resting bool         // nothing of it is left to happen
	limits  *Position
	answers int64
	until   time.Time
}

// readEngine notes the engine's counts, and where in the log the book has to be
// read to be compared with them. An engine that cannot be asked is not compared.
func (i *Inspector) readEngine(ctx context.Context, v *vigil, n *inspection) {
	v.mu.Lock()
	n.made, v.probe = v.made, nil
	contradicted := v.contradicted
	v.mu.Unlock()
	c, err := i.o.Engine(ctx, v.place)
	if err != nil || contradicted || c.Position.Epoch != n.at.Epoch || after(n.at, c.Position) {
		return // if it lost something, its keeper finds that out
	}
	n.engine, n.probe = c, &probe{at: c.Position}
	if c.Position.Position == n.at.Position {
		n.probe.read = &n.counts
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.probe = n.probe
}

// withinRules holds the units that a bucket has against those it was given.
func (n *inspection) withinRules(p stock.Place, rules []stock.Entry) {
	given := units(rules)
	for _, c := range n.counts.Items {
		if given[c.SKU] != c.Allocated {
			n.violated("bucket %d: its book has %d units of %s, what opened and adjusted it comes to %d", p.Bucket, c.Allocated, c.SKU, given[c.SKU])
		}
		delete(given, c.SKU)
	}
	for sku, u := range given {
		n.violated("bucket %d: its book has no %s, of which it was given %d units", p.Bucket, sku, u)
	}
}

// ready says whether the book has come to where the engine was, or will not.
func (n *inspection) ready(v *vigil, now time.Time) bool {
	if n.probe == nil || !now.Before(n.until) {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return n.probe.read != nil || v.made != n.made || v.contradicted
}

// finish compares the counts and saves the report.
func (i *Inspector) finish(ctx context.Context, v *vigil, serving map[*vigil]stock.Cursor) error {
	n := v.waiting
	v.waiting = nil
	p := Part{Answers: n.answers}
	v.mu.Lock()
	comparable := n.probe != nil && n.probe.read != nil && v.made == n.made && !v.contradicted
	v.mu.Unlock()
	if comparable {
		at := &Position{v.place.Log(), n.probe.at.Epoch, n.probe.at.Position}
		switch diff := differs(&n.engine, n.probe.read); {
		case diff == "":
			p.At.Engine = at
		case n.trusted:
			p.At.Engine = at
			n.violated("bucket %d: %s", v.place.Bucket, diff)
			n.drifted(Drift{Kind: Rebuild, Log: v.place.Log()})
		}
	}
	n.report.OK = n.report.Found == 0
	n.report.Drifts = n.drifts[:min(len(n.drifts), MaxViolations)]
	p.Report = n.report
	p.At.Bucket, p.At.Position, p.At.CheckedAt, p.At.LimitsFrom = v.place.Bucket, n.report.Position, n.report.CheckedAt, n.limits
	p.Rest = n.report.OK && n.resting && p.At.Engine != nil && p.At.Engine.Position == n.at.Position
	for other := range serving {
		p.Slack += (share * other.took).Milliseconds()
	}
	if err := i.o.Store.SavePart(ctx, p); err != nil {
		v.again = i.o.Now().Add(tryAgain)
		return fmt.Errorf("proof: report of %s: %w", v.place.Log(), err)
	}
	v.part, v.inspected = &p, n.made
	return nil
}
