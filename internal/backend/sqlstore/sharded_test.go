package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/id"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
	"sluice/internal/lib/shard"
	"sluice/internal/order"
	"sluice/internal/order/ordertest"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// spreadOver opens an empty store over these databases ("name?tables=2"), as a
// map says; nil is the even one.
func spreadOver(tb testing.TB, ranges []shardRange, urls ...string) *Sharded {
	tb.Helper()
	for i, u := range urls {
		plain, _, _ := strings.Cut(u, "?")
		s, err := OpenServer(tb.Context(), plain, Options{})
		if err != nil {
			tb.Fatal(err)
		}
		empty(tb, s)
		if i == 0 {
			err = s.writing(tb.Context(), "map", func(c *conn) error {
				for _, r := range ranges {
					if _, err := c.exec("INSERT INTO shard_map VALUES (1, ?, ?, ?)", r.First, r.Database, r.Table); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err = errors.Join(err, s.Close()); err != nil {
			tb.Fatal(err)
		}
	}
	return openSpread(tb, urls...)
}

func openSpread(tb testing.TB, urls ...string) *Sharded {
	tb.Helper()
	s, err := OpenSharded(tb.Context(), strings.Join(urls, ","), Options{})
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

// scattered has both tables of both databases in use by the few users of the
// suite, and those in one database whose events it wants in one order: between
// databases no order of events is promised, and the suite, made for one
// transaction after another in one database, asks for it in two places.
var scattered = []shardRange{{0, 0, 0}, {100, 1, 0}, {400, 1, 1}, {800, 0, 1}}

// Everything that a store of orders promises holds over two servers.
func TestShardedOrders(t *testing.T) {
	a, b := servers.MariaDB(t), servers.MariaDB(t)
	urls := []string{a.URL(servers.SQLDatabase) + "?tables=2", b.URL(servers.SQLDatabase) + "?tables=2"}
	ordertest.Run(t, func(t *testing.T) order.Store { return spreadOver(t, scattered, urls...) })
	t.Run("outbox", func(t *testing.T) {
		outboxtest.Run(t, func(t *testing.T) outboxtest.Queue {
			s := spreadOver(t, scattered, urls...)
			// All in the second: the suite wants ids that ascend over all keys.
			return outboxtest.Queue{Queue: s, Put: func(t *testing.T, messages ...outbox.Message) { put(t, s.dbs[1].Store, messages...) }}
		})
	})
}

// And over the tables of one database, where there is nothing to decide.
func TestShardedTables(t *testing.T) {
	url := servers.MariaDB(t).URL(servers.SQLDatabase) + "?tables=3"
	ordertest.Run(t, func(t *testing.T) order.Store { return spreadOver(t, nil, url) })
}

// pair opens a store over two databases of one server.
func pair(t *testing.T, d *servers.Database, tables string) *Sharded {
	t.Helper()
	return spreadOver(t, nil, schemas(t, d, 2, tables)...)
}

func schemas(tb testing.TB, d *servers.Database, n int, tables string) (urls []string) {
	tb.Helper()
	for i := range n {
		name := fmt.Sprintf("sluice_shard_%d", i)
		if err := d.Exec(tb.Context(), "CREATE DATABASE IF NOT EXISTS "+name); err != nil {
			tb.Fatal(err)
		}
		urls = append(urls, d.URL(name)+tables)
	}
	return urls
}

func idSource() *id.Source { return id.NewSource(0, time.Now) }

func orderID(n uint64) stock.OrderID { return stock.OrderID(id.Format(n)) }

func count(t *testing.T, s *Store, table string) (n int) {
	t.Helper()
	must(t, s.reading(t.Context(), "count", func(c *conn) error {
		row, _, err := c.one("SELECT count(*) FROM " + table)
		n = int(integer(row[0]))
		return err
	}))
	return n
}

// asked is how many statements a server was given that read or write rows.
func asked(t *testing.T, d *servers.Database) (n int) {
	t.Helper()
	row, err := d.Query(t.Context(), `SELECT SUM(variable_value) AS n FROM information_schema.global_status
		WHERE variable_name IN ('Com_select', 'Com_insert', 'Com_update', 'Com_delete', 'Com_replace', 'Com_begin')`)
	must(t, err)
	n, err = strconv.Atoi(strings.TrimSuffix(row["n"], ".0"))
	must(t, err)
	return n
}

// soldTo is order n of a log as it is in production: its id leads to its user.
func soldTo(ids *id.Source, l order.Landed) order.Landed {
	l.Order.ID = orderID(ids.For(string(l.Order.User)))
	for i := range l.Events {
		l.Events[i].Key = string(l.Order.ID)
	}
	return l
}

// sold are n such orders, from position from+1 on.
func sold(ids *id.Source, from, n int) []order.Landed {
	all := landedOrders(from, n)
	for i := range all {
		all[i] = soldTo(ids, all[i])
	}
	return all
}

// land lands orders behind position from.
func land(t *testing.T, s *Sharded, token uint64, from int, orders []order.Landed) {
	t.Helper()
	b := order.Batch{Log: "wal", Token: token, From: position(from), To: position(from + len(orders)), Orders: orders}
	must(t, s.Land(t.Context(), b))
}

// Reads and updates of one user's orders, and of one order, ask one database and
// one table of it; also of an order that is not there.
func TestShardedTouchesOne(t *testing.T) {
	d := []*servers.Database{servers.MariaDB(t), servers.MariaDB(t)}
	s := spreadOver(t, nil, d[0].URL(servers.SQLDatabase)+"?tables=3", d[1].URL(servers.SQLDatabase)+"?tables=3")
	ctx, ids := t.Context(), idSource()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(ids, 0, 60)
	land(t, s, token, 0, orders)
	seen := make([]int, 2)
	f := func(what string, user string, call func() error, want error) {
		t.Helper()
		before := []int{asked(t, d[0]), asked(t, d[1])}
		if err := call(); !errors.Is(err, want) {
			t.Fatalf("%s: %v", what, err)
		}
		its := s.groups[s.at[shard.Of(user)]].database
		for i := range d {
			// To ask is itself a statement.
			if n := asked(t, d[i]) - before[i] - 1; (n > 0) != (i == its) {
				t.Errorf("%s: %d statements for database %d, the user is in %d", what, n, i, its)
			}
		}
		seen[its]++
	}
	for _, l := range orders[:20] {
		o, user := l.Order, string(l.Order.User)
		f("get", user, func() error { _, err := s.Get(ctx, o.ID); return err }, nil)
		f("list", user, func() error {
			page, err := s.List(ctx, order.Query{User: o.User, Limit: 9})
			if err == nil && !slices.ContainsFunc(page, func(p order.Order) bool { return p.ID == o.ID }) {
				err = errors.New("the order is not among its user's")
			}
			return err
		}, nil)
		f("update", user, func() error {
			return s.Update(ctx, o.ID, func(o *order.Order) ([]outbox.Message, error) { o.State = order.Paid; return nil, nil })
		}, nil)
		never := orderID(ids.For(user))
		f("get what is not there", user, func() error { _, err := s.Get(ctx, never); return err }, order.ErrNoSuchOrder)
	}
	if seen[0] == 0 || seen[1] == 0 {
		t.Errorf("not both databases were asked: %v", seen)
	}
	for _, g := range s.groups {
		if n := count(t, g.Store, g.orders.name); n == 0 {
			t.Errorf("%s of database %d has no orders", g.orders.name, g.database)
		}
	}
}

// Users are even over the shards, and the shards over any number of tables. Ten
// million rows in 1,024 real tables are BenchmarkShardedSpread.
func TestShardsAreEven(t *testing.T) {
	const users = 1_000_000
	var n [shard.Logical]int
	for i := range users {
		n[shard.Of(fmt.Sprintf("user-%d", i))]++
	}
	mean := users / shard.Logical
	if most, fewest := slices.Max(n[:]), slices.Min(n[:]); most > mean*6/5 || fewest < mean*4/5 {
		t.Errorf("of %d users a shard has %d to %d, mean %d", users, fewest, most, mean)
	}
	f := func(tables ...int) {
		t.Helper()
		m := evenMap(tables)
		must(t, m.check(tables))
		dbs := make([]*Store, len(tables))
		for i := range dbs {
			dbs[i] = &Store{}
		}
		for database, shares := range spread(dbs, tables, m).Spread() {
			if len(shares) != tables[database] || slices.Max(shares)-slices.Min(shares) > 1 {
				t.Errorf("%v: database %d has %v", tables, database, shares)
			}
		}
	}
	f(1)
	f(1, 1)
	f(1, 1, 1)
	f(3, 5, 7)
	f(512, 512)
	f(1024)
}

// The map is written once, is the same for whoever comes later, and an address
// that does not fit it is refused with what to do.
func TestShardMapIsKept(t *testing.T) {
	d := servers.MariaDB(t)
	urls := schemas(t, d, 3, "")
	first := spreadOver(t, scattered, urls[0]+"?tables=2", urls[1]+"?tables=2")
	again := openSpread(t, urls[0]+"?tables=2", urls[1]+"?tables=2")
	equal(t, "places", again.at, first.at)
	refused := func(says string, urls ...string) {
		t.Helper()
		s, err := OpenSharded(t.Context(), strings.Join(urls, ","), Options{})
		if err == nil {
			must(t, s.Close())
			t.Errorf("%v: opened", urls)
			return
		}
		if !errors.Is(err, ErrMap) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want ErrMap and %q", urls, err, says)
		}
	}
	const asItWas = "write the address as it was"
	refused(asItWas, urls[0])
	refused(asItWas, urls[0]+"?tables=2", urls[1])
	refused(asItWas, urls[0]+"?tables=2", urls[1]+"?tables=3")
	refused(asItWas, urls[0]+"?tables=2", urls[1]+"?tables=2", urls[2])
	refused("in the order in which", urls[1]+"?tables=2")
	refused("in the order in which", urls[1]+"?tables=2", urls[0]+"?tables=2")
	refused("in the order in which", urls[0]+"?tables=2", urls[0]+"?tables=2")
	refused(asItWas, urls[0]+"?tables=2", urls[2]+"?tables=2", urls[1]+"?tables=2")
	equal(t, "places after all that", openSpread(t, urls[0]+"?tables=2", urls[1]+"?tables=2").at, first.at)

	// A database that sold alone is not spread by a longer address.
	alone, err := OpenServer(t.Context(), urls[2], Options{})
	must(t, err)
	empty(t, alone)
	_, err = alone.Fence(t.Context(), "wal")
	must(t, errors.Join(err, alone.Close()))
	empty(t, again.dbs[0].Store)
	empty(t, again.dbs[1].Store)
	refused("another store", urls[0], urls[2])
	refused("not spread", urls[2], urls[1])
	openSpread(t, urls[2]) // alone it goes on
}

func TestShardMapCheck(t *testing.T) {
	f := func(ok bool, tables []int, ranges ...shardRange) {
		t.Helper()
		if err := (shardMap{Version: 3, Ranges: ranges}).check(tables); (err == nil) != ok {
			t.Errorf("%v for %v: %v", ranges, tables, err)
		}
	}
	f(true, []int{1}, shardRange{0, 0, 0})
	f(true, []int{2, 1}, shardRange{0, 0, 1}, shardRange{7, 1, 0}, shardRange{8, 0, 0})
	f(false, []int{1})
	f(false, []int{1}, shardRange{1, 0, 0})
	f(false, []int{1}, shardRange{0, 0, 0}, shardRange{1024, 0, 0})
	f(false, []int{1}, shardRange{0, 0, 0}, shardRange{0, 0, 0})
	f(false, []int{1}, shardRange{0, -1, 0})
	f(false, []int{1}, shardRange{0, 0, 1})
	f(false, []int{1, 1}, shardRange{0, 0, 0})
}

func TestSplitAddress(t *testing.T) {
	f := func(address string, want []string, tables ...int) {
		t.Helper()
		got, n, err := splitAddress(address)
		if (err == nil) != (want != nil) || err == nil && (!slices.Equal(got, want) || !slices.Equal(n, tables)) {
			t.Errorf("%s: %v, %v, %v", address, got, n, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %v", err)
		}
	}
	if err := CheckAddress("mysql://u:p@h1/a?tables=2,mysql://u:p@h2:3307/b"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"mysql://u:secret@h1,h2/a", "mysql://u:secret@h1/a,mysql://u:secret@h2", "redis://u:secret@h1/a"} {
		if err := CheckAddress(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	f("mysql://u:p@h/shop", []string{"mysql://u:p@h/shop"}, 1)
	f("mysql://u:p,q@h/shop?tables=4&tls=true", []string{"mysql://u:p,q@h/shop?tls=true"}, 4)
	f("mysql://u:p@h1/a?tables=2,mysql://u:p@h2/b", []string{"mysql://u:p@h1/a", "mysql://u:p@h2/b"}, 2, 1)
	f("mysql://u:secret@h/shop?tables=0", nil)
	f("mysql://u:secret@h/shop?tables=1025", nil)
	f("mysql://u:secret@h/shop?tables=513,mysql://u:secret@h2/shop?tables=512", nil)
	f("mysql://u:secret%@h/shop", nil)
	f("mysql://h/a"+strings.Repeat(",mysql://h/a", maxDatabases), nil)
}

// Pages over all tables are those of one sorted list, however the rows lie.
func TestShardedPages(t *testing.T) {
	s := pair(t, servers.MariaDB(t), "?tables=3")
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(idSource(), 0, 400)
	var model []order.Order
	for i := range orders {
		o := &orders[i].Order
		o.State = []order.State{order.Created, order.Paid, order.Cancelled}[i%3]
		o.CheckAt += 1000 - o.CheckAt%50 // many at the same time
		model = append(model, *o)
	}
	land(t, s, token, 0, orders)
	f := func(q order.Query, limit int, less func(a, b *order.Order) int, keep func(o *order.Order) bool) {
		t.Helper()
		var want []string
		slices.SortFunc(model, func(a, b order.Order) int { return less(&a, &b) })
		for i := range model {
			if keep(&model[i]) {
				want = append(want, string(model[i].ID))
			}
		}
		var got []string
		for q.Limit = limit; ; {
			page, err := s.List(ctx, q)
			must(t, err)
			for _, o := range page {
				got = append(got, string(o.ID))
			}
			if len(page) < limit || q.DueBy > 0 {
				break
			}
			q.Before = page[len(page)-1].ID
		}
		if q.DueBy > 0 {
			want = want[:min(limit, len(want))]
		}
		equal(t, fmt.Sprintf("%+v", q), got, want)
	}
	all := func(*order.Order) bool { return true }
	for _, limit := range []int{1, 2, 7, 50, 399, 400, 500} {
		f(order.Query{}, limit, newest, all)
		f(order.Query{Activity: "flash-1", State: order.Paid}, limit, newest, func(o *order.Order) bool { return o.State == order.Paid })
		f(order.Query{DueBy: 1 << 60}, limit, soonest, all)
		due := model[200].CheckAt
		f(order.Query{DueBy: due}, limit, soonest, func(o *order.Order) bool { return o.CheckAt <= due })
	}
	r := model[77].Reservation
	f(order.Query{Reservation: &r}, 5, newest, func(o *order.Order) bool { return o.Reservation == r })

	// A page reads little more than itself, wherever it begins.
	runs := make([]*run, len(s.groups))
	for i, g := range s.groups {
		runs[i] = &run{group: g, query: order.Query{Limit: 12}}
	}
	must(t, fill(ctx, runs, 12/len(runs)+2))
	held := 0
	for _, r := range runs {
		held += len(r.page)
	}
	if held > 12+2*len(runs) {
		t.Errorf("%d orders are held for a page of 12", held)
	}
}

// The relay sees the events of all databases, those of an order in their order,
// and the oldest first between databases.
func TestShardedQueue(t *testing.T) {
	s := pair(t, servers.MariaDB(t), "")
	ctx := t.Context()
	want := map[string][]string{}
	for i := range 60 {
		key := fmt.Sprint("k", i%7)
		h := fnv.New32a()
		_, _ = h.Write([]byte(key))
		m := outbox.Message{Key: key, Topic: fmt.Sprint(i), At: int64(i)}
		put(t, s.dbs[h.Sum32()%2].Store, m)
		want[key] = append(want[key], m.Topic)
	}
	got := map[string][]string{}
	from := map[int]bool{}
	for {
		page, err := s.Pending(ctx, 0, 5)
		must(t, err)
		if len(page) == 0 {
			break
		}
		var ids []int64
		for _, m := range page {
			got[m.Key] = append(got[m.Key], m.Topic)
			ids = append(ids, m.ID)
			database, _, _ := s.rowOf(m.ID)
			from[database] = true
		}
		if first := page[0].At; first != int64(60-len(slices.Concat(slices.Collect(maps.Values(want))...))) && first > page[len(page)-1].At {
			t.Errorf("page from %d to %d", first, page[len(page)-1].At)
		}
		must(t, s.Done(ctx, ids))
	}
	equal(t, "delivered", got, want)
	equal(t, "databases", len(from), 2)

	put(t, s.dbs[0].Store, outbox.Message{Key: "a", Topic: "a", At: 20})
	put(t, s.dbs[1].Store, outbox.Message{Key: "b", Topic: "b", At: 10}, outbox.Message{Key: "c", Topic: "c", At: 30})
	n, oldest, err := s.Backlog(ctx)
	if n != 3 || oldest != 10 || err != nil {
		t.Errorf("backlog %d, %d, %v", n, oldest, err)
	}
	page, err := s.Pending(ctx, 0, 9)
	must(t, err)
	for _, m := range page {
		must(t, s.Bury(ctx, m.ID, "no"))
	}
	var dead []string
	for after := int64(0); ; {
		one, err := s.Dead(ctx, after, 1)
		must(t, err)
		if len(one) == 0 {
			break
		}
		dead, after = append(dead, one[0].Topic), one[0].ID
	}
	equal(t, "dead", dead, []string{"a", "b", "c"})
	must(t, s.Redrive(ctx, page[0].ID))
	if again, err := s.Pending(ctx, 0, 9); err != nil || len(again) != 1 || again[0].ID != page[0].ID {
		t.Errorf("after a redrive: %v, %v", again, err)
	}
	for _, id := range []int64{-1, messageOf(2, 1), messageOf(63, 1)} {
		is(t, "message of no database", s.Retry(context.Background(), id, 0, ""), outbox.ErrNoSuchMessage)
	}
}
