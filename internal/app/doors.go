package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/backend/redisgate"
	"sluice/internal/backend/redisstock"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/lib/clock"
	"sluice/internal/lib/id"
	"sluice/internal/lib/lease"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// doors are the opened backends.
type doors struct {
	clock  *clock.Clock
	store  *sqlstore.Sharded
	ledger stock.Ledger
	board  *stock.Board
	ids    *id.Source

	wal   *walstock.Ledger   // the ledger, when it is this process's own; else nil
	redis *redisstock.Ledger // the ledger, when it is a server's; else nil
	gates *redisgate.Shared  // what gateways share, there; else nil

	// Of a process that may be one of several; else nil.
	leases lease.Leases    // the store's or etcd's
	etcd   *etcdlease.Etcd // nil when the leases are the store's
	crew   *crew           // the processes of the fleet; nil without etcd
	bells  *bells          // nil without etcd
	placed *leaseDoor
	bus    *bus   // nil: the outbox is all there is
	holder string // this life of this process, to the others
	number *number
	knows  func(stock.ActivityID) bool // set before anything runs: the ledger should have it
}

// openDoors acquires what the configuration names, recovering what is on disk.
// It is the one place that knows which scheme is which backend.
func openDoors(ctx context.Context, c Config, log *slog.Logger) (d *doors, err error) {
	d = &doors{clock: clock.New()}
	if d.store, err = openStore(ctx, c, log); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	switch scheme(c.Stock) {
	case "wal":
		err = d.openWAL(ctx, c, log)
	case "redis", "rediss":
		err = d.openRedis(ctx, c, log)
	default:
		err = fmt.Errorf("%w: stock: %s", ErrConfig, redacted(c.Stock))
	}
	if err == nil && c.onKafka() {
		d.bus, err = openBus(ctx, c, d.store, log)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// openStore opens what the store's URL names.
func openStore(ctx context.Context, c Config, log *slog.Logger) (*sqlstore.Sharded, error) {
	o := sqlstore.Options{Log: log}
	if c.onServer() {
		return sqlstore.OpenSharded(ctx, c.Store, o)
	}
	s, err := sqlstore.Open(ctx, c.StorePath(), o)
	if err != nil {
		return nil, err
	}
	return sqlstore.Single(s), nil
}

// openWAL opens the ledger that is this process's own.
func (d *doors) openWAL(ctx context.Context, c Config, log *slog.Logger) (err error) {
	began := time.Now()
	var newest uint64 // order id ever given out
	visit := func(r *stock.Reservation) {
		if n, err := id.Parse(string(r.Order)); err == nil {
			newest = max(newest, n)
		}
	}
	if d.wal, err = walstock.Open(c.StockPath(), walstock.Options{Log: log, Visit: visit, KeepLog: int64(c.KeepLogMB) << 20}); err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	d.ledger, d.board = d.wal, d.wal.Board()
	log.Info("ledger recovered", "position", d.wal.Head().Position, "took", time.Since(began))
	// Time never runs behind what the log has seen, nor behind the ids that were
	// given out: ids of a busy millisecond are borrowed from the next ones, and
	// after a clock set back or two restarts in one instant they must not come
	// again.
	d.clock.Floor(d.wal.Last().Time())
	d.clock.Floor(id.Time(newest))
	d.ids = id.NewSource(0, d.clock.Now)
	mark, err := d.store.Watermark(ctx, walstock.LogID)
	if err == nil && mark.Position > d.wal.Head().Position {
		err = fmt.Errorf("orders are landed up to entry %d of the log, which ends at %d: log and store are not of the same time; restore both from one backup",
			mark.Position, d.wal.Head().Position)
	}
	if err == nil && mark.Position > 0 {
		err = d.wal.Trim(ctx, stock.Cursor{Log: walstock.LogID, Epoch: mark.Epoch, Position: mark.Position})
	}
	if err == nil {
		var proved []stock.ActivityID
		proved, err = d.store.Proved(ctx)
		d.wal.Release(proved...)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// openRedis opens the ledger that all processes share, and takes this one's
// place among them.
func (d *doors) openRedis(ctx context.Context, c Config, log *slog.Logger) (err error) {
	o := redisstock.Options{Log: log, Knows: func(a stock.ActivityID) bool { return d.knows == nil || d.knows(a) }}
	if d.redis, err = redisstock.Open(ctx, c.Stock, o); err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	if d.gates, err = redisgate.Open(ctx, c.Stock, redisgate.Options{}); err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	d.ledger, d.board = d.redis, stock.NewBoard()
	d.leases, d.holder = d.store, holderName()
	if c.elects() {
		if err := d.openEtcd(ctx, c, log); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
	}
	if err := d.openLeaseDoor(ctx, log); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	// Where this machine's clock is behind the one on which a number's former
	// holder minted, its ids must not come again.
	newest, err := d.store.List(ctx, order.Query{Limit: 1})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, o := range newest {
		if n, err := id.Parse(string(o.ID)); err == nil {
			d.clock.Floor(id.Time(n))
		}
	}
	if err := d.openIDs(ctx, d.placed.is == "", log); err != nil {
		return fmt.Errorf("worker number: %w", err)
	}
	return nil
}

// holderName is of this life of this process alone; people find it in the leases.
func holderName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%.40s-%d-%s", strings.ToLower(host), os.Getpid(), uuid.NewString())
}

func (d *doors) close() (err error) {
	if d.bus != nil {
		d.bus.close()
	}
	switch {
	case d.wal != nil:
		err = d.wal.Close()
	case d.redis != nil:
		d.redis.Close()
		if d.gates != nil {
			d.gates.Close()
		}
	}
	if d.etcd != nil {
		d.etcd.Close()
	}
	return errors.Join(err, d.store.Close())
}
