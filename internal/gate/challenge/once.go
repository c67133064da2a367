package challenge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/internal/gate"
)

// Once is the memory of answered challenges of a process that is alone. It is
// bounded, and forgets what is over. It is safe for concurrent use.
type Once struct {
	most int
	now  func() time.Time

	mu    sync.Mutex
	n     int
	spent map[int64]map[string]struct{} // by the slot in which an id is over
}

// slot is how much later than it could an id is forgotten, at most.
const slot = 10 * time.Second

// NewOnce remembers so many ids at a time, some 100 bytes each. now should never
// go back.
func NewOnce(most int, now func() time.Time) *Once {
	return &Once{most: most, now: now, spent: map[int64]map[string]struct{}{}}
}

// Spend implements what Options ask for. An id always comes with the same until,
// which is in its token. When all places are taken, the error is
// gate.ErrOverloaded: to forget one that is not over would let it be spent twice.
func (o *Once) Spend(_ context.Context, id string, until time.Time) (first bool, err error) {
	now := o.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	over := now.UnixNano() / int64(slot)
	for at, ids := range o.spent { // as many as slots are ahead: some 30
		if at < over {
			o.n -= len(ids)
			delete(o.spent, at)
		}
	}
	at := until.UnixNano() / int64(slot)
	if at < over {
		return true, nil // it is over: nothing is promised, and nothing need be kept
	}
	ids := o.spent[at]
	if _, found := ids[id]; found {
		return false, nil
	}
	if o.n >= o.most {
		return false, fmt.Errorf("%w: too many challenges were answered", gate.ErrOverloaded)
	}
	if ids == nil {
		ids = map[string]struct{}{}
		o.spent[at] = ids
	}
	ids[id] = struct{}{}
	o.n++
	return true, nil
}
