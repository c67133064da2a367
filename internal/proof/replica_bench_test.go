package proof

import (
	"runtime"
	"testing"

	"sluice/internal/backend/walstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// BenchmarkReplica follows a log of 100,000 reservations and as many
// settlements, from its first entry on: what the standing replica costs for
// each entry, and what it takes in memory for each reservation.
//
//	go test -run '^$' -bench Replica ./internal/proof
func BenchmarkReplica(b *testing.B) {
	const reservations = 100_000
	l := newLedger(b, walstock.Options{})
	a := stocktest.Allocation("a", reservations, 2)
	a.PerUser = 2
	if err := l.Open(b.Context(), a); err != nil {
		b.Fatal(err)
	}
	fill(b, l.Ledger, reservations, stock.Confirmed)
	head := l.Head()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var r replica
	for b.Loop() {
		r = replica{ledger: l.Ledger}
		if _, err := r.advance(b.Context(), head); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(head.Position), "ns/entry")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/reservations, "B/reservation")
	runtime.KeepAlive(r)
}
