package gate

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Door decides who may come in: it asks everything that can be asked before the
// ledger. It is safe for concurrent use.
//
// A purchase is asked in this order: is the shop open to changes, is its user on
// a list, does it come too often, do the activity's conditions hold, does it show
// a ticket, a pass, a clearance. Whoever shows a ticket or pass is asked for no
// clearance: that was asked of him when he got it (Approach).
type Door struct {
	Limits   *Limits
	Switches *Active
	Lists    *Lists

	seal      *Seal
	once      once
	suspicion *Suspicion
	now       atomic.Pointer[doorSet]
	black     ruling
	grey      ruling
	switched  [switches]tally // refusals by switches that ask for something
}

// once lets a slip be used once: first is true for the first who asks. Until then
// it has to be remembered.
type once interface {
	Spend(ctx context.Context, id string, until time.Time) (first bool, err error)
}

// doorSet is an edition's sections, made ready. Immutable but for counts.
type doorSet struct {
	rulings     map[string]ruling // of tickets, rooms and challenges, by id
	order       []ruling
	eligibility *eligibility
	challenges  *Challenges
	tickets     *Tickets
	rooms       map[string]*RoomRule // those that are not off, by activity
}

// ruling is a rule that asks for something, with its counts, which survive an
// edit. The zero ruling asks for nothing.
type ruling struct {
	*Refused
	mode   string
	counts *tally
}

func (r ruling) asks() bool { return r.Refused != nil }

// refuse counts a refusal and answers it; nil if the rule is only a shadow.
func (r ruling) refuse() error {
	if r.mode == Shadow {
		r.counts.shadow.Add(1)
		return nil
	}
	r.counts.refused.Add(1)
	return r.Refused
}

// NewDoor begins with the default rules, empty lists and all switches off. What it
// hands out is signed with seal; clearances that are not used up by a purchase are
// by once.
func NewDoor(now time.Time, seal *Seal, once once) *Door {
	l := NewLimits(now)
	d := &Door{Limits: l, Switches: NewActive(l, now), Lists: NewLists(), seal: seal, once: once, suspicion: NewSuspicion(now)}
	d.black = ruling{&Refused{"blacklist", l.slotOf(blackList, now), ErrNotEligible}, On, &tally{}}
	d.grey = ruling{&Refused{"greylist", l.slotOf(greyList, now), ErrChallengeRequired}, On, &tally{}}
	next, err := d.prepare(l.Edition(), now)
	if err != nil {
		panic(err) // the default rules are valid, or the program is wrong
	}
	d.now.Store(next)
	return d
}

// Apply replaces the rules from now on. The error is a *RuleError, and then
// nothing changed.
func (d *Door) Apply(e Edition, now time.Time) error {
	if err := d.Limits.Apply(e, now); err != nil {
		return err
	}
	next, err := d.prepare(e, now)
	if err == nil {
		d.now.Store(next)
	}
	return err
}

func (d *Door) prepare(e Edition, now time.Time) (next *doorSet, err error) {
	old := d.now.Load()
	if old == nil {
		old = &doorSet{}
	}
	next = &doorSet{rulings: map[string]ruling{}, rooms: map[string]*RoomRule{}}
	slotOf := func(name string) uint8 { return d.Limits.slotOf(name, now) }
	add := func(section, id, mode string, why error) {
		r := ruling{&Refused{id, slotOf(section + id), why}, mode, &tally{}}
		if had := old.rulings[id]; had.asks() {
			r.counts = had.counts
		}
		next.rulings[id] = r
		next.order = append(next.order, r)
	}
	for _, t := range e.Tickets {
		add(ticketSection, t.ID, t.Mode, ErrTicketRequired)
	}
	for _, c := range e.Challenges {
		add(challengeSection, c.ID, c.Mode, ErrChallengeRequired)
	}
	for i := range e.Rooms {
		r := &e.Rooms[i]
		add(roomSection, r.ID, r.Mode, ErrQueued)
		if r.Mode != Off {
			next.rooms[r.Activity] = r
		}
	}
	next.tickets = NewTickets(e.Tickets, d.seal)
	next.challenges = NewChallenges(e.Challenges, d.suspicion, old.challenges)
	next.eligibility, err = newEligibility(e.Eligibility, old.eligibility, slotOf)
	return next, err
}

// Enter decides a purchase: nil when it may go on, with the claims that the
// reserve is to consume. Errors are *Limited, *Refused, ErrOverloaded and the end
// of ctx.
func (d *Door) Enter(ctx context.Context, now time.Time, f *Facts) (claims []string, err error) {
	on, set := d.Switches.Of(f.Activity), d.now.Load()
	if on.ReadOnlyOrders {
		return nil, on.Refused(SwitchReadOnlyOrders)
	}
	set.challenges.Observe(now, f)
	standing := d.Lists.Standing(now, f)
	if standing == Black {
		return nil, d.black.refuse()
	}
	if err := d.Limits.Enter(ctx, now, f); err != nil {
		return nil, err
	}
	if r := set.eligibility.Check(f); r != nil {
		return nil, r
	}
	return d.shows(set, on, standing, now, f)
}

// shows asks a purchase for what it has to show.
func (d *Door) shows(set *doorSet, on *Effective, standing Standing, now time.Time, f *Facts) (claims []string, err error) {
	claim, lacks := set.tickets.Check(now, f)
	if lacks != nil {
		if err := set.rulings[lacks.ID].refuse(); err != nil {
			return nil, err
		}
	}
	if claim != "" {
		claims = append(claims, claim)
	}
	if _, asks := d.roomOf(set, f.Activity, on); asks.asks() {
		slip, err := d.seal.Open(Pass, f.Shows.Pass, f.Activity, f.User, now)
		if err == nil && asks.mode == On {
			claims = append(claims, slip.Claim())
		}
		if err != nil {
			if err := asks.refuse(); err != nil {
				return nil, err
			}
		}
	}
	if len(claims) > 0 || standing == White {
		return claims, nil
	}
	asks := d.clearanceFor(set, on, standing, now, f)
	if !asks.asks() {
		return nil, nil
	}
	slip, err := d.seal.Open(Clearance, f.Shows.Clearance, f.Activity, f.User, now)
	if err != nil {
		return nil, asks.refuse()
	}
	return []string{slip.Claim()}, nil
}

// roomOf answers the waiting room of an activity, and what asks for its pass;
// nothing where there is none.
func (d *Door) roomOf(set *doorSet, activity string, on *Effective) (*RoomRule, ruling) {
	own := set.rooms[activity]
	switch {
	case own != nil && (own.Mode == On || !on.Queue):
		return own, set.rulings[own.ID]
	case !on.Queue:
		return nil, ruling{}
	case own == nil:
		own = &usualRoom
	}
	return own, d.bySwitch(on, SwitchQueue)
}

// usualRoom is that of an activity without a rule for one.
var usualRoom RoomRule

// bySwitch is the ruling of a switch that is on.
func (d *Door) bySwitch(on *Effective, s Switch) ruling {
	return ruling{on.Refused(s), On, &d.switched[s]}
}

// Room answers the waiting room before an activity, by a rule or by a playbook.
func (d *Door) Room(activity string) (Room, bool) {
	room, asks := d.roomOf(d.now.Load(), activity, d.Switches.Of(activity))
	if !asks.asks() {
		return Room{}, false
	}
	return room.Room(), true
}

// clearanceFor answers what asks a request for a clearance, if anything does.
func (d *Door) clearanceFor(set *doorSet, on *Effective, standing Standing, now time.Time, f *Facts) ruling {
	demand, yes := set.challenges.Needs(now, f, on.Captcha, standing == Grey)
	switch r := set.rulings[demand.By]; {
	case !yes:
		return ruling{}
	case r.asks():
		return r
	case on.Captcha:
		return d.bySwitch(on, SwitchCaptcha)
	}
	return d.grey
}

// Approach decides who may have a ticket or a place in a queue: whoever could buy
// if he showed it. The clearance that is shown is used up by it. Errors are
// *Refused and, when nobody can tell whether a clearance has been used,
// ErrOverloaded.
func (d *Door) Approach(ctx context.Context, now time.Time, f *Facts) error {
	on, set := d.Switches.Of(f.Activity), d.now.Load()
	if on.CloseRegistration {
		return on.Refused(SwitchCloseRegistration)
	}
	set.challenges.Observe(now, f)
	standing := d.Lists.Standing(now, f)
	if standing == Black {
		return d.black.refuse()
	}
	if r := set.eligibility.Check(f); r != nil {
		return r
	}
	if standing == White {
		return nil
	}
	asks := d.clearanceFor(set, on, standing, now, f)
	if !asks.asks() {
		return nil
	}
	slip, err := d.seal.Open(Clearance, f.Shows.Clearance, f.Activity, f.User, now)
	if err != nil {
		return asks.refuse()
	}
	first, err := d.once.Spend(ctx, slip.Claim()+" "+f.Activity, slip.Until)
	if err != nil {
		return fmt.Errorf("%w: clearances: %w", ErrOverloaded, err)
	}
	if !first {
		return asks.refuse()
	}
	return nil
}

// Ticket hands out a ticket of an activity with this window. Errors are those of
// Approach and of Tickets.Grant.
func (d *Door) Ticket(ctx context.Context, now time.Time, f *Facts, opensAt, closesAt time.Time) (text string, slip Slip, err error) {
	text, slip, err = d.now.Load().tickets.Grant(now, f.Activity, f.User, opensAt, closesAt)
	if err == nil {
		err = d.Approach(ctx, now, f)
	}
	if err != nil {
		return "", Slip{}, err
	}
	return text, slip, nil
}

// TicketsFrom is when tickets of an activity that opens then are handed out; false
// if it has none.
func (d *Door) TicketsFrom(activity string, opensAt time.Time) (time.Time, bool) {
	return d.now.Load().tickets.From(activity, opensAt)
}

// Kind is the kind of challenge that a request is asked for, "" for any.
func (d *Door) Kind(now time.Time, f *Facts) string {
	return d.now.Load().challenges.kind(now, f)
}

// Asks are what a purchase of an activity has to show as things stand, for
// everybody: "queue", "ticket", "challenge".
func (d *Door) Asks(activity string) (names []string) {
	on, set := d.Switches.Of(activity), d.now.Load()
	if _, asks := d.roomOf(set, activity, on); asks.asks() && asks.mode == On {
		names = append(names, "queue")
	}
	if r := set.tickets.Rule(activity); r != nil && r.Mode == On {
		names = append(names, "ticket")
	}
	if on.Captcha || set.challenges.always(activity) {
		names = append(names, "challenge")
	}
	return names
}

// Suspected is what looked like a program's to rules about challenges.
func (d *Door) Suspected() []ChallengeCount { return d.now.Load().challenges.Counts() }

// Explanation of a request: see Limits.Explain; and what the other sections say.
func (d *Door) Explain(now time.Time, f *Facts) Explanation {
	x := d.Limits.Explain(now, f)
	set := d.now.Load()
	var refuses string
	x.Conditions, refuses = set.eligibility.Explain(f)
	x.Challenges = set.challenges.Explain(now, f)
	x.Asks = d.Asks(f.Activity)
	on := d.Switches.Of(f.Activity)
	switch {
	case f.Class == Purchases && on.ReadOnlyOrders:
		x.Allowed, x.Refuses = false, on.Rule(SwitchReadOnlyOrders)
	case d.Lists.Standing(now, f) == Black:
		x.Allowed, x.Refuses = false, d.black.Rule
	case x.Allowed && refuses != "":
		x.Allowed, x.Refuses = false, refuses
	}
	return x
}

// Counts are what the rules have decided in this process.
func (d *Door) Counts() []RuleCount {
	counts, set := d.Limits.Counts(), d.now.Load()
	for _, c := range set.eligibility.Counts() {
		counts = append(counts, RuleCount{Rule: c.Condition, Allowed: c.Allowed, Refused: c.Refused, ShadowRefused: c.ShadowRefused})
	}
	shadows := map[string]uint64{}
	for _, c := range set.challenges.Counts() {
		shadows[c.Rule] = c.Shadow
	}
	others := []ruling{d.black, d.grey}
	for _, s := range []Switch{SwitchQueue, SwitchCaptcha} {
		others = append(others, ruling{&Refused{Rule: "switch:" + s.String()}, On, &d.switched[s]})
	}
	// Nobody need hear of lists and switches that nobody uses.
	others = slices.DeleteFunc(others, func(r ruling) bool { return r.counts.refused.Load() == 0 })
	for _, r := range append(slices.Clip(set.order), others...) {
		counts = append(counts, RuleCount{Rule: r.Rule, Allowed: r.counts.allowed.Load(), Refused: r.counts.refused.Load(), ShadowRefused: r.counts.shadow.Load() + shadows[r.Rule]})
	}
	return counts
}

// kind is that of the first rule that is on and could ask such a request.
func (c *Challenges) kind(now time.Time, f *Facts) string {
	for _, r := range c.rules {
		if r.Mode != On || r.Activity != "" && r.Activity != f.Activity {
			continue
		}
		if _, asks := r.asks(c.suspicion, now, f); asks {
			return r.Kind
		}
	}
	return ""
}

// always says whether everybody is asked who wants to buy of an activity.
func (c *Challenges) always(activity string) bool {
	for _, r := range c.rules {
		if r.Mode == On && r.When == Always && (r.Activity == "" || r.Activity == activity) {
			return true
		}
	}
	return false
}
