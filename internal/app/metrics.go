package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/internal/api"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/console"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// metrics turns the parts' own counters into a registry. The label sets are
// bounded: codes and alarm kinds are fixed, SKUs are those of open activities.
func (e *engine) metrics(gateway *api.Server) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{e, gateway},
	)
	return r
}

// collector reads the counters when it is asked.
type collector struct {
	*engine
	gateway *api.Server
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

var (
	acceptedDesc    = describe("purchases_accepted_total", "Purchases accepted for the first time.")
	replayedDesc    = describe("purchases_replayed_total", "Purchases answered with the receipt of an earlier acceptance.")
	ruledDesc       = describe("rule_decisions_total", "Decisions of the gate's rules, by rule: allowed, refused, or shadow_refused by one that is only tried.", "rule", "decision")
	ruleKeysDesc    = describe("rule_forgotten_keys_total", "Keys that may have got more than a rule allows, for want of places.", "rule")
	rulesDesc       = describe("rules_version", "Version of the gate's rules in force.")
	refusedDesc     = describe("refusals_total", "Replies that were refusals, by code.", "code")
	streamsDesc     = describe("event_streams", "Open event streams.")
	connectionsDesc = describe("connections", "Open shopper connections, event streams left out.")
	inFlightDesc    = describe("in_flight", "Requests being served, by class of route.", "class")
	unitsDesc       = describe("units", "Units of a SKU by place.", "activity", "sku", "place")
	headDesc        = describe("log_position", "Durable head of the ledger's log.")
	startDesc       = describe("log_start", "Position behind which the ledger's log starts: what is before it was let go.")
	sizeDesc        = describe("log_bytes", "Size of the ledger's log on the disk.")
	landedDesc      = describe("landed_position", "Last log position landed as orders.")
	delayDesc       = describe("landing_delay_seconds", "Age of the oldest log entry that is not landed.")
	stoppedDesc     = describe("landing_stopped", "1 while landing is stopped by an entry or the store.")
	batchDesc       = describe("landing_batch_seconds", "Time of a landing commit.")
	backlogDesc     = describe("outbox_backlog", "Messages not delivered yet.")
	oldestDesc      = describe("outbox_oldest_seconds", "Age of the oldest message that is not delivered, dead letters included; 0 = none.")
	sentDesc        = describe("outbox_delivered_total", "Messages delivered.")
	failedDesc      = describe("outbox_failures_total", "Attempts to deliver a message that failed.")
	buriedDesc      = describe("outbox_buried_total", "Messages given up, which are dead letters until they are redriven.")
	alarmDesc       = describe("alarms_total", "Things a person should look at, by kind.", "kind")
	violatedDesc    = describe("settle_violations_total", "Settlements that contradicted the outcome that stands.")
	provedDesc      = describe("proof_ok", "1 when the newest audit of an activity found all books to agree.", "activity")
	faultsDesc      = describe("proof_violations", "Violations that the newest audit of an activity found.", "activity")
	proofAgeDesc    = describe("proof_age_seconds", "Age of the newest audit of an activity.", "activity")
	ledgerDesc      = describe("ledger_failed", "1 when the ledger stopped accepting because its log cannot be written.")
)

// Describe is empty on purpose: the collector is unchecked, since SKUs come and go.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// meter hands values to the registry.
type meter struct{ ch chan<- prometheus.Metric }

func (m meter) counter(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (m meter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// batches is the histogram of landing commits.
func (m meter) batches(times [len(order.BatchBounds) + 1]uint64, sum time.Duration) {
	buckets := map[float64]uint64{}
	var total uint64
	for i, bound := range order.BatchBounds {
		total += times[i]
		buckets[float64(bound)/1000] = total
	}
	total += times[len(times)-1]
	m.ch <- prometheus.MustNewConstHistogram(batchDesc, total, sum.Seconds(), buckets)
}

// Collect implements prometheus.Collector: of what this process's role has.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	m := meter{ch}
	if c.gateway != nil {
		c.attempts(m)
		c.ruled(m)
		c.shed(m)
		c.entering(m)
	}
	if c.role.console {
		for _, v := range c.shop.Views() {
			c.units(m, v.ID)
		}
		c.audits(m)
	}
	switch {
	case c.alone != nil:
		c.alone.collect(m)
		c.delivery(m)
	default:
		c.fleet.collect(m)
		if c.role.worker {
			c.delivery(m)
			if c.bus != nil {
				c.bus.collect(m, c.clock.Now())
			}
		}
	}
	c.outsideOf(m)
	c.replicas(m)
	for kind, n := range c.alarms.Counts() {
		m.counter(alarmDesc, float64(n), kind)
	}
	_, violations := c.settler.Violations()
	m.counter(violatedDesc, float64(violations))
}

// attempts are what shoppers did.
func (c *collector) attempts(m meter) {
	g := c.gateway.Metrics()
	m.counter(acceptedDesc, float64(g.Accepted))
	m.counter(replayedDesc, float64(g.Replayed))
	for code, n := range g.Refused {
		m.counter(refusedDesc, float64(n), code)
	}
	m.gauge(streamsDesc, float64(g.Streams))
	m.gauge(connectionsDesc, float64(g.Connections))
	for class, n := range g.InFlight {
		m.gauge(inFlightDesc, float64(n), class)
	}
}

// ruled is what the rules have decided. There are at most gate.MaxRules at a
// time; one that is taken out of the set is no longer told of.
func (c *collector) ruled(m meter) {
	m.gauge(rulesDesc, float64(c.rules.Limits.Edition().Version))
	for _, n := range c.rules.Door.Counts() {
		m.counter(ruledDesc, float64(n.Allowed), n.Rule, "allowed")
		m.counter(ruledDesc, float64(n.Refused), n.Rule, "refused")
		m.counter(ruledDesc, float64(n.ShadowRefused), n.Rule, "shadow_refused")
		m.counter(ruleKeysDesc, float64(n.Forgotten), n.Rule)
	}
}

// audits are the newest reports of activities on show, and of those with faults.
func (c *collector) audits(m meter) {
	shown := map[stock.ActivityID]bool{}
	for _, v := range c.shop.Views() {
		shown[v.ID] = true
	}
	for _, r := range c.books.reports() {
		if r.OK && !shown[r.Activity] {
			continue // over and proved
		}
		activity := string(r.Activity)
		m.gauge(provedDesc, truth(r.OK), activity)
		m.gauge(faultsDesc, float64(r.Found), activity)
		m.gauge(proofAgeDesc, max(0, c.clock.Now().Sub(r.CheckedAt).Seconds()), activity)
	}
}

// delivery is how the outbox is doing.
func (c *collector) delivery(m meter) {
	o, err := c.relay.Stats(context.Background())
	m.counter(sentDesc, float64(o.Delivered))
	m.counter(failedDesc, float64(o.Failed))
	m.counter(buriedDesc, float64(o.Buried))
	if err == nil {
		m.gauge(backlogDesc, float64(o.Unfinished))
		m.gauge(oldestDesc, age(c.clock.Now(), o.Oldest))
	}
}

// collect tells of the ledger's log, and of landing.
func (a *alone) collect(m meter) {
	m.gauge(headDesc, float64(a.wal.Head().Position))
	m.gauge(startDesc, float64(a.wal.Start().Position))
	m.gauge(sizeDesc, float64(a.wal.LogSize()))
	s := a.lander.Stats()
	m.gauge(landedDesc, float64(s.Landed.Position))
	m.gauge(delayDesc, s.Delay.Seconds())
	m.gauge(stoppedDesc, truth(s.Stopped || s.Fenced))
	m.batches(s.Times, s.TimesSum)
	m.gauge(ledgerDesc, truth(a.wal.Failed() != nil))
}

// units are as the board shows them, which asks no server.
func (c *collector) units(m meter, activity stock.ActivityID) {
	face := c.board.Face(activity)
	if face == nil {
		return
	}
	counts, _ := face.Counts()
	for _, it := range counts.Items {
		places := map[string]int{"free": it.Free, "held": it.Held, "confirmed": it.Confirmed}
		if c.fleet != nil {
			places["in_transit"] = it.InTransit
		}
		for place, n := range places {
			m.gauge(unitsDesc, float64(n), string(activity), string(it.SKU), place)
		}
	}
}

// age in seconds of what happened at a Unix millisecond; 0 = nothing did.
func age(now time.Time, at int64) float64 {
	if at == 0 {
		return 0
	}
	return max(0, now.Sub(time.UnixMilli(at)).Seconds())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// auditLog is the store's audit log in the console's words.
type auditLog struct{ store *sqlstore.Store }

// Audit saves an entry.
func (a auditLog) Audit(ctx context.Context, e console.AuditEntry) error {
	return a.store.Audit(ctx, sqlstore.AuditEntry(e))
}

// AuditLog pages through the entries, newest first.
func (a auditLog) AuditLog(ctx context.Context, before int64, limit int) ([]console.AuditEntry, error) {
	page, err := a.store.AuditLog(ctx, before, limit)
	out := make([]console.AuditEntry, len(page))
	for i, e := range page {
		out[i] = console.AuditEntry(e)
	}
	return out, err
}
