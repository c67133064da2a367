// Package stock decides who holds what. It owns the ledger: units of a SKU
// allocated to an activity, and the reservations that hold them.
//
// Its heart is Book, a pure state machine: time, ids and the quote arrive in
// the request, and the same requests give the same entries anywhere. Ledger is
// the contract of a durable book, Log the contract of its record, Board the
// lock-free view from which a refusal is answered.
//
// Invariants, at every log position and for every SKU:
// free + held + confirmed = allocated, each ≥ 0; a user's held + confirmed
// never exceed the limit in force at acceptance; a reservation ends once.
//
// It refuses to know prices, orders, payments, SQL or HTTP: the quote of a
// reservation passes through it as opaque bytes.
package stock

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Identifiers. All are opaque to this package and 1..64 bytes long.
type (
	ActivityID string
	SKU        string
	UserID     string
	OrderID    string
)

// Millis is a time in UTC milliseconds since 1970.
type Millis int64

// MillisOf cuts t to milliseconds.
func MillisOf(t time.Time) Millis { return Millis(t.UnixMilli()) }

// Time is m as a UTC time; the zero Millis is the zero Time.
func (m Millis) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// ID names a reservation: the bucket that decided it, the epoch of that
// bucket's authority, and its number there (1, 2, …). An id of an epoch that
// was lost with its engine can thus be recognised.
type ID struct {
	Activity ActivityID
	Bucket   uint16
	Epoch    uint32
	Number   uint64
}

// String is "activity.bucket.epoch.number"; ParseID reverses it.
func (id ID) String() string {
	b := make([]byte, 0, len(id.Activity)+24)
	b = append(b, id.Activity...)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(id.Bucket), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(id.Epoch), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, id.Number, 10)
	return string(b)
}

// ParseID reads the form that String writes, and no other.
func ParseID(s string) (ID, error) {
	bad := func() (ID, error) { return ID{}, fmt.Errorf("%w: %q", ErrNoSuchReservation, s) }
	if len(s) > 128 {
		return ID{}, ErrNoSuchReservation
	}
	var nums [3]uint64
	for i, bits := range []int{64, 32, 16} {
		dot := strings.LastIndexByte(s, '.')
		if dot < 0 {
			return bad()
		}
		n, err := strconv.ParseUint(s[dot+1:], 10, bits)
		if err != nil || (len(s[dot+1:]) > 1 && s[dot+1] == '0') {
			return bad()
		}
		nums[i], s = n, s[:dot]
	}
	if s == "" || nums[0] == 0 {
		return bad()
	}
	return ID{ActivityID(s), uint16(nums[2]), uint32(nums[1]), nums[0]}, nil
}

// Fingerprint is a digest of the terms a shopper asked for (lines, team,
// coupons; never tickets or captchas): the same key must come with the same one.
type Fingerprint [16]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Line asks for Quantity ≥ 1 units of one SKU.
type Line struct {
	SKU      SKU `json:"sku"`
	Quantity int `json:"quantity"`
}

// State of a reservation: pending → held / refused; held → confirmed /
// released / expired, once; confirmed → returned at most once.
type State uint8

// The states. Pending and Refused occur only on ledgers whose acceptance is
// not durable by itself (Redis); a local book starts at Held.
const (
	Pending State = iota + 1
	Held
	Confirmed
	Released
	Expired
	Returned
	Refused
)

var stateNames = [...]string{"", "pending", "held", "confirmed", "released", "expired", "returned", "refused"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Version orders the states a reservation can pass through: a later state has
// a greater version, on every node. It is the event id of its event stream.
func (s State) Version() int {
	switch s {
	case Pending:
		return 0
	case Held:
		return 1
	case Returned:
		return 3
	default:
		return 2
	}
}

// Ended says whether the reservation no longer holds units for payment.
func (s State) Ended() bool { return s != Pending && s != Held }

// Outcome is what Settle asks for.
type Outcome = State

// Request asks to hold units for one user; all lines or none.
type Request struct {
	Activity    ActivityID
	User        UserID
	Key         string // Idempotency-Key, 1..64 bytes
	Fingerprint Fingerprint
	Order       OrderID  // the id the order will have if this is accepted
	Lines       []Line   // 1..MaxLines, distinct SKUs
	Claims      []string // 0..MaxClaims single-use passes and tickets, consumed with the reserve
	Terms       []byte   // the quote and policies (pricing.Terms as JSON), ≤ MaxTerms bytes, opaque here
	Late        string   // payment id, when money arrived after cancellation: window and pause do not apply, closed does
	At          Millis
}

// Bounds of a request.
const (
	MaxLines        = 16
	MaxClaims       = 4
	MaxTerms        = 8 << 10
	MaxKey          = 64
	MaxID           = 64
	MaxQuantity     = 10_000
	MaxUnits        = 1_000_000_000 // of one SKU in one activity
	MaxReservations = 64            // of one user in one activity, ended ones included
)

// Reservation is the record of an accepted request.
type Reservation struct {
	ID          ID
	User        UserID
	Key         string
	Fingerprint Fingerprint
	Order       OrderID
	Lines       []Line
	Claims      []string
	Terms       []byte
	Late        string
	State       State
	At          Millis // acceptance
	Expires     Millis // when an unpaid order may be closed; data, the book never acts on it
}

// Receipt is the ledger's answer to an accepted reserve. Replayed says that
// this reserve was accepted earlier and this is its receipt again.
type Receipt struct {
	Reservation
	Replayed bool
}

// Item is one SKU of an allocation.
type Item struct {
	SKU      SKU
	Units    int // ≥ 0, moved out of warehouse stock into the activity
	PerUser  int // 0 = no limit of its own
	PerOrder int // ≥ 1
}

// Allocation opens a bucket of an activity.
type Allocation struct {
	ID       string // the same id again is the same allocation
	Activity ActivityID
	Bucket   uint16
	Epoch    uint32
	OpensAt  Millis
	ClosesAt Millis
	Hold     Millis // how long a shopper may take to pay
	PerUser  int    // units over the whole activity; 0 = no limit
	Items    []Item // 1..MaxItems, distinct SKUs
	At       Millis
	// Buckets is over how many buckets a ledger that has such spreads the
	// activity, 0..MaxBuckets; 0 is 1. It is fixed when the activity opens.
	// Neither logs nor digests keep it: an allocation of one bucket has no use for it.
	Buckets uint16
}

// MaxItems bounds the SKUs of one activity, MaxBuckets its buckets.
const (
	MaxItems   = 200
	MaxBuckets = 256
)

// Phase is what the operator has made of an activity's bucket; the window is
// judged apart from it, by time.
type Phase uint8

const (
	Live     Phase = iota + 1
	Paused         // no new reserves for now
	Draining       // no new reserves any more; what is held may be paid
	Closed         // nothing is accepted, late payments included
)

var phaseNames = [...]string{"", "live", "paused", "draining", "closed"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "phase(" + strconv.Itoa(int(p)) + ")"
}

// Adjustment edits a live activity by deltas and new limits, never by
// overwriting a count. Idempotent by ID. Nil or zero fields stay as they are.
type Adjustment struct {
	ID       string // 1..64 bytes
	Activity ActivityID
	SKU      SKU // the SKU that Delta and Limits concern
	Delta    int // units added (> 0) or taken back (< 0) from SKU's free units
	Limits   *ItemLimits
	PerUser  *int
	OpensAt  Millis
	ClosesAt Millis
	Hold     Millis
	Phase    Phase // Live, Paused, Draining or Closed; Draining and Closed are not undone
	Reason   string
	At       Millis
}

// ItemLimits are the limits of one SKU.
type ItemLimits struct{ PerUser, PerOrder int }

// Settlement ends a reservation.
type Settlement struct {
	ID ID
	// User is whose the reservation is, as far as the caller knows: a ledger
	// that keeps reservations by user finds it by this. No entry carries it.
	User    UserID
	Outcome Outcome // Confirmed, Released, Expired, or Returned
	At      Millis
}

// Count is where the units of one SKU are. Free + Held + Confirmed +
// InTransit = Allocated; Returned counts units that were confirmed once and
// are free again, and is part of none of these.
type Count struct {
	SKU       SKU   `json:"sku"`
	Allocated int   `json:"allocated"`
	Free      int   `json:"free"`
	Held      int   `json:"held"`
	Confirmed int   `json:"confirmed"`
	InTransit int   `json:"in_transit"`
	Returned  int   `json:"returned"`
	Level     Level `json:"level"`
}

// Counts of an activity at one log position.
type Counts struct {
	Activity ActivityID
	Position Cursor
	Phase    Phase
	Items    []Count
}

// Level is what a shopper is told about a SKU's stock.
type Level string

const (
	Plenty  Level = "plenty"
	Few     Level = "few"      // at most a tenth of what is allocated is free
	AllHeld Level = "all_held" // none free, some unpaid; may return
	SoldOut Level = "sold_out" // every allocated unit is confirmed
)

// LevelOf derives the level from where the units are.
func LevelOf(allocated, free, held int) Level {
	switch {
	case free > 0 && free*10 > allocated:
		return Plenty
	case free > 0:
		return Few
	case held > 0:
		return AllHeld
	default:
		return SoldOut
	}
}
