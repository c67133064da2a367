package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"sluice/internal/api"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/lib/call"
	"sluice/internal/lib/id"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/payment/sandbox"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// engine is the business, put together on its doors. Nothing runs yet; what does
// is said in roles.go. Every process has all that is common, since it costs
// nothing while nobody calls it.
type engine struct {
	*doors
	before
	role         role
	log          *slog.Logger
	shop         *sale.Shop
	sales        *sale.Desk // of the ops API
	orders       *order.Desk
	cashier      *order.Cashier
	changed      func() <-chan struct{} // as order.NewDesk takes it
	keeper       *order.Keeper
	settler      *order.Settler
	alarms       *order.Alarms
	watchers     *order.Watchers
	relay        *outbox.Relay
	outgoing     chan struct{}    // tells the relay that landing wrote messages
	snapshots    *order.Snapshots // products as orders keep them
	sandbox      *sandbox.Server  // nil where another process has it
	provider     *sandbox.Client
	rows         order.Store     // orders, as shoppers' desks read them
	shown        *sqlstore.Shown // what replicas may answer
	verifier     *gate.Verifier  // of shoppers' tokens; nil but on gateways
	shedding     *gate.Shedding
	dependencies []*dependency
	books        books
	stopping     atomic.Bool

	alone *alone // with the embedded ledger; else nil
	fleet *fleet // with a ledger that processes share; else nil
}

// Bounds of what one process does at once.
const maxWatchers = 200_000

// newEngine wires the business. at is where the payment provider and its client
// find each other when the configuration does not say.
func newEngine(c Config, d *doors, at Addresses, log *slog.Logger) (*engine, error) {
	return newEngineCalling(paymentOptions(), c, d, at, log)
}

// newEngineCalling says how the payment provider is called.
func newEngineCalling(pay call.Options, c Config, d *doors, at Addresses, log *slog.Logger) (*engine, error) {
	e := &engine{doors: d, role: roles[c.Role], log: log, outgoing: make(chan struct{}, 1), rows: d.store, shown: d.store.Shown()}
	e.shedding = gate.NewShedding(time.Now)
	now := d.clock.Now
	if err := e.openDoor(c); err != nil {
		return nil, err
	}
	e.openShop(c)
	e.openEntrance()
	toProvider, err := e.reach(pay)
	if err == nil {
		err = e.openSandbox(c, at.Pay, toProvider)
	}
	if err != nil {
		return nil, err
	}
	e.alarms = order.NewAlarms(log)
	e.cashier = order.NewCashier(d.store, []payment.Provider{e.provider}, callbacks(c, at.Shopper), e.alarms, log, now)
	newID := func(u stock.UserID) (stock.OrderID, error) {
		n, err := d.ids.Mint(string(u))
		return stock.OrderID(id.Format(n)), err
	}
	late := order.NewLate(d.store, d.ledger, newID, log, now)
	e.keeper = order.NewKeeper(d.store, e.cashier, late, e.alarms, now, d.clock.Jump)
	e.watchers = order.NewWatchers(maxWatchers)
	e.snapshots = order.NewSnapshots(func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
		return snapshot(ctx, d.store, sku, version)
	})
	e.settler = order.NewSettler(d.ledger, e.alarms, now)
	e.cashier.SettleEarly(e.settler)
	handlers := []outbox.Named{
		{Name: "ledger", Topics: []string{order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: e.settler.Settle},
	}
	if d.wal != nil {
		e.alone = e.newAlone()
		e.changed = e.alone.lander.Changed // nil elsewhere: other processes land
		handlers = append(handlers, outbox.Named{Name: "streams", Handle: e.watchers.Handle})
	} else {
		e.fleet = e.newFleet()
	}
	handlers = append(handlers, outbox.Named{Name: "notifications",
		Topics: []string{order.TopicPaymentDue, order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: notify(d.store.Store)})
	e.orders = order.NewDesk(d.store, e.reads(), e.cashier, e.changed, now)
	e.openRelay(handlers)
	e.books = e.newBooks()
	if e.fleet != nil && e.role.worker {
		e.fleet.singles = e.fleet.newSingles()
	}
	return e, nil
}

// openShop builds what shoppers and operators see. In a fleet each process shows
// it, and one at a time follows the clocks and tells the ledger (fleet.go).
func (e *engine) openShop(c Config) {
	d := e.doors
	if d.wal != nil {
		e.shop = sale.NewShop(paced{d.ledger, &e.before}, d.board, admission{sale.OpenGate{}, e.rules.Door}, d.ids, d.store, d.store, d.clock.Now)
		e.sales = sale.NewDesk(e.shop)
		return
	}
	e.shop = sale.NewShop(paced{d.ledger, &e.before}, d.board, admission{d.number, e.rules.Door}, d.ids, spread{d.store.Store, d.redis.Buckets(), d.bells}, d.store, d.clock.Now)
	e.sales = sale.NewFrontDesk(e.shop)
}

// spread is the store of activities of a fleet: each gets its number of buckets when
// it is created, and all processes are told when one has changed.
type spread struct {
	*sqlstore.Store
	buckets uint16
	bells   *bells
}

// CreateActivity implements sale.Store.
func (s spread) CreateActivity(ctx context.Context, a sale.Activity) error {
	if a.Buckets == 0 {
		a.Buckets = s.buckets
	}
	err := s.Store.CreateActivity(ctx, a)
	s.bells.saved(bellActivities)
	return err
}

// UpdateActivity implements sale.Store.
func (s spread) UpdateActivity(ctx context.Context, id stock.ActivityID, change func(*sale.Activity) error) (sale.Activity, error) {
	a, err := s.Store.UpdateActivity(ctx, id, change)
	if err == nil {
		s.bells.saved(bellActivities)
	}
	return a, err
}

// callbacks is where a provider reports to.
func callbacks(c Config, shopper net.Addr) func(provider string) string {
	base := c.Public
	if base == "" && shopper != nil {
		base = "http://" + reachable(shopper)
	}
	return func(provider string) string { return base + "/v1/payments/callbacks/" + provider }
}

// openSandbox opens the client that calls the sandbox provider and, where the
// ops API is, the provider with its state. Both sides share a secret derived
// from the fleet's own.
func (e *engine) openSandbox(c Config, pay net.Addr, through http.RoundTripper) error {
	key, err := gate.KeyIn(c.SecretsPath())
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("sandbox payment provider"))
	secret := mac.Sum(nil)
	var at string
	if e.role.console {
		at = reachable(pay)
		if e.sandbox, err = sandbox.Open(c.path("", "sandbox.journal"), sandbox.Options{Secret: secret, Log: e.log}); err != nil {
			return err
		}
	} else if u, err := url.Parse(c.Payment); err == nil {
		at = u.Host
	}
	if e.provider, err = sandbox.NewClient("http://"+at, sandbox.ClientOptions{Secret: secret, Transport: through}); err != nil {
		return errors.Join(err, e.closeSandbox())
	}
	return nil
}

func (e *engine) closeSandbox() error {
	if e.sandbox == nil {
		return nil
	}
	return e.sandbox.Close()
}

// reachable is an address that this machine can call: a listener on all
// addresses is reached on localhost.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// snapshot is what an order keeps of a product.
func snapshot(ctx context.Context, products catalog.Store, sku stock.SKU, version int) ([]byte, error) {
	p, err := products.Product(ctx, sku, version)
	if err != nil {
		return nil, err
	}
	p.Description = "" // an order shows what was bought, not how it was praised
	return json.Marshal(p)
}

// landed tells the relay that landing wrote messages.
func (e *engine) landed() {
	select {
	case e.outgoing <- struct{}{}:
	default:
	}
}

// notify keeps in-site notifications for the buyer. A message delivered again
// is the same notification.
func notify(s *sqlstore.Store) outbox.Handler {
	return func(ctx context.Context, m outbox.Message) error {
		var body struct {
			User stock.UserID `json:"user"`
		}
		if err := json.Unmarshal(m.Body, &body); err != nil {
			return fmt.Errorf("notification from message %d: %w", m.ID, err)
		}
		if err := s.SaveNotification(ctx, m.ID, body.User, m.Topic, m.Body, stock.Millis(m.At)); err != nil {
			return fmt.Errorf("%w: %w", outbox.ErrAway, err)
		}
		return nil
	}
}

// watching are the watchers of shoppers' streams: before one hears that something
// has changed, replicas are known to be behind it.
type watching struct {
	*order.Watchers
	shown *sqlstore.Shown
}

// Watch is that of order.Watchers.
func (w watching) Watch(id stock.ID, notify func(order.Change)) (stop func(), err error) {
	return w.Watchers.Watch(id, func(c order.Change) {
		w.shown.Told(id)
		notify(c)
	})
}

// notices are the store's notifications in the API's words.
type notices struct{ store *sqlstore.Shown }

// Notifications pages through a user's notifications, newest first.
func (n notices) Notifications(ctx context.Context, user stock.UserID, before int64, limit int) ([]api.Notification, error) {
	page, err := n.store.Notifications(ctx, user, before, limit)
	out := make([]api.Notification, len(page))
	for i, x := range page {
		out[i] = api.Notification{ID: x.ID, Topic: x.Topic, At: x.At, Event: x.Body}
	}
	return out, err
}
