package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// etcdMemberKilled: the leader; the other two elect another.
func etcdMemberKilled(ctx context.Context, s *scene, a *act) error {
	leader, err := s.Etcd.Leader()
	if err != nil {
		return err
	}
	if err := s.fire(a, func() error { leader.Kill(); return nil }); err != nil {
		return err
	}
	within, stop := context.WithTimeout(ctx, heals)
	defer stop()
	elected := s.await(within, func(context.Context) error { _, err := s.Etcd.Leader(); return err })
	a.mark("another leads after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(elected, s.sleep(ctx, 3*time.Second), leader.Restart(), s.Etcd.Await())
}

// etcdAway: for longer than leases of buckets and tasks last.
func etcdAway(ctx context.Context, s *scene, a *act) error {
	err := s.fire(a, func() error {
		for _, m := range s.Etcd.Members {
			m.Kill()
		}
		return nil
	})
	return errors.Join(err, s.sleep(ctx, 8*time.Second), restartServers(s.Etcd.Members), s.Etcd.Await())
}

// The shard that is killed has orders and nothing else; the first one has the
// activities too.
const ordersOnly, everything = 1, 0

// shardKilled: a sale whose orders are in two shards lands in neither while one
// is away, for a batch is landed as a whole. What has landed in the other can
// be read and cancelled.
func shardKilled(ctx context.Context, s *scene, a *act) error {
	if err := s.stocked(ctx, everything); err != nil {
		return err
	}
	d := s.Shards[ordersOnly].Primary()
	err := s.fire(a, func() error { d.Kill(); return nil })
	err = errors.Join(err, s.regulars.goOn(ctx, everything, 4, 5*time.Second))
	a.mark("orders of the other shard were read and cancelled within %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(err, s.sleep(ctx, 3*time.Second), asPrimary(d))
}

// stocked waits until the regulars have orders in a shard to ask about.
func (s *scene) stocked(ctx context.Context, shard int) error {
	ctx, stop := context.WithTimeout(ctx, heals)
	defer stop()
	return s.await(ctx, func(context.Context) error {
		n := 0
		s.regulars.note(func() { n = len(s.regulars.kept[shard]) })
		if n < keeps/2 {
			return fmt.Errorf("the regulars have %d orders in shard %d", n, shard)
		}
		return nil
	})
}

// shardPromoted: the processes know both servers and find the new primary by
// themselves. The old one comes back as a replica.
func shardPromoted(ctx context.Context, s *scene, a *act) error {
	pair := s.Shards[everything].Pair
	if err := s.fire(a, func() error { pair.Primary.Kill(); return pair.Promote(ctx) }); err != nil {
		return err
	}
	a.mark("promoted after %s", time.Since(a.begun).Round(10*time.Millisecond))
	if err := s.heal(ctx, a); err != nil {
		return err
	}
	a.mark("followed after %s", time.Since(a.begun).Round(10*time.Millisecond))
	if err := pair.Rejoin(context.WithoutCancel(ctx)); err != nil {
		// It has what nobody was told, and has to begin anew.
		return errors.Join(pair.Replica.RestartEmpty(), pair.Rejoin(context.WithoutCancel(ctx)))
	}
	return nil
}

// replicaLags: it has everything in its relay log, so that commits are
// acknowledged, and shows nothing of it.
func replicaLags(ctx context.Context, s *scene, a *act) error {
	for _, shard := range s.Shards {
		r := shard.Pair.Replica
		if err := s.fire(a, func() error { return r.Exec(ctx, "STOP SLAVE SQL_THREAD") }); err != nil {
			return err
		}
	}
	err := s.sleep(ctx, 8*time.Second)
	for _, shard := range s.Shards {
		err = errors.Join(err, shard.Pair.Replica.Exec(context.WithoutCancel(ctx), "START SLAVE SQL_THREAD"))
	}
	return err
}
