package etcdlease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice/internal/lib/cluster"
	"sluice/test/servers"
)

func names(list []cluster.Member) (all []string) {
	for _, m := range list {
		all = append(all, m.Name)
	}
	return all
}

func TestMembers(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	e := open(t, s.Addr)
	d := e.WatchMembers("")
	steps(t, d.View)
	changed := d.Changed()
	seen := func(want ...string) time.Duration {
		t.Helper()
		return eventually(t, fmt.Sprint("members ", want), func() bool {
			list, _ := d.Members()
			return slices.Equal(names(list), want)
		})
	}

	now := time.Unix(1_790_000_000, 0).UTC()
	var ailing error
	health := func(context.Context) error { return ailing }
	gateway := cluster.NewPresence(e, cluster.Member{Name: "g/1", Role: "gateway", Addresses: map[string]string{"shopper": "10.0.0.1:8080"},
		Metadata: map[string]string{"version": "v2"}}, 30*time.Second, health, func() time.Time { return now })
	worker := cluster.NewPresence(e, cluster.Member{Name: "w", Role: "worker"}, time.Second, nil, func() time.Time { return now })
	step := func(p *cluster.Presence, want bool) {
		t.Helper()
		if worked, err := p.Step(t.Context()); err != nil || worked != want {
			t.Errorf("step: %v, %v, want %v", worked, err, want)
		}
	}
	step(gateway, false)
	step(worker, false)
	t.Logf("joined: seen after %s", seen("g/1", "w"))
	<-changed
	list, err := e.Members(t.Context())
	must(t, err)
	if m := list[0]; m.Role != "gateway" || m.Addresses["shopper"] != "10.0.0.1:8080" || m.Metadata["version"] != "v2" || !m.Joined.Equal(now) || m.Ailing != "" {
		t.Errorf("%+v", m)
	}

	// What it says of its health is there at the next beat, however long the time to live.
	now, ailing = now.Add(time.Second), errors.New("the ledger is away")
	step(gateway, true)
	took := eventually(t, "ailing", func() bool {
		list, _ := d.Members()
		return list[0].Ailing == "the ledger is away" && list[0].Since.Equal(now) && list[0].Joined.Before(now)
	})
	t.Logf("unwell: seen after %s", took)
	step(gateway, false) // nothing new

	// The worker says nothing more, as one that died.
	t.Logf("a crash with 1 s to live: seen after %s", seen("g/1"))
	now = now.Add(time.Second)
	step(worker, false)
	seen("g/1", "w")
	must(t, worker.Leave(t.Context()))
	t.Logf("left: seen after %s", seen("g/1"))
	step(worker, false)
	must(t, worker.Leave(t.Context()))
	if list, err := e.Members(t.Context()); err != nil || !slices.Equal(names(list), []string{"g/1"}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []cluster.Member{{}, {Name: string(make([]byte, 129))}} {
		want(t, "join", e.Join(t.Context(), bad, time.Minute), cluster.ErrInvalid)
	}
	want(t, "join", e.Join(t.Context(), cluster.Member{Name: "x"}, time.Millisecond), cluster.ErrInvalid)
}

func TestDocuments(t *testing.T) {
	t.Parallel() // most of it is waiting
	e := open(t, servers.Etcd(t).Addr)
	put := func(data string, from int64) error {
		_, err := e.Put(t.Context(), cluster.Document{Name: "gate/flood", Data: []byte(data), By: "op"}, from)
		return err
	}
	_, err := e.Document(t.Context(), "gate/flood")
	want(t, "before the first", err, cluster.ErrNoSuchDocument)
	must(t, put(`{"n":1}`, 0))
	want(t, "a second first", put(`{}`, 0), cluster.ErrChanged)
	want(t, "one that is not there yet", put(`{}`, 2), cluster.ErrChanged)
	must(t, put(`{"n":2}`, 1))
	must(t, put(`{"n":3}`, 2))
	want(t, "no JSON", put(`{`, 3), cluster.ErrInvalid)
	want(t, "too much", put(`"`+string(make([]byte, cluster.MaxData))+`"`, 3), cluster.ErrInvalid)
	want(t, "before all", put(`{}`, -1), cluster.ErrInvalid)

	back, err := e.Rollback(t.Context(), "gate/flood", 1, 3, "op2", "")
	must(t, err)
	d, err := e.Document(t.Context(), "gate/flood")
	must(t, err)
	if d.Version != 4 || string(d.Data) != `{"n":1}` || d.By != "op2" || d.Note != "rollback to version 1" || !d.At.Equal(back.At) {
		t.Errorf("%+v", d)
	}
	_, err = e.Rollback(t.Context(), "gate/flood", 1, 3, "op", "")
	want(t, "a rollback of what has changed", err, cluster.ErrChanged)
	_, err = e.Rollback(t.Context(), "gate/flood", 9, 4, "op", "")
	want(t, "a rollback to what never was", err, cluster.ErrNoSuchDocument)

	versions := func(before int64, limit int, want ...int64) {
		t.Helper()
		list, err := e.History(t.Context(), "gate/flood", before, limit)
		must(t, err)
		var got []int64
		for _, d := range list {
			got = append(got, d.Version)
		}
		if !slices.Equal(got, want) {
			t.Errorf("history before %d: %v, want %v", before, got, want)
		}
	}
	versions(0, 10, 4, 3, 2, 1)
	versions(4, 2, 3, 2)
	versions(1, 2)
	for v := int64(4); v < Kept+2; v++ {
		must(t, put(`0`, v))
	}
	list, err := e.History(t.Context(), "gate/flood", 0, Kept)
	must(t, err)
	if n := len(list); n != Kept || list[n-1].Version != 3 {
		t.Errorf("%d versions are kept, the oldest is %d", n, list[n-1].Version)
	}
	if list, err := e.History(t.Context(), "gate", 0, 10); err != nil || len(list) > 0 {
		t.Errorf("the history of another name: %v, %v", list, err)
	}
}

// Three processes follow; what is saved or rung at one is soon at all.
func TestSettings(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	var nodes []Settings
	var saved, rung []<-chan struct{}
	for range 3 {
		v := open(t, s.Addr).WatchDocuments("")
		nodes, saved, rung = append(nodes, v), append(saved, v.Saved("flood")), append(rung, v.Rung("rules"))
		steps(t, v.View)
	}
	e := open(t, s.Addr)
	const rounds = 50
	var slowest time.Duration
	for i := range rounds {
		_, err := e.Put(t.Context(), cluster.Document{Name: "flood", Data: fmt.Append(nil, i)}, int64(i))
		must(t, err)
		took := eventually(t, "the new version at every node", func() bool {
			return !slices.ContainsFunc(nodes, func(v Settings) bool {
				d, _, found := v.Document("flood")
				return !found || d.Version != int64(i+1)
			})
		})
		slowest = max(slowest, took)
	}
	t.Logf("%d changes, three nodes: the slowest was everywhere after %s", rounds, slowest)
	slowest = 0
	for i := range nodes {
		<-saved[i]
		select {
		case <-rung[i]:
			t.Error("it rings though nobody rang")
		default:
		}
	}
	for range rounds {
		began := time.Now()
		must(t, e.Ring(t.Context(), "rules"))
		for _, bell := range rung {
			<-bell
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("%d rings, three nodes, with the call: at most %s", rounds, slowest)
	if list, _ := nodes[0].Documents(); len(list) != 1 {
		t.Errorf("a bell among the documents: %v", list)
	}
	want(t, "a bell without a name", e.Ring(t.Context(), ""), cluster.ErrInvalid)
}

// With etcd away all that is known stays, also over a start.
func TestLastKnown(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	e := open(t, s.Addr)
	file := filepath.Join(t.TempDir(), "settings.json")
	members := e.WatchMembers("")
	live := e.WatchDocuments(file)
	steps(t, members.View)
	steps(t, live.View)
	save := func(from int64) {
		t.Helper()
		_, err := e.Put(t.Context(), cluster.Document{Name: "flood", Data: []byte(`"x"`)}, from)
		must(t, err)
	}
	must(t, e.Join(t.Context(), cluster.Member{Name: "a"}, time.Minute))
	must(t, e.Ring(t.Context(), "rules"))
	save(0)
	both := func() bool {
		d, _, _ := live.Document("flood")
		list, _ := members.Members()
		return d.Version == 1 && len(list) == 1
	}
	eventually(t, "both known", both)
	eventually(t, "file written", func() bool { _, err := os.Stat(file); return err == nil })

	s.Kill()
	again := open(t, s.Addr).WatchDocuments(file) // a start without etcd
	if _, err := again.Step(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("a step with etcd away: %v", err)
	}
	d, asOf, found := again.Document("flood")
	if !found || d.Version != 1 || string(d.Data) != `"x"` || asOf.IsZero() {
		t.Errorf("after a start without etcd: %+v of %s", d, asOf)
	}
	_, was := members.Members()
	if !both() {
		t.Error("what was known has gone with etcd")
	}
	must(t, s.Restart())
	eventually(t, "fresh again", func() bool { _, asOf := members.Members(); return asOf.After(was) })
	save(1)
	took := eventually(t, "the change", func() bool { d, _, _ := live.Document("flood"); return d.Version == 2 })
	t.Logf("after etcd came back a change is seen after %s", took)

	// Another etcd in its place has a shorter history: what it has counts.
	must(t, s.RestartEmpty())
	eventually(t, "nothing known", func() bool { list, _ := live.Documents(); return len(list) == 0 })

	must(t, os.WriteFile(file, []byte("{"), 0o600))
	if list, _ := open(t, s.Addr).WatchDocuments(file).Documents(); len(list) != 0 {
		t.Errorf("out of a broken file: %v", list)
	}
}

// One of three members is killed, one hangs: leases are renewed and changes
// arrive. With two away nothing is decided, and all is well when they are back.
func TestMembersOfEtcdFail(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := servers.EtcdOfThree(t)
	e := open(t, c.Addrs()...)
	v := e.WatchDocuments("")
	steps(t, v.View)
	version := int64(0)
	works := func(what string) {
		t.Helper()
		began := time.Now()
		eventually(t, "a grant with "+what, func() bool { _, err := e.Acquire(t.Context(), "n", "b", 10*time.Second); return err == nil })
		granted := time.Since(began)
		eventually(t, "a version saved with "+what, func() bool {
			d, err := e.Put(t.Context(), cluster.Document{Name: "flood", Data: []byte(`1`)}, version)
			if errors.Is(err, cluster.ErrChanged) {
				d.Version = version + 1 // an attempt that gave no answer
			}
			version = max(version, d.Version)
			return d.Version > 0
		})
		saved := time.Since(began)
		eventually(t, "seen with "+what, func() bool { d, _, _ := v.Document("flood"); return d.Version == version })
		t.Logf("%s: a grant after %s, a change saved after %s, seen after %s", what, granted.Round(time.Millisecond),
			saved.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	works("all three")
	leads := func(m *servers.Server) string {
		t.Helper()
		leader, err := c.Leader()
		must(t, err)
		if leader == m {
			return "the leader"
		}
		return "a follower"
	}
	// The one that is asked, and watched.
	for _, m := range c.Members {
		if m.Addr == e.members[e.current.Load()].addr {
			what := leads(m)
			m.Pause()
			for range 2 {
				works(what + " hanging")
			}
			m.Resume()
			must(t, c.Await())
			break
		}
	}
	leader, err := c.Leader()
	must(t, err)
	leader.Kill()
	works("the leader killed")
	must(t, leader.Restart())
	must(t, c.Await())
	c.Members[0].Kill()
	c.Members[1].Kill()
	began := time.Now()
	_, err = e.Acquire(t.Context(), "other", "b", 10*time.Second)
	want(t, "with a minority", err, ErrAway)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if d, _, _ := v.Document("flood"); d.Version != version {
		t.Errorf("version %d is known, want %d", d.Version, version)
	}
	must(t, c.Members[0].Restart())
	must(t, c.Members[1].Restart())
	works("all back")
}
