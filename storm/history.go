package storm

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"time"

	"sluice/storm/linear"
)

// history records what shoppers asked and were told, for the check of its
// linearizability. A nil history records nothing.
//
// Nearly all of a storm are refusals; they are kept in 32 bytes each. Both kinds
// of records are bounded, and what finds no room is counted.
type history struct {
	base time.Time

	mu       sync.Mutex
	refusals []refusal
	ops      []linear.Op
	dropped  int
}

type refusal struct {
	call, back int64 // ns since base
	user       uint32
	generation uint32
	code       uint8
}

// Bounds of a history: about 64 and 200 MB.
const (
	maxRefusals = 2_000_000
	maxOps      = 1_000_000
)

func newHistory(base time.Time) *history { return &history{base: base} }

// since is a time of the history; 0 is none, so the first instant is 1.
func (h *history) since(t time.Time) int64 { return max(int64(t.Sub(h.base)), 1) }

func (h *history) add(op linear.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ops) == maxOps {
		h.dropped++
		return
	}
	h.ops = append(h.ops, op)
}

// refused: an attempt sent at sent was definitely answered with a code at now.
func (h *history) refused(try tryID, code int, sent, now time.Time) {
	if h == nil {
		return
	}
	r := refusal{h.since(sent), h.since(now), uint32(try.user), try.generation, uint8(code)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.refusals) == maxRefusals {
		h.dropped++
		return
	}
	h.refusals = append(h.refusals, r)
}

// accepted: an attempt or replay got this answer. r is the key's first receipt.
func (h *history) accepted(r *receipt, given Receipt, sent, now time.Time) {
	if h == nil {
		return
	}
	h.add(linear.Op{What: linear.Buy, User: userName(r.try.user), Key: r.try.key(), Call: h.since(sent), Return: h.since(now),
		Answer: linear.Accepted, Reservation: given.Reservation, State: reserved[given.State], NotBefore: h.expiry(r.expires)})
}

// expiry is the first moment at which time may end a reservation, for clocks
// that differ a little; 0 when its expiry cannot be read.
func (h *history) expiry(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return h.since(t.Add(-expiryMargin))
}

// unanswered: an attempt was sent, and what became of it is not known.
func (h *history) unanswered(try tryID, sent time.Time) {
	if h == nil {
		return
	}
	h.add(linear.Op{What: linear.Buy, User: userName(try.user), Key: try.key(), Call: h.since(sent), Answer: linear.Unknown})
}

// paying must be called before money is sent off for r that can pay it.
func (h *history) paying(r *receipt, b button, now time.Time) {
	if h == nil || !b.buys() {
		return
	}
	h.add(linear.Op{What: linear.Pay, User: userName(r.try.user), Reservation: r.given.Reservation, Call: h.since(now)})
}

// cancelled: a cancel was sent at sent. done says that it was answered as done at now.
func (h *history) cancelled(r *receipt, done bool, sent, now time.Time) {
	if h == nil {
		return
	}
	op := linear.Op{What: linear.Cancel, User: userName(r.try.user), Reservation: r.given.Reservation, Call: h.since(sent)}
	if done {
		op.Return, op.State = h.since(now), linear.Released
	}
	h.add(op)
}

// looked: the owner was shown the reservation in this state.
func (h *history) looked(r *receipt, state string, sent, now time.Time) {
	if h == nil || reserved[state] == "" {
		return
	}
	h.add(linear.Op{What: linear.Order, User: userName(r.try.user), Reservation: r.given.Reservation, Call: h.since(sent), Return: h.since(now), State: reserved[state]})
}

// read: the owner was shown the order in this state.
func (h *history) read(r *receipt, state string, sent, now time.Time) {
	if h == nil || shownAs[state] == "" {
		return
	}
	h.add(linear.Op{What: linear.Order, User: userName(r.try.user), Reservation: r.given.Reservation, Call: h.since(sent), Return: h.since(now), State: shownAs[state]})
}

// counted: the counts were read.
func (h *history) counted(i item, sent, now time.Time) {
	if h == nil || i.InTransit != 0 {
		return
	}
	h.add(linear.Op{What: linear.Counts, Call: h.since(sent), Return: h.since(now), Free: i.Free, Held: i.Held, Confirmed: i.Confirmed})
}

// reserved and shownAs tell the states of reservations and orders in the few
// that matter. A refunded order is left out: only in the end is it clear that
// its unit stays sold. An order is shown as created before it is sure to be one.
var (
	reserved = map[string]string{"pending": linear.Pending, "held": linear.Held, "confirmed": linear.Confirmed,
		"released": linear.Released, "expired": linear.Released, "refused": linear.Refused}
	shownAs = map[string]string{"created": linear.Pending, "paid": linear.Confirmed, "fulfilled": linear.Confirmed,
		"cancelled": linear.Released, "refused": linear.Refused}
	leftAs = map[string]string{"created": linear.Held, "paid": linear.Confirmed, "fulfilled": linear.Confirmed, "refunded": linear.Confirmed,
		"cancelled": linear.Released, "refused": linear.Refused}
)

// settle adds how everything stood when it was at rest, read from f.at to now.
func (h *history) settle(f facts, o *oracle, now time.Time) {
	h.counted(f.counts, f.at, now)
	unsure := o.unsureKeys()
	bought := map[string]Order{} // by the order that late money bought
	for _, row := range f.orders {
		if row.ReplacedBy != "" {
			bought[row.ReplacedBy] = row
		}
	}
	for _, row := range f.orders {
		key := row.Key
		if r := o.byOrder[row.ID]; r != nil {
			key = r.try.key()
		}
		if key == "" {
			key = unsure[row.User]
		}
		op := linear.Op{What: linear.Final, User: row.User, Key: key, Call: h.since(f.at), Return: h.since(now), Reservation: row.Reservation, State: leftAs[row.State]}
		if expires, err := time.Parse(time.RFC3339Nano, row.ExpiresAt); err == nil {
			op.NotBefore = h.expiry(expires.Add(-o.ahead))
		}
		if row.LateOf != "" {
			// The shop bought it for its user, at some time after the money was sent off.
			op.Key, op.NotBefore = cmp.Or(row.Key, "late:"+row.LateOf), 0
			buy := linear.Op{What: linear.Buy, User: row.User, Key: op.Key, Call: 1, Answer: linear.Unknown}
			if r := o.byOrder[bought[row.ID].ID]; r != nil {
				for _, p := range r.presses {
					if p.button.buys() {
						buy.Call = h.since(p.sent)
						break
					}
				}
			}
			h.add(buy)
		}
		h.add(op)
	}
}

// unsureKeys are, by user, the keys by which they may have an order that
// nobody acknowledged, for rows that do not tell theirs. A user with several
// has none: nobody knows which.
func (o *oracle) unsureKeys() map[string]string {
	keys := map[string]string{}
	for try := range o.unsure {
		if o.receipts[try] != nil {
			continue
		}
		user, key := userName(try.user), try.key()
		if _, several := keys[user]; several {
			key = ""
		}
		keys[user] = key
	}
	return keys
}

// all yields every operation, with the one SKU there is.
func (h *history) all(sku string) iter.Seq[linear.Op] {
	return func(yield func(linear.Op) bool) {
		for _, op := range h.ops {
			if op.SKU = sku; !yield(op) {
				return
			}
		}
		for _, r := range h.refusals {
			try := tryID{int(r.user), r.generation}
			if !yield(linear.Op{What: linear.Buy, User: userName(try.user), Key: try.key(), SKU: sku, Call: r.call, Return: r.back, Answer: codes[r.code]}) {
				return
			}
		}
	}
}

// spans are the troubles in the history's time.
func (h *history) spans(t *troubles) (all []linear.Span) {
	for _, s := range t.spans {
		end := linear.Forever
		if !s.to.IsZero() {
			end = h.since(s.to)
		}
		all = append(all, linear.Span{From: h.since(s.from), To: end})
	}
	return all
}

// linearize checks the history, and writes what was asked for. It must be
// called when everything has stopped; complete says that f is all there is.
func (r *rehearsal) linearize(f facts, complete bool) error {
	if r.history == nil {
		return nil
	}
	if complete {
		r.history.settle(f, r.oracle, time.Now())
	}
	recorded := linear.History{
		Activity: r.shop.activity, PerUser: 1, Items: []linear.Item{{SKU: r.shop.sku, Units: r.o.Stock}},
		Buckets: r.oracle.buckets, Troubles: r.history.spans(&r.oracle.troubles),
		Complete: complete, Dropped: r.history.dropped, Ops: r.history.all(r.shop.sku),
	}
	if r.o.History != "" {
		if err := toFile(r.o.History, func(w io.Writer) error { return linear.Write(w, recorded) }); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	if r.o.Linearize <= 0 {
		return nil
	}
	if !complete { // what late money bought is known from the orders at rest only
		r.notes.add("linearizability was NOT CHECKED: the orders at rest could not be read")
		return nil
	}
	result, err := linear.CheckWith(recorded, linear.Options{Timeout: r.o.Linearize, Lag: r.o.Lag, Stale: r.o.Lag})
	if err != nil {
		return fmt.Errorf("check the history: %w", err)
	}
	for _, v := range result.Violations {
		r.oracle.broken.add("not linearizable: %s", v)
	}
	for _, d := range result.Doubts {
		r.notes.add("linearizability was NOT CHECKED: %s", d)
	}
	r.linear = &Linear{string(result.Verdict), result.Operations, result.Partitions, result.Searched, result.Took.Seconds(), result.String()}
	if r.o.Drawing != "" {
		if err := toFile(r.o.Drawing, result.Draw); err != nil && !errors.Is(err, linear.ErrNoPicture) {
			return fmt.Errorf("draw the history: %w", err)
		}
	}
	return nil
}

// Linear is what the check of the recorded history came to.
type Linear struct {
	Verdict    string  `json:"verdict"` // linearizable, not linearizable, or not checked
	Operations int     `json:"operations"`
	Partitions int     `json:"partitions"`
	Searched   int     `json:"searched"` // left after the reduction, see storm/linear
	Seconds    float64 `json:"seconds"`

	line string
}

func toFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := bufio.NewWriter(f)
	if err := write(b); err != nil {
		return err
	}
	return b.Flush()
}
