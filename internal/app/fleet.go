package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/bucket"
	"sluice/internal/lib/id"
	"sluice/internal/lib/run"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// fleet is what an engine has besides when processes share the ledger: each
// keeps a mirror of it, and workers keep its buckets.
type fleet struct {
	*engine
	mirror  *redisstock.Mirror
	buckets *bucket.Keeper
	life    *sale.Desk // tells the ledger; one at a time in the fleet
	singles []*singleton
	inspect *proof.Inspector // of the buckets that this worker keeps
	proofs  *proof.Fleet

	refreshing sync.Mutex                    // one refresh at a time
	met        map[stock.ActivityID]struct{} // activities that the ledger's client knows

	asked   chan struct{} // wakes look
	mu      sync.Mutex
	follows map[stock.ActivityID]struct{} // that the mirror was told to follow; replaced, never changed
	looks   map[stock.Place]uint32        // buckets whose watched reservations have to be looked at → their epoch
}

func (e *engine) newFleet() *fleet {
	f := &fleet{engine: e, asked: make(chan struct{}, 1), looks: map[stock.Place]uint32{}, met: map[stock.ActivityID]struct{}{}}
	now := e.clock.Now
	f.mirror = e.redis.Mirror(redisstock.MirrorOptions{Board: e.board, Log: e.log, Now: now, Changed: f.changed, Epoch: f.missed})
	e.knows = f.allots
	f.life = sale.NewDesk(e.shop)
	f.proofs = proof.NewFleet(proof.FleetOptions{Store: provable{e.store, e.letters()}, Archive: e.store, Subjects: e.subjects, Alarm: e.alarms.Violation, Now: now})
	f.inspect = proof.NewInspector(proof.Inspecting{Store: provable{e.store, e.letters()}, Engine: e.redis.Standing, Lookup: e.redis.Lookup, Now: now})
	f.buckets = bucket.New(bucket.Options{
		Witness: f.inspect,
		Engine:  e.redis, Log: e.redis, Credit: e.redis.Credit, Store: e.store, Buckets: e.store, Leases: e.leases, Holder: e.holder,
		Allocations: f.allocations,
		Final: func(ctx context.Context, activity stock.ActivityID) (bool, error) {
			_, final, err := e.store.Proof(ctx, activity)
			return final, err
		},
		Snapshots: e.snapshots, Landed: func([]order.Landed) { e.landed() }, Alarms: e.alarms, Logger: e.log, Now: now,
	})
	f.inspect.Watch(f.buckets)
	return f
}

// join takes this process's place among the others, before anything runs, and
// gives back what it has when everything has stopped: another worker then takes
// over at once.
func (f *fleet) join(g *run.Group) {
	g.Add("leases", nil, func(ctx context.Context) error {
		var failed []error
		if f.role.worker {
			failed = append(failed, f.unlessAway(f.buckets.Close(ctx)))
		}
		for _, s := range f.singles {
			failed = append(failed, f.unlessAway(s.lease.Stop(ctx)))
		}
		return errors.Join(failed...)
	}, workerDeadline)
	g.Task(f.log, f.placing(g, f.log), workerDeadline)
	g.Task(f.log, steady(f.log, run.Task{Name: "worker number", Idle: time.Second, Step: func(ctx context.Context) (bool, error) {
		worked, err := f.number.Step(ctx)
		if errors.Is(err, errTaken) {
			g.Fail(err)
		}
		return worked, err
	}}), workerDeadline)
}

// changed tells the event streams of this process what the mirror has read: a
// reservation has landed, or was settled. The order's state follows from it;
// what does not (fulfilled, refunded without restock) ends no stream.
func (f *fleet) changed(id stock.ID, state stock.State) {
	f.watchers.Publish(order.Change{Reservation: id, State: state, OrderState: orderState[state]})
}

var orderState = map[stock.State]order.State{
	stock.Held: order.Created, stock.Confirmed: order.Paid, stock.Released: order.Cancelled, stock.Expired: order.Cancelled,
	stock.Returned: order.Refunded, stock.Refused: order.Refused,
}

// missed notes that news of a bucket may have been missed up to now.
func (f *fleet) missed(p stock.Place, epoch uint32) {
	f.mu.Lock()
	f.looks[p] = epoch
	f.mu.Unlock()
	select {
	case f.asked <- struct{}{}:
	default:
	}
}

// lookHands bounds the questions to the store at once.
const lookHands = 8

// look asks the store about the watched reservations of a bucket whose news may
// have been missed.
func (f *fleet) look(ctx context.Context) (worked bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, epoch := range f.looks {
		delete(f.looks, p)
		f.mu.Unlock()
		err = f.lookAll(ctx, f.watchers.Of(p), epoch)
		f.mu.Lock()
		if _, again := f.looks[p]; err != nil && !again {
			f.looks[p] = epoch
		}
		return err == nil, err
	}
	return false, nil
}

func (f *fleet) lookAll(ctx context.Context, ids []stock.ID, epoch uint32) error {
	hands := make(chan struct{}, lookHands)
	failed := make([]error, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		hands <- struct{}{}
		all.Go(func() {
			failed[i] = f.lookAt(ctx, id, epoch)
			<-hands
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// lookAt publishes how one reservation stands. All that was ever going to land
// of an epoch has landed when the bucket accepts in a later one: what is not
// there then was lost, and is refused.
func (f *fleet) lookAt(ctx context.Context, id stock.ID, epoch uint32) error {
	found, err := f.store.List(ctx, order.Query{Reservation: &id, Limit: 1})
	switch {
	case err != nil:
		return fmt.Errorf("reservation %s: %w", id, err)
	case len(found) > 0:
		f.watchers.Landed([]order.Landed{{Order: found[0]}})
	case id.Epoch < epoch:
		f.changed(id, stock.Refused)
	}
	return nil
}

// refresh shows the activities as they are stored, and follows those that have
// units.
func (f *fleet) refresh(ctx context.Context) (worked bool, err error) {
	f.refreshing.Lock()
	defer f.refreshing.Unlock()
	shown := f.shop.Refresh(ctx)
	activities, err := f.allotted(ctx)
	if err != nil {
		return false, errors.Join(shown, err)
	}
	ids, follows := make([]stock.ActivityID, len(activities)), make(map[stock.ActivityID]struct{}, len(activities))
	for i, a := range activities {
		ids[i], follows[a.ID] = a.ID, struct{}{}
		if _, known := f.met[a.ID]; known {
			continue
		}
		// So that an order can be found by its id alone here, before anybody has
		// bought anything here.
		if _, err := f.ledger.Counts(ctx, a.ID); err == nil {
			f.met[a.ID] = struct{}{}
		}
	}
	// Before anybody asks the ledger for one that it has not got: it has lost it.
	f.mu.Lock()
	f.follows = follows
	f.mu.Unlock()
	f.mirror.Follow(ids)
	return false, shown
}

// allotted are the activities that live and have units, or are about to.
func (f *fleet) allotted(ctx context.Context) (found []sale.Activity, err error) {
	living, err := f.store.Select(ctx, sale.Query{Living: true})
	if err != nil {
		return nil, err
	}
	for _, a := range living {
		switch a.State {
		case sale.Draft, sale.Scheduled:
			continue
		case sale.Closed: // perhaps before it had any
			at, err := f.store.Watermark(ctx, stock.Place{Activity: a.ID}.Log())
			if err != nil {
				return nil, err
			}
			if at == (stock.Cursor{}) {
				continue
			}
		}
		found = append(found, a)
	}
	return found, nil
}

// reads is the ledger for who reads orders that have not landed.
func (e *engine) reads() interface {
	Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error)
} {
	if e.fleet == nil {
		return e.ledger // it is this process's own, and loses nothing
	}
	return &order.Recall{Ledger: e.ledger, Living: e.fleet.living, Minted: minted, Now: e.clock.Now}
}

// minted reads an order id: when it was made, if it can have been for this user.
func minted(user stock.UserID, of stock.OrderID) (at time.Time, ok bool) {
	n, err := id.Parse(string(of))
	return id.Time(n), err == nil && id.Marked(n, string(user))
}

// living are the activities that have units, as the store has it now. From here
// on the ledger's client takes one that Redis has nothing of for lost, though
// this process may not have shown it so far.
func (f *fleet) living(ctx context.Context) ([]stock.ActivityID, error) {
	activities, err := f.allotted(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ids, follows := make([]stock.ActivityID, len(activities)), make(map[stock.ActivityID]struct{}, len(activities))
	maps.Copy(follows, f.follows)
	for i, a := range activities {
		ids[i], follows[a.ID] = a.ID, struct{}{}
	}
	f.follows = follows
	return ids, nil
}

// allocations are for the keepers of the buckets: what each is to open with if
// it was never open.
func (f *fleet) allocations(ctx context.Context) ([]stock.Allocation, error) {
	activities, err := f.allotted(ctx)
	all := make([]stock.Allocation, len(activities))
	for i := range activities {
		all[i] = activities[i].Allocation(stock.MillisOf(f.clock.Now()))
	}
	return all, err
}

// allots says whether the ledger should have an activity.
func (f *fleet) allots(activity stock.ActivityID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, yes := f.follows[activity]
	return yes
}

// Bounds of starting.
const (
	knowWithin = 3 * time.Second
	knowPoll   = 20 * time.Millisecond
)

// show reads the activities and waits a little until the mirror knows them: a
// gateway that serves before would ask its shoppers to come again. An activity
// whose buckets do not answer keeps nobody waiting for longer.
func (f *fleet) show(ctx context.Context) error {
	if _, err := f.refresh(ctx); err != nil {
		f.log.Error("an activity cannot be shown", "error", err)
	}
	over := time.NewTimer(knowWithin)
	defer over.Stop()
	poll := time.NewTicker(knowPoll)
	defer poll.Stop()
	for !f.known() {
		select {
		case <-poll.C:
		case <-over.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// known says whether the mirror has looked at all that it follows.
func (f *fleet) known() bool {
	f.mu.Lock()
	follows := len(f.follows)
	f.mu.Unlock()
	standings := f.mirror.Standings()
	for _, s := range standings {
		if !s.Ready && s.Buckets > 0 {
			return false
		}
	}
	return len(standings) == follows
}

// freshFor is how old all that is known of the ledger may be in a process that
// can serve: far more than a bucket takes to be read, and less than a balancer
// takes to look.
const freshFor = 2 * time.Second

// ready answers nil when this process can do its work: it has its number, and
// the ledger can be reached. Workers and consoles need the store, too; a gateway
// sells without it as long as its number stands, and with all gateways taken out
// for a store that is away nobody would. A single bucket that is being rebuilt,
// or a part of a cluster that is away, is no reason to send shoppers elsewhere
// either: they would find it there just the same.
func (f *fleet) ready(ctx context.Context) error {
	if err := f.number.stands(); err != nil {
		return fmt.Errorf("worker number: %w", err)
	}
	if f.role.worker || f.role.console {
		if err := f.store.Ping(ctx); err != nil {
			return err
		}
	}
	standings := f.mirror.Standings()
	for _, s := range standings {
		if s.Ready || f.clock.Now().Sub(s.AsOf) < freshFor {
			return nil
		}
	}
	// Nothing is on sale, or nothing is known of any sale: ask for one that
	// cannot be there.
	_, err := f.redis.Counts(ctx, "-")
	switch {
	case !errors.Is(err, stock.ErrNoSuchActivity):
		return fmt.Errorf("ledger: %w", err)
	case len(standings) > 0 && f.opened(standings):
		return errors.New("the mirror of the ledger is too old")
	}
	return nil
}

// opened says whether the ledger has any of the activities.
func (f *fleet) opened(standings []redisstock.Standing) bool {
	for _, s := range standings {
		if s.Buckets > 0 {
			return true
		}
	}
	return false
}
