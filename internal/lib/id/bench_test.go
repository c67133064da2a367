package id

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sluice/test/servers"
)

// What one number costs, made here or asked for. ns/op is per number.
//
//	go test -run '^$' -bench . ./internal/lib/id
//	go test -run '^$' -bench 'CutSegment|Numbers' ./internal/backend/sqlstore

func BenchmarkNext(b *testing.B) {
	s := NewSource(0, time.Now)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for gene := uint16(0); pb.Next(); gene = (gene + 1) % Genes {
			s.Next(gene)
		}
	})
}

// BenchmarkMint is what a purchase does: of many users, on a clock that is read
// and goes with the ids, so that faster than a million a second is not refused.
func BenchmarkMint(b *testing.B) {
	users := make([]string, 1<<14)
	for i := range users {
		users[i] = "0192f0c1-5e6b-7d3a-8c1e-" + strconv.Itoa(1e11+i)
	}
	f := func(name string, source func(int, func() time.Time) *Source) {
		b.Run(name, func(b *testing.B) {
			n := 0
			s := source(0, func() time.Time { return time.Now().Add(time.Duration(n) * time.Microsecond) })
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Mint(users[n%len(users)]); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
	f("counting", NewSource)
	f("marking", NewMarkingSource)
}

func BenchmarkFor(b *testing.B) {
	s := NewMarkingSource(0, time.Now)
	b.ReportAllocs()
	for b.Loop() {
		s.For("0192f0c1-5e6b-7d3a-8c1e-2b1f6a9d4e77")
	}
}

// BenchmarkNumbers is without its store, which fetches beside it.
func BenchmarkNumbers(b *testing.B) {
	n := NewNumbers("invoices", &rows{}, time.Now)
	ctx, cancel := context.WithCancel(b.Context())
	var stepping sync.WaitGroup
	stepping.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
			if _, err := n.Step(ctx); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			for _, err := n.Next(); err != nil; _, err = n.Next() {
			}
		}
	})
	b.StopTimer()
	cancel()
	stepping.Wait()
}

// BenchmarkRedisINCR asks a real Redis with an append-only file, synced every
// second, on this machine: by one caller who waits for each number, by 256 whose
// commands the client sends together, and by one who asks for 100 at once.
func BenchmarkRedisINCR(b *testing.B) {
	server := servers.Redis(b)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	incr := func(b *testing.B) {
		if err := client.Do(b.Context(), client.B().Incr().Key("n").Build()).Error(); err != nil {
			b.Error(err)
		}
	}
	b.Run("one caller", func(b *testing.B) {
		for b.Loop() {
			incr(b)
		}
	})
	b.Run("256 callers", func(b *testing.B) {
		b.SetParallelism(128)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				incr(b)
			}
		})
	})
	b.Run("pipelined by 100", func(b *testing.B) {
		commands := make(rueidis.Commands, 100)
		for n := 0; n < b.N; n += len(commands) {
			for i := range commands {
				commands[i] = client.B().Incr().Key("n").Build()
			}
			for _, reply := range client.DoMulti(b.Context(), commands...) {
				if err := reply.Error(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
