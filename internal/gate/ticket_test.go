package gate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/internal/stock"
)

// Tickets are handed out from the lead before the opening until the end, and are
// good for ten minutes of that.
func TestTicketsAreHandedOutNearTheOpening(t *testing.T) {
	tickets := NewTickets([]TicketRule{
		{ID: "a", Activity: "spring", Mode: On, Lead: "30s"},
		{ID: "b", Activity: "autumn", Mode: Shadow},
		{ID: "c", Activity: "winter", Mode: Off},
	}, NewSeal(secret))
	opens, closes := noon, noon.Add(15*time.Minute)
	f := func(activity string, at, until time.Duration, want error) {
		t.Helper()
		now := opens.Add(at)
		text, slip, err := tickets.Grant(now, activity, "ann", opens, closes)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s at %v: %v, want %v", activity, at, err, want)
		}
		if err != nil && (text != "" || slip != (Slip{})) {
			t.Errorf("%s at %v: %q beside %v", activity, at, text, err)
		}
		if err == nil && !slip.Until.Equal(opens.Add(until)) {
			t.Errorf("%s at %v: until %v, want %v", activity, at, slip.Until.Sub(opens), until)
		}
	}
	const ms = time.Millisecond
	f("summer", 0, 0, ErrNoTicketNeeded)
	f("winter", 0, 0, ErrNoTicketNeeded)
	f("spring", -time.Hour, 0, stock.ErrNotOpen)
	f("spring", -30*time.Second-ms, 0, stock.ErrNotOpen)
	f("spring", -30*time.Second, 9*time.Minute+30*time.Second, nil)
	f("spring", 0, 10*time.Minute, nil)
	f("spring", 14*time.Minute, 15*time.Minute, nil)
	f("spring", 15*time.Minute-ms, 15*time.Minute, nil)
	f("spring", 15*time.Minute, 0, stock.ErrEnded)
	f("autumn", -time.Minute-ms, 0, stock.ErrNotOpen)
	f("autumn", -time.Minute, 9*time.Minute, nil)

	if from, some := tickets.From("spring", opens); !some || !from.Equal(opens.Add(-30*time.Second)) {
		t.Errorf("from %v, %v", from, some)
	}
	if from, some := tickets.From("winter", opens); some || !from.IsZero() {
		t.Errorf("from %v, %v", from, some)
	}
}

// A request is let through with a claim for the ledger, or in the name of the
// rule it is not; a shadow has nothing consumed.
func TestTicketsAreChecked(t *testing.T) {
	seal := NewSeal(secret)
	tickets := NewTickets([]TicketRule{{ID: "a", Activity: "spring", Mode: On}, {ID: "b", Activity: "autumn", Mode: Shadow}}, seal)
	grant := func(activity, user string) string {
		t.Helper()
		text, _, err := tickets.Grant(noon, activity, user, noon, noon.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	f := func(name, activity, user, ticket string, now time.Time, claims bool, lacks string) {
		t.Helper()
		claim, rule := tickets.Check(now, &Facts{Activity: activity, User: user, Shows: Shows{Ticket: ticket}})
		if claims != strings.HasPrefix(claim, "t:") || (claim == "") == claims {
			t.Errorf("%s: claim %q", name, claim)
		}
		if rule == nil && lacks != "" || rule != nil && rule.ID != lacks {
			t.Errorf("%s: lacks %+v, want %q", name, rule, lacks)
		}
	}
	spring, autumn := grant("spring", "ann"), grant("autumn", "ann")
	f("with one", "spring", "ann", spring, noon, true, "")
	f("just before its end", "spring", "ann", spring, noon.Add(ticketValid-1), true, "")
	f("after its end", "spring", "ann", spring, noon.Add(ticketValid), false, "a")
	f("without", "spring", "ann", "", noon, false, "a")
	f("of another user", "spring", "bob", spring, noon, false, "a")
	f("of another activity", "spring", "ann", autumn, noon, false, "a")
	f("a pass", "spring", "ann", seal.Sign(Slip{Pass, "spring", "ann", "1", noon.Add(time.Hour)}), noon, false, "a")
	f("none is asked for", "summer", "ann", "", noon, false, "")
	f("shadow with one", "autumn", "ann", autumn, noon, false, "")
	f("shadow without", "autumn", "ann", "", noon, false, "b")

	seen := map[string]bool{}
	for range 1000 {
		claim, _ := tickets.Check(noon, &Facts{Activity: "spring", User: "ann", Shows: Shows{Ticket: grant("spring", "ann")}})
		if seen[claim] {
			t.Fatalf("%s twice", claim)
		}
		if seen[claim] = true; len(claim) > 42 {
			t.Fatalf("claim %q", claim)
		}
	}
}

func TestTicketRulesAreValidated(t *testing.T) {
	f := func(want string, edit func(*TicketRule)) {
		t.Helper()
		r := TicketRule{ID: "a", Activity: "spring", Mode: On, Lead: "60s"}
		edit(&r)
		if field, why := r.fault(); field != want || (why == "") != (want == "") {
			t.Errorf("%+v: %q, %q; want a fault in %q", r, field, why, want)
		}
	}
	f("", func(*TicketRule) {})
	f("", func(r *TicketRule) { r.Lead = "" })
	f("", func(r *TicketRule) { r.Lead = "0s" })
	f("", func(r *TicketRule) { r.Lead = "24h" })
	f("id", func(r *TicketRule) { r.ID = "A" })
	f("activity", func(r *TicketRule) { r.Activity = "" })
	f("activity", func(r *TicketRule) { r.Activity = "a b" })
	f("activity", func(r *TicketRule) { r.Activity = strings.Repeat("a", stock.MaxID+1) })
	f("mode", func(r *TicketRule) { r.Mode = "maybe" })
	f("lead", func(r *TicketRule) { r.Lead = "-1s" })
	f("lead", func(r *TicketRule) { r.Lead = "24h0m1s" })
	f("lead", func(r *TicketRule) { r.Lead = "60" })
}
