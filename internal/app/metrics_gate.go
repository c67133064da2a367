package app

import (
	"sluice/internal/gate"
)

var (
	roomDesc       = describe("waiting_people", "People of a waiting room: joined, waiting (the absent too), called (and there), absent (passed over), outstanding (called, and may still buy), unused (passes that ran out).", "activity", "which")
	roomRateDesc   = describe("waiting_rate", "People a second whom a waiting room is to call.", "activity")
	roomSpeedDesc  = describe("waiting_speed", "Places a second by which the line of a waiting room moves.", "activity")
	roomErrorDesc  = describe("waiting_estimate_error_seconds", "By how much estimates of when somebody is called have been wrong lately, on average.", "activity")
	challengeDesc  = describe("challenges_total", "Challenges handed out (given), of these with pictures used before (repeated), and asked for when none was ready (lacking).", "kind", "which")
	challengesDesc = describe("challenges_ready", "Pictures ready that nobody has seen.", "kind")
	suspectedDesc  = describe("challenge_signals_total", "Requests that looked like a program's to a rule about challenges, by signal.", "rule", "signal")
	pulledDesc     = describe("switch_active", "1 while a playbook has a switch on, for all activities or for some.", "switch")
	listedDesc     = describe("list_entries", "Entries of the black, white and grey lists.")
)

// entering tells how shoppers come in. Activities with a room are bounded by those
// that are on show, kinds, rules, signals and switches are fixed.
func (c *collector) entering(m meter) {
	for _, r := range c.rooms.Stats() {
		for which, n := range map[string]int{
			"joined": r.Joined, "waiting": r.Waiting, "called": r.Called, "absent": r.Absent, "outstanding": r.Outstanding, "unused": r.Unused,
		} {
			m.gauge(roomDesc, float64(n), r.Activity, which)
		}
		m.gauge(roomRateDesc, r.Rate, r.Activity)
		m.gauge(roomSpeedDesc, r.Speed, r.Activity)
		m.gauge(roomErrorDesc, r.ETAError.Seconds(), r.Activity)
	}
	for _, p := range c.challenges.Counts() {
		m.gauge(challengesDesc, float64(p.Fresh), p.Kind)
		for which, n := range map[string]uint64{"given": p.Given, "repeated": p.Repeated, "lacking": p.Lacking} {
			m.counter(challengeDesc, float64(n), p.Kind, which)
		}
	}
	for _, r := range c.rules.Door.Suspected() {
		for signal, n := range r.By {
			m.counter(suspectedDesc, float64(n), r.Rule, signal)
		}
	}
	m.gauge(listedDesc, float64(c.lists.Lists.Count()))
	c.pulled(m)
}

// pulled tells which switches are on.
func (c *collector) pulled(m meter) {
	in := c.rules.Door.Switches.Now()
	for s := gate.SwitchStaleDetail; s <= gate.SwitchReadOnlyOrders; s++ {
		m.gauge(pulledDesc, truth(in.Anywhere(s)), s.String())
	}
}
