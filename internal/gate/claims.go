package gate

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"
)

// Claims are what a shop's token says of its user beyond who it is. A field that
// the token does not have is zero.
type Claims struct {
	Level    int      `json:"level,omitempty"` // −maxLevel..maxLevel
	Region   string   `json:"region,omitempty"`
	Newcomer bool     `json:"newcomer,omitempty"`
	Groups   []string `json:"groups,omitempty"`
}

// Bounds of what is read of claims.
const (
	maxLevel  = 1_000_000_000
	maxGroups = 16
	maxName   = 64 // bytes of a region or group
)

// told are Claims as a token may state them. Any type is taken, as with the
// phone number: a claim that is not what we think it is belongs to somebody
// else, and is no reason to turn its user away.
type told struct {
	Level    any `json:"level"`
	Region   any `json:"region"`
	Newcomer any `json:"newcomer"`
	Groups   any `json:"groups"`
}

// claims are those that can be used, each by itself; nil if none can.
func (t *told) claims() *Claims {
	var c Claims
	level, some := t.Level.(float64)
	if some = some && level == math.Trunc(level) && math.Abs(level) <= maxLevel; some {
		c.Level = int(level)
	}
	if region, ok := t.Region.(string); ok && validName(region) {
		c.Region, some = strings.Clone(region), true
	}
	if newcomer, ok := t.Newcomer.(bool); ok {
		c.Newcomer, some = newcomer, true
	}
	if groups, ok := groupsOf(t.Groups); ok {
		c.Groups, some = groups, true
	}
	if !some {
		return nil
	}
	return &c
}

// groupsOf takes all groups or none: half of them could mean the opposite.
func groupsOf(stated any) (groups []string, ok bool) {
	list, ok := stated.([]any)
	if !ok || len(list) == 0 || len(list) > maxGroups {
		return nil, false
	}
	for _, entry := range list {
		name, ok := entry.(string)
		if !ok || !validName(name) {
			return nil, false
		}
		groups = append(groups, strings.Clone(name))
	}
	return groups, true
}

// validName allows 1..64 bytes of any script, without control characters.
func validName(name string) bool {
	return len(name) >= 1 && len(name) <= maxName && strings.IndexFunc(name, unicode.IsControl) < 0
}

// MintWith is Mint of a token that also states claims, those that are not zero.
// Claims that Verify would not read, or that make the token longer than MaxToken,
// are ErrUnauthenticated.
func MintWith(key []byte, user string, c Claims, now time.Time, ttl time.Duration) (string, error) {
	if !validUser(user) {
		return "", fmt.Errorf("%w: user %q must be 1..%d printable ASCII characters without spaces", ErrUnauthenticated, user, maxUser)
	}
	if len(key) < minSecret {
		return "", fmt.Errorf("%w: shorter than %d bytes", ErrKey, minSecret)
	}
	if why := c.fault(); why != "" {
		return "", fmt.Errorf("%w: %s", ErrUnauthenticated, why)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, struct {
		jwt.RegisteredClaims
		Claims
	}{jwt.RegisteredClaims{
		Subject:   user,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}, c}).SignedString(key)
	if err == nil && len(token) > MaxToken {
		return "", fmt.Errorf("%w: a token of %d bytes; %d at most", ErrUnauthenticated, len(token), MaxToken)
	}
	return token, err
}

// fault says what of claims would not be read.
func (c Claims) fault() string {
	switch {
	case c.Level < -maxLevel || c.Level > maxLevel:
		return fmt.Sprintf("level %d is not in ±%d", c.Level, maxLevel)
	case c.Region != "" && !validName(c.Region):
		return fmt.Sprintf("region %q must be 1..%d bytes without control characters", c.Region, maxName)
	case len(c.Groups) > maxGroups:
		return fmt.Sprintf("%d groups; %d at most", len(c.Groups), maxGroups)
	}
	for _, name := range c.Groups {
		if !validName(name) {
			return fmt.Sprintf("group %q must be 1..%d bytes without control characters", name, maxName)
		}
	}
	return ""
}
