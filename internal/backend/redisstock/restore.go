package redisstock

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// A step of a restore carries about so many bytes or values,
// and so many steps are sent before their answers are read.
const (
	stepBytes  = 64 << 10
	stepValues = 500
	stepsAhead = 32
)

// Restore implements stock.Engine. The book must be fresh from stock.Restore;
// its allocation says over how many buckets the activity is spread.
func (l *Ledger) Restore(ctx context.Context, p stock.Place, token uint64, book *stock.Book) error {
	a := book.Allocation()
	if a.Activity != p.Activity || a.Bucket != p.Bucket || book.Sequence() != 0 {
		return fmt.Errorf("%w: not the book of bucket %d of %s, or not fresh", stock.ErrInvalid, p.Bucket, p.Activity)
	}
	w := &restoring{l: l, b: l.at(p), ctx: ctx, token: strconv.FormatUint(token, 10), name: newID(), open: map[byte]*part{}}
	w.add('m', metaOf(book)...)
	w.flush('m') // the first step says what it is, even if it is small
	for id, digest := range book.Adjusted() {
		w.add('d', id, strconv.FormatUint(digest, 16))
	}
	known := map[digest]bool{}
	for user, all := range book.Users() {
		var packed []byte
		for _, r := range all {
			terms := digest{}
			if len(r.Terms) > 0 {
				terms = digestOf(r.Terms)
			}
			if !known[terms] && len(r.Terms) > 0 {
				known[terms] = true
				w.add('t', string(terms[:]), string(r.Terms))
			}
			if len(r.Claims) > 0 {
				w.add('c', r.Claims...)
			}
			packed = recordOf(r, terms).pack(packed)
		}
		if w.add('u', string(user), string(packed)); w.err != nil {
			break
		}
	}
	for _, kind := range []byte("udtc") {
		w.flush(kind)
	}
	w.await()
	if w.err != nil {
		return w.err
	}
	l.mu.Lock()
	l.attempts[p] = attempt{name: w.name, step: w.step - 1, epoch: a.Epoch}
	l.mu.Unlock()
	return nil
}

func recordOf(r *stock.Reservation, terms digest) *record {
	return &record{
		key: r.Key, number: r.ID.Number, epoch: r.ID.Epoch, state: r.State, at: r.At, expires: r.Expires,
		lines: packLines(r.Lines), rest: packRest(r.Fingerprint, terms, r.Order, r.Late, r.Claims),
	}
}

// metaOf is m without token and epoch.
func metaOf(book *stock.Book) []string {
	a := book.Allocation()
	now := rules{phase: book.Phase(), opens: a.OpensAt, closes: a.ClosesAt, hold: a.Hold, perUser: a.PerUser}
	fields := []string{
		"place", string(packInt(packInt(packInt(nil, 0), 0), int64(book.Last()))), "rules", now.pack(), "landed", "0",
		"buckets", strconv.Itoa(int(max(a.Buckets, 1))), "opened", openedText(book.Digest()),
	}
	limits := book.Items()
	for i, c := range book.Counts().Items {
		out, in := book.Moved(c.SKU)
		it := item{
			sku: c.SKU, index: i, perUser: limits[i].PerUser, perOrder: limits[i].PerOrder, allocated: c.Allocated, free: c.Free,
			held: c.Held, confirmed: c.Confirmed, returned: c.Returned, out: out, in: in,
		}
		fields = append(fields, "i:"+string(c.SKU), string(it.pack(nil)))
	}
	return fields
}

// restoring gathers steps, each of one kind of values, and sends them in order.
type restoring struct {
	l           *Ledger
	b           *bucket
	ctx         context.Context
	token, name string

	open  map[byte]*part
	step  int
	ahead []rueidis.LuaExec
	err   error
}

// part is a step that is being filled.
type part struct {
	values []string
	size   int // bytes
}

// add puts values of a kind into the open step of that kind.
func (w *restoring) add(kind byte, values ...string) {
	p := w.open[kind]
	if p == nil {
		p = &part{}
		w.open[kind] = p
	}
	p.values = append(p.values, values...)
	for _, v := range values {
		p.size += len(v)
	}
	if p.size > stepBytes || len(p.values) > stepValues {
		w.flush(kind)
	}
}

// flush ends the open step of a kind.
func (w *restoring) flush(kind byte) {
	p := w.open[kind]
	if p == nil {
		return
	}
	delete(w.open, kind)
	args := append([]string{w.token, w.name, strconv.Itoa(w.step), string(kind)}, p.values...)
	w.ahead = append(w.ahead, rueidis.LuaExec{Keys: w.b.all, Args: args})
	w.step++
	if len(w.ahead) == stepsAhead || w.step == 1 {
		w.await()
	}
}

// await sends the steps and reads their answers. The first step is sent alone:
// what would follow one that was refused need not be.
func (w *restoring) await() {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil || len(w.ahead) == 0 {
		w.ahead = nil
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, 5*w.l.o.Timeout)
	defer cancel()
	for _, result := range restoreScript.ExecMulti(ctx, w.l.client, w.ahead...) {
		if err := done(result); err != nil && w.err == nil {
			w.err = err
		}
	}
	w.ahead = nil
}
