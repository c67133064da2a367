package servers

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// redisClient is a client as an application has one.
func redisClient(t *testing.T, o rueidis.ClientOption) rueidis.Client {
	t.Helper()
	o.DisableCache = true
	o.Dialer = net.Dialer{Timeout: time.Second}
	client, err := rueidis.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func set(t *testing.T, c rueidis.Client, key, value string) {
	t.Helper()
	must(t, c.Do(t.Context(), c.B().Set().Key(key).Value(value).Build()).Error())
}

// get reads a key; one that is not there reads as "".
func get(t *testing.T, c rueidis.Client, key, want string) {
	t.Helper()
	got, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", key, err)
	}
	if got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

func TestRedisStartsAgain(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := Redis(t, Config("appendfsync always"))
	c := redisClient(t, rueidis.ClientOption{InitAddress: []string{s.Addr}})
	set(t, c, "units", "1")
	image := t.TempDir()
	must(t, s.Image(image))
	set(t, c, "units", "2")

	s.Kill()
	must(t, s.Restart())
	get(t, c, "units", "2")
	must(t, s.RestartFrom(image))
	get(t, c, "units", "1")
	set(t, c, "units", "3")
	must(t, s.Restart())
	get(t, c, "units", "3")
	s.Pause()
	must(t, s.RestartEmpty())
	get(t, c, "units", "")
	set(t, c, "units", "4")
	_, err := Do(s, "FLUSHALL")
	must(t, err)
	get(t, c, "units", "")
	if _, err := Do(s, "INCR"); err == nil || !strings.Contains(err.Error(), "wrong number") {
		t.Errorf("a refused command answered %v", err)
	}
}

func TestRedisWithReplica(t *testing.T) {
	t.Parallel() // most of it is waiting
	p := RedisWithReplica(t)
	set(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{p.Primary.Addr}}), "units", "7")
	must(t, within(p.caughtUp))
	p.Primary.Kill()
	must(t, p.Promote())
	c := redisClient(t, rueidis.ClientOption{InitAddress: []string{p.Primary.Addr}})
	get(t, c, "units", "7")
	set(t, c, "units", "8")
	must(t, p.Rejoin())
	must(t, p.Replica.Restart()) // it remembers whom it follows
	must(t, within(p.caughtUp))
	ask(t, p.Replica, "GET units", "$1")
}

func TestRedisSentinel(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := RedisSentinel(t)
	c := redisClient(t, rueidis.ClientOption{InitAddress: []string{s.Watch.Addr}, Sentinel: rueidis.SentinelOption{MasterSet: SentinelSet}})
	set(t, c, "units", "7")
	first := s.Primary
	must(t, s.Failover())
	if s.Replica != first {
		t.Error("the roles did not change")
	}
	// The client hears of it a moment later.
	must(t, within(func() error { return c.Do(t.Context(), c.B().Set().Key("units").Value("8").Build()).Error() }))
	must(t, within(s.caughtUp))
	s.Primary.Kill()
	must(t, s.AwaitFailover())
	if s.Primary != first {
		t.Error("the first primary is not back")
	}
	must(t, within(func() error { return c.Do(t.Context(), c.B().Incr().Key("units").Build()).Error() }))
	get(t, c, "units", "9")
	must(t, s.Rejoin())
}

func TestRedisCluster(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := Cluster(t)
	client := redisClient(t, rueidis.ClientOption{InitAddress: c.Addrs(), ShuffleInit: true})
	const keys = 50
	key := func(i int) string { return fmt.Sprintf("{sale:%d}units", i) }
	for i := range keys {
		set(t, client, key(i), "1")
	}
	for i := range clusterPrimaries {
		primary, replicas, err := c.Owner((i*slots + slots/2) / clusterPrimaries)
		must(t, err)
		if primary != c.Nodes[i] || len(replicas) != 1 || replicas[0] != c.Nodes[i+clusterPrimaries] {
			t.Fatalf("primary %d is %v with %v", i, primary, replicas)
		}
	}

	slot, err := c.Slot(key(0))
	must(t, err)
	from, _, err := c.Owner(slot)
	must(t, err)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	must(t, c.MoveSlot(slot, to))
	ask(t, from, "GET "+key(0), fmt.Sprintf("-MOVED %d %s", slot, to.Addr))
	get(t, client, key(0), "1") // it followed

	// In turn: in order, by force after a crash, alone while the primary sleeps.
	swap := func(primary, replica *Server, how string, gone, back func()) {
		t.Helper()
		gone()
		must(t, c.Failover(replica, how))
		back()
		must(t, c.Await())
		if role, err := Do(primary, "ROLE"); err != nil || fmt.Sprint(role.([]any)[0]) != "slave" {
			t.Errorf("after %q the old primary is %v, %v", how, role, err)
		}
	}
	must(t, c.Await())
	idle := func() {}
	swap(c.Nodes[0], c.Nodes[3], FailoverOrderly, idle, idle)
	swap(c.Nodes[1], c.Nodes[4], FailoverForce, c.Nodes[1].Kill, func() { must(t, c.Nodes[1].Restart()) })
	swap(c.Nodes[2], c.Nodes[5], FailoverTakeover, c.Nodes[2].Pause, c.Nodes[2].Resume)
	for i := range keys {
		get(t, client, key(i), "1")
	}

	// A primary that lost its disk is still who it was, and its replica, which
	// follows it, loses all too.
	must(t, c.Nodes[3].RestartEmpty())
	must(t, c.Await())
	lost := 0
	for i := range keys {
		slot, err := c.Slot(key(i))
		must(t, err)
		if owner, _, err := c.Owner(slot); err != nil {
			t.Fatal(err)
		} else if owner == c.Nodes[3] {
			lost++
			get(t, client, key(i), "")
		}
	}
	if lost == 0 {
		t.Error("the node had no key to lose")
	}
}

func TestClusterPromotesByItself(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := Cluster(t, Config("cluster-require-full-coverage no"))
	c.Nodes[0].Kill()
	must(t, c.AwaitFailover(c.Nodes[3]))
	must(t, c.Nodes[0].Restart())
	must(t, c.Await())
	if primary, replicas, err := c.Owner(0); err != nil || primary != c.Nodes[3] || len(replicas) != 1 {
		t.Errorf("slot 0: %v with %v, %v", primary, replicas, err)
	}
}
