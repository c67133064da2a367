// Command faults shows what becomes of a sale when parts of a fleet fail: real
// gateways, workers, Redis, MariaDB, Kafka and etcd are killed, frozen, emptied,
// rolled back and cut off in the middle of a storm, one fault after the other. The storm
// knows every reply that it was given and judges from outside: what was only
// pending may be refused, what was told to be held has to be there, and nothing
// is sold twice.
//
// A fault that did not take place fails the run, so that no run passes for
// want of faults. What was found wrong leaves the data and logs of its fleet.
//
//	go run ./test/fleet/faults                     all of them, 20 minutes
//	go run ./test/fleet/faults -fault 'rolled'     those whose name fits
//	go run ./test/fleet/faults -big                100,000 users, six faults in one storm
//	go run ./test/fleet/faults -big -on full       a broker, an etcd member, a shard primary and a worker killed in one
//	go run ./test/fleet/faults -plant forgets -on single -fault 'restarted empty'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sluice/test/fleet"
)

const opsToken = fleet.OpsToken

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	s := settings{root: ".", kinds: every, size: size{gateways: 3, workers: 2, buckets: 8}, progress: os.Stderr}
	flag.Uint64Var(&s.seed, "seed", 0, "seed of the storms; 0 = from the clock")
	flag.IntVar(&s.users, "users", 0, "users of each storm; 0 = enough")
	flag.IntVar(&s.stock, "stock", 0, "units of each storm; 0 = enough")
	flag.BoolVar(&s.big, "big", false, "one storm of 100,000 users for 5,000 units, with six faults in turn; on the full fleet, four in a smaller one")
	flag.StringVar(&s.binary, "binary", "", "the program to run; default: it is built")
	flag.StringVar(&s.dir, "dir", "", "where fleets are put up; default the system's place")
	only := flag.String("fault", "", "only faults whose name this expression matches")
	on := flag.String("on", "", "only on this kind of fleet: cluster, single or full")
	bug := flag.String("plant", "", "plant the bug whose name contains this")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	flag.Parse()
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	var err error
	if s.binary != "" {
		if s.binary, err = filepath.Abs(s.binary); err != nil { // the processes work elsewhere
			return err
		}
	}
	if *only != "" {
		if s.faults, err = regexp.Compile(*only); err != nil {
			return err
		}
	}
	if s.big {
		s.kinds = []kind{cluster}
	}
	if *on != "" {
		s.kinds = []kind{kind(*on)}
	}
	if *bug != "" {
		if s.bug = planted(*bug); s.bug == nil {
			return fmt.Errorf("no planted bug %q", *bug)
		}
	}
	if flag.NArg() > 0 || s.chosen() == 0 || s.bug != nil && s.binary != "" {
		return errors.New("no fault is chosen, or there are arguments, or a bug is to be planted into a program that is built already")
	}
	fmt.Fprintf(s.progress, "seed %d\n", s.seed)
	t, err := run(ctx, s)
	if *asJSON {
		text, failed := json.MarshalIndent(t, "", "  ")
		fmt.Printf("%s\n", text)
		return errors.Join(err, failed)
	}
	return errors.Join(t.write(os.Stdout), err)
}

// chosen is how many storms there will be.
func (s settings) chosen() (n int) {
	for _, k := range s.kinds {
		n += len(s.storms(k))
	}
	return n
}

func planted(name string) *plant {
	for i := range plants {
		if strings.Contains(plants[i].name, name) {
			return &plants[i]
		}
	}
	return nil
}
