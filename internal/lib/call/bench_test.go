package call_test

import (
	"context"
	"testing"
	"time"

	"sluice/internal/lib/call"
)

func BenchmarkBreaker(b *testing.B) {
	ctx := b.Context()
	answers := func(context.Context) error { return nil }
	open := func(b *testing.B) *call.Breaker {
		k, err := call.NewBreaker(call.BreakerOptions{Slow: time.Second})
		if err != nil {
			b.Fatal(err)
		}
		return k
	}
	b.Run("answered", func(b *testing.B) {
		k := open(b)
		b.ReportAllocs()
		for b.Loop() {
			_ = k.Do(ctx, answers)
		}
	})
	b.Run("answered/parallel", func(b *testing.B) {
		k := open(b)
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				_ = k.Do(ctx, answers)
			}
		})
	})
	b.Run("refused", func(b *testing.B) {
		k := open(b)
		k.Hold(call.Open)
		b.ReportAllocs()
		for b.Loop() {
			_ = k.Do(ctx, answers)
		}
	})
}

func BenchmarkDependency(b *testing.B) {
	d := dependency(b, call.Options{Name: "bank"})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_ = d.Do(ctx, call.Once, func(context.Context) error { return nil })
	}
}

// BenchmarkAdaptive does not read the clock: its callers have the time already.
func BenchmarkAdaptive(b *testing.B) {
	b.Run("served", func(b *testing.B) {
		a, now := adaptive(b, call.AdaptiveOptions{Shares: shares}), epoch
		b.ReportAllocs()
		for b.Loop() {
			p, err := a.Acquire(browsing, now)
			if err != nil {
				b.Fatal(err)
			}
			now = now.Add(time.Microsecond)
			p.Release(now, call.Served)
		}
	})
	b.Run("served/parallel", func(b *testing.B) {
		a := adaptive(b, call.AdaptiveOptions{Shares: shares, Initial: 1000})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			now := epoch
			for pb.Next() {
				p, err := a.Acquire(browsing, now)
				if err != nil {
					b.Error(err)
					return
				}
				now = now.Add(time.Microsecond)
				p.Release(now, call.Served)
			}
		})
	})
	full := func(b *testing.B) *call.Adaptive {
		a := adaptive(b, call.AdaptiveOptions{Shares: shares})
		for err := error(nil); err == nil; _, err = a.Acquire(paying, epoch) {
		}
		return a
	}
	b.Run("refused", func(b *testing.B) {
		a := full(b)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = a.Acquire(browsing, epoch)
		}
	})
	b.Run("refused/parallel", func(b *testing.B) {
		a := full(b)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = a.Acquire(browsing, epoch)
			}
		})
	})
}
