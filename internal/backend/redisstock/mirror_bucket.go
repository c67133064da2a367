package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// Bounds of the news of one bucket.
const (
	maxMarks = 4096    // entries remembered until they have landed; see mark
	maxHeld  = 1 << 14 // reservations told to be held in one step
)

// follower is what a mirror knows of one bucket. Only Step touches it; a reading
// works on the plan it is given.
//
// It begins with the position up to which the bucket has landed, reads all users
// that the bucket has, page by page, and at the same time the stream from that
// position on. Nothing of it depends on the order in which Redis runs the
// commands of a round trip: entries are facts, a state counts once the entries
// up to its position have been read, and the users once a state was read after
// the last page, since no epoch comes back.
type follower struct {
	*bucket
	answer  chan reading // of the reading under way
	busy    bool
	late    bool   // it was waited for in vain
	failing string // logged
	more    bool   // there is more to read at once

	accepts *epoch // in which it accepted when last asked; nil: not known to accept
	missing bool   // Redis has nothing of it

	// In the epoch with this number, 0 before the first:
	number  uint32
	at      uint64 // newest entry read
	newest  uint64 // newest entry known to be there
	cursor  uint64 // of the users' pages
	scanned bool   // there are no more,
	end     uint64 // as was learnt at this tick
	marks   []mark
	counted bool   // a reservation was read, so these are set:
	told    uint64 // newest reservation told to be held
	held    uint64 // newest reservation that is

	// What it was at a moment at which all holders are known; nil while it is
	// not known to accept, or not all of them are known.
	shown   *state
	asOf    moment   // the reading of it began
	since   []uint64 // tick from which on each item of it has had no free unit and no move,
	paid    []uint64 // and none held either; never while any is
	touched []bool   // by entries since
}

type moment struct {
	tick uint64
	at   time.Time
}

// mark says which reservation an entry made. Numbers rise with entries, so
// between two marks others can be left out: then their news come with the next.
type mark struct{ sequence, number uint64 }

func newFollower(b *bucket) *follower {
	return &follower{bucket: b, answer: make(chan reading, 1)}
}

// plan is what a reading is to read.
type plan struct {
	moment
	page    int
	epoch   *epoch // nil: ask first
	number  uint32 // the stream is followed in this epoch,
	after   uint64 // after this entry,
	newest  uint64 // of which more are known to be there, up to this one
	cursor  uint64
	scanned bool
}

// reading is what came of it.
type reading struct {
	plan
	missing bool
	state   state
	landed  uint64
	buckets int
	follows bool // in the plan's epoch, so entries and users are set
	entries []change
	gap     bool // an entry is missing: the stream was trimmed
	users   []string
	next    uint64 // cursor of the next page of users
	err     error
}

// begin starts a reading in a goroutine of its own, which ends by itself.
func (f *follower) begin(ctx context.Context, l *Ledger, p plan) {
	p.epoch, p.number, p.after, p.newest, p.cursor, p.scanned = f.accepts, f.number, f.at, f.newest, f.cursor, f.scanned
	f.busy, f.late = true, false
	go func() {
		ctx, cancel := context.WithTimeout(ctx, readWithin)
		defer cancel()
		f.answer <- l.follow(ctx, f.bucket, p)
	}()
}

// await answers the reading, if it comes while there is patience.
func (f *follower) await(timeout <-chan time.Time, patient *bool) (r reading, ok bool) {
	if !f.busy {
		return r, false
	}
	if *patient && !f.late {
		select {
		case r = <-f.answer:
			f.busy = false
			return r, true
		case <-timeout:
			*patient = false
		}
	}
	select {
	case r = <-f.answer:
		f.busy = false
	default:
		f.late = true
	}
	return r, !f.busy
}

// follow is one reading: whether the bucket accepts and its state, the entries
// since, and a page of users.
func (l *Ledger) follow(ctx context.Context, b *bucket, p plan) (r reading) {
	r.plan = p
	if r.epoch == nil {
		if r.epoch, r.missing, r.err = l.accepting(ctx, b); r.epoch == nil {
			return r
		}
	}
	r.follows = r.epoch.number == p.number
	commands := rueidis.Commands{l.client.B().Evalsha().Sha1(r.epoch.sha[readState]).Numkeys(1).Key(b.m).Arg(r.epoch.seenText()).Build()}
	if r.follows {
		commands = append(commands, l.client.B().Xrange().Key(b.s).Start("("+entryID(p.number, p.after)).End("+").Count(int64(p.page)).Build())
		if !p.scanned {
			commands = append(commands, l.client.B().Hscan().Key(b.u).Cursor(p.cursor).Count(int64(p.page)).Build())
		}
	}
	results := l.client.DoMulti(ctx, commands...)
	if r.readState(b, results[0]); r.err != nil || !r.follows {
		return r
	}
	if r.readEntries(b, results[1]); r.err != nil || p.scanned {
		return r
	}
	page, err := results[2].AsScanEntry()
	if err != nil {
		r.err = asRead(fault(err))
		return r
	}
	r.next = page.Cursor
	for i := 0; i+1 < len(page.Elements); i += 2 { // user, records
		r.users = append(r.users, page.Elements[i])
	}
	return r
}

// accepting asks for the epoch in which the bucket accepts.
func (l *Ledger) accepting(ctx context.Context, b *bucket) (e *epoch, missing bool, err error) {
	values, err := l.client.Do(ctx, l.client.B().Hmget().Key(b.m).Field("token", "epoch").Build()).ToArray()
	if err != nil {
		return nil, false, asRead(fault(err))
	}
	if values[0].IsNil() {
		return nil, true, nil
	}
	n, err := values[1].AsUint64()
	if err != nil || n == 0 {
		return nil, false, stock.ErrNotReady
	}
	return b.epoch(uint32(n)), false, nil
}

func (r *reading) readState(b *bucket, result rueidis.RedisResult) {
	tag, reply, _, err := b.read(r.epoch, result)
	if err != nil {
		if errors.Is(err, stock.ErrNotReady) {
			r.epoch = nil // ask again
		}
		r.err = asRead(err)
		return
	}
	if tag != "STATE" || len(reply) != 1 {
		r.err = fmt.Errorf("%w: redis answered %q", stock.ErrNotReady, tag)
		return
	}
	fields, err := reply[0].AsStrMap()
	if err == nil {
		r.state, err = decodeState(b.place, r.epoch.number, fields)
	}
	if err == nil {
		r.landed, err = strconv.ParseUint(fields["landed"], 10, 64)
	}
	if err == nil {
		r.buckets, err = strconv.Atoi(fields["buckets"])
	}
	if err == nil && (r.buckets < 1 || r.buckets > stock.MaxBuckets) {
		err = fmt.Errorf("%d buckets", r.buckets)
	}
	if err != nil {
		r.err = fmt.Errorf("%w: state of %s: %w", stock.ErrNotReady, b.place.Log(), err)
	}
}

func (r *reading) readEntries(b *bucket, result rueidis.RedisResult) {
	found, err := result.AsXRange()
	if err != nil {
		r.err = asRead(fault(err))
		return
	}
	after := r.after
	for _, entry := range found {
		c, err := decode(b.place, entry.ID, entry.FieldValues)
		if err != nil {
			r.err = err
			return
		}
		if c.Cursor.Epoch != r.number {
			break // of a newer one: the next reading finds out
		}
		if r.gap = c.Sequence != after+1; r.gap {
			return
		}
		after = c.Sequence
		r.entries = append(r.entries, c)
	}
	r.gap = after == r.after && r.newest > after
}

// absorb takes a reading in; news says that something has changed.
func (m *Mirror) absorb(a *mirrored, f *follower, r *reading) (news bool) {
	m.tick++
	f.accepts, f.missing, f.more = r.epoch, r.missing, false
	m.noteFailure(f, r)
	switch {
	case r.epoch == nil:
		f.shown = nil
		return false
	case r.err != nil: // not known: what is on show grows old
		return false
	}
	m.spread(a, r.buckets)
	if !r.follows || r.gap {
		f.restart(r)
		m.o.Epoch(f.place, f.number)
		return true
	}
	m.read(a, f, r)
	if f.scanned && r.tick > f.end && (f.at >= r.state.at.Position || m.careless) {
		news = f.take(&r.state, r.moment, m.tick) || news
	}
	f.more = f.more || !f.scanned || f.shown == nil || len(r.entries) >= r.page
	return m.tell(f, r.landed) || news || len(r.entries) > 0
}

// spread follows the other buckets once the first has said how many there are.
func (m *Mirror) spread(a *mirrored, buckets int) {
	for n := len(a.buckets); n < buckets; n++ {
		a.buckets = append(a.buckets, newFollower(m.l.at(stock.Place{Activity: a.id, Bucket: uint16(n)})))
	}
}

// restart begins anew, where the bucket has landed: the stream reaches back
// that far. Holders stay: those that an engine has lost only cost a look at it.
func (f *follower) restart(r *reading) {
	f.number, f.at, f.newest = r.epoch.number, r.landed, r.state.at.Position
	f.cursor, f.scanned, f.end = 0, false, 0
	f.marks, f.counted, f.told, f.held = nil, false, 0, 0
	f.shown, f.more = nil, true
}

// read makes holders known, and notes what the entries have changed.
func (m *Mirror) read(a *mirrored, f *follower, r *reading) {
	for i := range r.entries {
		c := &r.entries[i]
		switch c.Kind {
		case stock.EntryReserved:
			a.face.Holder(c.user)
			f.mark(c.Sequence, c.Reservation.ID.Number)
		case stock.EntrySettled:
			m.o.Changed(c.Settlement.ID, c.Settlement.Outcome)
		}
		f.at = c.Sequence
		f.touch(c.after)
	}
	f.newest = max(f.at, r.state.at.Position)
	r.epoch.note(f.at)
	if r.scanned {
		return
	}
	for _, user := range r.users {
		a.face.Holder(stock.UserID(user))
	}
	f.cursor = r.next
	if r.next == 0 {
		f.scanned, f.end = true, m.tick
	}
}

// touch notes items that had free units, or were moved, in between.
func (f *follower) touch(after []item) {
	if f.shown == nil {
		return // all of it is new when it is shown again
	}
	for i := range f.touched {
		had := &f.shown.items[i]
		for _, it := range after {
			if it.sku == had.sku && !still(had, &it) {
				f.touched[i] = true
			}
		}
	}
}

func still(had, it *item) bool { return it.free == 0 && it.out == had.out && it.in == had.in }

const never = 1<<64 - 1

// take makes a state the one on show; tick is now. While none is free, units that
// are held can only be confirmed.
func (f *follower) take(s *state, asOf moment, tick uint64) (news bool) {
	first := f.shown == nil || len(f.shown.items) != len(s.items)
	if first {
		f.since, f.paid, f.touched = make([]uint64, len(s.items)), make([]uint64, len(s.items)), make([]bool, len(s.items))
	}
	for i := range s.items {
		again := first || f.touched[i] || !still(&f.shown.items[i], &s.items[i])
		if again {
			f.since[i] = tick
		}
		switch {
		case s.items[i].held > 0:
			f.paid[i] = never
		case again, f.paid[i] == never:
			f.paid[i] = tick
		}
		f.touched[i] = false
	}
	news = first || f.shown.at != s.at
	f.shown, f.asOf = s, asOf
	return news
}

func (f *follower) mark(sequence, number uint64) {
	if !f.counted {
		f.counted, f.told, f.held = true, number-1, number-1
	}
	f.marks = append(f.marks, mark{sequence, number})
	if len(f.marks) < maxMarks {
		return
	}
	kept := f.marks[:0]
	for i := 1; i < len(f.marks); i += 2 {
		kept = append(kept, f.marks[i])
	}
	f.marks = kept
}

// tell tells of reservations that have become held: the bucket has landed up to
// an entry.
func (m *Mirror) tell(f *follower, landed uint64) (news bool) {
	gone := 0
	for gone < len(f.marks) && f.marks[gone].sequence <= landed {
		f.held = f.marks[gone].number
		gone++
	}
	f.marks = append(f.marks[:0], f.marks[gone:]...)
	upTo := min(f.held, f.told+maxHeld)
	for ; f.told < upTo; f.told++ {
		news = true
		m.o.Changed(stock.ID{Activity: f.place.Activity, Bucket: f.place.Bucket, Epoch: f.number, Number: f.told + 1}, stock.Held)
	}
	f.more = f.more || f.told < f.held
	return news
}
