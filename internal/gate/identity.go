package gate

import (
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
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
	Claims  *Claims // nil if the token has none of them; shared, and never changed
}

// Bounds of what is accepted.
const (
	MaxToken = 2048 // bytes of a token
	maxUser  = stock.MaxID
	maxPhone = 32
)

// DefaultRemembered is how many verified tokens are remembered: about 47 MB
// when full of tokens of the usual 160 bytes.
const DefaultRemembered = 1 << 17

// ways of a set: a token has this many places it may be remembered in.
const ways = 4

// Verifier turns bearer tokens (JWT; HS256, EdDSA, ES256 or RS256) into
// identities. It remembers the tokens it has verified in a bounded, set-associative table of
// atomic pointers, so that a token seen before costs one hash and a
// comparison: no lock, no allocation. It is safe for concurrent use.
type Verifier struct {
	now    func() time.Time
	parser *jwt.Parser
	keys   atomic.Pointer[[]*trusted] // all in use; the slice is not changed
	seed   maphash.Seed
	mask   uint64
	sets   []set
	turn   atomic.Uint32

	log     *slog.Logger
	fixed   []*trusted
	sources []*source
	reading sync.Mutex // one Step at a time
	woken   chan struct{}
}

// set is one cache line. The tags tell which place may hold a token without
// following any pointer: under a flood of many users each one followed is a
// cache miss. A tag and its place are stored apart, so a match is only a hint.
type set struct {
	tags   [ways]atomic.Uint64
	places [ways]atomic.Pointer[verified]
}

// verified is a token whose signature was good. Its expiry, and whether its key
// still is, are judged at each use. Token, user and phone share one allocation,
// side by side.
type verified struct {
	identity Identity
	token    string
	by       *trusted
}

// NewVerifier accepts tokens signed with any of 1..MaxKeys keys, and remembers
// at least `remember` of them (0 means DefaultRemembered).
func NewVerifier(now func() time.Time, remember int, keys ...VerifyingKey) (*Verifier, error) {
	return NewVerifierFrom(now, remember, nil, nil, keys...)
}

// newTable has no keys yet.
func newTable(now func() time.Time, remember int) *Verifier {
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
			jwt.WithValidMethods([]string{"HS256", "EdDSA", "ES256", "RS256"}),
			jwt.WithExpirationRequired(),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now)),
		seed: maphash.MakeSeed(),
		mask: uint64(sets - 1),
		sets: make([]set, sets),
	}
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
			if seen.by.withdrawn.Load() {
				continue // another key may have signed it as well
			}
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
	told
	Phone any `json:"phone_number"` // OpenID Connect Core §5.1
}

// verify checks a token that is not remembered.
func (v *Verifier) verify(hash uint64, token string) (Identity, error) {
	var claims claims
	var tried []*trusted
	known := true
	parsed, err := v.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (_ any, err error) {
		tried, known, err = v.candidates(t)
		set := jwt.VerificationKeySet{Keys: make([]jwt.VerificationKey, len(tried))}
		for i, k := range tried {
			set.Keys[i] = k.material()
		}
		return set, err
	})
	if !known && err != nil {
		v.miss()
	}
	if err != nil || !validUser(claims.Subject) {
		return Identity{}, ErrUnauthenticated
	}
	by := signer(parsed, tried)
	if !by.speaksFor(&claims.RegisteredClaims) {
		return Identity{}, ErrUnauthenticated
	}
	phone, _ := claims.Phone.(string)
	if len(phone) > maxPhone || !printable(phone) {
		phone = ""
	}
	user, end := len(token), len(token)+len(claims.Subject)
	text := token + claims.Subject + phone
	seen := &verified{Identity{stock.UserID(text[user:end]), text[end:], claims.ExpiresAt.Time, claims.claims()}, text[:user], by}
	v.remember(hash, seen)
	return seen.identity, nil
}

// candidates are the keys that may have signed t, those made for its method only,
// and whether the one it names is known, if it names one.
func (v *Verifier) candidates(t *jwt.Token) (keys []*trusted, known bool, err error) {
	if _, critical := t.Header["crit"]; critical {
		return nil, true, ErrUnauthenticated // extensions that must be understood, and are not
	}
	kid, named := t.Header["kid"]
	known = !named
	for _, k := range *v.keys.Load() {
		if k.mayHaveSigned(t.Method, kid, named) {
			keys = append(keys, k)
		}
		known = known || k.ID == kid
	}
	return keys, known, nil
}

// signer answers which of the keys, of which one has, signed t.
func signer(t *jwt.Token, keys []*trusted) *trusted {
	text := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	last := len(keys) - 1
	for _, k := range keys[:last] {
		if t.Method.Verify(text, t.Signature, k.material()) == nil {
			return k
		}
	}
	return keys[last]
}

// remember puts a token into its set, in place of an entry that is empty or holds
// no longer, or else of one taken in turn.
func (v *Verifier) remember(hash uint64, seen *verified) {
	at := &v.sets[hash&v.mask]
	now := v.now()
	victim := int(v.turn.Add(1) % ways)
	for i := range at.places {
		if old := at.places[i].Load(); old == nil || !now.Before(old.identity.Expires) || old.by.withdrawn.Load() {
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
