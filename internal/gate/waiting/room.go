package waiting

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Config is a room as operators want it. It may change at any time.
type Config struct {
	OpensAt Millis        // of the sale: when the order is drawn and calling begins
	Opens   time.Duration // how long before that people may come in, ≥ 0
	Pass    time.Duration // how long a call is valid, 10 s to 1 h
	Absent  time.Duration // who has not been heard of for so long is passed over, 10 s to 10 min
	Most    int           // numbers given out, 1..MaxJoined
	Rate    float64       // people called in a second; 0: as many as can be served
	Paused  bool          // nobody is called for now
	Ended   bool          // nobody is called any more
	Closed  bool          // the activity is over for good; its room may be forgotten after a while
}

// queueOpens is when the first may come in.
func (c *Config) queueOpens() Millis { return c.OpensAt - Millis(c.Opens/time.Millisecond) }

// Stock is how many units there are to wait for.
type Stock struct {
	Free    int  // to be had at once
	Held    int  // by people who have not paid; some of these come back
	SoldOut bool // none will be free again
}

// State is how somebody stands.
type State string

// States of a place.
const (
	Registered State = "registered" // joined before the draw
	Waiting    State = "waiting"
	Called     State = "called"
	Lapsed     State = "lapsed" // called, and did not come in time
	Over       State = "over"   // sold out, or ended
)

// Place is how somebody stands at a moment.
type Place struct {
	State  State
	Number int // -1 where the state is Over and the user has none
	Entry  EntryID
	Joined int // people in the room, until now

	DrawAt     Millis   // of Registered
	Commitment [32]byte // of Registered

	Position int           // of Waiting: 1 is next
	ETA      time.Duration // of Waiting: until the call; -1: nobody can say
	ETAError time.Duration // by which such estimates have been off lately
	Unlikely bool          // more units are likely to be taken before than there are

	Until     Millis        // of Called: the pass is valid until then
	Call      string        // of Called: what the pass is known by, A-Z, a-z, 0-9 and -; see call
	PollAfter time.Duration // ask again, 0: no need to
}

// TooEarly is the refusal of who wants to join before the room opens.
type TooEarly struct {
	QueueOpensAt Millis
	OpensAt      Millis
}

// ErrTooEarly: the room is not open yet.
var ErrTooEarly = errors.New("the waiting room is not open yet")

func (e *TooEarly) Error() string {
	return fmt.Sprintf("%v: it opens at %d", ErrTooEarly, e.QueueOpensAt)
}

func (e *TooEarly) Unwrap() error { return ErrTooEarly }

// place answers the place of a number.
func (r *Room) place(places []uint32, number int) int {
	if number < len(places) {
		return int(places[number])
	}
	return number
}

// calledAt answers when a place was called; known is false for one that was
// called so long ago that the room has forgotten when. The place is below the head.
func (p *Progress) calledAt(place int) (at Millis, known bool) {
	i, _ := slices.BinarySearchFunc(p.Steps, place+1, func(s Step, head int) int { return s.Head - head })
	if i == 0 || i == len(p.Steps) {
		return 0, false
	}
	return p.Steps[i].At, true
}

// view is a room as a process has seen it last. It does not change.
type view struct {
	Room
	config     Config
	commitment [32]byte
	places     []uint32 // of the numbers drawn
	stock      Stock
	told       bool // of the stock
	pace       speed
	errors     statedErrors
	meanError  time.Duration
}

func (v *view) drawn() bool { return v.Progress.DrawnAt > 0 }

func (v *view) over() bool { return v.Progress.Over || v.config.Ended || v.config.Closed }

// standing is how a number stands.
func (v *view) standing(number int, now Millis) (state State, place int, until Millis) {
	switch {
	case v.over():
		return Over, 0, 0
	case !v.drawn():
		return Registered, 0, 0
	}
	place = v.place(v.places, number)
	if place >= v.Progress.Head {
		return Waiting, place, 0
	}
	at, known := v.Progress.calledAt(place)
	until = at + Millis(v.config.Pass/time.Millisecond)
	if !known || now >= until {
		return Lapsed, place, 0
	}
	return Called, place, until
}

// tell answers all that the user of a number is told.
func (v *view) tell(number int, entry EntryID, now Millis) Place {
	state, place, until := v.standing(number, now)
	p := Place{State: state, Number: number, Entry: entry, Joined: max(v.Joined, number+1)}
	often := v.config.Absent / 3
	// People who came together should not ask together: 0..1023, by number.
	spread := time.Duration(uint32(number) * 2654435761 >> 22)
	switch state {
	case Registered:
		p.DrawAt, p.Commitment = v.config.OpensAt, v.commitment
		p.PollAfter = often - often*spread/4096
		if left := time.Duration(max(0, v.config.OpensAt-now)) * time.Millisecond; left < often {
			p.PollAfter = left + 500*time.Millisecond + 2*spread*time.Millisecond // the draw has been made
		}
	case Waiting:
		p.Position = place - v.Progress.Head + 1
		p.ETA = v.pace.until(p.Position)
		p.ETAError = v.errors.of(p.ETA)
		p.Unlikely = v.unlikely(place)
		p.PollAfter = often
		if p.ETA >= 0 {
			p.PollAfter = min(often, max(time.Second, p.ETA/4))
		}
		p.PollAfter -= p.PollAfter * spread / 4096
	case Called:
		p.Until, p.PollAfter = until, often-often*spread/4096
		p.Call = v.call(number)
	}
	return p
}

// call is what the pass of a number is known by, however often it is asked for. The
// room is in it: when a Line has lost one, the next one of the activity gives the
// same numbers to other people, and the ledger remembers the passes used before.
func (v *view) call(number int) string {
	return hex.EncodeToString(v.commitment[:4]) + "-" + strconv.Itoa(number)
}

// unlikely says that by the share of people who took a unit when they were
// called, all that can be left are taken before this place. Before anybody had the
// time to, everybody is expected to.
func (v *view) unlikely(place int) bool {
	const prior = 20
	p := &v.Progress
	share := float64(p.Taken+prior) / float64(p.Concluded+prior)
	before := place - p.Head + p.Outstanding
	return v.told && share*float64(before) >= float64(v.stock.Free+v.stock.Held)
}
