package stock

import (
	"fmt"
	"math"
	"strings"
)

// Book is the ledger of one bucket of one activity as a pure state machine:
// no clock, no I/O, no randomness. Each operation either changes the book and
// answers the entry that says how, or refuses and changes nothing. Replay
// takes entries and decides nothing again.
//
// A Book is not safe for concurrent use. An Entry it returns may point into
// it and is valid until the next operation.
type Book struct {
	allocation Allocation
	digest     uint64 // of the allocation as it was opened
	phase      Phase
	items      []item
	records    records
	users      map[UserID]uint64 // place in records of each user's newest reservation
	claims     map[string]struct{}
	adjusted   map[string]uint64 // adjustment id → digest of its content
	carried    uint64            // how many of records are of earlier epochs, see Restore
	older      map[ID]uint64     // those, by id
	resumed    uint64            // newest number of this epoch among those, see Resume
	sequence   uint64
	last       Millis // latest time seen in an entry
}

// item is one SKU with the places its units can be in.
type item struct {
	Item
	allocated, free, held, confirmed, returned int
	out, in                                    int // moved to and from other buckets; no snapshot keeps it
	soldOut, allHeld                           *Refusal
}

// Record is a reservation as its book keeps it, linked to the same user's
// reservation before it. Sequence is that of its reserved entry.
type Record struct {
	Reservation
	Sequence uint64
	previous uint64
}

// NewBook opens a bucket. Its entry must be the first of the bucket's log.
func NewBook(a Allocation) (*Book, Entry, error) {
	if err := a.Validate(); err != nil {
		return nil, Entry{}, err
	}
	b := newBook(a)
	b.sequence, b.last = 1, a.At
	return b, b.entry(EntryOpened, func(e *Entry) { e.Allocation = &b.allocation }), nil
}

func newBook(a Allocation) *Book {
	a.Items = append([]Item(nil), a.Items...)
	b := &Book{
		allocation: a,
		digest:     digestAllocation(a),
		phase:      Live,
		users:      make(map[UserID]uint64),
		claims:     make(map[string]struct{}),
		adjusted:   make(map[string]uint64),
	}
	for _, it := range a.Items {
		b.items = append(b.items, newItem(it))
	}
	return b
}

func newItem(it Item) item {
	return item{
		Item: it, allocated: it.Units, free: it.Units,
		soldOut: &Refusal{Err: ErrSoldOut, SKU: it.SKU},
		allHeld: &Refusal{Err: ErrAllHeld, SKU: it.SKU},
	}
}

func (b *Book) entry(kind EntryKind, set func(*Entry)) Entry {
	e := Entry{Activity: b.allocation.Activity, Bucket: b.allocation.Bucket, Sequence: b.sequence, Kind: kind}
	set(&e)
	return e
}

// Reopen checks that a is the allocation this book was opened with.
func (b *Book) Reopen(a Allocation) error {
	if a.ID != b.allocation.ID || digestAllocation(a) != b.digest {
		return fmt.Errorf("%w: bucket %d of %s was opened by allocation %s", ErrConflict, a.Bucket, a.Activity, b.allocation.ID)
	}
	return nil
}

// Reserve holds units. A nil entry with a nil error is the receipt of an
// earlier reserve again. The order of checks is the contract: known key,
// claims, phase and window, per-order limits, per-user limits, stock.
// Nothing of r is kept but Terms, which must not change any more.
func (b *Book) Reserve(r *Request) (*Record, *Entry, error) {
	newest := b.users[r.User]
	if known := b.known(newest, r.Key); known != nil {
		if known.Fingerprint != r.Fingerprint {
			return nil, nil, ErrMismatch
		}
		return known, nil, nil
	}
	var where [MaxLines]int
	if err := b.locate(r, &where); err != nil {
		return nil, nil, err
	}
	for _, c := range r.Claims {
		if _, used := b.claims[c]; used {
			return nil, nil, ErrClaimUsed
		}
	}
	if err := b.admits(r); err != nil {
		return nil, nil, err
	}
	if err := b.withinLimits(r, where[:len(r.Lines)], newest); err != nil {
		return nil, nil, err
	}
	for i, l := range r.Lines {
		if it := &b.items[where[i]]; it.free < l.Quantity {
			return nil, nil, it.short()
		}
	}
	rec := b.keep(r, where[:len(r.Lines)])
	b.hold(rec, where[:len(r.Lines)])
	e := Entry{Activity: b.allocation.Activity, Bucket: b.allocation.Bucket, Sequence: b.sequence, Kind: EntryReserved, Reservation: &rec.Reservation}
	return rec, &e, nil
}

// known walks the user's reservations (at most MaxReservations) for a key.
func (b *Book) known(newest uint64, key string) *Record {
	for n := newest; n != 0; {
		rec := b.records.at(n)
		if rec.Key == key {
			return rec
		}
		n = rec.previous
	}
	return nil
}

// locate finds each line's item and refuses requests out of shape.
func (b *Book) locate(r *Request, where *[MaxLines]int) error {
	if err := r.Check(); err != nil {
		return err
	}
	for i, l := range r.Lines {
		at := b.find(l.SKU)
		if at < 0 {
			return &Refusal{Err: ErrNoSuchSKU, SKU: SKU(strings.Clone(string(l.SKU)))}
		}
		where[i] = at
	}
	return nil
}

func (b *Book) find(sku SKU) int {
	for i := range b.items {
		if b.items[i].SKU == sku {
			return i
		}
	}
	return -1
}

// admits judges phase and window. Money that arrived late passes both, unless
// the activity is closed.
func (b *Book) admits(r *Request) error {
	if r.Late != "" {
		if b.phase == Closed {
			return ErrEnded
		}
		return nil
	}
	return admits(b.phase, b.allocation.OpensAt, b.allocation.ClosesAt, r.At)
}

func admits(phase Phase, opens, closes, now Millis) error {
	switch {
	case phase >= Draining || now >= closes:
		return ErrEnded
	case now < opens:
		return &Refusal{Err: ErrNotOpen, OpensAt: opens}
	case phase == Paused:
		return ErrPaused
	}
	return nil
}

func (b *Book) withinLimits(r *Request, where []int, newest uint64) error {
	asked := 0
	for i, l := range r.Lines {
		if it := &b.items[where[i]]; l.Quantity > it.PerOrder {
			return &Refusal{Err: ErrLimit, SKU: it.SKU, Limit: it.PerOrder, Scope: "per_order"}
		}
		asked += l.Quantity
	}
	var has [MaxLines]int
	total, count := 0, 0
	for n := newest; n != 0; count++ {
		rec := b.records.at(n)
		if rec.State == Held || rec.State == Confirmed {
			for _, l := range rec.Lines {
				total += l.Quantity
				for i := range r.Lines {
					if r.Lines[i].SKU == l.SKU {
						has[i] += l.Quantity
					}
				}
			}
		}
		n = rec.previous
	}
	for i, l := range r.Lines {
		if it := &b.items[where[i]]; it.PerUser > 0 && has[i]+l.Quantity > it.PerUser {
			return &Refusal{Err: ErrLimit, SKU: it.SKU, Limit: it.PerUser, Scope: "per_user"}
		}
	}
	if p := b.allocation.PerUser; p > 0 && total+asked > p {
		return &Refusal{Err: ErrLimit, Limit: p, Scope: "per_activity"}
	}
	if count >= MaxReservations {
		return &Refusal{Err: ErrLimit, Limit: MaxReservations, Scope: "reservations"}
	}
	return nil
}

// short says why fewer units are free than asked for.
func (it *item) short() error {
	switch {
	case it.free > 0:
		return &Refusal{Err: ErrInsufficient, SKU: it.SKU, Available: it.free}
	case it.held > 0:
		return it.allHeld
	default:
		return it.soldOut
	}
}

// keep copies an accepted request into the book's own memory. The strings of
// one reservation share one allocation.
func (b *Book) keep(r *Request, where []int) *Record {
	all := make([]byte, 0, len(r.User)+len(r.Key)+len(r.Order)+len(r.Late))
	all = append(all, r.User...)
	all = append(all, r.Key...)
	all = append(all, r.Order...)
	text := string(append(all, r.Late...))
	cut := func(n int) string { s := text[:n]; text = text[n:]; return s }
	rec := b.records.add()
	rec.User = UserID(cut(len(r.User)))
	rec.Key = cut(len(r.Key))
	rec.Order = OrderID(cut(len(r.Order)))
	rec.Late = cut(len(r.Late))
	rec.ID = ID{b.allocation.Activity, b.allocation.Bucket, b.allocation.Epoch, b.records.len() - b.carried}
	rec.Fingerprint, rec.Terms = r.Fingerprint, r.Terms
	rec.Lines = make([]Line, len(r.Lines))
	for i, l := range r.Lines {
		rec.Lines[i] = Line{b.items[where[i]].SKU, l.Quantity}
	}
	for _, c := range r.Claims {
		rec.Claims = append(rec.Claims, strings.Clone(c))
	}
	rec.State, rec.At = Held, max(r.At, b.last) // an entry is never older than the one before it
	rec.Expires = rec.At + b.allocation.Hold
	return rec
}

// hold is the effect of a reserved entry, live and in replay alike.
func (b *Book) hold(rec *Record, where []int) {
	b.sequence++
	rec.Sequence = b.sequence
	b.last = rec.At
	rec.previous = b.users[rec.User]
	b.users[rec.User] = b.records.len()
	for i, l := range rec.Lines {
		it := &b.items[where[i]]
		it.free -= l.Quantity
		it.held += l.Quantity
	}
	for _, c := range rec.Claims {
		b.claims[c] = struct{}{}
	}
}

// Find answers a reservation of this book, or ErrNoSuchReservation.
func (b *Book) Find(id ID) (*Record, error) {
	a := &b.allocation
	if at := b.older[id]; at != 0 {
		return b.records.at(at), nil
	}
	if id.Activity != a.Activity || id.Bucket != a.Bucket || id.Epoch != a.Epoch || id.Number <= b.resumed || id.Number > b.records.len()-b.carried {
		return nil, ErrNoSuchReservation
	}
	return b.records.at(b.carried + id.Number), nil
}

// Lookup answers the reservation of a user by key or by order id.
func (b *Book) Lookup(user UserID, key string, order OrderID) (*Record, error) {
	for n := b.users[user]; n != 0; {
		rec := b.records.at(n)
		if key != "" && rec.Key == key || order != "" && rec.Order == order {
			return rec, nil
		}
		n = rec.previous
	}
	return nil, ErrNoSuchReservation
}

// Reservations calls visit with every reservation, oldest first, until it answers false.
func (b *Book) Reservations(visit func(*Reservation) bool) {
	for n := uint64(1); n <= b.records.len(); n++ {
		if !visit(&b.records.at(n).Reservation) {
			return
		}
	}
}

// Counts tells where the units are. The position is the caller's to fill in.
func (b *Book) Counts() Counts {
	c := Counts{Activity: b.allocation.Activity, Phase: b.phase, Items: make([]Count, len(b.items))}
	for i := range b.items {
		it := &b.items[i]
		c.Items[i] = Count{
			SKU: it.SKU, Allocated: it.allocated, Free: it.free, Held: it.held, Confirmed: it.confirmed,
			Returned: it.returned, Level: LevelOf(it.allocated, it.free, it.held),
		}
	}
	return c
}

// Items are the SKUs with the limits in force.
func (b *Book) Items() []Item {
	items := make([]Item, len(b.items))
	for i := range b.items {
		items[i] = b.items[i].Item
	}
	return items
}

// Check verifies the invariants that hold for each SKU after every operation.
func (b *Book) Check() error {
	for i := range b.items {
		it := &b.items[i]
		if it.free < 0 || it.held < 0 || it.confirmed < 0 || it.free+it.held+it.confirmed != it.allocated {
			return fmt.Errorf("%w: %s: %d free + %d held + %d confirmed ≠ %d allocated",
				ErrCorrupt, it.SKU, it.free, it.held, it.confirmed, it.allocated)
		}
	}
	return nil
}

// Sequence is the number of entries so far; Last the latest time in them.
func (b *Book) Sequence() uint64       { return b.sequence }
func (b *Book) Last() Millis           { return b.last }
func (b *Book) Phase() Phase           { return b.phase }
func (b *Book) Allocation() Allocation { return b.allocation }

// records keeps reservations in chunks, so that growing never copies them.
type records struct {
	chunks []*[chunk]Record
	n      uint64
}

const chunk = 1024

func (r *records) len() uint64 { return r.n }

func (r *records) at(number uint64) *Record {
	i := number - 1
	return &r.chunks[i/chunk][i%chunk]
}

func (r *records) add() *Record {
	if r.n == math.MaxUint32*chunk {
		panic("stock: reservation numbers exhausted")
	}
	if r.n%chunk == 0 {
		r.chunks = append(r.chunks, new([chunk]Record))
	}
	r.n++
	return r.at(r.n)
}
