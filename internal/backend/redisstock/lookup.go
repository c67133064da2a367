package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// Lookup implements stock.Ledger. By ID it needs the user too; an id of an
// earlier epoch that the bucket does not have was lost before it landed, and is
// a Receipt of which only ID, User and State (Refused) are set.
func (l *Ledger) Lookup(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	if ref.User == "" {
		return stock.Receipt{}, stock.ErrNoSuchReservation
	}
	ref.User = stock.UserID(strings.Clone(string(ref.User)))
	switch {
	case ref.ID != (stock.ID{}):
		return l.byID(ctx, ref)
	case ref.Activity != "" && (ref.Key != "" || ref.Order != ""):
		act, err := l.meet(ctx, ref.Activity)
		if errors.Is(err, stock.ErrNoSuchActivity) {
			return stock.Receipt{}, stock.ErrNoSuchReservation
		}
		if err != nil {
			return stock.Receipt{}, err
		}
		return l.find(ctx, act.of(ref.User), ref.User, func(rec *record) bool { return named(ref, rec) })
	case ref.Activity == "" && ref.Order != "":
		return l.byOrder(ctx, ref)
	}
	return stock.Receipt{}, stock.ErrNoSuchReservation
}

// named says whether a record has the key or the order of a ref.
func named(ref stock.Ref, rec *record) bool {
	return ref.Key != "" && rec.key == ref.Key || ref.Order != "" && rec.order() == ref.Order
}

func (l *Ledger) byID(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	b, err := l.bucketOf(ctx, ref.ID, ref.User)
	if err != nil {
		return stock.Receipt{}, err
	}
	e, err := l.accepts(ctx, b)
	if err != nil {
		return stock.Receipt{}, err
	}
	receipt, err := l.find(ctx, b, ref.User, func(rec *record) bool { return rec.epoch == ref.ID.Epoch && rec.number == ref.ID.Number })
	if errors.Is(err, stock.ErrNoSuchReservation) && ref.ID.Epoch < e.number {
		ref.ID.Activity = b.place.Activity
		return stock.Receipt{Reservation: stock.Reservation{ID: ref.ID, User: ref.User, State: stock.Refused}, Replayed: true}, nil
	}
	return receipt, err
}

// byOrder asks the user's bucket of every activity that this ledger has met.
func (l *Ledger) byOrder(ctx context.Context, ref stock.Ref) (stock.Receipt, error) {
	l.mu.RLock()
	buckets := make([]*bucket, 0, len(l.activities))
	for id, act := range l.activities {
		if l.o.Knows != nil && !l.o.Knows(id) {
			continue // over and let go: its orders are rows
		}
		buckets = append(buckets, act.of(ref.User))
	}
	l.mu.RUnlock()
	answers, err := l.runAll(ctx, buckets, lookup, func(b *bucket, e *epoch) ([]string, []string) {
		return []string{b.m, b.u}, []string{string(ref.User), e.seenText()}
	})
	if err != nil {
		return stock.Receipt{}, err
	}
	none := error(stock.ErrNoSuchReservation)
	for i, a := range answers {
		err := a.err
		if err == nil {
			var got found
			if got, err = l.pick(ctx, buckets[i], a.epoch, ref.User, a.reply, func(rec *record) bool { return named(ref, rec) }); err == nil {
				return got.Receipt, nil
			}
		}
		if !errors.Is(err, stock.ErrNoSuchReservation) {
			none = err // it may be where nobody can look now
		}
	}
	return stock.Receipt{}, none
}

// find reads the user's records in a bucket and answers the one that is wanted.
func (l *Ledger) find(ctx context.Context, b *bucket, user stock.UserID, wanted func(*record) bool) (stock.Receipt, error) {
	e, err := l.accepts(ctx, b)
	if err != nil {
		return stock.Receipt{}, err
	}
	_, reply, _, err := l.run(ctx, b, e, lookup, []string{b.m, b.u}, []string{string(user), e.seenText()})
	if err != nil {
		return stock.Receipt{}, asRead(err)
	}
	got, err := l.pick(ctx, b, e, user, reply, wanted)
	return got.Receipt, err
}

// pick makes a receipt again of one of the records in a reply that holds them,
// and how far the bucket has landed.
func (l *Ledger) pick(ctx context.Context, b *bucket, e *epoch, user stock.UserID, reply []rueidis.RedisMessage, wanted func(*record) bool) (found, error) {
	if len(reply) < 2 || reply[0].IsNil() {
		return found{}, stock.ErrNoSuchReservation
	}
	packed, err1 := reply[0].ToString()
	landed, err2 := reply[1].ToInt64()
	if err := errors.Join(err1, err2); err != nil {
		return found{}, fmt.Errorf("%w: %w", stock.ErrNotReady, err)
	}
	for u := (unpacker{p: packed}); u.p != ""; {
		rec := u.record()
		if u.failed {
			return found{}, fmt.Errorf("%w: records of bucket %d of %s do not decode", stock.ErrNotReady, b.place.Bucket, b.place.Activity)
		}
		if !wanted(&rec) {
			continue
		}
		r, terms, err := rec.reservation(b.place, user)
		if err != nil {
			return found{}, fmt.Errorf("%w: %w", stock.ErrNotReady, err)
		}
		texts, err := l.wording(ctx, b, terms)
		if err != nil {
			return found{}, err
		}
		r.Terms = texts[0]
		if r.State == stock.Held && rec.epoch == e.number && rec.sequence > uint64(landed) {
			r.State = stock.Pending
		}
		e.landed.note(uint64(landed))
		if rec.epoch == e.number {
			e.note(rec.sequence)
		}
		return found{stock.Receipt{Reservation: r, Replayed: true}, e, rec.sequence}, nil
	}
	return found{}, stock.ErrNoSuchReservation
}

// answer is what one of several buckets said.
type answer struct {
	epoch *epoch
	tag   string
	reply []rueidis.RedisMessage
	err   error
}

// runAll calls a script that only reads in several buckets at once, as one of
// the calls under way.
func (l *Ledger) runAll(ctx context.Context, buckets []*bucket, s script, with func(*bucket, *epoch) (keys, args []string)) ([]answer, error) {
	answers := make([]answer, len(buckets))
	var commands rueidis.Commands
	var where []int
	for i, b := range buckets {
		e, err := l.accepts(ctx, b)
		if answers[i] = (answer{epoch: e, err: err}); err != nil {
			continue
		}
		keys, args := with(b, e)
		commands = append(commands, l.client.B().Evalsha().Sha1(e.sha[s]).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
		where = append(where, i)
	}
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	for n, result := range l.client.DoMulti(ctx, commands...) {
		a := &answers[where[n]]
		a.tag, a.reply, _, a.err = buckets[where[n]].read(a.epoch, result)
		if a.err != nil {
			a.err = asRead(a.err)
		}
	}
	return answers, nil
}
