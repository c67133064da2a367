package limit

import (
	"math/rand/v2"
	"testing"
	"time"
)

var everyRate = []Rate{
	{Algorithm: FixedWindow, Limit: 10, Per: time.Second},
	{Algorithm: SlidingWindow, Limit: 10, Per: time.Second},
	{Algorithm: TokenBucket, Limit: 10, Per: time.Second},
	{Algorithm: LeakyBucket, Limit: 10, Per: time.Second, Burst: 10},
}

// BenchmarkHotKey is one key that is nearly always refused, from all cores.
func BenchmarkHotKey(b *testing.B) {
	for _, r := range everyRate {
		b.Run(r.Algorithm.String(), func(b *testing.B) {
			l := must(New(r, 1))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for now := second; pb.Next(); now += 100 {
					l.Take(Only, 1, now)
				}
			})
		})
	}
}

// BenchmarkMillionKeys is a table at half load whose every look-up misses the caches.
func BenchmarkMillionKeys(b *testing.B) {
	for _, r := range everyRate {
		b.Run(r.Algorithm.String(), func(b *testing.B) {
			l := must(New(r, 2_000_000))
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				random := rand.New(rand.NewPCG(1, rand.Uint64()))
				for now := second; pb.Next(); now += 100 {
					l.Take(Key(random.Uint64N(1_000_000)*0x9e3779b97f4a7c15), 1, now)
				}
			})
		})
	}
}

// BenchmarkNewcomers is a flood of keys never seen before, over a full table.
func BenchmarkNewcomers(b *testing.B) {
	l, now := must(New(everyRate[2], 100_000)), second
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		now++
		l.Take(Key(random.Uint64()), 1, now)
	}
}

// BenchmarkGroupOf4 is user, address, activity and a budget of all processes.
func BenchmarkGroupOf4(b *testing.B) {
	user, address := must(New(everyRate[1], 1_000_000)), must(New(everyRate[2], 1_000_000))
	activity := must(New(Rate{Algorithm: TokenBucket, Limit: MaxLimit, Per: time.Second}, 1))
	shared := newTestBudget(b, MaxLimit)
	hash := NewHash()
	var names [1024]Key
	for i := range names {
		names[i] = hash.Bytes([]byte{byte(i), byte(i >> 8)})
	}
	f := func(name string, n int64) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := second
			for i := 0; b.Loop(); i++ {
				now += 1_000_000
				asks := [4]Ask{
					{Limiter: user, Key: names[i%1024], N: n},
					{Limiter: address, Key: names[i%1024], N: 1},
					{Limiter: activity, Key: Only, N: 1},
					{Budget: shared, N: 1},
				}
				All(asks[:], now)
			}
		})
	}
	f("allowed", 1)
	f("refused", 11)
}

// BenchmarkEdit is of 262,144 keys, all with something used; /256 a lock.
func BenchmarkEdit(b *testing.B) {
	const places = 1 << 18
	l := must(New(everyRate[2], places))
	random := rand.New(rand.NewPCG(1, 2))
	for range 2 * places {
		l.Take(Key(random.Uint64()), 1, 0)
	}
	for limit := int64(10); b.Loop(); limit = 21 - limit {
		if err := l.Edit(Rate{Algorithm: TokenBucket, Limit: limit, Per: time.Second}, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/places, "ns/key")
}

func BenchmarkKey(b *testing.B) {
	h, name := NewHash(), []byte("0192f0c1-5e6b-7d3a-8c1e-2b1f6a9d4e77")
	b.ReportAllocs()
	for b.Loop() {
		h.Bytes(name)
	}
}
