package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/test/servers"
)

// What the processes call their topic and their group.
const (
	topic = "sluice.events"
	group = "sluice"
)

// brokerKilled: the broker that leads a partition which is in use. The others have
// all that it acknowledged and one of them leads.
func brokerKilled(ctx context.Context, s *scene, a *act) error {
	used, err := s.usedPartition(ctx)
	if err != nil {
		return err
	}
	leader, err := s.Kafka.Leader(topic, used)
	if err != nil {
		return err
	}
	if err := s.fire(a, func() error { leader.Kill(); return nil }); err != nil {
		return err
	}
	within, stop := context.WithTimeout(ctx, heals)
	defer stop()
	moved := s.await(within, func(context.Context) error {
		now, err := s.Kafka.Leader(topic, used)
		if err == nil && now == leader {
			err = fmt.Errorf("partition %d is led by the broker that is dead", used)
		}
		return err
	})
	a.mark("another leads after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return errors.Join(moved, s.sleep(ctx, 2*time.Second), leader.Restart(), s.brokersBack(a))
}

// kafkaAway: nothing carries events. Orders are accepted and land as ever; what
// was paid is known to the ledger afterwards.
func kafkaAway(ctx context.Context, s *scene, a *act) error {
	landed := s.regulars.seen()
	err := s.fire(a, func() error {
		for _, b := range s.Kafka.Brokers {
			b.Kill()
		}
		return nil
	})
	if err := errors.Join(err, s.sleep(ctx, 10*time.Second)); err != nil {
		return err
	}
	more := s.regulars.seen() - landed
	if more == 0 {
		err = errors.New("no order landed while the brokers were away")
	}
	a.mark("%d orders of the regulars landed without it", more)
	return errors.Join(err, restartServers(s.Kafka.Brokers), s.brokersBack(a))
}

// restartServers starts all of them at once: some wait for others.
func restartServers(list []*servers.Server) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, one := range list {
		all.Go(func() { errs[i] = one.Restart() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// brokersBack waits until those that were started again serve.
func (s *scene) brokersBack(a *act) error {
	err := s.Kafka.Await()
	a.mark("all brokers serve after %s", time.Since(a.begun).Round(10*time.Millisecond))
	return err
}

// rebalance: who reads which partitions changes four times while messages flow:
// a worker is killed, another joins, the first comes back, the other leaves.
func rebalance(ctx context.Context, s *scene, a *act) error {
	worker := s.Workers[0]
	if err := s.fire(a, func() error { worker.Kill(); return nil }); err != nil {
		return err
	}
	hired := s.hired
	if hired == nil {
		hired = s.Hire(scope{s.Scope, s.dir})
		s.Workers, s.hired = s.Workers[:len(s.Workers)-1], hired // it is not there for good
	} else if err := hired.Restart(); err != nil {
		return err
	}
	a.fired++
	a.mark("a third worker was ready after %s", time.Since(a.begun).Round(10*time.Millisecond))
	err := errors.Join(s.sleep(ctx, 4*time.Second), worker.Restart())
	a.fired++
	err = errors.Join(err, s.sleep(ctx, 4*time.Second), hired.Stop())
	a.fired++
	return err
}

// deliveredAgain: what the topic has of this storm is put into it once more, in another
// order, and then the group is set back to where the storm began, so that all of
// it comes three times. Nothing may be applied twice.
func deliveredAgain(ctx context.Context, s *scene, a *act) error {
	since, n := a.begun.Add(-before), 0
	err := s.fire(a, func() (err error) { n, err = s.Kafka.Again(ctx, topic, since); return err })
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("the topic has nothing of this storm")
	}
	a.mark("%d events came again in another order", n)
	if err := s.sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	// A group can be set back while nobody is in it: those who stop in order leave.
	for _, w := range s.Workers {
		err = errors.Join(err, w.Stop())
	}
	if err != nil {
		return err
	}
	err = s.fire(a, func() error { return s.Kafka.Rewind(ctx, group, topic, since) })
	return errors.Join(err, restart(s.Workers))
}

// usedPartition is the one that most was sent to.
func (s *scene) usedPartition(ctx context.Context) (most int32, err error) {
	ends, err := s.Kafka.Ends(ctx, topic)
	if err != nil {
		return 0, err
	}
	for p, end := range ends {
		if end > ends[most] {
			most = p
		}
	}
	if ends[most] == 0 {
		return 0, errors.New("nothing was sent to any partition")
	}
	return most, nil
}

// consumed answers nil if the group has read up to some ends.
func (s *stage) consumed(ctx context.Context, ends map[int32]int64) error {
	at, err := s.Kafka.Committed(ctx, group, topic)
	if err != nil {
		return err
	}
	behind := int64(0)
	for p, end := range ends {
		behind += max(0, end-at[p])
	}
	if behind > 0 {
		return fmt.Errorf("%d events are in the topic and not read", behind)
	}
	return nil
}
