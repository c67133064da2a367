package redisstock

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"sluice/internal/stock"
)

// script numbers the scripts that decide and are therefore of one bucket and
// epoch.
type script int

const (
	reserve script = iota
	settle
	adjust
	lookup
	readState
	scripts
)

//go:embed lua/head.lua
var head string

var (
	//go:embed lua/reserve.lua
	reserveText string
	//go:embed lua/settle.lua
	settleText string
	//go:embed lua/adjust.lua
	adjustText string
	//go:embed lua/lookup.lua
	lookupText string
	//go:embed lua/state.lua
	stateText string
)

// activity is an activity with its buckets, whose number never changes.
type activity struct {
	id      stock.ActivityID
	buckets []*bucket

	mu      sync.Mutex
	running bool
	next    *round
}

func (a *activity) of(user stock.UserID) *bucket {
	return a.buckets[stock.BucketOf(user, uint16(len(a.buckets)))]
}

// bucket is a bucket's names and what is known of it.
type bucket struct {
	place            stock.Place
	tag              string
	m, u, s, c, t, d string
	reserves, all    []string // the keys that reserve.lua and those that restore.lua take
	now              atomic.Pointer[epoch]
	mu               sync.Mutex
	last             *epoch // the one that was forgotten last
}

// epoch is a bucket while it accepts in one epoch.
type epoch struct {
	number uint32
	sha    [scripts]string
	seen   atomic.Uint64 // newest entry that an answer has told of
	landed landing
	has    known // terms that t has
}

func newBucket(p stock.Place) *bucket {
	b := &bucket{place: p, tag: "{" + escape(string(p.Activity)) + ":" + strconv.Itoa(int(p.Bucket)) + "}"}
	prefix := "sluice:" + b.tag
	b.m, b.u, b.s, b.c, b.t, b.d = prefix+"m", prefix+"u", prefix+"s", prefix+"c", prefix+"t", prefix+"d"
	b.reserves = []string{b.m, b.u, b.s, b.c, b.t}
	b.all = append(b.reserves[:5:5], b.d)
	return b
}

// escape leaves nothing that would mean something in a hash tag or in Lua.
func escape(id string) string {
	p := make([]byte, 0, len(id))
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			p = append(p, c)
		default:
			p = fmt.Appendf(p, "%%%02X", c)
		}
	}
	return string(p)
}

// text is a script as the bucket has it in an epoch.
func (b *bucket) text(s script, number uint32) string {
	body := [scripts]string{reserve: reserveText, settle: settleText, adjust: adjustText, lookup: lookupText, readState: stateText}[s]
	return fmt.Sprintf("local EPOCH, TAG = '%d', '%s'\n%s%s", number, b.tag, head, body)
}

func (b *bucket) newEpoch(number uint32) *epoch {
	e := &epoch{number: number}
	for s := range scripts {
		sum := sha1.Sum([]byte(b.text(s, number)))
		e.sha[s] = hex.EncodeToString(sum[:])
	}
	return e
}

// epoch answers what is known of an epoch, or begins with nothing.
func (b *bucket) epoch(number uint32) *epoch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.now.Load(); e != nil && e.number == number {
		return e
	}
	if b.last == nil || b.last.number != number {
		b.last = b.newEpoch(number)
	}
	return b.last
}

// forget lets the next call ask whether the bucket accepts. What was seen in
// the epoch stays known: an engine that comes back without it gives itself away.
func (b *bucket) forget(e *epoch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.CompareAndSwap(e, nil) {
		b.last = e
	}
}

// note keeps the newest entry seen.
func (e *epoch) note(sequence uint64) {
	for {
		had := e.seen.Load()
		if had >= sequence || e.seen.CompareAndSwap(had, sequence) {
			return
		}
	}
}

func (e *epoch) seenText() string { return strconv.FormatUint(e.seen.Load(), 10) }

// at answers the bucket of a place.
func (l *Ledger) at(p stock.Place) *bucket {
	l.mu.RLock()
	b := l.buckets[p]
	l.mu.RUnlock()
	if b != nil {
		return b
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b = l.buckets[p]; b == nil {
		b = newBucket(p)
		l.buckets[p] = b
	}
	return b
}

// meet answers an activity. Its first bucket says how many there are.
func (l *Ledger) meet(ctx context.Context, id stock.ActivityID) (*activity, error) {
	l.mu.RLock()
	a := l.activities[id]
	l.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	if len(id) == 0 || len(id) > stock.MaxID {
		return nil, stock.ErrNoSuchActivity
	}
	id = stock.ActivityID([]byte(id)) // the caller's may be a view of a buffer
	n, err := l.ask(ctx, newBucket(stock.Place{Activity: id}), "buckets")
	switch {
	case err != nil:
		return nil, err
	case n == missing && l.o.Knows != nil && !l.o.Knows(id):
		return nil, stock.ErrNoSuchActivity
	case n == missing || n == 0 || n > stock.MaxBuckets:
		return nil, fmt.Errorf("%w: redis has no bucket of %s", stock.ErrNotReady, id)
	}
	fresh := &activity{id: id}
	for i := range uint16(n) {
		fresh.buckets = append(fresh.buckets, l.at(stock.Place{Activity: id, Bucket: i}))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.activities[id]; a != nil {
		return a, nil
	}
	l.activities[id] = fresh
	return fresh, nil
}

// accepts answers the epoch in which the bucket accepts, or ErrNotReady.
func (l *Ledger) accepts(ctx context.Context, b *bucket) (*epoch, error) {
	if e := b.now.Load(); e != nil {
		return e, nil
	}
	n, err := l.ask(ctx, b, "epoch")
	if err != nil {
		return nil, err
	}
	if n == missing || n == 0 {
		return nil, fmt.Errorf("%w: bucket %d of %s does not accept", stock.ErrNotReady, b.place.Bucket, b.place.Activity)
	}
	e := b.epoch(uint32(n))
	b.now.Store(e)
	return e, nil
}

// missing is what ask answers when Redis has nothing of the bucket.
const missing = -1

// ask reads a number from m; 0 when m has not got it. Those who ask at the same
// time share an answer. It may have been asked for before one of them came, so
// that what it lacks may be there by now: then the next answer counts.
func (l *Ledger) ask(ctx context.Context, b *bucket, field string) (n int64, err error) {
	if err := l.enter(ctx); err != nil {
		return 0, err
	}
	defer l.leave()
	for range 2 {
		var shared bool
		if n, shared, err = l.askTogether(ctx, b, field); err == nil && n > 0 || !shared {
			break
		}
	}
	return n, err
}

func (l *Ledger) askTogether(ctx context.Context, b *bucket, field string) (n int64, shared bool, err error) {
	answer := l.meeting.DoChan(b.m+field, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.o.Timeout)
		defer cancel()
		values, err := l.client.Do(ctx, l.client.B().Hmget().Key(b.m).Field("token", field).Build()).ToArray()
		if err != nil {
			return int64(0), asRead(fault(err))
		}
		if values[0].IsNil() {
			return int64(missing), nil
		}
		n, err := values[1].AsInt64()
		if err != nil {
			n = 0
		}
		return n, nil
	})
	select {
	case r := <-answer:
		return r.Val.(int64), r.Shared, r.Err
	case <-ctx.Done():
		return 0, false, fmt.Errorf("%w: %w", stock.ErrNotReady, ctx.Err())
	}
}
