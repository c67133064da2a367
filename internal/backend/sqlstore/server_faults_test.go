package sqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/gate/waiting"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// A proxy stands between the store and its server and, when armed, decides what
// becomes of the next COMMIT.
type proxy struct {
	addr  string
	armed atomic.Pointer[fate]
}

// fate of a COMMIT whose client never hears of it.
type fate string

const (
	never fate = "never asked" // the server sees the connection end
	done  fate = "done"        // it has taken effect by the time the connection ends
	later fate = "done later"  // it takes effect while the client already looks for it
)

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(ctx, client, server) })
		}
	})
	t.Cleanup(func() { cancel(); must(t, l.Close()); wg.Wait() })
	return p
}

func (p *proxy) serve(ctx context.Context, client net.Conn, addr string) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		_ = client.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	defer both.Wait()
	defer server.Close()
	defer client.Close()
	var cut atomic.Bool // the client hears nothing any more
	answered := make(chan struct{}, 1)
	both.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				_ = client.Close()
				return
			}
			if cut.Load() {
				answered <- struct{}{}
			} else if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("\x03COMMIT")) {
			if f := p.armed.Swap(nil); f != nil {
				cut.Store(true)
				p.end(*f, client, server, buf[:n], answered)
				return
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) end(f fate, client, server net.Conn, commit []byte, answered <-chan struct{}) {
	switch f {
	case never:
	case done:
		_, _ = server.Write(commit)
		<-answered
	case later:
		_ = client.Close()
		<-time.After(100 * time.Millisecond) // by now the client waits for our locks
		_, _ = server.Write(commit)
		<-answered
	}
}

func (p *proxy) arm(f fate) { p.armed.Store(&f) }

// Each write is made once, whatever became of a COMMIT that was not heard of.
func TestCommitWithoutAnswer(t *testing.T) {
	d := servers.MariaDB(t)
	p := newProxy(t, d.Addr)
	url := strings.Replace(d.URL(servers.SQLDatabase), d.Addr, p.addr, 1)
	s, err := OpenServer(t.Context(), url, Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	for _, f := range []fate{never, done, later} {
		t.Run(string(f), func(t *testing.T) {
			onServer(t, d, servers.SQLDatabase, "") // empties it
			commitsWithoutAnswer(t, s, func() { p.arm(f) }, func() bool { return p.armed.Load() == nil })
		})
	}
}

func commitsWithoutAnswer(t *testing.T, s *Store, arm func(), struck func() bool) {
	ctx := t.Context()
	hit := func(what string, write func() error) {
		t.Helper()
		arm()
		if err := write(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if !struck() {
			t.Errorf("%s: no COMMIT came by", what)
		}
	}
	var token uint64
	hit("fence", func() (err error) { token, err = s.Fence(ctx, "wal"); return err })
	hit("land", func() error { return landAll(ctx, s, token, 0, 5, 5) })
	checkWhole(t, s, 5)
	id := landedOrders(0, 1)[0].Order.ID
	hit("update", func() error {
		return s.Update(ctx, id, func(o *order.Order) ([]outbox.Message, error) {
			o.Reason += "x"
			o.Money.Payments = append(o.Money.Payments, order.Payment{ID: "p"})
			return []outbox.Message{{Key: "other", Topic: "t"}}, nil
		})
	})
	o, err := s.Get(ctx, id)
	must(t, err)
	if o.Reason != "x" || o.Version != 2 || len(o.Money.Payments) != 1 {
		t.Errorf("after one update: reason %q, version %d", o.Reason, o.Version)
	}
	a := sale.Activity{ID: "flash-1", State: sale.Draft, Revision: 1}
	hit("create activity", func() error { return s.CreateActivity(ctx, a) })
	is(t, "the same id", s.CreateActivity(ctx, sale.Activity{ID: "flash-1"}), sale.ErrExists)
	hit("update activity", func() error {
		a, err = s.UpdateActivity(ctx, a.ID, func(a *sale.Activity) error { a.Title += "x"; return nil })
		return err
	})
	if a.Title != "x" || a.Revision != 2 {
		t.Errorf("after one update: %+v", a)
	}
	adjustment := stock.Adjustment{ID: "a1", Activity: "flash-1", At: 7}
	hit("save adjustment", func() error { _, err := s.SaveAdjustment(ctx, adjustment); return err })
	hit("finish adjustment", func() error { return s.FinishAdjustment(ctx, "flash-1", "a1", "no") })
	var product catalog.Product
	hit("save product", func() error { product, err = s.SaveProduct(ctx, catalog.Product{ID: "mug"}); return err })
	equal(t, "version", product.Version, 1)
	for range 2 { // the same entry twice is two entries
		hit("audit", func() error { return s.Audit(ctx, AuditEntry{At: 1, Actor: "ops", Action: "x"}) })
	}
	entries, err := s.AuditLog(ctx, 0, 10)
	must(t, err)
	hit("notification", func() error { return note(s, 1) })
	equal(t, "notifications", notes(t, s), []int64{1})
	if len(entries) < 1 || len(entries) > 2 {
		t.Errorf("%d audit entries of 2", len(entries))
	}
	messagesWithoutAnswer(t, s, hit)
	waitingWithoutAnswer(t, s.Waiting(), hit)
	var grant struct{ token uint64 }
	hit("acquire", func() error {
		g, err := s.Acquire(ctx, "n", "a", time.Minute)
		grant.token = g.Token
		return errors.Join(err, s.Renew(ctx, g, time.Minute))
	})
	equal(t, "retries are counted", s.Stats().Retries > 0, true)
}

func messagesWithoutAnswer(t *testing.T, s *Store, hit func(string, func() error)) {
	t.Helper()
	ctx := t.Context()
	m, err := s.Pending(ctx, 0, 10)
	must(t, err)
	equal(t, "events", len(m), 6)
	hit("retry", func() error { return s.Retry(ctx, m[0].ID, 99, "busy") })
	again, err := s.Pending(ctx, 99, 1)
	must(t, err)
	equal(t, "attempts", again[0].Attempts, 1)
	hit("bury", func() error { return s.Bury(ctx, m[0].ID, "never") })
	hit("redrive", func() error { return s.Redrive(ctx, m[0].ID) })
	hit("done", func() error { return s.Done(ctx, []int64{m[0].ID, m[1].ID}) })
	n, _, err := s.Backlog(ctx)
	must(t, err)
	equal(t, "backlog", n, 4)
}

func waitingWithoutAnswer(t *testing.T, w *Waiting, hit func(string, func() error)) {
	t.Helper()
	ctx := t.Context()
	var room waiting.Room
	hit("open a waiting room", func() (err error) { room, err = w.Open(ctx, "a", waiting.Seed{1}, 1); return err })
	for i, instead := range []int{-1, 0} {
		hit("join", func() error {
			n, _, err := w.Join(ctx, "a", "ann", waiting.EntryID{byte(i)}, instead, 10)
			equal(t, "number", n, i)
			return err
		})
	}
	hit("advance", func() (err error) { room, err = w.Advance(ctx, "a", 0, waiting.Progress{Head: 1}); return err })
	equal(t, "room", room, waiting.Room{Activity: "a", Seed: waiting.Seed{1}, OpenedAt: 1, Joined: 2, Revision: 1, Progress: waiting.Progress{Head: 1}})
	hit("drop", func() error { return w.Drop(ctx, "a") })
	_, err := w.Room(ctx, "a")
	is(t, "dropped", err, waiting.ErrNoRoom)
}

// A deadlock's victim runs again, and both get what they wanted.
func TestDeadlock(t *testing.T) {
	s := onServer(t, servers.MariaDB(t), servers.SQLDatabase, "")
	must(t, note(s, 1))
	must(t, note(s, 2))
	var met sync.WaitGroup
	met.Add(2)
	var wg sync.WaitGroup
	for _, ids := range [][]int{{1, 2}, {2, 1}} {
		wg.Go(func() {
			runs := 0
			must(t, s.writing(t.Context(), "cross", func(c *conn) error {
				for i, id := range ids {
					if _, err := c.exec("UPDATE notifications SET at = at + 1 WHERE id = ?", id); err != nil {
						return err
					}
					if i == 0 && runs == 0 {
						runs++
						met.Done()
						met.Wait() // each has its first row
					}
				}
				return nil
			}))
		})
	}
	wg.Wait()
	page, err := s.Notifications(t.Context(), "u", 0, 10)
	must(t, err)
	if len(page) != 2 || page[0].At != 3 || page[1].At != 3 {
		t.Errorf("after two crossing writes: %+v", page)
	}
	if s.Stats().Retries == 0 {
		t.Error("no deadlock was provoked")
	}
}

// Who is locked out by somebody who does not end hears that the store is away,
// within its patience, and has written nothing.
func TestLockedOut(t *testing.T) {
	d := servers.MariaDB(t)
	s := onServer(t, d, servers.SQLDatabase, "?innodb_lock_wait_timeout=1")
	s.write.patience = 200 * time.Millisecond
	must(t, note(s, 1))
	started, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.writing(context.Background(), "hold", func(c *conn) error {
			_, err := c.exec("UPDATE notifications SET at = 50 WHERE id = 1")
			close(started)
			<-end
			return err
		})
	}()
	<-started
	is(t, "locked out", s.ReadNotifications(t.Context(), "u", 1, 9), stock.ErrUnknown)
	close(end)
	must(t, <-ended)
	page, err := s.Notifications(t.Context(), "u", 0, 10)
	must(t, err)
	if page[0].At != 50 || page[0].ReadAt != 0 {
		t.Errorf("%+v", page[0])
	}
	must(t, s.ReadNotifications(t.Context(), "u", 1, 9))
}

// Who falls silent in the middle of a transaction, frozen or cut off, does not
// keep others waiting for as long as its connection stands.
func TestSilentInTheMiddle(t *testing.T) {
	s := onServer(t, servers.MariaDB(t), servers.SQLDatabase, "")
	must(t, note(s, 1))
	started, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	runs := 0
	go func() {
		ended <- s.writing(context.Background(), "hold", func(c *conn) error {
			_, err := c.exec("UPDATE notifications SET at = at + 50 WHERE id = 1")
			if runs++; runs == 1 {
				close(started)
				<-end
			}
			return err
		})
	}()
	<-started
	err := s.ReadNotifications(t.Context(), "u", 1, 9)
	close(end)
	must(t, err)
	must(t, <-ended) // and who wakes again is not worse off: it does it once more
	page, err := s.Notifications(t.Context(), "u", 0, 10)
	must(t, err)
	if page[0].At != 51 || page[0].ReadAt != 9 || runs != 2 {
		t.Errorf("after %d runs: %+v", runs, page[0])
	}
}

// A connection that dies in the middle of a transaction takes nothing with it.
func TestKilledInTheMiddle(t *testing.T) {
	d := servers.MariaDB(t)
	s := onServer(t, d, servers.SQLDatabase, "")
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	must(t, landAll(t.Context(), s, token, 0, 1, 1))
	id := landedOrders(0, 1)[0].Order.ID
	runs := 0
	must(t, s.Update(t.Context(), id, func(o *order.Order) ([]outbox.Message, error) {
		if runs++; runs == 1 { // between what the transaction reads and what it writes
			killAll(t, d)
		}
		o.Reason += "x"
		return []outbox.Message{{Key: "k", Topic: "t"}}, nil
	}))
	o, err := s.Get(t.Context(), id)
	must(t, err)
	n, _, err := s.Backlog(t.Context())
	must(t, err)
	if runs != 2 || o.Reason != "x" || o.Version != 2 || n != 2 {
		t.Errorf("%d runs, reason %q, version %d, %d messages", runs, o.Reason, o.Version, n)
	}
}

// killAll kills every connection of the store's user.
func killAll(t *testing.T, d *servers.Database) {
	t.Helper()
	if err := d.Exec(context.Background(), "KILL USER "+servers.SQLUser); err != nil {
		t.Error(err)
	}
}

// A server that has become read-only, as one does that loses its place to
// another, refuses writes and is no loss to reads.
func TestReadOnly(t *testing.T) {
	d := servers.MariaDB(t)
	s := onServer(t, d, servers.SQLDatabase, "")
	must(t, note(s, 1))
	s.write.patience = 200 * time.Millisecond
	must(t, d.Exec(t.Context(), "SET GLOBAL read_only = 1"))
	is(t, "write", note(s, 2), stock.ErrUnknown)
	is(t, "ping", s.Ping(t.Context()), errReadOnly)
	equal(t, "read", notes(t, s), []int64{1})
	s.write.patience = patience
	wrote := make(chan error, 1)
	go func() { wrote <- note(s, 3) }() // waits for the fail-over to end
	retried(t, s, s.Stats().Retries)
	must(t, d.Exec(t.Context(), "SET GLOBAL read_only = 0"))
	must(t, <-wrote)
	must(t, s.Ping(t.Context()))
	equal(t, "read", notes(t, s), []int64{3, 1})
}

// retried waits until a write was tried again.
func retried(t *testing.T, s *Store, before uint64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Retries == before; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was tried again")
		}
		<-time.After(time.Millisecond)
	}
}

// A server that is not there is away to everybody, and is found again.
func TestServerAway(t *testing.T) {
	d := servers.MariaDB(t)
	s := onServer(t, d, servers.SQLDatabase, "")
	must(t, note(s, 1))
	s.write.patience = 200 * time.Millisecond
	d.Kill()
	is(t, "write", note(s, 2), stock.ErrUnknown)
	_, err := s.Notifications(t.Context(), "u", 0, 1)
	is(t, "read", err, stock.ErrUnknown)
	is(t, "ping", s.Ping(t.Context()), stock.ErrUnknown)
	is(t, "update", s.Update(t.Context(), "1", nil), stock.ErrUnknown)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is(t, "cancelled", s.SaveNotification(ctx, 3, "u", "t", nil, 1), context.Canceled)
	must(t, d.Restart())
	must(t, note(s, 4))
	equal(t, "read", notes(t, s), []int64{4, 1})
}

// traffic lands orders and updates them while faults happen, and afterwards
// compares what is there with what was acknowledged.
type traffic struct {
	s       *Store
	landed  atomic.Int64 // acknowledged, or found by the watermark
	mu      sync.Mutex
	acked   map[string]bool // payments that an update has saved
	unknown map[string]bool // payments of which nobody knows
	faults  atomic.Int64    // answers other than nil
}

const trafficOrders = 600

func runTraffic(t *testing.T, s *Store, faults func(tr *traffic)) {
	t.Helper()
	s.write.patience = 300 * time.Millisecond // less than the faults, so that callers see them
	tr := &traffic{s: s, acked: map[string]bool{}, unknown: map[string]bool{}}
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { tr.land(t, token) })
	for w := range 4 {
		wg.Go(func() { tr.update(t, w) })
	}
	faults(tr)
	wg.Wait()
	s.write.patience = patience
	tr.check(t)
}

// land does as a lander does: after an error, the watermark says where to go on.
func (tr *traffic) land(t *testing.T, token uint64) {
	at := 0
	for deadline := time.Now().Add(time.Minute); at < trafficOrders; {
		if time.Now().After(deadline) {
			t.Error("landing takes longer than a minute")
			return
		}
		err := landAll(context.Background(), tr.s, token, at, at+5, 5)
		if err == nil {
			at += 5
			tr.landed.Store(int64(at))
			continue
		}
		tr.faults.Add(1)
		if !errors.Is(err, stock.ErrUnknown) && !errors.Is(err, order.ErrWatermark) {
			t.Errorf("landing: %v", err)
		}
		mark, err := tr.s.Watermark(context.Background(), "wal")
		if err != nil {
			continue
		}
		if mark.Position < uint64(at) {
			t.Errorf("watermark %v, but %d were acknowledged", mark, at)
		}
		at = int(mark.Position)
	}
}

// update adds payments to orders that have landed until all have.
func (tr *traffic) update(t *testing.T, w int) {
	for i := 0; tr.landed.Load() < trafficOrders && !t.Failed(); i++ {
		n := int(tr.landed.Load())
		if n == 0 {
			<-time.After(time.Millisecond)
			continue
		}
		id := landedOrders((i*7+w)%n/5*5, 5)[i%5].Order.ID
		payment := fmt.Sprintf("%d-%d", w, i)
		err := tr.s.Update(context.Background(), id, func(o *order.Order) ([]outbox.Message, error) {
			o.Money.Payments = append(o.Money.Payments, order.Payment{ID: payment})
			return []outbox.Message{{Key: string(o.ID), Topic: payment}}, nil
		})
		tr.mu.Lock()
		switch {
		case err == nil:
			tr.acked[payment] = true
		case errors.Is(err, stock.ErrUnknown):
			tr.faults.Add(1)
			tr.unknown[payment] = true
		default:
			t.Errorf("update: %v", err)
		}
		tr.mu.Unlock()
	}
}

func (tr *traffic) check(t *testing.T) {
	t.Helper()
	found := map[string]int{}
	orders, saved := 0, 0
	marks, undelivered, err := tr.s.Snapshot(t.Context(), "flash-1", func(o order.Order) error {
		orders++
		if o.Version != 1+len(o.Money.Payments) {
			t.Errorf("order %s has version %d and %d payments", o.ID, o.Version, len(o.Money.Payments))
		}
		for _, p := range o.Money.Payments {
			found[p.ID]++
			saved++
		}
		return nil
	})
	must(t, err)
	if orders != trafficOrders || marks["wal"] != position(trafficOrders) {
		t.Errorf("%d orders of %d, watermark %v", orders, trafficOrders, marks["wal"])
	}
	if len(undelivered) != orders+saved {
		t.Errorf("%d events of %d landings and %d updates", len(undelivered), orders, saved)
	}
	for p, n := range found {
		if n != 1 || !tr.acked[p] && !tr.unknown[p] {
			t.Errorf("payment %s was saved %d times", p, n)
		}
	}
	for p := range tr.acked {
		if found[p] == 0 {
			t.Errorf("payment %s was acknowledged and is not there", p)
		}
	}
	t.Logf("%d updates acknowledged, %d unknown (of which %d happened), %d faults met, %d retries",
		len(tr.acked), len(tr.unknown), len(found)-len(tr.acked), tr.faults.Load(), tr.s.Stats().Retries)
}

// Faults of the server under traffic: nothing is lost and nothing happens twice.
func TestServerFaults(t *testing.T) {
	d := servers.MariaDB(t)
	f := func(name, params string, every time.Duration, strike func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			s := onServer(t, d, servers.SQLDatabase, params)
			strikes := 0
			runTraffic(t, s, func(tr *traffic) {
				// The first one as soon as there is traffic: it may not last.
				for tr.landed.Load() == 0 && !t.Failed() {
					<-time.After(time.Millisecond)
				}
				for tr.landed.Load() < trafficOrders && !t.Failed() {
					strike(t)
					strikes++
					<-time.After(every)
				}
			})
			if s.Stats().Retries == 0 {
				t.Errorf("%d strikes, and nothing had to be tried again", strikes)
			}
		})
	}
	f("connections killed", "", 20*time.Millisecond, func(t *testing.T) { killAll(t, d) })
	f("server killed", "", 150*time.Millisecond, func(t *testing.T) { d.Kill(); must(t, d.Restart()) })
	f("server stands still", "?readTimeout=200ms", 250*time.Millisecond, func(t *testing.T) {
		d.Pause()
		<-time.After(400 * time.Millisecond) // longer than the store waits for an answer
		d.Resume()
	})
}
