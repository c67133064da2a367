package proof_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// BenchmarkProof is one full proof of an activity whose log is nothing but
// reservations, each with its order: by a new auditor, which reads the log from
// the start, and by one that stands at the watermark already. The orders of the
// smaller one are in a real SQLite, those of the other in memory.
//
//	go test -run '^$' -bench Proof -benchtime 5x ./internal/proof
func BenchmarkProof(b *testing.B) {
	b.Run("entries=100k/sqlite", func(b *testing.B) { benchmarkProof(b, 100_000, true) })
	b.Run("entries=1M/memory", func(b *testing.B) { benchmarkProof(b, 1_000_000, false) })
}

func benchmarkProof(b *testing.B, n int, landed bool) {
	l, err := walstock.Open(b.TempDir(), walstock.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if worked, _ := l.Commit(ctx); worked {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-l.Wake():
			}
		}
	}()
	defer func() { cancel(); <-done; _ = l.Close() }()
	a := stocktest.Allocation("a", n, 2)
	a.PerUser = 2
	if err := l.Open(b.Context(), a); err != nil {
		b.Fatal(err)
	}
	proof.Fill(b, l, n, 0)
	var orders rows = land(b, l, landed)
	audit := func(a *proof.Auditor) {
		if r, err := a.Check(b.Context(), "a"); err != nil || !r.OK || r.Orders[order.Created] != n {
			b.Fatalf("%v, %v: %v", r.OK, err, r.Violations)
		}
	}
	f := func(what string, auditor func() *proof.Auditor) {
		b.Run(what, func(b *testing.B) {
			a := auditor()
			for b.Loop() {
				if a == nil {
					audit(proof.New(orders, l, walstock.LogID, time.Now))
				} else {
					audit(a)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
	f("new", func() *proof.Auditor { return nil })
	f("standing", func() *proof.Auditor {
		a := proof.New(orders, l, walstock.LogID, time.Now)
		audit(a)
		return a
	})
}

// rows is what an auditor reads.
type rows interface {
	Snapshot(ctx context.Context, activity stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error)
	Dead(ctx context.Context, after int64, limit int) ([]outbox.Message, error)
}

// land makes the orders: by landing them, or as they would be read.
func land(b *testing.B, l *walstock.Ledger, landed bool) rows {
	b.Helper()
	if !landed {
		books, err := l.Replica(b.Context(), l.Head())
		if err != nil {
			b.Fatal(err)
		}
		terms := pricing.Terms{Quote: pricing.Quote{Currency: "CNY", Total: 9900, Lines: []pricing.QuoteLine{{SKU: "s", Quantity: 1, Unit: 9900, Total: 9900}}}}
		m := &memory{head: l.Head()}
		books["a"].Reservations(func(r *stock.Reservation) bool {
			m.orders = append(m.orders, order.Order{ID: r.Order, Reservation: r.ID, Activity: "a", User: r.User, State: order.Created, Terms: terms})
			return true
		})
		return m
	}
	quiet := slog.New(slog.DiscardHandler)
	s, err := sqlstore.Open(b.Context(), filepath.Join(b.TempDir(), "shop.db"), sqlstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	lander := order.NewLander(order.Landing{
		Store: s, Log: l, LogID: walstock.LogID, Alarms: order.NewAlarms(quiet), Logger: quiet, Now: time.Now,
		Snapshots: order.NewSnapshots(func(context.Context, stock.SKU, int) ([]byte, error) { return []byte(`{"title":"Cup"}`), nil }),
	})
	for lander.Landed().Position < l.Head().Position {
		if _, err := lander.Step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	// The events of landing have gone where they had to.
	for {
		page, err := s.Pending(b.Context(), 1<<60, 1000)
		if err != nil {
			b.Fatal(err)
		}
		if len(page) == 0 {
			return s
		}
		var ids []int64
		for _, m := range page {
			ids = append(ids, m.ID)
		}
		if err := s.Done(b.Context(), ids); err != nil {
			b.Fatal(fmt.Errorf("deliver: %w", err))
		}
	}
}

// memory is a store's read side.
type memory struct {
	orders []order.Order
	head   stock.Cursor
}

func (m *memory) Snapshot(_ context.Context, _ stock.ActivityID, visit func(order.Order) error) (map[stock.LogID]stock.Cursor, []outbox.Message, error) {
	for _, o := range m.orders {
		if err := visit(o); err != nil {
			return nil, nil, err
		}
	}
	return map[stock.LogID]stock.Cursor{m.head.Log: m.head}, nil, nil
}

func (m *memory) Dead(context.Context, int64, int) ([]outbox.Message, error) { return nil, nil }
