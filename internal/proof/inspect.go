package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// keeps are the buckets of a worker: *bucket.Keeper.
type keeps interface {
	Serving() []stock.Cursor
	Hold(p stock.Place) (b *stock.Book, at stock.Cursor, release func(), ok bool)
	Rebuild(p stock.Place, why string) bool
}

// parts is the store's side of an Inspector.
type parts interface {
	// Inspect reads a bucket, all at one moment: begun gets the watermark of its
	// log as soon as that moment is fixed, then visit every order. It answers the
	// bucket's rules and the events of its orders not yet delivered. An error of
	// begun or visit ends it.
	Inspect(ctx context.Context, log stock.LogID, begun func(stock.Cursor) error, visit func(order.Order) error) ([]stock.Entry, []outbox.Message, error)
	// Dead lists dead letters with id > after.
	Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error)
	SavePart(ctx context.Context, p Part) error
	// Asks are all that stand; Answered lets one go, unless a newer one stands.
	Asks(ctx context.Context) ([]Ask, error)
	Answered(ctx context.Context, a Ask) error
}

// Inspecting is what an Inspector works with; all fields are needed.
type Inspecting struct {
	Store parts
	// Engine is where the units of a bucket are in the engine, at one position.
	Engine func(ctx context.Context, p stock.Place) (stock.Counts, error)
	Lookup func(ctx context.Context, ref stock.Ref) (stock.Receipt, error)
	Now    func() time.Time
}

// Inspector is the auditor of the buckets that this worker keeps. Of each it
// compares the keeper's book, at the store's watermark, with the orders; and the
// engine's counts with the book when that has come to the same place of the log.
// It leaves the newest report of each in the store, where Fleet puts them together.
//
// A bucket is held still only while a transaction of the store begins, the book
// is copied and the engine is read. Step is for one goroutine; what the keeper
// calls (bucket.Witness) for any.
type Inspector struct {
	o       Inspecting
	keeper  keeps
	resting time.Time // no audit before it, unless one is asked for
	lookAt  time.Time
	wanted  map[stock.ActivityID]int64

	mu     sync.Mutex
	vigils map[stock.Place]*vigil
}

// Bounds of an Inspector.
const (
	lookEvery = 200 * time.Millisecond // at what is asked for
	holdFor   = time.Second            // a bucket at most
	probeFor  = 2 * time.Second        // a book has to come to where the engine was
	tryAgain  = 500 * time.Millisecond
)

// NewInspector starts nothing. It is made before the keeper that it witnesses,
// which Watch tells it of.
func NewInspector(o Inspecting) *Inspector {
	return &Inspector{o: o, vigils: map[stock.Place]*vigil{}, wanted: map[stock.ActivityID]int64{}}
}

// Watch says whose buckets these are, before the first Step.
func (i *Inspector) Watch(k keeps) { i.keeper = k }

// Step sees to what is asked for, ends inspections that waited for their book,
// and begins the one that has been due for the longest. Run it every 20 ms or so.
func (i *Inspector) Step(ctx context.Context) (worked bool, err error) {
	serving := i.serving()
	if len(serving) == 0 {
		return false, nil
	}
	var failed []error
	if now := i.o.Now(); !now.Before(i.lookAt) {
		i.lookAt = now.Add(lookEvery)
		failed = append(failed, i.look(ctx, serving))
	}
	for _, v := range slices.SortedFunc(maps.Keys(serving), byPlace) {
		if v.waiting != nil && v.waiting.ready(v, i.o.Now()) {
			worked = true
			failed = append(failed, i.finish(ctx, v, serving))
		}
	}
	if v := i.mostDue(serving); v != nil {
		worked = true
		failed = append(failed, i.inspect(ctx, v))
		if v.waiting != nil && v.waiting.ready(v, i.o.Now()) {
			failed = append(failed, i.finish(ctx, v, serving))
		}
	}
	return worked, errors.Join(failed...)
}

// serving are the buckets of this worker and where they are. What is known of
// one that is served no more is let go.
func (i *Inspector) serving() map[*vigil]stock.Cursor {
	all := map[*vigil]stock.Cursor{}
	for _, at := range i.keeper.Serving() {
		if p, err := stock.PlaceOf(at.Log); err == nil {
			all[i.vigil(p)] = at
		}
	}
	return all
}

func byPlace(a, b *vigil) int {
	return cmp.Or(cmp.Compare(a.place.Activity, b.place.Activity), cmp.Compare(a.place.Bucket, b.place.Bucket))
}

// look reads what is asked for.
func (i *Inspector) look(ctx context.Context, serving map[*vigil]stock.Cursor) error {
	asks, err := i.o.Store.Asks(ctx)
	if err != nil {
		return fmt.Errorf("proof: asks: %w", err)
	}
	clear(i.wanted)
	var failed []error
	for _, a := range asks {
		switch a.Kind {
		case AskProof:
			i.wanted[stock.ActivityID(a.Name)] = a.Number
		case AskRebuild:
			p, err := stock.PlaceOf(stock.LogID(a.Name))
			if err != nil {
				continue
			}
			v := i.vigil(p)
			if at, mine := serving[v]; mine {
				failed = append(failed, i.rebuild(ctx, v, at, a))
			}
		}
	}
	return errors.Join(failed...)
}

// rebuild has a bucket rebuilt, once for an Ask, and lets the Ask go when it
// serves in a later epoch.
func (i *Inspector) rebuild(ctx context.Context, v *vigil, at stock.Cursor, a Ask) error {
	switch {
	case v.rebuild != a.Number:
		if i.keeper.Rebuild(v.place, "an operator asked for it, since the engine's counts were not the book's") {
			v.rebuild, v.fromEpoch = a.Number, at.Epoch
		}
	case at.Epoch > v.fromEpoch:
		if err := i.o.Store.Answered(ctx, a); err != nil {
			return fmt.Errorf("proof: rebuilding of %s: %w", a.Name, err)
		}
		v.rebuild = 0
	}
	return nil
}

// mostDue picks the bucket to inspect now; nil, if none is due. What is asked
// for goes first and waits for no rest.
func (i *Inspector) mostDue(serving map[*vigil]stock.Cursor) (picked *vigil) {
	now := i.o.Now()
	var since time.Time
	for v, at := range serving {
		if v.waiting != nil || now.Before(v.again) {
			continue
		}
		due := v.due(at)
		if i.wanted[v.place.Activity] > v.answered() {
			due = time.Time{}
		} else if now.Before(i.resting) || now.Before(due) {
			continue
		}
		if picked == nil || due.Before(since) || due.Equal(since) && byPlace(v, picked) < 0 {
			picked, since = v, due
		}
	}
	return picked
}

func (v *vigil) answered() int64 {
	if v.part == nil {
		return 0
	}
	return v.part.Answers
}

// due is when a bucket that is at this place is to be inspected again: at once
// when its book was made anew.
func (v *vigil) due(at stock.Cursor) time.Time {
	v.mu.Lock()
	made := v.made
	v.mu.Unlock()
	if made != v.inspected {
		return time.Time{}
	}
	if p := v.part; p != nil && p.Report.OK && p.At.Engine != nil && p.At.Position.Epoch == at.Epoch && p.At.Position.Position == at.Position {
		return v.tried.Add(Sweep)
	}
	return v.tried.Add(Interval)
}

// errMoved: the book does not stand where the store's moment is.
var errMoved = errors.New("the book is at another place than the store")

// inspect begins an inspection. One for which the book does not stand at the
// store's watermark is made later: some other worker has the bucket by now.
func (i *Inspector) inspect(ctx context.Context, v *vigil) error {
	began := i.o.Now()
	v.tried = began
	n := &inspection{comparison: newComparison(v.place.Activity), answers: i.wanted[v.place.Activity]}
	n.report.CheckedAt = began.UTC().Truncate(time.Millisecond)
	rules, undelivered, err := i.read(ctx, v, n)
	if err != nil {
		v.again = i.o.Now().Add(tryAgain)
		if errors.Is(err, errMoved) {
			return nil
		}
		return fmt.Errorf("proof: bucket %s: %w", v.place.Log(), err)
	}
	if err := n.travelling(ctx, i.o.Store.Dead, undelivered); err != nil {
		v.again = i.o.Now().Add(tryAgain)
		return err
	}
	n.report.Position = Position{v.place.Log(), n.at.Epoch, n.at.Position}
	n.report.Ledger = n.counts.Items
	if n.broken != nil {
		n.violated("bucket %d: %v", v.place.Bucket, n.broken)
	}
	n.withinRules(v.place, rules)
	n.compare(slices.Values(n.book), func(o row) (stock.State, error) {
		r, err := i.o.Lookup(ctx, stock.Ref{ID: o.reservation, User: o.user})
		return r.State, err
	})
	n.book = nil
	n.limits = v.withinLimits(n.comparison, n.made)
	n.followMoney(func(user stock.UserID, id stock.OrderID) bool {
		_, err := i.o.Lookup(ctx, stock.Ref{Activity: v.place.Activity, User: user, Order: id})
		return !errors.Is(err, stock.ErrNoSuchReservation)
	})
	n.trusted = v.caughtUp(n.made, undelivered)
	n.resting = n.counts.Phase == stock.Closed && !n.moving && len(undelivered) == 0
	now := i.o.Now()
	n.took, n.until = now.Sub(began), now.Add(probeFor)
	v.waiting, v.took = n, n.took
	i.resting = now.Add((share - 1) * n.took)
	return nil
}

// read fixes the moment: with the bucket held still, a transaction of the store
// begins, the book is copied and the engine is read. The orders are read after.
func (i *Inspector) read(ctx context.Context, v *vigil, n *inspection) ([]stock.Entry, []outbox.Message, error) {
	book, at, release, ok := i.keeper.Hold(v.place)
	defer release()
	if !ok {
		return nil, nil, errMoved
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	held := time.AfterFunc(holdFor, cancel)
	defer held.Stop()
	begun := func(mark stock.Cursor) error {
		if mark.Epoch != at.Epoch || mark.Position != at.Position || book == nil {
			return errMoved
		}
		n.at, n.broken, n.counts = at, book.Check(), book.Counts()
		n.book = slices.AppendSeq(make([]entered, 0, v.size+v.size/8), enteredIn(book)) // this is what the bucket waits for
		v.size = len(n.book)
		i.readEngine(ctx, v, n)
		book = nil // it goes on from here
		held.Stop()
		release()
		return nil
	}
	return i.o.Store.Inspect(ctx, v.place.Log(), begun, func(o order.Order) error {
		n.take(o)
		return ctx.Err()
	})
}
