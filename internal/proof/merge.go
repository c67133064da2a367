package proof

import (
	"time"

	"sluice/internal/stock"
)

// TransitPatience is how long units may be on their way from one bucket to
// another before that is a violation: longer than a worker takes to be missed
// and the bucket they are for to be rebuilt.
const TransitPatience = time.Minute

// merge puts the newest report of each bucket together. fresh says whether one
// counts as the present: of a bucket for which none does, the report is
// incomplete, and not OK for that reason alone.
//
// The parts were not made at one instant. What would be wrong between two
// instants (units that left one bucket and are not yet in another) is therefore
// not taken from them but from the rules, which are all of one moment.
func merge(activity stock.ActivityID, g Ground, now time.Time, fresh func(p *Part, mark stock.Cursor) bool) (Report, []Drift) {
	c := newComparison(activity)
	opened := g.opened()
	rest := true
	var drifts []Drift
	sums := map[stock.SKU]*stock.Count{}
	for n := range opened {
		log := stock.Place{Activity: activity, Bucket: uint16(n)}.Log()
		p, known := g.Parts[log]
		if !known || opened[n] == nil || !fresh(&p, g.Marks[log]) {
			c.report.Incomplete = append(c.report.Incomplete, uint16(n))
		}
		if !known {
			continue
		}
		c.add(&p, sums)
		drifts = append(drifts, p.Report.Drifts...)
		mark := g.Marks[log]
		rest = rest && p.Rest && mark.Epoch == p.At.Position.Epoch && mark.Position == p.At.Position.Position
	}
	c.shares(opened)
	transit := c.transit(g, now)
	c.counts(opened, g, sums, transit)
	r := &c.report
	r.Position = Position{Log: stock.LogID(activity)}
	if len(opened) == 1 && len(r.Buckets) == 1 {
		r.Position = r.Buckets[0].Position
	}
	r.Drifts = drifts[:min(len(drifts), MaxViolations)]
	r.OK = r.Found == 0 && len(r.Incomplete) == 0
	r.Final = r.OK && rest && len(transit) == 0
	return *r, drifts
}

// add takes the report of one bucket in.
func (c *comparison) add(p *Part, sums map[stock.SKU]*stock.Count) {
	r := &c.report
	r.Buckets = append(r.Buckets, p.At)
	if r.CheckedAt.IsZero() || p.At.CheckedAt.Before(r.CheckedAt) {
		r.CheckedAt = p.At.CheckedAt
	}
	r.Found += p.Report.Found
	room := MaxViolations - len(r.Violations)
	r.Violations = append(r.Violations, p.Report.Violations[:min(room, len(p.Report.Violations))]...)
	for state, n := range p.Report.Orders {
		r.Orders[state] += n
	}
	r.Payments.Captured += p.Report.Payments.Captured
	r.Payments.Refunded += p.Report.Payments.Refunded
	r.Payments.Owed += p.Report.Payments.Owed
	for _, one := range p.Report.Ledger {
		sum := sums[one.SKU]
		if sum == nil {
			sum = &stock.Count{}
			sums[one.SKU] = sum
		}
		sum.Free += one.Free
		sum.Held += one.Held
		sum.Confirmed += one.Confirmed
		sum.Returned += one.Returned
	}
}

// shares holds what the buckets were opened with against one another: together
// they are one allocation, of which each has its share.
func (c *comparison) shares(opened []*stock.Allocation) {
	var whole stock.Allocation
	for n, a := range opened {
		switch {
		case a == nil:
			return // those that are not open yet cannot be judged
		case n == 0:
			whole = *a
			whole.Items = append([]stock.Item(nil), a.Items...)
		case a.ID != whole.ID || a.Buckets != whole.Buckets || len(a.Items) != len(whole.Items):
			c.violated("bucket %d was opened by allocation %s for %d buckets, bucket 0 by %s for %d", n, a.ID, a.Buckets, whole.ID, whole.Buckets)
			return
		default:
			for i := range a.Items {
				whole.Items[i].Units += a.Items[i].Units
			}
		}
	}
	for n, a := range opened {
		want := whole.Share(uint16(n))
		for i := range a.Items {
			if a.Items[i].SKU != want.Items[i].SKU || a.Items[i].Units != want.Items[i].Units {
				c.violated("bucket %d was opened with %d units of %s, its share of all is %d of %s",
					n, a.Items[i].Units, a.Items[i].SKU, want.Items[i].Units, want.Items[i].SKU)
			}
		}
	}
}

// transit answers the moves whose debit has landed and whose credit has not. A
// credit is given only when the debit is in the store.
func (c *comparison) transit(g Ground, now time.Time) map[stock.Move]stock.Millis {
	debits, credits := map[stock.Move]stock.Millis{}, map[stock.Move]bool{}
	for log, rules := range g.Rules {
		p, err := stock.PlaceOf(log)
		if err != nil {
			continue
		}
		for i := range rules {
			if rules[i].Adjustment == nil {
				continue
			}
			switch m, debit, ok := stock.MoveOf(p.Bucket, rules[i].Adjustment); {
			case ok && debit:
				debits[m] = rules[i].Adjustment.At
			case ok:
				credits[m] = true
			}
		}
	}
	for m := range credits {
		if _, debited := debits[m]; !debited {
			c.violated("bucket %d was given %d units of %s by move %s, and bucket %d never gave them", m.To, m.Units, m.SKU, m.ID, m.From)
		}
		delete(debits, m)
	}
	for m, at := range debits {
		if now.Sub(at.Time()) > TransitPatience {
			c.violated("bucket %d gave %d units of %s by move %s at %s, and bucket %d has not got them", m.From, m.Units, m.SKU, m.ID, at.Time().Format(time.RFC3339), m.To)
		}
	}
	return debits
}

// counts are where the units are, over all buckets.
func (c *comparison) counts(opened []*stock.Allocation, g Ground, sums map[stock.SKU]*stock.Count, transit map[stock.Move]stock.Millis) {
	allocated, moving := map[stock.SKU]int{}, map[stock.SKU]int{}
	for _, rules := range g.Rules {
		for sku, n := range units(rules) {
			allocated[sku] += n
		}
	}
	for m := range transit {
		moving[m.SKU] += m.Units
	}
	c.report.Ledger = []stock.Count{}
	for _, a := range opened {
		if a == nil {
			continue
		}
		for _, it := range a.Items {
			n := stock.Count{SKU: it.SKU, Allocated: allocated[it.SKU] + moving[it.SKU], InTransit: moving[it.SKU]}
			if sum := sums[it.SKU]; sum != nil {
				n.Free, n.Held, n.Confirmed, n.Returned = sum.Free, sum.Held, sum.Confirmed, sum.Returned
			}
			n.Level = stock.LevelOf(n.Allocated, n.Free, n.Held+n.InTransit)
			c.report.Ledger = append(c.report.Ledger, n)
		}
		return // every bucket has the same SKUs
	}
}

// ending says that buckets have been retired, as they are behind the final proof:
// there are no books any more to compare with.
func (g *Ground) ending() bool { return len(g.Retired) > 0 }
