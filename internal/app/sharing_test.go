package app_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/redisgate"
	"sluice/internal/gate"
	"sluice/internal/lib/limit"
	"sluice/test/servers"
)

// Three gateways over a real Redis, under more demand than the rate: together they
// serve nearly all of it and no more than they say, and when Redis stops they go on.
func TestGatewaysShareALimit(t *testing.T) {
	const gateways, perSecond, burst = 3, 2000, 600
	server := servers.Redis(t)
	stop, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer end()

	var admitted, over atomic.Int64
	var all []*gate.Limits
	for i := range gateways {
		redis, err := redisgate.Open(t.Context(), "redis://"+server.Addr, redisgate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer redis.Close()
		l := gate.NewLimits(time.Now())
		err = l.Apply(gate.Edition{RuleSet: gate.RuleSet{Version: 1, Rules: []gate.Rule{{
			ID: "all", Class: "purchases", Key: []string{}, Mode: gate.On, Percent: 100, Scope: gate.Fleet,
			Rate: gate.Rate{Algorithm: "token", Limit: perSecond, Per: "1s", Burst: burst},
		}}}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		err = l.Share(gate.Sharing{
			Open: func(name string, version int64, r limit.Rate) (limit.Pool, error) {
				return redis.Pool(name, version, r, 10*time.Second)
			},
			Holder: fmt.Sprint("g", i), Processes: gateways, Every: 10 * time.Millisecond, Timeout: 250 * time.Millisecond, Now: time.Now,
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
		over.Store(l.Counts()[0].Shared.Overshoot)
		running.Go(func() {
			for stop.Err() == nil {
				if worked, _ := l.Step(stop); !worked {
					select {
					case <-time.After(10 * time.Millisecond):
					case <-l.Woken():
					}
				}
			}
		})
		running.Go(func() { // asks for twice the whole rate, a millisecond at a time
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for stop.Err() == nil {
				<-tick.C
				for range 2 * perSecond / 1000 {
					if l.Admit(time.Now(), &gate.Facts{Class: gate.Purchases, User: "ann"}).Allowed {
						admitted.Add(1)
					}
				}
			}
		})
	}
	began := time.Now()
	within := func(d time.Duration) int64 {
		before, end := admitted.Load(), time.After(d)
		<-end
		return admitted.Load() - before
	}
	n := within(1500 * time.Millisecond)
	most := burst + int64(time.Since(began).Seconds()*perSecond) + over.Load()
	t.Logf("%d admitted, at most %d", n, most)
	if n > most || n < burst+perSecond {
		t.Errorf("%d admitted, at most %d", n, most)
	}
	server.Pause()
	within(1500 * time.Millisecond)
	if n := within(time.Second); n < perSecond*3/4 || n > perSecond*5/4 || !all[0].Counts()[0].Shared.Away {
		t.Errorf("%d in a second without Redis; %+v", n, all[0].Counts()[0].Shared)
	}
}
