package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/lib/clock"
	"sluice/internal/lib/id"
	"sluice/internal/stock"
)

// doors are the opened backends.
type doors struct {
	clock  *clock.Clock
	ledger *walstock.Ledger
	store  *sqlstore.Store
}

// openDoors acquires what the configuration names, recovering what is on disk.
func openDoors(ctx context.Context, c Config, log *slog.Logger) (*doors, error) {
	d := &doors{clock: clock.New()}
	var err error
	if d.store, err = sqlstore.Open(ctx, c.StorePath(), sqlstore.Options{Log: log}); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	began := time.Now()
	var newest uint64 // order id ever given out
	visit := func(r *stock.Reservation) {
		if n, err := id.Parse(string(r.Order)); err == nil {
			newest = max(newest, n)
		}
	}
	if d.ledger, err = walstock.Open(c.StockPath(), walstock.Options{Log: log, Visit: visit}); err != nil {
		return nil, errors.Join(fmt.Errorf("stock: %w", err), d.store.Close())
	}
	log.Info("ledger recovered", "position", d.ledger.Head().Position, "took", time.Since(began))
	// Time never runs behind what the log has seen, nor behind the ids that were
	// given out: ids of a busy millisecond are borrowed from the next ones, and
	// after a clock set back or two restarts in one instant they must not come
	// again.
	d.clock.Floor(d.ledger.Last().Time())
	d.clock.Floor(id.Time(newest))
	mark, err := d.store.Watermark(ctx, walstock.LogID)
	if err == nil && mark.Position > d.ledger.Head().Position {
		err = fmt.Errorf("orders are landed up to entry %d of the log, which ends at %d: log and store are not of the same time; restore both from one backup",
			mark.Position, d.ledger.Head().Position)
	}
	if err == nil && mark.Position > 0 {
		err = d.ledger.Trim(ctx, stock.Cursor{Log: walstock.LogID, Epoch: mark.Epoch, Position: mark.Position})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), d.close())
	}
	return d, nil
}

func (d *doors) close() error { return errors.Join(d.ledger.Close(), d.store.Close()) }
