package stock

import "iter"

// What an engine copies of a book (Engine.Restore) beside its counts, and what
// it compares with.

// Digest is equal for equal content, whatever the time or the reason.
func (a Adjustment) Digest() uint64 { return digestAdjustment(a) }

// Digest is equal for allocations that Open takes for the same one.
func (a Allocation) Digest() uint64 { return digestAllocation(a) }

// Digest is that of the allocation with which the bucket was opened.
func (b *Book) Digest() uint64 { return b.digest }

// Adjusted yields the id and the digest of every adjustment applied, in no order.
func (b *Book) Adjusted() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for id, digest := range b.adjusted {
			if !yield(id, digest) {
				return
			}
		}
	}
}

// Users yields every user with all reservations that count for them, oldest
// first; the users in no order. A reservation that was refused because its key
// is another one's is not among them. The slice is valid until the next one.
func (b *Book) Users() iter.Seq2[UserID, []*Reservation] {
	return func(yield func(UserID, []*Reservation) bool) {
		var all []*Reservation
		for user, newest := range b.users {
			all = all[:0]
			for n := newest; n != 0; {
				rec := b.records.at(n)
				all = append(all, &rec.Reservation)
				n = rec.previous
			}
			for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
				all[i], all[j] = all[j], all[i]
			}
			if !yield(user, all) {
				return
			}
		}
	}
}

// Moved is how many units of a SKU were moved to other buckets of the activity
// and how many came from them, since it was opened.
func (b *Book) Moved(sku SKU) (out, in int) {
	if at := b.find(sku); at >= 0 {
		return b.items[at].out, b.items[at].in
	}
	return 0, 0
}

func (it *item) moved(bucket uint16, a *Adjustment) {
	if m, debit, ok := MoveOf(bucket, a); ok && debit {
		it.out += m.Units
	} else if ok {
		it.in += m.Units
	}
}
