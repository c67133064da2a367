package redisstock_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// What a decision costs, through the real script and the real client, by 256
// callers at once: CPU of the server's main thread, which is what one core can
// do, and the part of it that is the script. Run with -benchtime=200000x: the
// user hash grows as in a sale. A refusal by the mirror does not ask Redis, which
// is read by the mirror alone.
func BenchmarkReserve(b *testing.B) {
	f := func(name string, units int, buckets uint16, mirrored bool, want error) {
		b.Run(name, func(b *testing.B) {
			l, server := benched(b, units, buckets)
			reserve := func(i int) error {
				_, err := l.Reserve(b.Context(), request(i))
				return err
			}
			if mirrored {
				g := follow(b, l, "bench")
				g.settled("bench")
				defer g.run()()
				face, r := g.board.Face("bench"), request(0)
				reserve = func(int) error { return face.Refuses(r.User, r.Lines, stock.MillisOf(time.Now())) }
			}
			before := usage(b, server)
			b.ResetTimer()
			together(b.N, func(i int) {
				if err := reserve(i); !errors.Is(err, want) {
					b.Error(err)
				}
			})
			b.StopTimer()
			report(b, before, usage(b, server))
		})
	}
	f("accept", stock.MaxUnits, 1, false, nil)
	f("refuse by script", 0, 1, false, stock.ErrSoldOut)
	f("refuse by script over 4 buckets", 0, 4, false, stock.ErrSoldOut)
	f("refuse by mirror", 0, 1, true, stock.ErrSoldOut)
}

// What a reservation costs Redis in memory: used_memory before and after, with
// the stream of its entries and, as after landing, without.
func BenchmarkMemory(b *testing.B) {
	l, server := benched(b, stock.MaxUnits, 1)
	before := usage(b, server)["used_memory"]
	together(b.N, func(i int) {
		if _, err := l.Reserve(b.Context(), request(i)); err != nil {
			b.Error(err)
		}
	})
	with := usage(b, server)["used_memory"]
	if err := l.Trim(b.Context(), stock.Cursor{Log: stock.Place{Activity: "bench"}.Log(), Epoch: 1, Position: uint64(b.N)}); err != nil {
		b.Fatal(err)
	}
	without := usage(b, server)["used_memory"]
	b.ReportMetric((with-before)/float64(b.N), "B/reservation-untrimmed")
	b.ReportMetric((without-before)/float64(b.N), "B/reservation")
}

// request is as a shopper's: UUIDs for user and key, terms of half a kilobyte.
func request(i int) stock.Request {
	r := stocktest.Request("bench", fmt.Sprintf("5f0c9f2a-77aa-4b1c-9d3e-%012d", i), fmt.Sprintf("0e7a1b52-1f0d-4c57-8a6b-%012d", i), 1)
	r.Order = stock.OrderID(fmt.Sprintf("%016d", i))
	r.Terms = []byte(strings.Repeat("terms and ", 50))
	return r
}

func benched(b *testing.B, units int, buckets uint16) (*redisstock.Ledger, *servers.Server) {
	server := servers.Redis(b)
	s := &served{Ledger: connect(b, server, "", redisstock.Options{CallerTime: false})}
	s.k = newKeeper(b, s.Ledger)
	a := spread("bench", units, 1, buckets)
	a.OpensAt, a.ClosesAt = 1, 1<<50
	if err := s.Open(b.Context(), a); err != nil {
		b.Fatal(err)
	}
	return s.Ledger, server
}

func together(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				do(int(i))
			}
		})
	}
	wg.Wait()
}

// usage reads the numbers of INFO.
func usage(b *testing.B, server *servers.Server) map[string]float64 {
	b.Helper()
	found := map[string]float64{}
	for _, section := range []string{"cpu", "memory", "commandstats"} {
		info, _ := do(b, server, "INFO", section).(string)
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			for _, part := range strings.Split(value, ",") {
				key, number, ok := strings.Cut(part, "=")
				if !ok {
					key, number = "", part
				}
				if n, err := strconv.ParseFloat(number, 64); err == nil {
					found[strings.TrimSuffix(name+"."+key, ".")] = n
				}
			}
		}
	}
	return found
}

func report(b *testing.B, before, after map[string]float64) {
	b.Helper()
	spent := func(name string) float64 { return after[name] - before[name] }
	cpu := spent("used_cpu_sys_main_thread") + spent("used_cpu_user_main_thread")
	b.ReportMetric(cpu*1e6/float64(b.N), "redis-µs/op")
	b.ReportMetric(float64(b.N)/cpu, "decisions/core-s")
	b.ReportMetric(spent("cmdstat_evalsha.usec")/float64(b.N), "script-µs/op")
}
