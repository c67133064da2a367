package walstock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/wal"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// commitLoop is the committer task, without its logging.
func commitLoop(l *walstock.Ledger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			worked, _ := l.Commit(ctx)
			if worked {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-l.Wake():
			}
		}
	}()
	return func() { cancel(); <-done }
}

func open(t testing.TB, dir string, o walstock.Options) *walstock.Ledger {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	l, err := walstock.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func running(t testing.TB, dir string, o walstock.Options) (l *walstock.Ledger, stop func()) {
	t.Helper()
	l = open(t, dir, o)
	loop := commitLoop(l)
	var once sync.Once
	stop = func() {
		once.Do(func() {
			loop()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return l, stop
}

func TestConformance(t *testing.T) {
	stocktest.Run(t, func(t *testing.T) stock.Ledger {
		l, _ := running(t, t.TempDir(), walstock.Options{SegmentSize: 1 << 20})
		return l
	})
}

func reserve(t testing.TB, l stock.Ledger, user, key string, n int) stock.Receipt {
	t.Helper()
	r, err := l.Reserve(t.Context(), stocktest.Request("a", user, key, n))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What was acknowledged is there after a restart, as the same reservation.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	l, stop := running(t, dir, walstock.Options{SegmentSize: 1 << 20})
	if err := l.Open(t.Context(), stocktest.Allocation("a", 100, 0)); err != nil {
		t.Fatal(err)
	}
	var receipts []stock.Receipt
	for i := range 20 {
		receipts = append(receipts, reserve(t, l, fmt.Sprint("u", i), "k", 1))
	}
	if _, err := l.Settle(t.Context(), stock.Settlement{ID: receipts[0].ID, Outcome: stock.Confirmed}); err != nil {
		t.Fatal(err)
	}
	head := l.Head()
	before, err := l.Replica(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	stop()

	l, _ = running(t, dir, walstock.Options{})
	if l.Head() != head {
		t.Errorf("head %v, want %v", l.Head(), head)
	}
	for i, want := range receipts {
		got, err := l.Reserve(t.Context(), stocktest.Request("a", fmt.Sprint("u", i), "k", 1))
		if err != nil || !got.Replayed || got.ID != want.ID || got.Order != want.Order || got.Expires != want.Expires {
			t.Errorf("after restart: %+v, %v; want %+v", got, err, want)
		}
	}
	if got, _ := l.Lookup(t.Context(), stock.Ref{ID: receipts[0].ID}); got.State != stock.Confirmed {
		t.Errorf("state %s after restart", got.State)
	}
	after, err := l.Replica(t.Context(), l.Head())
	if err != nil {
		t.Fatal(err)
	}
	if before["a"].Hash() != after["a"].Hash() {
		t.Error("replay gives another state hash")
	}
}

// Nothing that is not synced is visible: not as a receipt, not as a replay of
// the key, not in counts, not in the log.
func TestNothingVisibleBeforeSync(t *testing.T) {
	l := open(t, t.TempDir(), walstock.Options{SegmentSize: 1 << 20})
	t.Cleanup(func() { l.Close() })
	wait := func(do func()) chan struct{} {
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		<-l.Wake()
		return done
	}
	opened := wait(func() { _ = l.Open(context.Background(), stocktest.Allocation("a", 1, 0)) })
	if _, err := l.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-opened
	var got stock.Receipt
	held := wait(func() { got, _ = l.Reserve(context.Background(), stocktest.Request("a", "ann", "k", 1)) })

	ctx, cancel := context.WithCancel(t.Context())
	cancel() // answers that must wait give up at once
	if _, err := l.Reserve(ctx, stocktest.Request("a", "ann", "k", 1)); !errors.Is(err, stock.ErrUnknown) {
		t.Errorf("replay of an unsynced key: %v", err)
	}
	if _, err := l.Lookup(ctx, stock.Ref{Activity: "a", User: "ann", Key: "k"}); !errors.Is(err, stock.ErrUnknown) {
		t.Errorf("look-up of an unsynced key: %v", err)
	}
	if _, err := l.Reserve(ctx, stocktest.Request("a", "bob", "k", 1)); !errors.Is(err, stock.ErrUnknown) {
		t.Errorf("a refusal for the sake of an unsynced hold: %v", err)
	}
	if c, _ := l.Counts(t.Context(), "a"); c.Items[0].Free != 1 {
		t.Errorf("counts show an unsynced hold: %+v", c.Items[0])
	}
	if err := l.Board().Face("a").Refuses("bob", []stock.Line{{SKU: "s", Quantity: 1}}, got.At+1_800_000_000_100); err != nil {
		t.Errorf("the board refuses for the sake of an unsynced hold: %v", err)
	}
	for e, err := range l.Tail(t.Context(), stock.Cursor{Log: walstock.LogID, Epoch: walstock.Epoch}) {
		if err != nil || e.Kind == stock.EntryReserved {
			t.Errorf("the log shows %+v, %v", e, err)
		}
	}
	select {
	case <-held:
		t.Fatal("acknowledged before the sync")
	default:
	}
	if _, err := l.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-held
	if got.State != stock.Held {
		t.Errorf("receipt %+v", got)
	}
	if c, _ := l.Counts(t.Context(), "a"); c.Items[0].Free != 0 {
		t.Errorf("counts after the sync: %+v", c.Items[0])
	}
}

// failingFS fails every sync once told to, and has no room for new segments
// while it is full.
type failingFS struct {
	wal.FS
	fail  *atomic.Bool
	full  *atomic.Bool
	syncs *atomic.Int64
}

type failingFile struct {
	wal.File
	fs failingFS
}

func (f failingFS) OpenFile(name string, flag int, perm os.FileMode) (wal.File, error) {
	if f.full.Load() && flag&os.O_CREATE != 0 {
		return nil, syscall.ENOSPC
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f}, nil
}

func (f failingFile) Sync() error {
	if f.fs.fail.Load() {
		f.fs.syncs.Add(1)
		return errors.New("input/output error")
	}
	return f.File.Sync()
}

// After a failed sync the waiters get "unknown", never a refusal; nothing is
// accepted any more; the sync is not tried again; what was durable stays readable.
func TestFailedSync(t *testing.T) {
	fs := failingFS{wal.OS(), new(atomic.Bool), new(atomic.Bool), new(atomic.Int64)}
	dir := t.TempDir()
	l := open(t, dir, walstock.Options{FS: fs, SegmentSize: 1 << 20})
	stop := commitLoop(l)
	if err := l.Open(t.Context(), stocktest.Allocation("a", 3, 0)); err != nil {
		t.Fatal(err)
	}
	first := reserve(t, l, "ann", "k", 1)
	fs.fail.Store(true)
	if _, err := l.Reserve(t.Context(), stocktest.Request("a", "bob", "k", 1)); !errors.Is(err, stock.ErrUnknown) {
		t.Errorf("waiter of the failed sync: %v", err)
	}
	for _, user := range []string{"ann", "bob", "cy"} {
		if _, err := l.Reserve(t.Context(), stocktest.Request("a", user, "k2", 1)); !errors.Is(err, stock.ErrNotReady) {
			t.Errorf("%s after the failure: %v", user, err)
		}
	}
	if n := fs.syncs.Load(); n != 1 {
		t.Errorf("%d syncs after the failure, want 1", n)
	}
	if c, err := l.Counts(t.Context(), "a"); err != nil || c.Items[0].Free != 2 {
		t.Errorf("counts %+v, %v", c, err)
	}
	if l.Failed() == nil {
		t.Error("the ledger does not say that it failed")
	}
	stop()
	_ = l.Close()

	fs.fail.Store(false)
	l, _ = running(t, dir, walstock.Options{})
	if got := reserve(t, l, "ann", "k", 1); got.ID != first.ID || !got.Replayed {
		t.Errorf("after restart: %+v, want %+v", got, first)
	}
	reserve(t, l, "bob", "k", 1) // whichever it was, the same key now finds out
}

// A full disk is no failure: waiters get "unknown", new requests are refused,
// and when there is room again the same keys find out and selling goes on.
func TestFullDisk(t *testing.T) {
	fs := failingFS{wal.OS(), new(atomic.Bool), new(atomic.Bool), new(atomic.Int64)}
	l := open(t, t.TempDir(), walstock.Options{FS: fs, SegmentSize: 1 << 17})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // the committer with its pauses after errors
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = l.Commit(ctx)
			<-tick.C
		}
	}()
	t.Cleanup(func() { cancel(); <-done; _ = l.Close() })
	if err := l.Open(t.Context(), stocktest.Allocation("a", 1_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	fs.full.Store(true)
	var last string
	var err error
	accepted := 0
	for i := 0; err == nil && i < 10_000; i++ { // the segment has room for some
		last = fmt.Sprint("u", i)
		if _, err = l.Reserve(t.Context(), stocktest.Request("a", last, "k", 1)); err == nil {
			accepted++
		}
	}
	if !errors.Is(err, stock.ErrUnknown) {
		t.Fatalf("when the disk was full: %v", err)
	}
	if _, err := l.Reserve(t.Context(), stocktest.Request("a", "new", "k", 1)); !errors.Is(err, stock.ErrOverloaded) {
		t.Errorf("a new request while it is full: %v", err)
	}
	if c, err := l.Counts(t.Context(), "a"); err != nil || c.Items[0].Held != accepted {
		t.Errorf("counts while it is full: %+v, %v; %d were acknowledged", c, err, accepted)
	}
	if l.Failed() != nil {
		t.Errorf("a full disk is taken for a broken one: %v", l.Failed())
	}
	fs.full.Store(false)
	for timeout := time.After(10 * time.Second); ; {
		r, err := l.Reserve(t.Context(), stocktest.Request("a", last, "k", 1))
		if err == nil {
			if !r.Replayed {
				t.Error("the entry that was staged is not the one that stands")
			}
			break
		}
		select {
		case <-timeout:
			t.Fatalf("never resumed: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	reserve(t, l, "new", "k", 1)
	if c, _ := l.Counts(t.Context(), "a"); c.Items[0].Held != accepted+2 {
		t.Errorf("counts after it: %+v; want %d held", c.Items[0], accepted+2)
	}
}

// Snapshots let the log go, and recovery from snapshot and log gives the same state.
func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	o := walstock.Options{SegmentSize: 1 << 17, SnapshotAt: 100}
	l, stop := running(t, dir, o)
	if err := l.Open(t.Context(), stocktest.Allocation("a", 100_000, 0)); err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		for i := range 200 {
			r := reserve(t, l, fmt.Sprint("u", i%50), fmt.Sprint("k", round, "-", i), 1)
			if i%2 == 0 {
				if _, err := l.Settle(t.Context(), stock.Settlement{ID: r.ID, Outcome: stock.Released}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.Trim(t.Context(), l.Head()); err != nil {
			t.Fatal(err)
		}
		if worked, err := l.Compact(t.Context()); err != nil || !worked {
			t.Fatalf("compact: %v, %v", worked, err)
		}
	}
	var err error
	for _, err = range l.Tail(t.Context(), stock.Cursor{Log: walstock.LogID}) {
		break
	}
	if !errors.Is(err, stock.ErrTruncated) {
		t.Errorf("the log was not trimmed: %v", err)
	}
	before, err := l.Replica(t.Context(), l.Head())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	names, _ := filepath.Glob(filepath.Join(dir, "snapshot-*"))
	if len(names) != 2 {
		t.Fatalf("%d snapshots kept: %v", len(names), names)
	}

	check := func(what string) {
		t.Helper()
		l, stop := running(t, dir, o)
		after, err := l.Replica(t.Context(), l.Head())
		if err != nil || after["a"].Hash() != before["a"].Hash() {
			t.Errorf("%s: another state (%v)", what, err)
		}
		stop()
	}
	check("restart")
	rot(t, names[1])
	check("newest snapshot rotten")
	rot(t, names[0])
	if l, err := walstock.Open(dir, walstock.Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, stock.ErrTruncated) {
		t.Errorf("both snapshots rotten: %v", err)
		_ = l.Close()
	}
}

func rot(t *testing.T, name string) {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p[len(p)/2] ^= 1
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Past its bounds the ledger refuses, and changes nothing.
func TestBounds(t *testing.T) {
	l, _ := running(t, t.TempDir(), walstock.Options{SegmentSize: 1 << 20, MaxBacklog: 5})
	if err := l.Open(t.Context(), stocktest.Allocation("a", 100, 0)); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		reserve(t, l, fmt.Sprint("u", i), "k", 1)
	}
	if _, err := l.Reserve(t.Context(), stocktest.Request("a", "x", "k", 1)); !errors.Is(err, stock.ErrOverloaded) {
		t.Errorf("past the backlog bound: %v", err)
	}
	if err := l.Trim(t.Context(), l.Head()); err != nil {
		t.Fatal(err)
	}
	reserve(t, l, "x", "k", 1)
}

func BenchmarkReserve(b *testing.B) {
	for _, inFlight := range []int{1, 64, 512, 4096} {
		b.Run(fmt.Sprint("in-flight=", inFlight), func(b *testing.B) { benchmark(b, inFlight, b.N) })
	}
}

// BenchmarkRefuse is the ledger's own refusal, past the board.
func BenchmarkRefuse(b *testing.B) { benchmark(b, 512, 0) }

func benchmark(b *testing.B, inFlight, units int) {
	l, _ := running(b, b.TempDir(), walstock.Options{})
	a := stocktest.Allocation("a", units, 0)
	if err := l.Open(b.Context(), a); err != nil {
		b.Fatal(err)
	}
	terms := []byte(`{"currency":"CNY","total":9900,"lines":[{"sku":"s","version":1,"quantity":1,"unit":9900,"total":9900}],"late_payment":"rereserve_or_refund","restock":false}`)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range inFlight {
		wg.Go(func() {
			lines := []stock.Line{{SKU: "s", Quantity: 1}}
			user := make([]byte, 0, 32)
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				user = fmt.Appendf(user[:0], "u%d", n)
				_, err := l.Reserve(b.Context(), stock.Request{
					Activity: "a", User: stock.UserID(user), Key: "k", Order: "123456789012345678", Lines: lines, Terms: terms, At: a.At + 1,
				})
				if (err == nil) != (units > 0) {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// Whoever has been told that a unit came back is not refused by a board that
// does not know it yet: an answer without an entry of its own waits until the
// entry it rests on is shown, not only until it is synced.
func TestNothingToldBeforeItIsShown(t *testing.T) {
	l, stop := running(t, t.TempDir(), walstock.Options{})
	defer stop()
	const pairs = 4
	if err := l.Open(t.Context(), stocktest.Allocation("shown", 1_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var early atomic.Int64
	for p := range pairs {
		wg.Go(func() {
			for i := range 1000 {
				r, err := l.Reserve(t.Context(), stocktest.Request("shown", fmt.Sprint("u", p, "-", i), "k", 1))
				if err != nil {
					t.Error(err)
					return
				}
				end := stock.Settlement{ID: r.ID, Outcome: stock.Released, At: r.At}
				var twice sync.WaitGroup
				for again := range 12 {
					twice.Go(func() {
						for range again * 40 { // so that some ask in every moment of a commit
							runtime.Gosched()
						}
						if _, err := l.Settle(t.Context(), end); err != nil {
							t.Error(err)
							return
						}
						// At most the other pairs hold one each.
						if c, err := l.Counts(t.Context(), "shown"); err != nil || c.Items[0].Held > pairs-1 {
							early.Add(1)
						}
					})
				}
				twice.Wait()
			}
		})
	}
	wg.Wait()
	if n := early.Load(); n > 0 {
		t.Errorf("%d times a release was told before the board knew", n)
	}
}
