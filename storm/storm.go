// Package storm rehearses a sale: it floods a server with users who buy, pay,
// abandon, cancel, click twice, lose replies and forge, may kill the server
// half-way, and then audits what is left against its own record of every reply.
//
// It speaks to the server by HTTP only and shares no code with it, so that a
// fault of the server cannot hide in its tester. Load is open-loop: attempts
// are due by a clock and latency is measured from then on, so a slow server
// cannot slow its own test down. Where it is asked for, users act for themselves
// instead, as people or as bots, through whatever the shop puts before a purchase:
// see people.go and actor.go. The server may be a fleet, which answers
// "pending" before it promises, and of which parts may be away: see promise.go
// and troubles.go. What the oracle states are bounds that hold
// whatever was lost on the way; a run without violations proves no more than
// that nothing it looked for happened.
package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	early      = 100 * time.Millisecond // how long before the opening the first users come
	maxLate    = time.Second            // an attempt that is later than this is not sent any more
	maxBehind  = time.Second / 2        // nor one while errands are later than this
	tailRate   = 2000                   // most attempts a second in the tail
	samplePace = 200 * time.Millisecond
)

// patience is how long a rehearsal waits around the rush itself.
type patience struct {
	announce time.Duration // from creating the activity to its opening
	tail     time.Duration // the tail lasts at most the hold and this
	quiet    time.Duration // for orders, payments and events to come to rest: that long without any change
	news     time.Duration // for a provider's callback to reach its order
	scarce   time.Duration // that units must have been free before a refusal for want of them is a lie
	sample   time.Duration // between two looks at the counts
	overdue  time.Duration // that an unpaid order may outlive its expiry before its unit counts as stranded
	pending  time.Duration // for what is pending to be held or refused, when every part of the shop is there
}

var usual = patience{
	announce: 1500 * time.Millisecond, tail: 10 * time.Second, quiet: 20 * time.Second,
	news: 3 * time.Second, scarce: 2 * time.Second, sample: samplePace, overdue: 5 * time.Second, pending: 15 * time.Second,
}

// rehearsal is one run against one activity.
type rehearsal struct {
	o      Options
	wait   patience
	dice   dice
	crowd  *crowd
	shop   *shop
	oracle *oracle
	agenda *agenda
	outage outage
	notes  breaches

	service  *service
	landings landings
	streams  chan struct{} // bounds the streams of events that are read at once
	faults   []*Fault      // when the rush is over

	meter   *meter
	thirds  []Third  // of the rush, with a playbook
	history *history // nil = nothing is recorded
	linear  *Linear  // what its check came to

	play    *play // nil: attempts are due by a schedule
	guarded bool  // rules of the storm's own are in force

	targets   []target
	lined     atomic.Int64 // lanes begun
	lanes     []*tally     // one for each connection
	errands   *tally       // purchases made by errands
	selling   atomic.Bool  // after the rush: every buyer pays, nobody plays tricks
	lastMoney atomic.Int64 // Unix ns at which the last late payment is due
	givenUp   atomic.Int64 // errands repeated too often
	rechecked atomic.Int64 // promises checked again after restarts and after the rush
	resting   atomic.Bool  // after the tail: nobody buys any more
	began     time.Time
	rushed    time.Duration

	rushAttempts uint64
}

// Run makes one rehearsal, with a line a second to progress (nil = none). An
// error means that it could not be carried out or audited; what it found
// wrong is in Report.Violations.
func Run(ctx context.Context, o Options, progress io.Writer) (Report, error) {
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	if progress == nil {
		progress = io.Discard
	}
	if o.Steps {
		return climb(ctx, o, progress)
	}
	return rehearse(ctx, o, usual, progress)
}

func rehearse(ctx context.Context, o Options, wait patience, progress io.Writer) (Report, error) {
	if o.profiled() {
		wait.announce = max(wait.announce, lead(o.Duration))
	}
	r, err := prepare(o, wait)
	if r != nil {
		defer r.lift()
	}
	if err != nil {
		return Report{}, err
	}
	// Background work ends before the audit, which wants the record complete.
	work, stop := context.WithCancel(ctx)
	defer stop()
	meter := newMeter(r, progress)
	r.meter = meter
	var background sync.WaitGroup
	background.Go(func() { r.agenda.work(work, r.o.Connections) })
	background.Go(func() { r.sampling(work) })
	background.Go(func() { meter.run(work) })

	r.rush(ctx)
	r.lift()
	r.rushAttempts = meter.attempts()
	left := r.sellOff(ctx)
	if ctx.Err() == nil {
		r.recheck()
		r.drain(ctx)
	}
	stop()
	background.Wait()
	if err := ctx.Err(); err != nil {
		return Report{}, err
	}
	facts, err := r.gather(ctx)
	facts.unsold = left
	if err == nil {
		r.oracle.audit(facts)
	}
	if lost := r.linearize(facts, err == nil); lost != nil {
		return Report{}, lost
	}
	if n := r.givenUp.Load(); n > 0 {
		r.notes.add("%d calls were given up after %d tries each", n, maxTries)
	}
	report := r.report(meter, facts)
	if err != nil {
		return report, fmt.Errorf("audit: %w", err)
	}
	return report, nil
}

// prepare signs the tokens and puts the sale up. If that fails half-way the
// answer is what there is of the rehearsal, for its rules to be lifted.
func prepare(o Options, wait patience) (*rehearsal, error) {
	key, err := readKey(o.Data)
	if err != nil {
		return nil, err
	}
	// Tokens are issued a little in the past, for clocks that differ.
	users, err := newCrowd(o.Users, o.Seed, key, time.Now().Add(-time.Minute), o.Duration+3*time.Hour)
	if err != nil {
		return nil, fmt.Errorf("sign the users' tokens: %w", err)
	}
	r := &rehearsal{
		o: o, wait: wait, dice: dice(o.Seed), crowd: users, agenda: newAgenda(), errands: newTally(),
		shop:     newShop(o, strconv.FormatInt(time.Now().UnixMilli(), 36)),
		landings: newLandings(), streams: make(chan struct{}, max(o.Connections/4, 1)),
	}
	if o.Linearize > 0 || o.History != "" {
		r.history = newHistory(time.Now())
	}
	for range o.Connections {
		r.lanes = append(r.lanes, newTally())
	}
	for _, raw := range r.shop.targets {
		at, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		r.targets = append(r.targets, target{at, newRequest(at, r.shop.activity, r.shop.sku)})
	}
	ahead, err := r.shop.ahead()
	if err != nil {
		return nil, fmt.Errorf("read the server's clock: %w", err)
	}
	opens := time.Now().Add(wait.announce).Truncate(time.Millisecond)
	r.oracle = newOracle(o.Stock, opens)
	r.oracle.ahead, r.oracle.scarcity.window = ahead, wait.scarce
	r.oracle.hold, r.oracle.lag = time.Duration(o.Hold)*time.Second, o.Lag
	if err := r.shop.forgetDead(); err != nil {
		return nil, err
	}
	if err := r.guard(); err != nil {
		return r, err
	}
	if r.oracle.buckets, err = r.shop.sell(o, opens.Add(ahead)); err != nil {
		return r, err
	}
	r.service = newService(r.oracle.buckets)
	for _, t := range r.shop.targets {
		if err := r.awaitShown(t, opens); err != nil {
			return r, err
		}
	}
	r.began = opens.Add(-early)
	return r, nil
}

// guard lets users act for themselves, behind the rules that were asked for.
func (r *rehearsal) guard() error {
	if !r.o.profiled() {
		return nil
	}
	r.play = newPlay(r)
	rules := gateRules(r.o, r.shop.activity, r.wait.announce)
	if len(rules) == 0 {
		return nil
	}
	r.guarded = true
	if err := r.shop.guard(rules); err != nil {
		return fmt.Errorf("put the rules into force: %w", err)
	}
	return nil
}

// lift takes the storm's rules away, once: the tail is for who is left, and no
// rule stays behind.
func (r *rehearsal) lift() {
	if !r.guarded {
		return
	}
	r.guarded = false
	if err := r.shop.guard(nil); err != nil {
		r.notes.add("the storm's rules for %s are still there: %v", r.shop.activity, err)
	}
}

// awaitShown waits until the shoppers of a gateway can see the activity.
func (r *rehearsal) awaitShown(target string, opens time.Time) error {
	for {
		err := r.shop.read("GET", target+"/v1/activities/"+r.shop.activity, nil, nil, nil)
		if err == nil {
			return nil
		}
		if time.Now().After(opens.Add(5 * time.Second)) {
			return fmt.Errorf("the activity is not shown to shoppers: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// rush runs the schedule at full rate, with the restart half-way, or as long as
// the supervisor works.
func (r *rehearsal) rush(ctx context.Context) {
	rush, over := context.WithCancel(ctx)
	defer over()
	var beside sync.WaitGroup
	switch {
	case r.o.Supervisor != nil:
		beside.Go(func() {
			defer over()
			r.supervise(rush)
		})
	case r.o.RestartCmd != "":
		beside.Go(func() { r.restart(ctx) })
	}
	if r.o.Playbook != "" {
		beside.Go(func() { r.underPlaybook(rush) })
	}
	if r.play != nil {
		r.play.run(rush, r.began.Add(r.o.Duration))
	} else {
		r.flood(rush, newSchedule(r.began, r.o.Rate, r.o.Duration))
	}
	r.rushed = time.Since(r.began)
	over()
	beside.Wait()
	r.faults = r.service.stop(time.Now())
}

// flood drives every lane through a schedule and returns when it is over.
func (r *rehearsal) flood(ctx context.Context, s *schedule) {
	var wg sync.WaitGroup
	for _, t := range r.lanes {
		wg.Go(func() { r.lane(ctx, s, t) })
	}
	wg.Wait()
}

// sampling judges the server's counts all the while.
func (r *rehearsal) sampling(ctx context.Context) {
	pace := time.NewTicker(r.wait.sample)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		g := r.oracle.scarcity.asking(time.Now())
		i, err := r.shop.count()
		now := time.Now()
		if err != nil {
			r.oracle.scarcity.missed()
		}
		switch {
		case err == nil:
			if r.oracle.counted(g, i, now) {
				r.history.counted(i, g.at, now)
			}
		case errors.Is(err, errAnswer) && !r.outage.active() && !r.oracle.troubles.active() && time.Now().After(r.oracle.opens):
			r.notes.add("sampling: %v", err)
		}
	}
}
