package sim

import (
	"context"
	"errors"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/catalog"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// kinds are all faults and misbehaviours. A run over many seeds in which one
// of them never happened proves nothing about it, and fails.
var kinds = map[string]string{
	"power cut":                "the disk keeps what was synced and some of the rest",
	"kill":                     "the process dies, the page cache does not",
	"clean restart":            "the ledger is closed and opened",
	"store reopened":           "the database file is closed and opened between two lives",
	"crash at a disk write":    "in the middle of a step, before, within or behind the write",
	"crash at a disk sync":     "likewise, a sync or a directory change",
	"crash before a commit":    "of the store",
	"crash behind a commit":    "of the store, before anybody is answered",
	"crash in recovery":        "while the next process comes up",
	"fsync error":              "EIO; what was to be synced may be lost and is still read",
	"short write":              "EIO in the middle of a write",
	"refused by a full disk":   "until there is room again",
	"disk full":                "ENOSPC",
	"stalled sync":             "shoppers go on while the log is being synced",
	"store refuses":            "a write of the store fails",
	"store answer lost":        "a write of the store is committed and reported as failed",
	"handler fails":            "of an event, before its effect",
	"handler fails afterwards": "of an event, with its effect done",
	"handler panics":           "of an event",
	"handler hangs":            "past the relay's time-out",
	"dead letter":              "an event was given up and is redriven by an operator",
	"second lander":            "another process takes the fence",
	"clock forward":            "step of the wall clock",
	"clock back":               "likewise",
	"time-outs held back":      "the keeper saw a clock jump",

	"reply lost":            "a shopper's acceptance never arrives",
	"retry of an unknown":   "the same key after no answer",
	"retry of a receipt":    "the same key after an answer",
	"same key, other body":  "",
	"double click":          "the same key twice at once",
	"gave up waiting":       "the connection is closed before the commit",
	"cancelled":             "by the shopper",
	"order not landed":      "pay or cancel before landing",
	"sold out":              "refused",
	"all held":              "refused",
	"insufficient":          "refused",
	"limit":                 "refused",
	"paused":                "refused",
	"ended":                 "refused",
	"not open":              "refused",
	"refused while syncing": "an answer that rests on an entry being synced",

	"start fails":           "nobody knows whether the payment was started",
	"start refused":         "for good",
	"query fails":           "",
	"provider hangs":        "until our time-out",
	"callback never":        "",
	"callback twice":        "",
	"callback late":         "",
	"callback reordered":    "",
	"callback forged":       "",
	"callback malformed":    "",
	"captured twice":        "",
	"wrong amount":          "",
	"wrong currency":        "",
	"payment fails":         "",
	"late payment":          "money for an order that is cancelled already",
	"late payment bought":   "the same again",
	"late payment refunded": "",
	"refund pending":        "",
	"refund call times out": "before its effect",
	"refund answer lost":    "after its effect",
	"refund refused":        "stuck until an operator asks again",
	"units added":           "by an operator",
	"units taken":           "by an operator",
	"delta refused":         "more than is free",
	"delta repeated":        "the same id again",
	"paused by operator":    "",
	"limits changed":        "",
	"window changed":        "",
	"drained":               "",
	"closed":                "",
	"refunded by operator":  "",
	"fulfilled":             "",
	"snapshot":              "",
	"expired":               "an unpaid order timed out",
	"audit under way":       "the auditor while work is in flight",
	"returned by refund":    "units go back to the sale",
	"free order":            "a total of 0 lands as paid",
	"log trimmed":           "",

	"log trimmed behind proofs": "of all activities whose first entries went",
	"trail cut":                 "the log went past its bound, or the disk was full",
	"final proof":               "of an activity that is over",

	"late order refunded": "an order that late money paid is refunded",
}

var (
	errPower = errors.New("sim: no power")
	errStore = errors.New("sim: the store failed")
)

// faults are armed by a step and go off at the first occasion.
type faults struct {
	dark bool // the process is gone; only a restart helps
	fuse int  // durable operations until it goes; 0 = not lit

	eio, short, stall     bool
	storeError, storeLost bool
	handler               string // what the next events meet
	handlers              int    // how many of them
	poison                string // the key that they stick to
	booting, full         bool
}

// armFault prepares one fault.
func (w *world) armFault() {
	f := &w.faults
	draw := w.rng.IntN(12)
	if w.long() && w.chance(1, 3) {
		draw = 5 // where a segment ends is where room is asked for
	}
	switch draw {
	case 0, 1, 2:
		f.fuse = 1 + w.rng.IntN(25)
		w.tell("  power will fail at operation %d from now", f.fuse)
	case 3:
		f.eio = true
	case 4:
		f.short = true
	case 5:
		f.full = true
		w.disk.Fill(int64(w.rng.IntN(1500)))
		if !w.long() && w.chance(1, 2) {
			w.compact()
		}
	case 6, 7:
		f.stall = true
	case 8:
		f.storeError = true
	case 9:
		f.storeLost = true
	default:
		f.handlers, f.poison = 1+w.rng.IntN(5), ""
		f.handler = pick(w, []string{"handler fails", "handler fails afterwards", "handler panics", "handler hangs"})
	}
}

// burn counts a durable operation and says whether the power fails at it.
func (w *world) burn() bool {
	f := &w.faults
	if f.fuse == 0 || w.quiet {
		return false
	}
	f.fuse--
	if f.fuse == 0 && f.booting {
		w.fire("crash in recovery")
	}
	return f.fuse == 0
}

// judge decides what becomes of an operation of the log's disk.
func (w *world) judge(op simdisk.Op) simdisk.Verdict {
	f := &w.faults
	if f.dark {
		return simdisk.Verdict{Err: simdisk.ErrPower}
	}
	if w.burn() {
		f.dark = true
		v := simdisk.Verdict{Err: simdisk.ErrPower, Done: w.chance(1, 2)}
		if op.Kind == simdisk.Write {
			w.fire("crash at a disk write")
			v.Bytes = w.rng.IntN(op.Len + 1)
		} else {
			w.fire("crash at a disk sync")
		}
		w.tell("    at %v", op)
		return v
	}
	switch op.Kind {
	case simdisk.Sync, simdisk.SyncDir:
		if f.stall {
			f.stall = false
			w.fire("stalled sync")
			w.shoppers.meanwhile()
		}
		if f.eio {
			f.eio = false
			w.fire("fsync error")
			w.tell("    at %v", op)
			return simdisk.Verdict{Err: simdisk.ErrIO}
		}
	case simdisk.Write:
		if f.short {
			f.short = false
			w.fire("short write")
			w.tell("    at %v", op)
			return simdisk.Verdict{Err: simdisk.ErrIO, Bytes: w.rng.IntN(op.Len)}
		}
	}
	return simdisk.Verdict{}
}

// crashNow takes the machine down between two steps, or soon within one.
func (w *world) crashNow() {
	if w.chance(1, 2) {
		w.faults.fuse = 1 + w.rng.IntN(6)
		return
	}
	w.restart()
}

// restart replaces the process by the next one: on the disk that a power cut,
// a kill or a clean stop left, with the store as it was committed.
func (w *world) restart() {
	w.shoppers.hangUp()
	f := &w.faults
	dark, full := f.dark, f.full && w.chance(3, 4)
	*f = faults{booting: true, full: full}
	w.disk.Judge(nil)
	if !full {
		w.disk.Fill(-1)
	}
	switch {
	case !dark && w.e.ledger.Failed() == nil && w.chance(1, 3):
		if err := w.e.ledger.Close(); err != nil && !full {
			w.violate("closing the ledger: %v", err)
		}
		w.disk = w.disk.Kill()
		w.fire("clean restart")
	case w.chance(1, 3):
		w.disk = w.disk.Kill()
		w.fire("kill")
	default:
		w.disk = w.disk.Image(simdisk.Random(w.rng))
		w.fire("power cut")
	}
	if w.chance(1, 6) {
		w.fire("store reopened")
		if err := w.reopenStore(); err != nil {
			w.violate("the store does not open again: %v", err)
			return
		}
	}
	if w.chance(1, 6) {
		f.fuse = 1 + w.rng.IntN(12)
	}
	_, err := w.boot()
	if err != nil && !f.dark && f.full { // an operator makes room
		w.tell("  it does not come up on a full disk: %v", err)
		f.full = false
		w.disk.Fill(-1)
		_, err = w.boot()
	}
	if err != nil && !f.dark {
		w.violate("the engine does not come up: %v", err)
	}
	f.booting = false
}

// reopenStore closes the database for real. What was committed is all there is.
func (w *world) reopenStore() (err error) {
	if err := w.store.Close(); err != nil {
		return err
	}
	w.store, err = sqlstore.Open(context.Background(), w.path, sqlstore.Options{Log: w.log, Readers: 1})
	return err
}

// secondLander lets another lander take the fence: this process may land no
// more, and is replaced.
func (w *world) secondLander() {
	if _, err := w.e.lander.Step(context.Background()); err != nil {
		return // it may not have the fence itself
	}
	other := w.newLander(w.e)
	if _, err := other.Step(context.Background()); err != nil || w.faults.dark {
		return
	}
	w.fire("second lander")
	w.commit()
	worked, err := w.e.lander.Step(context.Background())
	if worked && err == nil {
		w.violate("a lander whose fence was taken has landed")
	}
	if !w.faults.dark {
		w.restart()
	}
}

// flaky is an event handler that fails when told to.
func (w *world) flaky(_ string, h outbox.Handler) outbox.Handler {
	return func(ctx context.Context, m outbox.Message) error {
		f := &w.faults
		if f.dark {
			return errPower
		}
		kind := f.handler
		if kind == "" || f.handlers == 0 || f.poison == "" && !w.chance(1, 2) || f.poison != "" && f.poison != m.Key {
			return h(ctx, m)
		}
		f.poison = m.Key
		f.handlers--
		w.fire(kind)
		switch kind {
		case "handler fails afterwards":
			return errors.Join(h(ctx, m), errors.New("sim: it failed afterwards"))
		case "handler panics":
			panic("sim: a broken handler")
		case "handler hangs":
			<-ctx.Done()
			return ctx.Err()
		}
		return errors.New("sim: it failed")
	}
}

// tap is the store with faults at its commits. A transaction that was
// committed stays: SQLite is trusted to sync.
type tap struct {
	*sqlstore.Store
	w *world
}

func (s *tap) write(do func() error) error {
	w, f := s.w, &s.w.faults
	defer w.film.writing()()
	switch {
	case f.dark:
		return errPower
	case w.burn():
		if w.chance(1, 2) {
			w.fire("crash before a commit")
		} else if err := do(); err == nil {
			w.fire("crash behind a commit")
		}
		f.dark = true
		w.disk.Off()
		return errPower
	case f.storeError:
		f.storeError = false
		w.fire("store refuses")
		return errStore
	case f.storeLost:
		f.storeLost = false
		err := do()
		if err == nil {
			w.fire("store answer lost")
			err = errStore
		}
		return err
	}
	return do()
}

func (s *tap) read() error {
	if s.w.faults.dark {
		return errPower
	}
	return nil
}

func (s *tap) Fence(ctx context.Context, log stock.LogID) (token uint64, err error) {
	err = s.write(func() error { token, err = s.Store.Fence(ctx, log); return err })
	s.w.film.alone()
	return token, err
}

func (s *tap) Land(ctx context.Context, b order.Batch) error {
	return s.write(func() error { return s.Store.Land(ctx, b) })
}

func (s *tap) Update(ctx context.Context, id stock.OrderID, change func(*order.Order) ([]outbox.Message, error)) error {
	var is order.Order
	err := s.write(func() error {
		err := s.Store.Update(ctx, id, func(o *order.Order) ([]outbox.Message, error) {
			events, err := change(o)
			is = *o
			return events, err
		})
		if err == nil {
			s.w.oracle.updated(is)
		}
		return err
	})
	if !lateMoney(is) {
		s.w.film.alone()
	}
	return err
}

func (s *tap) CreateActivity(ctx context.Context, a sale.Activity) error {
	return s.write(func() error { return s.Store.CreateActivity(ctx, a) })
}

func (s *tap) UpdateActivity(ctx context.Context, id stock.ActivityID, change func(*sale.Activity) error) (a sale.Activity, err error) {
	err = s.write(func() error { a, err = s.Store.UpdateActivity(ctx, id, change); return err })
	return a, err
}

func (s *tap) SaveAdjustment(ctx context.Context, a stock.Adjustment) (had sale.Adjusted, err error) {
	err = s.write(func() error { had, err = s.Store.SaveAdjustment(ctx, a); return err })
	s.w.film.alone()
	return had, err
}

func (s *tap) FinishAdjustment(ctx context.Context, activity stock.ActivityID, id, refusal string) error {
	return s.write(func() error { return s.Store.FinishAdjustment(ctx, activity, id, refusal) })
}

func (s *tap) Done(ctx context.Context, ids []int64) error {
	return s.write(func() error { return s.Store.Done(ctx, ids) })
}

func (s *tap) Retry(ctx context.Context, id, at int64, reason string) error {
	return s.write(func() error { return s.Store.Retry(ctx, id, at, reason) })
}

func (s *tap) Bury(ctx context.Context, id int64, reason string) error {
	return s.write(func() error { return s.Store.Bury(ctx, id, reason) })
}

func (s *tap) SaveNotification(ctx context.Context, message int64, user stock.UserID, topic string, body []byte, at stock.Millis) error {
	err := s.write(func() error { return s.Store.SaveNotification(ctx, message, user, topic, body, at) })
	s.w.film.alone()
	return err
}

func (s *tap) Watermark(ctx context.Context, log stock.LogID) (stock.Cursor, error) {
	if err := s.read(); err != nil {
		return stock.Cursor{}, err
	}
	return s.Store.Watermark(ctx, log)
}

func (s *tap) Get(ctx context.Context, id stock.OrderID) (order.Order, error) {
	if err := s.read(); err != nil {
		return order.Order{}, err
	}
	return s.Store.Get(ctx, id)
}

// List answers due orders one at a time: the keeper works on a page with many
// hands, whose turns would not come from the seed.
func (s *tap) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	if q.DueBy != 0 {
		q.Limit = 1
	}
	return s.Store.List(ctx, q)
}

func (s *tap) Pending(ctx context.Context, now int64, limit int) ([]outbox.Message, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Store.Pending(ctx, now, limit)
}

func (s *tap) Activities(ctx context.Context) ([]sale.Activity, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Store.Activities(ctx)
}

func (s *tap) OpenAdjustments(ctx context.Context) ([]stock.Adjustment, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Store.OpenAdjustments(ctx)
}

func (s *tap) Product(ctx context.Context, sku stock.SKU, version int) (catalog.Product, error) {
	if err := s.read(); err != nil {
		return catalog.Product{}, err
	}
	return s.Store.Product(ctx, sku, version)
}

var (
	_ order.Store   = (*tap)(nil)
	_ sale.Store    = (*tap)(nil)
	_ outbox.Queue  = (*tap)(nil)
	_ catalog.Store = (*tap)(nil)
)
