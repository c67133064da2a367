// Command kill shows what kill -9 leaves behind: real servers are killed under
// a storm, at named points of their code and at random, and started again on
// the same data directory, life after life. The storm knows every reply it
// was given and checks after each start, and at the end, that all was meant:
// "unknown" and no reply are legal answers, a promise that is gone is not.
//
// The points (table.go) stand in no product code: the server is built with an
// overlay that puts a call of test/kill/point at each. The same overlay makes
// log segments and snapshots small, so that short storms meet them.
//
// It says nothing about power cuts: what a killed process has written is in the
// kernel's hands and is not lost. Those are for the simulated disk.
//
//	go run ./test/kill -n 1000 -seed 7          all points, half an hour
//	go run ./test/kill -n 50 -points '^landing' those whose name fits
//	go run ./test/kill -n 1000 -seed 7 -storm 3 one storm of that run again, with its neighbour
//	go run ./test/kill -n 6 -plant memory       with a bug, which must be found
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	s := settings{root: ".", progress: os.Stderr}
	flag.IntVar(&s.kills, "n", 1000, "kills, at least 4")
	flag.Uint64Var(&s.seed, "seed", 0, "seed of plan and storms; 0 = from the clock")
	flag.IntVar(&s.only, "storm", -1, "only the data directory of the storm of this number, of those that seed and n make")
	points := flag.String("points", "", "only points whose name this expression matches")
	bug := flag.String("plant", "", "plant the bug whose name contains this")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	flag.StringVar(&s.dir, "dir", "", "where data directories are made; default the system's place")
	flag.Parse()
	if s.kills < 4 || flag.NArg() > 0 {
		return errors.New("-n must be at least 4, and there are no arguments")
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	var err error
	if *points != "" {
		if s.points, err = regexp.Compile(*points); err != nil {
			return err
		}
	}
	if *bug != "" {
		if s.bug = planted(*bug); s.bug == nil {
			return fmt.Errorf("no planted bug %q", *bug)
		}
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

func planted(name string) *plant {
	for i := range plants {
		if strings.Contains(plants[i].name, name) {
			return &plants[i]
		}
	}
	return nil
}
