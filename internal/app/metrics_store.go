package app

import "strconv"

// Metrics of the store's replicas. Their labels are the servers in the address.
var (
	behindDesc  = describe("replica_behind_seconds", "How far behind its primary a replica is at most, as this process last proved; -1: never proved.", "database", "host")
	replicaDesc = describe("replica_read", "1 for the replica that this process reads.", "database", "host")
	primaryDesc = describe("store_primary", "1 for the server that is a database's primary, as far as this process knows.", "database", "host")
	readsDesc   = describe("store_shown_reads_total", "Reads that a replica may answer, by who answered.", "by")
)

// replicas tells of the store's replicas, if it has any.
func (c *collector) replicas(m meter) {
	if !c.shown.Replicated() {
		return
	}
	servers, reads := c.store.Replicas()
	for _, s := range servers {
		database := strconv.Itoa(s.Database)
		m.gauge(primaryDesc, truth(s.Primary), database, s.Host)
		if s.Primary {
			continue
		}
		behind := s.Behind.Seconds()
		if s.Behind < 0 {
			behind = -1
		}
		m.gauge(behindDesc, behind, database, s.Host)
		m.gauge(replicaDesc, truth(s.Read), database, s.Host)
	}
	m.counter(readsDesc, float64(reads.Replica), "replica")
	m.counter(readsDesc, float64(reads.Primary), "primary")
}
