package linear

import (
	"fmt"
	"strings"
	"time"
)

// record is a history sorted by what it is about.
type record struct {
	perUser  int
	shelves  map[string]*shelf
	buyers   map[string]*buyer
	byID     map[string]*purchase
	promised map[string]bool // reservations of which more was shown than that they are pending
	buckets  map[string]bool
	faults   []string // what is wrong without any search
	ops      int
	last     int64 // the latest time in the history

	lag, stale int64
	troubles   []Span
	spread     bool // over several buckets
	unjudged   int
}

// shelf is one SKU.
type shelf struct {
	sku       string
	units     int
	purchases []*purchase
	looks     []look
	slack     int64 // by which units that are given back may be late, see spread.go
	history   History
}

// buyer is one user who did more than be refused for want of units.
type buyer struct {
	name      string
	purchases []*purchase
	replies   []reply
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
func gather(h History, o Options) (*record, error) {
	r := &record{
		perUser: h.PerUser, shelves: map[string]*shelf{}, buyers: map[string]*buyer{}, byID: map[string]*purchase{}, promised: map[string]bool{},
		buckets: map[string]bool{}, lag: int64(o.Lag), stale: int64(o.Stale), troubles: h.Troubles, spread: h.Buckets > 1,
	}
	for _, it := range h.Items {
		if r.shelves[it.SKU] != nil || it.Units < 0 {
			return nil, fmt.Errorf("%w: SKU %q is listed twice or with %d units", ErrHistory, it.SKU, it.Units)
		}
		r.shelves[it.SKU] = &shelf{sku: it.SKU, units: it.Units, history: h}
		if r.spread {
			r.shelves[it.SKU].slack = r.stale + slowRefusal
		}
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
		if op.What != Final && op.State != "" && op.State != Pending && op.State != Refused {
			r.promised[op.Reservation] = true
		}
		r.buy(op)
	}
	r.ops = number
	r.separate()
	number = 0
	for op := range h.Ops {
		r.tell(op, number)
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
	}
	switch op.State {
	case "", Pending, Held, Confirmed, Released, Refused:
	default:
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
func (r *record) buy(op Op) {
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
func (r *record) tell(op Op, number int) {
	switch op.What {
	case Counts:
		if op.Return != 0 {
			l := look{kind: sawCounts, op: number, call: op.Call, back: op.Return, free: op.Free, held: op.Held, sold: op.Confirmed}
			if r.spread {
				l.kind = sawSold
			}
			s := r.shelves[op.SKU]
			s.looks = append(s.looks, l)
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
			if op.State == Confirmed || op.State == Released {
				back = r.known(back)
			}
			r.shown(p, op.State, op.Call, back)
		}
	}
}

func (r *record) told(op Op, number int) {
	call := op.Call
	if op.Answer != codeLimit {
		call = max(call-r.stale, 1) // gateways refuse by levels only, not by limits
	}
	kind, stock := sawKinds[op.Answer]
	if stock && op.Return != 0 {
		r.refused(look{kind: kind, op: number, call: call, back: op.Return, quantity: max(op.Quantity, 1)}, op)
	}
	b := r.buyers[op.User]
	if b == nil {
		return // of somebody who never bought, and was told nothing about a limit
	}
	switch {
	case op.Answer == Accepted:
		p := r.byID[op.Reservation]
		if p == nil || p.user != op.User || p.key != op.Key {
			p = b.of(op.Key)
		}
		b.replies = append(b.replies, reply{call: op.Call, back: op.Return, purchase: p, key: op.Key, id: op.Reservation, state: op.State})
		if op.State != "" {
			r.shown(p, op.State, op.Call, op.Return)
		}
	case saysNotBought[op.Answer] && op.Return != 0:
		b.replies = append(b.replies, reply{call: call, back: op.Return, key: op.Key, quantity: max(op.Quantity, 1), code: op.Answer})
	}
}

// shown notes a state, for the bounds of its end and for the user's view.
func (r *record) shown(p *purchase, state string, call, back int64) {
	switch state {
	case Held, Pending:
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
