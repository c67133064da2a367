package gate

import (
	"errors"
	"strings"
)

// Why the gate refuses. Each comes in a *Refused, which names the rule.
var (
	// ErrNotEligible: the user is on the black list, or a condition of the
	// activity does not hold for him.
	ErrNotEligible = errors.New("not eligible")
	// ErrTicketRequired: the activity asks for a ticket, and none was shown that
	// can be used.
	ErrTicketRequired = errors.New("a ticket is required")
	// ErrQueued: there is a waiting room before the activity, and no pass of it
	// was shown that can be used.
	ErrQueued = errors.New("a pass of the waiting room is required")
	// ErrChallengeRequired: a challenge has to be solved first.
	ErrChallengeRequired = errors.New("a challenge has to be solved")
	// ErrReadOnly: a playbook has closed the shop to changes.
	ErrReadOnly = errors.New("read only")
	// ErrRegistrationClosed: a playbook lets nobody new in.
	ErrRegistrationClosed = errors.New("registration is closed")
)

// Refused is a refusal by something else than a rate: which rule, and what it
// asks for. It is made when the rules are, and shared by all whom they refuse.
type Refused struct {
	Rule string // "blacklist" for a list, "playbook:<id>" for a switch
	Slot uint8  // stands for it in Refusals
	Err  error  // one of the errors above
}

// Error names the rule.
func (r *Refused) Error() string { return "rule " + r.Rule + ": " + r.Err.Error() }

// Unwrap is the reason.
func (r *Refused) Unwrap() error { return r.Err }

// names are what slots are given by: the id of a rule of how often, and of all
// else that refuses its section and id. Ids are unique over the sections, but
// one may move to another section later.
const (
	eligibilitySection = "eligibility/"
	ticketSection      = "tickets/"
	roomSection        = "rooms/"
	challengeSection   = "challenges/"
	blackList          = "lists/blacklist"
	readOnlySwitch     = "switches/read_only_orders"
	closedSwitch       = "switches/close_registration"
	captchaSwitch      = "switches/captcha"
	queueSwitch        = "switches/queue"
	greyList           = "lists/greylist"
)

// always are names that no edition has in it, and that are always in use.
var always = []string{blackList, greyList, readOnlySwitch, closedSwitch, captchaSwitch, queueSwitch}

// meant is what a slot's name says: the rule, and the reason of its refusals.
func meant(name string) (rule string, why error) {
	section, id, found := strings.Cut(name, "/")
	if !found {
		return name, ErrRateLimited
	}
	switch section + "/" {
	case ticketSection:
		return id, ErrTicketRequired
	case roomSection:
		return id, ErrQueued
	case challengeSection:
		return id, ErrChallengeRequired
	}
	switch name {
	case readOnlySwitch:
		return id, ErrReadOnly
	case closedSwitch:
		return id, ErrRegistrationClosed
	case queueSwitch:
		return id, ErrQueued
	case captchaSwitch, greyList:
		return id, ErrChallengeRequired
	}
	return id, ErrNotEligible
}
