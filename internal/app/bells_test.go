package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/lib/clock"
	"sluice/internal/lib/cluster"
	"sluice/internal/lib/run"
	"sluice/test/servers"
)

// process is what follows and saves in one process of a fleet, with its tasks
// running. Its polling is off: what it hears, it hears by bells.
func process(t *testing.T, store *sqlstore.Store, door string) *engine {
	t.Helper()
	c := Default()
	c.Data, c.Lease = t.TempDir(), door
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	e := &engine{doors: &doors{store: sqlstore.Single(store), clock: clock.New()}, log: quiet}
	if err := e.openEtcd(t.Context(), c, quiet); err != nil {
		t.Fatal(err)
	}
	if err := e.openDoor(c); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	for _, task := range e.follow() {
		task.Idle = time.Hour
		tasks.Go(func() { run.Loop(ctx, quiet, task) })
	}
	for _, task := range e.onEtcd() {
		tasks.Go(func() { run.Loop(ctx, quiet, task) })
	}
	t.Cleanup(func() { stop(); tasks.Wait(); e.etcd.Close() })
	return e
}

// What is saved in one process is in force in the others at once, without their
// asking for it: by etcd's bell, over a change of its leader, and again after it
// was away.
func TestBells(t *testing.T) {
	etcd := servers.EtcdOfThree(t)
	store := newStore(t)
	door := fmt.Sprintf("etcd://%s,%s,%s/shop", etcd.Members[0].Addr, etcd.Members[1].Addr, etcd.Members[2].Addr)
	here, there := process(t, store, door), []*engine{process(t, store, door), process(t, store, door)}
	await := func(what string, in func(e *engine) bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); !in(there[0]) || !in(there[1]); <-tick.C {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	version, took := int64(0), []time.Duration(nil)
	save := func(what string) {
		t.Helper()
		began := time.Now()
		if _, err := here.rules.Save(t.Context(), version, gate.RuleSet{}, "op", ""); err != nil {
			t.Fatal(err)
		}
		version++
		await("rules "+what, func(e *engine) bool { return e.rules.Limits.Edition().Version == version })
		took = append(took, time.Since(began))
	}
	for range 30 {
		save("saved")
	}
	slices.Sort(took)
	t.Logf("30 versions of the rules, in force in two more processes after %s (median), %s (slowest), with the saving", took[15], took[29])

	if _, err := here.playbooks.Pull(t.Context(), "calm", "op", ""); err != nil {
		t.Fatal(err)
	}
	await("a playbook that was pulled", func(e *engine) bool { return e.rules.Door.Switches.Of("").StaleDetail > 0 })
	if _, err := here.lists.Put(t.Context(), []gate.ListEntry{{List: "black", Kind: "user", Subject: "eve"}}, "op"); err != nil {
		t.Fatal(err)
	}
	await("a list", func(e *engine) bool { return e.rules.Door.Lists.Count() == 1 })

	leader, err := etcd.Leader()
	if err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	took = nil
	save("without the leader")
	t.Logf("with etcd's leader killed: after %s", took[0])
	if err := leader.Restart(); err != nil {
		t.Fatal(err)
	}
	// A ring is worth nothing while etcd is away, and saving does not wait for it.
	for _, m := range etcd.Members {
		m.Kill()
	}
	if _, err := here.rules.Save(t.Context(), version, gate.RuleSet{}, "op", ""); err != nil {
		t.Fatal(err)
	}
	version++
	for _, m := range etcd.Members {
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if err := etcd.Await(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); here.etcd.Ping(t.Context()) != nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("etcd does not answer again")
		}
	}
	save("with etcd back")
}

// More gateways than limits are divided for are told once; those that come and go
// are counted.
func TestCrew(t *testing.T) {
	etcd := servers.Etcd(t)
	store := newStore(t)
	e := process(t, store, "etcd://"+etcd.Addr)
	e.crew.gateways = 2
	f := func(what string, join, leave string, gateways int, many bool) {
		t.Helper()
		if join != "" {
			role, _, _ := strings.Cut(join, "/")
			if err := e.etcd.Join(t.Context(), cluster.Member{Name: join, Role: role}, memberTTL); err != nil {
				t.Fatal(err)
			}
		}
		if leave != "" {
			if err := e.etcd.Leave(t.Context(), leave); err != nil {
				t.Fatal(err)
			}
		}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); ; <-tick.C {
			n := 0
			list, _, fresh := e.crew.members()
			for _, s := range list {
				if roles[s.Role].gateway && !s.Gone {
					n++
				}
			}
			e.crew.mu.Lock()
			is := e.crew.many
			e.crew.mu.Unlock()
			if n == gateways && is == many && fresh {
				return
			}
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s: %d gateways, too many: %v; want %d, %v", what, n, is, gateways, many)
			}
		}
	}
	f("nobody", "", "", 0, false)
	f("one", "gateway/1", "", 1, false)
	f("two, one that does all", "all/2", "", 2, false)
	f("a worker is none", "worker/1", "", 2, false)
	f("three", "gateway/3", "", 3, true)
	f("one has left", "", "gateway/1", 2, false)
}
