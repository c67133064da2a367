package app

import (
	"context"
	"errors"
	"time"

	"sluice/internal/api"
	"sluice/internal/gate"
	"sluice/internal/lib/run"
	"sluice/internal/stock"
)

// role is what a process is there for.
type role struct {
	gateway bool // serves shoppers
	worker  bool // lands orders, keeps buckets, does what only one may do at a time
	console bool // serves operators, and is the sandbox provider
}

var roles = map[string]role{
	"all":     {gateway: true, worker: true, console: true},
	"gateway": {gateway: true},
	"worker":  {worker: true},
	"console": {console: true},
}

// tasks are all that run beside the listeners, in the order in which they start.
func (e *engine) tasks() []run.Task {
	if e.alone != nil {
		return append(append(append(e.alone.tasks(), e.follow()...), e.receive()...), e.call())
	}
	tasks := e.fleet.onEach()
	tasks = append(append(tasks, e.follow()...), e.onEtcd()...)
	if e.role.worker {
		tasks = append(tasks, e.fleet.onWorkers()...)
	}
	if e.role.gateway {
		tasks = append(tasks, e.fleet.onGateways()...)
		tasks = append(append(tasks, e.receive()...), e.budgets())
	}
	if e.role.console {
		tasks = append(tasks, e.provide())
	}
	return tasks
}

// tasks of the process that is alone.
func (e *alone) tasks() []run.Task {
	return []run.Task{
		{Name: "log committer", Step: e.wal.Commit, Idle: time.Second, Wake: e.wal.Wake()},
		{Name: "log preparation", Step: e.wal.Prepare, Idle: 100 * time.Millisecond},
		{Name: "snapshots", Step: e.compact, Idle: 10 * time.Second},
		{Name: "store checkpoint", Step: e.store.Checkpoint, Idle: 100 * time.Millisecond},
		{Name: "replicas", Step: e.store.FollowReplicas, Idle: 200 * time.Millisecond},
		{Name: "landing", Step: e.lander.Step, Idle: 20 * time.Millisecond, Wake: e.wal.Advanced()},
		{Name: "outbox relay", Step: e.relay.Step, Idle: 50 * time.Millisecond, Wake: e.outgoing},
		{Name: "order keeper", Step: e.keeper.Step, Idle: 200 * time.Millisecond},
		{Name: "proof", Step: e.proofs.Step, Idle: time.Second},
		{Name: "old notifications", Step: e.trimNotices, Idle: time.Minute},
		{Name: "old entries of lists", Step: e.trimLists, Idle: time.Minute},
		{Name: "activity life", Step: e.sales.Step, Idle: 500 * time.Millisecond},
		e.provide(),
	}
}

// onEach is in each process of a fleet: what is on sale, and how it stands.
func (f *fleet) onEach() []run.Task {
	return []run.Task{
		steady(f.log, run.Task{Name: "activities on show", Step: f.refresh, Idle: 500 * time.Millisecond, Wake: f.bells.rung(bellActivities)}),
		{Name: "mirror", Step: f.mirror.Step, Idle: 20 * time.Millisecond},
		{Name: "replicas", Step: f.store.FollowReplicas, Idle: 200 * time.Millisecond},
	}
}

// onGateways: event streams are told by the mirror, and by a look at the store
// where the mirror may have missed something.
func (f *fleet) onGateways() []run.Task {
	return []run.Task{
		steady(f.log, run.Task{Name: "missed changes", Step: f.look, Idle: time.Second, Wake: f.asked}),
	}
}

// onWorkers: each keeps its share of the buckets, and has those singletons whose lease it
// gets.
func (f *fleet) onWorkers() []run.Task {
	tasks := []run.Task{
		{Name: "buckets", Step: f.buckets.Step, Idle: 5 * time.Millisecond, Wake: f.buckets.Woken()},
		{Name: "bucket proofs", Step: f.inspect.Step, Idle: 20 * time.Millisecond},
	}
	tasks = append(tasks, f.onBus()...)
	for _, s := range f.singles {
		tasks = append(tasks, s.tasks()...)
	}
	return tasks
}

// newSingles are the tasks that one worker of a fleet does at a time, each with
// the reason why two of them at once do no harm: for the moment between the end of
// a lease and the end of the work under it, after a process was stopped in the
// middle, and for as long as the worker that had one does not reach the leases
// while another does. With the leases in etcd all of them go on without it.
func (f *fleet) newSingles() []*singleton {
	one := func(t run.Task) *singleton { return f.singleton(f.log, t) }
	// Purchases do not need the store, so people are called while it is away.
	onward := func(s *singleton) *singleton { s.goesOn = true; return s }
	singles := []*singleton{
		// States are saved on the condition of the revision that was read. The
		// ledger may hear an older edit after a newer one, and the next step of
		// whoever has the lease sees that in the mirror and says the newer again.
		one(run.Task{Name: "activity life", Step: f.life.Step, Idle: 500 * time.Millisecond}),
		// Every change of an order is conditional on its version, and payments
		// and refunds are asked for by ids that were saved before.
		one(run.Task{Name: "order keeper", Step: f.keeper.Step, Idle: 200 * time.Millisecond}),
		// Each change of a room is conditional on the one before.
		onward(one(f.call())),
		// It reads, raises alarms, and files a proof that says the same again.
		one(run.Task{Name: "proof", Step: f.proofs.Step, Idle: time.Second}),
		// What the other has deleted is not there to be deleted.
		one(run.Task{Name: "old notifications", Step: f.trimNotices, Idle: time.Minute}),
		one(run.Task{Name: "old entries of lists", Step: f.trimLists, Idle: time.Minute}),
	}
	for _, t := range f.onBusAlone() {
		// A message may be delivered twice anyway, and what is done with it is
		// idempotent: the ledger answers the outcome that stands, and a
		// notification has the id of its message.
		singles = append(singles, one(t))
	}
	return singles
}

// provide is the sandbox provider at work.
func (e *engine) provide() run.Task {
	return run.Task{Name: "sandbox provider", Step: e.sandbox.Step, Idle: 100 * time.Millisecond, Wake: e.sandbox.Woken()}
}

// Notifications are kept for noticesKept; trimSize bounds one step of forgetting.
const (
	noticesKept = 90 * 24 * time.Hour
	trimSize    = 500
)

// trimNotices forgets old notifications.
func (e *engine) trimNotices(ctx context.Context) (worked bool, err error) {
	return e.store.TrimNotifications(ctx, stock.MillisOf(e.clock.Now().Add(-noticesKept)), trimSize)
}

// ready answers nil when the process can do what it is there for.
func (e *engine) ready(ctx context.Context) error {
	if e.alone != nil {
		return e.alone.ready(ctx)
	}
	return e.fleet.ready(ctx)
}

// gateway is the shopper API.
func (e *engine) gateway(c Config) (*api.Server, error) {
	verifier, demo, err := c.identities(e.clock.Now, e.log)
	if err != nil {
		return nil, err
	}
	e.verifier = verifier
	front, err := storefront(c.Demo)
	if err != nil {
		return nil, err
	}
	front.Shop, front.Orders, front.Payments, front.Watchers = e.shop, e.deskFor(gate.Browsing), e.deskFor(gate.Paying), watching{e.watchers, e.shown}
	front.Notices = shedNotices{notices{e.shown}, e.shedding}
	if e.fleet != nil {
		front.Standing = e.deskFor(gate.Buying).Standing
	}
	front.Rules, front.Trusted, front.Switches = e.rules.Limits, c.proxies(), e.rules.Door.Switches
	front.Slips, front.Queue, front.Asks = e.entrance, e.entrance, e.rules.Door.Asks
	front.Verifier, front.Demo, front.Now, front.Log = verifier, demo, e.clock.Now, e.log
	return api.New(front)
}

func (e *engine) close() error {
	e.provider.Close()
	return errors.Join(e.closeSandbox(), e.doors.close())
}
