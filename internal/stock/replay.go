package stock

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Open replays the first entry of a bucket.
func Open(e Entry) (*Book, error) {
	if e.Kind != EntryOpened || e.Sequence != 1 || e.Allocation == nil {
		return nil, fmt.Errorf("%w: a bucket's log starts with kind %d, sequence %d", ErrCorrupt, e.Kind, e.Sequence)
	}
	if err := e.Allocation.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	b := newBook(*e.Allocation)
	b.sequence, b.last = 1, e.Allocation.At
	return b, nil
}

// Books are the books of one log, by activity.
type Books map[ActivityID]*Book

// Replay takes the log's next entry to its book, which the first one opens.
func (bs Books) Replay(e Entry) error {
	if b := bs[e.Activity]; b != nil {
		return b.Replay(e)
	}
	b, err := Open(e)
	if err == nil {
		bs[e.Activity] = b
	}
	return err
}

// Replay takes the next entry's effect. It decides nothing; an entry that
// cannot follow from this state is ErrCorrupt and leaves the book unusable.
func (b *Book) Replay(e Entry) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %s bucket %d entry %d: %s", ErrCorrupt, e.Activity, e.Bucket, e.Sequence, why)
	}
	if e.Activity != b.allocation.Activity || e.Bucket != b.allocation.Bucket {
		return bad("belongs to another bucket")
	}
	if e.Sequence != b.sequence+1 {
		return bad(fmt.Sprintf("does not follow %d", b.sequence))
	}
	switch e.Kind {
	case EntryReserved:
		return b.replayReserved(e.Reservation, bad)
	case EntrySettled:
		rec, err := b.Find(e.Settlement.ID)
		if err != nil {
			return bad("settles an unknown reservation")
		}
		if !allowed(rec.State, e.Settlement.Outcome) {
			return bad(fmt.Sprintf("%s → %s", rec.State, e.Settlement.Outcome))
		}
		b.settle(rec, *e.Settlement)
		return nil
	case EntryAdjusted:
		if err := e.Adjustment.Check(); err != nil {
			return bad(err.Error())
		}
		if err := b.adjustable(*e.Adjustment); err != nil {
			return bad(err.Error())
		}
		b.adjust(*e.Adjustment)
		return nil
	}
	return bad(fmt.Sprintf("kind %d", e.Kind))
}

func (b *Book) replayReserved(r *Reservation, bad func(string) error) error {
	if r.ID.Epoch != b.allocation.Epoch || r.ID.Number != b.records.len()+1 {
		return bad(fmt.Sprintf("reservation %s after number %d", r.ID, b.records.len()))
	}
	var where [MaxLines]int
	if len(r.Lines) == 0 || len(r.Lines) > MaxLines {
		return bad("lines")
	}
	for i, l := range r.Lines {
		at := b.find(l.SKU)
		if at < 0 || l.Quantity < 1 || b.items[at].free < l.Quantity {
			return bad(fmt.Sprintf("%d of %s are not free", l.Quantity, l.SKU))
		}
		where[i] = at
	}
	rec := b.records.add()
	rec.Reservation = *r
	rec.State = Held
	rec.ID.Activity = b.allocation.Activity
	for i := range rec.Lines {
		rec.Lines[i].SKU = b.items[where[i]].SKU
	}
	b.hold(rec, where[:len(r.Lines)])
	return nil
}

const snapshotFormat = 1

// AppendSnapshot appends the whole state in a canonical form: equal histories
// give equal bytes.
func (b *Book) AppendSnapshot(p []byte) []byte {
	p = append(p, snapshotFormat)
	opened := b.allocation
	p = appendAllocation(p, &opened)
	p = binary.BigEndian.AppendUint64(p, b.digest)
	p = append(p, byte(b.phase))
	p = binary.AppendUvarint(p, b.sequence)
	p = binary.AppendVarint(p, int64(b.last))
	for i := range b.items {
		it := &b.items[i]
		p = binary.AppendUvarint(p, uint64(it.PerUser))
		p = binary.AppendUvarint(p, uint64(it.PerOrder))
		for _, n := range []int{it.allocated, it.free, it.held, it.confirmed, it.returned} {
			p = binary.AppendUvarint(p, uint64(n))
		}
	}
	p = binary.AppendUvarint(p, uint64(len(b.adjusted)))
	for _, id := range slices.Sorted(maps.Keys(b.adjusted)) {
		p = appendText(p, id)
		p = binary.BigEndian.AppendUint64(p, b.adjusted[id])
	}
	p = binary.AppendUvarint(p, b.records.len())
	for n := uint64(1); n <= b.records.len(); n++ {
		rec := b.records.at(n)
		p = appendReservation(p, &rec.Reservation)
		p = append(p, byte(rec.State))
		p = binary.AppendUvarint(p, rec.Sequence)
	}
	return p
}

// Snapshot reads what AppendSnapshot wrote, checks its counts against
// its reservations, and refuses everything else with ErrCorrupt.
func (d *Decoder) Snapshot(p []byte) (*Book, error) {
	d.p, d.failed = p, false
	if d.byte() != snapshotFormat {
		return nil, fmt.Errorf("%w: unknown snapshot format", ErrCorrupt)
	}
	a := d.allocation()
	if d.failed || a.Validate() != nil {
		return nil, fmt.Errorf("%w: malformed snapshot", ErrCorrupt)
	}
	b := newBook(*a)
	b.digest = d.fixed64()
	b.phase = Phase(d.byte())
	b.sequence = d.uint(math.MaxUint64)
	b.last = d.millis()
	for i := range b.items {
		it := &b.items[i]
		it.PerUser, it.PerOrder = int(d.uint(math.MaxInt32)), int(d.uint(math.MaxInt32))
		for _, n := range []*int{&it.allocated, &it.free, &it.held, &it.confirmed, &it.returned} {
			*n = int(d.uint(MaxUnits))
		}
	}
	for n := d.uint(maxAdjustments); n > 0 && !d.failed; n-- {
		id := d.text(maxAdjustmentID)
		b.adjusted[id] = d.fixed64()
	}
	d.snapshotRecords(b)
	if d.failed || len(d.p) != 0 {
		return nil, fmt.Errorf("%w: malformed snapshot", ErrCorrupt)
	}
	if err := b.recount(); err != nil {
		return nil, err
	}
	return b, nil
}

func (d *Decoder) snapshotRecords(b *Book) {
	for n := d.uint(math.MaxUint64); n > 0 && !d.failed; n-- {
		r := d.reservation()
		state := State(d.byte())
		sequence := d.uint(math.MaxUint64)
		if d.failed || len(r.Lines) == 0 || state < Held || state > Returned || r.ID.Number != b.records.len()+1 {
			d.fail()
			return
		}
		rec := b.records.add()
		rec.Reservation, rec.Sequence = *r, sequence
		rec.State = state
		rec.ID.Activity, rec.ID.Bucket = b.allocation.Activity, b.allocation.Bucket
		rec.previous = b.users[rec.User]
		b.users[rec.User] = rec.ID.Number
		for _, c := range rec.Claims {
			b.claims[c] = struct{}{}
		}
	}
}

func (d *Decoder) fixed64() uint64 {
	if s := d.take(8); s != nil {
		return binary.BigEndian.Uint64(s)
	}
	return 0
}

// recount checks the counts of each SKU against the reservations.
func (b *Book) recount() error {
	held, confirmed := make([]int, len(b.items)), make([]int, len(b.items))
	for n := uint64(1); n <= b.records.len(); n++ {
		rec := b.records.at(n)
		for i, l := range rec.Lines {
			at := b.find(l.SKU)
			if at < 0 {
				return fmt.Errorf("%w: snapshot: reservation %s of unknown SKU", ErrCorrupt, rec.ID)
			}
			rec.Lines[i].SKU = b.items[at].SKU
			switch rec.State {
			case Held:
				held[at] += l.Quantity
			case Confirmed:
				confirmed[at] += l.Quantity
			}
		}
	}
	for i := range b.items {
		if it := &b.items[i]; it.held != held[i] || it.confirmed != confirmed[i] {
			return fmt.Errorf("%w: snapshot: %s has %d held and %d confirmed, its reservations %d and %d",
				ErrCorrupt, it.SKU, it.held, it.confirmed, held[i], confirmed[i])
		}
	}
	return b.Check()
}

// Hash is a digest of the whole state: equal histories give equal hashes.
func (b *Book) Hash() string {
	sum := sha256.Sum256(b.AppendSnapshot(nil))
	return hex.EncodeToString(sum[:])
}
