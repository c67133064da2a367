package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"sluice/internal/api"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/lib/id"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/run"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/payment/sandbox"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// engine is the business, put together on its doors. Nothing runs yet.
type engine struct {
	*doors
	log      *slog.Logger
	shop     *sale.Shop
	sales    *sale.Desk
	orders   *order.Desk
	lander   *order.Lander
	keeper   *order.Keeper
	settler  *order.Settler
	alarms   *order.Alarms
	watchers *order.Watchers
	relay    *outbox.Relay
	outgoing chan struct{} // tells the relay that landing wrote messages
	auditor  *proof.Auditor
	proofs   *proof.Watch
	repairer *proof.Repairer
	sandbox  *sandbox.Server
	provider *sandbox.Client
}

// Bounds of what one process does at once.
const maxWatchers = 200_000

// newEngine wires the business. shopper and pay are the listeners that the
// payment provider and its client find each other by.
func newEngine(c Config, d *doors, shopper, pay net.Addr, log *slog.Logger) (*engine, error) {
	e := &engine{doors: d, log: log, outgoing: make(chan struct{}, 1)}
	now := d.clock.Now
	ids := id.NewSource(0, now)

	e.shop = sale.NewShop(d.ledger, d.ledger.Board(), sale.OpenGate{}, ids, d.store, d.store, now)
	e.sales = sale.NewDesk(e.shop)

	if err := e.openSandbox(c, pay); err != nil {
		return nil, err
	}
	e.alarms = order.NewAlarms(log)
	callback := func(provider string) string {
		return "http://" + reachable(shopper) + "/v1/payments/callbacks/" + provider
	}
	cashier := order.NewCashier(d.store, []payment.Provider{e.provider}, callback, e.alarms, log, now)
	newID := func(u stock.UserID) stock.OrderID {
		return stock.OrderID(id.Format(ids.Next(id.GeneOf(string(u)))))
	}
	late := order.NewLate(d.store, d.ledger, newID, log, now)
	e.keeper = order.NewKeeper(d.store, cashier, late, e.alarms, now, d.clock.Jump)
	e.watchers = order.NewWatchers(maxWatchers)
	e.lander = order.NewLander(order.Landing{
		Store: d.store, Log: d.ledger, LogID: walstock.LogID, Alarms: e.alarms, Logger: log, Now: now,
		Snapshots: order.NewSnapshots(func(ctx context.Context, sku stock.SKU, version int) ([]byte, error) {
			return snapshot(ctx, d.store, sku, version)
		}),
		Landed: func(landed []order.Landed) {
			e.watchers.Landed(landed)
			select {
			case e.outgoing <- struct{}{}:
			default:
			}
		},
	})
	e.orders = order.NewDesk(d.store, d.ledger, cashier, e.lander.Changed, now)
	e.settler = order.NewSettler(d.ledger, e.alarms, now)
	cashier.SettleEarly(e.settler)
	e.relay = outbox.New(d.store, []outbox.Named{
		{Name: "ledger", Topics: []string{order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: e.settler.Settle},
		{Name: "streams", Handle: e.watchers.Handle},
		{Name: "notifications", Topics: []string{order.TopicPaymentDue, order.TopicPaid, order.TopicCancelled, order.TopicRefunded}, Handle: notify(d.store)},
	}, now, rand.Float64, log, outbox.Options{Buried: e.alarms.DeadLetter})
	e.auditor = proof.New(d.store, d.ledger, walstock.LogID, now)
	e.proofs = proof.NewWatch(e.auditor, e.activities, d.ledger, e.alarms.Violation, now)
	e.repairer = proof.NewRepairer(e.auditor, e.hands(), d.store, now)
	return e, nil
}

// openSandbox opens the sandbox provider's state and the client that calls it.
// Both sides share a secret derived from the data directory's own.
func (e *engine) openSandbox(c Config, pay net.Addr) error {
	key, err := gate.Key(c.Data)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("sandbox payment provider"))
	secret := mac.Sum(nil)
	if e.sandbox, err = sandbox.Open(c.path("", "sandbox.journal"), sandbox.Options{Secret: secret, Log: e.log}); err != nil {
		return err
	}
	if e.provider, err = sandbox.NewClient("http://"+reachable(pay), sandbox.ClientOptions{Secret: secret}); err != nil {
		return errors.Join(err, e.sandbox.Close())
	}
	return nil
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

// Notifications are kept for noticesKept; trimSize bounds one step of forgetting.
const (
	noticesKept = 90 * 24 * time.Hour
	trimSize    = 500
)

// trimNotices forgets old notifications.
func (e *engine) trimNotices(ctx context.Context) (worked bool, err error) {
	return e.store.TrimNotifications(ctx, stock.MillisOf(e.clock.Now().Add(-noticesKept)), trimSize)
}

// notices are the store's notifications in the API's words.
type notices struct{ store *sqlstore.Store }

// Notifications pages through a user's notifications, newest first.
func (n notices) Notifications(ctx context.Context, user stock.UserID, before int64, limit int) ([]api.Notification, error) {
	page, err := n.store.Notifications(ctx, user, before, limit)
	out := make([]api.Notification, len(page))
	for i, x := range page {
		out[i] = api.Notification{ID: x.ID, Topic: x.Topic, At: x.At, Event: x.Body}
	}
	return out, err
}

// worker lists the background tasks, in the order in which they start.
func (e *engine) worker() []run.Task {
	return []run.Task{
		{Name: "log committer", Step: e.ledger.Commit, Idle: time.Second, Wake: e.ledger.Wake()},
		{Name: "log preparation", Step: e.ledger.Prepare, Idle: 100 * time.Millisecond},
		{Name: "snapshots", Step: e.compact, Idle: 10 * time.Second},
		{Name: "store checkpoint", Step: e.store.Checkpoint, Idle: 100 * time.Millisecond},
		{Name: "landing", Step: e.lander.Step, Idle: 20 * time.Millisecond, Wake: e.ledger.Advanced()},
		{Name: "outbox relay", Step: e.relay.Step, Idle: 50 * time.Millisecond, Wake: e.outgoing},
		{Name: "order keeper", Step: e.keeper.Step, Idle: 200 * time.Millisecond},
		{Name: "proof", Step: e.proofs.Step, Idle: time.Second},
		{Name: "old notifications", Step: e.trimNotices, Idle: time.Minute},
		{Name: "activity life", Step: e.sales.Step, Idle: 500 * time.Millisecond},
		{Name: "sandbox provider", Step: e.sandbox.Step, Idle: 100 * time.Millisecond, Wake: e.sandbox.Woken()},
	}
}

// activities lists all that were ever defined.
func (e *engine) activities(ctx context.Context) ([]stock.ActivityID, error) {
	all, err := e.store.Activities(ctx)
	ids := make([]stock.ActivityID, len(all))
	for i, a := range all {
		ids[i] = a.ID
	}
	return ids, err
}

// compact lets the log go behind what has landed and is in a snapshot.
func (e *engine) compact(ctx context.Context) (worked bool, err error) {
	if mark := e.lander.Landed(); mark.Position > 0 {
		if err := e.ledger.Trim(ctx, mark); err != nil {
			return false, err
		}
	}
	return e.ledger.Compact(ctx)
}

// ready answers nil when shoppers can be served.
func (e *engine) ready(ctx context.Context) error {
	if err := errors.Join(e.ledger.Failed(), e.ledger.Full()); err != nil {
		return err
	}
	if s := e.lander.Stats(); s.Stopped || s.Fenced {
		return fmt.Errorf("landing stopped: %s", s.Reason)
	}
	return e.store.Ping(ctx)
}

// gateway is the shopper API.
func (e *engine) gateway(c Config) (*api.Server, error) {
	verifier, demo, err := c.identities(e.clock.Now)
	if err != nil {
		return nil, err
	}
	front, err := storefront(c.Demo)
	if err != nil {
		return nil, err
	}
	front.Shop, front.Orders, front.Payments, front.Watchers = e.shop, e.orders, e.orders, e.watchers
	front.Notices = notices{e.store}
	front.Verifier, front.Demo, front.Now, front.Log = verifier, demo, e.clock.Now, e.log
	return api.New(front)
}

func (e *engine) close() error {
	e.provider.Close()
	return errors.Join(e.sandbox.Close(), e.doors.close())
}
