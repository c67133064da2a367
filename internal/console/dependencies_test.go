package console_test

import (
	"testing"

	"sluice/internal/console"
	"sluice/internal/lib/call"
)

// Operators see what is called, hold its breaker and let it go; what they did is
// in the audit log, and a name that is not called is told.
func TestDependencies(t *testing.T) {
	bank, err := call.NewDependency(call.Options{Name: "bank"})
	must(t, err)
	b := newBench(t, func(c *console.Config) {
		c.Dependencies = []console.Dependency{{Name: "bank", Breaker: bank.Breaker, Bulkhead: bank.Bulkhead,
			Refused: func() map[string]uint64 { return map[string]uint64{"open": 7} }}}
	})
	b.equal(b.want(200, "", "GET", "/v1/dependencies", ""), "dependencies.0.name", "bank", "dependencies.0.state", "closed",
		"dependencies.0.held", false, "dependencies.0.refused.open", 7, "dependencies.0.until", nil, "dependencies.1", nil)
	b.equal(b.want(200, "", "POST", "/v1/dependencies/bank/hold", `{"state":"open","reason":"maintenance"}`), "state", "open", "held", true)
	b.equal(b.want(200, "", "POST", "/v1/dependencies/bank/auto", ""), "state", "half_open", "held", false)
	b.equal(b.want(200, "", "POST", "/v1/dependencies/bank/hold", `{"state":"closed"}`), "state", "closed", "held", true)
	b.want(400, "invalid_request", "POST", "/v1/dependencies/bank/hold", `{"state":"half_open"}`)
	b.want(400, "invalid_request", "POST", "/v1/dependencies/bank/hold", `{}`)
	b.want(404, "no_such_dependency", "POST", "/v1/dependencies/moon/hold", `{"state":"open"}`)
	b.want(404, "no_such_dependency", "POST", "/v1/dependencies/moon/auto", "")
	b.equal(b.want(200, "", "GET", "/v1/audit", ""), "entries.0.action", "dependency.auto", "entries.0.subject", "moon",
		"entries.1.action", "dependency.hold", "entries.4.action", "dependency.hold", "entries.4.subject", "bank",
		"entries.4.detail.reason", "maintenance", "entries.5", nil)
}
