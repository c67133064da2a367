// Package gate is everything before the ledger: who is asking, and whether
// there is room to serve them. It owns the verification of shoppers' tokens
// (identity.go; claims.go: what else they say; keys.go, jwks.go and keysource.go:
// by which keys), the key file they are signed with (key.go), the bounds on
// work in flight (inflight.go), the rules of how often shoppers may ask (rule.go:
// what one is; limits.go: deciding by them; shares.go and budgets.go: those that
// gateways share; scale.go: all of them at once; rulebook.go: changing them) and
// the memory of last refusals (refusals.go).
//
// Invariants: an identity comes from a token whose signature was checked and
// whose expiry is ahead of now; only successes are remembered; a refusal allocates
// nothing once the token has been seen, and locks no more than a small part of a
// rule's table; memory is bounded by the rules, whatever keys requests make up.
//
// It refuses to know activities, stock or HTTP: what a refusal looks like on
// the wire is the business of the API. The one thing it asks others for is the
// keys of identity providers.
package gate

import "errors"

var (
	// ErrUnauthenticated: no token, or one that is malformed, forged, signed in
	// a way that is not accepted, expired or not yet valid.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrOverloaded: the bound on work in flight is reached; nothing was done.
	ErrOverloaded = errors.New("too many requests in flight")
	// ErrKey: a signing key cannot be read or must not be used.
	ErrKey = errors.New("unusable signing key")
)
