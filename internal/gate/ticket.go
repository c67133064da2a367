package gate

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"sluice/internal/stock"
)

// ErrNoTicketNeeded: no rule asks for a ticket of this activity.
var ErrNoTicketNeeded = errors.New("this activity asks for no ticket")

// TicketRule makes an activity ask for a one-time ticket, which is handed out
// near the opening only: an attempt that was written before does nothing, and
// every ticket buys once.
type TicketRule struct {
	ID       string `json:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,39}$"`
	Activity string `json:"activity" minLength:"1" maxLength:"64"`
	Mode     string `json:"mode" enum:"on,shadow,off" doc:"shadow: tickets are handed out, and purchases without one are only counted"`
	Lead     string `json:"lead,omitempty" doc:"How long before the opening tickets are handed out, 0s to 24h, by default 60s" example:"60s"`
}

// Times of tickets.
const (
	defaultLead = time.Minute
	maxLead     = 24 * time.Hour
	ticketValid = 10 * time.Minute // and not longer than the activity
)

// fault answers the field that is wrong and why, or nothing.
func (t *TicketRule) fault() (field, why string) {
	switch {
	case !validRuleID(t.ID):
		return "id", wrongID
	case t.Activity == "" || len(t.Activity) > stock.MaxID || !printable(t.Activity):
		return "activity", "must be the id of an activity"
	case t.Mode != On && t.Mode != Shadow && t.Mode != Off:
		return "mode", fmt.Sprintf("%q is none of on, shadow, off", t.Mode)
	}
	if why := durationFault(t.Lead, 0, maxLead); why != "" {
		return "lead", why
	}
	return "", ""
}

// lead is that of a valid rule.
func (t *TicketRule) lead() time.Duration {
	if t.Lead == "" {
		return defaultLead
	}
	d, _ := time.ParseDuration(t.Lead)
	return d
}

// Tickets hands out the tickets that a set of rules asks for. Immutable.
type Tickets struct {
	seal *Seal
	of   map[string]*ticketed // by activity
}

// ticketed is an activity that has tickets.
type ticketed struct {
	TicketRule
	lead time.Duration
}

// NewTickets is for valid rules, of which none or one that is not off concerns
// an activity.
func NewTickets(rules []TicketRule, seal *Seal) *Tickets {
	t := &Tickets{seal, map[string]*ticketed{}}
	for i := range rules {
		if r := &rules[i]; r.Mode != Off {
			t.of[r.Activity] = &ticketed{*r, r.lead()}
		}
	}
	return t
}

// Rule answers the rule that asks for a ticket of an activity, or nil. Its mode
// is on or shadow.
func (t *Tickets) Rule(activity string) *TicketRule {
	if of := t.of[activity]; of != nil {
		return &of.TicketRule
	}
	return nil
}

// From is when tickets of an activity that opens then are handed out; false
// if it has none.
func (t *Tickets) From(activity string, opensAt time.Time) (time.Time, bool) {
	of := t.of[activity]
	if of == nil {
		return time.Time{}, false
	}
	return opensAt.Add(-of.lead), true
}

// Grant hands out a ticket, as its holder shows it. It can be used until 10 min
// from now or the end of the activity, whichever is earlier. Whoever asks again
// gets another one, for another purchase: how many a user can buy is the business of
// limits.
//
// Errors are ErrNoTicketNeeded, stock.ErrNotOpen before From, and stock.ErrEnded.
func (t *Tickets) Grant(now time.Time, activity, user string, opensAt, closesAt time.Time) (text string, slip Slip, err error) {
	from, some := t.From(activity, opensAt)
	switch {
	case !some:
		return "", Slip{}, ErrNoTicketNeeded
	case !now.Before(closesAt):
		return "", Slip{}, stock.ErrEnded
	case now.Before(from):
		return "", Slip{}, stock.ErrNotOpen
	}
	until := now.Add(ticketValid)
	if until.After(closesAt) {
		until = closesAt
	}
	// 26 letters and digits, 130 random bits: no two tickets are the same one, at
	// whatever gateway.
	slip = Slip{Kind: Ticket, Activity: activity, User: user, ID: rand.Text(), Until: until}
	return t.seal.Sign(slip), slip, nil
}

// Check answers the claim of the ticket that a request shows, which the reserve
// is to consume; and the rule that asks for one where none was shown that can
// be used. A rule that is a shadow asks for nothing and has nothing consumed: a
// ticket that was used twice would be refused by the ledger.
func (t *Tickets) Check(now time.Time, f *Facts) (claim string, lacks *TicketRule) {
	of := t.of[f.Activity]
	if of == nil {
		return "", nil
	}
	slip, err := t.seal.Open(Ticket, f.Shows.Ticket, f.Activity, f.User, now)
	switch {
	case err != nil:
		return "", &of.TicketRule
	case of.Mode == Shadow:
		return "", nil
	}
	return slip.Claim(), nil
}
