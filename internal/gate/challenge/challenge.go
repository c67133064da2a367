// Package challenge asks whoever wants to buy for something that a person does
// at once and a program does not: to move a piece of a picture to where it was cut
// out, or to read a sum. It owns the pictures (slider.go, scenery.go, shape.go;
// arithmetic.go, glyphs.go), the supply of them (pool.go), and the tokens that
// stand for a challenge (token.go).
//
// Invariants: the answer is in the token, encrypted, so that any gateway can
// check it and nobody can read it; a token is good for one user, one activity, two
// minutes and one answer, right or wrong; no request draws a picture, and pictures
// are drawn at a bounded pace and kept in bounded number.
//
// It refuses to know who has to solve one (gate.Challenges), and promises
// little: a program that looks at pictures well solves these. What a challenge does is
// to cost an attempt more than a request does.
package challenge

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice/internal/gate"
)

// ErrFailed: the answer was wrong, or given too late, too early or a second
// time, or the challenge was another's or none of ours. Which of these is told to
// nobody: it would help those only who try.
var ErrFailed = errors.New("challenge failed")

// Times of a challenge.
const (
	// Valid is how long a challenge can be answered.
	Valid = 2 * time.Minute
	// Earliest is how long after its issue a challenge can be answered: before, no
	// person has seen it.
	Earliest = 300 * time.Millisecond
	// Cleared is how long a clearance can be used.
	Cleared = 5 * time.Minute
	// skew is by how much clocks of gateways may differ.
	skew = time.Minute
)

// Tolerance is by how many pixels the answer of a slider may be wrong.
const Tolerance = 5

// once remembers which challenges were answered. All gateways of a fleet share one.
type once interface {
	// Spend answers true to the first who asks with an id, and false to all others
	// until a time; after it, whatever it likes. An error means that it is not
	// known.
	Spend(ctx context.Context, id string, until time.Time) (first bool, err error)
}

// Options make a Desk.
type Options struct {
	Secret []byte           // the shop's own: all gateways of a fleet have the same
	Once   once             // NewOnce for a process that is alone
	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand; safe for concurrent use
	Ready  int              // pictures of each kind that are kept ready; 0: 128
}

// Desk hands out challenges and checks answers. It is safe for concurrent use.
type Desk struct {
	tokens sealer
	slips  *gate.Seal
	once   once
	now    func() time.Time
	random io.Reader
	pools  [kinds]pool
	slider *slider // nil until one is drawn; of Step alone
}

// New has no pictures yet: Step draws them.
func New(o Options) *Desk {
	d := &Desk{tokens: newSealer(o.Secret), slips: gate.NewSeal(o.Secret), once: o.Once, now: o.Now, random: o.Random}
	if d.now == nil {
		d.now = time.Now
	}
	if d.random == nil {
		d.random = rand.Reader
	}
	if o.Ready == 0 {
		o.Ready = 128
	}
	for k := range d.pools {
		d.pools[k].size = o.Ready
	}
	return d
}

// kind is a kind of challenge, as tokens know it. Numbers must not change.
type kind uint8

const (
	sliderKind kind = iota
	arithmeticKind
	kinds
)

var kindNames = [kinds]string{gate.Slider, gate.Arithmetic}

// Challenge is what a shopper is shown. Pictures are data: URLs. The answer of a
// slider is the x of the piece's left edge in pixels of the image, where its top
// is at PieceY; that of arithmetic is the result.
type Challenge struct {
	Token       string    `json:"challenge"`
	Kind        string    `json:"kind"`
	Image       string    `json:"image"`
	Piece       string    `json:"piece,omitempty"`
	PieceY      int       `json:"piece_y,omitempty"`
	Width       int       `json:"width"`
	Height      int       `json:"height"`
	PieceWidth  int       `json:"piece_width,omitempty"`
	PieceHeight int       `json:"piece_height,omitempty"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// Offer hands a challenge to a user for an activity: of a kind, or, for "", a
// slider where one is ready and arithmetic otherwise. The error is
// gate.ErrOverloaded when none is ready.
func (d *Desk) Offer(activity, user, kindName string) (Challenge, error) {
	for k, name := range kindNames {
		if kindName != "" && kindName != name {
			continue
		}
		if p, found := d.pools[k].take(); found {
			return d.issue(kind(k), p, activity, user)
		}
	}
	return Challenge{}, fmt.Errorf("%w: no challenge is ready", gate.ErrOverloaded)
}

func (d *Desk) issue(k kind, p picture, activity, user string) (Challenge, error) {
	now := d.now().Truncate(time.Millisecond)
	var id [idSize]byte
	if _, err := io.ReadFull(d.random, id[:]); err != nil {
		return Challenge{}, fmt.Errorf("no randomness: %w", err)
	}
	c := Challenge{
		Token: d.tokens.seal(id, question{kind: k, answer: int32(p.answer), issued: now.UnixMilli()}, activity, user),
		Kind:  kindNames[k], Image: p.image, Width: sliderWidth, Height: sliderHeight, ExpiresAt: now.Add(Valid),
	}
	if k == arithmeticKind {
		c.Width, c.Height = arithmeticWidth, arithmeticHeight
		return c, nil
	}
	c.Piece, c.PieceY, c.PieceWidth, c.PieceHeight = p.piece, p.y, pieceSize, pieceSize
	return c, nil
}

// Check takes the one answer to a challenge, and answers a clearance for the user
// and activity, as its holder shows it. Errors are ErrFailed, and
// gate.ErrOverloaded when nobody can tell what was answered before: after that the
// same answer may be given again.
func (d *Desk) Check(ctx context.Context, activity, user, token string, answer int) (text string, clearance gate.Slip, err error) {
	now := d.now()
	id, q, ok := d.tokens.open(token, activity, user)
	if !ok {
		return "", gate.Slip{}, ErrFailed
	}
	issued := time.UnixMilli(q.issued)
	if end := issued.Add(Valid); !now.Before(end) {
		return "", gate.Slip{}, ErrFailed
	}
	// Before the answer is looked at: of two at once, one is the first, and a
	// wrong one is an answer too.
	first, err := d.once.Spend(ctx, base64.RawURLEncoding.EncodeToString(id[:]), issued.Add(Valid+skew))
	switch {
	case err != nil:
		return "", gate.Slip{}, fmt.Errorf("%w: spend a challenge: %w", gate.ErrOverloaded, err)
	case !first, now.Before(issued.Add(Earliest)), !q.accepts(answer):
		return "", gate.Slip{}, ErrFailed
	}
	var own [idSize]byte
	if _, err := io.ReadFull(d.random, own[:]); err != nil {
		return "", gate.Slip{}, fmt.Errorf("no randomness: %w", err)
	}
	clearance = gate.Slip{Kind: gate.Clearance, Activity: activity, User: user,
		ID: base64.RawURLEncoding.EncodeToString(own[:]), Until: now.Add(Cleared)}
	return d.slips.Sign(clearance), clearance, nil
}

// accepts says whether an answer is right.
func (q question) accepts(answer int) bool {
	wrong := max(answer, int(q.answer)) - min(answer, int(q.answer))
	if q.kind == sliderKind {
		return wrong >= 0 && wrong <= Tolerance // below 0: of numbers too far apart to subtract
	}
	return wrong == 0
}
