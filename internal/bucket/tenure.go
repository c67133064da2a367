package bucket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// State of a bucket as this worker sees it.
type State string

const (
	Waiting    State = "waiting"    // another worker's, or nobody's yet
	Opening    State = "opening"    // held; the fence is being taken
	Recovering State = "recovering" // the engine has lost something, or may have: it is being rebuilt
	Serving    State = "serving"
	Fenced     State = "fenced"  // another keeper has taken over
	Retired    State = "retired" // over for good
)

// tenure is what a keeper knows of one bucket. With the lease its step goes round:
//
//	open  the fence in the store, then either resume, where the engine accepts in
//	      the store's epoch and has everything that has landed; or recover
//	serve land what is new, tell the engine, pass units on
//
// Whatever goes wrong while serving leads back to open, which believes the store
// alone: the book is thrown away and made again.
type tenure struct {
	*Options
	place stock.Place
	log   stock.LogID

	// Of the keeper, under its lock.
	wanted  stock.Allocation
	lease   *hold // nil: not held
	busy    bool
	next    time.Time
	retired bool

	mu         sync.Mutex // held during a step
	state      State
	allocation stock.Allocation
	why        string    // the engine is not to be believed, and why; empty: look at it first
	since      time.Time // of why
	silent     time.Time // since when the engine could not be asked; zero: it could
	token      uint64
	epoch      uint32
	lander     *order.Lander
	book       *stock.Book // at mark, between steps; nil before it is made
	mark       stock.Cursor
	told       stock.Cursor
	trim       stock.Cursor // may be trimmed from trimAt on
	trimAt     time.Time
	retireAt   time.Time // when to look again whether it is over
	judged     int       // entries since the book was made
	newest     uint32    // epoch of an entry that was ever seen in the log
	moves      map[string]*transit
	idle       time.Duration
	wait       time.Duration
	failing    string
	total      counts

	published published
}

// Pauses of a bucket. Serving, it looks at the engine at least every lastIdle,
// so that one that lost its state is noticed though nobody buys.
const (
	firstIdle   = 5 * time.Millisecond
	lastIdle    = 50 * time.Millisecond
	firstRetry  = 20 * time.Millisecond
	lastRetry   = 500 * time.Millisecond
	trimEvery   = 5 * time.Second // what has landed stays in the engine's log this long at least, for those who follow it
	retireEvery = time.Second
)

func newTenure(o *Options, p stock.Place) *tenure {
	t := &tenure{Options: o, place: p, log: p.Log(), state: Waiting}
	t.publish()
	return t
}

// enter begins a tenure: the lease was just given.
func (t *tenure) enter() {
	t.state, t.why, t.failing, t.wait, t.silent = Opening, "", "", 0, time.Time{}
}

// leave ends it. What was learnt is of no use to a later one.
func (t *tenure) leave(as State) {
	t.state, t.book, t.lander, t.moves = as, nil, nil, nil
}

// step does one piece of work.
func (t *tenure) step(ctx context.Context) (worked bool, err error) {
	switch t.state {
	case Serving:
		worked, err = t.serve(ctx)
	case Opening, Recovering:
		worked, err = true, t.open(ctx)
	}
	switch {
	case ctx.Err() != nil:
		if t.state != Serving || err != nil {
			t.reopen()
		}
	case errors.Is(err, order.ErrFenced), errors.Is(err, stock.ErrStale):
		t.Logger.Info("bucket is kept elsewhere", "log", t.log, "why", err)
		t.leave(Fenced)
		return false, nil
	}
	return worked, err
}

// pause says when to step again, and logs a failure once per change.
func (t *tenure) pause(worked bool, err error) time.Duration {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != t.failing {
		t.Logger.Error("bucket", "log", t.log, "state", t.state, "error", err)
	}
	t.failing = text
	switch {
	case err != nil:
		t.wait = min(max(2*t.wait, firstRetry), lastRetry)
		return t.wait
	case worked:
		t.wait, t.idle = 0, 0
		return 0
	}
	t.wait, t.idle = 0, min(max(2*t.idle, firstIdle), lastIdle)
	return t.idle
}

// doubt makes the next step rebuild the engine.
func (t *tenure) doubt(why string, args ...any) {
	if t.why == "" {
		t.why, t.since = fmt.Sprintf(why, args...), t.silent
		if t.silent.IsZero() {
			t.since = t.Now()
		}
		t.Logger.Warn("bucket has to be rebuilt", "log", t.log, "epoch", t.epoch, "landed", t.mark.Position, "why", t.why)
	}
	t.reopen()
}

func (t *tenure) reopen() {
	t.state, t.book, t.lander = Opening, nil, nil
	if t.why != "" {
		t.state = Recovering
	}
}

// open takes the fence and makes the bucket serve by the shortest way that is safe.
func (t *tenure) open(ctx context.Context) (err error) {
	over, err := t.Buckets.Retired(ctx, t.log)
	if err != nil {
		return err
	}
	if over {
		t.leave(Retired)
		return nil
	}
	// A new token with each attempt: a call of the last one may be under way
	// still, and has to find that it is too late.
	if t.token, err = t.Store.Fence(ctx, t.log); err != nil {
		return err
	}
	at, err := t.Store.Watermark(ctx, t.log)
	if err != nil {
		return err
	}
	t.mark = at
	if t.why == "" && at != (stock.Cursor{}) {
		if err := t.resume(ctx, at); err != nil || t.state == Serving {
			return err
		}
	}
	return t.recover(ctx, at == (stock.Cursor{}))
}

// resume takes over a bucket that has lost nothing. The engine does not notice.
func (t *tenure) resume(ctx context.Context, at stock.Cursor) error {
	head, err := t.head(ctx, at.Epoch)
	switch {
	case errors.Is(err, stock.ErrNotReady):
		t.doubt("the engine does not accept in epoch %d: %v", at.Epoch, err)
		return nil
	case err != nil:
		return err
	case after(at, head):
		t.doubt("the engine is at %d.%d, %d.%d has landed", head.Epoch, head.Position, at.Epoch, at.Position)
		return nil
	}
	kept, err := t.Buckets.Kept(ctx, t.log)
	if err != nil {
		return err
	}
	if err := t.use(kept); err != nil {
		return err
	}
	for i := range kept.Reservations {
		if r := &kept.Reservations[i]; r.State == stock.Refused && r.ID.Epoch == at.Epoch {
			t.doubt("the book refused %s, and the engine may not know", r.ID)
			return nil
		}
	}
	t.begin(kept.Rules)
	return nil
}

// use makes the book of what the store keeps, to go on behind its watermark, and
// a lander for it.
func (t *tenure) use(kept order.Kept) error {
	book, err := restore(kept.Watermark.Epoch, kept)
	if err != nil {
		return err
	}
	book.Resume(kept.Watermark.Position)
	t.land(book, kept.Watermark)
	return nil
}

func restore(epoch uint32, kept order.Kept) (*stock.Book, error) {
	return stock.Restore(epoch, kept.Rules, func(yield func(stock.Reservation, error) bool) {
		for _, r := range kept.Reservations {
			if !yield(r, nil) {
				return
			}
		}
	})
}

func (t *tenure) land(book *stock.Book, at stock.Cursor) {
	t.book, t.mark, t.epoch, t.judged = book, at, at.Epoch, 0
	t.lander = order.NewLander(order.Landing{
		Store: t.Store, Log: t.Log, LogID: t.log, Snapshots: t.Snapshots, Landed: t.Landed,
		Token: t.token, Judge: t.judge, Alarms: t.Alarms, Logger: t.Logger, Now: t.Now,
	})
	t.made()
}

// begin serves. What has landed before may not have been told to the engine, nor
// may the units of a debit have been passed on.
func (t *tenure) begin(rules []stock.Entry) {
	t.state, t.told = Serving, stock.Cursor{Log: t.log, Epoch: t.epoch}
	t.trim, t.trimAt, t.silent = stock.Cursor{}, time.Time{}, time.Time{}
	t.moves = make(map[string]*transit)
	for i := range rules {
		t.debited(&rules[i], false)
	}
}

// judge is the last word about an entry of the engine.
func (t *tenure) judge(e stock.Entry) error {
	t.newest = max(t.newest, e.Cursor.Epoch)
	if e.Cursor.Epoch != t.epoch || e.Cursor.Position != e.Sequence {
		return fmt.Errorf("%w: entry %d of epoch %d stands at %d.%d", stock.ErrCorrupt, e.Sequence, t.epoch, e.Cursor.Epoch, e.Cursor.Position)
	}
	err := t.decide(&e)
	if errors.Is(err, stock.ErrMismatch) {
		// An order has one row: the same one twice cannot land as refused.
		if standing, _ := t.book.Lookup(e.Reservation.User, e.Reservation.Key, ""); standing != nil && standing.Order == e.Reservation.Order {
			err = fmt.Errorf("%w: order %s stands twice: %w", stock.ErrCorrupt, standing.Order, err)
		}
	}
	switch {
	case errors.Is(err, stock.ErrCorrupt):
		return err
	case err == nil:
		t.debited(&e, true)
	case e.Kind == stock.EntryReserved:
		t.total.refused++
		t.contradicted(err)
	default:
		t.total.disagreed++
		t.contradicted(err)
	}
	t.judged++
	return err
}

// contradicted: from here on the engine believes something that is not so.
func (t *tenure) contradicted(err error) {
	if t.why == "" {
		t.why, t.since = "the book answers otherwise: "+err.Error(), t.Now()
		t.Logger.Warn("bucket has to be rebuilt", "log", t.log, "epoch", t.epoch, "why", t.why)
	}
}

// serve lands what is new and tells who has to know.
func (t *tenure) serve(ctx context.Context) (worked bool, err error) {
	head, err := t.head(ctx, t.epoch)
	switch {
	case errors.Is(err, stock.ErrNotReady):
		t.doubt("the engine does not accept in epoch %d any more: %v", t.epoch, err)
		return true, nil
	case err != nil:
		return false, fmt.Errorf("head of %s: %w", t.log, err)
	case after(t.mark, head):
		t.doubt("the engine went back to %d.%d", head.Epoch, head.Position)
		return true, nil
	}
	if after(head, t.mark) {
		if worked, err = t.lander.Step(ctx); err != nil {
			if lost(err) {
				t.doubt("%v", err)
			} else {
				t.reopen()
			}
			return false, err
		}
		if !worked {
			t.doubt("the log lacks what the engine has up to %d.%d", head.Epoch, head.Position)
			return true, nil
		}
		t.mark = t.lander.Landed()
	}
	if t.why != "" {
		t.reopen() // the engine must not be told that what was refused is held
		return true, nil
	}
	if after(t.mark, t.told) {
		if err := t.Engine.Landed(ctx, t.mark); err != nil {
			return worked, fmt.Errorf("tell %s what has landed: %w", t.log, err)
		}
		t.told = t.mark
	}
	if err := t.credit(ctx); err != nil {
		return worked, err
	}
	if err := t.trimLog(ctx); err != nil {
		return worked, err
	}
	return worked, t.retire(ctx, head)
}

func (t *tenure) trimLog(ctx context.Context) error {
	now := t.Now()
	if now.Before(t.trimAt) {
		return nil
	}
	if t.trim.Position > 0 {
		if err := t.Log.Trim(ctx, t.trim); err != nil {
			return fmt.Errorf("trim %s: %w", t.log, err)
		}
	}
	t.trim, t.trimAt = t.mark, now.Add(trimEvery)
	return nil
}

// retire lets a bucket go that is over: its activity is closed, everything has
// landed, nothing is held, and the proof of it is written.
func (t *tenure) retire(ctx context.Context, head stock.Cursor) error {
	now := t.Now()
	if t.Final == nil || t.book.Phase() != stock.Closed || after(head, t.mark) || len(t.moves) > 0 || now.Before(t.retireAt) {
		return nil
	}
	t.retireAt = now.Add(retireEvery)
	if slices.ContainsFunc(t.book.Counts().Items, func(c stock.Count) bool { return c.Held > 0 }) {
		return nil
	}
	if final, err := t.Final(ctx, t.place.Activity); err != nil || !final {
		return err
	}
	if err := t.Engine.Fence(ctx, t.place, t.token); err != nil {
		return err
	}
	if worked, err := t.lander.Step(ctx); err != nil || worked {
		t.doubt("something was accepted after the final proof")
		return err
	}
	// In this order: after a crash between the two the bucket is rebuilt and
	// retired again; the other way round its keys would stay for ever.
	if err := t.Engine.Retire(ctx, t.place, t.token); err != nil {
		return err
	}
	end := stock.Cursor{Log: t.log, Epoch: t.epoch + 1}
	if err := t.Store.Land(ctx, order.Batch{Log: t.log, Token: t.token, From: t.mark, To: end, Retired: true}); err != nil {
		t.doubt("it is retired in the engine only")
		return err
	}
	t.leave(Retired)
	return nil
}

func after(a, b stock.Cursor) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Position > b.Position
}
