package app

import (
	"strconv"
	"time"

	"sluice/internal/bucket"
	"sluice/internal/order"
)

// Metrics of a process in a fleet. Their labels are bounded by the activities
// that live and their buckets; a worker tells of those buckets only that it has.
var (
	numberDesc     = describe("worker_number", "This process's part of order ids.")
	numberHeldDesc = describe("worker_number_held", "1 while the number is this process's, as far as anybody has said; without it nothing is accepted.")
	silentDesc     = describe("leases_silent", "1 while the leases do not answer: nobody takes over from a process that dies.")
	membersDesc    = describe("members", "Processes of the fleet as etcd has them, or had them last, by role.", "role")
	ailingDesc     = describe("members_ailing", "Of these, processes that say that they cannot do their work.")
	heardDesc      = describe("members_age_seconds", "Age of the list of processes.")
	gatewaysDesc   = describe("gateways_configured", "For how many gateways limits of scope fleet are divided here; more than that of sluice_members are too many.")
	taskDesc       = describe("singleton_held", "1 while this process does a task that one worker does at a time.", "task")
	mirrorAgeDesc  = describe("mirror_age_seconds", "Age of what this process knows of an activity's ledger.", "activity")
	mirrorLagDesc  = describe("mirror_behind", "Log entries that are known of and not read yet, over all buckets of an activity.", "activity")
	mirrorSureDesc = describe("mirror_ready", "1 while refusals may be answered without asking the ledger.", "activity")
	mirrorDownDesc = describe("mirror_buckets_not_accepting", "Buckets of an activity that do not accept, as this process read them last: being opened or rebuilt, or kept by nobody.", "activity")
	stateDesc      = describe("bucket_state", "1 for the state that a bucket of this worker is in.", "activity", "bucket", "state")
	epochDesc      = describe("bucket_epoch", "Epoch in which a bucket accepts.", "activity", "bucket")
	markDesc       = describe("bucket_landed_position", "Last position of a bucket's log that has landed.", "activity", "bucket")
	lateDesc       = describe("bucket_landing_delay_seconds", "Age of the oldest entry of a bucket that is not landed.", "activity", "bucket")
	transitDesc    = describe("bucket_moves_in_transit", "Moves of units out of a bucket that are not known to have arrived.", "activity", "bucket")
	rebuiltDesc    = describe("bucket_recoveries_total", "Times that this worker has rebuilt a bucket.", "activity", "bucket")
	rebuildDesc    = describe("bucket_last_recovery_seconds", "How long the last rebuilding of a bucket took, from when it was noticed.", "activity", "bucket")
	refusedByDesc  = describe("bucket_refused_total", "Reservations that the ledger accepted and the book did not.", "activity", "bucket")
	disagreedDesc  = describe("bucket_disagreed_total", "Settlements and adjustments that the book answers otherwise than the ledger did.", "activity", "bucket")
)

// collect tells of this process among the others.
func (f *fleet) collect(m meter) {
	m.gauge(numberDesc, float64(f.number.n))
	m.gauge(numberHeldDesc, truth(f.number.stands() == nil))
	m.gauge(silentDesc, truth(f.number.kept.Silent()))
	if f.crew != nil {
		f.crew.collect(m)
	}
	for _, s := range f.singles {
		m.gauge(taskDesc, truth(s.held()), s.Name)
	}
	now := f.clock.Now()
	for _, s := range f.mirror.Standings() {
		if s.Buckets == 0 {
			continue // the ledger has nothing of it yet
		}
		activity := string(s.Activity)
		if !s.AsOf.IsZero() {
			m.gauge(mirrorAgeDesc, max(0, now.Sub(s.AsOf).Seconds()), activity)
		}
		m.gauge(mirrorLagDesc, float64(s.Behind), activity)
		m.gauge(mirrorSureDesc, truth(s.Ready), activity)
		m.gauge(mirrorDownDesc, float64(s.NotAccepting), activity)
	}
	if f.role.worker {
		f.collectBuckets(m)
	}
}

// collect tells of the processes that are there. Roles that nobody has are there
// too, so that an alert finds a fleet without workers.
func (w *crew) collect(m meter) {
	list, asOf, _ := w.members()
	if asOf.IsZero() {
		return // nothing is known so far
	}
	by, ailing := make(map[string]int, len(roles)), 0
	for _, s := range list {
		if s.Gone {
			continue
		}
		by[s.Role]++
		if s.Ailing != "" {
			ailing++
		}
	}
	for role := range roles {
		m.gauge(membersDesc, float64(by[role]), role)
	}
	m.gauge(ailingDesc, float64(ailing))
	m.gauge(heardDesc, max(0, time.Since(asOf).Seconds()))
	m.gauge(gatewaysDesc, float64(w.gateways))
}

func (f *fleet) collectBuckets(m meter) {
	var times [len(order.BatchBounds) + 1]uint64
	var sum, delay time.Duration
	stopped := false
	for _, s := range f.buckets.Stats() {
		if s.State == bucket.Waiting || s.State == bucket.Fenced || s.State == bucket.Retired {
			continue // another worker's, or over
		}
		for i, n := range s.Landing.Times {
			times[i] += n
		}
		sum += s.Landing.TimesSum
		delay = max(delay, s.Landing.Delay)
		stopped = stopped || s.Landing.Stopped
		at := []string{string(s.Place.Activity), strconv.Itoa(int(s.Place.Bucket))}
		m.gauge(stateDesc, 1, at[0], at[1], string(s.State))
		m.gauge(epochDesc, float64(s.Epoch), at...)
		m.gauge(markDesc, float64(s.Landed.Position), at...)
		m.gauge(lateDesc, s.Landing.Delay.Seconds(), at...)
		m.gauge(transitDesc, float64(s.InTransit), at...)
		m.counter(rebuiltDesc, float64(s.Recoveries), at...)
		if n := len(s.Times); n > 0 {
			m.gauge(rebuildDesc, s.Times[n-1].Took.Seconds(), at...)
		}
		m.counter(refusedByDesc, float64(s.Refused), at...)
		m.counter(disagreedDesc, float64(s.Disagreed), at...)
	}
	m.gauge(delayDesc, delay.Seconds())
	m.gauge(stoppedDesc, truth(stopped))
	m.batches(times, sum)
}
