package limit

import (
	"math/bits"
	"time"
)

// bucket is the token bucket and the leaky one. They are the same arithmetic,
// the generic cell rate algorithm of ITU-T I.371: a permit costs Per/Limit of
// time, and a key's debt is paid by time passing. It may owe as much as the
// capacity costs.
//
//   - Token bucket: capacity Burst; who still fits goes at once.
//   - Leaky bucket: capacity Burst + 1; who fits goes when all before have been
//     paid for, which is the debt that was found.
//
// The alternative, a count of tokens and the time of the last refill, needs two
// words, and rounds at each refill: at 3 permits a second a token takes
// 333,333,333⅓ ns. The debt is one point in time, kept exactly by carrying the
// fraction in 1/Limit of a nanosecond, so that nothing is lost or won over a
// year, and RetryAfter is exact.
type bucket struct {
	limit, per uint64
	capacity   int64
	one, full  span // cost of one permit, and of all
	waits      bool
}

// span is a length of time: ns + part/limit, 0 ≤ part < limit.
type span struct{ ns, part uint64 }

func newBucket(r Rate) *bucket {
	b := &bucket{limit: uint64(r.Limit), per: uint64(r.Per), capacity: r.capacity(), waits: r.Algorithm == LeakyBucket}
	b.one, b.full = b.cost(1), b.cost(b.capacity)
	return b
}

// cost is of n ≤ capacity permits; that of all was validated to fit.
func (b *bucket) cost(n int64) span {
	q, r := mulDiv(uint64(n), b.per, b.limit)
	return span{q, r}
}

func (b *bucket) debt(c cell, now int64) span {
	if c.at < now {
		return span{}
	}
	return span{uint64(c.at - now), uint64(c.used)}
}

func (b *bucket) plus(x, y span) span {
	z := span{x.ns + y.ns, x.part + y.part}
	if z.part >= b.limit {
		z.ns, z.part = z.ns+1, z.part-b.limit
	}
	return z
}

// minus is for x ≥ y.
func (b *bucket) minus(x, y span) span {
	if x.part < y.part {
		x.ns, x.part = x.ns-1, x.part+b.limit
	}
	return span{x.ns - y.ns, x.part - y.part}
}

func (x span) exceeds(y span) bool { return x.ns > y.ns || x.ns == y.ns && x.part > y.part }

// up rounds to the first whole nanosecond at which the span is over.
func (x span) up() int64 {
	if x.part > 0 {
		return int64(x.ns) + 1
	}
	return int64(x.ns)
}

func (b *bucket) take(c cell, n, now int64) (cell, Decision) {
	debt := b.debt(c, now)
	if n > b.capacity {
		return c, refused(b.left(debt), int64(Never), debt.up())
	}
	cost := b.one
	if n > 1 {
		cost = b.cost(n)
	}
	after := b.plus(debt, cost)
	if after.exceeds(b.full) {
		return c, refused(b.left(debt), b.minus(after, b.full).up(), debt.up())
	}
	d := Decision{Allowed: true, Remaining: b.left(after), Reset: nanos(after.up())}
	if b.waits {
		d.Delay = nanos(debt.up())
	}
	return cell{at: now + int64(after.ns), used: uint32(after.part)}, d
}

// left is how many permits can be had on top of a debt.
func (b *bucket) left(debt span) int64 {
	if !b.full.exceeds(debt) {
		return 0
	}
	room := b.minus(b.full, debt)
	hi, lo := b.scaled(room)
	q, _ := bits.Div64(hi, lo, b.per)
	return int64(q)
}

// scaled is a span in 1/limit ns.
func (b *bucket) scaled(x span) (hi, lo uint64) {
	hi, lo = bits.Mul64(x.ns, b.limit)
	lo, carry := bits.Add64(lo, x.part, 0)
	return hi + carry, lo
}

func (b *bucket) fresh(c cell) int64 {
	if c.used > 0 {
		return c.at + 1
	}
	return c.at
}

func (b *bucket) charged(c cell, now int64) charge {
	// Debt / cost of a permit, in 1/2³²: below 2¹¹⁷ / per.
	hi, lo := b.scaled(b.debt(c, now))
	hi, lo = hi<<32|lo>>32, lo<<32
	q, r := bits.Div64(hi, lo, b.per)
	if r > 0 {
		q++
	}
	return charge(q)
}

func (b *bucket) charge(used charge, now int64) cell {
	// What was used beyond the capacity is an empty bucket, no more: a cut from
	// 1000 to 1 a second must not lock anybody out for a quarter of an hour.
	used = min(used, charge(b.capacity)*onePermit)
	ns := mulDivUp(uint64(used), b.per, b.limit<<32)
	if owed := (span{ns: ns}); owed.exceeds(b.full) { // rounded above it
		return cell{at: now + int64(b.full.ns), used: uint32(b.full.part)}
	}
	return cell{at: now + int64(ns)}
}

// mulDiv is a × b / c without losing the high half; the quotient must fit.
func mulDiv(a, b, c uint64) (quotient, remainder uint64) {
	hi, lo := bits.Mul64(a, b)
	return bits.Div64(hi, lo, c)
}

func mulDivUp(a, b, c uint64) uint64 {
	q, r := mulDiv(a, b, c)
	if r > 0 {
		q++
	}
	return q
}

// whole rounds up to permits, of which a cell can hold twice the largest limit.
func whole(used charge) uint32 {
	return uint32(min((used+onePermit-1)/onePermit, 2*MaxLimit))
}

func nanos(ns int64) time.Duration { return time.Duration(ns) }
