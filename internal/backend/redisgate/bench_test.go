package redisgate_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
	"sluice/test/servers"
)

// What calls cost one Redis through the real client, by 256 callers at once:
// CPU of the server's main thread, which is what one core can do. Run with
// -benchtime=1000000x: a room fills as one does. Users are of 36 bytes.
func BenchmarkRoom(b *testing.B) {
	server := servers.Redis(b)
	l := serve(b, server).Line
	open(b, l, "bench")
	user := func(i int) string { return fmt.Sprintf("5f0c9f2a-77aa-4b1c-9d3e-%012d", i) }
	filled := 0
	fill := func(b *testing.B, n int) {
		from := filled
		filled = max(filled, n)
		crowded(b, filled-from, func(i int) error {
			_, _, err := l.Join(b.Context(), "bench", user(from+i), entry(from+i), -1, waiting.MaxJoined)
			return err
		})
	}
	b.Run("join", func(b *testing.B) {
		do(b, server, "FLUSHALL")
		open(b, l, "bench")
		filled = 0
		before := usage(b, server)
		b.ResetTimer()
		b.StartTimer()
		fill(b, b.N)
		report(b, before, usage(b, server))
		b.ReportMetric((usage(b, server)["used_memory"]-before["used_memory"])/float64(b.N), "B/waiter")
	})
	f := func(name string, call func(i int) error) {
		b.Run(name, func(b *testing.B) {
			fill(b, b.N)
			before := usage(b, server)
			b.ResetTimer()
			b.StartTimer()
			crowded(b, b.N, call)
			report(b, before, usage(b, server))
		})
	}
	f("join again", func(i int) error {
		_, _, err := l.Join(b.Context(), "bench", user(i), entry(0), -1, waiting.MaxJoined)
		return err
	})
	f("find", func(i int) error { _, _, err := l.Find(b.Context(), "bench", user(i)); return err })
	b.Run("all entries", func(b *testing.B) {
		fill(b, b.N)
		before := usage(b, server)
		b.ResetTimer()
		b.StartTimer()
		all, err := l.Entries(b.Context(), "bench", 0, b.N)
		if err != nil || len(all) != b.N {
			b.Fatal(len(all), err)
		}
		report(b, before, usage(b, server))
	})
}

// A thousand people each call, spread over a room of a million.
func BenchmarkPresence(b *testing.B) {
	server := servers.Redis(b)
	p := serve(b, server).Presence
	numbers := make([]int, 1000)
	for i := range numbers {
		numbers[i] = i * 997
	}
	f := func(name string, call func() error) {
		b.Run(name, func(b *testing.B) {
			before := usage(b, server)
			b.ResetTimer()
			b.StartTimer()
			for range b.N {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
			report(b, before, usage(b, server))
		})
	}
	f("see 1000", func() error { return p.See(b.Context(), "bench", 7, numbers) })
	f("seen 1000", func() error { _, err := p.Seen(b.Context(), "bench", 7, numbers); return err })
}

func BenchmarkPool(b *testing.B) {
	server := servers.Redis(b)
	s := serve(b, server)
	p := pool(b, s, "bench", 1, bucketOf(100_000_000, time.Second, 0), time.Second)
	f := func(name string, call func(i int) error) {
		b.Run(name, func(b *testing.B) {
			before := usage(b, server)
			b.ResetTimer()
			b.StartTimer()
			crowded(b, b.N, call)
			report(b, before, usage(b, server))
		})
	}
	run := fmt.Sprint("gate/", time.Now().UnixNano(), "/")
	var serial atomic.Int64
	f("grant", func(int) error {
		_, err := p.Grant(b.Context(), run+strconv.FormatInt(serial.Add(1), 10), 10)
		return err
	})
	f("spend", func(int) error {
		_, err := s.Once.Spend(b.Context(), run+strconv.FormatInt(serial.Add(1), 10), time.Now())
		return err
	})
}

func crowded(b *testing.B, n int, call func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range 256 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := call(int(i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// usage reads CPU and memory out of INFO.
func usage(b *testing.B, server *servers.Server) map[string]float64 {
	b.Helper()
	b.StopTimer()
	found := map[string]float64{}
	for _, section := range []string{"cpu", "memory"} {
		info, _ := do(b, server, "INFO", section).(string)
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				found[name] = n
			}
		}
	}
	return found
}

func report(b *testing.B, before, after map[string]float64) {
	b.Helper()
	cpu := after["used_cpu_sys_main_thread"] + after["used_cpu_user_main_thread"] - before["used_cpu_sys_main_thread"] - before["used_cpu_user_main_thread"]
	b.ReportMetric(cpu*1e6/float64(b.N), "redis-µs/op")
	b.ReportMetric(float64(b.N)/cpu, "op/core-s")
}
