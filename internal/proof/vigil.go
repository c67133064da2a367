package proof

import (
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// vigil is what an Inspector knows of one bucket. Its keeper shows it what the
// book goes through, from the work of the bucket itself.
type vigil struct {
	place stock.Place

	// Of Step alone.
	tried     time.Time // when the last audit began; zero: the book is new
	again     time.Time // none before it
	took      time.Duration
	size      int         // reservations, when last seen
	part      *Part       // saved last
	inspected int         // which of the books that was
	waiting   *inspection // for the book to come to where the engine was
	rebuild   int64       // the Ask that is being seen to, 0: none
	fromEpoch uint32      // of the bucket, when it was

	mu           sync.Mutex
	made         int       // books so far
	limits       *limits   // followed since the newest was made
	since        *Position // where that was; nil: before the first acceptance
	contradicted bool      // it refused something: the engine is going to be rebuilt
	probe        *probe
	// ahead are the messages that had not been delivered when the book was first
	// looked at: it has from the store what they are going to tell the engine, so
	// until the last of them is there the two need not agree. nil: not looked yet.
	ahead map[int64]struct{}
}

// probe is a place in the log at which the book is to be read.
type probe struct {
	at   stock.Cursor
	read *stock.Counts // nil: it has not come there
}

// Made implements bucket.Witness.
func (i *Inspector) Made(p stock.Place, b *stock.Book, at stock.Cursor) {
	v := i.vigil(p)
	l := standingLimits(b, at.Position)
	since := &Position{p.Log(), at.Epoch, at.Position}
	if empty(b) {
		since = nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.made++
	v.limits, v.since, v.contradicted, v.probe, v.ahead = l, since, false, nil, nil
}

// empty says that a book has never held a reservation.
func empty(b *stock.Book) bool {
	none := true
	b.Reservations(func(*stock.Reservation) bool { none = false; return false })
	return none
}

// Judging implements bucket.Witness.
func (i *Inspector) Judging(p stock.Place, e *stock.Entry, b *stock.Book) {
	if e.Kind != stock.EntrySettled {
		return
	}
	r, err := b.Find(e.Settlement.ID)
	if err != nil {
		return // the book will refuse it
	}
	// What the book has already from the store, it does not do again.
	gives := r.State == stock.Held && (e.Settlement.Outcome == stock.Released || e.Settlement.Outcome == stock.Expired) ||
		r.State == stock.Confirmed && e.Settlement.Outcome == stock.Returned
	if v := i.vigil(p); gives {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.limits.add(&r.Reservation, -1)
	}
}

// Judged implements bucket.Witness.
func (i *Inspector) Judged(p stock.Place, e *stock.Entry, b *stock.Book, err error) {
	v := i.vigil(p)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
		v.contradicted = true
	case e.Kind == stock.EntryReserved:
		v.limits.judge(e.Reservation)
		v.limits.add(e.Reservation, 1)
	case e.Kind == stock.EntryAdjusted:
		v.limits.adjust(e.Adjustment)
	}
	if at := v.probe; at != nil && at.read == nil && at.at.Epoch == e.Cursor.Epoch && at.at.Position == e.Cursor.Position {
		c := b.Counts()
		at.read = &c
	}
}

// vigil answers what is known of a bucket.
func (i *Inspector) vigil(p stock.Place) *vigil {
	i.mu.Lock()
	defer i.mu.Unlock()
	v := i.vigils[p]
	if v == nil {
		v = &vigil{place: p}
		i.vigils[p] = v
	}
	return v
}

// caughtUp takes what is undelivered at a moment before the engine was read, and
// says whether the engine had been told then all that the book had from the store.
func (v *vigil) caughtUp(made int, undelivered []outbox.Message) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.made != made {
		return false
	}
	still := make(map[int64]struct{})
	for _, m := range undelivered {
		if settles(m.Topic) {
			still[m.ID] = struct{}{}
		}
	}
	if v.ahead == nil {
		v.ahead = still
	}
	maps.DeleteFunc(v.ahead, func(id int64, _ struct{}) bool { _, is := still[id]; return !is })
	return len(v.ahead) == 0
}

// withinLimits adds what was found while the entries were judged.
func (v *vigil) withinLimits(c *comparison, made int) (from *Position) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.made != made || v.limits == nil {
		return &Position{v.place.Log(), c.report.Position.Epoch, c.report.Position.Position}
	}
	seen := *v.limits
	seen.sentences, seen.since = slices.Clone(v.limits.sentences), 0
	c.withinLimits(&seen)
	return v.since
}
