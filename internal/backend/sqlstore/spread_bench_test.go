package sqlstore

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"sluice/internal/lib/shard"
	"sluice/internal/pricing"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// BenchmarkShardedSpread puts rows of as many users into 1,024 tables of two
// databases and counts what is in each. It is a benchmark because it takes long,
// and is run once:
//
//	SLUICE_SPREAD_ROWS=10000000 go test ./internal/backend/sqlstore -run '^$' -bench ShardedSpread -benchtime 1x -timeout 4h
func BenchmarkShardedSpread(b *testing.B) {
	rows := 20_000
	if text := os.Getenv("SLUICE_SPREAD_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil || rows < 1 {
			b.Fatalf("SLUICE_SPREAD_ROWS is %q, want a number of rows", text)
		}
	}
	// What a power cut would lose is of no matter here.
	d := servers.MariaDB(b, servers.Config("skip-log-bin\ninnodb-flush-log-at-trx-commit=0\ninnodb-buffer-pool-size=1G\n"+
		"innodb-doublewrite=0\ntable-open-cache=4000\ninnodb-open-files=4000"))
	s := spreadOver(b, nil, schemas(b, d, 2, "?tables=512")...)
	for b.Loop() {
		fillTables(b, s, rows)
	}
	b.StopTimer()
	var counts []int
	for _, g := range s.groups {
		err := g.reading(b.Context(), "count", func(c *conn) error {
			row, _, err := c.one("SELECT count(*) FROM " + g.orders.name)
			if err == nil {
				counts = append(counts, int(integer(row[0])))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	mean := float64(total) / shard.Logical
	b.ReportMetric(float64(total), "rows")
	b.ReportMetric(100*(float64(slices.Max(counts))/mean-1), "%above_mean")
	b.ReportMetric(100*(1-float64(slices.Min(counts))/mean), "%below_mean")
	if total != rows*b.N || len(counts) != shard.Logical {
		b.Fatalf("%d rows in %d tables", total, len(counts))
	}
	// Ten million rows are 9,766 a table: six standard deviations are 6 %.
	if mean > 9000 && (float64(slices.Max(counts)) > mean*1.06 || float64(slices.Min(counts)) < mean*0.94) {
		b.Errorf("a table has %d to %d rows, the mean is %.0f", slices.Min(counts), slices.Max(counts), mean)
	}
}

// fillTables writes rows table by table, as landing does, some thousands at a time.
func fillTables(b *testing.B, s *Sharded, rows int) {
	b.Helper()
	const size = 50_000
	ids := idSource()
	for from := 0; from < rows; from += size {
		tables := make([][]args, len(s.groups))
		for i := from; i < min(from+size, rows); i++ {
			l := landedOrders(i, 1)[0]
			o := &l.Order
			o.User, o.Key, o.Products, o.Terms = stock.UserID(fmt.Sprintf("user-%d", i)), "k", nil, pricing.Terms{}
			o.ID = orderID(ids.For(string(o.User)))
			row, err := orderArgs(o)
			if err != nil {
				b.Fatal(err)
			}
			g := s.groupOfUser(o.User)
			tables[g] = append(tables[g], row)
		}
		for g, some := range tables {
			v := s.groups[g]
			err := v.writing(b.Context(), "fill", func(c *conn) error { return v.orders.insertPlain.all(c, some) })
			if err != nil {
				b.Fatal(fmt.Errorf("table %d: %w", g, err))
			}
		}
	}
}
