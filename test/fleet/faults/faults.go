package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/test/fleet"
	"sluice/test/servers"
)

// fault is one thing that goes wrong in the middle of a sale. play does it and
// mends it; that all is well again is seen to by the scene.
type fault struct {
	name string
	on   []kind
	play func(ctx context.Context, s *scene, a *act) error
	// lasts is about how many seconds it takes until all is well again; 0: 5.
	lasts int
	// rebuilds: at least one bucket must have been rebuilt, or the fault was none.
	rebuilds bool
	// queue: there is a waiting room before the sale.
	queue bool
	// loses: something that was pending must have been refused, or likewise.
	loses bool
	// big: it is one of the big storm of these kinds of fleet.
	big []kind
}

var both, every, onFull = []kind{cluster, single}, []kind{cluster, single, full}, []kind{full}

// faults in the order in which they are played.
var faults = []fault{
	{name: "gateway killed", on: []kind{cluster}, big: []kind{cluster}, play: gatewayKilled},
	{name: "kafka broker killed", on: onFull, big: onFull, lasts: 12, play: brokerKilled},
	{name: "etcd member killed", on: onFull, big: onFull, lasts: 8, play: etcdMemberKilled},
	{name: "shard primary killed", on: onFull, big: onFull, lasts: 10, play: shardKilled},
	{name: "worker killed", on: every, big: []kind{cluster, full}, play: workerKilled},
	{name: "redis primary killed", on: []kind{cluster}, rebuilds: true, lasts: 9, big: []kind{cluster}, play: primaryKilled},
	{name: "mariadb killed", on: both, big: []kind{cluster}, play: sqlKilled},
	{name: "redis restarted empty", on: both, rebuilds: true, big: []kind{cluster}, play: redisEmpty},
	{name: "redis rolled back", on: both, rebuilds: true, big: []kind{cluster}, play: redisRolledBack},

	{name: "both workers killed", on: []kind{cluster}, play: workersKilled},
	{name: "workers killed, redis emptied", on: both, rebuilds: true, loses: true, play: workersKilledRedisEmpty},
	{name: "worker frozen past its lease", on: both, lasts: 10, play: workerFrozen},
	{name: "gateway frozen", on: []kind{cluster}, play: gatewayFrozen},
	{name: "console killed", on: []kind{cluster}, play: consoleKilled},
	{name: "rolling restart of all", on: []kind{cluster}, lasts: 10, play: rolling},
	{name: "redis killed and restarted", on: []kind{single}, rebuilds: true, play: redisKilled},
	{name: "redis flushed", on: both, rebuilds: true, play: redisFlushed},
	{name: "redis slot moved", on: []kind{cluster}, rebuilds: true, play: slotMoved},
	{name: "redis frozen past leases", on: both, lasts: 9, play: redisFrozen},
	{name: "mariadb primary killed, replica promoted", on: []kind{cluster}, play: sqlPromoted},
	{name: "mariadb connections killed", on: both, lasts: 7, play: sqlConnections},
	{name: "mariadb frozen", on: both, lasts: 8, play: sqlFrozen},
	{name: "caller of the waiting room killed", on: both, queue: true, lasts: 10, play: callerKilled},
	{name: "caller of the waiting room frozen", on: []kind{single}, queue: true, lasts: 10, play: callerFrozen},
	{name: "network gateway - redis", on: []kind{single}, lasts: 24, play: network("gateway", toRedis)},
	{name: "network gateway - mariadb", on: []kind{single}, lasts: 24, play: network("gateway", toSQL)},
	{name: "network worker - redis", on: []kind{single}, lasts: 30, play: network("worker", toRedis)},
	{name: "network worker - mariadb", on: []kind{single}, lasts: 24, play: network("worker", toSQL)},

	{name: "kafka away", on: onFull, lasts: 25, play: kafkaAway},
	{name: "rebalance under load", on: onFull, lasts: 20, play: rebalance},
	{name: "duplicate and reordered delivery", on: onFull, lasts: 12, play: deliveredAgain},
	{name: "etcd away", on: onFull, lasts: 15, play: etcdAway},
	{name: "shard primary killed, replica promoted", on: onFull, lasts: 15, play: shardPromoted},
	{name: "replica lags", on: onFull, lasts: 12, play: replicaLags},
}

func gatewayKilled(ctx context.Context, s *scene, a *act) error {
	g := s.Gateways[0]
	return s.away(ctx, a, 2*time.Second, g)
}

func consoleKilled(ctx context.Context, s *scene, a *act) error {
	return s.away(ctx, a, 2*time.Second, s.Console)
}

func workersKilled(ctx context.Context, s *scene, a *act) error {
	return s.away(ctx, a, 2*time.Second, s.Workers...)
}

// away kills processes at once and starts them again after a while.
func (s *scene) away(ctx context.Context, a *act, d time.Duration, list ...*fleet.Process) error {
	err := s.fire(a, func() error {
		for _, p := range list {
			p.Kill()
		}
		return nil
	})
	return errors.Join(err, s.sleep(ctx, d), restart(list))
}

func restart(list []*fleet.Process) (err error) {
	for _, p := range list {
		err = errors.Join(err, p.Restart())
	}
	return err
}

// workerKilled: another takes the buckets over before it is started again.
func workerKilled(ctx context.Context, s *scene, a *act) error {
	keeper, _, err := s.keeper(ctx)
	if err != nil {
		return err
	}
	if err := s.fire(a, func() error { keeper.Kill(); return nil }); err != nil {
		return err
	}
	taken := s.takenOver(ctx, keeper)
	a.mark("taken over after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(taken, keeper.Restart())
}

// workerFrozen: when it wakes, another has its buckets, and it does not know.
func workerFrozen(ctx context.Context, s *scene, a *act) error {
	keeper, _, err := s.keeper(ctx)
	if err != nil {
		return err
	}
	if err := s.fire(a, func() error { keeper.Pause(); return nil }); err != nil {
		return err
	}
	defer keeper.Resume()
	taken := s.takenOver(ctx, keeper)
	a.mark("taken over after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(taken, s.sleep(ctx, time.Second))
}

func gatewayFrozen(ctx context.Context, s *scene, a *act) error {
	return s.frozen(ctx, a, 4*time.Second, s.Gateways[len(s.Gateways)-1].Server)
}

func sqlFrozen(ctx context.Context, s *scene, a *act) error {
	return s.frozen(ctx, a, 5*time.Second, s.primary().Server)
}

func (s *scene) frozen(ctx context.Context, a *act, d time.Duration, p *servers.Server) error {
	err := s.fire(a, func() error { p.Pause(); return nil })
	defer p.Resume()
	return errors.Join(err, s.sleep(ctx, d))
}

// rolling ends every process in order and starts it again, one after the other.
func rolling(ctx context.Context, s *scene, a *act) error {
	for _, p := range s.Processes() {
		if err := s.fire(a, p.Restart); err != nil {
			return err
		}
	}
	return nil
}

func sqlKilled(ctx context.Context, s *scene, a *act) error {
	d := s.primary()
	err := s.fire(a, func() error { d.Kill(); return nil })
	return errors.Join(err, s.sleep(ctx, 2*time.Second), asPrimary(d))
}

// sqlPromoted: the replica has every commit that was answered. The processes
// are led to it as by a moved address.
func sqlPromoted(ctx context.Context, s *scene, a *act) error {
	if s.Pair.Replica.Addr == s.SQL.Addr {
		return errors.New("promoted before")
	}
	err := s.fire(a, func() error { s.Pair.Primary.Kill(); return s.Pair.Promote(ctx) })
	if err != nil {
		return err
	}
	for _, w := range s.wires {
		w.sql.Retarget(s.Pair.Primary.Addr)
		w.sql.Reset()
	}
	a.mark("promoted after %s", time.Since(a.begun).Round(10*time.Millisecond))
	if err := s.Pair.Rejoin(context.WithoutCancel(ctx)); err != nil {
		// It has what nobody was told, and has to begin anew.
		return errors.Join(s.Pair.Replica.RestartEmpty(), s.Pair.Rejoin(context.WithoutCancel(ctx)))
	}
	return nil
}

// sqlConnections ends every connection that there is, three times.
func sqlConnections(ctx context.Context, s *scene, a *act) error {
	for range 3 {
		row, err := s.primary().Query(ctx, "SELECT GROUP_CONCAT(id) AS ids FROM information_schema.processlist WHERE user = ?", servers.SQLUser)
		if err != nil {
			return err
		}
		for id := range strings.SplitSeq(row["ids"], ",") {
			if id == "" {
				continue
			}
			err := s.fire(a, func() error { return s.primary().Exec(ctx, "KILL "+id) })
			if err != nil && !strings.Contains(err.Error(), "Unknown thread id") {
				return err
			}
		}
		if err := s.sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// primaryKilled: the cluster promotes the replica by itself; the old one comes back as
// its replica.
func primaryKilled(ctx context.Context, s *scene, a *act) error {
	p, _, replicas, err := s.owner()
	if err != nil || len(replicas) != 1 {
		return fmt.Errorf("%d replicas: %w", len(replicas), err)
	}
	err = s.fire(a, func() error { p.Kill(); return s.Cluster.AwaitFailover(replicas[0]) })
	a.mark("promoted after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(err, s.sleep(ctx, time.Second), p.Restart(), s.Cluster.Await())
}

func redisKilled(ctx context.Context, s *scene, a *act) error {
	err := s.fire(a, func() error { s.Redis.Kill(); return nil })
	return errors.Join(err, s.sleep(ctx, time.Second), s.Redis.Restart())
}

func redisEmpty(ctx context.Context, s *scene, a *act) error {
	p, _, _, err := s.owner()
	if err != nil {
		return err
	}
	return errors.Join(s.fire(a, p.RestartEmpty), s.settled())
}

func redisRolledBack(ctx context.Context, s *scene, a *act) error {
	p, _, _, err := s.owner()
	if err != nil {
		return err
	}
	image := filepath.Join(scope{s.Scope, s.dir}.TempDir(), "image")
	if err := p.Image(image); err != nil {
		return err
	}
	if err := s.sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	a.begun = time.Now()
	return errors.Join(s.fire(a, func() error { return p.RestartFrom(image) }), s.settled())
}

func redisFlushed(ctx context.Context, s *scene, a *act) error {
	p, _, _, err := s.owner()
	if err != nil {
		return err
	}
	return s.fire(a, func() error { _, err := servers.Do(p, "FLUSHALL"); return err })
}

func redisFrozen(ctx context.Context, s *scene, a *act) error {
	p, _, replicas, err := s.owner()
	if err != nil {
		return err
	}
	if err := s.frozen(ctx, a, 5*time.Second, p); err != nil {
		return err
	}
	if len(replicas) == 1 {
		if err := s.Cluster.AwaitFailover(replicas[0]); err != nil {
			return err
		}
		a.mark("its replica was promoted meanwhile")
	}
	return s.settled()
}

// settled waits until a cluster is whole.
func (s *scene) settled() error {
	if s.Cluster == nil {
		return nil
	}
	return s.Cluster.Await()
}

func slotMoved(ctx context.Context, s *scene, a *act) error {
	from, slot, _, err := s.owner()
	if err != nil {
		return err
	}
	for other := range 3 {
		to, _, err := s.Cluster.Owner((slot + other*5461) % 16384)
		if err != nil {
			return err
		}
		if to == from {
			continue
		}
		return errors.Join(s.fire(a, func() error { return s.Cluster.MoveSlot(slot, to) }), s.settled())
	}
	return errors.New("one node has all slots")
}

// workersKilledRedisEmpty: nobody lands what is accepted meanwhile, and then it
// is gone. All of it was pending, and has to be refused.
func workersKilledRedisEmpty(ctx context.Context, s *scene, a *act) error {
	p, _, _, err := s.owner()
	if err != nil {
		return err
	}
	err = s.fire(a, func() error {
		for _, w := range s.Workers {
			w.Kill()
		}
		return errors.Join(s.sleep(ctx, time.Second), p.RestartEmpty(), s.settled())
	})
	return errors.Join(err, restart(s.Workers))
}

func (a *act) mark(format string, args ...any) {
	a.marks = append(a.marks, fmt.Sprintf(format, args...))
}

// playable says whether a fault is for a kind of fleet.
func (f *fault) playable(k kind) bool { return slices.Contains(f.on, k) }
