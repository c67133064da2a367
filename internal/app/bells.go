package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/lib/run"
)

// Bells of what is set for all processes: it is kept in the store, and read
// again at once by whoever hears that it has changed.
const (
	bellRules      = "rules"
	bellLists      = "lists"
	bellPlaybooks  = "playbooks"
	bellActivities = "activities"
)

// bells carry the news that something was saved to all processes of a fleet, by
// etcd. They carry nothing else: a ring that is lost is made up for by the next
// look at the store, which each process takes several times a second anyway. A
// nil one rings nowhere.
type bells struct {
	etcd *etcdlease.Etcd
	live etcdlease.Settings
	wake chan struct{}

	mu  sync.Mutex
	due []string // to be rung
}

func newBells(etcd *etcdlease.Etcd) *bells {
	return &bells{etcd: etcd, live: etcd.WatchDocuments(""), wake: make(chan struct{}, 1)}
}

// saved has a bell rung soon. It does not wait: what was saved is saved.
func (b *bells) saved(name string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	if !slices.Contains(b.due, name) {
		b.due = append(b.due, name)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // it is awake
	}
}

// rung is for run.Task.Wake: something may have been saved by any process.
func (b *bells) rung(name string) <-chan struct{} {
	if b == nil {
		return nil
	}
	return b.live.Rung(name)
}

// ring rings what is due. What cannot be rung is dropped: the others look by
// themselves before etcd is back.
func (b *bells) ring(ctx context.Context) (worked bool, err error) {
	b.mu.Lock()
	due := b.due
	b.due = nil
	b.mu.Unlock()
	for _, name := range due {
		err = errors.Join(err, b.etcd.Ring(ctx, name))
	}
	if err != nil {
		return false, fmt.Errorf("bells: %w", err)
	}
	return len(due) > 0, nil
}

// onEtcd is in each process of a fleet that has its leases there.
func (e *engine) onEtcd() []run.Task {
	if e.etcd == nil {
		return nil
	}
	return []run.Task{
		steady(e.log, run.Task{Name: "members", Step: e.crew.step, Idle: hearPause}),
		steady(e.log, run.Task{Name: "bells", Step: e.bells.ring, Wake: e.bells.wake}),
		steady(e.log, run.Task{Name: "news of bells", Step: e.bells.live.Step, Idle: hearPause}),
	}
}
