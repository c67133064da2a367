package proof

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/backend/walstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// Terms of a reservation in benchmarks: those of a flash sale with one line.
const Terms = `{"currency":"CNY","total":9900,"lines":[{"sku":"s","version":1,"quantity":1,"unit":9900,"total":9900}],` +
	`"late_payment":"rereserve_or_refund","restock":false}`

// Fill makes reservations of one unit, by as many users, and settles them
// unless outcome is 0. Somebody has to commit.
func Fill(tb testing.TB, l *walstock.Ledger, reservations int, outcome stock.Outcome) {
	fill(tb, l, reservations, outcome)
}

func fill(tb testing.TB, l *walstock.Ledger, reservations int, outcome stock.Outcome) {
	tb.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 1024 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(reservations); n = next.Add(1) {
				r := stocktest.Request("a", fmt.Sprint("user-", n), "1f0e3dad-9990-4345-b743-9f8ffabdffc4", 1)
				r.Order, r.Terms = stock.OrderID(fmt.Sprint(7_000_000_000_000_000_000+n)), []byte(Terms)
				got, err := l.Reserve(tb.Context(), r)
				if err == nil && outcome != 0 {
					_, err = l.Settle(tb.Context(), stock.Settlement{ID: got.ID, Outcome: outcome})
				}
				if err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
