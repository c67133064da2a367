package redisstock_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// keeper plays the buckets' keeper with a store in memory: it lands what its
// own book accepts, gives the credits of moves, and rebuilds a bucket that does
// not accept.
type keeper struct {
	t testing.TB
	l *redisstock.Ledger

	mu      sync.Mutex
	paused  bool // lands nothing
	kept    map[stock.Place]*kept
	order   []stock.Place
	active  map[stock.ActivityID]int // calls under way that may wait for landing
	wake    chan struct{}
	refused []stock.ID // what was taken from the engine and did not stand
	rebuilt int
}

// kept is one bucket as the store has it.
type kept struct {
	rules   []stock.Entry
	book    *stock.Book
	epoch   uint32
	token   uint64
	landed  stock.Cursor
	failing error // of the last rebuild
}

func newKeeper(t testing.TB, l *redisstock.Ledger) *keeper {
	k := &keeper{t: t, l: l, kept: map[stock.Place]*kept{}, active: map[stock.ActivityID]int{}, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !k.step(ctx) {
			select {
			case <-k.wake:
			case <-ctx.Done():
			}
		}
	}
}

// step serves every bucket of the activities that somebody waits for.
func (k *keeper) step(ctx context.Context) (worked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.order {
		if k.active[p.Activity] > 0 && !k.paused {
			worked = true
			k.land(ctx, p)
		}
	}
	return worked
}

// pause lets nothing land from here on, nor be rebuilt; resume undoes it.
func (k *keeper) pause() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = true
}

func (k *keeper) resume() {
	k.mu.Lock()
	k.paused = false
	k.mu.Unlock()
	k.poke()
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// serve keeps an activity's buckets landing until it is undone.
func (k *keeper) serve(a stock.ActivityID) (undo func()) {
	k.mu.Lock()
	k.active[a]++
	k.mu.Unlock()
	k.poke()
	return func() {
		k.mu.Lock()
		k.active[a]--
		k.mu.Unlock()
	}
}

func (k *keeper) open(ctx context.Context, a stock.Allocation) error {
	if err := a.Validate(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for b := range max(a.Buckets, 1) {
		p := stock.Place{Activity: a.Activity, Bucket: b}
		if k.kept[p] != nil {
			continue
		}
		share := a.Share(b)
		k.kept[p] = &kept{rules: []stock.Entry{{Activity: a.Activity, Bucket: b, Sequence: 1, Kind: stock.EntryOpened, Allocation: &share}}}
		k.order = append(k.order, p)
		if err := k.rebuild(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// knows says whether an activity has been opened.
func (k *keeper) knows(a stock.ActivityID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[stock.Place{Activity: a}] != nil
}

// land takes the bucket's new entries to the book and tells the engine.
func (k *keeper) land(ctx context.Context, p stock.Place) {
	b := k.kept[p]
	before := b.landed
	err := k.judge(ctx, p, b)
	if err == nil && b.landed != before {
		err = k.l.Landed(ctx, b.landed)
	} else if err == nil {
		_, err = k.l.Head(ctx, p, b.epoch)
	}
	if err != nil && ctx.Err() == nil {
		if err = k.rebuild(ctx, p); err != nil && b.failing == nil {
			k.t.Logf("bucket %v is not rebuilt yet: %v", p, err)
		}
		b.failing = err
	}
}

var errRefused = errors.New("the book refuses an entry")

func (k *keeper) judge(ctx context.Context, p stock.Place, b *kept) error {
	for e, err := range k.l.Tail(ctx, b.landed) {
		if err != nil {
			return err
		}
		err := b.book.Judge(e)
		if errors.Is(err, stock.ErrCorrupt) {
			return err
		}
		b.landed = e.Cursor
		switch {
		case err != nil && e.Kind == stock.EntryReserved:
			k.refused = append(k.refused, e.Reservation.ID)
			return errRefused
		case err == nil && e.Kind == stock.EntryAdjusted:
			b.rules = append(b.rules, e)
			if m, debit, ok := stock.MoveOf(p.Bucket, e.Adjustment); ok && debit {
				k.credit(ctx, m, e.Adjustment.At)
			}
		}
	}
	return nil
}

func (k *keeper) credit(ctx context.Context, m stock.Move, at stock.Millis) {
	for try := 0; ; try++ {
		err := k.l.Credit(ctx, m, at)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == 100 {
			k.t.Errorf("credit of %+v: %v", m, err)
			return
		}
	}
}

// rebuild fences the bucket, lands what its stream still has, and lets it
// accept in a new epoch.
func (k *keeper) rebuild(ctx context.Context, p stock.Place) error {
	b := k.kept[p]
	k.rebuilt++
	b.token++
	if err := k.l.Fence(ctx, p, b.token); err != nil {
		return err
	}
	if b.book != nil {
		if err := k.judge(ctx, p, b); err != nil && errors.Is(err, stock.ErrNotReady) {
			return err
		}
	}
	var err error
	if b.book, err = stock.Restore(b.epoch+1, b.rules, reservationsOf(b.book)); err != nil {
		return err
	}
	b.epoch++
	b.landed = stock.Cursor{Log: p.Log(), Epoch: b.epoch}
	if err := k.l.Restore(ctx, p, b.token, b.book); err != nil {
		return err
	}
	return k.l.Activate(ctx, p, b.token, b.epoch)
}

func reservationsOf(b *stock.Book) iter.Seq2[stock.Reservation, error] {
	return func(yield func(stock.Reservation, error) bool) {
		if b == nil {
			return
		}
		b.Reservations(func(r *stock.Reservation) bool {
			one := *r
			one.Lines = slices.Clone(r.Lines)
			return yield(one, nil)
		})
	}
}

// served is a ledger whose buckets are kept.
type served struct {
	*redisstock.Ledger
	k *keeper
}

func (s *served) Open(ctx context.Context, a stock.Allocation) error {
	if err := s.k.open(ctx, a); err != nil {
		return err
	}
	return s.Ledger.Open(ctx, a)
}

func (s *served) Adjust(ctx context.Context, a stock.Adjustment) error {
	defer s.k.serve(a.Activity)()
	return s.Ledger.Adjust(ctx, a)
}

func (s *served) Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error) {
	defer s.k.serve(r.Activity)()
	return s.Ledger.Reserve(ctx, r)
}

// connect opens a ledger on a server; options is the query of its URL.
func connect(t testing.TB, s *servers.Server, options string, o redisstock.Options) *redisstock.Ledger {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l, err := redisstock.Open(t.Context(), "redis://"+s.Addr+"?"+options, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// serve empties a server and opens a kept ledger on it, whose time is its callers'.
func serve(t testing.TB, s *servers.Server, options string) *served {
	t.Helper()
	do(t, s, "FLUSHALL")
	var k *keeper
	l := connect(t, s, options, redisstock.Options{CallerTime: true, Knows: func(a stock.ActivityID) bool { return k.knows(a) }})
	k = newKeeper(t, l)
	return &served{l, k}
}

// heard asks for a bucket's head until Redis itself answers: connections that a
// restart broke are found out one by one.
func heard(t testing.TB, l *redisstock.Ledger, p stock.Place, epoch uint32) error {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		_, err := l.Head(t.Context(), p, epoch)
		if !errors.Is(err, stock.ErrUnknown) || time.Now().After(end) {
			return err
		}
	}
}

func do(t testing.TB, s *servers.Server, command ...string) any {
	t.Helper()
	reply, err := servers.Do(s, command...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}
