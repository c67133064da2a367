package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/test/fleet"
)

// standing is what a worker says of one bucket of an activity that it keeps.
type standing struct {
	keeper     *fleet.Process
	serving    bool
	epoch      int
	delay      float64 // age of the oldest entry that is not landed, s
	recoveryMS float64 // of the last rebuilding by this keeper
}

// metric is one line of a page of metrics.
type metric struct {
	name   string
	labels map[string]string
	value  float64
}

var client = http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func metrics(ctx context.Context, p *fleet.Process) (all []metric, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Ops+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if m, ok := readMetric(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// readMetric reads name{label="value",…} value, whose labels hold neither
// quotes nor commas here.
func readMetric(line string) (m metric, ok bool) {
	head, value, found := strings.Cut(line, " ")
	if !found || strings.HasPrefix(line, "#") {
		return m, false
	}
	var err error
	if m.value, err = strconv.ParseFloat(value, 64); err != nil {
		return m, false
	}
	name, labels, _ := strings.Cut(head, "{")
	m.name, m.labels = strings.TrimPrefix(name, "sluice_"), map[string]string{}
	for _, pair := range strings.Split(strings.TrimSuffix(labels, "}"), ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			m.labels[key] = strings.Trim(value, `"`)
		}
	}
	return m, true
}

// buckets tells who keeps which bucket of an activity, by what the workers that
// answer say. Of two that believe to be the keeper, the one of the newer epoch counts.
func (s *stage) buckets(ctx context.Context, activity string) map[int]standing {
	found := map[int]standing{}
	for _, w := range s.Workers {
		all, err := metrics(ctx, w)
		if err != nil {
			continue // dead or frozen
		}
		own := map[int]standing{}
		for _, m := range all {
			bucket, err := strconv.Atoi(m.labels["bucket"])
			if err != nil || m.labels["activity"] != activity {
				continue
			}
			b := own[bucket]
			b.keeper = w
			switch m.name {
			case "bucket_state":
				b.serving = m.labels["state"] == "serving"
			case "bucket_epoch":
				b.epoch = int(m.value)
			case "bucket_landing_delay_seconds":
				b.delay = m.value
			case "bucket_last_recovery_seconds":
				b.recoveryMS = 1000 * m.value
			}
			own[bucket] = b
		}
		for n, b := range own {
			if had, ok := found[n]; !ok || b.epoch > had.epoch || b.epoch == had.epoch && b.serving && !had.serving {
				found[n] = b
			}
		}
	}
	return found
}

// served answers nil if every process is ready and every bucket of the activity
// is served by a worker.
func (s *scene) served(ctx context.Context) error {
	for _, p := range s.Processes() {
		if err := fleet.Ready(ctx, p.Ops); err != nil {
			return err
		}
	}
	if served, _, _ := s.behind(ctx); served != s.n.buckets {
		return fmt.Errorf("%d of %d buckets of %s are served", served, s.n.buckets, s.activity)
	}
	return nil
}

// caughtUp answers nil if nothing that happened before an instant waits any more
// to be landed or told to the ledger.
func (s *scene) caughtUp(ctx context.Context, since time.Time) error {
	if _, age, what := s.behind(ctx); age > time.Since(since).Seconds() {
		return fmt.Errorf("%s is %.1f s old", what, age)
	}
	return nil
}

// behind says how many buckets are served, and the age in seconds of the oldest
// thing that waits.
func (s *scene) behind(ctx context.Context) (served int, age float64, what string) {
	age, what = math.Inf(1), "what is not known of events"
	all, _ := metrics(ctx, s.Workers[0]) // of a worker that is away nothing is known
	for _, m := range all {
		if m.name == "outbox_oldest_seconds" { // of all events, whichever worker delivers them
			age, what = m.value, "an event that is not delivered"
		}
	}
	for n, b := range s.buckets(ctx, s.activity) {
		if b.serving {
			served++
		}
		if b.delay > age {
			age, what = b.delay, fmt.Sprintf("what bucket %d of %s has not landed", n, s.activity)
		}
	}
	return served, age, what
}
