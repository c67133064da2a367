package servers

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// nodesConf is where a node of a cluster keeps who it is.
const nodesConf = "nodes.conf"

const (
	clusterPrimaries = 3
	slots            = 16384
)

// RedisCluster is six nodes: three primaries with a replica each.
type RedisCluster struct {
	// Nodes are Primary 0, 1, 2 at first, then the replica of each in that
	// order; Roles says who is what now. The slots are shared out evenly:
	// primary 0 has 0–5460, 1 has 5461–10921, 2 has 10922–16383.
	Nodes []*Server
	ids   map[*Server]string
}

// Cluster starts a Redis Cluster and waits until all of it serves. A node that
// does not answer for 2 s is taken for dead, and its replica promotes itself.
// The options are for every node.
func Cluster(t TB, opts ...Option) *RedisCluster {
	t.Helper()
	c := &RedisCluster{ids: map[*Server]string{}}
	for range 2 * clusterPrimaries {
		c.Nodes = append(c.Nodes, clusterNode(t, opts))
	}
	if err := c.form(); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return c
}

func clusterNode(t TB, opts []Option) *Server {
	t.Helper()
	// The bus would be at port+10000, which need not be free or even a port.
	bus, err := freeAddr()
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	_, port, _ := strings.Cut(bus, ":")
	own := []Option{Config("cluster-enabled yes"), Config("cluster-config-file " + nodesConf), Config("cluster-port " + port),
		Config("cluster-node-timeout 2000"), Config("cluster-replica-validity-factor 0"), Config("cluster-allow-replica-migration no")}
	return Redis(t, append(own, opts...)...)
}

// form makes a cluster of six nodes that know nothing. By commands and not by
// redis-cli --cluster create, which sleeps between its steps and says what went
// wrong in prose.
func (c *RedisCluster) form() error {
	for i, n := range c.Nodes {
		// Epochs of their own, or the nodes would first argue about them.
		if err := each(n, fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1)); err != nil {
			return err
		}
		id, err := Do(n, "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		c.ids[n] = id.(string)
	}
	for i, n := range c.Nodes[:clusterPrimaries] {
		from, to := i*slots/clusterPrimaries, (i+1)*slots/clusterPrimaries-1
		if err := each(n, fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", from, to)); err != nil {
			return err
		}
	}
	// Everybody is introduced to everybody, rather than by hearsay in seconds.
	for i, n := range c.Nodes {
		for _, other := range c.Nodes[i+1:] {
			if err := meet(n, other); err != nil {
				return err
			}
		}
	}
	for i, n := range c.Nodes[clusterPrimaries:] {
		// Refused until the node has heard of its primary.
		if err := within(func() error { return each(n, "CLUSTER REPLICATE "+c.ids[c.Nodes[i]]) }); err != nil {
			return err
		}
	}
	return c.Await()
}

func meet(n, other *Server) error {
	info, err := Do(other, "CONFIG", "GET", "cluster-port")
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(other.Addr)
	if err != nil {
		return err
	}
	return each(n, fmt.Sprintf("CLUSTER MEET %s %s %v", host, port, info.([]any)[1]))
}

// Addrs are the addresses of all nodes.
func (c *RedisCluster) Addrs() (list []string) {
	for _, n := range c.Nodes {
		list = append(list, n.Addr)
	}
	return list
}

// Await waits until every node that is neither paused nor ended takes the
// cluster for whole and none of these for dead, and every replica of them has
// its primary's data, on disk too.
func (c *RedisCluster) Await() error { return within(c.whole) }

func (c *RedisCluster) whole() error {
	for _, n := range c.Nodes {
		if n.mute() {
			continue
		}
		reply, err := Do(n, "CLUSTER", "INFO")
		if err != nil {
			return err
		}
		if info := fields(reply); info["cluster_state"] != "ok" || info["cluster_known_nodes"] != strconv.Itoa(len(c.Nodes)) {
			return fmt.Errorf("%s finds the cluster not whole: %v", n.Addr, info)
		}
		view, err := c.view(n)
		if err != nil {
			return err
		}
		for _, other := range c.Nodes {
			if seen := view[other]; !other.mute() && strings.Contains(seen.flags, "fail") || seen.flags == "" {
				return fmt.Errorf("%s takes %s for %q", n.Addr, other.Addr, seen.flags)
			}
		}
		info, err := replication(n)
		if err != nil {
			return err
		}
		if info["role"] == "slave" && info["master_link_status"] != "up" {
			return fmt.Errorf("%s does not follow: %v", n.Addr, info)
		}
		if err := saved(n); err != nil {
			return err
		}
	}
	return nil
}

// seen is what a node holds of another.
type seen struct {
	flags   string // "master", "slave,fail", …
	follows string // the id of its primary, "-" for a primary
	slots   []string
}

// view is what one node holds of all.
func (c *RedisCluster) view(n *Server) (map[*Server]seen, error) {
	reply, err := Do(n, "CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	found := map[*Server]seen{}
	text, _ := reply.(string)
	for line := range strings.Lines(text) {
		// id, address, flags, primary, ping, pong, epoch, link, slots…
		words := strings.Fields(line)
		if len(words) < 8 {
			continue
		}
		for node, id := range c.ids {
			if id == words[0] {
				found[node] = seen{flags: strings.TrimPrefix(words[2], "myself,"), follows: words[3], slots: words[8:]}
			}
		}
	}
	return found, nil
}

// Slot is the slot of a key, 0–16383.
func (c *RedisCluster) Slot(key string) (int, error) {
	for _, n := range c.Nodes {
		if !n.mute() {
			reply, err := Do(n, "CLUSTER", "KEYSLOT", key)
			slot, _ := reply.(int64)
			return int(slot), err
		}
	}
	return 0, errors.New("no node of the cluster runs")
}

// Owner is the primary that serves a slot, by its own account, and its
// replicas as it knows them. Paused and ended nodes do not count.
func (c *RedisCluster) Owner(slot int) (primary *Server, replicas []*Server, err error) {
	for _, n := range c.Nodes {
		if n.mute() {
			continue
		}
		view, err := c.view(n)
		if err != nil {
			continue // it is asked from the others
		}
		if own := view[n]; own.follows != "-" || !holds(own.slots, slot) {
			continue
		}
		for _, other := range c.Nodes {
			if view[other].follows == c.ids[n] {
				replicas = append(replicas, other)
			}
		}
		return n, replicas, nil
	}
	return nil, nil, fmt.Errorf("no running node serves slot %d", slot)
}

// holds reads ranges such as "0-5460" and "7000"; one that is on its way,
// "[7000->-id]", is still where it was.
func holds(ranges []string, slot int) bool {
	return slices.ContainsFunc(ranges, func(r string) bool {
		first, last, isRange := strings.Cut(r, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		return err1 == nil && err2 == nil && from <= slot && slot <= to
	})
}

// How a replica takes its primary's place: FailoverOrderly with its consent
// and nothing lost, FailoverForce when it is gone and the others agree,
// FailoverTakeover on its own, even by a minority: two may then serve a slot
// until they hear of each other.
const (
	FailoverOrderly  = ""
	FailoverForce    = "FORCE"
	FailoverTakeover = "TAKEOVER"
)

// Failover promotes a replica and waits until it serves and all nodes that are
// neither paused nor ended agree.
func (c *RedisCluster) Failover(replica *Server, how string) error {
	if err := each(replica, "CLUSTER FAILOVER "+how); err != nil {
		return err
	}
	return within(func() error { return c.serves(replica) })
}

// AwaitFailover waits until the cluster has promoted a replica of itself,
// after its primary was killed or paused.
func (c *RedisCluster) AwaitFailover(replica *Server) error {
	return within(func() error { return c.serves(replica) })
}

// serves answers nil if a node has slots in its own eyes and in all others'.
func (c *RedisCluster) serves(promoted *Server) error {
	own, err := c.view(promoted)
	if err != nil {
		return err
	}
	if len(own[promoted].slots) == 0 {
		return fmt.Errorf("%s has no slots", promoted.Addr)
	}
	for _, n := range c.Nodes {
		if n.mute() {
			continue
		}
		view, err := c.view(n)
		if err != nil {
			return err
		}
		if !slices.Equal(view[promoted].slots, own[promoted].slots) {
			return fmt.Errorf("%s does not know yet that %s serves", n.Addr, promoted.Addr)
		}
	}
	return nil
}

// MoveSlot moves a slot with its keys to another primary while both serve:
// until it returns, clients may be answered ASK, and afterwards MOVED.
func (c *RedisCluster) MoveSlot(slot int, to *Server) error {
	from, _, err := c.Owner(slot)
	if err != nil || from == to {
		return err
	}
	err = errors.Join(
		each(to, fmt.Sprintf("CLUSTER SETSLOT %d IMPORTING %s", slot, c.ids[from])),
		each(from, fmt.Sprintf("CLUSTER SETSLOT %d MIGRATING %s", slot, c.ids[to])))
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(to.Addr)
	if err != nil {
		return err
	}
	for {
		reply, err := Do(from, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), "100")
		if err != nil {
			return err
		}
		keys, _ := reply.([]any)
		if len(keys) == 0 {
			break
		}
		command := []string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}
		for _, k := range keys {
			command = append(command, k.(string))
		}
		if _, err := Do(from, command...); err != nil {
			return err
		}
	}
	// The new owner first: if this stops between the two, none is without one.
	for _, n := range append([]*Server{to, from}, c.Nodes...) {
		if info, err := replication(n); err != nil || info["role"] != "master" {
			continue // it hears of it by gossip
		}
		if err := each(n, fmt.Sprintf("CLUSTER SETSLOT %d NODE %s", slot, c.ids[to])); err != nil {
			return err
		}
	}
	return nil
}

// Announce has the cluster tell everybody to reach nodes at other addresses of
// their host, such as those of proxies in front of them, and waits until all
// know. Replicas come that way too; the nodes' talk among themselves does not. A
// node remembers it when it is started again.
func (c *RedisCluster) Announce(at map[*Server]string) error {
	for n, addr := range at {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		if err := each(n, "CONFIG SET cluster-announce-port "+port, "CONFIG REWRITE"); err != nil {
			return err
		}
	}
	return within(func() error {
		for _, teller := range c.Nodes {
			if teller.mute() {
				continue
			}
			reply, err := Do(teller, "CLUSTER", "NODES")
			if err != nil {
				return err
			}
			text, _ := reply.(string)
			for n, addr := range at {
				if !strings.Contains(text, c.ids[n]+" "+addr+"@") {
					return fmt.Errorf("%s does not know yet that %s is at %s", teller.Addr, n.Addr, addr)
				}
			}
		}
		return nil
	})
}
