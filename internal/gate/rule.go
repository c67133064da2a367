package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/internal/lib/limit"
	"sluice/internal/stock"
)

// Rule is one limit, as operators write it and as it is stored: it says whose
// requests of one class of routes may come how often.
type Rule struct {
	ID       string   `json:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,39}$" doc:"Told to whoever it refuses; label of its metrics"`
	Class    string   `json:"class" enum:"purchases,reads,payments,gate" doc:"Which routes; gate: those that hand out tickets, challenges and places in queues"`
	Activity string   `json:"activity,omitempty" maxLength:"64" doc:"Only requests of this activity"`
	Path     string   `json:"path,omitempty" maxLength:"200" doc:"Only paths that begin like this" example:"/v1/orders"`
	Key      []string `json:"key" nullable:"false" doc:"Each combination of these has the rate to itself: user, ip, phone, path, activity. Empty: all requests share one. A request that lacks one of them is not limited by the rule"`
	Rate     Rate     `json:"rate"`
	Mode     string   `json:"mode" enum:"on,shadow,off" doc:"shadow: counted as if it were on, and refuses nobody"`
	Percent  int      `json:"percent" minimum:"0" maximum:"100" doc:"Of users (of addresses, of phones, where the key is those): always the same ones, and raising it keeps them"`
	Scope    string   `json:"scope,omitempty" doc:"instance, the default: each gateway counts by itself. fleet: all together, out of budgets drawn ahead from Redis; for token buckets of 100 or more whose key is empty, activity, path, or both. Over the rate by at most a quarter of the burst, or 3 for each process if that is more; see overshoot in the counts"`
}

// Rate is a limit.Rate in JSON.
type Rate struct {
	Algorithm string `json:"algorithm" enum:"fixed,sliding,token,leaky" doc:"leaky makes purchases wait for their turn"`
	Limit     int64  `json:"limit" minimum:"1" doc:"Requests in each per"`
	Per       string `json:"per" doc:"1ms to 744h" example:"1s"`
	Burst     int64  `json:"burst,omitempty" minimum:"0" doc:"token: how many can be saved up, 0: as many as limit; leaky: how many may wait"`
}

const wrongID = "1 to 40 of a-z, 0-9, - and _, beginning with a letter or digit"

// Modes of a rule.
const (
	On     = "on"
	Shadow = "shadow"
	Off    = "off"
)

// Fleet is the scope of rules that all gateways keep together.
const Fleet = "fleet"

// Class is which routes a request and a rule belong to.
type Class uint8

const (
	Unlimited Class = iota // of routes that no rule concerns
	Purchases
	Reads
	Payments
	Slips // routes that hand out slips: tickets, challenges, joining a queue
	classes
)

var classNames = [classes]string{"unlimited", "purchases", "reads", "payments", "gate"}

// String is the name in rules.
func (c Class) String() string { return classNames[c] }

// ClassOf is the class of that name, or ErrRules.
func ClassOf(name string) (Class, error) {
	if i := slices.Index(classNames[Purchases:], name); i >= 0 {
		return Purchases + Class(i), nil
	}
	return 0, &RuleError{Field: "class", Why: fmt.Sprintf("%q is none of purchases, reads, payments, gate", name)}
}

// Bounds of rules.
const (
	MaxRules = 64
	// maxDelay is the longest that a purchase may wait for its turn: well below
	// the patience of shoppers, their browsers, and balancers.
	maxDelay = 5 * time.Second
	// maxPlaces bounds the tables of all rules together: 24 bytes each, 100 MB.
	maxPlaces = 1 << 22
	maxPath   = 200
	// minShared is the least capacity of a rate that gateways share.
	minShared = 100
)

// Places of a rule's table. People are as many as come; activities and paths
// are few, unless the path has an id in it.
const (
	placesOfOne    = 1
	placesOfFew    = 1 << 12
	placesOfPeople = 1 << 18
)

var (
	// ErrRules: a set of rules is not valid. It is in every RuleError.
	ErrRules = errors.New("invalid rules")
	// ErrRulesChanged: somebody has changed the rules since they were read.
	ErrRulesChanged = errors.New("the rules have been changed since")
	// ErrNoSuchRules: no rules have ever had this version.
	ErrNoSuchRules = errors.New("no such version of the rules")
	// ErrRateLimited: a rule refuses, for a time. It is in every Limited.
	ErrRateLimited = errors.New("rate limited")
)

// RuleError is a fault in a set of rules: which field, and what to do about it.
type RuleError struct {
	Field string // "rules[2].rate.per"
	Why   string
}

// Error names the field and the fault.
func (e *RuleError) Error() string { return e.Field + ": " + e.Why }

// Unwrap is ErrRules.
func (e *RuleError) Unwrap() error { return ErrRules }

// DefaultRules are those of a shop that has not set its own: one purchase a
// second for each user, and five at once, since a shopper whose first attempts
// are lost in a bad network is no flood. What is handed out before that, tickets
// and the like, may be asked for ten times at once.
func DefaultRules() RuleSet {
	return RuleSet{Rules: []Rule{{
		ID: "user", Class: "purchases", Key: []string{"user"}, Mode: On, Percent: 100,
		Rate: Rate{Algorithm: "token", Limit: 1, Per: "1s", Burst: 5},
	}, {
		ID: "gate-user", Class: "gate", Key: []string{"user"}, Mode: On, Percent: 100,
		Rate: Rate{Algorithm: "token", Limit: 1, Per: "1s", Burst: 10},
	}}}
}

// fault answers the field that is wrong and why, or nothing.
func (r *Rule) fault() (field, why string) {
	switch class, err := ClassOf(r.Class); {
	case !validRuleID(r.ID):
		return "id", wrongID
	case err != nil:
		return "class", strings.TrimPrefix(err.Error(), "class: ")
	case r.Activity != "" && (len(r.Activity) > stock.MaxID || !printable(r.Activity)):
		return "activity", "must be the id of an activity"
	case r.Activity != "" && class == Payments:
		return "activity", "the routes of payments tell no activity; leave it out"
	case r.Path != "" && (len(r.Path) > maxPath || !strings.HasPrefix(r.Path, "/v1/") || !printable(r.Path)):
		return "path", fmt.Sprintf("must begin with /v1/ and have at most %d printable characters", maxPath)
	case r.Mode != On && r.Mode != Shadow && r.Mode != Off:
		return "mode", fmt.Sprintf("%q is none of on, shadow, off", r.Mode)
	case r.Percent < 0 || r.Percent > 100:
		return "percent", fmt.Sprintf("%d is not in 0..100", r.Percent)
	case r.Scope != "" && r.Scope != "instance" && r.Scope != Fleet:
		return "scope", fmt.Sprintf("%q is neither instance nor fleet", r.Scope)
	}
	for i, name := range r.Key {
		switch {
		case !slices.Contains(partNames[:], name):
			return "key", fmt.Sprintf("%q is none of %s", name, strings.Join(partNames[:], ", "))
		case slices.Contains(r.Key[:i], name):
			return "key", fmt.Sprintf("%q stands twice", name)
		case name == "activity" && r.Class == "payments":
			return "key", "the routes of payments tell no activity"
		}
	}
	if field, why := r.rateFault(); why != "" {
		return field, why
	}
	return r.scopeFault()
}

// scopeFault is of a rule that is right but for its scope.
func (r *Rule) scopeFault() (field, why string) {
	rate := r.rate()
	switch {
	case r.Scope != Fleet:
	case partsOf(r.Key)&(byUser|byIP|byPhone) != 0:
		return "scope", "of each key every gateway holds a part ahead of need, so fleet is for few keys with large limits: none, activity, path, or both; by person leave it out"
	case rate.Algorithm != limit.TokenBucket:
		return "scope", fmt.Sprintf("a budget is a token bucket, and %s cannot set requests aside; take token", r.Rate.Algorithm)
	case capacity(rate) < minShared:
		return "scope", fmt.Sprintf("every gateway holds a part ahead of need, so fleet needs a burst (without one, a limit) of %d or more; for less leave it out", minShared)
	}
	return "", ""
}

func (r *Rule) rateFault() (field, why string) {
	var algorithm limit.Algorithm
	if err := algorithm.UnmarshalText([]byte(r.Rate.Algorithm)); err != nil {
		return "rate.algorithm", fmt.Sprintf("%q is none of fixed, sliding, token, leaky", r.Rate.Algorithm)
	}
	per, err := time.ParseDuration(r.Rate.Per)
	if err != nil {
		return "rate.per", fmt.Sprintf("%q is not a duration such as 500ms, 1s or 24h", r.Rate.Per)
	}
	rate := limit.Rate{Algorithm: algorithm, Limit: r.Rate.Limit, Per: per, Burst: r.Rate.Burst}
	if err := rate.Validate(); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		why = strings.TrimPrefix(first, limit.ErrRate.Error()+": ")
		field, _, _ = strings.Cut(why, " ")
		return "rate." + strings.TrimSuffix(field, ":"), why
	}
	if algorithm != limit.LeakyBucket {
		return "", ""
	}
	if r.Class != "purchases" {
		return "rate.algorithm", "leaky makes requests wait, which only purchases may; take token"
	}
	if wait := float64(rate.Burst) * float64(per) / float64(rate.Limit); wait > float64(maxDelay) {
		return "rate.burst", fmt.Sprintf("the last of %d would wait for %s; %s at most", rate.Burst, time.Duration(wait).Round(time.Millisecond), maxDelay)
	}
	return "", ""
}

// rate is the rate of a valid rule.
func (r *Rule) rate() (rate limit.Rate) {
	rate.Limit, rate.Burst = r.Rate.Limit, r.Rate.Burst
	rate.Per, _ = time.ParseDuration(r.Rate.Per)
	_ = rate.Algorithm.UnmarshalText([]byte(r.Rate.Algorithm))
	return rate
}

// capacity is how many requests a token bucket lets through at one moment.
func capacity(r limit.Rate) int64 {
	if r.Burst > 0 {
		return r.Burst
	}
	return r.Limit
}

// places is how many keys the table of a valid rule has room for.
func (r *Rule) places() int {
	switch parts := partsOf(r.Key); {
	case parts == 0:
		return placesOfOne
	case parts&(byUser|byIP|byPhone) != 0:
		return placesOfPeople
	}
	return placesOfFew
}

func validRuleID(id string) bool {
	for i := range len(id) {
		c := id[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 40
}

// printable allows printable ASCII without spaces.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
