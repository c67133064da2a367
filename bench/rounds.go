package main

import (
	"context"
	"fmt"
	"time"

	"sluice/test/servers"
)

// series is what a subject showed in each round.
type series struct {
	name    string
	samples []sample
}

func (s *series) each(of func(sample) float64) (values []float64) {
	for _, one := range s.samples {
		values = append(values, of(one))
	}
	return values
}

func (s *series) median(of func(sample) float64) float64 { return estimateOf(s.each(of)).Median }

func rate(s sample) float64 { return s.Rate }

// plan is how much is measured.
type plan struct {
	rounds   int
	duration time.Duration // of one run
	users    int           // tokens in turn where requests repeat
	fresh    int           // tokens for requests of new users
}

// entrant takes part in interleaved rounds: one run in each.
type entrant struct {
	name string
	run  func(ctx context.Context, round string) (sample, error)
}

// interleave lets every entrant run once a round, in an order that turns from
// round to round, after one run each that does not count.
func (p plan) interleave(ctx context.Context, t servers.TB, entrants []entrant) ([]*series, error) {
	result := make([]*series, len(entrants))
	for i, e := range entrants {
		result[i] = &series{name: e.name}
	}
	for round := range p.rounds + 1 {
		for i := range entrants {
			i = (i + round) % len(entrants)
			s, err := entrants[i].run(ctx, fmt.Sprintf("r%d", round))
			if err != nil {
				return nil, fmt.Errorf("round %d: %w", round, err)
			}
			t.Logf("round %2d/%d  %-44s %9.0f/s  %6.2f µs CPU  server %3.0f%%  load %3.0f%%  p99 %.2f ms",
				round, p.rounds, entrants[i].name, s.Rate, s.CPU, s.Busy*100, s.Gen*100, s.P99)
			if round > 0 {
				result[i].samples = append(result[i].samples, s)
			}
		}
	}
	return result, nil
}

// refuse measures (a): the answer to an attempt on a sale that is sold out,
// beside nginx giving the same reply to everything and beside the usual chain.
func refuse(ctx context.Context, t servers.TB, binary string, p plan) ([]*series, error) {
	e, err := startEngine(t, binary)
	if err != nil {
		return nil, err
	}
	answer, _, err := e.sellOut(ctx, "gone")
	if err != nil {
		return nil, err
	}
	e.pause()
	fixed, err := constant(t, answer)
	if err != nil {
		return nil, err
	}
	fixed.pause()
	c, err := startChain(t, e.secret, "everysec")
	if err != nil {
		return nil, err
	}
	if err := c.sell("gone", 1, 1, 1); err != nil {
		return nil, err
	}
	c.pause()
	g, err := newGenerator(t, t.TempDir(), e.secret, p.users)
	if err != nil {
		return nil, err
	}
	var entrants []entrant
	for _, s := range []*subject{&e.subject, fixed, &c.subject} {
		entrants = append(entrants, entrant{s.name, func(ctx context.Context, round string) (sample, error) {
			one, err := g.run(ctx, s, load{path: purchases("gone"), mode: "repeat", run: round, connections: 64, duration: p.duration, refused: true})
			if err == nil && one.Other > 0 {
				err = fmt.Errorf("%s accepted %.2f %% of attempts on a sale that is sold out", s.name, one.Other*100)
			}
			return one, err
		}})
	}
	return p.interleave(ctx, t, entrants)
}

// landing is what became of the purchases accepted in one run: all of them, as
// orders in the store, with everything the engine spent on them.
type landing struct {
	orders  int
	after   time.Duration // from the end of the load until the last order was there
	cpuEach float64       // microseconds of CPU per order, from request to row
}

// accept measures (b): every request a new purchase that is accepted durably,
// 512 in flight, beside the same server refusing and beside the usual chain
// that syncs its append-only file before it answers. Each run has a server,
// and an activity, of its own, so that no run pays for the one before it.
func accept(ctx context.Context, t servers.TB, binary string, p plan) (result []*series, land landing, err error) {
	const connections, units, perUser = 512, 1_000_000_000, 64
	e, err := startEngine(t, binary)
	if err != nil {
		return nil, land, err
	}
	if _, _, err := e.sellOut(ctx, "gone"); err != nil {
		return nil, land, err
	}
	e.pause()
	repeat, err := newGenerator(t, t.TempDir(), e.secret, p.users)
	if err != nil {
		return nil, land, err
	}
	own := entrant{"Sluice, accept durably and land", func(ctx context.Context, round string) (sample, error) {
		one, landed, err := freshEngine(ctx, t, binary, round, p, connections, units, perUser)
		if landed.orders > 0 {
			land = landed
		}
		return one, err
	}}
	refusing := entrant{"Sluice, refuse", func(ctx context.Context, round string) (sample, error) {
		return repeat.run(ctx, &e.subject, load{path: purchases("gone"), mode: "repeat", run: round, connections: connections, duration: p.duration, refused: true})
	}}
	c, err := startChain(t, e.secret, "always")
	if err != nil {
		return nil, land, err
	}
	fresh, err := newGenerator(t, t.TempDir(), e.secret, p.fresh)
	if err != nil {
		return nil, land, err
	}
	c.pause()
	chained := entrant{c.name + ", `appendfsync always`", func(ctx context.Context, round string) (sample, error) {
		c.resume()
		if _, err := redisDo(c.redis.Addr, "FLUSHALL"); err != nil {
			return sample{}, err
		}
		if err := c.sell(round, units, 0, perUser); err != nil {
			return sample{}, err
		}
		one, err := fresh.run(ctx, &c.subject, load{path: purchases(round), mode: "fresh", run: round, connections: connections, duration: p.duration})
		if err != nil {
			return one, err
		}
		c.resume()
		defer c.pause()
		n, err := c.queued(round)
		if err == nil && (n < one.Good || n > one.Good+connections) {
			err = fmt.Errorf("%s: %d queued, %d answered", c.name, n, one.Good)
		}
		return one, err
	}}
	result, err = p.interleave(ctx, t, []entrant{own, refusing, chained})
	return result, land, err
}

// freshEngine is one run of accepting on a server of its own, which is audited
// and ended afterwards. In the first round that counts it also waits until
// everything has landed.
func freshEngine(ctx context.Context, t servers.TB, binary, round string, p plan, connections, units, perUser int) (one sample, land landing, err error) {
	inner := servers.NewScope(t.TempDir())
	defer inner.End()
	e, err := startEngine(inner, binary)
	if err != nil {
		return one, land, err
	}
	g, err := newGenerator(inner, inner.TempDir(), e.secret, p.fresh)
	if err != nil {
		return one, land, err
	}
	if err := e.sell(ctx, round, units, 100, perUser); err != nil {
		return one, land, err
	}
	before, err := cpuOf(e.servers)
	if err != nil {
		return one, land, err
	}
	one, err = g.run(ctx, &e.subject, load{path: purchases(round), mode: "fresh", run: round, connections: connections, duration: p.duration})
	if err != nil {
		return one, land, err
	}
	ended := time.Now()
	e.resume()
	s, err := e.proof(ctx, round)
	if err == nil && round == "r1" {
		s, err = e.awaitLanded(ctx, round, 0, time.Minute)
	}
	if err != nil {
		return one, land, err
	}
	// What was answered must be there; wrk leaves one request per connection.
	if n := s.taken(); n < one.Good || n > one.Good+connections || !s.OK {
		return one, land, fmt.Errorf("%s: %d held, %d answered, proof %v %v", e.name, n, one.Good, s.OK, s.Violations)
	}
	if round == "r1" && s.landed() >= s.taken() {
		after, err := cpuOf(e.servers)
		if err != nil {
			return one, land, err
		}
		land = landing{s.landed(), time.Since(ended), float64((after - before).Microseconds()) / float64(s.landed())}
	}
	return one, land, nil
}
