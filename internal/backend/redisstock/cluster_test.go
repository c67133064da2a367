package redisstock_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// flush empties the primaries of a cluster.
func flush(t *testing.T, c *servers.RedisCluster) {
	t.Helper()
	for _, n := range c.Nodes {
		if _, err := servers.Do(n, "FLUSHALL"); err != nil && !strings.Contains(err.Error(), "READONLY") {
			t.Fatal(err)
		}
	}
}

// clustered opens a kept ledger on an emptied cluster.
func clustered(t *testing.T, c *servers.RedisCluster, options string) *served {
	t.Helper()
	flush(t, c)
	var k *keeper
	l, err := redisstock.Open(t.Context(), "redis://"+strings.Join(c.Addrs(), ",")+"?cluster=true&"+options,
		redisstock.Options{CallerTime: true, Log: slog.New(slog.DiscardHandler), Knows: func(a stock.ActivityID) bool { return k.knows(a) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	k = newKeeper(t, l)
	return &served{l, k}
}

func TestConformanceOnCluster(t *testing.T) {
	c := servers.Cluster(t)
	stocktest.Run(t, func(t *testing.T) stock.Ledger { return clustered(t, c, "answer=held") })
}

// A sale over eight buckets on three primaries, of which one dies: its buckets
// are not ready until their keeper has rebuilt them, the others sell on, and in
// the end every unit is sold, once.
func TestClusterLosesAPrimary(t *testing.T) {
	c := servers.Cluster(t)
	s := clustered(t, c, "answer=held")
	const units = 60
	open(t, s, spread("cluster", units, 1, 8))
	defer s.k.serve("cluster")()
	sold := map[string]stock.ID{}
	buy := func(from, to int) (allHeld int) {
		for i := from; i < to; i++ {
			user := fmt.Sprint("u", i)
			r := stocktest.Request("cluster", user, "k", 1)
			got, err := insist(t.Context(), s, r)
			for errors.Is(err, stock.ErrUnknown) && t.Context().Err() == nil {
				got, err = insist(t.Context(), s, r)
			}
			switch {
			case errors.Is(err, stock.ErrAllHeld):
				allHeld++
			case err != nil:
				t.Fatalf("%s: %v", user, err)
			default:
				sold[user] = got.ID
			}
		}
		return allHeld
	}
	buy(0, 20)
	slot, err := c.Slot("sluice:{cluster:0}m")
	if err != nil {
		t.Fatal(err)
	}
	primary, replicas, err := c.Owner(slot)
	if err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	if err := c.AwaitFailover(replicas[0]); err != nil {
		t.Fatal(err)
	}
	buy(20, 50)
	if refused := buy(50, 80); refused != 80-units {
		t.Errorf("%d were refused, want %d", refused, 80-units)
	}
	for user, id := range sold {
		got, err := s.Lookup(t.Context(), stock.Ref{ID: id, User: stock.UserID(user)})
		if err != nil || got.State != stock.Held {
			t.Errorf("%s has %s: %+v, %v", user, id, got, err)
		}
	}
	if it := count(t, s, "cluster"); len(sold) != units || it.Held != units || it.Free != 0 || it.InTransit != 0 {
		t.Errorf("%d sold; %+v", len(sold), it)
	}
}

// A sentinel promotes the replica; the gateway finds it, and the fence holds.
func TestSentinelFailsOver(t *testing.T) {
	watched := servers.RedisSentinel(t)
	l, err := redisstock.Open(t.Context(), "redis://"+watched.Watch.Addr+"?answer=held&sentinel="+servers.SentinelSet,
		redisstock.Options{CallerTime: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s := &served{l, newKeeper(t, l)}
	open(t, s, stocktest.Allocation("watched", 5, 1))
	first, err := s.Reserve(t.Context(), stocktest.Request("watched", "ann", "k", 1))
	if err != nil {
		t.Fatal(err)
	}
	before := s.k.rebuilt
	if err := watched.Failover(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		r := stocktest.Request("watched", fmt.Sprint("u", i), "k", 1)
		_, err := insist(t.Context(), s, r)
		for errors.Is(err, stock.ErrUnknown) && t.Context().Err() == nil {
			_, err = insist(t.Context(), s, r)
		}
		if (err == nil) != (i < 4) || err != nil && !errors.Is(err, stock.ErrAllHeld) {
			t.Errorf("user %d: %v", i, err)
		}
	}
	if got, err := s.Lookup(t.Context(), stock.Ref{ID: first.ID, User: "ann"}); err != nil || got.State != stock.Held {
		t.Errorf("%+v, %v", got, err)
	}
	if s.k.rebuilt == before {
		t.Error("the promoted replica accepted without its keeper")
	}
}
