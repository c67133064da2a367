package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// hold occupies the writer until release is called, so that a test can queue
// writes behind it.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	started, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.writing(context.Background(), "hold", func(*conn) error { close(started); <-end; return nil })
	}()
	<-started
	return func() { t.Helper(); close(end); must(t, <-ended) }
}

// queued waits until n writes wait.
func queued(t *testing.T, s *Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Queued != n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d writes queued, want %d", s.Stats().Queued, n)
		}
		<-time.After(100 * time.Microsecond)
	}
}

func note(s *Store, id int64) error {
	return s.SaveNotification(context.Background(), id, "u", "t", nil, 1)
}

func notes(t *testing.T, s *Store) (ids []int64) {
	t.Helper()
	page, err := s.Notifications(t.Context(), "u", 0, 500)
	must(t, err)
	for _, n := range page {
		ids = append(ids, n.ID)
	}
	return ids
}

// Writes that wait together are committed together; one that fails or panics
// is undone alone, and its own caller hears of it.
func TestGroupCommit(t *testing.T) {
	s := openStore(t)
	release := hold(t, s)
	before := s.Stats()
	no := errors.New("no")
	var wg sync.WaitGroup
	for i := range int64(20) {
		wg.Go(func() {
			switch i {
			case 7:
				is(t, "failed write", s.writing(context.Background(), "fail", func(c *conn) error {
					_, err := c.exec("INSERT INTO notifications (id, user, topic, at) VALUES (7, 'u', 't', 1)")
					return errors.Join(err, no)
				}), no)
			case 8:
				defer func() {
					if p := recover(); p != "bug" {
						t.Errorf("the caller's panic came back as %v", p)
					}
				}()
				_ = s.writing(context.Background(), "panic", func(c *conn) error {
					_, _ = c.exec("INSERT INTO notifications (id, user, topic, at) VALUES (8, 'u', 't', 1)")
					panic("bug")
				})
			default:
				if err := note(s, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	queued(t, s, 20)
	release()
	wg.Wait()
	equal(t, "written", notes(t, s), []int64{19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 6, 5, 4, 3, 2, 1, 0})
	after := s.Stats()
	if writes, commits := after.Writes-before.Writes, after.Commits-before.Commits; writes != 21 || commits != 2 {
		t.Errorf("%d writes in %d commits, want 21 in 2", writes, commits)
	}
}

func TestLoneFailureIsUndone(t *testing.T) {
	s := openStore(t)
	func() {
		defer func() { _ = recover() }()
		_ = s.writing(t.Context(), "panic", func(c *conn) error {
			_, _ = c.exec("INSERT INTO notifications (id, user, topic, at) VALUES (8, 'u', 't', 1)")
			panic("bug")
		})
	}()
	must(t, note(s, 9))
	equal(t, "written", notes(t, s), []int64{9})
}

// Who gives up while waiting has written nothing; who gives up too late waits.
func TestWithdraw(t *testing.T) {
	s := openStore(t)
	release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- s.SaveNotification(ctx, 1, "u", "t", nil, 1) }()
	queued(t, s, 1)
	stays := make(chan error, 1)
	go func() { stays <- note(s, 2) }()
	queued(t, s, 2)
	cancel()
	is(t, "withdrawn", <-gone, context.Canceled)
	release()
	must(t, <-stays)
	equal(t, "written", notes(t, s), []int64{2})

	ctx, cancel = context.WithCancel(t.Context())
	must(t, s.writing(ctx, "late", func(c *conn) error {
		cancel()
		_, err := c.exec("INSERT INTO notifications (id, user, topic, at) VALUES (3, 'u', 't', 1)")
		return err
	}))
	equal(t, "written", notes(t, s), []int64{3, 2})
}

func TestQueueIsBounded(t *testing.T) {
	s := openStore(t)
	release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxQueued {
		wg.Go(func() { _ = s.SaveNotification(ctx, 1, "u", "t", nil, 1) })
	}
	queued(t, s, maxQueued)
	is(t, "one more", note(s, 2), stock.ErrOverloaded)
	cancel()
	wg.Wait()
	release()
	must(t, note(s, 3))
	equal(t, "written", notes(t, s), []int64{3})
}

// Close waits for the writes it finds, and refuses those that come later.
func TestCloseWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.db")
	s := openAt(t, path, Options{})
	release := hold(t, s)
	var wg sync.WaitGroup
	for i := range int64(10) {
		wg.Go(func() {
			if err := note(s, i); err != nil {
				t.Error(err)
			}
		})
	}
	queued(t, s, 10)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for s.write.health() == nil {
		<-time.After(100 * time.Microsecond)
	}
	is(t, "late write", note(s, 99), ErrClosed)
	release()
	wg.Wait()
	must(t, <-closed)
	s = openAt(t, path, Options{})
	equal(t, "written", len(notes(t, s)), 10)
	must(t, s.Close())
}

func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// A full disk refuses a batch whole; with room again, the same batch lands.
func TestDiskFull(t *testing.T) {
	s := openStore(t)
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	must(t, landAll(t.Context(), s, token, 0, 50, 50))
	limit := func(pages string) {
		t.Helper()
		must(t, s.writing(t.Context(), "limit", func(c *conn) error {
			_, _, err := c.one("PRAGMA max_page_count(" + pages + ")")
			return err
		}))
	}
	limit("1") // no less than it has
	if err := landAll(t.Context(), s, token, 50, 550, 500); code(err) != sqlite3.SQLITE_FULL || !errors.Is(err, stock.ErrUnknown) {
		t.Errorf("landing on a full disk: %v", err)
	}
	checkWhole(t, s, 50)
	must(t, s.Ping(t.Context()))
	limit("1073741823")
	must(t, landAll(t.Context(), s, token, 50, 550, 500))
	checkWhole(t, s, 550)
}

// Another process that holds the lock delays writes, then refuses them; reads go on.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.db")
	s := openAt(t, path, Options{Busy: 20 * time.Millisecond})
	db := rawDB(t, path)
	tx, err := db.Begin()
	must(t, err)
	if err := note(s, 1); code(err) != sqlite3.SQLITE_BUSY {
		t.Errorf("write under another's lock: %v", err)
	}
	equal(t, "read under another's lock", len(notes(t, s)), 0)
	must(t, tx.Rollback())
	must(t, note(s, 2))
	equal(t, "written", notes(t, s), []int64{2})
	must(t, db.Close())
	must(t, s.Close())
}

// After an error that makes later commits worthless, nothing more is written.
func TestBrokenStopsWriting(t *testing.T) {
	s := openStore(t)
	must(t, note(s, 1))
	s.write.mu.Lock()
	s.write.broken = errors.New("fsync failed")
	s.write.mu.Unlock()
	is(t, "write", note(s, 2), s.write.broken)
	is(t, "ping", s.Ping(t.Context()), s.write.broken)
	equal(t, "reads go on", notes(t, s), []int64{1})
	if fatal(fmt.Errorf("x: %w", context.Canceled)) {
		t.Error("an ordinary error is not fatal")
	}
}

// checkWhole compares the watermark with what is there.
func checkWhole(t *testing.T, s *Store, want int) {
	t.Helper()
	n := 0
	marks, undelivered, err := s.Snapshot(t.Context(), "flash-1", func(order.Order) error { n++; return nil })
	must(t, err)
	if n != want || marks["wal"] != position(want) || len(undelivered) != want {
		t.Errorf("%d orders and %d events at watermark %v, want %d of each", n, len(undelivered), marks["wal"], want)
	}
}

// Each page of orders follows an index; a plan that sorts or scans whole rows
// would be felt only with a million of them.
func TestPlans(t *testing.T) {
	s := openStore(t)
	f := func(q order.Query, want string) {
		t.Helper()
		q.Limit = 10
		query, values, err := s.orders.listing(s.d, q)
		must(t, err)
		plan := ""
		must(t, s.reading(t.Context(), "plan", func(c *conn) error {
			return c.query(t.Context(), "EXPLAIN QUERY PLAN "+query, func(row []driver.Value) error {
				plan += text(row[3]) + "\n"
				return nil
			}, values...)
		}))
		if !strings.Contains(plan, want) || strings.Contains(plan, "SCAN orders") {
			t.Errorf("%+v: plan\n%swant %q", q, plan, want)
		}
	}
	r := stock.ID{Activity: "a", Number: 1}
	f(order.Query{User: "u"}, "orders_user_key (user=?)")
	f(order.Query{User: "u", Activity: "a"}, "orders_user_key (user=? AND activity=?)")
	f(order.Query{User: "u", Activity: "a", State: "paid"}, "orders_user_key (user=? AND activity=?)")
	f(order.Query{Activity: "a"}, "orders_activity_state (activity=? AND state=?)")
	f(order.Query{Activity: "a", State: "paid", Before: "9"}, "orders_activity_state (activity=? AND state=? AND rowid<?)")
	f(order.Query{Reservation: &r}, "orders_reservation (activity=? AND epoch=? AND bucket=? AND number=?)")
	f(order.Query{DueBy: 1}, "orders_check_at (check_at>? AND check_at<?)")
}
