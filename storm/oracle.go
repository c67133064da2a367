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
	stock     int
	opens     time.Time     // by this machine's clock, as all times here
	ahead     time.Duration // how far the server's clock is ahead of it
	broken    breaches
	unpaid    atomic.Int64 // how many hold a unit for which nobody has pressed pay; see soldOut
	soldOutAt atomic.Int64 // Unix ns at which somebody was told sold_out first; 0 = nobody was
	soldAll   atomic.Int64 // Unix ns at which the last of all units was shown as paid; 0 = it was not
	scarcity  scarcity
	hold      time.Duration // 0 = not known
	buckets   int           // over which the ledger spreads the units
	lag       time.Duration // for gateways and the ledger to hear what was done elsewhere
	troubles  troubles

	mu        sync.Mutex
	receipts  map[tryID]*receipt
	byOrder   map[string]*receipt
	byReserve map[string]*receipt
	byUser    map[int][]*receipt
	unsure    map[tryID]bool  // keys with a request whose reply never came
	grabs     map[tryID]int   // requests for a second unit that are under way
	expiries  expiries        // those that count, soonest expiry first
	holding   int             // how many count
	peak      int             // the most that counted at once
	order     []*receipt      // in order of arrival
	pressed   map[string]int  // buttons, by name
	overdue   time.Duration   // the longest that an unpaid order was seen to outlive its expiry
	awaited   int             // receipts with money whose outcome is not shown yet
	sold      int             // receipts shown as paid
	pending   int             // receipts that were pending at first
	refusals  int             // of these, those that were refused later
	astray    int             // reservations that are not in the bucket of their user
	torn      int             // samples in a row that were not of one moment
	proofs    map[string]bool // violations that the server's proof has told
	heard     time.Time       // when the last payment was made that the shop has shown to know of

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

	promised time.Time // when it was first shown as more than pending; zero = never
	refused  bool      // it was shown as refused, or its key bought anew
	denied   string    // what its key was told while it was pending, in place of the receipt

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
		byUser: map[int][]*receipt{}, unsure: map[tryID]bool{}, grabs: map[tryID]int{}, pressed: map[string]int{}, proofs: map[string]bool{},
		captures: map[string]string{}, replaces: map[string]string{}, scarcity: scarcity{window: 2 * time.Second},
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
		o.promise(r, state, now)
		if !r.paid {
			r.paid = true
			if o.sold++; o.sold == o.stock {
				o.soldAll.Store(now.UnixNano())
			}
		}
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
		o.promise(r, state, now)
		o.over(r, by, state, now)
	case "refused":
		o.refuse(r, by, now)
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

// takenBack: r was shown in this state in answer to a request sent at sent. An
// end that had been shown by then is not taken back.
func (o *oracle) takenBack(r *receipt, state string, sent time.Time) {
	if r.ended.IsZero() || gone(state) || state == "returned" || state == "refused" || !o.heardOf(r.ended, sent) {
		return
	}
	o.broken.add("order %s of %s had been shown as ended by %s, and %s later its reservation is shown as %s", r.given.Order, userName(r.try.user), r.endedBy,
		sent.Sub(r.ended).Round(time.Microsecond), state)
}

// unanswered: a request with this key was sent and its outcome is not known.
func (o *oracle) unanswered(try tryID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsure[try] = true
	o.scarcity.took()
}

// soldOut: a request sent at sent was told sold_out at now. That is a lie if
// some unit was merely held all the while. The atomic keeps the common, honest
// case off the lock: when all are sold, nothing is unpaid.
func (o *oracle) soldOut(sent, now time.Time) {
	if o.soldOutAt.Load() == 0 {
		o.soldOutAt.CompareAndSwap(0, now.UnixNano())
	}
	if o.unpaid.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	for _, r := range o.expiries {
		if r.counts && !r.pressed && r.promised.Before(sent) {
			o.broken.add("sold_out was told although order %s of %s held a unit that nobody had paid for", r.given.Order, userName(r.try.user))
			return
		}
	}
}

// known are the receipts so far, in order of arrival.
func (o *oracle) known() []*receipt {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.order[:len(o.order):len(o.order)]
}

// allHeld: a request sent at sent was told that some units are held only. That
// is a lie if all of them had been shown as sold.
func (o *oracle) allHeld(sent time.Time) {
	at := o.soldAll.Load()
	if at == 0 || !o.heardOf(time.Unix(0, at), sent) {
		return
	}
	o.broken.add("all_held was told %s after the last of %d units had been shown as paid", sent.Sub(time.Unix(0, at)).Round(time.Millisecond), o.stock)
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
