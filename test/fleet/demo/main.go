// Command demo runs a whole fleet on this machine, without containers, with a
// sale on it, and says how to play with it: three gateways behind nginx, two
// workers, a console, a Redis Cluster of six, two shards of MariaDB with a replica
// each, an etcd of three and three Kafka brokers. It ends, and takes everything
// along, at Ctrl-C.
//
//	make fleet
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"sluice/test/fleet"
	"sluice/test/servers"
)

func main() {
	binary := flag.String("binary", "bin/sluice", "the program to run, as make build leaves it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, out io.Writer) (err error) {
	if binary, err = filepath.Abs(binary); err != nil { // the children work elsewhere
		return err
	}
	t := servers.NewScope("")
	defer t.End()
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case servers.Failure:
			err = fmt.Errorf("%s", string(failed))
		default:
			panic(failed)
		}
	}()
	fmt.Fprintln(out, "starting six redis-servers, four mariadbds, three etcds, three Kafka brokers, six sluices and an nginx …")
	f := fleet.Start(t, fleet.Options{Binary: binary, Gateways: 3, Workers: 2, Buckets: 4, Cluster: true,
		Shards: 2, Replica: true, Reads: true, Etcd: 3, Kafka: 3, Demo: true, Log: "text,warn"})
	fmt.Fprint(out, describe(f))
	<-ctx.Done()
	fmt.Fprintln(out, "\nstopping …")
	return nil
}

// describe says where everything is and what can be done with it.
func describe(f *fleet.Fleet) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("\n  storefront     %s", f.URL())
	say("  ops API        %s   (bearer token %q)", f.Console.Ops, fleet.OpsToken)
	say("  logs and files %s", f.Root)
	say("\n  The demo sale opens within 20 seconds. A rehearsal on a sale of its own:\n")
	say("    bin/sluice storm --target %s --ops %s --ops-token %s --data %s --users 20000 --stock 1000", f.URL(), f.Console.Ops, fleet.OpsToken, f.Root)
	say("\n  A challenge and a waiting room before every sale, at once; revert in place of pull ends it:\n")
	say("    curl -X POST -H 'Authorization: Bearer %s' %s/v1/playbooks/siege/pull", fleet.OpsToken, f.Console.Ops)
	say("\n  Who waits:\n\n    curl -s %s/metrics | grep waiting_people", f.Gateways[0].Ops)
	say("\n  What runs, to be killed (kill -9 PID) or frozen (kill -STOP PID, kill -CONT PID):\n")
	row := func(s *servers.Server, name, note string) { say("    %7d  %-16s %s  %s", s.PID(), name, s.Addr, note) }
	for _, g := range f.Gateways {
		row(g.Server, g.Name, "metrics "+g.Ops+"/metrics")
	}
	for _, w := range f.Workers {
		row(w.Server, w.Name, "which bucket is whose: curl -s "+w.Ops+"/metrics | grep bucket_state")
	}
	row(f.Console.Server, f.Console.Name, "")
	row(f.Front, "nginx", "in front of the gateways at "+strings.TrimPrefix(f.URL(), "http://"))
	for i, n := range f.Cluster.Nodes {
		note := fmt.Sprintf("replica of redis %d", i-len(f.Cluster.Nodes)/2)
		if i < len(f.Cluster.Nodes)/2 {
			note = "primary at first; its replica takes over by itself"
		}
		row(n, fmt.Sprintf("redis %d", i), note)
	}
	for i, shard := range f.Shards {
		row(shard.Pair.Primary.Server, fmt.Sprintf("mariadbd %d", i), "primary of one half of the users' orders; nobody promotes its replica, so freeze rather than kill it")
		row(shard.Pair.Replica.Server, fmt.Sprintf("mariadbd %d replica", i), "acknowledges each commit of the primary, and is read from")
	}
	for i, m := range f.Etcd.Members {
		row(m, fmt.Sprintf("etcd %d", i), "leases; one of three may be away, and all of them, until a worker dies as well")
	}
	for i, b := range f.Kafka.Brokers {
		row(b, fmt.Sprintf("kafka %d", i), "events; one of three may be away, and all of them for as long as the store has room")
	}
	say("\n  Nothing that was killed comes back by itself. Ctrl-C ends all of it.\n")
	return b.String()
}
