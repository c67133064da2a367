package gate

import (
	"crypto/ed25519"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/internal/stock"
)

// Identity is who a token speaks for, until when.
type Identity struct {
	User    stock.UserID
	Phone   string // the claim phone_number, "" if there is none that can be used
	Expires time.Time
}

// VerifyingKey is one accepted key: either an HS256 Secret of at least 32
// bytes or an Ed25519 Public key. A token that names a key id is tried against
// the keys of that ID and those without one; other tokens against every key.
type VerifyingKey struct {
	ID     string
	Secret []byte
	Public ed25519.PublicKey
}

// Bounds of what is accepted.
const (
	MaxKeys  = 4    // keys accepted side by side, for rotation
	MaxToken = 2048 // bytes of a token
	maxUser  = stock.MaxID
	maxPhone = 32
)

// DefaultRemembered is how many verified tokens are remembered: about 45 MB
// when full of tokens of the usual 160 bytes.
const DefaultRemembered = 1 << 17

// ways of a set: a token has this many places it may be remembered in.
const ways = 4

// Verifier turns bearer tokens (JWT, HS256 or EdDSA) into identities. It
// remembers the tokens it has verified in a bounded, set-associative table of
// atomic pointers, so that a token seen before costs one hash and a
// comparison: no lock, no allocation. It is safe for concurrent use.
type Verifier struct {
	now    func() time.Time
	parser *jwt.Parser
	keys   []VerifyingKey
	seed   maphash.Seed
	mask   uint64
	sets   []set
	turn   atomic.Uint32
}

// set is one cache line. The tags tell which place may hold a token without
// following any pointer: under a flood of many users each one followed is a
// cache miss. A tag and its place are stored apart, so a match is only a hint.
type set struct {
	tags   [ways]atomic.Uint64
	places [ways]atomic.Pointer[verified]
}

// verified is a token whose signature was good. Its expiry is judged at each
// use. Token, user and phone share one allocation, side by side.
type verified struct {
	identity Identity
	token    string
}

// NewVerifier accepts tokens signed with any of 1..MaxKeys keys, and remembers
// at least `remember` of them (0 means DefaultRemembered).
func NewVerifier(now func() time.Time, remember int, keys ...VerifyingKey) (*Verifier, error) {
	if len(keys) < 1 || len(keys) > MaxKeys {
		return nil, fmt.Errorf("%w: %d keys given, 1..%d can be accepted", ErrKey, len(keys), MaxKeys)
	}
	for i, k := range keys {
		hmac, public := len(k.Secret) >= minSecret, len(k.Public) == ed25519.PublicKeySize
		if hmac == public || (hmac && k.Public != nil) || (public && k.Secret != nil) {
			return nil, fmt.Errorf("%w: key %d must be either a secret of at least %d bytes or an Ed25519 public key", ErrKey, i+1, minSecret)
		}
	}
	if remember <= 0 {
		remember = DefaultRemembered
	}
	sets := 1
	for sets*ways < remember {
		sets *= 2
	}
	return &Verifier{
		now: now,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg(), jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithExpirationRequired(),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now)),
		keys: keys,
		seed: maphash.MakeSeed(),
		mask: uint64(sets - 1),
		sets: make([]set, sets),
	}, nil
}

// Verify answers the identity of a token, or ErrUnauthenticated, the same for
// every cause: a forger learns nothing. The token's bytes are not kept.
func (v *Verifier) Verify(token []byte) (Identity, error) {
	if len(token) == 0 || len(token) > MaxToken {
		return Identity{}, ErrUnauthenticated
	}
	hash := maphash.Bytes(v.seed, token)
	at := &v.sets[hash&v.mask]
	for i := range at.tags {
		if at.tags[i].Load() != hash {
			continue
		}
		// The whole token is compared: a hash alone must never let anyone in.
		if seen := at.places[i].Load(); seen != nil && seen.token == string(token) {
			if !v.now().Before(seen.identity.Expires) {
				return Identity{}, ErrUnauthenticated
			}
			return seen.identity, nil
		}
	}
	return v.verify(hash, string(token))
}

// claims are those that are read. A phone number that is none is no fault of the
// token: nothing but a rule by phone asks for it.
type claims struct {
	jwt.RegisteredClaims
	Phone any `json:"phone_number"` // OpenID Connect Core §5.1
}

// verify checks a token that is not remembered.
func (v *Verifier) verify(hash uint64, token string) (Identity, error) {
	var claims claims
	if _, err := v.parser.ParseWithClaims(token, &claims, v.candidates); err != nil || !validUser(claims.Subject) {
		return Identity{}, ErrUnauthenticated
	}
	phone, _ := claims.Phone.(string)
	if len(phone) > maxPhone || !printable(phone) {
		phone = ""
	}
	user, end := len(token), len(token)+len(claims.Subject)
	text := token + claims.Subject + phone
	seen := &verified{Identity{stock.UserID(text[user:end]), text[end:], claims.ExpiresAt.Time}, text[:user]}
	v.remember(hash, seen)
	return seen.identity, nil
}

// candidates are the keys that may have signed t: those made for its method
// only, so that a public key is never taken for an HMAC secret.
func (v *Verifier) candidates(t *jwt.Token) (any, error) {
	if _, critical := t.Header["crit"]; critical {
		return nil, ErrUnauthenticated // extensions that must be understood, and are not
	}
	kid, named := t.Header["kid"]
	var set jwt.VerificationKeySet
	for _, k := range v.keys {
		if named && k.ID != "" && k.ID != kid {
			continue
		}
		switch {
		case t.Method == jwt.SigningMethodHS256 && k.Secret != nil:
			set.Keys = append(set.Keys, k.Secret)
		case t.Method == jwt.SigningMethodEdDSA && k.Public != nil:
			set.Keys = append(set.Keys, k.Public)
		}
	}
	return set, nil
}

// remember puts a token into its set, in place of an empty or expired entry or
// else of one taken in turn.
func (v *Verifier) remember(hash uint64, seen *verified) {
	at := &v.sets[hash&v.mask]
	now := v.now()
	victim := int(v.turn.Add(1) % ways)
	for i := range at.places {
		if old := at.places[i].Load(); old == nil || !now.Before(old.identity.Expires) {
			victim = i
			break
		}
	}
	at.places[victim].Store(seen)
	at.tags[victim].Store(hash)
}

// validUser allows 1..64 printable ASCII bytes without spaces.
func validUser(user string) bool {
	return len(user) >= 1 && len(user) <= maxUser && printable(user)
}
