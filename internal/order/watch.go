package order

import (
	"context"
	"fmt"
	"sync"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Change is a new state of a reservation. Changes may be repeated and may
// arrive out of order: State.Version tells which is the later one.
type Change struct {
	Reservation stock.ID
	State       stock.State
	Order       stock.OrderID
	OrderState  State
}

// Watchers tells streams in this process of the changes of the reservations
// they watch. It keeps nothing: a stream reads the present state after it has
// begun to watch, and then follows. It runs no goroutines.
type Watchers struct {
	mu    sync.Mutex
	by    map[stock.ID]map[*watcher]struct{}
	count int
	most  int
}

type watcher struct{ notify func(Change) }

// NewWatchers allows at most so many watchers at a time.
func NewWatchers(most int) *Watchers {
	return &Watchers{by: make(map[stock.ID]map[*watcher]struct{}), most: most}
}

// Watch calls notify for each change of a reservation until stop, which may be
// called more than once. notify must not block or call back into Watchers.
// stock.ErrOverloaded when there are too many watchers.
func (w *Watchers) Watch(id stock.ID, notify func(Change)) (stop func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count >= w.most {
		return nil, fmt.Errorf("%d event streams: %w", w.count, stock.ErrOverloaded)
	}
	one := &watcher{notify}
	if w.by[id] == nil {
		w.by[id] = make(map[*watcher]struct{})
	}
	w.by[id][one] = struct{}{}
	w.count++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, ok := w.by[id][one]; !ok {
			return
		}
		delete(w.by[id], one)
		w.count--
		if len(w.by[id]) == 0 {
			delete(w.by, id)
		}
	}, nil
}

// Subscribe is Watch through a channel. A slow reader misses states in
// between, never the newest. The channel is not closed by stop.
func (w *Watchers) Subscribe(id stock.ID) (changes <-chan Change, stop func(), err error) {
	newest := make(chan Change, 1)
	stop, err = w.Watch(id, func(c Change) {
		// Only this function sends, under the lock of Watchers, so the channel
		// has room once it has been emptied here or by its reader.
		select {
		case old := <-newest:
			if old.State.Version() > c.State.Version() {
				c = old
			}
		default:
		}
		newest <- c
	})
	return newest, stop, err
}

// Of lists the reservations of a bucket that are watched now, in no order.
func (w *Watchers) Of(p stock.Place) (ids []stock.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.by {
		if id.Activity == p.Activity && id.Bucket == p.Bucket {
			ids = append(ids, id)
		}
	}
	return ids
}

// Count is how many are watching.
func (w *Watchers) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// Publish tells the watchers of one reservation.
func (w *Watchers) Publish(c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.by[c.Reservation] {
		one.notify(c)
	}
}

// Landed is for Landing.Landed: orders have become the authority.
func (w *Watchers) Landed(orders []Landed) {
	if w.Count() == 0 {
		return
	}
	for i := range orders {
		o := &orders[i].Order
		w.Publish(Change{o.Reservation, stateOf(o.State, o.Reason, o.Terms.Restock), o.ID, o.State})
	}
}

// Handle is an outbox.Handler for every order.* topic.
func (w *Watchers) Handle(_ context.Context, m outbox.Message) error {
	e, id, err := readEvent(m)
	if err != nil {
		return err
	}
	w.Publish(Change{id, stateOf(e.State, e.Reason, e.Restock), e.Order, e.State})
	return nil
}
