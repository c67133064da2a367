package bucket

import (
	"slices"
	"sync"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Stats is how one bucket is doing, as far as this worker knows. Counts are
// since this process began, over all times it kept the bucket.
type Stats struct {
	Place      stock.Place
	State      State
	Reason     string // what fails, or why it is being rebuilt; empty: nothing
	Epoch      uint32
	Landed     stock.Cursor
	Token      uint64
	InTransit  int        // moves whose credit is not known to have landed
	Refused    uint64     // reservations that the engine accepted and the book did not
	Disagreed  uint64     // settlements and adjustments likewise
	Recoveries uint64     // rebuildings
	Times      []Recovery // the newest of them, oldest first
	Landing    order.LandingStats
}

type counts struct {
	refused, disagreed, recoveries uint64
	times                          []Recovery
}

// published is what others may read while a step is under way.
type published struct {
	sync.Mutex
	Stats
	lander *order.Lander
}

func (t *tenure) publish() {
	s := Stats{
		Place: t.place, State: t.state, Reason: t.failing, Epoch: t.epoch, Landed: t.mark, Token: t.token, InTransit: len(t.moves),
		Refused: t.total.refused, Disagreed: t.total.disagreed, Recoveries: t.total.recoveries, Times: slices.Clone(t.total.times),
	}
	if s.Reason == "" {
		s.Reason = t.why
	}
	t.published.Lock()
	defer t.published.Unlock()
	t.published.Stats, t.published.lander = s, t.lander
}

// Stats answers at once, for every bucket that this worker has ever looked at.
func (k *Keeper) Stats() []Stats {
	k.mu.Lock()
	all := make([]Stats, 0, len(k.places))
	for _, t := range k.places {
		t.published.Lock()
		s, l := t.published.Stats, t.published.lander
		t.published.Unlock()
		if l != nil {
			s.Landing = l.Stats()
		}
		all = append(all, s)
	}
	k.mu.Unlock()
	slices.SortFunc(all, func(a, b Stats) int { return byPlace(a.Place, b.Place) })
	return all
}

// Read calls visit with the book of a bucket that this worker serves and the
// place in its log that it is at, which is the store's watermark. false: it does
// not serve the bucket at present. The bucket waits; visit must not keep the book.
func (k *Keeper) Read(p stock.Place, visit func(b *stock.Book, at stock.Cursor)) bool {
	k.mu.Lock()
	t := k.places[p]
	k.mu.Unlock()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Serving || t.book == nil {
		return false
	}
	visit(t.book, t.mark)
	return true
}
