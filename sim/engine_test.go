package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing/synctest"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/clock"
	"sluice/internal/lib/id"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// engine is one life of the process, put together as internal/app does it.
type engine struct {
	clock    *clock.Clock
	ledger   *walstock.Ledger
	store    *tap
	shop     *sale.Shop
	sales    *sale.Desk
	orders   *order.Desk
	lander   *order.Lander
	keeper   *order.Keeper
	settler  *order.Settler
	relay    *outbox.Relay
	alarms   *order.Alarms
	watchers *order.Watchers
	auditor  *proof.Auditor
	proofs   *proof.Watch
}

// Small enough that a run rotates segments, writes snapshots and trims.
const (
	segmentSize = 66_000
	snapshotAt  = 12
)

// boot brings the engine up on the disk as it is. It may meet faults itself.
func (w *world) boot() (*engine, error) {
	ctx := context.Background()
	w.disk.Judge(w.judge)
	e := &engine{clock: clock.From(w.wall, w.elapsed), store: &tap{w.store, w}}
	var err error
	e.ledger, err = walstock.Open("stock", walstock.Options{FS: w.disk, Log: w.log, SegmentSize: segmentSize, SnapshotAt: cmp.Or(w.snapshotAt, snapshotAt), KeepLog: w.keepLog})
	if err != nil {
		return nil, err
	}
	e.clock.Floor(e.ledger.Last().Time())
	if err := e.floorIDs(); err != nil {
		return nil, err
	}
	mark, err := e.store.Watermark(ctx, walstock.LogID)
	if err != nil {
		return nil, err
	}
	if mark.Position > e.ledger.Head().Position {
		w.violate("orders are landed up to entry %d of a log that ends at %d", mark.Position, e.ledger.Head().Position)
		return nil, errors.New("log and store do not belong together")
	}
	if mark.Position > 0 {
		if err := e.ledger.Trim(ctx, stock.Cursor{Log: walstock.LogID, Epoch: mark.Epoch, Position: mark.Position}); err != nil {
			return nil, err
		}
	}
	proved, err := e.store.Proved(ctx)
	if err != nil {
		return nil, err
	}
	e.ledger.Release(proved...)
	w.wire(e)
	w.e = e
	w.oracle.recovered()
	if _, err := e.sales.Step(ctx); err != nil {
		return nil, fmt.Errorf("activities: %w", err)
	}
	return e, e.shop.Refresh(ctx)
}

// floorIDs keeps the clock behind every id that was given out: ids of a
// crowded millisecond are borrowed from the future, and a process that starts
// again within it would mint them once more.
func (e *engine) floorIDs() error {
	books, err := e.ledger.Replica(context.Background(), e.ledger.Head())
	for _, b := range books {
		b.Reservations(func(r *stock.Reservation) bool {
			n, bad := id.Parse(string(r.Order))
			err = errors.Join(err, bad)
			e.clock.Floor(id.Time(n))
			return true
		})
	}
	return err
}

// wire builds the business on the doors.
func (w *world) wire(e *engine) {
	now := e.clock.Now
	ids := id.NewSource(0, now)
	ledger := &pump{e.ledger, w}
	e.shop = sale.NewShop(ledger, e.ledger.Board(), sale.OpenGate{}, ids, e.store, e.store, now)
	e.sales = sale.NewDesk(e.shop)
	e.alarms = order.NewAlarms(w.log)
	cashier := order.NewCashier(e.store, []payment.Provider{w.provider}, func(string) string { return "callback" }, e.alarms, w.log, now)
	newID := func(u stock.UserID) (stock.OrderID, error) {
		n, err := ids.Mint(string(u))
		return stock.OrderID(id.Format(n)), err
	}
	late := order.NewLate(e.store, ledger, newID, w.log, now)
	e.keeper = order.NewKeeper(e.store, cashier, late, e.alarms, now, e.clock.Jump)
	e.watchers = order.NewWatchers(100)
	e.lander = w.newLander(e)
	e.orders = order.NewDesk(e.store, ledger, cashier, e.lander.Changed, now)
	e.settler = order.NewSettler(ledger, e.alarms, now)
	e.relay = outbox.New(e.store, []outbox.Named{
		{Name: "ledger", Topics: []string{order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: w.flaky("settle", e.settler.Settle)},
		{Name: "streams", Handle: w.flaky("streams", e.watchers.Handle)},
		{Name: "notifications", Topics: []string{order.TopicPaymentDue, order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: w.flaky("notify", notify(e.store))},
		{Name: "observer", Handle: w.oracle.deliver},
	}, now, func() float64 { return w.rng.Float64() }, w.log, outbox.Options{Workers: 1, MaxAttempts: 2})
	e.auditor = proof.New(e.store, ledger, walstock.LogID, now)
	e.proofs = w.watch(e, ledger)
}

func (w *world) newLander(e *engine) *order.Lander {
	return order.NewLander(order.Landing{
		Store: e.store, Log: e.ledger, LogID: walstock.LogID, Alarms: e.alarms, Logger: w.log, Now: e.clock.Now,
		Snapshots: order.NewSnapshots(func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
			p, err := e.store.Product(ctx, sku, version)
			if err != nil {
				return nil, err
			}
			return json.Marshal(p)
		}),
		Landed: e.watchers.Landed,
	})
}

// notify is internal/app's.
func notify(s *tap) outbox.Handler {
	return func(ctx context.Context, m outbox.Message) error {
		var body struct {
			User stock.UserID `json:"user"`
		}
		if err := json.Unmarshal(m.Body, &body); err != nil {
			return err
		}
		return s.SaveNotification(ctx, m.ID, body.User, m.Topic, m.Body, stock.Millis(m.At))
	}
}

// pump is the ledger with its committer at hand. A task that calls it waits
// for the next commit, and in one goroutine nobody else would make it: so the
// call runs beside, and commits are made until it has answered. Shoppers' calls
// (parked) just wait: the commit is a step of its own, and batches fill.
type pump struct {
	*walstock.Ledger
	w *world
}

type parkedKey struct{}

// parked marks a context whose ledger calls wait for somebody else's commit.
func parked(ctx context.Context) context.Context { return context.WithValue(ctx, parkedKey{}, true) }

func (p *pump) call(ctx context.Context, f func()) {
	if ctx.Value(parkedKey{}) != nil {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for range 10 {
		synctest.Wait()
		select {
		case <-done:
			return
		default:
		}
		p.w.commit()
	}
	p.w.violate("a call of the ledger is not answered by commits")
	<-done
}

// Open implements stock.Ledger.
func (p *pump) Open(ctx context.Context, a stock.Allocation) (err error) {
	p.w.film.follows()
	p.call(ctx, func() { err = p.Ledger.Open(ctx, a) })
	return err
}

// Adjust implements stock.Ledger.
func (p *pump) Adjust(ctx context.Context, a stock.Adjustment) (err error) {
	p.w.film.follows()
	p.call(ctx, func() { err = p.Ledger.Adjust(ctx, a) })
	return err
}

// Reserve implements stock.Ledger.
func (p *pump) Reserve(ctx context.Context, r stock.Request) (receipt stock.Receipt, err error) {
	if r.Late != "" {
		p.w.film.follows()
	}
	p.call(ctx, func() { receipt, err = p.Ledger.Reserve(ctx, r) })
	return receipt, err
}

// Settle implements stock.Ledger.
func (p *pump) Settle(ctx context.Context, s stock.Settlement) (o stock.Outcome, err error) {
	p.w.film.follows()
	p.call(ctx, func() { o, err = p.Ledger.Settle(ctx, s) })
	return o, err
}

// Lookup implements stock.Ledger.
func (p *pump) Lookup(ctx context.Context, ref stock.Ref) (receipt stock.Receipt, err error) {
	p.call(ctx, func() { receipt, err = p.Ledger.Lookup(ctx, ref) })
	return receipt, err
}
