package storm

import (
	"sync"
	"time"
)

// troubles are the times in which parts of the fleet were away. An order that
// was shown as ended in one may take the ledger until its end to hear of, and
// nothing that is pending has to land before.
type troubles struct {
	mu    sync.Mutex
	spans []span // one after the other; the last is open while its end is zero
}

type span struct{ from, to time.Time }

func (t *troubles) begin(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on() {
		t.spans = append(t.spans, span{from: at})
	}
}

func (t *troubles) end(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on() {
		t.spans[len(t.spans)-1].to = at
	}
}

func (t *troubles) on() bool { return len(t.spans) > 0 && t.spans[len(t.spans)-1].to.IsZero() }

// active says that a part is away now.
func (t *troubles) active() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.on()
}

// over is the end of the trouble in which at was, or at itself; open says that
// it has not ended.
func (t *troubles) over(at time.Time) (end time.Time, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		switch {
		case at.Before(s.from):
		case s.to.IsZero():
			return at, true
		case at.Before(s.to):
			at = s.to
		}
	}
	return at, false
}

// last is the end of the last trouble, if it was later than at; open as in over.
func (t *troubles) last(at time.Time) (end time.Time, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.spans) == 0 {
		return at, false
	}
	s := t.spans[len(t.spans)-1]
	if s.to.After(at) {
		at = s.to
	}
	return at, s.to.IsZero()
}

// clearSince says that all parts have been there since at, as far as is known.
func (t *troubles) clearSince(at time.Time) bool {
	end, open := t.last(at)
	return !open && !end.After(at)
}

// heardOf says whether a request sent at sent meets a ledger that has heard of
// what a shopper was shown at that time.
func (o *oracle) heardOf(shown, sent time.Time) bool {
	end, open := o.troubles.over(shown)
	return !open && end.Add(o.lag).Before(sent)
}
