package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// RedisPair is a primary and a replica that follows it as Redis does: after
// the answer. The fields change places with Promote; neither is for several
// goroutines at once.
type RedisPair struct {
	Primary, Replica *Server
}

// RedisWithReplica starts a pair and waits until the replica has caught up.
func RedisWithReplica(t TB, opts ...Option) *RedisPair {
	t.Helper()
	p := &RedisPair{Primary: Redis(t, opts...), Replica: Redis(t, opts...)}
	if err := p.Rejoin(); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return p
}

// Promote makes the replica the primary at once, whether or not it has caught
// up, and leaves the old one as it is: killed, or a second primary.
func (p *RedisPair) Promote() error {
	if err := each(p.Replica, "REPLICAOF NO ONE", "CONFIG REWRITE"); err != nil {
		return err
	}
	p.Primary, p.Replica = p.Replica, p.Primary
	return nil
}

// Rejoin has the replica, which is started if it has ended, follow the primary,
// and waits until it has caught up. What only the replica had is gone.
func (p *RedisPair) Rejoin() error {
	if p.Replica.ended() {
		if err := p.Replica.Restart(); err != nil {
			return err
		}
	}
	host, port, err := net.SplitHostPort(p.Primary.Addr)
	if err != nil {
		return err
	}
	if err := each(p.Replica, "REPLICAOF "+host+" "+port, "CONFIG REWRITE"); err != nil {
		return err
	}
	return within(p.caughtUp)
}

// caughtUp answers nil if the replica has all that the primary had when asked,
// and has begun a file of it.
func (p *RedisPair) caughtUp() error {
	primary, err := replication(p.Primary)
	if err != nil {
		return err
	}
	replica, err := replication(p.Replica)
	if err != nil {
		return err
	}
	if replica["role"] != "slave" || replica["master_link_status"] != "up" {
		return fmt.Errorf("%s does not follow %s: %v", p.Replica.Addr, p.Primary.Addr, replica)
	}
	sent, err1 := strconv.ParseInt(primary["master_repl_offset"], 10, 64)
	got, err2 := strconv.ParseInt(replica["slave_repl_offset"], 10, 64)
	if err1 != nil || err2 != nil || got < sent {
		return fmt.Errorf("%s is at %d of the %d of %s", p.Replica.Addr, got, sent, p.Primary.Addr)
	}
	return saved(p.Replica)
}

// SentinelSet is the name under which a sentinel knows its primary.
const SentinelSet = "sluice"

// sentinelFrame takes a primary for dead after a second without an answer.
const sentinelFrame = `bind 127.0.0.1
port %s
dir %q
daemonize no
sentinel monitor ` + SentinelSet + ` %s %s 1
sentinel down-after-milliseconds ` + SentinelSet + ` 1000
sentinel failover-timeout ` + SentinelSet + ` 10000
`

// Sentinel is a pair watched by one sentinel, which promotes the replica of a
// primary that has not answered for a second. One, with a quorum of one: what
// is tested is how the engine takes a change of primary, not how sentinels
// come to agree; a lone one decides sooner and the same each time.
type Sentinel struct {
	RedisPair
	Watch *Server // the sentinel itself; clients ask it for SentinelSet
}

// RedisSentinel starts a pair and its sentinel, and waits until it knows both.
// The options are for the pair.
func RedisSentinel(t TB, opts ...Option) *Sentinel {
	t.Helper()
	s := &Sentinel{RedisPair: *RedisWithReplica(t, opts...)}
	host, port, err := net.SplitHostPort(s.Primary.Addr)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	s.Watch = Start(t, Program{
		Name: "sentinel",
		Path: Find(t, "redis-server"),
		Keep: []string{"sentinel.conf"}, // all it knows
		Args: func(addr, dir string) ([]string, error) {
			_, own, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			text, file := fmt.Sprintf(sentinelFrame, own, dir, host, port), filepath.Join(dir, "sentinel.conf")
			return []string{file, "--sentinel"}, os.WriteFile(file, []byte(text), 0o600)
		},
		Ready: func(ctx context.Context, addr string) error {
			// It looks at its servers every 10 s unless told to look more often,
			// which only a running one can be.
			_, err := exchange(ctx, addr, []string{"SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "500"})
			return err
		},
	})
	if err := s.settled(); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return s
}

// knows answers nil once the sentinel counts a server among the replicas that
// it could promote.
func (s *Sentinel) knows(replica *Server) error {
	reply, err := Do(s.Watch, "SENTINEL", "REPLICAS", SentinelSet)
	if err != nil {
		return err
	}
	list, _ := reply.([]any)
	for _, entry := range list {
		words, _ := entry.([]any)
		found := map[string]string{}
		for i := 0; i+1 < len(words); i += 2 {
			found[fmt.Sprint(words[i])] = fmt.Sprint(words[i+1])
		}
		if found["name"] == replica.Addr && found["flags"] == "slave" && found["master-link-status"] == "ok" {
			return nil
		}
	}
	return fmt.Errorf("the sentinel does not know the replica %s: %v", replica.Addr, list)
}

// Failover has the sentinel exchange primary and replica, both of which run,
// and waits until it has.
func (s *Sentinel) Failover() error {
	if err := each(s.Watch, "SENTINEL FAILOVER "+SentinelSet); err != nil {
		return err
	}
	if err := s.AwaitFailover(); err != nil {
		return err
	}
	return s.settled()
}

// AwaitFailover waits until the sentinel has promoted the replica, of itself,
// after the primary was killed or paused.
func (s *Sentinel) AwaitFailover() error {
	err := within(func() error {
		reply, err := Do(s.Watch, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelSet)
		if err != nil {
			return err
		}
		if parts, ok := reply.([]any); !ok || len(parts) != 2 || fmt.Sprintf("%v:%v", parts[0], parts[1]) != s.Replica.Addr {
			return fmt.Errorf("the sentinel says %v, not %s", reply, s.Replica.Addr)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Primary, s.Replica = s.Replica, s.Primary
	return nil
}

// Rejoin has the old primary, which is started if it has ended, follow the new
// one, and waits until the sentinel could promote it. (Left to itself, the
// sentinel has it follow a few seconds later.)
func (s *Sentinel) Rejoin() error {
	if err := s.RedisPair.Rejoin(); err != nil {
		return err
	}
	return s.settled()
}

// settled waits until the replica has caught up and could be promoted.
func (s *Sentinel) settled() error {
	return within(func() error { return errors.Join(s.caughtUp(), s.knows(s.Replica)) })
}
