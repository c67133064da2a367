// Package bucket keeps the buckets of a ledger that can lose what it decided
// last. Of each bucket one worker at a time is the keeper: it lands the bucket's
// log through a book of its own, tells the engine what is safe, gives units in
// transit to where they are going, and rebuilds the bucket from the store
// whenever the engine may have lost something.
//
// Invariants: what a reservation's order row says is what the ledger says after
// every rebuild; nothing is told to be held before it is committed; a bucket
// accepts in a new epoch only after the store has it; a keeper that is no longer
// the keeper changes nothing, since the store refuses its token of the log's
// fence and the engine the same token.
//
// It refuses to decide who gets what (stock.Book does), to know any engine or
// database, and to trust its lease: that only spares workers the trouble of
// taking buckets from each other.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/internal/lib/lease"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Options of a keeper; all are needed where nothing else is said.
type Options struct {
	Engine stock.Engine
	Log    stock.Log
	// Credit gives the units of a move whose debit is in the store to the bucket
	// they are for. Again is no change.
	Credit  func(ctx context.Context, m stock.Move, at stock.Millis) error
	Store   order.Store
	Buckets order.Buckets // the same store
	Leases  lease.Leases
	Holder  string        // of this life of this process alone
	TTL     time.Duration // how long the buckets of a dead worker wait for another; 0: DefaultTTL
	// Allocations are the activities that are to have buckets. It may go on
	// naming one whose buckets are retired.
	Allocations func(ctx context.Context) ([]stock.Allocation, error)
	// Final says that the final proof of a closed activity is written. It must be
	// false while units of the activity are in transit. nil: nothing is retired.
	Final func(ctx context.Context, a stock.ActivityID) (bool, error)

	Snapshots *order.Snapshots
	Landed    func([]order.Landed) // told after each commit, from many goroutines; may be nil
	Witness   Witness              // may be nil
	Alarms    *order.Alarms
	Logger    *slog.Logger
	Now       func() time.Time
	// Spawn runs a piece of work of one bucket beside those of the others. nil:
	// in a goroutine. A simulation calls it then and there.
	Spawn func(work func())
}

// DefaultTTL is shorter than that of other leases. A lease that is lost without
// need costs one look at the engine; one that a dead worker holds keeps orders
// from landing until its end.
const DefaultTTL = 3 * time.Second

// Bounds of the share of buckets.
const (
	maxMisses = 32 // tries in one round that find a bucket held by another
	patience  = 3  // rounds for which a worker has too many before it gives one back
)

// Keeper keeps this worker's share of all buckets. Step is for one goroutine,
// everything else for any.
type Keeper struct {
	Options
	census census
	woken  chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex
	places  map[stock.Place]*tenure // all that were ever looked at, held or not
	renewal round
	sharing round
	worked  bool
	shares  [patience]int // of the last rounds
}

// New starts nothing.
func New(o Options) *Keeper {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	k := &Keeper{Options: o, woken: make(chan struct{}, 1), places: make(map[stock.Place]*tenure)}
	if o.Spawn == nil {
		k.Spawn = func(work func()) { go work() }
	}
	k.census.Options = &k.Options
	return k
}

// Step begins whatever is due: rounds over the leases, and one bounded piece of
// work for each bucket held that is not at work still. A bucket whose engine or
// rebuilding takes long therefore keeps none of the others waiting. Failures are
// each bucket's own, logged and tried again by itself, and none of Step's.
//
// Run it every few milliseconds, and at once when Woken.
func (k *Keeper) Step(ctx context.Context) (worked bool, err error) {
	now := k.Now()
	k.begin(ctx, &k.renewal, now, k.renew)
	k.begin(ctx, &k.sharing, now, k.share)
	var due []*tenure
	k.mu.Lock()
	for _, t := range k.places {
		if t.lease != nil && !t.busy && !now.Before(t.next) {
			t.busy = true
			due = append(due, t)
		}
	}
	k.mu.Unlock()
	slices.SortFunc(due, func(a, b *tenure) int { return byPlace(a.place, b.place) }) // a simulation needs an order
	for _, t := range due {
		k.spawn(func() { k.run(ctx, t) })
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	worked, k.worked = k.worked, false
	return worked, nil
}

// Woken is for run.Task.Wake: a bucket has more to do.
func (k *Keeper) Woken() <-chan struct{} { return k.woken }

func (k *Keeper) spawn(work func()) {
	k.work.Add(1)
	k.Spawn(func() { defer k.work.Done(); work() })
}

// run does a piece of work for one bucket.
func (k *Keeper) run(ctx context.Context, t *tenure) {
	k.mu.Lock()
	held, allocation := t.lease, t.wanted
	k.mu.Unlock()
	t.mu.Lock()
	t.allocation = allocation
	worked, err := false, error(nil)
	if held.stands() {
		worked, err = t.step(ctx)
	} else {
		t.leave(Waiting)
	}
	pause, is := t.pause(worked, err), t.state
	t.publish()
	t.mu.Unlock()
	gone := is == Waiting || is == Fenced || is == Retired
	if gone && ctx.Err() == nil {
		_ = held.release(ctx) // it is another's, or nobody's any more: at worst it runs out
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.busy, t.next = false, k.Now().Add(pause)
	if gone {
		t.lease, t.retired = nil, is == Retired
	}
	if worked {
		k.worked = true
		select {
		case k.woken <- struct{}{}:
		default:
		}
	}
}

// round is something that is done about the leases again and again. There are two,
// since leases that do not answer the one must not keep the other from asking.
type round struct {
	at      time.Time // of the next one
	under   bool      // one is under way
	failing string
}

// begin starts a round that is due, unless the last one is still under way.
func (k *Keeper) begin(ctx context.Context, r *round, now time.Time, work func(context.Context) error) {
	k.mu.Lock()
	due := !r.under && !now.Before(r.at)
	if due {
		r.under, r.at = true, now.Add(k.TTL/3)
	}
	k.mu.Unlock()
	if !due {
		return
	}
	k.spawn(func() {
		err := work(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		r.under = false
		text := ""
		if err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != "" && text != r.failing {
			k.Logger.Error("leases of buckets", "error", err)
		}
		r.failing = text
	})
}

// share takes buckets up to this worker's share, and gives back what is more.
func (k *Keeper) share(ctx context.Context) error {
	workers, err := k.census.step(ctx)
	if err != nil {
		return fmt.Errorf("count workers: %w", err)
	}
	allocations, err := k.Allocations(ctx)
	if err != nil {
		return fmt.Errorf("allocations: %w", err)
	}
	wanted := k.wanted(allocations)
	share := (len(wanted) + workers - 1) / workers
	copy(k.shares[1:], k.shares[:])
	k.shares[0] = share
	return errors.Join(k.take(ctx, wanted, share), k.giveBack(ctx, slices.Max(k.shares[:])))
}

// held are the buckets of this worker, in the order of their places.
func (k *Keeper) held() (all []*tenure) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.places {
		if t.lease != nil {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *tenure) int { return byPlace(a.place, b.place) })
	return all
}

// renew asks for all leases, and ends with the first one about which there is no
// answer: a call may take as long as a lease lasts, and the rest would run out
// meanwhile. All of them count as asked from the beginning.
func (k *Keeper) renew(ctx context.Context) error {
	var all []*hold
	for _, t := range k.held() {
		k.mu.Lock()
		if t.lease != nil {
			all = append(all, t.lease)
		}
		k.mu.Unlock()
	}
	for _, h := range all {
		h.asking()
	}
	for _, h := range all {
		if err := h.renew(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wanted are the buckets somebody has to keep; who was retired is not.
func (k *Keeper) wanted(allocations []stock.Allocation) (all []*tenure) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range allocations {
		for n := range max(a.Buckets, 1) {
			p := stock.Place{Activity: a.Activity, Bucket: n}
			t := k.places[p]
			if t == nil {
				t = newTenure(&k.Options, p)
				k.places[p] = t
			}
			t.wanted = a
			if !t.retired {
				all = append(all, t)
			}
		}
	}
	slices.SortFunc(all, func(a, b *tenure) int { return byPlace(a.place, b.place) })
	return all
}

// take acquires what is free, up to the share. Each worker begins elsewhere, so
// that workers which start together do not ask for the same buckets.
func (k *Keeper) take(ctx context.Context, wanted []*tenure, share int) error {
	has, misses := len(k.held()), 0
	h := fnv.New32a()
	h.Write([]byte(k.Holder))
	begin := 0
	if len(wanted) > 0 {
		begin = int(h.Sum32() % uint32(len(wanted)))
	}
	for i := range wanted {
		if has >= share || misses >= maxMisses {
			break
		}
		t := wanted[(begin+i)%len(wanted)]
		k.mu.Lock()
		busy := t.lease != nil || t.busy
		k.mu.Unlock()
		if busy {
			continue
		}
		l, err := acquire(ctx, &k.Options, "bucket/"+string(t.place.Log()))
		if err != nil {
			return err
		}
		if l == nil {
			misses++
			continue
		}
		has++
		t.mu.Lock()
		t.enter()
		t.publish()
		t.mu.Unlock()
		k.mu.Lock()
		t.lease, t.next = l, time.Time{}
		k.mu.Unlock()
	}
	return nil
}

// giveBack leaves one bucket to workers that have fewer. One that is at work is
// not waited for.
func (k *Keeper) giveBack(ctx context.Context, most int) error {
	held := k.held()
	if len(held) <= most {
		return nil
	}
	for _, t := range slices.Backward(held) {
		k.mu.Lock()
		l := t.lease
		free := l != nil && !t.busy
		if free {
			t.lease = nil
		}
		k.mu.Unlock()
		if !free {
			continue
		}
		t.mu.Lock()
		t.leave(Waiting)
		t.publish()
		t.mu.Unlock()
		return l.release(ctx)
	}
	return nil
}

// Close waits for work under way, whose context must have ended, and gives all
// leases back, so that other workers need not wait for their end. From the first
// failure on it asks no more: the rest run out.
func (k *Keeper) Close(ctx context.Context) error {
	k.work.Wait()
	failed := k.census.leave(ctx)
	for _, t := range k.held() {
		t.mu.Lock()
		t.leave(Waiting)
		t.publish()
		t.mu.Unlock()
		k.mu.Lock()
		l := t.lease
		t.lease = nil
		k.mu.Unlock()
		if failed == nil {
			failed = l.release(ctx)
		}
	}
	return failed
}

func byPlace(a, b stock.Place) int {
	if c := strings.Compare(string(a.Activity), string(b.Activity)); c != 0 {
		return c
	}
	return int(a.Bucket) - int(b.Bucket)
}
