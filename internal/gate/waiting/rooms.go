package waiting

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what Rooms and Leader work with.
type Options struct {
	Line     Line
	Presence Presence
	// Activities are those that may have a room, closed ones too until their room
	// was forgotten.
	Activities func() []string
	// Config answers false where there is no room.
	Config func(activity string) (Config, bool)
	// Stock answers false as long as nothing is known; then nobody is called.
	Stock func(activity string) (Stock, bool)

	Now    func() time.Time
	Random io.Reader // nil: crypto/rand
}

func (o *Options) millis() Millis { return Millis(o.Now().UnixMilli()) }

func (o *Options) random(b []byte) error {
	if o.Random == nil {
		_, _ = rand.Read(b) // never fails
		return nil
	}
	_, err := io.ReadFull(o.Random, b)
	return err
}

// Rooms are the waiting rooms as one process at the door sees them: it mirrors
// each (Step), and tells its users their places from the mirror. Safe for concurrent
// use; Step by one goroutine.
type Rooms struct {
	o       Options
	process string
	pace    *Pace
	most    int

	rooms atomic.Pointer[map[string]*mirror] // replaced as a whole, by Step
	rest  map[string]Millis                  // until when Step need not look at a closed activity
}

// mirror is one room.
type mirror struct {
	users *users
	view  atomic.Pointer[view]

	mu    sync.Mutex
	used  map[Millis]int // passes used, by when their holders were called
	total int

	// What follows belongs to Step.
	oracle oracle
	idle   Millis // when nobody was waiting last
	told   Report // the last
	unsent []int  // numbers that the Presence could not be told of
}

// NewRooms makes the rooms of a process. Its name is to be one that no other
// process has or had; known bounds the users of one room who are remembered
// (about 120 bytes each); pace is what the process can serve.
func NewRooms(o Options, process string, known int, pace *Pace) *Rooms {
	r := &Rooms{o: o, process: process, pace: pace, most: known, rest: map[string]Millis{}}
	r.rooms.Store(&map[string]*mirror{})
	return r
}

// seen answers the mirror and what it shows.
func (r *Rooms) seen(activity string) (*mirror, *view) {
	m := (*r.rooms.Load())[activity]
	if m == nil {
		return nil, nil
	}
	return m, m.view.Load()
}

// half is the half of a window that a moment is in, never 0. It is noted twice a
// window who is there, so that a Presence that has lost all knows all again soon.
func (c *Config) half(now Millis) int64 {
	return int64(now / max(1, Millis(c.Absent/time.Millisecond)/2))
}

func (c *Config) window(now Millis) int64 { return c.half(now) / 2 }

// absent answers why an activity has no mirror here.
func (r *Rooms) absent(activity string) error {
	c, ok := r.o.Config(activity)
	if !ok || c.Closed {
		return fmt.Errorf("%q: %w", activity, ErrNoRoom)
	}
	// Past its time, it will be open in a moment.
	return &TooEarly{max(c.queueOpens(), r.o.millis()+1000), c.OpensAt}
}

// Join gives a user a place, or answers the one he has; a lapsed one is given
// up for another. Errors: ErrNoRoom, *TooEarly, ErrFull, those of the Line. A
// room that is over answers so, and gives out nothing.
func (r *Rooms) Join(ctx context.Context, activity, user string) (Place, error) {
	m, v := r.seen(activity)
	if m == nil {
		return Place{}, r.absent(activity)
	}
	now := r.o.millis()
	half := uint32(v.config.half(now))
	number, entry, ok := m.users.get(user, half)
	if v.over() {
		if !ok {
			number = -1
		}
		return Place{State: Over, Number: number, Entry: entry, Joined: v.Joined}, nil
	}
	if now < v.config.queueOpens() { // it has been put off
		return Place{}, &TooEarly{v.config.queueOpens(), v.config.OpensAt}
	}
	instead := -1
	if ok && v.lapsed(number, now) {
		instead, ok = number, false
	}
	for !ok {
		var fresh EntryID
		if err := r.o.random(fresh[:]); err != nil {
			return Place{}, err
		}
		var err error
		if number, entry, err = r.o.Line.Join(ctx, activity, user, fresh, instead, min(v.config.Most, MaxJoined)); err != nil {
			return Place{}, err
		}
		m.users.put(user, number, entry, half)
		// A lapsed one, which was not known here, is given up in turn. A new number
		// is behind the head of this view.
		instead, ok = number, !v.lapsed(number, now)
	}
	return v.tell(number, entry, now), nil
}

// lapsed says that a number is of no use any more.
func (v *view) lapsed(number int, now Millis) bool {
	state, _, _ := v.standing(number, now)
	return state == Lapsed
}

// Place answers how a user stands, who thereby is there. It asks the Line only
// about users who have not been met here, and about those whose number has lapsed:
// they may have another by now, from another process. Errors: ErrNoRoom,
// ErrNotWaiting, those of the Line.
func (r *Rooms) Place(ctx context.Context, activity, user string) (Place, error) {
	m, v := r.seen(activity)
	if m == nil {
		return Place{}, fmt.Errorf("%q: %w", activity, ErrNoRoom)
	}
	now := r.o.millis()
	half := uint32(v.config.half(now))
	number, entry, ok := m.users.get(user, half)
	if !ok || v.lapsed(number, now) {
		var err error
		if number, entry, err = r.o.Line.Find(ctx, activity, user); err != nil {
			return Place{}, err
		}
		m.users.put(user, number, entry, half)
	}
	return v.tell(number, entry, now), nil
}

// Glance answers how a user who has been met here stands. It asks nobody, and does
// not count as being there: it is for refusing those who do not wait.
func (r *Rooms) Glance(activity, user string) (p Place, ok bool) {
	m, v := r.seen(activity)
	if m == nil {
		return p, false
	}
	number, entry, ok := m.users.get(user, 0)
	if !ok {
		return p, false
	}
	return v.tell(number, entry, r.o.millis()), true
}

// Leave forgets that a user was there. He keeps his number, and is passed over when
// its turn comes, unless he has come back.
func (r *Rooms) Leave(activity, user string) {
	if m, _ := r.seen(activity); m != nil {
		m.users.forget(user)
	}
}

// Used counts the pass of a call as used. It is to be told once of each; one of a
// room that is no more counts nothing.
func (r *Rooms) Used(activity, call string) {
	m, v := r.seen(activity)
	_, text, _ := strings.Cut(call, "-")
	number, err := strconv.Atoi(text)
	if m == nil || err != nil || number < 0 || v.call(number) != call {
		return
	}
	at, known := v.Progress.calledAt(v.place(v.places, number))
	if !known {
		at = r.o.millis() // called a moment ago, which has not been seen here
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[at]++
	m.total++
}

// Step takes up what has changed, tells the Presence who is there and reports.
// It is to be called some five times a second. One activity's failure does not hold
// up the others.
func (r *Rooms) Step(ctx context.Context) (worked bool, err error) {
	now := r.o.millis()
	old := *r.rooms.Load()
	next := map[string]*mirror{}
	var errs []error
	for _, activity := range r.o.Activities() {
		c, ok := r.o.Config(activity)
		if !ok || now < c.queueOpens() && old[activity] == nil {
			continue
		}
		if c.Closed && now < r.rest[activity] {
			if m := old[activity]; m != nil {
				next[activity] = m
			}
			continue
		}
		if c.Closed {
			r.rest[activity] = now + Millis(seldom/time.Millisecond)
		}
		room, err := r.o.Line.Room(ctx, activity)
		switch {
		case err == nil:
			next[activity] = r.take(old[activity], room, c, now)
		case errors.Is(err, ErrNoRoom):
		default:
			errs = append(errs, err)
			if m := old[activity]; m != nil {
				next[activity] = m // as it was
			}
		}
	}
	if !maps.Equal(old, next) {
		r.rooms.Store(&next)
	}
	maps.DeleteFunc(r.rest, func(_ string, until Millis) bool { return until <= now })
	open := 0
	for _, m := range next {
		if v := m.view.Load(); v.drawn() && !v.over() && v.Progress.Head < v.Joined {
			open++
		}
	}
	for activity, m := range next {
		errs = append(errs, r.flush(ctx, activity, m, now, open))
	}
	return false, errors.Join(errs...)
}

// drawnAs says whether another view is of the same draw: a record that has lost its
// last second may have lost a draw, and have had another one since.
func (v *view) drawnAs(other *view) bool {
	return other != nil && v.Progress.Drawn == other.Progress.Drawn && bytes.Equal(v.Progress.Digest, other.Progress.Digest)
}

// take makes a mirror show a room as it was read.
func (r *Rooms) take(m *mirror, room Room, c Config, now Millis) *mirror {
	v := &view{Room: room, config: c}
	if m == nil || m.view.Load().Seed != room.Seed { // or another one of the same activity
		m = &mirror{users: newUsers(r.most), used: map[Millis]int{}}
		v.commitment = room.Seed.Commitment()
	} else {
		before := m.view.Load()
		v.commitment, v.places = before.commitment, before.places
		if room.Revision < before.Revision {
			v.Room = before.Room // read from a server that lags behind
		}
		v.Joined = max(room.Joined, before.Joined)
	}
	if v.drawn() && (v.places == nil || !v.drawnAs(m.view.Load())) {
		v.places = Places(v.Seed, [32]byte(v.Progress.Digest), v.Progress.Drawn)
	}
	v.stock, v.told = r.o.Stock(room.Activity)
	if v.drawn() && !v.over() {
		p := &v.Progress
		if p.Head >= v.Joined {
			m.idle = now
		}
		v.pace = speedOf(p, now, m.idle)
		m.oracle.hear(v.pace, now)
		m.oracle.judge(p)
		m.oracle.guess(p, v.Joined-p.Head, v.pace, now)
		v.errors = m.oracle.stated(now)
		v.meanError = time.Duration(m.oracle.all.value * float64(time.Second))
	}
	m.view.Store(v)
	return m
}

// flush tells the Presence who is there and what this process has seen.
func (r *Rooms) flush(ctx context.Context, activity string, m *mirror, now Millis, open int) error {
	v := m.view.Load()
	window := v.config.window(now)
	numbers := append(m.unsent, m.users.take()...)
	for len(numbers) > 0 {
		n := min(len(numbers), maxAsked)
		if err := r.o.Presence.See(ctx, activity, window, numbers[:n]); err != nil {
			slices.Sort(numbers)
			m.unsent = slices.Compact(numbers)
			return err
		}
		numbers = numbers[n:]
	}
	m.unsent = nil
	report := m.report(v, now)
	if open > 0 {
		report.Rate = r.pace.Rate() / float64(open)
	}
	if report.Used == m.told.Used && now < m.told.At+1000 {
		return nil
	}
	if err := r.o.Presence.Report(ctx, activity, r.process, report); err != nil {
		return err
	}
	m.told = report
	return nil
}

// seldom is how often a closed activity is looked at.
const seldom = 5 * time.Second

// maxAsked bounds the numbers that a Presence is asked or told about at once.
const maxAsked = 10_000

// report is what was seen of passes, forgetting those of long ago.
func (m *mirror) report(v *view, now Millis) Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	report := Report{At: now, Used: m.total}
	for at, n := range m.used {
		if at < now-Millis(v.config.Pass/time.Millisecond)-2*Millis(concludeAfter/time.Millisecond) {
			delete(m.used, at)
			continue
		}
		report.Served = append(report.Served, Used{at, n})
	}
	slices.SortFunc(report.Served, func(a, b Used) int { return int(a.At - b.At) })
	return report
}
