package challenge

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

// question is what a token says of its challenge.
type question struct {
	kind   kind
	answer int32
	issued int64 // Unix ms
}

const (
	idSize       = 16
	questionSize = 1 + 4 + 8
	tagSize      = 16
	sealedSize   = idSize + questionSize + tagSize
)

// tokenSize is the length of every token, whatever is in it. The bytes are a
// multiple of three, so that base64 has no bit to spare.
const tokenSize = sealedSize / 3 * 4

// sealer writes and reads tokens:
//
//	base64url( id (16) ‖ AES-256-GCM( kind ‖ answer ‖ issued ) with its tag (16) )
//
// The user and activity are authenticated with it and not in it. Each token has a
// key of its own, made from the shop's secret and the token's id, which is random:
// so no number of tokens uses a nonce twice.
type sealer struct{ key []byte }

func newSealer(secret []byte) sealer {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("challenges of the gate"))
	return sealer{mac.Sum(nil)}
}

func (s sealer) of(id []byte) cipher.AEAD {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(id)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // of a cipher with blocks of 16 bytes
	}
	return aead
}

var noNonce [12]byte // the key is used once

func (s sealer) seal(id [idSize]byte, q question, activity, user string) string {
	plain := make([]byte, 0, questionSize)
	plain = append(plain, byte(q.kind))
	plain = binary.BigEndian.AppendUint32(plain, uint32(q.answer))
	plain = binary.BigEndian.AppendUint64(plain, uint64(q.issued))
	sealed := append(make([]byte, 0, sealedSize), id[:]...)
	sealed = s.of(id[:]).Seal(sealed, noNonce[:], plain, bound(activity, user))
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// open answers false for all that seal has not written for this user and
// activity.
func (s sealer) open(token, activity, user string) (id [idSize]byte, q question, ok bool) {
	var sealed [sealedSize]byte
	if len(token) != tokenSize {
		return id, q, false
	}
	// A token with a line break in it, which the decoder passes over, comes out
	// too short.
	if n, err := base64.RawURLEncoding.Decode(sealed[:], []byte(token)); err != nil || n != sealedSize {
		return id, q, false
	}
	plain, err := s.of(sealed[:idSize]).Open(nil, noNonce[:], sealed[idSize:], bound(activity, user))
	if err != nil || len(plain) != questionSize {
		return id, q, false
	}
	q = question{kind(plain[0]), int32(binary.BigEndian.Uint32(plain[1:])), int64(binary.BigEndian.Uint64(plain[5:]))}
	return [idSize]byte(sealed[:]), q, q.kind < kinds
}

// bound is both names, the first with its length, so that none can be moved into
// the other.
func bound(activity, user string) []byte {
	b := make([]byte, 0, 4+len(activity)+len(user))
	b = binary.BigEndian.AppendUint32(b, uint32(len(activity)))
	return append(append(b, activity...), user...)
}
