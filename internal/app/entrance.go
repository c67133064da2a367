package app

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"sluice/internal/gate"
	"sluice/internal/gate/challenge"
	"sluice/internal/gate/entrance"
	"sluice/internal/gate/waiting"
	"sluice/internal/lib/run"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// before is what shoppers meet before they buy: the door and its rules, lists and
// playbooks, challenges, the waiting rooms.
type before struct {
	seal       *gate.Seal
	rules      *gate.Rulebook
	lists      *gate.Listbook
	playbooks  *gate.Playbooks
	challenges *challenge.Desk
	rooms      *waiting.Rooms
	leader     *waiting.Leader
	pace       *waiting.Pace
	entrance   *entrance.Entrance
}

// Bounds of what a gateway remembers.
const (
	maxSpent   = 1 << 18 // challenges and clearances of the last minutes
	maxWaiters = 1 << 20 // users of one waiting room
	// roomsKept is for how long rooms of closed activities are looked after.
	roomsKept = 7 * 24 * time.Hour
)

// spender lets something be used once.
type spender interface {
	Spend(ctx context.Context, id string, until time.Time) (first bool, err error)
}

// openDoor builds what decides who may come in. It knows nothing of activities so
// far: see openEntrance.
func (e *engine) openDoor(c Config) error {
	secret, err := gate.KeyIn(c.SecretsPath())
	if err != nil {
		return err
	}
	b := &e.before
	var once spender = challenge.NewOnce(maxSpent, time.Now)
	if e.gates != nil {
		once = e.gates.Once
	}
	// The machine's time: ours may stand still at its floor, and a limit must not.
	b.seal = gate.NewSeal(secret)
	door := gate.NewDoor(time.Now(), b.seal, once)
	if e.gates != nil {
		if err := door.Limits.Share(sharing(e.gates, c.Gateways), time.Now()); err != nil {
			return err
		}
	}
	b.rules = gate.NewRulebook(editions{e.store.Store, e.bells}, door, time.Now)
	b.lists = gate.NewListbook(listings{e.store.Store, e.bells}, door.Lists, time.Now)
	b.playbooks = gate.NewPlaybooks(shelf{e.store.Store, e.bells}, door.Switches, time.Now)
	b.challenges = challenge.New(challenge.Options{Secret: secret, Once: once})
	return nil
}

// openEntrance builds what shoppers do before they buy, for the shop's activities.
func (e *engine) openEntrance() {
	b := &e.before
	o := waiting.Options{
		Line: e.store.Waiting(), Presence: &waiting.Local{},
		Activities: e.withRooms, Config: e.room, Stock: e.left, Now: e.clock.Now,
	}
	if e.gates != nil {
		o.Line, o.Presence = e.gates.Line, e.gates.Presence
	}
	b.pace = waiting.NewPace(0)
	b.rooms = waiting.NewRooms(o, rand.Text(), maxWaiters, b.pace)
	b.leader = waiting.NewLeader(o, 0, e.log)
	b.entrance = entrance.New(entrance.Options{
		Door: b.rules.Door, Seal: b.seal, Rooms: b.rooms, Challenges: b.challenges, Sale: e.sold, Now: e.clock.Now, Machine: time.Now,
	})
}

// withRooms are the activities that may have a waiting room.
func (e *engine) withRooms() (names []string) {
	for _, id := range e.shop.Lately(stock.MillisOf(e.clock.Now().Add(-roomsKept))) {
		names = append(names, string(id))
	}
	return names
}

// room is the waiting room of an activity, as rules and playbooks want it.
func (e *engine) room(activity string) (waiting.Config, bool) {
	v, err := e.shop.Plan(stock.ActivityID(activity))
	if err != nil {
		return waiting.Config{}, false
	}
	room, ok := e.rules.Door.Room(activity)
	if !ok && v.State != sale.Closed {
		return waiting.Config{}, false
	}
	now := stock.MillisOf(e.clock.Now())
	return waiting.Config{
		OpensAt: waiting.Millis(v.OpensAt), Opens: room.Opens, Pass: max(room.Pass, time.Second), Absent: max(room.Absent, time.Second),
		Most: room.Most, Rate: room.Rate,
		Paused: v.State == sale.Paused, Ended: v.State == sale.Draining || now >= v.ClosesAt, Closed: v.State == sale.Closed,
	}, true
}

// left is what there is to wait for, as this process knows it.
func (e *engine) left(activity string) (s waiting.Stock, known bool) {
	face := e.board.Face(stock.ActivityID(activity))
	if face == nil {
		return s, false
	}
	counts, known := face.Counts()
	s.SoldOut = true
	for _, n := range counts.Items {
		s.Free, s.Held = s.Free+n.Free, s.Held+n.Held
		s.SoldOut = s.SoldOut && stock.LevelOf(n.Allocated, n.Free, n.Held+n.InTransit) == stock.SoldOut
	}
	return s, known
}

// sold is what the entrance has to know of an activity.
func (e *engine) sold(activity string) (entrance.Sale, bool) {
	v, err := e.shop.Plan(stock.ActivityID(activity))
	if err != nil {
		return entrance.Sale{}, false
	}
	left, known := e.left(activity)
	return entrance.Sale{
		OpensAt: v.OpensAt.Time(), ClosesAt: v.ClosesAt.Time(),
		SoldOut: known && left.SoldOut, Ended: v.State == sale.Draining || v.State == sale.Closed,
	}, true
}

// follow takes up rules, lists and playbooks that another process has saved: when
// a bell says so, and without one within a second; see the pace of failing, too.
func (e *engine) follow() []run.Task {
	one := func(name string, step func(context.Context) (bool, error)) run.Task {
		return steady(e.log, run.Task{Name: name, Step: step, Idle: 300 * time.Millisecond, Wake: e.bells.rung(name)})
	}
	return []run.Task{
		one(bellRules, e.rules.Step),
		one(bellLists, e.lists.Step),
		one(bellPlaybooks, func(ctx context.Context) (bool, error) {
			worked, err := e.playbooks.Step(ctx)
			return worked, errors.Join(err, e.scale())
		}),
	}
}

// known has everything that was saved in force before anybody is served: a shop
// that restarts in a siege is not open for a moment.
func (e *engine) known(ctx context.Context) error {
	for !e.rules.Door.Lists.Known() {
		if _, err := e.lists.Step(ctx); err != nil {
			return err
		}
	}
	_, failed := e.rules.Step(ctx)
	_, err := e.playbooks.Step(ctx)
	return errors.Join(failed, err, e.scale())
}

// seat has the waiting rooms known before anybody is served, if they can be: those
// who wait find them a moment later otherwise. Who serves nobody must not report
// what it can serve.
func (e *engine) seat(ctx context.Context) {
	if !e.role.gateway {
		return
	}
	if _, err := e.rooms.Step(ctx); err != nil {
		e.log.Error("waiting rooms are not known yet", "error", err)
	}
}

// scale applies the switch that is about rates.
func (e *engine) scale() error {
	return e.rules.Limits.Scale(e.rules.Door.Switches.Of("").LimitPercent, e.playbooks.Shelf().Version, time.Now())
}

// receive is what a gateway does for those who wait.
func (e *engine) receive() []run.Task {
	return []run.Task{
		steady(e.log, run.Task{Name: "waiting rooms", Step: e.rooms.Step, Idle: 200 * time.Millisecond}),
		{Name: "challenges", Step: e.challenges.Step, Idle: challenge.Pace},
	}
}

// call is what one process does for all waiting rooms: two at once do no harm.
func (e *engine) call() run.Task {
	return run.Task{Name: "calls from waiting rooms", Step: e.leader.Step, Idle: 200 * time.Millisecond}
}

// paced is a ledger that tells how purchases with a pass go: by that the waiting
// rooms know how many people to call.
type paced struct {
	stock.Ledger
	*before
}

// Reserve implements stock.Ledger.
func (p paced) Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error) {
	pass := ""
	for _, claim := range r.Claims {
		if id, ok := strings.CutPrefix(claim, string(rune(gate.Pass))+":"); ok {
			pass = id
		}
	}
	if pass == "" {
		return p.Ledger.Reserve(ctx, r)
	}
	began := time.Now()
	receipt, err := p.Ledger.Reserve(ctx, r)
	now, outcome := time.Now(), waiting.Served
	if errors.Is(err, stock.ErrOverloaded) || errors.Is(err, stock.ErrNotReady) || errors.Is(err, stock.ErrUnknown) {
		outcome = waiting.Overloaded
	}
	p.pace.Observe(now, now.Sub(began), outcome)
	// Once for each pass, or else who shows one a hundred times would have a hundred
	// people called for units that others have passes for.
	if err == nil && !receipt.Replayed {
		p.rooms.Used(string(r.Activity), pass)
	}
	return receipt, err
}
