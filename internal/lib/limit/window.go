package limit

// fixed counts in windows that begin at multiples of per. All keys begin anew
// at the same instants, which every process agrees on without talking; whoever
// turns RetryAfter into an answer should spread those who come back.
type fixed struct{ limit, per int64 }

func (w fixed) roll(c cell, now int64) cell {
	if start := now - now%w.per; c.at != start {
		return cell{at: start}
	}
	return c
}

func (w fixed) take(c cell, n, now int64) (cell, Decision) {
	at := w.roll(c, now)
	left, end := w.limit-int64(at.used), at.at+w.per-now
	switch {
	case n > w.limit:
		return c, refused(left, int64(Never), max(w.fresh(at)-now, 0))
	case n > left:
		return c, refused(left, end, end)
	}
	at.used += uint32(n)
	return at, Decision{Allowed: true, Remaining: left - n, Reset: nanos(end)}
}

func (w fixed) fresh(c cell) int64 {
	if c.used == 0 {
		return c.at
	}
	return c.at + w.per
}

func (w fixed) charged(c cell, now int64) charge { return charge(w.roll(c, now).used) * onePermit }

func (w fixed) charge(used charge, now int64) cell {
	return cell{at: now - now%w.per, used: whole(used)}
}

// sliding looks at the trailing window of length per through two counters: that
// of the present window, and that of the last one weighted by the part of it
// which is still in view,
//
//	estimate = last × (1 − e/per) + used      e: elapsed of the present window
//
// as if the last window's permits had been taken evenly. Cloudflare describes
// it in "How we built rate limiting capable of scaling to millions of domains";
// it needs 16 bytes where the exact log of times needs 8 × Limit.
//
// Its error: the truth lies between used and used + last, so the estimate is
// off by at most last × max(e/per, 1 − e/per).
//
//   - Too much: a permit is granted while last × (1 − e/per) + used ≤ limit, so
//     the last window and e of this one hold at most limit + last × e/per
//     together. Hence at most limit × (1 + x/per) in any interval of length
//     x ≤ per: less than twice the limit at worst, and that only over a whole
//     per, where a fixed window grants twice the limit within an instant. It is
//     the bound of a token bucket with a burst of limit.
//   - Too little: a permit counts until the end of the window after its own, so
//     at most per longer than it should, and for ever less of itself.
type sliding struct{ limit, per int64 }

func (w sliding) roll(c cell, now int64) cell {
	start := now - now%w.per
	switch c.at {
	case start:
		return c
	case start - w.per:
		return cell{at: start, last: c.used}
	}
	return cell{at: start}
}

func (w sliding) take(c cell, n, now int64) (cell, Decision) {
	at := w.roll(c, now)
	view := at.at + w.per - now // of the last window: 1..per
	used, last := int64(at.used), int64(at.last)
	left := w.limit - used - int64(mulDivUp(uint64(last), uint64(view), uint64(w.per)))
	if n > left {
		return c, refused(left, w.retry(used, last, n, view), max(w.fresh(at)-now, 0))
	}
	at.used += uint32(n)
	return at, Decision{Allowed: true, Remaining: left - n, Reset: nanos(w.fresh(at) - now)}
}

// retry is how long until the estimate leaves room for n, when it does not now.
func (w sliding) retry(used, last, n, view int64) int64 {
	if n > w.limit {
		return int64(Never)
	}
	// last × view ≤ room × per: the first view that is small enough.
	if room := w.limit - used - n; room >= 0 {
		return view - w.shrunk(room, last)
	}
	// Only once the present window has become the last one.
	return view + w.per - w.shrunk(w.limit-n, used)
}

// shrunk is the longest part of a window with so many permits that still
// weighs no more than room, which is less than they are.
func (w sliding) shrunk(room, permits int64) int64 {
	view, _ := mulDiv(uint64(room), uint64(w.per), uint64(permits))
	return int64(view)
}

func (w sliding) fresh(c cell) int64 {
	switch {
	case c.used > 0:
		return c.at + 2*w.per
	case c.last > 0:
		return c.at + w.per
	}
	return c.at
}

func (w sliding) charged(c cell, now int64) charge {
	at := w.roll(c, now)
	view := uint64(at.at + w.per - now)
	return charge(at.used)*onePermit + charge(mulDivUp(uint64(at.last)<<32, view, uint64(w.per)))
}

func (w sliding) charge(used charge, now int64) cell {
	return cell{at: now - now%w.per, used: whole(used)}
}
