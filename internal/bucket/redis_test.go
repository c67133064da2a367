package bucket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/bucket"
	"sluice/internal/lib/run"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// shop sells on a real Redis, with a keeper that runs as it does in a worker.
type shop struct {
	t      *testing.T
	ledger *redisstock.Ledger
	store  *sqlstore.Store
	keeper *bucket.Keeper
	fleet  *proof.Fleet
	alarms *order.Alarms
	sale   stock.Allocation
	sold   atomic.Int64
	users  int64 // who buy in turn

	mu       sync.Mutex
	receipts map[stock.ID]stock.Receipt
	held     map[stock.ID]bool // as somebody was told
}

func newShop(t *testing.T, server *servers.Server, buckets uint16, units int) *shop {
	t.Helper()
	ledger, err := redisstock.Open(t.Context(), "redis://"+server.Addr, redisstock.Options{Log: slog.New(slog.DiscardHandler), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	s := &shop{t: t, ledger: ledger, store: openStore(t), users: 4000, receipts: map[stock.ID]stock.Receipt{}, held: map[stock.ID]bool{}}
	s.sale = stock.Allocation{
		ID: "sale", Activity: "sale", Epoch: 1, OpensAt: 1, ClosesAt: 4_000_000_000_000, Hold: 600_000, PerUser: 2, Buckets: buckets, At: 1,
		Items: []stock.Item{{SKU: "cup", Units: units, PerOrder: 2}},
	}
	log := slog.New(slog.DiscardHandler)
	s.alarms = order.NewAlarms(log)
	inspector := proof.NewInspector(proof.Inspecting{Store: s.store, Engine: ledger.Standing, Lookup: ledger.Lookup, Now: time.Now})
	s.fleet = proof.NewFleet(proof.FleetOptions{
		Store: s.store, Archive: s.store, Now: time.Now, Alarm: s.alarms.Violation,
		Subjects: func(context.Context) ([]proof.Subject, error) { return []proof.Subject{{Activity: "sale"}}, nil },
	})
	s.keeper = bucket.New(bucket.Options{
		Witness: inspector,
		Engine:  ledger, Log: ledger, Credit: ledger.Credit, Store: s.store, Buckets: s.store, Leases: s.store, Holder: "one",
		Allocations: func(context.Context) ([]stock.Allocation, error) { return []stock.Allocation{s.sale}, nil },
		Snapshots:   order.NewSnapshots(func(context.Context, stock.SKU, int) ([]byte, error) { return []byte("{}"), nil }),
		Alarms:      s.alarms, Logger: log, Now: time.Now,
	})
	inspector.Watch(s.keeper)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for _, task := range []run.Task{
		{Name: "buckets", Step: s.keeper.Step, Idle: 5 * time.Millisecond, Wake: s.keeper.Woken()},
		{Name: "bucket proofs", Step: inspector.Step, Idle: 20 * time.Millisecond},
		{Name: "proof", Step: s.fleet.Step, Idle: time.Second},
	} {
		done.Go(func() { run.Loop(ctx, log, task) })
	}
	t.Cleanup(func() {
		cancel()
		done.Wait()
		if err := s.keeper.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// until asks every few milliseconds until the answer is true.
func (s *shop) until(what string, is func() bool) {
	s.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	over := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-over:
			s.t.Fatalf("%s: not within 30 s: %+v", what, s.keeper.Stats())
		}
	}
}

// crowd buys with as many hands until stop, every now and then looking how an
// earlier purchase stands.
func (s *shop) crowd(hands int) (stop func()) {
	quote, err := pricing.PriceLines("EUR", []pricing.QuoteLine{{SKU: "cup", Version: 1, Quantity: 1, Unit: 100}})
	if err != nil {
		s.t.Fatal(err)
	}
	terms, err := json.Marshal(pricing.Terms{Quote: quote})
	if err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(s.t.Context())
	var n atomic.Int64
	for range hands {
		wg.Go(func() {
			var mine []stock.Receipt
			pause := time.NewTicker(3 * time.Millisecond)
			defer pause.Stop()
			for ctx.Err() == nil {
				i := n.Add(1)
				r, err := s.ledger.Reserve(s.t.Context(), stock.Request{
					Activity: "sale", User: stock.UserID(fmt.Sprint("u", i%s.users)), Key: fmt.Sprint("k", i), Order: stock.OrderID(fmt.Sprint(1000 + i)),
					Lines: []stock.Line{{SKU: "cup", Quantity: 1}}, Terms: terms,
				})
				if err == nil {
					s.sold.Add(1)
					mine = append(mine, r)
					s.mu.Lock()
					if other, ok := s.receipts[r.ID]; ok {
						s.t.Errorf("%s was given to %s and %s", r.ID, other.User, r.User)
					}
					s.receipts[r.ID] = r
					s.mu.Unlock()
				} else if !passes(err) {
					s.t.Errorf("buy: %v", err)
					return
				}
				if len(mine) > 0 {
					s.look(mine[int(i)%len(mine)])
				}
				<-pause.C
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// passes says that an engine which is away or being rebuilt, or has no more,
// answers so.
func passes(err error) bool {
	for _, of := range []error{stock.ErrNotReady, stock.ErrUnknown, stock.ErrAllHeld, stock.ErrSoldOut, stock.ErrLimit} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

func (s *shop) look(r stock.Receipt) stock.State {
	is, err := s.ledger.Lookup(s.t.Context(), stock.Ref{ID: r.ID, User: r.User})
	if err != nil {
		if !passes(err) {
			s.t.Errorf("look %s up: %v", r.ID, err)
		}
		return 0
	}
	if is.State == stock.Held {
		s.mu.Lock()
		s.held[r.ID] = true
		s.mu.Unlock()
	}
	return is.State
}

func (s *shop) serving() bool {
	n := 0
	for _, b := range s.keeper.Stats() {
		if b.State == bucket.Serving && b.Reason == "" {
			n++
		}
	}
	return n == int(s.sale.Buckets)
}

// check compares the ledger, the keeper's books and the orders once all is quiet.
func (s *shop) check() {
	s.t.Helper()
	s.until("all landed", func() bool {
		for n := range s.sale.Buckets {
			p := stock.Place{Activity: "sale", Bucket: n}
			quiet := false
			s.keeper.Read(p, func(b *stock.Book, at stock.Cursor) {
				head, err := s.ledger.Head(s.t.Context(), p, at.Epoch)
				quiet = err == nil && head.Position == at.Position
			})
			if !quiet {
				return false
			}
		}
		return true
	})
	sum := stock.Count{}
	for n := range s.sale.Buckets {
		s.keeper.Read(stock.Place{Activity: "sale", Bucket: n}, func(b *stock.Book, _ stock.Cursor) {
			c := b.Counts().Items[0]
			sum.Free, sum.Held, sum.Allocated = sum.Free+c.Free, sum.Held+c.Held, sum.Allocated+c.Allocated
		})
	}
	c, err := s.ledger.Counts(s.t.Context(), "sale")
	if err != nil {
		s.t.Fatal(err)
	}
	got := c.Items[0]
	if got.Free != sum.Free || got.Held != sum.Held || got.Allocated != sum.Allocated || sum.Allocated != s.sale.Items[0].Units {
		s.t.Errorf("the engine has %+v, the books %+v", got, sum)
	}
	landed, lost := 0, 0
	for id, r := range s.receipts {
		found, err := s.store.List(s.t.Context(), order.Query{Reservation: &id, Limit: 1})
		if err != nil {
			s.t.Fatal(err)
		}
		is := s.look(r)
		switch {
		case len(found) == 1 && found[0].ID == r.Order && found[0].State == order.Created && is == stock.Held:
			landed++
		case len(found) == 0 && is == stock.Refused && !s.held[id]:
			lost++
		default:
			s.t.Errorf("%s: %d orders, the engine says %s, was held: %v", id, len(found), is, s.held[id])
		}
	}
	if landed > sum.Held {
		s.t.Errorf("%d orders, %d units held", landed, sum.Held)
	}
	s.t.Logf("%d orders landed, %d pending ones were lost and refused", landed, lost)
	r, err := s.fleet.Check(s.t.Context(), "sale")
	if err != nil || !r.OK || r.Orders[order.Created] != landed || r.Ledger[0].Held != sum.Held || r.Ledger[0].InTransit != 0 {
		s.t.Errorf("the proof says %+v, %v", r, err)
	}
	if n := s.alarms.Counts()[order.AlarmProof]; n != 0 {
		s.t.Errorf("%d false alarms of the proof", n)
	}
}

// TestRedisLosesItsState: a crowd buys while Redis is killed, emptied and rolled
// back. It sells again without anybody's help, and nothing is sold twice.
func TestRedisLosesItsState(t *testing.T) {
	server := servers.Redis(t)
	s := newShop(t, server, 3, 6000)
	s.until("opened", s.serving)
	stop := s.crowd(6)
	defer stop()
	sell := func(n int64) {
		t.Helper()
		goal := s.sold.Load() + n
		s.until("sales go on", func() bool { return s.sold.Load() >= goal })
	}
	f := func(name string, lose func() error) {
		t.Helper()
		sell(100)
		before := map[stock.Place]uint64{}
		for _, b := range s.keeper.Stats() {
			before[b.Place] = b.Recoveries
		}
		began := time.Now()
		if err := lose(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.until(name, func() bool {
			for _, b := range s.keeper.Stats() {
				if b.Recoveries == before[b.Place] {
					return false
				}
			}
			return s.serving()
		})
		took := time.Since(began)
		sell(100)
		longest := time.Duration(0)
		for _, b := range s.keeper.Stats() {
			longest = max(longest, b.Times[len(b.Times)-1].Took)
		}
		t.Logf("%s: sells again after %v, of which rebuilding took %v", name, took.Round(time.Millisecond), longest.Round(time.Millisecond))
	}
	image := t.TempDir()
	f("killed and restarted", func() error { server.Kill(); return server.Restart() })
	f("flushed", func() error { _, err := servers.Do(server, "FLUSHALL"); return err })
	f("restarted empty", server.RestartEmpty)
	if err := server.Image(image); err != nil {
		t.Fatal(err)
	}
	f("rolled back", func() error { return server.RestartFrom(image) })
	f("rolled back behind a rebuilding", func() error { return server.RestartFrom(image) })
	stop()
	s.check()
}

// TestRedisSellsOut: units go to the buckets whose users ask for them, also
// across a rebuilding, and none stays behind.
func TestRedisSellsOut(t *testing.T) {
	const units = 400
	server := servers.Redis(t)
	s := newShop(t, server, 5, units)
	s.until("opened", s.serving)
	stop := s.crowd(6)
	defer stop()
	sold := func(n int) func() bool {
		return func() bool {
			held := 0
			for b := range s.sale.Buckets {
				s.keeper.Read(stock.Place{Activity: "sale", Bucket: b}, func(b *stock.Book, _ stock.Cursor) { held += b.Counts().Items[0].Held })
			}
			return held >= n
		}
	}
	s.until("most are sold", sold(units-20))
	server.Kill()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	s.until("all are sold", sold(units))
	stop()
	s.until("nothing is in transit", func() bool {
		for _, b := range s.keeper.Stats() {
			if b.InTransit > 0 {
				return false
			}
		}
		return s.serving()
	})
	s.check()
	moved := 0
	for n := range s.sale.Buckets {
		kept, err := s.store.Kept(t.Context(), stock.Place{Activity: "sale", Bucket: n}.Log())
		if err != nil {
			t.Fatal(err)
		}
		moved += len(kept.Rules) - 1
	}
	t.Logf("%d debits and credits have landed", moved)
}

// TestRedisCountEdited: somebody changes counts in Redis by hand while a crowd
// buys. The proof finds it, the bucket's keeper rebuilds it on request, and the
// crowd goes on.
func TestRedisCountEdited(t *testing.T) {
	server := servers.Redis(t)
	s := newShop(t, server, 2, 1_000_000)
	s.users = 1_000_000
	s.until("opened", s.serving)
	stop := s.crowd(2)
	defer stop()
	sell := func(n int64) {
		t.Helper()
		goal := s.sold.Load() + n
		s.until("sales go on", func() bool { return s.sold.Load() >= goal })
	}
	check := func() proof.Report {
		t.Helper()
		for range 6 { // on a slow machine workers may not be done in time, and then it says so
			r, err := s.fleet.Check(t.Context(), "sale")
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Incomplete) == 0 {
				return r
			}
		}
		t.Fatal("no worker answers")
		return proof.Report{}
	}
	sell(200)
	for range 5 { // under purchases the books agree, at each place of the log
		if r := check(); !r.OK || r.Buckets[0].Engine == nil || r.Buckets[1].Engine == nil {
			t.Fatalf("%+v", r)
		}
		sell(20)
	}
	const edit = `local v = {cmsgpack.unpack(redis.call('HGET', KEYS[1], 'i:cup'))}
		v[5] = v[5] - 7
		for i, n in ipairs(v) do v[i] = cmsgpack.pack(n) end
		return redis.call('HSET', KEYS[1], 'i:cup', table.concat(v))`
	if _, err := servers.Do(server, "EVAL", edit, "1", "sluice:{sale:1}m"); err != nil {
		t.Fatal(err)
	}
	edited := time.Now()
	s.until("the alarm", func() bool { return s.alarms.Counts()[order.AlarmProof] > 0 })
	t.Logf("found by the rounds after %v", time.Since(edited).Round(time.Millisecond))
	r := check()
	if r.OK || len(r.Drifts) != 1 || r.Drifts[0] != (proof.Drift{Kind: proof.Rebuild, Log: "sale/1"}) {
		t.Fatalf("%+v", r)
	}
	asked := time.Now()
	repairs := proof.NewRepairer(s.fleet, proof.Hands{Rebuild: s.fleet.Rebuild}, s.store, time.Now)
	if _, err := repairs.Repair(t.Context(), "sale", proof.RepairRequest{ID: "r", Kind: proof.Rebuild, Log: "sale/1", Reason: "edited"}); err != nil {
		t.Fatal(err)
	}
	for _, b := range s.keeper.Stats() {
		if b.Recoveries != uint64(b.Place.Bucket) { // of bucket 1 one, of bucket 0 none
			t.Errorf("%+v", b)
		}
		if len(b.Times) > 0 {
			t.Logf("repaired after %v, of which rebuilding took %v", time.Since(asked).Round(time.Millisecond), b.Times[0].Took.Round(time.Millisecond))
		}
	}
	sell(100)
	if r := check(); !r.OK {
		t.Fatalf("after the repair: %+v", r)
	}
	stop()
	s.until("the rest has landed", s.serving)
	if r := check(); !r.OK {
		t.Fatalf("at rest: %+v", r)
	}
}
