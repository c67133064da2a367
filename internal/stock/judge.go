package stock

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// A ledger that answers before it is durable does not have the last word. Its
// lander keeps a book of its own, made from the store (Restore), and takes
// every entry to it (Judge) before it writes: what the book refuses was not
// the ledger's to give.

// Restore makes a bucket's book from what the store keeps of it: rules are the
// entries that opened and adjusted it, in the order of its log, reservations
// its reservations as they stand now, oldest first. The book goes on in epoch:
// its entries count from 1 again, and so do the numbers of its reservations.
// What does not add up is ErrCorrupt.
func Restore(epoch uint32, rules []Entry, reservations iter.Seq2[Reservation, error]) (*Book, error) {
	if len(rules) == 0 {
		return nil, fmt.Errorf("%w: a bucket without its allocation", ErrCorrupt)
	}
	opened := rules[0]
	opened.Sequence = 1
	b, err := Open(opened)
	if err != nil {
		return nil, err
	}
	for _, e := range rules[1:] {
		if e.Kind != EntryAdjusted {
			return nil, fmt.Errorf("%w: an entry of kind %d among the rules", ErrCorrupt, e.Kind)
		}
		if _, err := b.Adjust(*e.Adjustment); err != nil {
			return nil, fmt.Errorf("%w: adjustment %s: %w", ErrCorrupt, e.Adjustment.ID, err)
		}
	}
	b.older = make(map[ID]uint64)
	for r, err := range reservations {
		if err == nil {
			err = b.carry(r)
		}
		if err != nil {
			return nil, err
		}
	}
	b.carried = b.records.len()
	b.sequence, b.allocation.Epoch = 0, epoch
	return b, b.Check()
}

// carry takes a reservation of an earlier epoch in its present state.
func (b *Book) carry(r Reservation) error {
	bad := func(why string) error { return fmt.Errorf("%w: reservation %s: %s", ErrCorrupt, r.ID, why) }
	if r.ID.Activity != b.allocation.Activity || r.ID.Bucket != b.allocation.Bucket || b.older[r.ID] != 0 {
		return bad("belongs to another bucket, or stands twice")
	}
	rec := b.records.add()
	rec.Reservation = r
	b.older[r.ID] = b.records.len()
	rec.previous = b.users[rec.User]
	b.users[rec.User] = b.records.len()
	b.last = max(b.last, r.At)
	for _, c := range rec.Claims {
		b.claims[c] = struct{}{}
	}
	for i, l := range rec.Lines {
		at := b.find(l.SKU)
		if at < 0 {
			return bad("of an unknown SKU")
		}
		it := &b.items[at]
		rec.Lines[i].SKU = it.SKU
		switch r.State {
		case Held:
			it.held += l.Quantity
			it.free -= l.Quantity
		case Confirmed:
			it.confirmed += l.Quantity
			it.free -= l.Quantity
		case Returned:
			it.returned += l.Quantity
		case Released, Expired, Refused:
		default:
			return bad("is " + r.State.String())
		}
	}
	return nil
}

// Resume makes a book that was just restored go on in the middle of its epoch,
// after the entry at this position: what it carries of that epoch has the
// numbers up to there. It is for a bucket that has lost nothing.
func (b *Book) Resume(position uint64) {
	b.sequence = position
	for id := range b.older {
		if id.Epoch == b.allocation.Epoch {
			b.resumed = max(b.resumed, id.Number)
		}
	}
	b.carried -= b.resumed // modulo 2⁶⁴: only its sums with greater numbers are ever asked for
}

// Clone is a book of its own with the same content: what an engine in memory
// restores must not follow what its keeper judges.
func (b *Book) Clone() *Book {
	c := *b
	c.allocation.Items = slices.Clone(b.allocation.Items)
	c.items = slices.Clone(b.items)
	c.users, c.claims = maps.Clone(b.users), maps.Clone(b.claims)
	c.adjusted, c.older = maps.Clone(b.adjusted), maps.Clone(b.older)
	c.records.chunks = make([]*[chunk]Record, len(b.records.chunks))
	for i, full := range b.records.chunks {
		copied := *full
		c.records.chunks[i] = &copied
	}
	return &c
}

// Judge takes the next entry of a ledger that has not the last word. It
// decides a reserved entry again; a refusal (as Reserve answers) means that the
// entry may not stand: the reservation is Refused from now on, holds nothing,
// and keeps its number and key. A settlement or adjustment that the book would
// answer otherwise is its error, and does not count; one that the book has
// already, since the store was ahead of the log, is no change.
//
// ErrCorrupt is an entry that does not follow the one before: the ledger has
// lost or made up something, and the book is of no use to it any more.
func (b *Book) Judge(e Entry) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %s bucket %d entry %d.%d: %s", ErrCorrupt, e.Activity, e.Bucket, e.Cursor.Epoch, e.Sequence, why)
	}
	switch {
	case e.Activity != b.allocation.Activity || e.Bucket != b.allocation.Bucket:
		return bad("belongs to another bucket")
	case e.Sequence != b.sequence+1:
		return bad(fmt.Sprintf("does not follow %d", b.sequence))
	}
	defer func() { b.sequence = e.Sequence }() // refused or not, this entry has been judged
	switch e.Kind {
	case EntryReserved:
		return b.judge(e.Reservation, bad)
	case EntrySettled:
		_, _, err := b.Settle(*e.Settlement)
		return err
	case EntryAdjusted:
		_, err := b.Adjust(*e.Adjustment)
		return err
	}
	return bad(fmt.Sprintf("kind %d", e.Kind))
}

func (b *Book) judge(r *Reservation, bad func(string) error) error {
	number := b.records.len() - b.carried + 1
	if r.ID.Epoch != b.allocation.Epoch || r.ID.Number != number {
		return bad(fmt.Sprintf("reservation %s after number %d", r.ID, number-1))
	}
	rec, e, err := b.Reserve(&Request{
		Activity: r.ID.Activity, User: r.User, Key: r.Key, Fingerprint: r.Fingerprint, Order: r.Order,
		Lines: r.Lines, Claims: r.Claims, Terms: r.Terms, Late: r.Late, At: r.At,
	})
	if err == nil && e != nil {
		rec.Expires = r.Expires
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: key of %s", ErrMismatch, rec.ID)
	}
	refused := b.records.add()
	refused.Reservation = *r
	refused.State, refused.Claims = Refused, nil
	if !errors.Is(err, ErrMismatch) { // the key is another reservation's, and stays so
		refused.previous = b.users[refused.User]
		b.users[refused.User] = b.records.len()
	}
	return err
}
