package storm

import (
	"container/heap"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// oracle is the storm's own record of what it was told, and the judge of it.
// It knows only replies, so each of its statements is a bound: a reservation
// counts as holding a unit from the moment its receipt arrived until the
// first moment at which it could have ended (a cancel was sent, its expiry is
// near). If more than the stock count at once, the server oversold, whatever
// its books say.
type oracle struct {
	stock    int
	opens    time.Time     // by this machine's clock, as all times here
	ahead    time.Duration // how far the server's clock is ahead of it
	broken   breaches
	unpaid   atomic.Int64 // how many hold a unit for which nobody has pressed pay; see soldOut
	soldOuts atomic.Bool  // somebody was told sold_out
	scarcity scarcity

	mu        sync.Mutex
	receipts  map[tryID]*receipt
	byOrder   map[string]*receipt
	byReserve map[string]*receipt
	byUser    map[int][]*receipt
	unsure    map[tryID]bool // keys with a request whose reply never came
	grabs     map[tryID]int  // requests for a second unit that are under way
	expiries  expiries       // those that count, soonest expiry first
	holding   int            // how many count
	peak      int            // the most that counted at once
	order     []*receipt     // in order of arrival
	pressed   map[string]int // buttons, by name
	overdue   time.Duration  // the longest that an unpaid order was seen to outlive its expiry
	awaited   int            // receipts with money whose outcome is not shown yet
	heard     time.Time      // when the last payment was made that the shop has shown to know of

	captures map[string]string // of the audit: capture → order
	replaces map[string]string // of the audit: order bought by late money → the order it was meant for
}

// tryID names an idempotency key: the user and which of the user's keys.
type tryID struct {
	user       int
	generation uint32
}

// greedy is set in the generation of a key with which a user who has a unit
// tries for another.
const greedy = uint32(1) << 23

// key is the Idempotency-Key of a try.
func (t tryID) key() string { return string(t.appendKey(nil)) }

func (t tryID) appendKey(b []byte) []byte {
	kind := byte('k')
	if t.generation&greedy != 0 {
		kind = 'g'
	}
	b = append(b, "storm-"...)
	b = appendUser(b, t.user)
	b = append(b, '-', kind)
	return strconv.AppendUint(b, uint64(t.generation&^greedy), 10)
}

// receipt is an acknowledged reservation and what became of it.
type receipt struct {
	try     tryID
	given   Receipt
	expires time.Time
	acked   time.Time // when its first reply arrived

	counts   bool      // holds a unit for certain
	ending   bool      // a cancel was sent
	ended    time.Time // when the shop had said that it ended; zero = it has not
	endedBy  string    // what it was that said so
	presses  []press   // buttons pressed on the provider's pages
	pressed  bool      // one of them may turn the unit into a sold one
	paid     bool      // the shop showed the order as paid
	awaits   bool      // money was taken, or may have been, and the shop has not shown what for
	replaced bool      // the shop showed another order, bought by money that came too late
}

// expiryMargin is how long before its expiry a reservation stops counting as
// holding, for the clocks of server and storm may differ by less than that.
const expiryMargin = 300 * time.Millisecond

func newOracle(stock int, opens time.Time) *oracle {
	return &oracle{
		stock: stock, opens: opens,
		receipts: map[tryID]*receipt{}, byOrder: map[string]*receipt{}, byReserve: map[string]*receipt{},
		byUser: map[int][]*receipt{}, unsure: map[tryID]bool{}, grabs: map[tryID]int{}, pressed: map[string]int{},
		captures: map[string]string{}, replaces: map[string]string{}, scarcity: scarcity{window: 2 * time.Second},
	}
}

// accepted records a receipt that arrived at now. fresh says that it is the
// first for its key; otherwise it was compared with the first.
func (o *oracle) accepted(try tryID, given Receipt, now time.Time) (r *receipt, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	if r := o.receipts[try]; r != nil {
		o.compare(r, given)
		if gone(given.State) {
			o.over(r, "a replay", given.State, now)
		}
		return r, false
	}
	o.scarcity.took()
	r = &receipt{try: try, given: given, acked: now}
	o.inspect(r, now)
	o.receipts[try] = r
	o.byOrder[given.Order] = r
	o.byReserve[given.Reservation] = r
	o.order = append(o.order, r)
	// A lost reply may be asked for again when its reservation is over.
	holds := given.State == "held" || given.State == "pending"
	if holds && now.Before(r.expires.Add(-expiryMargin)) || given.State == "confirmed" {
		o.limit(r)
		o.keep(r)
	}
	o.byUser[try.user] = append(o.byUser[try.user], r)
	return r, true
}

// inspect checks a first receipt on its own and against all others.
func (o *oracle) inspect(r *receipt, now time.Time) {
	g, who := r.given, userName(r.try.user)
	if g.Reservation == "" || g.Order == "" {
		o.broken.add("the receipt of %s with key %s names no reservation or no order", who, r.try.key())
	}
	if other := o.byOrder[g.Order]; other != nil {
		o.broken.add("order %s was given to %s (key %s) and to %s (key %s)", g.Order, userName(other.try.user), other.try.key(), who, r.try.key())
	}
	if other := o.byReserve[g.Reservation]; other != nil {
		o.broken.add("reservation %s was given to %s (key %s) and to %s (key %s)", g.Reservation, userName(other.try.user), other.try.key(), who, r.try.key())
	}
	if g.Total != (Money{price, currency}) {
		o.broken.add("order %s of %s costs %d %s instead of %d %s", g.Order, who, g.Total.Amount, g.Total.Currency, price, currency)
	}
	if now.Before(o.opens.Add(-expiryMargin)) {
		o.broken.add("order %s of %s was accepted %s before the sale opens", g.Order, who, o.opens.Sub(now).Round(time.Millisecond))
	}
	var err error
	if r.expires, err = time.Parse(time.RFC3339Nano, g.ExpiresAt); err != nil {
		o.broken.add("order %s of %s has no readable expires_at: %q", g.Order, who, g.ExpiresAt)
	}
	r.expires = r.expires.Add(-o.ahead)
}

// compare checks that the same key still gets what it got first. The state
// may have moved on.
func (o *oracle) compare(r *receipt, again Receipt) {
	first := r.given
	again.State = first.State
	if again != first {
		o.broken.add("key %s of %s got reservation %s, order %s, %d %s, expiry %s first, and reservation %s, order %s, %d %s, expiry %s later",
			r.try.key(), userName(r.try.user), first.Reservation, first.Order, first.Total.Amount, first.Total.Currency, first.ExpiresAt,
			again.Reservation, again.Order, again.Total.Amount, again.Total.Currency, again.ExpiresAt)
	}
}

// keep counts r and checks the bound that must never break.
func (o *oracle) keep(r *receipt) {
	r.counts = true
	o.holding++
	if !r.pressed {
		o.unpaid.Add(1)
	}
	heap.Push(&o.expiries, r)
	if o.holding > o.peak {
		o.peak = o.holding
		if o.holding > o.stock {
			o.broken.add("oversold: %d reservations hold a unit at the same moment, of %d units; the last is order %s of %s",
				o.holding, o.stock, r.given.Order, userName(r.try.user))
		}
	}
}

// uncount ends the certainty that r holds a unit.
func (o *oracle) uncount(r *receipt) {
	if !r.counts {
		return
	}
	r.counts = false
	o.holding--
	if !r.pressed {
		o.unpaid.Add(-1)
	}
}

// expire stops counting what may have expired by now. Paid orders never expire.
func (o *oracle) expire(now time.Time) {
	for len(o.expiries) > 0 && !now.Before(o.expiries[0].expires.Add(-expiryMargin)) {
		r := heap.Pop(&o.expiries).(*receipt)
		if !r.paid {
			o.uncount(r)
		}
	}
}

// cancelling must be called before a cancel is sent.
func (o *oracle) cancelling(r *receipt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.ending = true
	o.uncount(r)
}

// unpayable: the shop would not start a payment for an order, or the provider
// would not take it. That may be only once the order has ended.
func (o *oracle) unpayable(r *receipt, what string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.expire(now); r.counts {
		o.broken.add("%s could not pay for order %s, %s before its expiry: %s", userName(r.try.user), r.given.Order,
			r.expires.Sub(now).Round(time.Millisecond), what)
	}
}

// finished records the state in which the shop showed the order, and by what.
func (o *oracle) finished(r *receipt, by, state string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	name, who := r.given.Order, userName(r.try.user)
	switch state {
	case "created":
		if !r.pressed {
			o.overdue = max(o.overdue, now.Sub(r.expires))
		}
	case "paid", "fulfilled":
		if !r.ended.IsZero() {
			o.broken.add("order %s of %s is %s although it had been shown as ended", name, who, state)
		}
		if may, _, _ := r.priced(now); !may {
			o.broken.add("order %s of %s is %s although nobody paid for it", name, who, state)
		}
		r.paid = true
		o.press(r)
		o.await(r, false)
		for _, p := range r.presses {
			if p.button == buttonPay && p.answered.After(o.heard) {
				o.heard = p.answered
			}
		}
		if !r.counts {
			o.keep(r)
		}
	case "cancelled", "refunded":
		if r.paid && state == "cancelled" {
			o.broken.add("order %s of %s is cancelled although it had been shown as paid", name, who)
		}
		o.over(r, by, state, now)
	case "refused":
		o.broken.add("order %s of %s was promised by a receipt and is refused", name, who)
		r.ended, r.endedBy = now, by
		o.uncount(r)
	}
}

// gone says that a reservation in this state has given its unit back.
func gone(state string) bool { return state == "released" || state == "expired" }

// over records that the shop has shown r as ended, and by what.
func (o *oracle) over(r *receipt, by, state string, now time.Time) {
	if !r.ended.IsZero() {
		return
	}
	if !r.ending && now.Before(r.expires.Add(-expiryMargin)) {
		o.broken.add("order %s of %s was %s %s before its expiry although nobody cancelled it",
			r.given.Order, userName(r.try.user), state, r.expires.Sub(now).Round(time.Millisecond))
	}
	r.ended, r.endedBy = now, by
	o.uncount(r)
}

// repeated: the key of r was sent again at sent and its reservation shown in
// this state. An end that had been shown by then is not taken back.
func (o *oracle) repeated(r *receipt, state string, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !r.ended.IsZero() && r.ended.Before(sent) && !gone(state) && state != "returned" {
		o.broken.add("order %s of %s had been shown as ended by %s, and %s later its reservation is shown as %s", r.given.Order, userName(r.try.user), r.endedBy,
			sent.Sub(r.ended).Round(time.Microsecond), state)
	}
}

// unanswered: a request with this key was sent and its outcome is not known.
func (o *oracle) unanswered(try tryID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsure[try] = true
	o.scarcity.took()
}

// denied: a key whose receipt had arrived before the request was sent got
// another answer than that receipt.
func (o *oracle) denied(r *receipt, what string) {
	o.broken.add("false refusal: key %s of %s has order %s and was answered %s", r.try.key(), userName(r.try.user), r.given.Order, what)
}

// soldOut: a request sent at sent was told sold_out at now. That is a lie if
// some unit was merely held all the while. The atomic keeps the common, honest
// case off the lock: when all are sold, nothing is unpaid.
func (o *oracle) soldOut(sent, now time.Time) {
	if !o.soldOuts.Load() {
		o.soldOuts.Store(true)
	}
	if o.unpaid.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	for _, r := range o.expiries {
		if r.counts && !r.pressed && r.acked.Before(sent) {
			o.broken.add("sold_out was told although order %s of %s held a unit that nobody had paid for", r.given.Order, userName(r.try.user))
			return
		}
	}
}

// sample judges the server's own counts, taken at one log position.
func (o *oracle) sample(i item) {
	if i.Held+i.Confirmed > o.stock {
		o.broken.add("oversold by the server's own counts: %d held + %d confirmed of %d units", i.Held, i.Confirmed, o.stock)
	}
	if i.Free < 0 || i.Held < 0 || i.Confirmed < 0 || i.InTransit < 0 || i.Free+i.Held+i.Confirmed+i.InTransit != i.Allocated || i.Allocated != o.stock {
		o.broken.add("the server's counts do not add up: %d free + %d held + %d confirmed + %d in transit of %d allocated, %d on sale",
			i.Free, i.Held, i.Confirmed, i.InTransit, i.Allocated, o.stock)
	}
}

// counted judges a sample of the counts beside what attempts were told.
func (o *oracle) counted(g glimpse, i item, now time.Time) {
	o.sample(i)
	o.mu.Lock()
	awaited := o.awaited
	o.mu.Unlock()
	if n, length := o.scarcity.sampled(g, i.Free, awaited, now); n > 0 {
		o.broken.add("false all_held or sold_out: %d attempts were refused although units had been free for %s, %d at the end", n, length.Round(time.Millisecond), i.Free)
	}
}

// known are the receipts so far, in order of arrival.
func (o *oracle) known() []*receipt {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.order[:len(o.order):len(o.order)]
}

// expiries is a heap by expiry.
type expiries []*receipt

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].expires.Before(e[j].expires) }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *expiries) Push(x any)        { *e = append(*e, x.(*receipt)) }

func (e *expiries) Pop() any {
	old := *e
	last := len(old) - 1
	x := old[last]
	old[last] = nil
	*e = old[:last]
	return x
}
