// Package gate is everything before the ledger: who is asking, whether he may come
// in, and whether there is room to serve him. It owns the verification of shoppers'
// tokens (identity.go; claims.go: what else they say; keys.go, jwks.go and
// keysource.go: by which keys; key.go), and the door, which decides a purchase
// (door.go; facts.go: what it goes by). Behind the door stand the limits (rule.go,
// limits.go; shares.go and budgets.go: those that gateways share; scale.go), the
// lists (lists.go, listbook.go), the conditions (condition.go, eligibility.go), the
// slips that are handed out and shown (seal.go, ticket.go, room.go), who is challenged
// (challenges.go, suspicion.go, hints.go) and the playbooks (switches.go, playbook.go,
// freeze.go). All rules are one versioned document (ruleset.go, rulebook.go). Beside
// it: the bounds on work in flight (inflight.go, shedding.go) and the memory of
// last refusals (refusals.go). Waiting rooms, pictures and handing out are packages
// below this one: waiting, challenge, entrance.
//
// Invariants: an identity comes from a token whose signature was checked and
// whose expiry is ahead of now; only successes are remembered; every refusal of the
// door names its rule; one by a rule, to who shows nothing, allocates nothing and locks no
// more than a small part of a table; memory is bounded by the rules, whatever keys
// requests make up.
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
