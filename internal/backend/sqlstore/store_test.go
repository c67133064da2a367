package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/internal/catalog"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func openAt(t *testing.T, path string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, o)
	must(t, err)
	return s
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a%20b?c#d.db") // letters, not a URI
	s := openAt(t, path, Options{})
	p, err := s.SaveProduct(t.Context(), catalog.Product{ID: "mug", Title: "Mug"})
	must(t, err)
	must(t, s.Close())
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*-wal")); len(left) > 0 {
		t.Errorf("a clean close leaves %v", left)
	}
	s = openAt(t, path, Options{})
	got, err := s.Product(t.Context(), "mug", 0)
	must(t, err)
	equal(t, "product", got, p)
	must(t, s.Ping(t.Context()))
	must(t, s.Close())

	_, err = s.Product(t.Context(), "mug", 0)
	if err == nil {
		t.Error("a closed store can be read")
	}
	_, err = s.SaveProduct(t.Context(), p)
	is(t, "write to a closed store", err, ErrClosed)
	is(t, "ping of a closed store", s.Ping(t.Context()), ErrClosed)
	must(t, s.Close()) // twice is no error
}

func TestDurability(t *testing.T) {
	s := openStore(t)
	f := func(pragma, want string) {
		t.Helper()
		must(t, s.writing(t.Context(), "pragma", func(c *conn) error {
			row, _, err := c.one("PRAGMA " + pragma)
			if got := text(row[0]); err != nil || got != want && integer(row[0]) != int64(want[0]-'0') {
				t.Errorf("%s = %v, %v; want %s", pragma, row[0], err, want)
			}
			return nil
		}))
	}
	f("journal_mode", "wal")
	f("synchronous", "2") // FULL: a sync per commit
}

func TestOpenRefuses(t *testing.T) {
	f := func(name, want string, prepare func(path string)) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "shop.db")
		prepare(path)
		s, err := Open(t.Context(), path, Options{Busy: 50 * time.Millisecond})
		if err == nil {
			must(t, s.Close())
			t.Errorf("%s: opened", name)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
	}
	f("no directory", "unable to open", func(path string) { must(t, os.Mkdir(path, 0o700)) })
	f("not a database", "not a database", func(path string) {
		must(t, os.WriteFile(path, []byte(strings.Repeat("plain text ", 1000)), 0o600))
	})
	f("newer layout", "run the newer program", func(path string) {
		must(t, openAt(t, path, Options{}).Close())
		db := rawDB(t, path)
		_, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)")
		must(t, err)
		must(t, db.Close())
	})
}

func rawDB(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", sqliteDSN(path, "0", false))
	must(t, err)
	db.SetMaxOpenConns(1)
	return db
}

func TestProducts(t *testing.T) { checkProducts(t, openStore(t)) }

func checkProducts(t *testing.T, s *Store) {
	mug := catalog.Product{ID: "mug", Title: "Mug", Description: "杯子", Image: "/m.svg", Price: pricing.Money{Amount: 1990, Currency: "CNY"}}
	v1, err := s.SaveProduct(t.Context(), mug)
	must(t, err)
	mug.Version = 1
	equal(t, "first", v1, mug)
	same, err := s.SaveProduct(t.Context(), mug)
	must(t, err)
	equal(t, "unchanged", same, v1)
	mug.Title, mug.Version = "Big mug", 77
	v2, err := s.SaveProduct(t.Context(), mug)
	must(t, err)
	mug.Version = 2
	equal(t, "changed", v2, mug)
	for _, id := range []stock.SKU{"cap", "pen"} {
		_, err := s.SaveProduct(t.Context(), catalog.Product{ID: id})
		must(t, err)
	}
	f := func(id stock.SKU, version int, want catalog.Product, wantErr error) {
		t.Helper()
		got, err := s.Product(t.Context(), id, version)
		is(t, "product", err, wantErr)
		equal(t, "product", got, want)
	}
	f("mug", 0, v2, nil)
	f("mug", 1, v1, nil)
	f("mug", 2, v2, nil)
	f("mug", 3, catalog.Product{}, catalog.ErrNoSuchSKU)
	f("hat", 0, catalog.Product{}, catalog.ErrNoSuchSKU)

	pages := func(after stock.SKU, limit int, want ...stock.SKU) {
		t.Helper()
		page, err := s.Products(t.Context(), after, limit)
		must(t, err)
		var got []stock.SKU
		for _, p := range page {
			got = append(got, p.ID)
		}
		equal(t, "page", got, want)
	}
	pages("", 500, "cap", "mug", "pen")
	pages("", 2, "cap", "mug")
	pages("mug", 2, "pen")
	_, err = s.Products(t.Context(), "", 501)
	is(t, "page of 501", err, catalog.ErrInvalid)
}

func TestActivities(t *testing.T) { checkActivities(t, openStore(t)) }

func checkActivities(t *testing.T, s *Store) {
	a := sale.Activity{
		ID: "flash-1", Kind: "flash", Title: "秒杀", State: sale.Draft, OpensAt: 1, ClosesAt: 2, HoldSeconds: 300, PerUser: 2,
		LatePayment: pricing.AlwaysRefund, Restock: true, Epoch: 1, Revision: 1,
		Items: []sale.Item{{SKU: "mug", Price: pricing.Money{Amount: 1, Currency: "CNY"}, Units: 10, PerUser: 1, PerOrder: 1, Version: 1}},
	}
	must(t, s.CreateActivity(t.Context(), a))
	is(t, "the same id", s.CreateActivity(t.Context(), a), sale.ErrExists)
	b := a
	b.ID = "a-first"
	must(t, s.CreateActivity(t.Context(), b))

	no := errors.New("no")
	_, err := s.UpdateActivity(t.Context(), a.ID, func(x *sale.Activity) error { x.Title = "x"; return no })
	if err != no {
		t.Errorf("refusal came back as %v", err)
	}
	_, err = s.UpdateActivity(t.Context(), "none", nil)
	is(t, "update of none", err, sale.ErrNoSuchActivity)
	got, err := s.UpdateActivity(t.Context(), a.ID, func(x *sale.Activity) error {
		equal(t, "loaded", *x, a)
		x.State, x.ID, x.Revision = sale.Open, "else", 50
		return nil
	})
	must(t, err)
	a.State, a.Revision = sale.Open, 2
	equal(t, "updated", got, a)
	all, err := s.Activities(t.Context())
	must(t, err)
	equal(t, "all", all, []sale.Activity{b, a})
}

func TestAdjustments(t *testing.T) { checkAdjustments(t, openStore(t)) }

func checkAdjustments(t *testing.T, s *Store) {
	five := 5
	a := stock.Adjustment{ID: "z", Activity: "flash-1", SKU: "mug", Delta: -3, Limits: &stock.ItemLimits{PerUser: 1, PerOrder: 2},
		PerUser: &five, OpensAt: 1, ClosesAt: 2, Hold: 3, Phase: stock.Paused, Reason: "broken", At: 99}
	save := func(a stock.Adjustment, want sale.Adjusted, wantErr error) {
		t.Helper()
		got, err := s.SaveAdjustment(t.Context(), a)
		is(t, "save", err, wantErr)
		equal(t, "save", got, want)
	}
	save(a, sale.Adjusted{}, nil)
	later := a
	later.At = 100
	save(later, sale.Adjusted{}, nil)
	other := a
	other.Delta = -4
	save(other, sale.Adjusted{}, stock.ErrConflict)
	b := stock.Adjustment{ID: "a", Activity: "flash-1", At: 101}
	save(b, sale.Adjusted{}, nil)
	elsewhere := stock.Adjustment{ID: "z", Activity: "flash-2", At: 102}
	save(elsewhere, sale.Adjusted{}, nil)

	open := func(want ...stock.Adjustment) {
		t.Helper()
		got, err := s.OpenAdjustments(t.Context())
		must(t, err)
		equal(t, "open, oldest first", got, want)
	}
	open(a, b, elsewhere)
	must(t, s.FinishAdjustment(t.Context(), "flash-1", "z", "too few"))
	must(t, s.FinishAdjustment(t.Context(), "flash-1", "z", ""))
	must(t, s.FinishAdjustment(t.Context(), "flash-1", "a", ""))
	open(elsewhere)
	save(a, sale.Adjusted{Finished: true, Refusal: "too few"}, nil)
	save(b, sale.Adjusted{Finished: true}, nil)
	save(other, sale.Adjusted{}, stock.ErrConflict)
}

func TestNotifications(t *testing.T) { checkNotifications(t, openStore(t)) }

func checkNotifications(t *testing.T, s *Store) {
	for id := int64(1); id <= 5; id++ {
		for range 2 { // delivered twice
			must(t, s.SaveNotification(t.Context(), id, "u1", "order.paid", []byte(`{}`), stock.Millis(id)))
		}
	}
	must(t, s.SaveNotification(t.Context(), 9, "u2", "order.paid", nil, 9))
	must(t, s.SaveNotification(t.Context(), 9, "u1", "other", nil, 10)) // the id decides
	must(t, s.ReadNotifications(t.Context(), "u1", 2, 70))
	must(t, s.ReadNotifications(t.Context(), "u1", 3, 80))
	f := func(before int64, limit int, want ...Notification) {
		t.Helper()
		got, err := s.Notifications(t.Context(), "u1", before, limit)
		must(t, err)
		equal(t, "page", got, want)
	}
	n := func(id int64, read stock.Millis) Notification {
		return Notification{ID: id, User: "u1", Topic: "order.paid", Body: []byte(`{}`), At: stock.Millis(id), ReadAt: read}
	}
	f(0, 2, n(5, 0), n(4, 0))
	f(4, 500, n(3, 80), n(2, 70), n(1, 70))
	_, err := s.Notifications(t.Context(), "u1", 0, 501)
	is(t, "page of 501", err, stock.ErrInvalid)
}

// Notifications are trimmed by age, in bounded steps that come to rest.
func TestTrimNotifications(t *testing.T) { checkTrimNotifications(t, openStore(t)) }

func checkTrimNotifications(t *testing.T, s *Store) {
	for id := int64(1); id <= 25; id++ {
		must(t, s.SaveNotification(t.Context(), id, "u1", "order.paid", []byte(`{}`), stock.Millis(100*id)))
	}
	left := func(want int64) {
		t.Helper()
		page, err := s.Notifications(t.Context(), "u1", 0, 500)
		must(t, err)
		if n := int64(len(page)); n != want || n > 0 && page[n-1].ID != 26-want {
			t.Errorf("%d are left, want the newest %d", n, want)
		}
	}
	step := func(before stock.Millis, want bool) {
		t.Helper()
		worked, err := s.TrimNotifications(t.Context(), before, 10)
		must(t, err)
		if worked != want {
			t.Errorf("trim before %d: worked %v", before, worked)
		}
	}
	step(100, false)
	left(25)
	step(1600, true) // ten of fifteen
	left(15)
	step(1600, true)
	left(10)
	writes := s.Stats().Writes
	step(1600, false)
	left(10)
	if n := s.Stats().Writes; n != writes {
		t.Error("a step without work writes")
	}
}

func TestAuditLog(t *testing.T) { checkAuditLog(t, openStore(t)) }

func checkAuditLog(t *testing.T, s *Store) {
	for i := range 3 {
		must(t, s.Audit(t.Context(), AuditEntry{At: stock.Millis(i), Actor: "ops", Action: "activity.pause", Subject: "flash-1", Detail: "{}"}))
	}
	f := func(before int64, limit int, want ...int64) {
		t.Helper()
		page, err := s.AuditLog(t.Context(), before, limit)
		must(t, err)
		var got []int64
		for _, e := range page {
			equal(t, "entry", e, AuditEntry{ID: e.ID, At: stock.Millis(e.ID - 1), Actor: "ops", Action: "activity.pause", Subject: "flash-1", Detail: "{}"})
			got = append(got, e.ID)
		}
		equal(t, "page", got, want)
	}
	f(0, 2, 3, 2)
	f(2, 500, 1)
	_, err := s.AuditLog(t.Context(), 0, 0)
	is(t, "page of 0", err, stock.ErrInvalid)
}

// The proof may read at any time: what it sees is one moment.
func TestSnapshotIsOneMoment(t *testing.T) { checkSnapshotIsOneMoment(t, openStore(t)) }

func checkSnapshotIsOneMoment(t *testing.T, s *Store) {
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	landed := make(chan error, 1)
	go func() { landed <- landAll(ctx, s, token, 0, 3000, 25) }()
	for running := true; running; {
		select {
		case err := <-landed:
			must(t, err)
			running = false
		default:
		}
		n := 0
		var last uint64
		marks, undelivered, err := s.Snapshot(t.Context(), "flash-1", func(o order.Order) error {
			n++
			if o.Reservation.Number <= last {
				t.Errorf("reservation %d after %d", o.Reservation.Number, last)
			}
			last = o.Reservation.Number
			return nil
		})
		must(t, err)
		if uint64(n) != marks["wal"].Position || len(undelivered) != n {
			t.Fatalf("%d orders, %d undelivered at watermark %v", n, len(undelivered), marks["wal"])
		}
	}
	stop()
	must(t, s.Land(t.Context(), emptyFrom(t, s, token)))
	no := errors.New("enough")
	_, _, err = s.Snapshot(t.Context(), "flash-1", func(order.Order) error { return no })
	is(t, "visit's error", err, no)
	must(t, s.Ping(t.Context()))
}

func TestSnapshotFields(t *testing.T) { checkSnapshotFields(t, openStore(t)) }

func checkSnapshotFields(t *testing.T, s *Store) {
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	batch := landedOrders(0, 3)
	batch[2].Order.Terms.Total = 1991 // as many bytes as the first's terms, and others
	paid := &batch[0].Order
	paid.State, paid.PaidAt, paid.LateOf, paid.Reason, paid.Claims = order.Paid, 5, "9-1", "why", []string{"c"}
	paid.Money.Captures = []order.Capture{{ID: "c1", Amount: paid.Terms.Money(), Pays: paid.ID}}
	batch[1].Order.Activity, batch[1].Order.Reservation.Activity = "other", "other"
	to := stock.Cursor{Log: "wal", Epoch: 2, Position: 7}
	must(t, s.Land(t.Context(), order.Batch{Log: "wal", Token: token, To: to, Orders: batch}))
	reminder := batch[2].Events[0]
	reminder.Key = "due-" + reminder.Key // excuses nothing
	put(t, s, batch[0].Events[0], reminder)
	m, err := s.Pending(t.Context(), 0, 1)
	must(t, err)
	must(t, s.Bury(t.Context(), m[0].ID, "dead"))
	var got []order.Order
	marks, undelivered, err := s.Snapshot(t.Context(), "flash-1", func(o order.Order) error { got = append(got, o); return nil })
	must(t, err)
	want := []order.Order{*paid, batch[2].Order}
	for i := range want {
		o := &want[i]
		o.Key, o.Fingerprint, o.Products, o.Claims = "", stock.Fingerprint{}, nil, nil
	}
	equal(t, "orders", got, want)
	equal(t, "marks", marks, map[stock.LogID]stock.Cursor{"wal": to})
	if len(undelivered) != 3 || undelivered[0].Reason != "dead" || undelivered[1].Topic != "order.created" || undelivered[1].Key != string(batch[2].Order.ID) {
		t.Errorf("undelivered %+v", undelivered)
	}
}

func emptyFrom(t *testing.T, s *Store, token uint64) order.Batch {
	t.Helper()
	at, err := s.Watermark(t.Context(), "wal")
	must(t, err)
	return order.Batch{Log: "wal", Token: token, From: at, To: at}
}

// landAll lands orders from..to−1 in batches of size; position n is order n.
func landAll(ctx context.Context, s *Store, token uint64, from, to, size int) error {
	for at := from; at < to; at += size {
		b := order.Batch{Log: "wal", Token: token, From: position(at), To: position(at + size), Orders: landedOrders(at, size)}
		if err := s.Land(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func position(n int) stock.Cursor {
	if n == 0 {
		return stock.Cursor{}
	}
	return stock.Cursor{Log: "wal", Epoch: 1, Position: uint64(n)}
}
