package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/test/fleet"
	"sluice/test/servers"
)

const (
	before = 2 * time.Second  // of sales before the first fault
	after  = 3 * time.Second  // and behind each, once all is well again
	heals  = 60 * time.Second // for all to be well again; more is a violation
	pace   = 50 * time.Millisecond
)

// watch is what the storm hears of it.
type watch interface {
	Broken(part string, at time.Time)
	Up()
}

// scene is one storm on a stage, seen from the side that makes it hard.
type scene struct {
	*stage
	n        size
	watch    watch
	activity string
	acts     []*act
	regulars *regulars // of a full fleet; else nil
	wrong    []string  // what they found
}

// act is one fault in one storm.
type act struct {
	fault *fault
	fired int      // how often it took place
	marks []string // what else is worth a word
	begun time.Time
	whole time.Duration // from its first blow until every process was ready and every bucket served
	epoch int           // rebuildings of buckets, by the epochs that they are in
	worst float64       // the longest of them, ms
	last  string        // what was waited for last
}

// supervise is a storm.Supervisor: it waits until the sale is under way and
// plays one fault after the other, each with all well again behind it.
func (s *scene) supervise(ctx context.Context, w watch) error {
	s.watch = w
	if err := s.underWay(ctx); err != nil {
		return err
	}
	if s.kind == full {
		var err error
		if s.regulars, err = s.admit(ctx); err != nil {
			return err
		}
		defer func() {
			s.wrong = s.regulars.leave(ctx)
			s.acts[0].mark("%s", s.regulars)
		}()
	}
	for _, a := range s.acts {
		if err := s.play(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a.fault.name, err)
		}
	}
	return nil
}

func (s *scene) play(ctx context.Context, a *act) (err error) {
	defer caught(&err)
	if err := s.sleep(ctx, before); err != nil {
		return err
	}
	if free, err := s.free(ctx); err != nil || free == 0 {
		return fmt.Errorf("the fault would meet a sale with %d units free (%v): it has to have more, or more who give theirs back", free, err)
	}
	epochs := s.epochs(ctx)
	a.begun = time.Now()
	if err := a.fault.play(ctx, s, a); err != nil {
		return err
	}
	if err := s.heal(ctx, a); err != nil {
		return err
	}
	a.whole = time.Since(a.begun)
	s.recoveries(ctx, a, epochs)
	s.watch.Up()
	return s.sleep(ctx, after)
}

// heal waits until all is well again, also when the rush is over already: what was
// broken has to come back. What happened until then may have to be told to the ledger later.
func (s *scene) heal(ctx context.Context, a *act) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), heals)
	defer stop()
	var since time.Time
	var ends map[int32]int64 // of the topic, once all that happened until since is in it
	steps := []func(context.Context) error{s.served, func(ctx context.Context) error { return s.caughtUp(ctx, since) }}
	if s.Kafka != nil {
		steps = append(steps, func(ctx context.Context) (err error) { ends, err = s.Kafka.Ends(ctx, topic); return err },
			func(ctx context.Context) error { return s.consumed(ctx, ends) })
	}
	for _, is := range steps {
		err := s.await(ctx, func(ctx context.Context) error {
			err := is(ctx)
			if err != nil {
				a.last = err.Error()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("not well %s after the fault: %w", heals, err)
		}
		since = time.Now()
	}
	return nil
}

// underWay waits until the newest storm's activity is sold by every bucket.
func (s *scene) underWay(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, heals)
	defer stop()
	return s.await(ctx, func(ctx context.Context) error {
		for _, w := range s.Workers {
			all, err := metrics(ctx, w)
			if err != nil {
				return err
			}
			for _, m := range all {
				// Storms are named by when they were put up.
				if a := m.labels["activity"]; strings.HasPrefix(a, "storm-") && cmp.Compare(a, s.activity) > 0 {
					s.activity = a
				}
			}
		}
		if s.activity == "" {
			return errors.New("no storm is on sale")
		}
		if err := s.served(ctx); err != nil {
			return err
		}
		free, err := s.count(ctx, "free")
		if err != nil {
			return err
		}
		all, err := s.count(ctx, "allocated")
		if err == nil && free == all {
			err = errors.New("nothing is sold")
		}
		return err
	})
}

// fire does the harm, from which on service may fail, and counts it if it was
// done.
func (s *scene) fire(a *act, harm func() error) error {
	s.watch.Broken(a.fault.name, time.Now())
	err := harm()
	if err == nil {
		a.fired++
	}
	return err
}

// free are the units that could be sold now.
func (s *scene) free(ctx context.Context) (n int, err error) {
	err = s.await(ctx, func(ctx context.Context) error {
		if n, err = s.count(ctx, "free"); err == nil && n == 0 {
			err = errors.New("nothing is free")
		}
		return err
	})
	return n, err
}

// count reads where the storm's units are.
func (s *scene) count(ctx context.Context, what string) (int, error) {
	return s.countOf(ctx, s.activity, what)
}

// countOf reads where an activity's units are from the ops API.
func (s *stage) countOf(ctx context.Context, activity, what string) (int, error) {
	var doc struct {
		Counts struct {
			Items []map[string]any `json:"items"`
		} `json:"counts"`
	}
	if err := s.ask(ctx, http.MethodGet, "/v1/activities/"+activity, &doc); err != nil {
		return 0, err
	}
	if len(doc.Counts.Items) != 1 {
		return 0, fmt.Errorf("%s has %d items", activity, len(doc.Counts.Items))
	}
	n, _ := doc.Counts.Items[0][what].(float64)
	return int(n), nil
}

// ask calls the ops API.
func (s *stage) ask(ctx context.Context, method, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, s.Console.Ops+path, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+fleet.OpsToken)
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func (s *scene) epochs(ctx context.Context) map[int]int {
	found := map[int]int{}
	for n, b := range s.buckets(ctx, s.activity) {
		found[n] = b.epoch
	}
	return found
}

// recoveries counts what was rebuilt since before.
func (s *scene) recoveries(ctx context.Context, a *act, before map[int]int) {
	for n, b := range s.buckets(ctx, s.activity) {
		if newer := b.epoch - before[n]; newer > 0 && before[n] > 0 {
			a.epoch += newer
			a.worst = max(a.worst, b.recoveryMS)
		}
	}
}

// keeper is the worker that serves most of the buckets, and the others.
func (s *scene) keeper(ctx context.Context) (most *fleet.Process, others []*fleet.Process, err error) {
	keeps := map[*fleet.Process]int{}
	for _, b := range s.buckets(ctx, s.activity) {
		if b.serving {
			keeps[b.keeper]++
		}
	}
	for _, w := range s.Workers {
		if keeps[w] > 0 && (most == nil || keeps[w] > keeps[most]) {
			most = w
		}
	}
	for _, w := range s.Workers {
		if w != most {
			others = append(others, w)
		}
	}
	if most == nil {
		err = errors.New("no worker serves a bucket")
	}
	return most, others, err
}

// takenOver waits until every bucket is served by other workers than one.
func (s *scene) takenOver(ctx context.Context, from *fleet.Process) error {
	ctx, stop := context.WithTimeout(ctx, heals)
	defer stop()
	return s.await(ctx, func(ctx context.Context) error {
		served := 0
		for _, b := range s.buckets(ctx, s.activity) {
			if b.serving && b.keeper != from {
				served++
			}
		}
		if served < s.n.buckets {
			return fmt.Errorf("%d of %d buckets are served by others than %s", served, s.n.buckets, from.Name)
		}
		return nil
	})
}

// owner is the Redis that has most of the activity's buckets, the slot of one of
// them, and its replicas. Without a cluster it is the only one.
func (s *scene) owner() (primary *servers.Server, slot int, replicas []*servers.Server, err error) {
	if s.Cluster == nil {
		return s.Redis, 0, nil, nil
	}
	most, has := 0, map[*servers.Server]int{}
	for b := range s.n.buckets {
		at, err := s.Cluster.Slot(fmt.Sprintf("{%s:%d}", s.activity, b))
		if err != nil {
			return nil, 0, nil, err
		}
		p, r, err := s.Cluster.Owner(at)
		if err != nil {
			return nil, 0, nil, err
		}
		if has[p]++; has[p] > most {
			most, primary, slot, replicas = has[p], p, at, r
		}
	}
	return primary, slot, replicas, nil
}

func (s *scene) await(ctx context.Context, ask func(context.Context) error) error {
	return await(ctx, ask)
}

// await asks again until the answer is nil or ctx is over.
func await(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for last := errors.New("not asked"); ; {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // or it may be that nobody waited for an answer
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		}
	}
}

func (s *scene) sleep(ctx context.Context, d time.Duration) error {
	if !s.rest(ctx, d) {
		return fmt.Errorf("the rush was over too soon: %w", ctx.Err())
	}
	return nil
}

// rest answers whether so much time has gone by before ctx was over.
func (s *stage) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
