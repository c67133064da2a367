package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice/test/faultproxy"
	"sluice/test/fleet"
	"sluice/test/servers"
)

// kind of fleet that a fault needs.
type kind string

const (
	cluster kind = "cluster" // a Redis Cluster of six and MariaDB with a replica
	single  kind = "single"  // one Redis and one MariaDB, each process by wires of its own
	full    kind = "full"    // a Redis Cluster, two shards of MariaDB with a replica each, three of etcd, three brokers
)

// stage is a running fleet, on which one fault after the other is played.
type stage struct {
	*fleet.Fleet
	*servers.Scope
	kind   kind
	dir    string
	wires  map[string]wires // by process
	logged map[string]int64 // bytes of each log that have been read
	hired  *fleet.Process   // a worker who is there for a while, now and then; or nil
}

// wires are a process's connections to the engines. redis is nil with a
// cluster, whose nodes tell their clients where to go.
type wires struct{ redis, sql *faultproxy.Proxy }

// scope keeps what was written, for whoever wants to know what happened.
type scope struct {
	*servers.Scope
	dir string
}

func (s scope) TempDir() string {
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		s.Fatalf("%v", err)
	}
	return dir
}

// size of a fleet.
type size struct{ gateways, workers, buckets int }

// open starts a fleet in dir. Its end is for the caller.
func open(k kind, n size, binary, dir string) (s *stage, err error) {
	s = &stage{kind: k, dir: dir, Scope: servers.NewScope(dir), wires: map[string]wires{}, logged: map[string]int64{}}
	defer func() {
		if err != nil {
			s.End()
		}
	}()
	defer caught(&err)
	t := scope{s.Scope, dir}
	o := fleet.Options{Binary: binary, Gateways: n.gateways, Workers: n.workers, Buckets: n.buckets,
		Cluster: k != single, Replica: k != single, Log: "text,info"}
	if k == full {
		o.Shards, o.Reads, o.Etcd, o.Kafka = 2, true, 3, 3
	} else {
		o.Route = func(f *fleet.Fleet, process string) (stock, store string) { return s.route(t, f, process) }
	}
	s.Fleet = fleet.Start(t, o)
	for _, shard := range s.Shards {
		if shard.Pair == nil {
			continue
		}
		if err := patient(shard.SQL); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// patient: a commit that is not acknowledged waits for as long as it takes: a
// replica that is promoted then has all that anybody was told. By default the
// primary goes on alone after a second, which on a busy machine is no time. It is
// forgotten with the server's end, and must be: one that was promoted has no
// replica for a while.
func patient(d *servers.Database) error {
	return d.Exec(context.Background(), "SET GLOBAL rpl_semi_sync_master_timeout=600000")
}

// asPrimary starts a database that is a primary still.
func asPrimary(d *servers.Database) error {
	if err := d.Restart(); err != nil {
		return err
	}
	return patient(d)
}

// caught turns a failure of a scope into an error.
func caught(err *error) {
	switch failed := recover().(type) {
	case nil:
	case servers.Failure:
		*err = fmt.Errorf("%s", string(failed))
	default:
		panic(failed)
	}
}

// route gives a process wires of its own.
func (s *stage) route(t servers.TB, f *fleet.Fleet, process string) (stock, store string) {
	w := wires{sql: faultproxy.Start(t, f.SQL.Addr)}
	stock, store = f.Stock, strings.Replace(f.Store, f.SQL.Addr, w.sql.Addr, 1)
	if f.Redis != nil {
		w.redis = faultproxy.Start(t, f.Redis.Addr)
		stock = strings.Replace(stock, f.Redis.Addr, w.redis.Addr, 1)
	}
	s.wires[process] = w
	return stock, store
}

// primary is the store's server at present, of several the first.
func (s *stage) primary() *servers.Database { return s.Shards[0].Primary() }

// running answers an error that names the processes that have ended although
// nobody ended them for good.
func (s *stage) running() error {
	var ended []string
	for _, p := range s.Processes() {
		select {
		case <-p.Exited():
			ended = append(ended, fmt.Sprintf("%s ended by itself; it said:\n%s", p.Name, p.Log()))
		default:
		}
	}
	if len(ended) > 0 {
		return fmt.Errorf("%s", strings.Join(ended, "\n"))
	}
	return nil
}

// alarms are the kinds that no fault excuses. A book that refuses what the
// ledger accepted is what it is there for, and a fenced lander likewise; landing
// that stopped while an engine was away has to go on, which the scene waits for.
var alarms = []string{"settle_violation", "refund_stuck", "dead_letter", "payment_unresolved", "proof_violation"}

// heard reads what the processes have logged since the last call: what is wrong
// of it, and how often which other error was logged.
func (s *stage) heard() (wrong []string, errs map[string]int, err error) {
	errs = map[string]int{}
	all := s.Processes()
	if s.hired != nil {
		all = append(all, s.hired)
	}
	for _, p := range all {
		text, err := os.ReadFile(filepath.Join(p.Dir, p.Name+".log"))
		if err != nil {
			return nil, nil, err
		}
		fresh := text[min(s.logged[p.Name], int64(len(text))):]
		s.logged[p.Name] = int64(len(text))
		for _, line := range judge(string(fresh), errs) {
			wrong = append(wrong, p.Name+" logged: "+line)
		}
	}
	return wrong, errs, nil
}

// judge sorts the lines of a log: those that no fault excuses are answered,
// other errors are counted by their message.
func judge(text string, errs map[string]int) (wrong []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "panic:"), strings.HasPrefix(line, "fatal error:"), strings.HasPrefix(line, "WARNING: DATA RACE"):
			wrong = append(wrong, line)
		case !strings.Contains(line, "level=ERROR"):
		// No fault here takes anything from the brokers that they had acknowledged.
		case isAlarm(line), strings.Contains(line, "the bus has lost messages"):
			wrong = append(wrong, line)
		default:
			errs[strings.TrimSpace(field(line, "msg=")+" "+field(line, "kind=")+field(line, "task="))]++
		}
	}
	return wrong
}

func isAlarm(line string) bool {
	for _, kind := range alarms {
		if strings.Contains(line, "msg=alarm") && field(line, "kind=") == kind {
			return true
		}
	}
	return false
}

// field is the value behind a key of a log line, without the quotes it may have.
func field(line, key string) string {
	_, rest, ok := strings.Cut(line, key)
	if !ok {
		return ""
	}
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		value, _, _ := strings.Cut(quoted, `"`)
		return value
	}
	value, _, _ := strings.Cut(rest, " ")
	return value
}
