package app

import "sluice/internal/lib/call"

var (
	shedLimitDesc   = describe("shedding_limit", "Reads of the store that may be in flight for shoppers, as found from how long they take.")
	shedFlightDesc  = describe("shedding_in_flight", "Reads of the store in flight for shoppers.")
	shedBoundDesc   = describe("shedding_bound", "Reads in flight, of all work, below which this kind of work is admitted.", "work")
	shedRefusedDesc = describe("shedding_refusals_total", "Reads of the store that were refused, by kind of work.", "work")
	circuitDesc     = describe("dependency_state", "1 for the state in which the breaker of a dependency is.", "dependency", "state")
	heldDesc        = describe("dependency_held", "1 while an operator holds the breaker of a dependency.", "dependency")
	callsDesc       = describe("dependency_in_flight", "Calls of a dependency in flight.", "dependency")
	unmadeDesc      = describe("dependency_refusals_total", "Calls of a dependency that were not made, by reason.", "dependency", "reason")
)

// shed tells what is refused so that the store stands. Kinds of work are fixed.
func (c *collector) shed(m meter) {
	s := c.shedding.Status()
	m.gauge(shedLimitDesc, float64(s.Limit))
	m.gauge(shedFlightDesc, float64(s.InFlight))
	for work, bound := range s.Bounds {
		m.gauge(shedBoundDesc, float64(bound), work)
		m.counter(shedRefusedDesc, float64(s.Refused[work]), work)
	}
}

// outsideOf tells how the dependencies stand. They, their states and the reasons
// are fixed.
func (c *collector) outsideOf(m meter) {
	for _, d := range c.dependencies {
		is := d.Breaker.Status()
		for _, state := range []call.State{call.Closed, call.Open, call.HalfOpen} {
			m.gauge(circuitDesc, truth(is.State == state), d.name, state.String())
		}
		m.gauge(heldDesc, truth(is.Held), d.name)
		m.gauge(callsDesc, float64(d.Bulkhead.InFlight()), d.name)
		for reason, n := range d.refused() {
			m.counter(unmadeDesc, float64(n), d.name, reason)
		}
	}
}
