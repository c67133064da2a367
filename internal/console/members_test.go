package console_test

import (
	"testing"
	"time"

	"sluice/internal/console"
	"sluice/internal/lib/cluster"
)

// Operators see who is there, how it is and who has gone; whether that is now;
// and, of a fleet without a list, that there is none.
func TestMembers(t *testing.T) {
	b := newBench(t, func(*console.Config) {})
	b.want(404, "no_members", "GET", "/v1/members", "")

	at := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	fresh, asOf := true, at
	var list []cluster.Seen
	b = newBench(t, func(c *console.Config) {
		c.Members = func() ([]cluster.Seen, time.Time, bool) { return list, asOf, fresh }
	})
	see := func(pairs ...any) {
		t.Helper()
		b.equal(b.want(200, "", "GET", "/v1/members", ""), pairs...)
	}
	list = []cluster.Seen{
		{Member: cluster.Member{Name: "a", Role: "gateway", Joined: at, Since: at.Add(time.Second), Addresses: map[string]string{"shopper": "h:8080"},
			Metadata: map[string]string{"host": "h", "version": "v2"}}, LastSeen: at},
		{Member: cluster.Member{Name: "b", Role: "worker", Ailing: "the ledger is away"}, LastSeen: at},
		{Member: cluster.Member{Name: "c", Role: "worker", Ailing: "the ledger was away"}, LastSeen: at.Add(-time.Minute), Gone: true},
	}
	see("source", "etcd", "as_of", "2026-11-11T20:00:00.000Z", "members.3", nil,
		"members.0.name", "a", "members.0.role", "gateway", "members.0.state", "well", "members.0.why", nil, "members.0.since", "2026-11-11T20:00:01.000Z",
		"members.0.joined", "2026-11-11T20:00:00.000Z", "members.0.version", "v2", "members.0.host", "h", "members.0.addresses.shopper", "h:8080",
		"members.1.state", "ailing", "members.1.why", "the ledger is away", "members.2.state", "gone", "members.2.last_seen", "2026-11-11T19:59:00.000Z")
	fresh = false
	see("source", "last_known", "as_of", "2026-11-11T20:00:00.000Z")
	list, asOf = nil, time.Time{}
	see("source", "last_known", "as_of", nil, "members.0", nil)
}
