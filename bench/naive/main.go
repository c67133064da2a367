// Command naive is the usual flash-sale chain as a small, honest program, and
// its judgement by the oracle that judges Sluice: a Redis script that checks
// and deducts, then a message pushed to a list, a worker that writes it to SQL,
// a job that cancels what is not paid, a payment callback.
//
// It is built with care, not to fail: the script is atomic, marks the user and
// remembers the answer to each key; SQL updates are conditional; restocking
// looks at the mark before it adds; the worker ignores duplicates; late money
// is refunded; what fails is retried. What is left are the cracks between the
// links, where no transaction reaches. SQLite stands in for MySQL.
//
//	naive -serve …     the chain as a server, one process beside a Redis
//	naive -compare     the same storm and the same kills for the chain and for
//	                   bin/sluice, one after the other (QUICK=1: at once, 40 s)
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var s settings
	serving := flag.Bool("serve", false, "run the chain as a server")
	comparing := flag.Bool("compare", false, "compare the chain with Sluice")
	flag.StringVar(&s.data, "data", "", "directory of the SQL files and of the key that signs tokens")
	flag.StringVar(&s.redis, "redis", "", "unix socket of the Redis server")
	flag.StringVar(&s.listen, "listen", "127.0.0.1:0", "shopper API")
	flag.StringVar(&s.ops, "ops", "127.0.0.1:0", "ops API")
	c := comparison{quick: os.Getenv("QUICK") != "" && os.Getenv("QUICK") != "0"}
	flag.StringVar(&c.binary, "binary", "bin/sluice", "the Sluice to compare with, as make build leaves it")
	flag.IntVar(&c.runs, "runs", 1, "storms for each fault and system")
	flag.Uint64Var(&c.seed, "seed", 1, "seed of the first storm; the others count up")
	flag.BoolVar(&c.json, "json", false, "print the result as JSON")
	flag.Parse()
	s.opsToken = os.Getenv(tokenVariable)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *serving:
		err = serve(ctx, s)
	case *comparing:
		err = c.run(ctx, os.Stdout)
	default:
		err = fmt.Errorf("either -serve or -compare")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "naive:", err)
		os.Exit(1)
	}
}
