package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice/internal/stock"
)

// Landing is what a Lander works with.
type Landing struct {
	Store     Store
	Log       stock.Log
	LogID     stock.LogID
	Snapshots *Snapshots
	Landed    func([]Landed) // told after each commit, may be nil; must not block
	Token     uint64         // of a fence that was taken already; 0: the first step takes it
	// Judge is for a ledger that has not the last word: stock.Book.Judge of the
	// book that has, at the store's watermark. nil: every entry stands.
	//
	// What it refuses to reserve lands as a refused order; a settlement or
	// adjustment that it answers otherwise is passed over; both raise an alarm.
	// stock.ErrCorrupt ends landing before that entry. After an error the book
	// may be ahead of the store: such a lander is done for, and so is its book.
	Judge  func(stock.Entry) error
	Alarms *Alarms
	Logger *slog.Logger
	Now    func() time.Time
}

// Lander turns the entries of one log into order rows. It takes the fence at
// its first step, so that an older lander of the same log can write no more.
//
// It never skips: an entry that cannot become an order, or a store that
// refuses, stops landing with an alarm, and the same place is tried again
// after 1, 2, 4, … s. What comes before a bad entry is landed first.
//
// Step belongs to one goroutine; everything else is safe for concurrent use.
type Lander struct {
	Landing
	offers   *offers
	token    uint64
	from     stock.Cursor // the store's watermark, when placed
	placed   bool
	pace     pace
	wait     time.Duration // of the next back-off
	retry    time.Time     // no attempt before it
	standing error         // what stopped the last attempt
	over     bool          // its book is ahead of the store: it will not try again

	mu      sync.Mutex
	stats   LandingStats
	waiting stock.Millis  // when the oldest entry known not to be landed happened
	changed chan struct{} // closed and replaced at each landing
}

// Bounds of landing.
const (
	firstRetry     = time.Second
	lastRetry      = 32 * time.Second
	batchesPerStep = 16 // then Step returns, so that a stop is never far away
)

// NewLander starts nothing; the caller runs Step.
func NewLander(l Landing) *Lander {
	return &Lander{Landing: l, token: l.Token, offers: newOffers(l.Snapshots), pace: newPace(), changed: make(chan struct{})}
}

// Step lands what the log has, in batches, and says whether there was any.
// Between retries of a stopped lander it answers what stopped it, at once.
// ErrFenced is for good.
func (l *Lander) Step(ctx context.Context) (worked bool, err error) {
	if l.fenced() {
		return false, ErrFenced
	}
	if l.over || l.Now().Before(l.retry) {
		return false, l.standing
	}
	worked, err = l.land(ctx)
	if err != nil && l.Judge != nil {
		l.over, l.standing = true, err
	}
	switch {
	case err == nil:
		l.resumed()
	case ctx.Err() != nil: // the process is stopping, landing has not failed
	case errors.Is(err, ErrFenced):
		l.stopped(err)
		l.Alarms.raise(AlarmFenced, "log", l.LogID, "error", err.Error())
	default:
		l.placed = false // whether the last batch was committed is for the store to say
		l.wait = min(max(2*l.wait, firstRetry), lastRetry)
		l.retry, l.standing = l.Now().Add(l.wait), err
		if l.stopped(err) {
			l.Alarms.raise(AlarmLanding, "log", l.LogID, "error", err.Error())
		}
	}
	return worked, err
}

func (l *Lander) land(ctx context.Context) (worked bool, err error) {
	if err := l.place(ctx); err != nil {
		return false, err
	}
	b := l.begin()
	batches := 0
	for e, err := range l.Log.Tail(ctx, l.from) {
		if err == nil && !after(e.Cursor, b.To) {
			continue // the log may repeat entries
		}
		if err == nil {
			l.await(entryTime(e))
			err = l.take(ctx, b, e)
		}
		if err != nil {
			// Everything before the bad place is good, and lands.
			err = errors.Join(l.commit(ctx, b), fmt.Errorf("landing %s after %d.%d: %w", l.LogID, b.To.Epoch, b.To.Position, err))
			if at := entryTime(e); at != 0 {
				l.await(at)
			}
			return worked, err
		}
		worked = true
		if !l.pace.full(b.entries, l.Now().Sub(b.began)) {
			continue
		}
		if err := l.commit(ctx, b); err != nil {
			return worked, err
		}
		if batches++; batches == batchesPerStep {
			return true, nil
		}
		b = l.begin()
	}
	if err := l.commit(ctx, b); err != nil {
		return worked, err
	}
	l.await(0)
	return worked, nil
}

// place takes the fence once, and finds the watermark whenever it is in doubt.
func (l *Lander) place(ctx context.Context) (err error) {
	if l.token == 0 {
		if l.token, err = l.Store.Fence(ctx, l.LogID); err != nil {
			return fmt.Errorf("fence %s: %w", l.LogID, err)
		}
	}
	if l.placed {
		return nil
	}
	if l.from, err = l.Store.Watermark(ctx, l.LogID); err != nil {
		return fmt.Errorf("watermark of %s: %w", l.LogID, err)
	}
	l.from.Log = l.LogID
	l.placed = true
	l.mu.Lock()
	l.stats.Landed = l.from
	l.mu.Unlock()
	return nil
}

// batch is a Batch being filled.
type batch struct {
	Batch
	entries int
	began   time.Time
	oldest  stock.Millis
	alarms  []alarm // of what the book would not have, once this has landed
	refused int
}

func (l *Lander) begin() *batch {
	return &batch{Batch: Batch{Log: l.LogID, Token: l.token, From: l.from, To: l.from}, began: l.Now()}
}

// take adds an entry. Only reserved entries become orders; the others have
// done their work in the ledger, and just move the watermark.
func (l *Lander) take(ctx context.Context, b *batch, e stock.Entry) error {
	var landed Landed
	if e.Kind == stock.EntryReserved {
		o, events, err := fromReservation(e, l.offers.terms)
		if err != nil && l.Judge != nil {
			err = fmt.Errorf("%w: %w", stock.ErrCorrupt, err) // it was never promised to anybody
		}
		if err != nil {
			return err
		}
		if o.Products, err = l.offers.products(ctx, e.Reservation); err != nil {
			return fmt.Errorf("products of order %s: %w", o.ID, err)
		}
		o.Position.Log = l.LogID
		landed = Landed{Order: o, Events: events}
	}
	if l.Judge != nil {
		if err := l.judge(b, e, &landed); err != nil {
			return err
		}
	}
	if e.Kind == stock.EntryReserved {
		b.Orders = append(b.Orders, landed)
	}
	if b.entries == 0 {
		b.oldest = entryTime(e)
	}
	b.entries++
	b.To = e.Cursor
	b.To.Log = l.LogID
	return nil
}

// judge takes an entry to the book that has the last word.
func (l *Lander) judge(b *batch, e stock.Entry, landed *Landed) error {
	why := l.Judge(e)
	switch {
	case errors.Is(why, stock.ErrCorrupt):
		return why
	case why == nil:
		if e.Kind == stock.EntryAdjusted || e.Kind == stock.EntryOpened {
			b.Rules = append(b.Rules, e)
		}
	case e.Kind == stock.EntryReserved:
		landed.refuse(why)
		b.refused++
		b.alarms = append(b.alarms, alarm{AlarmRefused, []any{"log", l.LogID, "reservation", e.Reservation.ID.String(), "why", why.Error()}})
	default:
		b.alarms = append(b.alarms, alarm{AlarmDisagreed, []any{"log", l.LogID, "epoch", e.Cursor.Epoch, "position", e.Cursor.Position, "why", why.Error()}})
	}
	return nil
}

// commit lands a batch and tells everyone who waits for it.
func (l *Lander) commit(ctx context.Context, b *batch) error {
	if b.entries == 0 {
		return nil
	}
	began := l.Now()
	if err := l.Store.Land(ctx, b.Batch); err != nil {
		return fmt.Errorf("land %d orders of %s: %w", len(b.Orders), l.LogID, err)
	}
	now := l.Now()
	took := now.Sub(began)
	l.pace.landed(b.entries, took)
	l.from = b.To
	l.mu.Lock()
	l.stats.batch(len(b.Orders), l.pace.size, took, age(b.oldest, now))
	l.stats.Landed = b.To
	l.stats.Refused += uint64(b.refused)
	l.stats.Disagreed += uint64(len(b.alarms) - b.refused)
	l.waiting = 0
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	for _, a := range b.alarms {
		l.Alarms.raise(a.kind, a.args...)
	}
	if l.Landing.Landed != nil && len(b.Orders) > 0 {
		l.Landing.Landed(b.Orders)
	}
	return nil
}

func after(a, b stock.Cursor) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Position > b.Position
}

func entryTime(e stock.Entry) stock.Millis {
	switch {
	case e.Reservation != nil:
		return e.Reservation.At
	case e.Settlement != nil:
		return e.Settlement.At
	case e.Adjustment != nil:
		return e.Adjustment.At
	case e.Allocation != nil:
		return e.Allocation.At
	}
	return 0
}

func age(at stock.Millis, now time.Time) time.Duration {
	if at == 0 {
		return 0
	}
	return max(0, now.Sub(at.Time()))
}
