package linear

import (
	"fmt"
	"strings"
	"time"
)

// record is a history sorted by what it is about.
type record struct {
	perUser int
	shelves map[string]*shelf
	buyers  map[string]*buyer
	byID    map[string]*purchase
	buckets map[string]bool
	faults  []string // what is wrong without any search
	ops     int
	last    int64 // the latest time in the history
}

// shelf is one SKU.
type shelf struct {
	sku       string
	units     int
	purchases []*purchase
	looks     []look
	history   History
}

// buyer is one user who did more than be refused for want of units.
type buyer struct {
	name      string
	purchases []*purchase
	replies   []reply
}

// purchase is a key that was accepted once, or may have been: its effect is
// one thing, though any number of requests may have caused it or shown it.
type purchase struct {
	user, key, sku, id string
	quantity           int

	from, by   int64 // the effect: not before, not after; by = Forever: it may never have been
	notBefore  int64 // time alone may end it from then on; Forever = never
	cancelled  int64 // a cancel was sent; Forever = none
	paid       int64 // money was sent off; Forever = none
	heldAt     int64 // the latest look that showed it held was asked for then
	confirmed  int64 // the first look that showed it sold was answered then; Forever = none
	released   int64 // the same for its end
	final      string
	finalBy    int64
	introduced bool // some answer or final named its reservation
}

func (p *purchase) String() string {
	return fmt.Sprintf("reservation %s of %s (key %s)", p.id, p.user, p.key)
}

// reply is something that one user was told.
type reply struct {
	call, back int64
	purchase   *purchase // whose key it was sent with, or whose order was read; nil = a key that never bought
	key        string
	quantity   int
	code       string // of a refusal; "" = the state below was shown
	id, state  string
}

// saysNotBought are the refusals that a key which has bought never gets, for
// its receipt comes before every other check.
var saysNotBought = map[string]bool{
	codeSoldOut: true, codeAllHeld: true, codeInsufficient: true, codeLimit: true, "not_open": true, "ended": true,
}

// The refusals that tell of stock, and the one that tells of a limit.
const (
	codeSoldOut      = "sold_out"
	codeAllHeld      = "all_held"
	codeInsufficient = "insufficient"
	codeLimit        = "limit_reached"
)

// gather reads a history twice: what was bought first, then what was told.
func gather(h History, lag time.Duration) (*record, error) {
	r := &record{perUser: h.PerUser, shelves: map[string]*shelf{}, buyers: map[string]*buyer{}, byID: map[string]*purchase{}, buckets: map[string]bool{}}
	for _, it := range h.Items {
		if r.shelves[it.SKU] != nil || it.Units < 0 {
			return nil, fmt.Errorf("%w: SKU %q is listed twice or with %d units", ErrHistory, it.SKU, it.Units)
		}
		r.shelves[it.SKU] = &shelf{sku: it.SKU, units: it.Units, history: h}
	}
	if len(h.Items) == 0 || h.Ops == nil {
		return nil, fmt.Errorf("%w: nothing is on sale in it", ErrHistory)
	}
	number := 0
	for op := range h.Ops {
		if err := r.check(op, number); err != nil {
			return nil, err
		}
		number++
		r.last = max(r.last, op.Call, op.Return)
		r.buy(op, h.Complete)
	}
	r.ops = number
	number = 0
	for op := range h.Ops {
		r.tell(op, number, int64(lag))
		number++
	}
	r.conclude(h.Complete)
	return r, nil
}

func (r *record) check(op Op, number int) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: operation %d (%s): %s", ErrHistory, number, op.What, why)
	}
	switch {
	case op.Call < 0 || op.Return != 0 && op.Return < op.Call:
		return bad("it returned before it was called")
	case op.Quantity < 0:
		return bad("its quantity is negative")
	case (op.What == Buy || op.What == Counts || op.What == Final) && r.shelves[op.SKU] == nil:
		return bad(fmt.Sprintf("SKU %q is not on sale", op.SKU))
	case (op.What == Buy || op.What == Final || op.What == Order) && op.User == "":
		return bad("it has no user")
	case op.What == Buy && (op.Key == "" || op.Answer == ""):
		return bad("it has no key or no answer")
	case op.What == Buy && op.Answer == Accepted && (op.Reservation == "" || op.Return == 0):
		return bad("it was accepted and has no reservation or no time")
	case op.State != "" && op.State != Held && op.State != Confirmed && op.State != Released:
		return bad(fmt.Sprintf("state %q", op.State))
	}
	switch op.What {
	case Buy, Cancel, Pay, Order, Counts, Final:
		return nil
	}
	return bad("unknown")
}

// buy takes in what can have bought: requests of a key that were not refused,
// and orders found in the end.
func (r *record) buy(op Op, complete bool) {
	switch {
	case op.What == Buy && (op.Answer == Accepted || op.Answer == Unknown):
		p := r.purchase(op)
		p.from = min(p.from, op.Call)
		if op.Answer == Accepted {
			p.by = min(p.by, op.Return)
			r.introduce(p, op.Reservation)
			if op.NotBefore != 0 {
				p.notBefore = op.NotBefore
			}
		}
	case op.What == Final:
		p := r.byID[op.Reservation]
		if p == nil {
			p = r.purchase(op)
			if p.from == Forever { // nobody is known to have asked for it
				p.from = 0
			}
		}
		r.introduce(p, op.Reservation)
		p.final, p.finalBy = op.State, op.Return
		p.by = min(p.by, op.Return)
		if op.NotBefore != 0 {
			p.notBefore = op.NotBefore
		}
	case op.What == Buy && op.Answer == codeLimit:
		r.buyer(op.User)
	}
}

func (r *record) buyer(name string) *buyer {
	b := r.buyers[name]
	if b == nil {
		b = &buyer{name: name}
		r.buyers[name] = b
	}
	return b
}

// purchase finds or makes that of a key.
func (r *record) purchase(op Op) *purchase {
	b := r.buyer(op.User)
	if p := b.of(op.Key); p != nil {
		return p
	}
	p := &purchase{
		user: op.User, key: op.Key, sku: op.SKU, quantity: max(op.Quantity, 1),
		from: Forever, by: Forever, notBefore: Forever, cancelled: Forever, paid: Forever, confirmed: Forever, released: Forever, finalBy: Forever,
	}
	b.purchases = append(b.purchases, p)
	s := r.shelves[op.SKU]
	s.purchases = append(s.purchases, p)
	return p
}

func (b *buyer) of(key string) *purchase {
	for _, p := range b.purchases {
		if p.key == key && key != "" {
			return p
		}
	}
	return nil
}

// introduce gives a purchase its reservation; another one for the same key is
// for the user's view to find.
func (r *record) introduce(p *purchase, id string) {
	if other := r.byID[id]; other != nil && other != p {
		r.faults = append(r.faults, fmt.Sprintf("reservation %s was given to %s (key %s) and to %s (key %s)", id, other.user, other.key, p.user, p.key))
		return
	}
	if !p.introduced {
		p.introduced, p.id = true, id
		r.byID[id] = p
		r.buckets[bucketOf(id)] = true
	}
}

// bucketOf reads the bucket out of "activity.bucket.epoch.number"; what does
// not look like that is of one and the same bucket.
func bucketOf(id string) string {
	parts := strings.Split(id, ".")
	if len(parts) < 4 {
		return ""
	}
	return parts[len(parts)-3]
}

// tell takes in what was seen: of stock, of a user's limit, of a reservation.
func (r *record) tell(op Op, number int, lag int64) {
	switch op.What {
	case Counts:
		if op.Return != 0 {
			s := r.shelves[op.SKU]
			s.looks = append(s.looks, look{kind: sawCounts, op: number, call: op.Call, back: op.Return, free: op.Free, held: op.Held, sold: op.Confirmed})
		}
	case Buy:
		r.told(op, number)
	case Cancel, Pay, Order, Final:
		p := r.byID[op.Reservation]
		if p == nil {
			return // of a reservation that nobody was given: nothing to compare with
		}
		switch op.What {
		case Cancel:
			p.cancelled = min(p.cancelled, op.Call)
		case Pay:
			p.paid = min(p.paid, op.Call)
		}
		if op.Return != 0 && op.State != "" && op.What != Final {
			back := op.Return
			if op.State != Held {
				back += lag
			}
			r.shown(p, op.State, op.Call, back)
		}
	}
}

func (r *record) told(op Op, number int) {
	kind, stock := sawKinds[op.Answer]
	if stock && op.Return != 0 {
		s := r.shelves[op.SKU]
		s.looks = append(s.looks, look{kind: kind, op: number, call: op.Call, back: op.Return, quantity: max(op.Quantity, 1)})
	}
	b := r.buyers[op.User]
	if b == nil {
		return // of somebody who never bought, and was told nothing about a limit
	}
	p := b.of(op.Key)
	switch {
	case op.Answer == Accepted:
		b.replies = append(b.replies, reply{call: op.Call, back: op.Return, purchase: p, key: op.Key, id: op.Reservation, state: op.State})
		if op.State != "" {
			r.shown(p, op.State, op.Call, op.Return)
		}
	case saysNotBought[op.Answer] && op.Return != 0:
		b.replies = append(b.replies, reply{call: op.Call, back: op.Return, purchase: p, key: op.Key, quantity: max(op.Quantity, 1), code: op.Answer})
	}
}

// shown notes a state, for the bounds of its end and for the user's view.
func (r *record) shown(p *purchase, state string, call, back int64) {
	switch state {
	case Held:
		p.heldAt = max(p.heldAt, call)
	case Confirmed:
		p.confirmed = min(p.confirmed, back)
		p.by = min(p.by, back)
	case Released:
		p.released = min(p.released, back)
		p.by = min(p.by, back)
	}
	b := r.buyers[p.user]
	if n := len(b.replies); n > 0 && b.replies[n-1].purchase == p && b.replies[n-1].call == call && b.replies[n-1].state == state {
		return // the reply that showed it is there already
	}
	b.replies = append(b.replies, reply{call: call, back: back, purchase: p, key: p.key, state: state})
}

// conclude uses that a complete history has no other purchases than those found
// in the end, and none that was promised is missing.
func (r *record) conclude(complete bool) {
	if !complete {
		return
	}
	for _, s := range r.shelves {
		kept := s.purchases[:0]
		for _, p := range s.purchases {
			switch {
			case p.finalBy != Forever:
				kept = append(kept, p)
			case p.by != Forever:
				r.faults = append(r.faults, fmt.Sprintf("%s was accepted and is not among the orders in the end", p))
				kept = append(kept, p)
			default:
				p.from = Forever // its requests bought nothing
			}
		}
		s.purchases = kept
	}
}

// end is how and when a purchase ended; by = Forever: it may not have.
type end struct {
	class    class
	from, by int64
}

// ends of a purchase, by what was found in the end or else seen on the way.
// Without either it may have been paid if money was sent off, and released if
// a cancel was or its time was over.
func (p *purchase) ends() []end {
	sold := end{confirm, p.paid, min(p.confirmed, p.finalBy)}
	over := end{give, min(p.cancelled, p.notBefore), min(p.released, p.finalBy)}
	if sold.from == Forever { // money that nobody is known to have sent
		sold.from = p.from
	}
	if over.from == Forever {
		over.from = p.from
	}
	var all []end
	switch {
	case p.final == Held:
	case p.final == Confirmed, p.final == "" && p.confirmed != Forever:
		all = append(all, sold)
	case p.final == Released, p.final == "" && p.released != Forever:
		all = append(all, over)
	default:
		if p.paid != Forever {
			all = append(all, sold)
		}
		if p.cancelled != Forever || p.notBefore != Forever {
			all = append(all, over)
		}
	}
	for i := range all {
		e := &all[i]
		e.from = min(max(e.from, p.heldAt), e.by) // a look that shows it held after its end is for the user's view
	}
	return all
}

// words tells of the operations with these numbers what they were.
func words(h History, wanted map[int]string) {
	number := 0
	for op := range h.Ops {
		if _, ok := wanted[number]; ok {
			switch op.What {
			case Counts:
				wanted[number] = fmt.Sprintf("the counts of %s were read as %d free, %d held, %d sold", op.SKU, op.Free, op.Held, op.Confirmed)
			default:
				wanted[number] = fmt.Sprintf("%s (key %s) was told %s", op.User, op.Key, op.Answer)
			}
		}
		number++
	}
}

// at words a time of the history.
func at(ns int64) string {
	if ns == Forever {
		return "the end"
	}
	return fmt.Sprintf("%.6f s", time.Duration(ns).Seconds())
}
