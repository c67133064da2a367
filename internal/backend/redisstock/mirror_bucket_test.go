package redisstock

import (
	"log/slog"
	"testing"

	"sluice/internal/stock"
)

// Buckets are read one after another. That each was found empty is not enough:
// they must have been empty at one moment.
func TestSpent(t *testing.T) {
	type found struct {
		item
		since, paid, read uint64 // ticks
	}
	f := func(name string, want, wantPaid bool, all ...found) {
		t.Helper()
		a, oldest := &mirrored{}, all[0].read
		var states []state
		for _, b := range all {
			a.buckets = append(a.buckets, &follower{since: []uint64{b.since}, paid: []uint64{b.paid}})
			states = append(states, state{items: []item{b.item}})
			oldest = min(oldest, b.read)
		}
		if got, paid := a.spent(states, 0, oldest); got != want || paid != wantPaid {
			t.Errorf("%s: %v, paid %v", name, got, paid)
		}
	}
	f("one bucket, just emptied", true, false, found{item{held: 1}, 2, never, 1})
	f("one bucket, just paid", true, true, found{item{confirmed: 1}, 2, 2, 1})
	f("one bucket with a free unit", false, false, found{item{free: 1}, 2, 2, 1})
	f("two, empty since before both were read", true, true, found{item{}, 4, 4, 5}, found{item{}, 3, 3, 6})
	f("two, one with a free unit", false, false, found{item{}, 4, 4, 5}, found{item{free: 1}, 3, 3, 6})
	f("two, one with a unit held", true, false, found{item{}, 4, 4, 5}, found{item{held: 1}, 3, never, 6})
	f("two, one emptied when the other had been read already", false, false, found{item{}, 4, 4, 5}, found{item{}, 8, 8, 6})
	f("two, one paid when the other had been read already", true, false, found{item{}, 4, 4, 5}, found{item{}, 3, 8, 6})
	f("two, in transit", false, false, found{item{out: 2, in: 1}, 1, 1, 5}, found{item{out: 3, in: 2}, 1, 1, 6})
	f("two, moved and arrived", true, true, found{item{out: 2, in: 1}, 1, 1, 5}, found{item{out: 3, in: 4}, 1, 1, 6})
	// A's credit and B's debit cancel in the sums, but one of them is new.
	f("two, moved between their readings", false, false, found{item{in: 1}, 7, 7, 5}, found{item{out: 1}, 1, 1, 6})
}

// Between two readings an item had a free unit for a moment: it has not been
// empty without a break.
func TestFollowerNoticesWhatComesBetween(t *testing.T) {
	f := newFollower(newBucket(stock.Place{Activity: "a"}))
	empty := item{sku: "s", held: 1}
	at := func(position uint64, it item) *state {
		return &state{at: stock.Cursor{Position: position}, items: []item{it}}
	}
	check := func(name string, want uint64) {
		t.Helper()
		if f.since[0] != want {
			t.Errorf("%s: since %d, want %d", name, f.since[0], want)
		}
	}
	f.take(at(1, empty), moment{tick: 1}, 2)
	check("first", 2)
	f.take(at(1, empty), moment{tick: 3}, 4)
	check("nothing new", 2)
	f.touch([]item{{sku: "other", free: 1}})
	f.take(at(2, empty), moment{tick: 5}, 6)
	check("another item", 2)
	f.touch([]item{{sku: "s", free: 1}})
	f.touch([]item{empty})
	f.take(at(4, empty), moment{tick: 7}, 8)
	check("free for a moment", 8)
	f.take(at(4, empty), moment{tick: 9}, 10)
	check("nothing new again", 8)
	if f.paid[0] != never {
		t.Errorf("paid since %d, and one is held", f.paid[0])
	}
	empty.held = 0
	f.take(at(5, empty), moment{tick: 11}, 12)
	check("the last was paid", 8)
	f.take(at(5, empty), moment{tick: 13}, 14)
	if f.paid[0] != 12 {
		t.Errorf("paid since %d, want 12", f.paid[0])
	}
	moved := empty
	moved.in = 1
	f.take(at(6, moved), moment{tick: 15}, 16)
	check("a unit came", 16)
	if f.paid[0] != 16 {
		t.Errorf("paid since %d, want 16", f.paid[0])
	}
	if news := f.take(at(6, moved), moment{tick: 17}, 18); news || f.asOf.tick != 17 {
		t.Errorf("news %v, as of %d", news, f.asOf.tick)
	}
}

// A bucket that has stopped accepting is not on show, and its entries are read on
// when it is met again in the same epoch: they have nothing to be compared with,
// and everything is new once it is shown again.
func TestEntriesOfABucketThatIsNotShown(t *testing.T) {
	m := &Mirror{l: &Ledger{buckets: map[stock.Place]*bucket{}}, o: MirrorOptions{
		Log: slog.New(slog.DiscardHandler), Epoch: func(stock.Place, uint32) {}, Changed: func(stock.ID, stock.State) {}}}
	a := &mirrored{id: "a", face: stock.NewFace("a"), buckets: []*follower{newFollower(newBucket(stock.Place{Activity: "a"}))}}
	f := a.buckets[0]
	read := func(accepts bool, position uint64, entries ...change) {
		t.Helper()
		m.tick++
		r := reading{plan: plan{moment: moment{tick: m.tick}, number: f.number, after: f.at, scanned: f.scanned, page: 10}, buckets: 1,
			follows: f.number == 1, entries: entries,
			state: state{at: stock.Cursor{Epoch: 1, Position: position}, items: []item{{sku: "s", confirmed: 1}}}}
		if accepts {
			r.plan.epoch = f.bucket.epoch(1)
		} else {
			r.err = stock.ErrNotReady
		}
		m.absorb(a, f, &r)
	}
	paid := func(sequence uint64) change {
		return change{Entry: stock.Entry{Sequence: sequence, Kind: stock.EntrySettled, Settlement: &stock.Settlement{Outcome: stock.Confirmed}},
			after: []item{{sku: "s", confirmed: 1}}}
	}
	for range 3 { // met, all users, a later state
		read(true, 0)
	}
	if f.shown == nil {
		t.Fatal("not shown")
	}
	since := f.since[0]
	read(false, 0)
	if f.shown != nil {
		t.Error("shown, and it does not accept")
	}
	read(true, 2, paid(1), paid(2))
	if f.shown == nil || f.at != 2 || f.since[0] <= since {
		t.Errorf("shown %v at %d, since %d, before %d", f.shown != nil, f.at, f.since[0], since)
	}
}

// The last page of users may be one of a bucket that was emptied right after its
// state was read. So no state counts but one that was read later, in the same epoch.
func TestUsersCountOnceALaterStateWasRead(t *testing.T) {
	p := stock.Place{Activity: "a"}
	m := &Mirror{l: &Ledger{buckets: map[stock.Place]*bucket{}}, o: MirrorOptions{Epoch: func(stock.Place, uint32) {}}}
	a := &mirrored{id: "a", face: stock.NewFace("a"), buckets: []*follower{newFollower(newBucket(p))}}
	f := a.buckets[0]
	read := func(epoch uint32, follows bool, users ...string) {
		t.Helper()
		m.tick++
		r := reading{plan: plan{moment: moment{tick: m.tick}, epoch: f.bucket.epoch(epoch), number: f.number, after: f.at, scanned: f.scanned, page: 10},
			state: state{items: []item{{sku: "s", held: 1}}}, buckets: 1, follows: follows, users: users}
		m.absorb(a, f, &r)
	}
	check := func(name string, shown bool) {
		t.Helper()
		if (f.shown != nil) != shown {
			t.Errorf("%s: shown %v", name, f.shown != nil)
		}
	}
	read(1, false)
	check("first met", false)
	read(1, true, "ann")
	check("with the last page", false)
	if !a.face.Holds("ann") {
		t.Error("ann is not known")
	}
	read(1, true)
	check("after the last page", true)
	read(2, false)
	check("another epoch", false)
	read(2, true)
	check("with its last page", false)
	read(2, true)
	check("after its last page", true)
}

// The rules on show are those that all buckets have, whichever was told first.
func TestSummaryShowsRulesThatAllBucketsHave(t *testing.T) {
	with := func(phase stock.Phase, perOrder int) state {
		return state{rules: rules{phase: phase}, items: []item{{sku: "s", perOrder: perOrder, allocated: 4, free: 3, held: 1}}}
	}
	live, paused := with(stock.Live, 1), with(stock.Paused, 2)
	f := func(agreed *state, want stock.Phase, perOrder int, states ...state) {
		t.Helper()
		a := mirrored{id: "a", agreed: agreed}
		counts, _, items := a.summary(states)
		if counts.Phase != want || items[0].PerOrder != perOrder || counts.Items[0].Free != 6 {
			t.Errorf("%+v, %+v", counts, items)
		}
	}
	f(&live, stock.Live, 1, paused, live)
	f(&live, stock.Live, 1, live, paused)
	f(nil, stock.Live, 1, paused, live) // the last bucket is told last
}

// However far landing is behind, what is remembered until then is bounded, and
// every reservation is told once, in order and never too early.
func TestMarksAreBounded(t *testing.T) {
	const n = 5*maxMarks + 17
	last := uint64(0)
	m := &Mirror{o: MirrorOptions{Changed: func(id stock.ID, state stock.State) {
		if id.Number != last+1 || id.Epoch != 7 || id.Bucket != 3 || state != stock.Held {
			t.Fatalf("%s %s after number %d", id, state, last)
		}
		last = id.Number
	}}}
	f := newFollower(newBucket(stock.Place{Activity: "a", Bucket: 3}))
	f.number = 7
	for i := uint64(1); i <= n; i++ {
		f.mark(3*i, i) // two other entries between two reservations
		if len(f.marks) > maxMarks {
			t.Fatalf("%d marks", len(f.marks))
		}
	}
	for landed := uint64(0); landed <= 3*n; landed += 1000 {
		m.tell(f, landed)
		if last > landed/3 {
			t.Fatalf("number %d was told to be held, and only entry %d has landed", last, landed)
		}
	}
	for m.tell(f, 3*n); f.more; f.more = false {
		m.tell(f, 3*n)
	}
	if last != n || len(f.marks) != 0 {
		t.Errorf("told up to %d of %d, %d marks left", last, n, len(f.marks))
	}
}
