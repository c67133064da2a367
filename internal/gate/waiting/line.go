// Package waiting is the waiting room: people come in before a sale opens, are
// put in a drawn order at the opening, and are called as fast as the shop can serve
// them and as long as there are units for them. It owns the draw (draw.go), what
// the processes at the door show (rooms.go), what one process does for all of them
// (leader.go, head.go), the measured pace (pace.go) and what people are told of
// when their turn is (room.go, eta.go).
//
// Invariants: a number is given once, and has one place, which follows from what is
// published of the draw; the head only rises, and with it each place comes nearer;
// nobody learns the seed before the draw; never more people have a pass that
// they can use than units were free when they were called, but for those who were
// passed over and came back. DESIGN.md says what that rests on.
//
// It refuses to know users' identities, HTTP and the ledger: a place is a number, a
// pass is signed elsewhere, and stock is what a callback says.
package waiting

import (
	"context"
	"errors"
)

// Millis is a moment: Unix time in milliseconds.
type Millis int64

// Seed is what a draw comes from: 32 random bytes, made before anybody can join
// and told to nobody before the draw.
type Seed [32]byte

// EntryID is a place's public name, random, known to whoever has the place.
type EntryID [16]byte

// Room is a waiting room as it is recorded.
type Room struct {
	Activity string
	Seed     Seed
	OpenedAt Millis
	Joined   int   // numbers given out, 0..Joined-1
	Revision int64 // rises by one with each Advance
	Progress Progress
}

// Progress is all of a room that changes by Advance.
type Progress struct {
	DrawnAt Millis `json:"drawn_at,omitempty"` // 0: not yet
	Drawn   int    `json:"drawn"`              // numbers below this were drawn; those from it on keep their order
	Digest  []byte `json:"digest,omitempty"`   // SHA-256 of their entry ids, in the order of their numbers
	Head    int    `json:"head"`               // places called so far, those of the absent too
	Called  int    `json:"called"`             // of these, people who were there
	Steps   []Step `json:"steps,omitempty"`    // when the head came where, the latest MaxSteps, oldest first
	Over    bool   `json:"over,omitempty"`     // nothing is left to wait for

	Rate        float64 `json:"rate,omitempty"`        // people a second who are to be called, as far as there are units
	Outstanding int     `json:"outstanding,omitempty"` // people called who have neither used their pass nor let it run out
	Concluded   int     `json:"concluded,omitempty"`   // places below this were called so long ago that no pass of theirs is valid
	Taken       int     `json:"taken,omitempty"`       // of the concluded, how many used their pass
}

// Step is one move of the head. The first of a room is where it stood at the draw.
type Step struct {
	Head   int    `json:"head"`
	Called int    `json:"called"` // Progress.Called then
	At     Millis `json:"at"`
}

// Bounds of a room.
const (
	MaxSteps  = 256
	MaxJoined = 2_000_000 // numbers of one room
)

var (
	// ErrNoRoom: this activity has no waiting room.
	ErrNoRoom = errors.New("no waiting room")
	// ErrNotWaiting: this user has no number in this room.
	ErrNotWaiting = errors.New("not in the waiting room")
	// ErrFull: the room has given out all the numbers it may.
	ErrFull = errors.New("the waiting room is full")
	// ErrMoved: the room has advanced since it was read.
	ErrMoved = errors.New("the waiting room has moved on")
)

// Line is the durable record of waiting rooms. What a call has answered survives
// the process, and a server's restart as far as that server promises. It is safe
// for concurrent use by many processes. Each call is atomic.
type Line interface {
	// Open makes a room with this seed, unless the activity has one, and answers
	// the one it has.
	Open(ctx context.Context, activity string, seed Seed, at Millis) (Room, error)
	// Room answers one, or ErrNoRoom.
	Room(ctx context.Context, activity string) (Room, error)
	// Join gives a user the next number under this entry id, or answers the one
	// the user has already, unless that is `instead` (-1: none), which the caller
	// knows to be of no use any more. Errors: ErrNoRoom; ErrFull when `most` numbers
	// have been given out.
	Join(ctx context.Context, activity, user string, entry EntryID, instead, most int) (number int, given EntryID, err error)
	// Find answers the number a user has, or ErrNotWaiting, also where there is no room.
	Find(ctx context.Context, activity, user string) (number int, entry EntryID, err error)
	// Advance replaces the progress of a room that has still this revision, else ErrMoved.
	// It answers the room as it is afterwards. Errors: also ErrNoRoom.
	Advance(ctx context.Context, activity string, revision int64, next Progress) (Room, error)
	// Entries answers the entry ids of the numbers from, from+1, …, at most limit
	// (1..10,000); fewer when there are fewer, none where there is no room. What
	// number an entry id has never changes.
	Entries(ctx context.Context, activity string, from, limit int) ([]EntryID, error)
	// Drop forgets a room and all in it, after which the activity may get a new
	// one. It may be called again, also when an earlier call was cut short.
	Drop(ctx context.Context, activity string) error
}

// Presence is who has been there lately, and what the processes at the door have
// measured. It is of passing interest: losing it loses nobody a place. It is safe
// for concurrent use by many processes.
type Presence interface {
	// See notes that these numbers (0..MaxJoined-1) were there in a window of time;
	// windows are counted by the caller, and rise. Those of windows before the last
	// one may be forgotten. It is called with up to 10,000 numbers.
	See(ctx context.Context, activity string, window int64, numbers []int) error
	// Seen answers, for each of up to 10,000 numbers, whether it was there in this
	// window or the one before.
	Seen(ctx context.Context, activity string, window int64, numbers []int) ([]bool, error)
	// Report replaces what a process has reported about a room. It is kept for an
	// hour at least.
	Report(ctx context.Context, activity, process string, r Report) error
	// Reports answers all that were reported, by process.
	Reports(ctx context.Context, activity string) (map[string]Report, error)
}

// Report is what one process at the door knows.
type Report struct {
	At     Millis  `json:"at"`
	Used   int     `json:"used"` // passes used, since the process began
	Rate   float64 `json:"rate"` // people a second whom it can serve
	Served []Used  `json:"served,omitempty"`
}

// Used is how many of those who were called at a moment, that of a Step, have
// used their pass.
type Used struct {
	At Millis `json:"at"`
	N  int    `json:"n"`
}
