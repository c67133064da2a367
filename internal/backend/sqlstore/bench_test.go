package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// BenchmarkLand and BenchmarkRawInsert write the same orders, events and
// watermark into the same tables; ns/op is per order. Raw is what a program
// without contracts would do: multi-row INSERTs of ready-made values through
// database/sql, one transaction a batch. Compare them at the same -benchtime,
// for example:
//
//	go test -run '^$' -bench 'Land|RawInsert' -benchtime 200000x ./internal/backend/sqlstore
func BenchmarkLand(b *testing.B) { benchmarkLand(b, openStore(b)) }

// BenchmarkServer lands on a real MariaDB, whose commits are synced, and beside
// it writes the same rows by the same driver through database/sql: one INSERT for
// the orders of a batch and one for its events, a batch a transaction. The two take
// turns, so that whatever else the machine does slows both. A batch is 500 orders;
// the metrics are ns per order.
//
//	go test -run '^$' -bench Server -benchtime 100x ./internal/backend/sqlstore
func BenchmarkServer(b *testing.B) {
	const size = 500
	d := servers.MariaDB(b, servers.Config("innodb-buffer-pool-size=512M"), servers.Config("innodb-log-file-size=256M"))
	for _, name := range []string{"sluice_land", "sluice_raw"} {
		if err := d.Create(b.Context(), name); err != nil {
			b.Fatal(err)
		}
	}
	s := onServer(b, d, "sluice_land", "")
	onServer(b, d, "sluice_raw", "")
	db, err := sql.Open("mysql", d.DSN("sluice_raw")+"?interpolateParams=true&tx_isolation=%27READ-COMMITTED%27")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	token, err := s.Fence(b.Context(), "wal")
	if err != nil {
		b.Fatal(err)
	}
	orders, events := plainOrders.insertPlain.head+values(size, plainCount), insertMessage.head+values(size, 4)
	var landing, raw time.Duration
	for n := range b.N {
		batch := order.Batch{Log: "wal", Token: token, From: position(n * size), To: position((n + 1) * size), Orders: landedOrders(n*size, size)}
		rows, messages := rawValues(b, batch.Orders)
		began := time.Now()
		if err := s.Land(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		landing += time.Since(began)
		began = time.Now()
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		for _, insert := range []struct {
			query  string
			values []any
		}{{orders, rows}, {events, messages}} {
			if _, err := tx.Exec(insert.query, insert.values...); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		raw += time.Since(began)
	}
	b.ReportMetric(float64(landing)/float64(b.N*size), "land-ns/order")
	b.ReportMetric(float64(raw)/float64(b.N*size), "raw-ns/order")
}

func benchmarkLand(b *testing.B, s *Store) {
	ctx := b.Context()
	token, err := s.Fence(ctx, "wal")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var at stock.Cursor
	for done := 0; done < b.N; {
		b.StopTimer()
		batch := order.Batch{Log: "wal", Token: token, From: at, Orders: landedOrders(done, min(500, b.N-done))}
		done += len(batch.Orders)
		batch.To = stock.Cursor{Log: "wal", Epoch: 1, Position: uint64(done)}
		b.StartTimer()
		if err := s.Land(ctx, batch); err != nil {
			b.Fatal(err)
		}
		at = batch.To
	}
}

func BenchmarkRawInsert(b *testing.B) {
	for _, rows := range []int{1, 4, 10, 50} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "shop.db")
			s, err := Open(b.Context(), path, Options{})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			db, err := sql.Open("sqlite", sqliteDSN(path, "5000", false))
			if err != nil {
				b.Fatal(err)
			}
			rawInsert(b, db, rows)
		})
	}
}

func rawInsert(b *testing.B, db *sql.DB, perInsert int) {
	defer db.Close()
	db.SetMaxOpenConns(1)
	orders, err := db.Prepare("INSERT INTO orders (" + plainColumns + ") VALUES " + values(perInsert, plainCount))
	if err != nil {
		b.Fatal(err)
	}
	events, err := db.Prepare("INSERT INTO outbox (msg_key, topic, at, body) VALUES " + values(perInsert, 4))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for done := 0; done < b.N; {
		b.StopTimer()
		n := max(min(500, b.N-done)/perInsert, 1) * perInsert
		rows, messages := rawValues(b, landedOrders(done, n))
		done += n
		b.StartTimer()
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		for ; len(rows) > 0; rows, messages = rows[perInsert*plainCount:], messages[perInsert*4:] {
			if _, err := tx.Stmt(orders).Exec(rows[:perInsert*plainCount]...); err != nil {
				b.Fatal(err)
			}
			if _, err := tx.Stmt(events).Exec(messages[:perInsert*4]...); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := tx.Exec("UPDATE watermarks SET position = ? WHERE log = 'wal'", done); err != nil {
			b.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

func rawValues(b *testing.B, landed []order.Landed) (rows, messages []any) {
	b.Helper()
	l, err := prepareLanding(order.Batch{Log: "wal", To: stock.Cursor{Log: "wal"}, Orders: landed})
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range l.rows {
		for _, v := range r {
			rows = append(rows, v.Value)
		}
	}
	for _, m := range l.messages {
		for _, v := range m {
			messages = append(messages, v.Value)
		}
	}
	return rows, messages
}

func values(rows, columns int) string {
	return strings.TrimSuffix(strings.Repeat(placeholders(columns)+",", rows), ",")
}

// landedOrders are orders from..from+n−1 of a sale as landing would write
// them: one line, a UUID as key, a product snapshot, one event each. Ids come
// as snowflakes do, ascending by the millisecond and random within it; users
// come in no order.
func landedOrders(from, n int) []order.Landed {
	rnd := rand.New(rand.NewPCG(1, uint64(from)))
	landed := make([]order.Landed, n)
	product := `[{"id":"sku-1","version":1,"title":"Enamel mug","description":"` + strings.Repeat("Holds tea. ", 10) + `","image":"/img/mug.svg","price":{"amount":1990,"currency":"CNY"}}]`
	for i := range landed {
		seq := uint64(from + i + 1)
		at := stock.Millis(1_790_000_000_000 + int64(seq)/33)
		id := int64(at-1_735_689_600_000)<<22 | int64(rnd.IntN(1024))<<12 | int64(seq&0xfff)
		o := order.Order{
			ID:          stock.OrderID(fmt.Sprint(id)),
			Reservation: stock.ID{Activity: "flash-1", Epoch: 1, Number: seq},
			Activity:    "flash-1",
			User:        stock.UserID(fmt.Sprintf("user-%d", rnd.IntN(1_000_000))),
			Key:         fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", rnd.Uint32(), rnd.IntN(1<<16), rnd.IntN(1<<12), rnd.IntN(1<<12), rnd.Uint64()>>16),
			Terms: pricing.Terms{
				Quote: pricing.Quote{Currency: "CNY", Total: 1990, Lines: []pricing.QuoteLine{
					{SKU: "sku-1", Version: 1, Quantity: 1, Unit: 1990, Total: 1990},
				}},
				LatePayment: pricing.RereserveOrRefund,
			},
			Products:  []byte(product),
			Position:  stock.Cursor{Log: "wal", Epoch: 1, Position: seq},
			State:     order.Created,
			Version:   1,
			CreatedAt: at,
			ExpiresAt: at + 300_000,
			CheckAt:   at + 300_000,
		}
		landed[i] = order.Landed{Order: o, Events: []outbox.Message{{
			Key: string(o.ID), Topic: "order.created", At: int64(at),
			Body: fmt.Appendf(nil, `{"order":%q,"reservation":%q,"user":%q,"activity":%q,"total":1990,"currency":"CNY"}`, o.ID, o.Reservation, o.User, o.Activity),
		}}}
	}
	return landed
}

func openStore(tb testing.TB) *Store {
	tb.Helper()
	s, err := Open(context.Background(), filepath.Join(tb.TempDir(), "shop.db"), Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}
