package waiting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Leader is what one process of a shop does for all its waiting rooms: it opens
// them, draws, and calls people. Two at once do no harm, since each change is
// conditional on the one before: the slower one's is refused. It keeps
// nothing that it cannot do without. Not safe for concurrent use.
type Leader struct {
	o     Options
	keep  time.Duration
	log   *slog.Logger
	rooms map[string]*lead
}

// lead is what is remembered of a room between steps.
type lead struct {
	order   []uint32 // number by place, of those drawn
	seed    Seed     // of the room that order is of,
	digest  []byte   // and of its entries
	feed    feed
	fresh   fresh
	since   Millis // since when the Presence has heard of all who are there; see marked
	checked Millis // when that was looked at last
	ripe    [2]int // numbers given out some seconds ago, and lately
	ripeAt  Millis
	uses    uses // as of the step before; nil: there was none
	counted Step // as far as the feed knows
	saved   Millis
	rest    Millis // until then, there is nothing to do
	closed  Millis // when it was first seen to be
	dropped bool
}

// NewLeader makes a leader. A closed activity's room is forgotten after keep, 0
// is a day.
func NewLeader(o Options, keep time.Duration, log *slog.Logger) *Leader {
	if keep <= 0 {
		keep = 24 * time.Hour
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Leader{o: o, keep: keep, log: log, rooms: map[string]*lead{}}
}

// forgetter is a Presence that does not forget by itself.
type forgetter interface{ Forget(activity string) }

const (
	// passedFor bounds the absent who are passed over for each one who may be called,
	// beside passedFree of each step; so many cost as much of the pace as one who is
	// called. If all seem to be absent, it may be the door that is: they will come
	// back, and those passed over all at once.
	passedFor, passedFree = 10, 20
	// ripening is how long whoever has joined counts as there at least: until
	// his process has told the Presence.
	ripening = 2 * time.Second
	// saveEvery is how often what a room is measured by is saved while its head
	// does not move.
	saveEvery = time.Second
	// mark is the process under which leaders note since when the Presence is whole.
	mark = "the leader"
)

// Step does what there is to do in each room. It is to be called some five times
// a second. One activity's failure does not hold up the others.
func (l *Leader) Step(ctx context.Context) (worked bool, err error) {
	now := l.o.millis()
	listed := map[string]bool{}
	var errs []error
	for _, activity := range l.o.Activities() {
		c, ok := l.o.Config(activity)
		if !ok || now < c.queueOpens() {
			continue
		}
		listed[activity] = true
		r := l.rooms[activity]
		if r == nil {
			r = &lead{fresh: fresh{}, counted: Step{Head: -1}}
			l.rooms[activity] = r
		}
		if now < r.rest {
			continue
		}
		if err := l.look(ctx, r, activity, c, now); err != nil && !errors.Is(err, ErrMoved) {
			errs = append(errs, fmt.Errorf("waiting room of %q: %w", activity, err))
		}
	}
	for activity := range l.rooms {
		if !listed[activity] {
			delete(l.rooms, activity)
		}
	}
	return false, errors.Join(errs...)
}

// look does what there is to do in one room.
func (l *Leader) look(ctx context.Context, r *lead, activity string, c Config, now Millis) error {
	if !c.Closed {
		r.closed, r.dropped = 0, false
	} else {
		r.rest = now + Millis(seldom/time.Millisecond)
		if r.closed == 0 {
			r.closed = now
		}
		if r.dropped {
			return nil
		}
	}
	room, err := l.o.Line.Room(ctx, activity)
	if errors.Is(err, ErrNoRoom) {
		if c.Closed || c.Ended {
			return nil
		}
		return l.open(ctx, activity, now)
	}
	if err != nil {
		return err
	}
	if c.Closed && now >= r.closed+Millis(l.keep/time.Millisecond) {
		if err = l.o.Line.Drop(ctx, activity); err == nil {
			r.dropped = true
			if p, ok := l.o.Presence.(forgetter); ok {
				p.Forget(activity)
			}
			l.log.Info("waiting room forgotten", "activity", activity)
		}
		return err
	}
	if room.Progress.DrawnAt == 0 && now >= c.OpensAt && !c.Ended && !c.Closed {
		return l.draw(ctx, room, now)
	}
	return l.lead(ctx, r, room, c, now)
}

func (l *Leader) open(ctx context.Context, activity string, now Millis) error {
	var seed Seed
	if err := l.o.random(seed[:]); err != nil {
		return err
	}
	room, err := l.o.Line.Open(ctx, activity, seed, now)
	if err == nil {
		l.log.Info("waiting room opened", "activity", activity, "commitment", fmt.Sprintf("%x", room.Seed.Commitment()))
	}
	return err
}

// draw fixes who was in the draw, from which everybody's place follows.
func (l *Leader) draw(ctx context.Context, room Room, now Millis) error {
	var entries []EntryID
	for len(entries) < room.Joined {
		page, err := l.o.Line.Entries(ctx, room.Activity, len(entries), min(maxAsked, room.Joined-len(entries)))
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return fmt.Errorf("only %d entries of %d are there", len(entries), room.Joined)
		}
		entries = append(entries, page...)
	}
	digest := Digest(entries)
	next := room.Progress
	next.DrawnAt, next.Drawn, next.Digest = now, len(entries), digest[:]
	next.Steps = []Step{{At: now}}
	_, err := l.o.Line.Advance(ctx, room.Activity, room.Revision, next)
	if err == nil {
		l.log.Info("places drawn", "activity", room.Activity, "entries", len(entries), "digest", fmt.Sprintf("%x", digest))
	}
	return err
}

// lead moves the head as far as it may, and saves what has changed.
func (l *Leader) lead(ctx context.Context, r *lead, room Room, c Config, now Millis) error {
	was, p := room.Progress, &room.Progress
	r.ripen(room.Joined, now)
	stock, told := l.o.Stock(room.Activity)
	p.Over = c.Ended || c.Closed || told && stock.SoldOut
	if !p.Over {
		reports, err := l.o.Presence.Reports(ctx, room.Activity)
		if err == nil {
			err = l.marked(ctx, r, room.Activity, reports, now)
		}
		if err == nil && p.DrawnAt > 0 {
			err = l.advance(ctx, r, &room, c, reports, now)
		}
		if err != nil {
			return err
		}
	}
	moved := p.Head != was.Head || p.Over != was.Over
	news := p.Outstanding != was.Outstanding || p.Concluded != was.Concluded || math.Abs(p.Rate-was.Rate) > 0.02*was.Rate
	if !moved && (!news || now < r.saved+Millis(saveEvery/time.Millisecond)) {
		return nil
	}
	r.saved = now
	_, err := l.o.Line.Advance(ctx, room.Activity, room.Revision, *p)
	return err
}

// advance works out a room's next progress.
func (l *Leader) advance(ctx context.Context, r *lead, room *Room, c Config, reports map[string]Report, now Millis) error {
	p := &room.Progress
	p.Rate = c.Rate
	if p.Rate <= 0 {
		p.Rate = r.fresh.rate(reports, now)
	}
	// Of the units that passes were used for it is heard by another way than of the
	// uses. The uses are believed a step later, so that it comes first.
	used := r.uses.byStep(p.Steps)
	if r.uses != nil {
		p.conclude(used, c.Pass, now)
	}
	r.uses = usesOf(reports)
	p.Outstanding = p.outstanding(used, c.Pass, now)
	people := r.feed.fill(p.Rate, now)
	if r.counted.Head >= 0 { // by whichever leader
		called := p.Called - r.counted.Called
		people = r.feed.take(called, p.Head-r.counted.Head-called)
	}
	r.counted = Step{Head: p.Head, Called: p.Called}
	stock, told := l.o.Stock(room.Activity)
	last := p.Steps[len(p.Steps)-1].At
	if !told || c.Paused || len(p.Steps) > 1 && now < last+Millis(between/time.Millisecond) {
		return nil
	}
	head, called, err := l.call(ctx, r, room, c, min(people, stock.Free-p.Outstanding), now)
	if err == nil && head > p.Head {
		p.move(head, called, c.Pass, now)
		p.Outstanding += called
	}
	return err
}

// marked finds out since when the Presence has heard of all who are there. One
// that has lost everything has lost the leaders' mark too.
func (l *Leader) marked(ctx context.Context, r *lead, activity string, reports map[string]Report, now Millis) error {
	have, there := reports[mark]
	if there && have.At <= now {
		r.since = have.At
	} else {
		r.since = now
	}
	if there && now < r.checked+60_000 {
		return nil
	}
	r.checked = now
	return l.o.Presence.Report(ctx, activity, mark, Report{At: r.since}) // again, so that it is kept
}

// ripen remembers how many had joined some seconds ago.
func (r *lead) ripen(joined int, now Millis) {
	if now >= r.ripeAt+Millis(ripening/time.Millisecond) {
		r.ripe, r.ripeAt = [2]int{r.ripe[1], joined}, now
	}
}

// call answers where the head gets by calling so many people who are there, and
// how many they are; the absent on the way are passed over.
func (l *Leader) call(ctx context.Context, r *lead, room *Room, c Config, people int, now Millis) (head, called int, err error) {
	head = room.Progress.Head
	if people <= 0 {
		return head, 0, nil
	}
	r.arrange(room)
	everybody := now < r.since+Millis(c.Absent/time.Millisecond)
	for end := min(room.Joined, head+passedFree+(1+passedFor)*people); head < end && called < people; {
		n := min(end-head, maxAsked, max(64, 2*(people-called)))
		numbers := make([]int, n)
		for i := range numbers {
			numbers[i] = r.number(head + i)
		}
		there, err := l.o.Presence.Seen(ctx, room.Activity, c.window(now), numbers)
		if err != nil {
			return head, called, err
		}
		for i := 0; i < n && called < people; i++ {
			head++
			if everybody || there[i] || numbers[i] >= r.ripe[0] {
				called++
			}
		}
	}
	return head, called, nil
}

// arrange makes the order of places, once for a draw.
func (r *lead) arrange(room *Room) {
	p := &room.Progress
	if r.order != nil && r.seed == room.Seed && bytes.Equal(r.digest, p.Digest) {
		return
	}
	r.seed, r.digest, r.order = room.Seed, bytes.Clone(p.Digest), make([]uint32, p.Drawn)
	for number, place := range Places(room.Seed, [32]byte(p.Digest), p.Drawn) {
		r.order[place] = uint32(number)
	}
}

// number is who has a place.
func (r *lead) number(place int) int {
	if place < len(r.order) {
		return int(r.order[place])
	}
	return place
}
