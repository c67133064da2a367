package redisstock

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/internal/stock"
)

// Bounds of a mirror.
const (
	trustFor   = 200 * time.Millisecond // how long a reading may be refused by
	quietEvery = 40 * time.Millisecond  // between readings while nothing happens; at once otherwise
	seldom     = 250 * time.Millisecond // of an activity that Redis has not got, or that is closed
	readWithin = time.Second            // one reading of one bucket
	stepWithin = 30 * time.Millisecond  // one step waits so long for the slowest bucket
	pageSize   = 1000                   // entries, and users, in one reading of one bucket
)

// MirrorOptions say where a mirror shows what it reads. The functions are
// called from Step, may be nil, and must not block.
type MirrorOptions struct {
	Board *stock.Board
	Log   *slog.Logger
	// Now must be the clock of those who ask the board's faces.
	Now func() time.Time
	// Changed is told of each reservation that has become Held (its entry has
	// landed), or was settled. Changes may be repeated and come out of order.
	Changed func(stock.ID, stock.State)
	// Epoch is told that the changes of a bucket before this moment may have
	// been missed: the mirror begins to follow it, or begins again because it
	// accepts in a new epoch or went on too far. Whoever waits for one of its
	// reservations has to look: what is not found in the new epoch is Refused.
	Epoch func(stock.Place, uint32)
}

// Mirror keeps a board of activities by following the streams of their buckets,
// one in every process of a fleet (DESIGN.md). Step is for one goroutine, the
// rest for any.
//
// A face refuses for want of units only if at one moment, at most trustFor ago,
// every bucket accepted and had none free, nothing was in transit, and all
// holders of that moment are known. A holder of a later moment may be told so
// until the next reading.
type Mirror struct {
	l *Ledger
	o MirrorOptions

	// Of Step alone.
	all      map[stock.ActivityID]*mirrored
	tick     uint64 // counts readings begun and ended: an order of time without a clock
	page     int
	quiet    time.Duration // quietEvery
	careless bool          // tests show by it what goes wrong when counts come before their holders

	mu       sync.Mutex
	wanted   []stock.ActivityID
	standing map[stock.ActivityID]Standing
}

// mirrored is an activity that is followed.
type mirrored struct {
	id      stock.ActivityID
	face    *stock.Face
	posted  bool
	buckets []*follower // the first says how many there are
	due     time.Time
	agreed  *state   // its rules are the last that all buckets had
	final   bool     // closed, and all holders are known: nothing on show can change back
	key     []uint64 // of what is on show
}

// Mirror follows nothing until Follow, and starts no goroutine.
func (l *Ledger) Mirror(o MirrorOptions) *Mirror {
	if o.Changed == nil {
		o.Changed = func(stock.ID, stock.State) {}
	}
	if o.Epoch == nil {
		o.Epoch = func(stock.Place, uint32) {}
	}
	return &Mirror{l: l, o: o, page: pageSize, quiet: quietEvery, all: map[stock.ActivityID]*mirrored{}, standing: map[stock.ActivityID]Standing{}}
}

// Follow says which activities to follow from now on. One that Redis has not
// got yet is looked for; the face of one that is not named any more goes.
func (m *Mirror) Follow(activities []stock.ActivityID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = slices.Clone(activities)
}

// Step reads the news of all buckets at once, each by one round trip of its own
// so that none keeps the others waiting, and shows them. It reads a bounded
// number of entries and users of each; worked says that there are more. What
// goes wrong with one bucket is logged, and is never Step's error: nothing else
// must wait for it.
//
// Run it every 20 ms: the age of what the board shows depends on it.
func (m *Mirror) Step(ctx context.Context) (worked bool, err error) {
	m.adopt()
	now := m.o.Now()
	for _, a := range m.all {
		if now.Before(a.due) {
			continue
		}
		for _, f := range a.buckets {
			if !f.busy {
				m.tick++
				f.begin(ctx, m.l, plan{moment: moment{m.tick, now}, page: m.page})
			}
		}
	}
	timer := time.NewTimer(stepWithin)
	defer timer.Stop()
	patient := true
	for _, a := range m.all {
		news := false
		for _, f := range a.buckets {
			if r, ok := f.await(timer.C, &patient); ok {
				news = m.absorb(a, f, &r) || f.more || news
				worked = worked || f.more
			}
		}
		m.show(a)
		m.pace(a, now, news)
	}
	return worked, ctx.Err()
}

// adopt begins and ends to follow as Follow has said.
func (m *Mirror) adopt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.wanted {
		if m.all[id] == nil {
			m.all[id] = &mirrored{id: id, face: stock.NewFace(id), buckets: []*follower{newFollower(m.l.at(stock.Place{Activity: id}))}}
		}
	}
	for id, a := range m.all {
		if !slices.Contains(m.wanted, id) {
			delete(m.all, id)
			delete(m.standing, id)
			if a.posted {
				m.o.Board.Withdraw(id)
			}
		}
	}
}

// noteFailure logs once that a bucket cannot be followed, and once that it can.
func (m *Mirror) noteFailure(f *follower, r *reading) {
	text := ""
	if r.err != nil {
		text = r.err.Error()
	}
	if text == f.failing {
		return
	}
	f.failing = text
	if text == "" {
		m.o.Log.Info("bucket is followed again", slog.String("log", string(f.place.Log())))
	} else {
		m.o.Log.Warn("bucket cannot be followed", slog.String("log", string(f.place.Log())), slog.Any("error", r.err))
	}
}

// pace says when to read next.
func (m *Mirror) pace(a *mirrored, now time.Time, news bool) {
	first := a.buckets[0]
	switch {
	case now.Before(a.due) || news:
	case a.final || first.missing && !a.posted:
		a.due = now.Add(seldom)
	default:
		a.due = now.Add(m.quiet)
	}
}

// show puts an activity's sums on the board, if every bucket is known.
func (m *Mirror) show(a *mirrored) {
	states := make([]state, 0, len(a.buckets))
	oldest := a.buckets[0]
	for _, f := range a.buckets {
		if f.asOf.tick < oldest.asOf.tick {
			oldest = f
		}
		if f.shown != nil {
			states = append(states, *f.shown)
		} else if !a.final {
			a.face.Extend(0)
		}
	}
	m.stand(a, oldest, len(states) == len(a.buckets))
	if len(states) < len(a.buckets) {
		return
	}
	items := states[0].items
	sure, paid := make([]bool, len(items)), make([]bool, len(items))
	closed, agreed := true, true
	for _, s := range states {
		closed = closed && s.rules.phase == stock.Closed
		agreed = agreed && sameRules(&s, &states[0])
	}
	if agreed {
		a.agreed = &states[0]
	}
	until := stock.MillisOf(oldest.asOf.at.Add(trustFor))
	switch {
	case closed:
		a.final, until = true, maxMillis
	case !agreed: // an adjustment has told some buckets, and not all yet
		until = 0
	}
	for i := range items {
		sure[i], paid[i] = a.spent(states, i, oldest.asOf.tick)
		sure[i] = sure[i] && agreed
	}
	if key := keyOf(a.buckets, sure, paid); !slices.Equal(key, a.key) {
		a.key = key
		counts, rules, limits := a.summary(states)
		for i := range items {
			if c := &counts.Items[i]; c.Level == stock.SoldOut && !paid[i] {
				c.Level = stock.AllHeld
				sure[i] = false // the ledger says which
			}
		}
		a.face.PublishUntil(counts, rules, limits, sure, until)
	} else {
		a.face.Extend(until)
	}
	if !a.posted {
		a.posted = true
		m.o.Board.Put(a.face)
	}
}

const maxMillis = stock.Millis(1<<63 - 1)

// spent says whether there was a moment at which no bucket had a free unit of
// the item and none was in transit, and paid that none was held then either. The
// buckets were read one after another, so sums alone do not say it: each could
// have had its turn to be empty. But what each has been without a break since it
// was last read (its entries tell), up to the oldest reading, all of them were at
// once.
func (a *mirrored) spent(states []state, item int, oldest uint64) (spent, paid bool) {
	sum := total(states, item)
	if sum.free > 0 || sum.out != sum.in {
		return false, false
	}
	spent, paid = true, sum.held == 0
	for _, f := range a.buckets {
		if len(a.buckets) > 1 {
			spent = spent && f.since[item] < oldest
			paid = paid && f.paid[item] < oldest
		}
	}
	return spent, spent && paid
}

// keyOf changes whenever what is to be shown does.
func keyOf(buckets []*follower, verdicts ...[]bool) []uint64 {
	key := make([]uint64, 0, 2*len(buckets)+len(verdicts)*len(verdicts[0]))
	for _, f := range buckets {
		key = append(key, uint64(f.shown.at.Epoch), f.shown.at.Position)
	}
	for _, verdict := range verdicts {
		for _, v := range verdict {
			if v {
				key = append(key, 1)
			} else {
				key = append(key, 0)
			}
		}
	}
	return key
}

func sameRules(a, b *state) bool {
	return a.rules == b.rules && slices.EqualFunc(a.items, b.items, func(x, y item) bool {
		return x.sku == y.sku && x.perUser == y.perUser && x.perOrder == y.perOrder
	})
}

// summary is the activity over all its buckets. The rules on show are those that
// all buckets have: whoever compares them with what they should be finds an
// adjustment that has stopped half way, and makes it again. One who has not seen
// them agree shows those of the last bucket, which Adjust tells last.
func (a *mirrored) summary(states []state) (stock.Counts, stock.Allocation, []stock.Item) {
	from := &states[len(states)-1]
	if a.agreed != nil {
		from = a.agreed
	}
	id, rules := a.id, from.rules
	counts := stock.Counts{Activity: id, Phase: rules.phase}
	if len(states) == 1 {
		counts.Position = states[0].at
	}
	limits := make([]stock.Item, 0, len(states[0].items))
	for i := range states[0].items {
		c := countOf(states, i)
		counts.Items = append(counts.Items, c)
		limits = append(limits, stock.Item{SKU: c.SKU, Units: c.Allocated, PerUser: from.items[i].perUser, PerOrder: from.items[i].perOrder})
	}
	return counts, stock.Allocation{
		Activity: id, OpensAt: rules.opens, ClosesAt: rules.closes, Hold: rules.hold, PerUser: rules.perUser,
		Epoch: states[0].at.Epoch, Buckets: uint16(len(states)),
	}, limits
}

// Standing is how well an activity is known here.
type Standing struct {
	Activity stock.ActivityID
	Buckets  int       // 0: Redis has nothing of it
	Ready    bool      // its face may refuse
	AsOf     time.Time // of the oldest bucket's last complete reading; zero before the first
	Behind   uint64    // entries that are known of and have not been read, over all buckets
	// NotAccepting is how many buckets do not accept, as far as they were read
	// last: they are being opened or rebuilt, and their users are told to come
	// again. 0 for a closed activity, whose buckets are let go.
	NotAccepting int
	final        bool
}

func (m *Mirror) stand(a *mirrored, oldest *follower, known bool) {
	s := Standing{Activity: a.id, Buckets: len(a.buckets), Ready: known, AsOf: oldest.asOf.at, final: a.final}
	for _, f := range a.buckets {
		if f.newest > f.at {
			s.Behind += f.newest - f.at
		}
		if f.accepts == nil && !a.final {
			s.NotAccepting++
		}
	}
	if oldest.missing && !a.posted {
		s.Buckets = 0
	}
	m.mu.Lock()
	m.standing[a.id] = s
	m.mu.Unlock()
}

// Standings are those of all activities that are followed, in no order.
func (m *Mirror) Standings() []Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Standing, 0, len(m.standing))
	for _, s := range m.standing {
		all = append(all, m.judge(s))
	}
	return all
}

// Ready says whether the activity's face may refuse now: all its buckets accept
// and were read a moment ago.
func (m *Mirror) Ready(activity stock.ActivityID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.judge(m.standing[activity]).Ready
}

// judge says it as of now: a mirror that does not get to read does not get to
// say so either.
func (m *Mirror) judge(s Standing) Standing {
	s.Ready = s.final || s.Ready && m.o.Now().Sub(s.AsOf) <= trustFor
	return s
}

// Levels are those on show, in the order of the activity's items; nil before
// anything is known.
func (m *Mirror) Levels(activity stock.ActivityID) []stock.Level {
	face := m.o.Board.Face(activity)
	if face == nil {
		return nil
	}
	counts, _ := face.Counts()
	levels := make([]stock.Level, len(counts.Items))
	for i, c := range counts.Items {
		levels[i] = c.Level
	}
	return levels
}
