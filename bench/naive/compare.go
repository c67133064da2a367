package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/storm"
	"sluice/test/servers"
)

// compareToken is the ops API's, on loopback, for as long as a run lasts.
const compareToken = "naive-compare"

// comparison runs one storm after the other.
type comparison struct {
	quick  bool
	json   bool
	binary string
	runs   int
	seed   uint64
}

// shape of the storms and of their faults: one half-way, the others after it.
// The first storm is without any, to show that what is found comes from them.
type shape struct {
	options storm.Options
	faults  [][]fault // of each storm
	between time.Duration
}

// The rate is such that units are still being sold when the kills come: a kill
// at rest breaks nothing in either system.
func (c comparison) shape() shape {
	o := storm.Options{
		OpsToken: compareToken, Users: 4000, Stock: 1500, Duration: 10 * time.Second, Rate: 250, Connections: 32, Hold: 3,
		Pay: 70, Abandon: 15, Cancel: 15, DoubleClick: 3, Replay: 30, Greedy: 10, Forge: 0.5, Lose: 1,
	}
	if c.quick {
		o.Users, o.Stock, o.Duration, o.Hold = 1200, 500, 2*time.Second, 1
		return shape{o, [][]fault{{killServer, killRedis, powerCut}}, 300 * time.Millisecond}
	}
	return shape{o, [][]fault{nil, {killServer, killServer, killServer}, {killRedis, killRedis, killRedis}, {failOver, failOver, failOver}, {powerCut, powerCut, powerCut}}, time.Second}
}

func (c comparison) run(ctx context.Context, out io.Writer) (err error) {
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return err
	}
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("%w (make build)", err)
	}
	var all []finding
	began := time.Now()
	s := c.shape()
	for run := range c.runs {
		for i, faults := range s.faults {
			s.options.Seed = c.seed + uint64(run*len(s.faults)+i)
			found, err := c.both(ctx, s, faults)
			if err != nil {
				return err
			}
			all = append(all, found...)
		}
	}
	if c.json {
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", text)
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n%d storms in %s; each: %d users, %d units, %d attempts/s for %s, then everything is sold off\n", table(all), len(all),
		time.Since(began).Round(time.Second), s.options.Users, s.options.Stock, s.options.Rate, s.options.Duration)
	return err
}

// both storms the two systems with one seed; when it must be quick, at once.
func (c comparison) both(ctx context.Context, s shape, faults []fault) ([]finding, error) {
	starts := []func(*servers.Scope) *stand{
		func(t *servers.Scope) *stand { return chainStand(t, rand.New(rand.NewPCG(s.options.Seed, 0))) },
		func(t *servers.Scope) *stand { return sluiceStand(t, c.binary) },
	}
	found, failed := make([]finding, len(starts)), make([]error, len(starts))
	var wg sync.WaitGroup
	for i, start := range starts {
		wg.Go(func() { found[i], failed[i] = one(ctx, s, faults, start) })
		if !c.quick {
			wg.Wait()
		}
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// one storms one system.
func one(ctx context.Context, s shape, faults []fault, start func(*servers.Scope) *stand) (found finding, err error) {
	t := servers.NewScope("")
	defer t.End()
	defer func() {
		if f, ok := recover().(servers.Failure); ok {
			err = fmt.Errorf("%s", string(f))
		}
	}()
	subject := start(t)
	done := 0
	lever, err := pull(t, func() error {
		for _, f := range faults {
			if done > 0 && !pause(ctx, s.between) {
				return ctx.Err()
			}
			if err := subject.faults[f](); err != nil {
				return err
			}
			done++
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	o := s.options
	o.Target, o.Ops, o.Data = "http://"+subject.shopper, "http://"+subject.ops, subject.data
	if len(faults) > 0 {
		o.RestartCmd = "curl -fsS -X POST " + lever
	}
	fmt.Fprintf(os.Stderr, "%s: %s, seed %d\n", subject.name, faultsText(faults), o.Seed)
	report, err := storm.Run(ctx, o, nil)
	if err != nil {
		return found, fmt.Errorf("%s: %w", subject.name, err)
	}
	if done != len(faults) {
		return found, fmt.Errorf("%s: %d of %d faults were done: %s", subject.name, done, len(faults), report.Violations)
	}
	b, err := readBooks(ctx, subject, report.Activity)
	if err != nil {
		return found, fmt.Errorf("%s: %w", subject.name, err)
	}
	return judge(subject.name, faultsText(faults), len(faults), report, b), nil
}

// pull is the lever that the storm pulls half-way: a POST to its address does
// the faults, here, where the processes were started.
func pull(t *servers.Scope, faults func() error) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer func() {
			if f, ok := recover().(servers.Failure); ok {
				http.Error(w, string(f), 500)
			}
		}()
		if err := faults(); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})}
	go func() { _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String(), nil
}

func faultsText(faults []fault) string {
	if len(faults) == 0 {
		return "nothing"
	}
	var text []string
	for i, f := range faults {
		if i == 0 || faults[i-1] != f {
			text = append(text, string(f))
		}
	}
	return strings.Join(text, ", ")
}

// ledgers are a system's own books, in the shape of Sluice's proof.
type ledgers struct {
	Ledger   []item         `json:"ledger"`
	Orders   map[string]int `json:"orders"`
	Payments struct {
		Captured int64 `json:"captured"`
		Refunded int64 `json:"refunded"`
		Owed     int64 `json:"owed"`
	} `json:"payments"`
}

func readBooks(ctx context.Context, s *stand, activity string) (b ledgers, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+"/v1/activities/"+activity+"/proof", nil)
	if err != nil {
		return b, err
	}
	r.Header.Set("Authorization", "Bearer "+compareToken)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return b, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return b, fmt.Errorf("the books: %s", answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(&b); err != nil {
		return b, fmt.Errorf("the books: %w", err)
	}
	if len(b.Ledger) != 1 {
		return b, fmt.Errorf("the books have %d SKUs", len(b.Ledger))
	}
	return b, nil
}
