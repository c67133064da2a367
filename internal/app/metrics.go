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
	refusedDesc     = describe("refusals_total", "Replies that were refusals, by code.", "code")
	streamsDesc     = describe("event_streams", "Open event streams.")
	connectionsDesc = describe("connections", "Open shopper connections, event streams left out.")
	inFlightDesc    = describe("in_flight", "Requests being served, by class of route.", "class")
	unitsDesc       = describe("units", "Units of a SKU by place.", "activity", "sku", "place")
	headDesc        = describe("log_position", "Durable head of the ledger's log.")
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

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m := c.gateway.Metrics()
	counter(acceptedDesc, float64(m.Accepted))
	counter(replayedDesc, float64(m.Replayed))
	for code, n := range m.Refused {
		counter(refusedDesc, float64(n), code)
	}
	gauge(streamsDesc, float64(m.Streams))
	gauge(connectionsDesc, float64(m.Connections))
	for class, n := range m.InFlight {
		gauge(inFlightDesc, float64(n), class)
	}
	shown := map[stock.ActivityID]bool{}
	for _, v := range c.shop.Views() {
		c.units(gauge, v.ID)
		shown[v.ID] = true
	}
	for _, r := range c.proofs.Reports() {
		if r.OK && !shown[r.Activity] {
			continue // over and proved
		}
		activity := string(r.Activity)
		gauge(provedDesc, truth(r.OK), activity)
		gauge(faultsDesc, float64(r.Found), activity)
		gauge(proofAgeDesc, max(0, c.clock.Now().Sub(r.CheckedAt).Seconds()), activity)
	}
	gauge(headDesc, float64(c.ledger.Head().Position))
	s := c.lander.Stats()
	gauge(landedDesc, float64(s.Landed.Position))
	gauge(delayDesc, s.Delay.Seconds())
	gauge(stoppedDesc, truth(s.Stopped || s.Fenced))
	buckets := map[float64]uint64{}
	var total uint64
	for i, bound := range order.BatchBounds {
		total += s.Times[i]
		buckets[float64(bound)/1000] = total
	}
	total += s.Times[len(s.Times)-1]
	ch <- prometheus.MustNewConstHistogram(batchDesc, total, s.TimesSum.Seconds(), buckets)
	o, err := c.relay.Stats(context.Background())
	counter(sentDesc, float64(o.Delivered))
	counter(failedDesc, float64(o.Failed))
	counter(buriedDesc, float64(o.Buried))
	if err == nil {
		gauge(backlogDesc, float64(o.Unfinished))
		gauge(oldestDesc, age(c.clock.Now(), o.Oldest))
	}
	for kind, n := range c.alarms.Counts() {
		counter(alarmDesc, float64(n), kind)
	}
	_, violations := c.settler.Violations()
	counter(violatedDesc, float64(violations))
	gauge(ledgerDesc, truth(c.ledger.Failed() != nil))
}

func (c *collector) units(gauge func(*prometheus.Desc, float64, ...string), activity stock.ActivityID) {
	counts, err := c.ledger.Counts(context.Background(), activity)
	if err != nil {
		return
	}
	for _, it := range counts.Items {
		for place, n := range map[string]int{"free": it.Free, "held": it.Held, "confirmed": it.Confirmed} {
			gauge(unitsDesc, float64(n), string(activity), string(it.SKU), place)
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
