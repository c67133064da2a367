package bucket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/bucket"
	"sluice/internal/bucket/brittle"
	"sluice/internal/lib/lease"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tb is what tests and property tests share.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func openStore(t testing.TB) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "shop.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// bought is what a shopper was told.
type bought struct {
	id    stock.ID
	user  stock.UserID
	order stock.OrderID
	held  bool // was told so, at some time
}

// world is one activity on a brittle engine, with its shoppers and workers, in
// one goroutine. The store is the real one.
type world struct {
	tb
	ctx     context.Context
	store   *sqlstore.Store
	engine  *brittle.Engine
	leases  *lease.Local
	clock   time.Time
	sale    stock.Allocation
	workers []*worker
	lives   int
	orders  int
	moves   int

	bought   []*bought
	mine     map[string]bool // keys of this sale's messages
	deltas   map[string]int  // asked of bucket 0, known to have landed or not
	final    bool
	planted  bool
	noCredit bool // units in transit go nowhere
	alarms   *order.Alarms
	settler  *order.Settler
	fleet    *proof.Fleet
	logger   *slog.Logger
}

const (
	ttl  = 3 * time.Second
	unit = 100
)

var worlds int // activities of one store need names of their own

func newWorld(t tb, ctx context.Context, store *sqlstore.Store, buckets uint16, units, perUser int) *world {
	worlds++
	w := &world{tb: t, ctx: ctx, store: store, clock: time.UnixMilli(1_790_000_000_000), deltas: make(map[string]int), mine: make(map[string]bool)}
	w.logger = slog.New(slog.DiscardHandler)
	w.alarms = order.NewAlarms(w.logger)
	w.engine = brittle.New(func() stock.Millis { return stock.MillisOf(w.clock) })
	w.settler = order.NewSettler(settlesIn{w}, w.alarms, w.now)
	w.fleet = w.newFleet()
	w.leases = lease.NewLocal(func() time.Time { return w.clock })
	id := stock.ActivityID(fmt.Sprintf("sale%d", worlds))
	w.sale = stock.Allocation{
		ID: string(id), Activity: id, Epoch: 1, OpensAt: 1, ClosesAt: 4_000_000_000_000, Hold: 60_000, PerUser: perUser, Buckets: buckets, At: 1,
		Items: []stock.Item{{SKU: "cup", Units: units, PerOrder: 5}},
	}
	return w
}

func (w *world) now() time.Time { return w.clock }

// worker is one process's keeper. Its calls can be cut or delayed.
type worker struct {
	*bucket.Keeper
	proof   *proof.Inspector
	w       *world
	calls   int
	at      int           // the call at which something happens, 0 = none
	happens func() string // "before" or "after": the call fails then, and all that follow
	dead    bool
	mute    bool                                     // the leases do not answer it
	spoil   func(stream []stock.Entry) []stock.Entry // what it reads of a log, may be nil

	one      sync.Mutex // its calls come one after the other
	credited func(m stock.Move)
	adjusted func(ids []string)
}

var errDead = errors.New("the process was killed")

// call runs one call of the worker.
func (k *worker) call(f func() error) error {
	k.one.Lock()
	defer k.one.Unlock()
	if k.dead {
		return errDead
	}
	k.calls++
	how := ""
	if k.calls == k.at {
		how = k.happens()
	}
	k.dead = how != ""
	if how == "before" {
		return errDead
	}
	err := f()
	if k.dead {
		return errDead
	}
	return err
}

func (w *world) hire() *worker {
	w.lives++
	k := &worker{w: w}
	k.proof = w.newInspector()
	k.Keeper = bucket.New(bucket.Options{
		Witness: k.proof,
		Engine:  engineOf{k}, Log: logOf{k}, Store: storeOf{w.store, k}, Buckets: storeOf{w.store, k},
		Credit: func(ctx context.Context, m stock.Move, at stock.Millis) error {
			return k.call(func() error {
				if k.credited != nil {
					k.credited(m)
				}
				if w.noCredit {
					return stock.ErrNotReady
				}
				return w.engine.Adjust(ctx, stock.Place{Activity: m.Activity, Bucket: m.To}, m.Credit(at))
			})
		},
		Leases: leasesOf{w.leases, k}, Holder: fmt.Sprint("worker ", w.lives), TTL: ttl,
		Allocations: func(context.Context) ([]stock.Allocation, error) { return []stock.Allocation{w.sale}, nil },
		Final:       func(context.Context, stock.ActivityID) (bool, error) { return w.final, nil },
		Snapshots: order.NewSnapshots(func(_ context.Context, sku stock.SKU, version int) ([]byte, error) {
			return fmt.Appendf(nil, `{"id":%q,"version":%d}`, sku, version), nil
		}),
		Alarms: w.alarms, Logger: w.logger, Now: w.now, Spawn: func(work func()) { work() },
	})
	k.proof.Watch(k.Keeper)
	w.workers = append(w.workers, k)
	return k
}

// step is one of a worker, unless it is dead.
func (k *worker) step() (worked bool) {
	if k.dead {
		return false
	}
	worked, err := k.Step(k.w.ctx)
	if err != nil {
		k.w.Fatalf("step: %v", err)
	}
	return worked
}

// The engine, log and store as a worker reaches them.
type (
	engineOf struct{ k *worker }
	logOf    struct{ k *worker }
	storeOf  struct {
		*sqlstore.Store
		k *worker
	}
	leasesOf struct {
		lease.Leases
		k *worker
	}
)

var errMute = errors.New("the leases do not answer")

func (l leasesOf) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (lease.Grant, error) {
	if l.k.mute {
		return lease.Grant{}, errMute
	}
	return l.Leases.Acquire(ctx, name, holder, ttl)
}

func (l leasesOf) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if l.k.mute {
		return errMute
	}
	return l.Leases.Renew(ctx, g, ttl)
}

func (e engineOf) Head(ctx context.Context, p stock.Place, epoch uint32) (at stock.Cursor, err error) {
	err = e.k.call(func() error { at, err = e.k.w.engine.Head(ctx, p, epoch); return err })
	return at, err
}

func (e engineOf) Fence(ctx context.Context, p stock.Place, token uint64) error {
	return e.k.call(func() error { return e.k.w.engine.Fence(ctx, p, token) })
}

func (e engineOf) Restore(ctx context.Context, p stock.Place, token uint64, b *stock.Book) error {
	return e.k.call(func() error { return e.k.w.engine.Restore(ctx, p, token, b) })
}

func (e engineOf) Activate(ctx context.Context, p stock.Place, token uint64, epoch uint32) error {
	return e.k.call(func() error { return e.k.w.engine.Activate(ctx, p, token, epoch) })
}

func (e engineOf) Landed(ctx context.Context, upTo stock.Cursor) error {
	return e.k.call(func() error { return e.k.w.engine.Landed(ctx, upTo) })
}

func (e engineOf) Retire(ctx context.Context, p stock.Place, token uint64) error {
	return e.k.call(func() error { return e.k.w.engine.Retire(ctx, p, token) })
}

func (l logOf) Tail(ctx context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		if err := l.k.call(func() error { return nil }); err != nil {
			yield(stock.Entry{}, err)
			return
		}
		if l.k.spoil == nil {
			l.k.w.engine.Tail(ctx, after)(yield)
			return
		}
		var stream []stock.Entry
		for e, err := range l.k.w.engine.Tail(ctx, after) {
			if err != nil {
				yield(e, err)
				return
			}
			stream = append(stream, e)
		}
		for _, e := range l.k.spoil(stream) {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (l logOf) Trim(ctx context.Context, upTo stock.Cursor) error {
	return l.k.call(func() error { return l.k.w.engine.Trim(ctx, upTo) })
}

func (s storeOf) Fence(ctx context.Context, log stock.LogID) (token uint64, err error) {
	err = s.k.call(func() error { token, err = s.Store.Fence(ctx, log); return err })
	return token, err
}

func (s storeOf) Watermark(ctx context.Context, log stock.LogID) (at stock.Cursor, err error) {
	err = s.k.call(func() error { at, err = s.Store.Watermark(ctx, log); return err })
	return at, err
}

func (s storeOf) Land(ctx context.Context, b order.Batch) error {
	return s.k.call(func() error { return s.Store.Land(ctx, b) })
}

func (s storeOf) Adjusted(ctx context.Context, log stock.LogID, ids []string) (is []bool, err error) {
	err = s.k.call(func() error {
		if s.k.adjusted != nil {
			s.k.adjusted(ids)
		}
		is, err = s.Store.Adjusted(ctx, log, ids)
		return err
	})
	return is, err
}

func (s storeOf) Kept(ctx context.Context, log stock.LogID) (kept order.Kept, err error) {
	err = s.k.call(func() error { kept, err = s.Store.Kept(ctx, log); return err })
	return kept, err
}

func (w *world) places() (all []stock.Place) {
	for n := range w.sale.Buckets {
		all = append(all, stock.Place{Activity: w.sale.Activity, Bucket: n})
	}
	return all
}

func (w *world) placeOf(user stock.UserID) stock.Place {
	return stock.Place{Activity: w.sale.Activity, Bucket: stock.BucketOf(user, w.sale.Buckets)}
}

// buy asks the engine as a gateway does.
func (w *world) buy(user stock.UserID, key string, quantity int) (stock.Receipt, error) {
	quote, err := pricing.PriceLines("EUR", []pricing.QuoteLine{{SKU: "cup", Version: 1, Quantity: quantity, Unit: unit}})
	w.must(err)
	terms, err := json.Marshal(pricing.Terms{Quote: quote, Restock: true})
	w.must(err)
	w.orders++
	r, err := w.engine.Reserve(w.ctx, w.placeOf(user), stock.Request{
		Activity: w.sale.Activity, User: user, Key: key, Order: stock.OrderID(fmt.Sprint(worlds*1_000_000 + w.orders)),
		Lines: []stock.Line{{SKU: "cup", Quantity: quantity}}, Terms: terms, Fingerprint: stock.Fingerprint{byte(quantity)},
	})
	if err == nil && !r.Replayed {
		for _, b := range w.bought {
			if b.id == r.ID {
				w.Fatalf("%s was given to %s and to %s", r.ID, b.user, user)
			}
		}
		w.bought = append(w.bought, &bought{id: r.ID, user: user, order: r.Order})
	}
	return r, err
}

// look asks how a purchase stands, as its shopper does.
func (w *world) look(b *bought) (stock.State, error) {
	if found, err := w.store.List(w.ctx, order.Query{Reservation: &b.id, Limit: 1}); err != nil {
		w.Fatalf("list: %v", err)
	} else if len(found) > 0 {
		r := order.ReservationOf(&found[0], nil)
		b.held = b.held || r.State != stock.Refused
		return r.State, nil
	}
	r, err := w.engine.Lookup(w.ctx, b.id)
	if err == nil && r.State != stock.Pending && r.State != stock.Refused {
		w.Fatalf("%s is %s in the engine, and has not landed", b.id, r.State)
	}
	return r.State, err
}

// change does something to a landed order; its event waits to be handled.
func (w *world) change(b *bought, do order.Action) {
	err := w.store.Update(w.ctx, b.order, func(o *order.Order) ([]outbox.Message, error) {
		events, err := order.Transition(o, do, "test", stock.MillisOf(w.clock))
		if err != nil {
			return nil, err
		}
		payment := string(o.ID) + "-1"
		switch do {
		case order.ActionPay:
			o.Money.Captures = []order.Capture{{ID: "c" + payment, Payment: payment, Amount: o.Terms.Money(), Pays: o.ID}}
		case order.ActionRefund:
			o.Money.Captures[0].Pays = ""
			o.Money.Refunds = []order.Refund{{ID: payment + "-r1", Payment: payment, Capture: "c" + payment, Amount: o.Terms.Money(), State: order.RefundDone}}
		}
		return events, nil
	})
	if errors.Is(err, order.ErrNoSuchOrder) || errors.Is(err, order.ErrState) {
		return
	}
	w.must(err)
	w.mine[string(b.order)] = true
}

// pending are the messages of this sale that have not been handled.
func (w *world) pending() (mine []outbox.Message) {
	all, err := w.store.Pending(w.ctx, w.clock.UnixMilli(), 1000)
	w.must(err)
	for _, m := range all {
		if w.mine[m.Key] {
			mine = append(mine, m)
		}
	}
	return mine
}

// handle delivers an event; one that the engine does not take comes again.
func (w *world) handle() (done bool) {
	waiting := w.pending()
	if len(waiting) == 0 {
		return true
	}
	switch err := w.settler.Settle(w.ctx, waiting[0]); {
	case errors.Is(err, stock.ErrNotReady):
		return false
	case err != nil:
		w.Fatalf("settle: %v", err)
	case w.alarms.Counts()[order.AlarmSettlement] > 0:
		w.Fatalf("%s contradicts the engine", waiting[0].Body)
	}
	w.must(w.store.Done(w.ctx, []int64{waiting[0].ID}))
	return true
}

// settlesIn is the engine as those know it who settle.
type settlesIn struct{ w *world }

func (s settlesIn) Settle(ctx context.Context, t stock.Settlement) (stock.Outcome, error) {
	return s.w.engine.Settle(ctx, s.w.placeOf(t.User), t)
}

// add asks for units in bucket 0; what has not landed is asked for again.
func (w *world) add(id string, delta int) (done bool) {
	first := w.places()[0]
	err := w.engine.Adjust(w.ctx, first, stock.Adjustment{ID: id, Activity: w.sale.Activity, SKU: "cup", Delta: delta})
	switch {
	case err == nil:
		w.deltas[id] = delta
	case errors.Is(err, stock.ErrInsufficient):
		delete(w.deltas, id)
		return true
	case !errors.Is(err, stock.ErrNotReady):
		w.Fatalf("adjust %s: %v", id, err)
	}
	return w.landed(first, id)
}

// landed says whether an adjustment has landed in a bucket.
func (w *world) landed(p stock.Place, id string) bool {
	w.Helper()
	landed, err := w.store.Adjusted(w.ctx, p.Log(), []string{id})
	w.must(err)
	return landed[0]
}

// pull debits another bucket, as an engine does for one that is empty.
func (w *world) pull(from, to uint16, units int) {
	if from == to {
		return
	}
	w.moves++
	m := stock.Move{ID: fmt.Sprint("m", w.moves), Activity: w.sale.Activity, SKU: "cup", Units: units, From: from, To: to}
	err := w.engine.Adjust(w.ctx, stock.Place{Activity: m.Activity, Bucket: from}, m.Debit(0))
	if err != nil && !errors.Is(err, stock.ErrNotReady) && !errors.Is(err, stock.ErrInsufficient) {
		w.Fatalf("pull: %v", err)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v", err)
	}
}

// restored is the book that the store's content makes, and the units in transit
// from its bucket.
func (w *world) restored(p stock.Place) (b *stock.Book, transit int) {
	kept, err := w.store.Kept(w.ctx, p.Log())
	w.must(err)
	if len(kept.Rules) == 0 {
		return nil, 0
	}
	b, err = stock.Restore(kept.Watermark.Epoch, kept.Rules, func(yield func(stock.Reservation, error) bool) {
		for _, r := range kept.Reservations {
			if !yield(r, nil) {
				return
			}
		}
	})
	w.must(err) // oversold does not add up
	for _, e := range kept.Rules[1:] {
		m, debit, ok := stock.MoveOf(p.Bucket, e.Adjustment)
		if !ok || !debit {
			continue
		}
		if !w.landed(stock.Place{Activity: p.Activity, Bucket: m.To}, m.Credit(0).ID) {
			transit += m.Units
		}
	}
	return b, transit
}

// sound checks what must hold at any moment.
func (w *world) sound() {
	w.Helper()
	units, held := 0, map[stock.UserID]int{}
	for _, p := range w.places() {
		b, transit := w.restored(p)
		if b == nil {
			return
		}
		units += b.Counts().Items[0].Allocated + transit
		b.Reservations(func(r *stock.Reservation) bool {
			if r.State == stock.Held || r.State == stock.Confirmed {
				held[r.User] += r.Lines[0].Quantity
			}
			return true
		})
	}
	want := w.sale.Items[0].Units
	for id, delta := range w.deltas {
		if w.landed(w.places()[0], id) {
			want += delta
		}
	}
	if units != want {
		w.Fatalf("%d units in all buckets and in transit, %d were given to the sale", units, want)
	}
	for _, b := range w.bought {
		_, _ = w.look(b)
	}
	for user, n := range held {
		if w.sale.PerUser > 0 && n > w.sale.PerUser {
			w.Fatalf("%s has %d, at most %d", user, n, w.sale.PerUser)
		}
	}
}

// rest lets everything come to an end: nothing fails any more.
func (w *world) rest() {
	w.Helper()
	w.clock = w.clock.Add(2 * ttl)
	for _, k := range w.workers {
		k.at = 0
	}
	if len(w.workers) == 0 || w.workers[len(w.workers)-1].dead {
		w.hire()
	}
	calm := 0
	for range 4000 {
		w.clock = w.clock.Add(60 * time.Millisecond)
		busy := !w.handle()
		for id, delta := range w.deltas {
			busy = !w.add(id, delta) || busy
		}
		for _, k := range w.workers {
			busy = k.step() || busy
			k.inspect()
		}
		busy = busy || w.serving() != len(w.places())
		for _, p := range w.places() {
			if !busy {
				_, err := w.engine.Counts(p)
				_, transit := w.restored(p)
				busy = err != nil || transit > 0
			}
		}
		if calm++; busy || len(w.pending()) > 0 {
			calm = 0
		}
		if calm == 5 {
			return
		}
	}
	for _, k := range w.workers {
		w.Errorf("dead %v: %+v", k.dead, k.Stats())
	}
	w.Fatalf("it never comes to rest: %d events", len(w.pending()))
}

// serving counts the buckets that somebody keeps.
func (w *world) serving() (n int) {
	for _, k := range w.workers {
		for _, s := range k.Stats() {
			if !k.dead && s.State == bucket.Serving {
				n++
			}
		}
	}
	return n
}

// settled checks what must hold once everything has come to rest.
func (w *world) settled() {
	w.Helper()
	w.sound()
	w.proved()
	for _, p := range w.places() {
		b, transit := w.restored(p)
		c, err := w.engine.Counts(p)
		w.must(err)
		if want := b.Counts().Items[0]; c.Items[0] != want || transit != 0 {
			w.Fatalf("bucket %d: the engine has %+v, the store %+v, %d in transit", p.Bucket, c.Items[0], want, transit)
		}
		kept := 0
		for _, k := range w.workers {
			if k.dead {
				continue
			}
			k.Read(p, func(b *stock.Book, at stock.Cursor) {
				kept++
				if got := b.Counts().Items[0]; got != c.Items[0] || at != c.Position {
					w.Fatalf("bucket %d: the book has %+v at %v, the engine %+v at %v", p.Bucket, got, at, c.Items[0], c.Position)
				}
			})
		}
		if kept != 1 {
			w.Fatalf("bucket %d has %d keepers", p.Bucket, kept)
		}
	}
	for _, b := range w.bought {
		was := b.held
		is, err := w.look(b)
		w.must(err)
		if is == stock.Pending || was && is == stock.Refused {
			w.Fatalf("%s is %s, was held: %v", b.id, is, was)
		}
		if r, err := w.engine.Lookup(w.ctx, b.id); err != nil || r.State != is {
			w.Fatalf("%s is %s, the engine says %s, %v", b.id, is, r.State, err)
		}
	}
}
