package order_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/payment/sandbox"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a stock.Book in memory that keeps its entries as a log: the
// production rules without the disk.
type ledger struct {
	mu      sync.Mutex
	book    *stock.Book
	entries []stock.Entry
	down    error // what Reserve and Settle answer instead, nil when up
	lost    error // Reserve does its work and answers this
	settled error // what Settle alone answers instead
}

func newLedger(t testing.TB, units, perUser int) *ledger {
	t.Helper()
	book, e, err := stock.NewBook(stock.Allocation{
		ID: "a1", Activity: "sale", Epoch: 1, OpensAt: 1, ClosesAt: 4_000_000_000_000, Hold: hold,
		Items: []stock.Item{{SKU: "cup", Units: units, PerUser: perUser, PerOrder: 5}}, At: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{book: book}
	l.add(&e)
	return l
}

func (l *ledger) add(e *stock.Entry) {
	if e == nil {
		return
	}
	c := *e
	c.Cursor = stock.Cursor{Log: logID, Epoch: 1, Position: uint64(len(l.entries) + 1)}
	if c.Reservation != nil {
		r := *c.Reservation
		c.Reservation = &r
	}
	l.entries = append(l.entries, c)
}

func (l *ledger) Reserve(_ context.Context, r stock.Request) (stock.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return stock.Receipt{}, l.down
	}
	rec, e, err := l.book.Reserve(&r)
	if err != nil {
		return stock.Receipt{}, err
	}
	l.add(e)
	if l.lost != nil {
		return stock.Receipt{}, l.lost
	}
	return stock.Receipt{Reservation: rec.Reservation, Replayed: e == nil}, nil
}

func (l *ledger) Settle(_ context.Context, s stock.Settlement) (stock.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return 0, l.down
	}
	if l.settled != nil {
		return 0, l.settled
	}
	o, e, err := l.book.Settle(s)
	l.add(e)
	return o, err
}

func (l *ledger) Lookup(_ context.Context, ref stock.Ref) (stock.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	find := func() (*stock.Record, error) { return l.book.Lookup(ref.User, ref.Key, ref.Order) }
	if ref.ID != (stock.ID{}) {
		find = func() (*stock.Record, error) { return l.book.Find(ref.ID) }
	}
	rec, err := find()
	if err != nil {
		return stock.Receipt{}, err
	}
	return stock.Receipt{Reservation: rec.Reservation, Replayed: true}, nil
}

func (l *ledger) Tail(_ context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		l.mu.Lock()
		entries := l.entries
		l.mu.Unlock()
		for _, e := range entries {
			if e.Cursor.Position > after.Position && !yield(e, nil) {
				return
			}
		}
	}
}

func (l *ledger) Trim(context.Context, stock.Cursor) error { return nil }

func (l *ledger) count() stock.Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Counts().Items[0]
}

func (l *ledger) fail(down, lost error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.lost = down, lost
}

func (l *ledger) unsettled(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = err
}

const (
	logID stock.LogID  = "wal"
	hold  stock.Millis = 60_000
)

var price = pricing.Money{Amount: 5900, Currency: "EUR"}

// shop is everything behind the counter: a book, a real store, a real
// provider over HTTP with a front that can fail, and one clock.
type shop struct {
	t        testing.TB
	path     string
	ledger   *ledger
	store    *sqlstore.Store
	sandbox  *sandbox.Server
	front    *front
	client   *sandbox.Client
	provider payment.Provider
	jump     atomic.Int64
	millis   atomic.Int64
	ids      atomic.Int64

	callback func(provider string) string

	alarms   *order.Alarms
	watchers *order.Watchers
	lander   *order.Lander
	settler  *order.Settler
	cashier  *order.Cashier
	late     *order.Late
	keeper   *order.Keeper
	desk     *order.Desk
}

func newShop(t testing.TB, units, perUser int) *shop {
	t.Helper()
	s := offline(t, units, perUser)
	secret := []byte("sixteen bytes at least")
	var err error
	s.sandbox, err = sandbox.Open(filepath.Join(s.path, "sandbox.journal"), sandbox.Options{Secret: secret, Now: s.now})
	s.must(err)
	s.front = &front{to: s.sandbox.Handler()}
	server := httptest.NewServer(s.front)
	s.client, err = sandbox.NewClient(server.URL, sandbox.ClientOptions{Secret: secret, Now: s.now})
	s.must(err)
	s.provider = s.client
	s.open()
	t.Cleanup(func() {
		s.must(s.store.Close())
		s.client.Close()
		server.Close()
		s.must(s.sandbox.Close())
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// empty is a database without a row. Making one anew for each shop would take
// half the time of these tests.
var empty = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "empty-shop")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "shop.db")
	s, err := sqlstore.Open(context.Background(), path, sqlstore.Options{})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		panic(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return b
})

// offline is a shop that is not open yet and reaches no provider.
func offline(t testing.TB, units, perUser int) *shop {
	t.Helper()
	s := &shop{t: t, path: t.TempDir(), ledger: newLedger(t, units, perUser), provider: says{}}
	s.millis.Store(time.Date(2026, 6, 18, 12, 0, 0, 0, time.UTC).UnixMilli())
	return s
}

// open makes new parts over the durable state.
func (s *shop) open() {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(s.path, "shop.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		s.must(os.WriteFile(path, empty(), 0o600))
	}
	var err error
	s.store, err = sqlstore.Open(context.Background(), path, sqlstore.Options{})
	s.must(err)
	s.alarms = order.NewAlarms(log)
	s.watchers = order.NewWatchers(100)
	s.lander = s.newLander(s.store, product)
	s.settler = order.NewSettler(s.ledger, s.alarms, s.now)
	s.cashier = s.cashierFor(s.provider)
	s.cashier.SettleEarly(s.settler)
	s.late = order.NewLate(s.store, s.ledger, s.lateID, log, s.now)
	jump := func() time.Duration { return time.Duration(s.jump.Load()) }
	s.keeper = order.NewKeeper(s.store, s.cashier, s.late, s.alarms, s.now, jump)
	s.desk = order.NewDesk(s.store, s.ledger, s.cashier, s.lander.Changed, s.now)
}

// cashierFor a provider. Callbacks go nowhere unless a test says where to.
func (s *shop) cashierFor(p payment.Provider) *order.Cashier {
	callback := func(name string) string {
		if s.callback == nil {
			return "http://127.0.0.1:1/callbacks/" + name
		}
		return s.callback(name)
	}
	return order.NewCashier(s.store, []payment.Provider{p}, callback, s.alarms, slog.New(slog.DiscardHandler), s.now)
}

// crash drops every part and makes new ones over what is durable.
func (s *shop) crash() {
	s.t.Helper()
	s.must(s.store.Close())
	s.open()
}

func product(_ context.Context, sku stock.SKU, version int) ([]byte, error) {
	return fmt.Appendf(nil, `{"id":%q,"version":%d}`, sku, version), nil
}

func (s *shop) newLander(store order.Store, find func(context.Context, stock.SKU, int) ([]byte, error)) *order.Lander {
	return order.NewLander(order.Landing{
		Store: store, Log: s.ledger, LogID: logID, Snapshots: order.NewSnapshots(find),
		Landed: s.watchers.Landed, Alarms: s.alarms, Logger: slog.New(slog.DiscardHandler), Now: s.now,
	})
}

func (s *shop) now() time.Time                               { return time.UnixMilli(s.millis.Load()).UTC() }
func (s *shop) advance(d time.Duration)                      { s.millis.Add(d.Milliseconds()) }
func (s *shop) at() stock.Millis                             { return stock.MillisOf(s.now()) }
func (s *shop) lateID(u stock.UserID) (stock.OrderID, error) { return s.newID(u), nil }

func (s *shop) newID(stock.UserID) stock.OrderID {
	return stock.OrderID(strconv.FormatInt(1000+s.ids.Add(1), 10))
}

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// wants ends the test unless err is the sentinel.
func (s *shop) wants(err, sentinel error) {
	s.t.Helper()
	if !errors.Is(err, sentinel) {
		s.t.Fatalf("error %v, want %v", err, sentinel)
	}
}

// terms of cups at the price.
func terms(quantity int, policy pricing.LatePolicy, restock bool) pricing.Terms {
	return pricing.Terms{Quote: quote(quantity, price), LatePayment: policy, Restock: restock}
}

func quote(quantity int, unit pricing.Money) pricing.Quote {
	q, err := pricing.PriceLines(unit.Currency, []pricing.QuoteLine{{SKU: "cup", Version: 3, Quantity: quantity, Unit: unit.Amount}})
	if err != nil {
		panic(err)
	}
	return q
}

// reserve holds units in the ledger and lands nothing.
func (s *shop) reserve(user stock.UserID, t pricing.Terms) stock.Receipt {
	s.t.Helper()
	return s.reserveAs(user, s.newID(user), t)
}

// reserveAs gives the order this id.
func (s *shop) reserveAs(user stock.UserID, id stock.OrderID, t pricing.Terms) stock.Receipt {
	s.t.Helper()
	raw, err := json.Marshal(t)
	s.must(err)
	r, err := s.ledger.Reserve(s.t.Context(), stock.Request{
		Activity: "sale", User: user, Key: "k" + string(id), Order: id, Terms: raw, At: s.at(),
		Lines: []stock.Line{{SKU: "cup", Quantity: t.Lines[0].Quantity}},
	})
	s.must(err)
	return r
}

// land runs the lander until the log is empty.
func (s *shop) land() {
	s.t.Helper()
	for {
		worked, err := s.lander.Step(s.t.Context())
		s.must(err)
		if !worked {
			return
		}
	}
}

// buy is an order that has landed.
func (s *shop) buy(user stock.UserID, t pricing.Terms) order.Order {
	s.t.Helper()
	r := s.reserve(user, t)
	s.land()
	return s.get(r.Order)
}

func (s *shop) get(id stock.OrderID) order.Order {
	s.t.Helper()
	o, err := s.store.Get(s.t.Context(), id)
	s.must(err)
	return o
}

// pay starts a payment and answers its page.
func (s *shop) pay(o order.Order) (payURL string) {
	s.t.Helper()
	payURL, err := s.desk.Pay(s.t.Context(), o.User, o.ID, "http://shop.example/orders")
	s.must(err)
	return payURL
}

// press is the shopper on the provider's page.
func (s *shop) press(payURL, action string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, payURL, strings.NewReader(url.Values{"action": {action}}.Encode()))
	s.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("press %s: %d %s", action, resp.StatusCode, body)
	}
}

// captured applies a status with captures "id amount currency".
func (s *shop) captured(o order.Order, n int, captures ...string) {
	s.t.Helper()
	_, err := s.cashier.Apply(s.t.Context(), o.ID, status(s.t, o.ID, n, captures...))
	s.must(err)
}

func status(t testing.TB, id stock.OrderID, n int, captures ...string) payment.Status {
	t.Helper()
	st := payment.Status{PaymentID: fmt.Sprintf("%s-%d", id, n), State: payment.Paid}
	for _, c := range captures {
		f := strings.Fields(c)
		amount, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		st.Captures = append(st.Captures, payment.Capture{ID: f[0], Amount: pricing.Money{Amount: amount, Currency: f[2]}})
	}
	return st
}

// keep lets the worker do all that is due now.
func (s *shop) keep() {
	s.t.Helper()
	for range 100 {
		worked, err := s.keeper.Step(s.t.Context())
		s.must(err)
		if !worked {
			return
		}
	}
	s.t.Fatal("the keeper never comes to rest")
}

// settle relays all events to the ledger and the watchers, and answers their
// topics in order, with the key.
func (s *shop) settle() (topics []string) {
	s.t.Helper()
	for {
		messages, err := s.store.Pending(s.t.Context(), int64(s.at()), 100)
		s.must(err)
		if len(messages) == 0 {
			return topics
		}
		for _, m := range messages {
			s.must(s.settler.Settle(s.t.Context(), m))
			s.must(s.watchers.Handle(s.t.Context(), m))
			s.must(s.store.Done(s.t.Context(), []int64{m.ID}))
			topics = append(topics, m.Topic+" "+m.Key)
		}
	}
}

// ledgerState is how the ledger holds an order's reservation.
func (s *shop) ledgerState(o order.Order) stock.State {
	s.t.Helper()
	r, err := s.ledger.Lookup(s.t.Context(), stock.Ref{ID: o.Reservation})
	s.must(err)
	return r.State
}

// wantAlarms compares what was raised so far.
func (s *shop) wantAlarms(want map[string]uint64) {
	s.t.Helper()
	got := raised(s.alarms)
	if len(got) != len(want) {
		s.t.Errorf("alarms %v, want %v", got, want)
		return
	}
	for k, n := range want {
		if got[k] != n {
			s.t.Errorf("alarms %v, want %v", got, want)
		}
	}
}

// front stands before the provider and fails on request.
type front struct {
	to      http.Handler
	mode    atomic.Int32
	calls   atomic.Int32 // that reached the provider
	refused atomic.Int32 // that were lost on their way
}

// What a front does with a call: pass it on, lose it on its way, or lose the
// answer of what was done.
const (
	up int32 = iota
	down
	answerLost
)

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch f.mode.Load() {
	case down:
		f.refused.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	case answerLost:
		f.to.ServeHTTP(httptest.NewRecorder(), r)
		f.calls.Add(1)
		w.WriteHeader(http.StatusGatewayTimeout)
	default:
		f.calls.Add(1)
		f.to.ServeHTTP(w, r)
	}
}

var _ outbox.Queue = (*sqlstore.Store)(nil)

// raised leaves out the kinds that were never raised.
func raised(a *order.Alarms) map[string]uint64 {
	counts := a.Counts()
	maps.DeleteFunc(counts, func(_ string, n uint64) bool { return n == 0 })
	return counts
}
