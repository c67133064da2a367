package bucket

import (
	"fmt"
	"sync"

	"sluice/internal/stock"
)

// Witness is shown what the book of each bucket goes through, in the order of
// its log and by the bucket's own work: it must be quick, must not call the
// keeper, and must not keep the book.
type Witness interface {
	// Made: the book was made from the store and stands at a place. An earlier one
	// of the bucket is worth nothing from here on.
	Made(p stock.Place, b *stock.Book, at stock.Cursor)
	// Judging: this entry comes next, and the book stands before it.
	Judging(p stock.Place, e *stock.Entry, b *stock.Book)
	// Judged: the book stands behind it; err is what it answered. That the entry
	// lands is not certain yet: if it does not, another book is made.
	Judged(p stock.Place, e *stock.Entry, b *stock.Book, err error)
}

// made tells the witness of a new book.
func (t *tenure) made() {
	if t.Witness != nil {
		t.Witness.Made(t.place, t.book, t.mark)
	}
}

// decide is the book's word about an entry, before a witness.
func (t *tenure) decide(e *stock.Entry) error {
	if t.Witness == nil {
		return t.book.Judge(*e)
	}
	t.Witness.Judging(t.place, e, t.book)
	err := t.book.Judge(*e)
	t.Witness.Judged(t.place, e, t.book, err)
	return err
}

// Serving are the buckets that this worker serves, each with the place in its
// log up to which it has landed, as of the last step. It answers at once.
func (k *Keeper) Serving() (all []stock.Cursor) {
	for _, s := range k.Stats() {
		if s.State == Serving {
			all = append(all, stock.Cursor{Log: s.Place.Log(), Epoch: s.Landed.Epoch, Position: s.Landed.Position})
		}
	}
	return all
}

// Hold keeps a bucket that this worker serves as it is until release is called:
// its book, which must not be kept longer, and the place in its log that the
// book is at, which is the store's watermark. Nothing of the bucket lands
// meanwhile, so whoever holds it must be quick. ok is false when this worker
// does not serve it at present; release may always be called, and again.
func (k *Keeper) Hold(p stock.Place) (b *stock.Book, at stock.Cursor, release func(), ok bool) {
	k.mu.Lock()
	t := k.places[p]
	k.mu.Unlock()
	if t == nil {
		return nil, stock.Cursor{}, func() {}, false
	}
	t.mu.Lock()
	if t.state != Serving || t.book == nil || t.why != "" {
		t.mu.Unlock()
		return nil, stock.Cursor{}, func() {}, false
	}
	return t.book, t.mark, sync.OnceFunc(t.mu.Unlock), true
}

// Rebuild takes the engine's state of a bucket for wrong and has it made again
// from the store, by the path of every loss: fence, land what survives, next
// epoch, restore. It answers before that, with false when this worker does not
// serve the bucket at present.
func (k *Keeper) Rebuild(p stock.Place, why string) bool {
	k.mu.Lock()
	t := k.places[p]
	k.mu.Unlock()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Serving {
		return false
	}
	t.doubt("%s", fmt.Sprintf("%.200s", why))
	t.publish()
	return true
}
