package linear

import "time"

// A ledger in several buckets has no one place where the units of a SKU are.
// Each bucket decides for the users whose it is, and units move between buckets
// when nobody looks. What can be said of such a history is about sums:
//
//   - Each acceptance, end and payment happens in one bucket at one moment, so the
//     sums do what the counts of one bucket would: a movement of units between
//     buckets changes none of them, with what is in transit counted as free. More
//     acceptances than there are units are found as ever.
//   - sold_out rests on all units being sold. That sum only grows, so at whatever
//     moments the buckets were read, it was so at the last. It is judged exactly.
//   - all_held and insufficient rest on sums over buckets that were read at several
//     moments between request and answer, or before it by a gateway that follows
//     the ledger (Options.Stale). A unit that came back meanwhile may be missed, one
//     that was free all the while may not. So a unit that is given back may be late
//     by as long as a refusal takes. That loses no legal history: put off each unit
//     that came back until some purchase needs it or the refusal is answered; then
//     either none is free at some moment of it, or one was there throughout.
//     Refusals that took longer than slowRefusal are not judged, so that a few slow
//     ones do not excuse all.
//   - The counts are read in the same way. Of them only the sold units are judged:
//     since they only grow, a sum of several moments is that of one between them.
//
// Not checked: what each bucket has (units may move in and out at any time, so
// nothing about one bucket alone is impossible), and the free and held units of
// counts. What one user may have is checked as ever.
//
// A purchase that was only pending and was lost by an engine may have held a unit
// until nobody knows when: it takes one and gives it back, or does neither.

// slowRefusal in ns.
const slowRefusal = int64(250 * time.Millisecond)

// refused takes in a refusal for want of units.
func (r *record) refused(l look, op Op) {
	if r.spread && l.kind != sawSoldOut && op.Return-op.Call > slowRefusal {
		r.unjudged++
		return
	}
	s := r.shelves[op.SKU]
	s.looks = append(s.looks, l)
}

// known is by when the ledger knows of an end that was shown at a moment.
func (r *record) known(at int64) int64 {
	for _, t := range r.troubles {
		if at >= t.From && at < t.To {
			at = t.To
		}
	}
	if at == Forever {
		return at
	}
	return at + r.lag
}
