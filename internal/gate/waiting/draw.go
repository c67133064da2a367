package waiting

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Algorithm is the name of the draw, as it is published with each: the place of
// number i is the rank of SHA-256(seed ‖ digest ‖ i as 8 bytes, big endian)
// among those of all numbers drawn, ascending by bytes. digest is SHA-256 of the
// entry ids of these numbers, 16 bytes each, in the order of their numbers.
const Algorithm = "sha256-sort"

// ErrDraw: what was published of a draw does not fit together.
var ErrDraw = errors.New("the draw is not what was promised")

// Draw is what is published of a room's draw.
type Draw struct {
	Commitment [32]byte // SHA-256 of the seed, published before anybody could join
	Joined     int      // until now
	DrawAt     Millis   // when it was drawn, or is to be
	Drawn      bool     // what follows is zero before
	Seed       Seed
	Entries    int      // numbers drawn
	Digest     [32]byte // of their entry ids
}

// Commitment is what is told of a seed before the draw.
func (s Seed) Commitment() [32]byte { return sha256.Sum256(s[:]) }

// Digest is that of the entries drawn, in the order of their numbers.
func Digest(entries []EntryID) [32]byte {
	h := sha256.New()
	for i := range entries {
		h.Write(entries[i][:])
	}
	return [32]byte(h.Sum(nil))
}

// Places is the draw of n numbers: the place of each, from 0. A million take
// some half a second, and 16 MB beside the answer's 4.
func Places(seed Seed, digest [32]byte, n int) []uint32 {
	h := newTicketer(seed, digest)
	type ticket struct {
		head   uint64 // the hash's first bytes: nearly always they decide
		number uint32
	}
	all := make([]ticket, n)
	for i := range all {
		hash := h.hash(uint32(i))
		all[i] = ticket{binary.BigEndian.Uint64(hash[:]), uint32(i)}
	}
	slices.SortFunc(all, func(a, b ticket) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		x, y := h.hash(a.number), h.hash(b.number)
		return bytes.Compare(x[:], y[:])
	})
	places := make([]uint32, n)
	for place, t := range all {
		places[t.number] = uint32(place)
	}
	return places
}

// ticketer hashes numbers.
type ticketer struct{ text [32 + 32 + 8]byte }

func newTicketer(seed Seed, digest [32]byte) *ticketer {
	t := &ticketer{}
	copy(t.text[:], seed[:])
	copy(t.text[32:], digest[:])
	return t
}

func (t *ticketer) hash(number uint32) [32]byte {
	binary.BigEndian.PutUint64(t.text[64:], uint64(number))
	return sha256.Sum256(t.text[:])
}

// Verify checks a published draw with all that anybody can know, and answers
// the place of each number drawn. entries are those published, and commitment
// is what was told before the draw. The error is ErrDraw.
func (d Draw) Verify(commitment [32]byte, entries []EntryID) (places []uint32, err error) {
	switch {
	case !d.Drawn:
		return nil, fmt.Errorf("%w: nothing has been drawn", ErrDraw)
	case d.Commitment != commitment:
		return nil, fmt.Errorf("%w: the commitment is another than before", ErrDraw)
	case d.Seed.Commitment() != commitment:
		return nil, fmt.Errorf("%w: the seed is not the one committed to", ErrDraw)
	case len(entries) != d.Entries:
		return nil, fmt.Errorf("%w: %d entries are listed, %d were drawn", ErrDraw, len(entries), d.Entries)
	case Digest(entries) != d.Digest:
		return nil, fmt.Errorf("%w: the entries listed are not those drawn", ErrDraw)
	}
	return Places(d.Seed, d.Digest, d.Entries), nil
}
