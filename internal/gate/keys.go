package gate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"
)

// VerifyingKey is one accepted key: either an HS256 Secret of at least 32 bytes,
// or a Public one, of which the kind decides the method: Ed25519 (EdDSA), ECDSA on
// P-256 (ES256) or RSA of 2,048 to 8,192 bits (RS256).
//
// A token that names a key id is tried against the keys of that ID and those
// without one; other tokens against every key that is not of an identity
// provider (see KeySource).
type VerifyingKey struct {
	ID     string
	Secret []byte
	Public crypto.PublicKey // ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey
}

// MaxKeys is how many keys are accepted side by side, for rotation: of the fixed
// ones, and of each identity provider.
const MaxKeys = 16

// Sizes of RSA keys, in bits. Beyond, a forged token would cost more than a
// millisecond to refuse.
const (
	minRSA = 2048
	maxRSA = 8192
)

// method is the only one that the key is for, so that a public key is never taken
// for a secret, nor one kind of key for another.
func (k VerifyingKey) method() (jwt.SigningMethod, error) {
	if (k.Secret != nil) == (k.Public != nil) {
		return nil, fmt.Errorf("%w: it must be either a secret or a public key", ErrKey)
	}
	if k.Secret != nil {
		if len(k.Secret) < minSecret {
			return nil, fmt.Errorf("%w: a secret of %d bytes; at least %d", ErrKey, len(k.Secret), minSecret)
		}
		return jwt.SigningMethodHS256, nil
	}
	switch p := k.Public.(type) {
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			return jwt.SigningMethodEdDSA, nil
		}
	case *ecdsa.PublicKey:
		if p != nil && p.Curve == elliptic.P256() {
			return jwt.SigningMethodES256, nil
		}
	case *rsa.PublicKey:
		if p != nil && p.N != nil && p.N.BitLen() >= minRSA && p.N.BitLen() <= maxRSA && p.E >= 3 && p.E <= math.MaxInt32 && p.E%2 == 1 {
			return jwt.SigningMethodRS256, nil
		}
	}
	return nil, fmt.Errorf("%w: a public key must be Ed25519, ECDSA on P-256, or RSA of %d to %d bits", ErrKey, minRSA, maxRSA)
}

// trusted is a key in use. What was verified with it is good as long as it is not
// withdrawn.
type trusted struct {
	VerifyingKey
	signs     jwt.SigningMethod
	of        *source // nil: none, it is fixed
	withdrawn atomic.Bool
}

// trust checks keys and takes over those that are in use already.
func trust(keys []VerifyingKey, of *source, had []*trusted) ([]*trusted, error) {
	all := make([]*trusted, len(keys))
	for i, k := range keys {
		method, err := k.method()
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		all[i] = &trusted{VerifyingKey: k, signs: method, of: of}
		for _, old := range had {
			if old.is(k) {
				all[i] = old
			}
		}
	}
	return all, nil
}

// is says that a key is the same in all respects.
func (t *trusted) is(k VerifyingKey) bool {
	if t.ID != k.ID || !bytes.Equal(t.Secret, k.Secret) || (t.Public == nil) != (k.Public == nil) {
		return false
	}
	public, ok := t.Public.(interface{ Equal(crypto.PublicKey) bool })
	return t.Public == nil || ok && public.Equal(k.Public)
}

// material is what the method takes.
func (t *trusted) material() jwt.VerificationKey {
	if t.Secret != nil {
		return t.Secret
	}
	return t.Public
}

// mayHaveSigned says whether to try a key on a token of a method that names a key
// id, or not.
func (t *trusted) mayHaveSigned(method jwt.SigningMethod, kid any, named bool) bool {
	switch {
	case method != t.signs:
		return false
	case t.ID == "":
		return true
	case !named:
		return t.of == nil
	}
	return t.ID == kid
}

// speaksFor says whether a token that the key has signed is meant for this shop.
func (t *trusted) speaksFor(c *jwt.RegisteredClaims) bool {
	return t.of == nil || (t.of.Issuer == "" || t.of.Issuer == c.Issuer) &&
		(t.of.Audience == "" || slices.Contains(c.Audience, t.of.Audience))
}
