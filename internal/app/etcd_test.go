package app_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/app"
	"sluice/internal/backend/etcdlease"
	"sluice/internal/gate"
	"sluice/internal/lib/cluster"
	"sluice/test/servers"
)

// A process whose leases are an etcd's sells, is on the list of members while it
// serves, goes on while etcd is away, and even starts then.
func TestLeasesInEtcd(t *testing.T) {
	etcd := servers.Etcd(t)
	c := shared(t, servers.Redis(t), servers.MariaDB(t))
	c.Lease = fmt.Sprintf("etcd://%s/shop", etcd.Addr)
	e, err := etcdlease.Open(t.Context(), c.Lease, etcdlease.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	members := func() []cluster.Member {
		t.Helper()
		list, err := e.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	s := start(t, c)
	s.sell("cup", 100, `,"hold_seconds":60`)
	buy := func(user string) map[string]any {
		t.Helper()
		status, _, receipt := s.buy("cup", user, "k1", 1)
		if status != 202 {
			t.Fatalf("buy: %d %v", status, receipt)
		}
		return receipt
	}
	held := func(user string, receipt map[string]any) {
		t.Helper()
		s.inTime("held", func() bool {
			_, _, r := s.call("GET", s.shopper+"/v1/reservations/"+receipt["reservation"].(string), s.token(user), "")
			return r["state"] == "held"
		})
	}
	held("ann", buy("ann"))
	s.inTime("listed, and well", func() bool { list := members(); return len(list) == 1 && list[0].Ailing == "" })
	if m := members()[0]; m.Role != "all" || "http://"+m.Addresses["shopper"] != s.shopper {
		t.Errorf("%+v", m)
	}

	crew := func(source string, n int) bool {
		v := s.operate(200, "GET", "/v1/members", "")
		return v["source"] == source && len(v["members"].([]any)) == n
	}
	s.inTime("told to operators", func() bool { return crew("etcd", 1) })

	// Without etcd everything goes on, for far longer than any lease of a bucket
	// lasts, and what was known of the fleet stays known.
	etcd.Kill()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := range 6 {
		user := fmt.Sprint("bob", n)
		held(user, buy(user))
		<-tick.C
	}
	s.inTime("the last known are told", func() bool { return crew("last_known", 1) })
	if text := s.metrics(); !strings.Contains(text, "sluice_leases_silent 1") || !strings.Contains(text, `sluice_members{role="all"} 1`) {
		t.Error(text)
	}

	// One that starts then knows the fleet from its file, and sells. Buckets are
	// kept by nobody until etcd is back.
	began := time.Now()
	s.stop()
	stopped := time.Since(began)
	s = start(t, c)
	t.Logf("without etcd: stopped after %s, started after %s", stopped, time.Since(began)-stopped)
	if !crew("last_known", 1) {
		t.Error("after a start without etcd nobody is known")
	}
	dan := buy("dan")
	if err := etcd.Restart(); err != nil {
		t.Fatal(err)
	}
	held("dan", dan)

	// Nor does one need company to be remembered: the last to stop in good order
	// has taken itself off the list.
	s.inTime("listed again", func() bool { return len(members()) == 1 })
	s.stop()
	etcd.Kill()
	s = start(t, c)
	buy("eve")
	if err := etcd.Restart(); err != nil {
		t.Fatal(err)
	}
	held("eve", buy("eve"))
	s.inTime("listed again", func() bool { list := members(); return len(list) == 1 && list[0].Ailing == "" })

	// An empty one in its place: nothing of it is known there, and all goes on.
	if err := etcd.RestartEmpty(); err != nil {
		t.Fatal(err)
	}
	held("fay", buy("fay"))
	s.inTime("listed in the new one", func() bool { list := members(); return len(list) == 1 && list[0].Ailing == "" })

	s.stop()
	if left := members(); len(left) != 0 {
		t.Errorf("after a stop: %+v", left)
	}
	etcd.Kill() // who was never there does not begin without it
	c.Data = t.TempDir()
	if err := app.Run(t.Context(), c, io.Discard, slog.New(slog.DiscardHandler), nil); !errors.Is(err, etcdlease.ErrAway) {
		t.Errorf("a first start without etcd: %v", err)
	}
}

// Two processes on an etcd of three: what is saved at one is soon in force at the
// other, leases go on over the death of etcd's leader, and a process that has its
// leases elsewhere does not begin.
func TestFleetOnEtcd(t *testing.T) {
	etcd := servers.EtcdOfThree(t)
	c := shared(t, servers.Redis(t), servers.MariaDB(t))
	c.Secrets, c.Lease = gate.SecretsPath(c.Data), fmt.Sprintf("etcd://%s/shop", strings.Join(etcd.Addrs(), ","))
	a := start(t, c)
	c.Data = t.TempDir()
	b := start(t, c)
	b.data = a.data // where the secrets are
	b.sell("cup", 100, `,"hold_seconds":60`)
	took := make([]time.Duration, 20)
	for i := range took {
		a.rule(i, ruleOf("often", "reads", `"user"`, 1000+i, "1s"))
		began := time.Now()
		a.eventually("in force", func() bool { return b.operate(200, "GET", "/v1/rules", "")["version"] == float64(i+1) })
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	t.Logf("rules saved at one process are in force at the other after %s (median), %s (slowest of %d), as asked for every 10 ms", took[10], took[19], len(took))
	b.inTime("both are listed", func() bool { return len(b.operate(200, "GET", "/v1/members", "")["members"].([]any)) == 2 })
	b.inTime("more gateways than configured are told", func() bool {
		text := b.metrics()
		return strings.Contains(text, `sluice_members{role="all"} 2`) && strings.Contains(text, "sluice_gateways_configured 1")
	})

	sells := func(what string) {
		t.Helper()
		for n := range 6 {
			user := strings.ReplaceAll(fmt.Sprint(what, n), " ", "-")
			status, _, receipt := b.buy("cup", user, "k", 1)
			if status != 202 {
				t.Fatalf("%s: %d %v", what, status, receipt)
			}
			b.inTime(what, func() bool {
				_, _, r := b.call("GET", b.shopper+"/v1/reservations/"+receipt["reservation"].(string), b.token(user), "")
				return r["state"] == "held"
			})
		}
	}
	sells("with all")
	leader, err := etcd.Leader()
	if err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	sells("without the leader")
	b.inTime("leases are renewed", func() bool { return strings.Contains(b.metrics(), "sluice_leases_silent 0") })

	c.Lease, c.Data = "sql:", t.TempDir()
	if err := app.Run(t.Context(), c, io.Discard, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "write the same lease: line") {
		t.Errorf("with leases elsewhere: %v", err)
	} else {
		t.Log(err)
	}
}

// inTime is eventually for what comes after leases have run out, on a machine
// that is busy with etcd's beats and everything else.
func (s *server) inTime(what string, right func() bool) {
	s.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !right() {
		if <-tick.C; time.Since(began) > 30*time.Second {
			s.t.Fatalf("not within 30 s: %s", what)
		}
	}
	s.t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
}
