package sim

import (
	"encoding/binary"
	"maps"
	"os"
	"slices"
	"time"

	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/stock"
)

// film records a run so that the power can be cut afterwards at every point of
// it. There are two histories: the operations that reached the log's disk, and
// the commits of the store. A cut is a place in each. Which two places go
// together is not a matter of when things happened in this one run, where
// everything takes turns, but of what follows from what: the log may be far
// ahead of a store that lands slowly, and the store far ahead of a log that
// nobody writes to. So each operation carries the commit that it follows from,
// and each commit the operation that it follows from, and every pair between
// them is a machine that could have stopped just there.
//
// The store's history is measured in bytes of SQLite's own log, which grows
// with each commit and is never reset during a film: so a commit that somebody
// makes without telling is a boundary too.
//
// The methods that the run calls do nothing on a nil film.
type film struct {
	w     *world
	base  []byte // the database file, without its log
	floor int64  // the store's place that what happens on the disk now follows from

	moments []moment // after each operation of the disk; the first is the start
	writes  []write  // of the store, by call
	last    bool     // the newest call has written something
	end     outside  // at the end of the film

	asked    []*intent
	heard    map[*intent]when
	durable  []noted[int] // entries that were seen, as they grew
	promises []noted[promise]
	told     []noted[told]
	events   []noted[event]
	deltas   []noted[answered]
}

// when is a place in both histories.
type when struct {
	ops   int   // operations of the log's disk
	store int64 // bytes of the store's log
}

type noted[T any] struct {
	when
	what T
}

type promise struct {
	order stock.OrderID
	state order.State
}

type told struct {
	capture string
	order   stock.OrderID
}

type answered struct {
	id      string
	applied bool
}

// moment is the disk after an operation. Its store is the least one that goes
// with it: what the operation follows from.
type moment struct {
	when
	op      simdisk.Op
	disk    *simdisk.Disk
	elapsed time.Duration
}

// write is a call of the store. Its ops are the least ones that go with it.
type write struct {
	when    // store: the end of what it wrote
	before  outside
	elapsed time.Duration
}

// outside is what the payment provider knows. It forgets nothing.
type outside struct {
	payments map[string]paid
	ids      []string
	captures []captured
	queue    []report
}

// roll begins the film of a world that has come up.
func (w *world) roll() {
	f := &film{w: w, heard: map[*intent]when{}}
	var err error
	if f.base, err = os.ReadFile(w.path); err != nil {
		panic(err)
	}
	f.floor = f.now().store
	f.moments = []moment{{when: f.now(), disk: w.disk.Kill(), elapsed: w.elapsed()}}
	w.film = f
	for _, e := range w.oracle.delivered {
		f.events = append(f.events, noted[event]{f.moments[0].when, e})
	}
	w.disk.Saw(func(op simdisk.Op) {
		f.moments = append(f.moments, moment{when{op.Number, f.floor}, op, w.disk.Kill(), w.elapsed()})
	})
	f.note()
}

// cut ends the film.
func (f *film) cut() {
	f.note()
	f.end = f.outside()
	f.w.disk.Saw(nil)
	f.w.disk.Judge(nil)
	f.w.film = nil
}

func (f *film) now() when {
	size := int64(0)
	if i, err := os.Stat(f.w.path + "-wal"); err == nil {
		size = i.Size()
	}
	return when{len(f.w.disk.Ops()), size}
}

// follows says that what is staged or written from now on may follow from
// everything that the store has committed so far.
func (f *film) follows() {
	if f != nil {
		f.floor = f.now().store
	}
}

// writing is called before each write of the store, its answer afterwards.
func (f *film) writing() func() {
	if f == nil {
		return func() {}
	}
	before, start := f.outside(), f.now()
	return func() {
		end := f.now()
		if f.last = end.store > start.store; f.last {
			f.writes = append(f.writes, write{end, before, f.w.elapsed()})
		}
	}
}

// alone says that the write just made follows from no entry of the log but
// those that earlier writes follow from.
func (f *film) alone() {
	if f == nil || !f.last {
		return
	}
	ops := f.moments[0].ops
	if n := len(f.writes); n > 1 {
		ops = f.writes[n-2].ops
	}
	f.writes[len(f.writes)-1].ops = ops
}

// lateMoney says that changes of this order may rest on what the ledger said.
func lateMoney(o order.Order) bool {
	return o.ReplacedBy != "" || o.LateOf != "" ||
		slices.ContainsFunc(o.Money.Refunds, func(r order.Refund) bool { return r.Reason == "late" })
}

func (f *film) delivered(e event) {
	if f != nil {
		f.events = append(f.events, noted[event]{f.now(), e})
	}
}

// note takes down which replies have been heard. It is called after each
// step of the script: heard is what was heard by its end.
func (f *film) note() {
	w, now := f.w, f.now()
	f.asked = w.shoppers.asked
	for _, in := range f.asked {
		if _, had := f.heard[in]; in.receipt != nil && !had {
			f.heard[in] = now
		}
	}
	f.durable = append(f.durable, noted[int]{now, len(w.oracle.entries)})
	for _, id := range slices.Sorted(maps.Keys(w.oracle.promised)) {
		for _, s := range w.oracle.promised[id] {
			f.promises = once(f.promises, now, promise{id, s})
		}
	}
	for _, c := range slices.Sorted(maps.Keys(w.oracle.told)) {
		f.told = once(f.told, now, told{c, w.oracle.told[c]})
	}
	for _, id := range slices.Sorted(maps.Keys(w.oracle.deltas)) {
		f.deltas = once(f.deltas, now, answered{id, w.oracle.deltas[id]})
	}
}

func once[T comparable](all []noted[T], now when, what T) []noted[T] {
	if slices.ContainsFunc(all, func(n noted[T]) bool { return n.what == what }) {
		return all
	}
	return append(all, noted[T]{now, what})
}

func (f *film) outside() outside {
	p := f.w.provider
	o := outside{payments: map[string]paid{}, ids: slices.Clone(p.ids), queue: slices.Clone(p.queue)}
	for id, x := range p.payments {
		o.payments[id] = *x
	}
	for _, c := range p.captures {
		o.captures = append(o.captures, *c)
	}
	return o
}

func (o outside) provider(w *world) *provider {
	p := newProvider(w)
	p.ids, p.queue = slices.Clone(o.ids), slices.Clone(o.queue)
	for id, x := range o.payments {
		p.payments[id] = &x
	}
	for _, c := range o.captures {
		p.captures = append(p.captures, &c)
	}
	return p
}

// boundary is the store as one commit left it.
type boundary struct {
	when
	number  int
	outside outside
	elapsed time.Duration
	file    []byte // the whole database
	mark    stock.Cursor
	rows    []order.Order
}

// boundaries reads the commits out of the store's log: the last page of each
// carries the size of the database. Nothing is taken from what the code says.
func (f *film) boundaries(log []byte) []*boundary {
	start := f.moments[0]
	all := []*boundary{{when: when{start.ops, start.store}, elapsed: start.elapsed}}
	const head, frame = 32, 24
	if len(log) > head {
		size := int64(binary.BigEndian.Uint32(log[8:]))
		for at := int64(head); at+frame+size <= int64(len(log)); at += frame + size {
			end := at + frame + size
			if string(log[at+8:at+16]) != string(log[16:24]) || binary.BigEndian.Uint32(log[at+4:]) == 0 || end <= start.store {
				continue
			}
			all = append(all, &boundary{when: when{store: end}, number: len(all)})
		}
	}
	for i, b := range all {
		// The call that made it; then what happened outside until the next one.
		if i > 0 {
			call := f.call(b)
			b.ops, b.elapsed = call.ops, call.elapsed
		}
		if b.outside = f.end; i+1 < len(all) {
			b.outside = f.call(all[i+1]).before
		}
	}
	return all
}

// call is what made a commit.
func (f *film) call(b *boundary) write {
	i := slices.IndexFunc(f.writes, func(w write) bool { return w.store >= b.store })
	if i < 0 {
		panic("sim: the store was written to without the tap")
	}
	return f.writes[i]
}

// goes says whether the power can fail with the disk at m and the store at b.
func (m *moment) goes(b *boundary) bool { return m.store <= b.store && b.ops <= m.ops }

// by says whether it has happened by then. (A reply about an order rests on
// the store alone; then only store is compared.)
func (x when) by(m *moment, b *boundary) bool { return x.ops <= m.ops && x.store <= b.store }

// entriesBy is how many entries anybody had seen: a promise of the log,
// whatever the store.
func (f *film) entriesBy(m *moment) (n int) {
	for _, d := range f.durable {
		if d.ops <= m.ops {
			n = max(n, d.what)
		}
	}
	return n
}

// receiptsBy are the acceptances that had been heard.
func (f *film) receiptsBy(m *moment) (all []*intent) {
	for _, in := range f.asked {
		if at, ok := f.heard[in]; ok && at.ops <= m.ops {
			all = append(all, in)
		}
	}
	return all
}

// restore is the world as it stood, on a disk and a database that the power
// cut left: what everybody outside remembers, and nothing of the process.
func (f *film) restore(w *world, m *moment, b *boundary, entries [][]byte) {
	w.oracle, w.shoppers, w.ops = newOracle(w), newShoppers(w), newOperators(w)
	w.provider = b.outside.provider(w)
	w.skipped, w.snapshotAt = max(m.elapsed, b.elapsed), f.w.snapshotAt
	w.ops.activities = f.w.ops.activities
	w.oracle.mayCut = true // by the process that is gone
	for i, p := range entries[:f.entriesBy(m)] {
		e, err := new(stock.Decoder).Entry(slices.Clone(p))
		if err != nil {
			w.violate("entry %d: %v", i+1, err)
		}
		e.Cursor.Position = uint64(i) + 1
		w.oracle.take(e)
	}
	for _, in := range f.asked {
		c := *in
		if at, ok := f.heard[in]; !ok || at.ops > m.ops {
			c.receipt = nil
		}
		w.shoppers.asked = append(w.shoppers.asked, &c)
	}
	for _, p := range f.promises {
		if p.store <= b.store {
			w.oracle.promise(p.what.order, p.what.state)
		}
	}
	for _, t := range f.told {
		if t.store <= b.store {
			w.oracle.acknowledged(payment.Status{PaymentID: string(t.what.order) + "-1", Captures: []payment.Capture{{ID: t.what.capture}}})
		}
	}
	for _, d := range f.deltas {
		if d.by(m, b) {
			w.oracle.deltas[d.what.id] = d.what.applied
		}
	}
	for _, e := range f.events {
		if e.by(m, b) {
			w.oracle.delivered[e.what.Message.ID] = e.what
			w.oracle.lastOf[e.what.Message.Key] = max(w.oracle.lastOf[e.what.Message.Key], e.what.Message.ID)
		}
	}
}
