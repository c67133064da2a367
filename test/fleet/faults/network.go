package main

import (
	"context"
	"errors"
	"time"

	"sluice/test/faultproxy"
)

// link is which of a process's wires fails.
type link func(wires) *faultproxy.Proxy

func toRedis(w wires) *faultproxy.Proxy { return w.redis }
func toSQL(w wires) *faultproxy.Proxy   { return w.sql }

// network plays everything that a network does to one process and one engine:
// of the gateways the first one, of the workers the one that keeps most buckets.
func network(role string, which link) func(context.Context, *scene, *act) error {
	return func(ctx context.Context, s *scene, a *act) error {
		process := s.Gateways[0]
		if role == "worker" {
			var err error
			if process, _, err = s.keeper(ctx); err != nil {
				return err
			}
		}
		p := which(s.wires[process.Name])
		defer p.Heal()
		const long, short = 4 * time.Second, time.Second // longer than leases of buckets, and shorter
		for _, blow := range []struct {
			what  string
			lasts time.Duration
			hit   func()
		}{
			{"slow", 2 * time.Second, func() {
				p.Set(faultproxy.Both, faultproxy.Fault{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond})
			}},
			{"answers cut", long, func() { p.Set(faultproxy.Down, faultproxy.Fault{Cut: true}) }},
			{"questions cut", short, func() { p.Set(faultproxy.Up, faultproxy.Fault{Cut: true}) }},
			{"cut", long, func() { p.Set(faultproxy.Both, faultproxy.Fault{Cut: true}) }},
			{"reset", 0, p.Reset},
			{"half open", short, func() { p.Arrivals(faultproxy.HalfOpen); p.Reset() }},
			{"refused", short, func() { p.Arrivals(faultproxy.Refuse); p.Reset() }},
		} {
			err := s.fire(a, func() error { blow.hit(); return nil })
			a.mark("%s", blow.what)
			err = errors.Join(err, s.sleep(ctx, blow.lasts))
			p.Heal()
			// Those that began half-open stay mute, as after a crash of the other side.
			p.Reset()
			if err = errors.Join(err, s.sleep(ctx, short)); err != nil {
				return err
			}
		}
		return nil
	}
}
