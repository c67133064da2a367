package call

import "time"

// buckets is how many parts a window has. More would forget more evenly; with
// ten, a tenth of the window is forgotten at a time.
const buckets = 10

// counts are results: of all calls, how many failed and how many were slow. One
// that was both is in both.
type counts struct {
	calls, failed, slow int
}

func (c *counts) add(d counts, sign int) {
	c.calls += sign * d.calls
	c.failed += sign * d.failed
	c.slow += sign * d.slow
}

// window counts the results of the last span of time. It forgets by whole
// buckets, so that at any moment it covers between nine tenths of its length and
// all of it. Memory and work are constant, whatever the rate of calls.
type window struct {
	width time.Duration // of one bucket
	slot  int64         // number of the newest bucket: time / width
	parts [buckets]counts
	total counts // of all parts
}

func newWindow(length time.Duration) window { return window{width: max(1, length/buckets)} }

// advance forgets what is older than the window at now. A now earlier than one
// seen before changes nothing.
func (w *window) advance(now time.Time) {
	slot := now.UnixNano() / int64(w.width)
	if slot-w.slot >= buckets {
		*w = window{width: w.width, slot: slot}
		return
	}
	for ; w.slot < slot; w.slot++ {
		oldest := &w.parts[(w.slot+1)%buckets]
		w.total.add(*oldest, -1)
		*oldest = counts{}
	}
}

// add counts one result at now.
func (w *window) add(now time.Time, result counts) {
	w.advance(now)
	w.parts[w.slot%buckets].add(result, 1)
	w.total.add(result, 1)
}

func (w *window) clear() { *w = window{width: w.width, slot: w.slot} }
