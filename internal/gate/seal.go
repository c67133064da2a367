package gate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Slip is something the gate hands out to one user for one activity, to be shown
// once: a ticket, a pass, a clearance. Its ID is unique among slips of its kind
// and activity; the ledger consumes it with the reserve.
type Slip struct {
	Kind     SlipKind
	Activity string
	User     string
	ID       string // 1..40 of A-Z, a-z, 0-9, - and _
	Until    time.Time
}

// SlipKind is what a slip is for.
type SlipKind byte

const (
	Ticket    SlipKind = 't' // of an activity that asks for one, handed out near the opening
	Pass      SlipKind = 'p' // of the waiting room, for whoever is called
	Clearance SlipKind = 'c' // of a challenge, for whoever has solved it
)

// Claim is what the ledger knows a slip by.
func (s Slip) Claim() string { return string(rune(s.Kind)) + ":" + s.ID }

var (
	// ErrForged: a slip was not handed out by this shop, or to another user, for
	// another activity, or as something else.
	ErrForged = errors.New("not handed out to this user for this activity")
	// ErrExpired: a slip has been valid.
	ErrExpired = errors.New("expired")
)

// Seal signs slips. All gateways of a fleet have the same one, from the same key.
type Seal struct{ key []byte }

const macSize = 16 // of the 32 bytes of HMAC-SHA256 (RFC 2104 §5: not less than half)

// NewSeal derives its key from the shop's own secret, so that no slip can be
// taken for anything else that is signed with it.
func NewSeal(secret []byte) *Seal {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("slips of the gate"))
	return &Seal{mac.Sum(nil)}
}

// Sign writes a slip: its kind, id, end (Unix ms in base 36) and signature, with
// dots between. Activity and user are signed and not written: whoever shows the
// slip says who he is and what he wants anyway.
func (s *Seal) Sign(slip Slip) string {
	until := strconv.FormatInt(slip.Until.UnixMilli(), 36)
	head := string(rune(slip.Kind)) + "." + slip.ID + "." + until
	return head + "." + string(s.mac(head, slip.Activity, slip.User))
}

// maxSlip is more than any slip has, in bytes: 1 + 40 + 13 + 22 and the dots.
const maxSlip = 96

// Open reads a slip of a kind that this user shows for this activity. Errors are
// ErrForged and ErrExpired. There is one text of each slip: nothing that differs
// from what Sign wrote in a single bit is taken for it.
func (s *Seal) Open(kind SlipKind, text, activity, user string, now time.Time) (Slip, error) {
	end := strings.LastIndexByte(text, '.')
	if end < 0 || len(text) > maxSlip {
		return Slip{}, ErrForged
	}
	head := text[:end]
	// Texts are compared, not what they decode to: base64 has unused bits at its
	// end, and its decoder passes over line breaks.
	if !hmac.Equal([]byte(text[end+1:]), s.mac(head, activity, user)) {
		return Slip{}, ErrForged
	}
	// What follows was written by Sign.
	of, rest, _ := strings.Cut(head, ".")
	id, until, found := strings.Cut(rest, ".")
	if of != string(rune(kind)) {
		return Slip{}, fmt.Errorf("%w: of another kind", ErrForged)
	}
	ms, err := strconv.ParseInt(until, 36, 64)
	if err != nil || !found {
		return Slip{}, ErrForged
	}
	slip := Slip{kind, activity, user, strings.Clone(id), time.UnixMilli(ms)}
	if !now.Before(slip.Until) {
		return slip, ErrExpired
	}
	return slip, nil
}

// mac signs parts, each with its length before it, so that none can be moved
// into its neighbour. It answers the signature as it is written.
func (s *Seal) mac(parts ...string) []byte {
	mac := hmac.New(sha256.New, s.key)
	var size [4]byte
	for _, p := range parts {
		binary.BigEndian.PutUint32(size[:], uint32(len(p)))
		mac.Write(size[:])
		mac.Write([]byte(p))
	}
	return base64.RawURLEncoding.AppendEncode(nil, mac.Sum(nil)[:macSize])
}
