package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/internal/lib/call"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// again is sooner than shoppers come, who are asked to wait for a second at least.
const again = 100 * time.Millisecond

// crowd does b.N pieces of work with so many at a time and tells how many were
// done a second and how long they took. limit, if there is one, refuses; who is
// refused comes again after a hundredth of a second.
func crowd(b *testing.B, atATime int, limit *gate.Shedding, work func(i int) error) {
	took := make([]time.Duration, b.N)
	var next, refused atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range min(atATime, b.N) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				for {
					from := time.Now()
					err := once(limit, work, i)
					if errors.Is(err, gate.ErrOverloaded) {
						refused.Add(1)
						<-time.After(again)
						continue
					}
					if err != nil {
						b.Error(err)
					}
					took[i] = time.Since(from)
					break
				}
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "done/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	if limit != nil {
		b.ReportMetric(float64(limit.Status().Limit), "limit")
		b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/done")
	}
}

func once(limit *gate.Shedding, work func(i int) error, i int) error {
	if limit == nil {
		return work(i)
	}
	permit, err := limit.Enter(gate.Buying)
	if err != nil {
		return err
	}
	defer permit.Leave(call.Served)
	return work(i)
}

// BenchmarkOverload is what docs/decisions/0016 decides by: purchases and reads of
// the store, by how many are in flight, and under an adaptive limit.
//
//	go test -run '^$' -bench Overload/purchases -benchtime 50000x ./internal/app
//	go test -run '^$' -bench Overload/reads -benchtime 50000x ./internal/app
func BenchmarkOverload(b *testing.B) {
	o, _ := patient()
	s := openShop(b, o, nil)
	buy := func(activity, user string) error {
		_, err := s.engine.shop.Purchase(context.Background(), sale.PurchaseRequest{
			Activity: stock.ActivityID(activity), User: stock.UserID(user), Key: "k", Lines: []stock.Line{{SKU: stock.SKU(activity), Quantity: 1}},
		})
		return err
	}
	runs := 0
	purchases := func(b *testing.B, atATime int, limit *gate.Shedding) {
		runs++
		name := fmt.Sprint("run", runs)
		s.sell(name, 600)
		crowd(b, atATime, limit, func(i int) error { return buy(name, fmt.Sprint(name, "-", i)) })
	}
	const buyers = 5000
	s.sell("cup", 600)
	var all sync.WaitGroup
	for i := range buyers {
		all.Go(func() { s.must(buy("cup", fmt.Sprint("buyer", i))) })
	}
	all.Wait()
	list := func(i int) ([]order.Order, error) {
		return s.engine.store.List(context.Background(), order.Query{User: stock.UserID(fmt.Sprint("buyer", i%buyers)), Limit: 21})
	}
	s.eventually("orders have landed", func() bool { return s.engine.alone.lander.Stats().Landed == s.engine.wal.Head() })
	reads := func(b *testing.B, atATime int, limit *gate.Shedding) {
		crowd(b, atATime, limit, func(i int) error {
			found, err := list(i)
			if err == nil && len(found) != 1 {
				err = fmt.Errorf("%d orders", len(found))
			}
			return err
		})
	}
	for _, kind := range []struct {
		name string
		do   func(b *testing.B, atATime int, limit *gate.Shedding)
	}{{"purchases", purchases}, {"reads", reads}} {
		for _, n := range []int{4, 32, 256, 2048, 8192} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) { kind.do(b, n, nil) })
		}
		b.Run(kind.name+"/8192-limited", func(b *testing.B) { kind.do(b, 8192, gate.NewShedding(time.Now)) })
	}
}
