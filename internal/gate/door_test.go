package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// spent is a memory of what was used.
type spent map[string]bool

func (s spent) Spend(_ context.Context, id string, _ time.Time) (bool, error) {
	if id == "away" {
		return false, errors.New("away")
	}
	first := !s[id]
	s[id] = true
	return first, nil
}

var doorSeal = NewSeal([]byte("a secret of this shop, long enough"))

func doorWith(t testing.TB, rules RuleSet) *Door {
	t.Helper()
	d := NewDoor(noon, doorSeal, spent{})
	rules.Version = 1
	if err := d.Apply(Edition{RuleSet: rules}, noon); err != nil {
		t.Fatal(err)
	}
	return d
}

func slipOf(kind SlipKind, user, id string) string {
	return doorSeal.Sign(Slip{Kind: kind, Activity: "act", User: user, ID: id, Until: noon.Add(time.Minute)})
}

// everything asks a purchase for all there is.
func everything(mode string) RuleSet {
	return RuleSet{
		Eligibility: []Condition{{ID: "level", Activity: "act", Mode: mode, When: "level >= 2"}},
		Challenges:  []Challenge{{ID: "puzzle", Activity: "act", Mode: mode, When: Always}},
		Tickets:     []TicketRule{{ID: "ticket", Activity: "act", Mode: mode}},
		Rooms:       []RoomRule{{ID: "room", Activity: "act", Mode: mode}},
	}
}

// Each thing that is asked for is asked for, in order, and what is shown is claimed.
func TestDoorAsks(t *testing.T) {
	d := doorWith(t, everything(On))
	two := &Claims{Level: 2}
	f := func(claims *Claims, shows Shows, wantRule string, wantErr error, want ...string) {
		t.Helper()
		got, err := d.Enter(t.Context(), noon, &Facts{Class: Purchases, Activity: "act", User: "ann", Claims: claims, Shows: shows})
		r, _ := errors.AsType[*Refused](err)
		if !errors.Is(err, wantErr) || (wantErr != nil) != (r != nil) || r != nil && r.Rule != wantRule {
			t.Errorf("%+v: %v, want %v by %s", shows, err, wantErr, wantRule)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: claims %v, want %v", shows, got, want)
		}
	}
	ticket, pass, clearance := slipOf(Ticket, "ann", "1"), slipOf(Pass, "ann", "2"), slipOf(Clearance, "ann", "3")
	f(nil, Shows{Ticket: ticket, Pass: pass}, "level", ErrNotEligible)
	f(two, Shows{}, "ticket", ErrTicketRequired)
	f(two, Shows{Ticket: slipOf(Ticket, "bob", "1"), Pass: pass}, "ticket", ErrTicketRequired)
	f(two, Shows{Ticket: pass, Pass: ticket}, "ticket", ErrTicketRequired)
	f(two, Shows{Ticket: ticket}, "room", ErrQueued)
	f(two, Shows{Ticket: ticket, Pass: slipOf(Pass, "bob", "2")}, "room", ErrQueued)
	f(two, Shows{Ticket: ticket, Pass: pass}, "", nil, "t:1", "p:2")

	// The challenge alone: nobody was asked before.
	d = doorWith(t, RuleSet{Challenges: everything(On).Challenges})
	f(nil, Shows{}, "puzzle", ErrChallengeRequired)
	f(nil, Shows{Clearance: slipOf(Clearance, "bob", "3")}, "puzzle", ErrChallengeRequired)
	f(nil, Shows{Clearance: clearance}, "", nil, "c:3")
	f(nil, Shows{Pass: pass}, "puzzle", ErrChallengeRequired) // of a room that is not there any more
	if got, err := d.Enter(t.Context(), noon.Add(time.Hour), &Facts{Class: Purchases, Activity: "act", User: "ann", Shows: Shows{Clearance: clearance}}); err == nil {
		t.Errorf("an old clearance is good for %v", got)
	}
	// Of another activity nothing is asked.
	if got, err := d.Enter(t.Context(), noon, &Facts{Class: Purchases, Activity: "other", User: "ann"}); err != nil || got != nil {
		t.Errorf("another activity: %v, %v", got, err)
	}
}

// A rule that is a shadow counts what it would refuse, and refuses and claims nothing.
func TestDoorShadows(t *testing.T) {
	d := doorWith(t, everything(Shadow))
	for _, shows := range []Shows{{}, {Ticket: slipOf(Ticket, "ann", "1"), Pass: slipOf(Pass, "ann", "2"), Clearance: slipOf(Clearance, "ann", "3")}} {
		if claims, err := d.Enter(t.Context(), noon, &Facts{Class: Purchases, Activity: "act", User: "ann", Shows: shows}); err != nil || len(claims) > 0 {
			t.Errorf("%+v: %v, %v", shows, claims, err)
		}
	}
	for _, c := range d.Counts() {
		if c.Refused != 0 || c.Rule != "user" && c.Rule != "gate-user" && c.ShadowRefused == 0 {
			t.Errorf("%+v", c)
		}
	}
}

// Whoever wants a ticket or a place is asked for the challenge there, and then not
// again; a clearance is good once.
func TestApproach(t *testing.T) {
	d := doorWith(t, everything(On))
	ask := func(user, clearance string) error {
		return d.Approach(t.Context(), noon, &Facts{Class: Slips, Activity: "act", User: user, Claims: &Claims{Level: 3}, Shows: Shows{Clearance: clearance}})
	}
	if err := ask("ann", ""); !errors.Is(err, ErrChallengeRequired) {
		t.Errorf("without a clearance: %v", err)
	}
	c := slipOf(Clearance, "ann", "7")
	if err := ask("bob", c); !errors.Is(err, ErrChallengeRequired) {
		t.Errorf("bob with ann's: %v", err)
	}
	if err := ask("ann", c); err != nil {
		t.Errorf("with a clearance: %v", err)
	}
	if err := ask("ann", c); !errors.Is(err, ErrChallengeRequired) {
		t.Errorf("with the same again: %v", err)
	}
	err := d.Approach(t.Context(), noon, &Facts{Class: Slips, Activity: "act", User: "ann", Shows: Shows{Clearance: slipOf(Clearance, "ann", "8")}})
	if !errors.Is(err, ErrNotEligible) {
		t.Errorf("at level 0: %v", err)
	}
}

// Switches and lists come before rules, and say by whom they are.
func TestDoorUnderSwitches(t *testing.T) {
	d := doorWith(t, RuleSet{})
	buy := func(shows Shows) error {
		_, err := d.Enter(t.Context(), noon, &Facts{Class: Purchases, Activity: "act", User: "ann", Shows: shows})
		return err
	}
	pull := func(s Switches) {
		t.Helper()
		if err := d.Switches.Apply([]Pulled{{Playbook: "pb", Steps: []PlaybookStep{{Switches: s}}}}); err != nil {
			t.Fatal(err)
		}
	}
	f := func(err, want error) {
		t.Helper()
		r, ok := errors.AsType[*Refused](err)
		if !errors.Is(err, want) || !ok || r.Rule != "playbook:pb" {
			t.Errorf("%v, want %v by the playbook", err, want)
		}
		if rule, why := d.Limits.RuleIn(r.Slot, noon); rule == "" || why != want {
			t.Errorf("slot %d is of %q, %v; want %v", r.Slot, rule, why, want)
		}
	}
	if err := buy(Shows{}); err != nil {
		t.Fatal(err)
	}
	pull(Switches{ReadOnlyOrders: true})
	f(buy(Shows{}), ErrReadOnly)
	pull(Switches{Queue: true})
	f(buy(Shows{}), ErrQueued)
	if err := buy(Shows{Pass: slipOf(Pass, "ann", "1")}); err != nil {
		t.Errorf("with a pass: %v", err)
	}
	if _, ok := d.Room("act"); !ok {
		t.Error("there is no room")
	}
	pull(Switches{Captcha: true})
	f(buy(Shows{}), ErrChallengeRequired)
	pull(Switches{CloseRegistration: true})
	f(d.Approach(t.Context(), noon, &Facts{Class: Slips, Activity: "act", User: "ann"}), ErrRegistrationClosed)
	if err := buy(Shows{}); err != nil {
		t.Errorf("who needs nothing: %v", err)
	}
	if err := d.Switches.Apply(nil); err != nil || buy(Shows{}) != nil {
		t.Errorf("after the playbook: %v", err)
	}
}

// A refusal costs no memory, whatever refuses.
func TestDoorRefusesWithoutAllocating(t *testing.T) {
	rules := everything(On)
	rules.Eligibility = nil // its machines are in a pool, which the race detector empties
	d := doorWith(t, rules)
	f := &Facts{Class: Purchases, Activity: "act", User: "ann", Claims: &Claims{Level: 2}}
	refused := func(d *Door) {
		t.Helper()
		n := testing.AllocsPerRun(1000, func() {
			if _, err := d.Enter(t.Context(), noon, f); err == nil {
				t.Fatal("let in")
			}
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	refused(d)
	for _, s := range []Switches{{Queue: true}, {Captcha: true}, {ReadOnlyOrders: true}} {
		d := doorWith(t, RuleSet{})
		if err := d.Switches.Apply([]Pulled{{Playbook: "pb", Steps: []PlaybookStep{{Switches: s}}}}); err != nil {
			t.Fatal(err)
		}
		refused(d)
		counted := false
		for _, c := range d.Counts() {
			counted = counted || strings.HasPrefix(c.Rule, "switch:") && c.Refused >= 1000
		}
		if counted == s.ReadOnlyOrders { // which the counts of codes tell of
			t.Errorf("%+v: counted %v", s, counted)
		}
	}
}

// The white list spares a challenge, and no condition: nobody waits in vain.
func TestWhiteListedStillHaveToBeEligible(t *testing.T) {
	d := doorWith(t, everything(On))
	d.Lists.apply(d.Lists.now.Load(), []ListEntry{{List: "white", Kind: "user", Subject: "ann", Revision: 1}}, true)
	f := &Facts{Class: Slips, Activity: "act", User: "ann"}
	if d.Lists.Standing(noon, f) != White {
		t.Fatal("not on the list")
	}
	if err := d.Approach(t.Context(), noon, f); !errors.Is(err, ErrNotEligible) {
		t.Errorf("at level 0: %v", err)
	}
	f.Claims = &Claims{Level: 2}
	if err := d.Approach(t.Context(), noon, f); err != nil {
		t.Errorf("at level 2: %v", err)
	}
}

// BenchmarkDoor is what the gate adds to a purchase:
//
//	go test -run '^$' -bench Door ./internal/gate
func BenchmarkDoor(b *testing.B) {
	run := func(name string, rules RuleSet, shows Shows, want error) {
		b.Run(name, func(b *testing.B) {
			d := doorWith(b, rules)
			f := &Facts{Class: Purchases, Activity: "act", User: "ann", Claims: &Claims{Level: 2}, Shows: shows}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Enter(b.Context(), noon, f); !errors.Is(err, want) {
					b.Fatal(err)
				}
			}
		})
	}
	run("nothing", RuleSet{}, Shows{}, nil)
	limit := DefaultRules()
	limit.Rules[0].Rate = Rate{Algorithm: "token", Limit: 1_000_000_000, Per: "1s"}
	run("a-limit", limit, Shows{}, nil)
	run("no-pass", everything(On), Shows{Ticket: slipOf(Ticket, "ann", "1")}, ErrQueued)
	run("a-pass", RuleSet{Rooms: everything(On).Rooms}, Shows{Pass: slipOf(Pass, "ann", "2")}, nil)
	run("all", everything(On), Shows{Ticket: slipOf(Ticket, "ann", "1"), Pass: slipOf(Pass, "ann", "2")}, nil)
}
