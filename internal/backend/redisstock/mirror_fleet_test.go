package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// One node of a cluster stands still: activities on the others are known all the
// time, and its own is known again afterwards.
func TestMirrorOfAClusterWithANodeThatStandsStill(t *testing.T) {
	c := servers.Cluster(t)
	l, err := redisstock.Open(t.Context(), "redis://"+strings.Join(c.Addrs(), ",")+"?cluster=true&answer=held", redisstock.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s := &served{l, newKeeper(t, l)}
	on := map[*servers.Server]stock.ActivityID{}
	for i := 0; len(on) < 2; i++ {
		id := stock.ActivityID(fmt.Sprint("node", i))
		slot, err := c.Slot(redisstock.Users(stock.Place{Activity: id}))
		if err != nil {
			t.Fatal(err)
		}
		owner, _, err := c.Owner(slot)
		if err != nil {
			t.Fatal(err)
		}
		if on[owner] == "" {
			on[owner] = id
			open(t, s, onSale(string(id), 1, 1))
			buy(t, s, id, "ann", 1)
		}
	}
	g := follow(t, l, slices.Collect(maps.Values(on))...)
	for _, id := range on {
		g.settled(id)
	}
	still := slices.Collect(maps.Keys(on))[0]
	its := on[still]
	still.Pause()
	defer still.Resume()
	known, asked := 0, 0
	for end := time.Now().Add(time.Second); time.Now().Before(end) || asked < 20; g.step() {
		for _, id := range on {
			if id == its {
				continue
			}
			if asked++; errors.Is(g.refuses(id, "bob", 1), stock.ErrAllHeld) {
				known++
			}
		}
	}
	if known < asked/2 { // a busy machine may keep this process from reading, too
		t.Errorf("the other was known %d of %d times; %+v", known, asked, g.Standings())
	}
	if err := g.refuses(its, "bob", 1); err != nil || g.Ready(its) {
		t.Errorf("%s: refuses with %v, ready %v", its, err, g.Ready(its))
	}
	still.Resume()
	g.until("all known again", func() bool { return errors.Is(g.refuses(its, "bob", 1), stock.ErrAllHeld) })
}

// What a mirror keeps of a holder is a few words, not the reservation.
func TestMirrorMemory(t *testing.T) {
	const holders = 50_000
	server := servers.Redis(t)
	l := connect(t, server, "", redisstock.Options{})
	book, _, err := stock.NewBook(onSale("memory", holders, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range holders {
		r := stocktest.Request("memory", fmt.Sprint("user-with-a-longer-name-", i), "k", 1)
		r.At = stock.MillisOf(time.Now())
		if _, _, err := book.Reserve(&r); err != nil {
			t.Fatal(err)
		}
	}
	rules := []stock.Entry{{Activity: "memory", Sequence: 1, Kind: stock.EntryOpened, Allocation: new(book.Allocation())}}
	if book, err = stock.Restore(2, rules, reservationsOf(book)); err != nil {
		t.Fatal(err)
	}
	p := stock.Place{Activity: "memory"}
	if err := errors.Join(l.Fence(t.Context(), p, 1), l.Restore(t.Context(), p, 1, book), l.Activate(t.Context(), p, 1, 2)); err != nil {
		t.Fatal(err)
	}
	before := heap()
	g := follow(t, l, "memory")
	began, steps := time.Now(), 0
	for !g.Ready("memory") {
		if worked := g.step(); !worked && time.Since(began) > 10*time.Second {
			t.Fatalf("%+v", g.Standings())
		}
		steps++
	}
	took := time.Since(began)
	each := (heap() - before) / holders
	t.Logf("joined %d holders in %v and %d steps, %d bytes of heap each", holders, took, steps, each)
	if each > 64 {
		t.Errorf("%d bytes for each holder", each)
	}
	if err := g.refuses("memory", "stranger", 1); !errors.Is(err, stock.ErrAllHeld) {
		t.Errorf("a stranger is told %v", err)
	}
	runtime.KeepAlive(book)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// News of a sale under load reach a gateway soon: purchases as holders, the end
// of the last unit as a refusal.
func TestMirrorLatency(t *testing.T) {
	server := servers.Redis(t)
	s := followedSale(t, server, "buckets=4", onSale("latency", 1_000_000, 4))
	defer s.k.serve("latency")()
	g := newGateway(t, server, "latency")
	defer g.run()()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for c := range 4 {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _ = s.Reserve(ctx, stocktest.Request("latency", fmt.Sprintf("load%d-%d", c, n), "k", 1))
			}
		})
	}
	var took []time.Duration
	ticker := time.NewTicker(100 * time.Microsecond)
	defer ticker.Stop()
	for n := range 200 {
		user := "u" + strconv.Itoa(n)
		r := buy(t, s, "latency", user, 1)
		at := time.Now()
		for face := g.board.Face("latency"); face == nil || !face.Holds(r.User); face = g.board.Face("latency") {
			<-ticker.C
			if time.Since(at) > 5*time.Second {
				t.Fatalf("no news of %s: %+v", user, g.Standings())
			}
		}
		took = append(took, time.Since(at))
		pause := time.NewTimer(time.Duration(rand.IntN(10)) * time.Millisecond)
		<-pause.C
	}
	cancel()
	load.Wait()
	slices.Sort(took)
	median, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("news of a purchase reached the gateway in %v (median), %v (99 %%), %v (worst)", median, p99, took[len(took)-1])
	if median > 100*time.Millisecond {
		t.Errorf("median %v", median)
	}
}

// One step over 16 quiet buckets, and what it costs the server.
func BenchmarkMirrorStep(b *testing.B) {
	server := servers.Redis(b)
	s := followedSale(b, server, "", onSale("bench", 16, 16))
	g := follow(b, s.Ledger, "bench")
	g.Eager()
	g.settled("bench")
	busy := cpu(b, server)
	b.ResetTimer()
	for range b.N {
		g.step()
	}
	b.StopTimer()
	b.ReportMetric((cpu(b, server)-busy)*1e6/float64(b.N*16), "server-µs/bucket")
}

// cpu is the processor time a server has used, in seconds.
func cpu(t testing.TB, s *servers.Server) (sum float64) {
	t.Helper()
	info, _ := do(t, s, "INFO", "cpu").(string)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
