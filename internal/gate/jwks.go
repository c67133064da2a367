package gate

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
)

// maxJWKS bounds a document of keys, in bytes; maxEntries what it lists, of which
// MaxKeys may be of use.
const (
	maxJWKS    = 64 << 10
	maxEntries = 256
)

// jwk is a key as RFC 7517 and 7518 write it, as far as it is read.
type jwk struct {
	Type string   `json:"kty"`
	Use  *string  `json:"use"`
	Ops  []string `json:"key_ops"`
	Alg  *string  `json:"alg"`
	ID   string   `json:"kid"`

	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
	N     string `json:"n"`
	E     string `json:"e"`
	D     any    `json:"d"` // the private part
}

// ParseJWKS reads the keys of a JSON Web Key Set that can verify tokens: of kind
// OKP (Ed25519), EC (P-256) and RSA (2,048 bits or more), unless their use,
// key_ops or alg says that they are for something else. Other entries are passed
// over, as RFC 7517 §5 asks for; so is a key whose private part is in the
// document, since anybody can sign with it, and a secret, since it is none any
// more. A document of more than 64 kB or without any key that can be used is
// ErrKey: as an empty one it would turn every shopper away.
func ParseJWKS(document []byte) ([]VerifyingKey, error) {
	if len(document) > maxJWKS {
		return nil, fmt.Errorf("%w: a key set of more than %d bytes", ErrKey, maxJWKS)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("%w: not a key set: %w", ErrKey, err)
	}
	if len(set.Keys) > maxEntries {
		return nil, fmt.Errorf("%w: a key set of %d entries; %d at most", ErrKey, len(set.Keys), maxEntries)
	}
	var keys []VerifyingKey
	for _, entry := range set.Keys {
		var k jwk
		if json.Unmarshal(entry, &k) != nil {
			continue
		}
		if key, ok := k.key(); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: none of %d keys in the set can verify tokens (OKP with Ed25519, EC with P-256, RSA of %d to %d bits)",
			ErrKey, len(set.Keys), minRSA, maxRSA)
	}
	if len(keys) > MaxKeys {
		return nil, fmt.Errorf("%w: %d keys in the set; %d at most", ErrKey, len(keys), MaxKeys)
	}
	return keys, nil
}

// key is what an entry holds, if it is for verifying tokens.
func (k *jwk) key() (VerifyingKey, bool) {
	if k.Use != nil && *k.Use != "sig" || k.Ops != nil && !slices.Contains(k.Ops, "verify") || k.D != nil || len(k.ID) > MaxToken {
		return VerifyingKey{}, false
	}
	key := VerifyingKey{ID: k.ID}
	switch k.Type {
	case "OKP":
		if x := octets(k.X); k.Curve == "Ed25519" && len(x) == ed25519.PublicKeySize {
			key.Public = ed25519.PublicKey(x)
		}
	case "EC":
		const size = 32 // of a coordinate, all of it (RFC 7518 §6.2.1.2)
		if x, y := octets(k.X), octets(k.Y); k.Curve == "P-256" && len(x) == size && len(y) == size {
			point := append(append([]byte{4}, x...), y...) // uncompressed
			if public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err == nil {
				key.Public = public
			}
		}
	case "RSA":
		if n, e := octets(k.N), octets(k.E); len(n) > 0 && len(n) <= maxRSA/8 && len(e) > 0 && len(e) <= 4 {
			exponent := 0
			for _, b := range e {
				exponent = exponent<<8 | int(b)
			}
			key.Public = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exponent}
		}
	}
	if key.Public == nil {
		return VerifyingKey{}, false
	}
	method, err := key.method()
	return key, err == nil && (k.Alg == nil || *k.Alg == method.Alg())
}

// octets decodes a member of a key: base64url without padding; nil if it is not.
func octets(text string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}
