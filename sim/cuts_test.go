package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/backend/walstock"
	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/order"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// TestEveryPowerCut plays a few short scenarios with the real ledger, store,
// lander, keeper, settler and desks, and then cuts the power at each operation
// of the log's disk × each image that the disk can be left as (every subset of
// up to ten unsynced sectors, torn ones too; samples above) × each commit of
// the store that can stand beside it. On every image the real ledger recovers
// and is held against what was promised by then; every pair with a store is
// compared row by row; and on every pair that differs in what recovery finds,
// the whole engine comes up, is asked again by everybody, and runs until it
// rests.
//
// CUTS=all takes more samples and lets the engine come up on every pair, also
// where another image left the ledger the very same files: ten minutes.
func TestEveryPowerCut(t *testing.T) {
	dir := scratch(t)
	base := template(t, dir)
	all := os.Getenv("CUTS") == "all"
	for _, s := range scripts {
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
			began := time.Now()
			c := &cuts{t: t, name: s.name, dir: dir, samples: 24, every: s.every, all: all, seen: map[state]bool{}}
			if all {
				c.samples = 400
			}
			c.shoot(base, s)
			if t.Failed() {
				return
			}
			c.develop(base)
			t.Run("at", func(t *testing.T) {
				for hand := range 2 {
					t.Run(strconv.Itoa(hand), func(t *testing.T) {
						t.Parallel()
						for i := hand; i < len(c.film.moments) && !c.stop(); i += 2 {
							c.moment(t, i)
						}
					})
				}
			})
			t.Logf("%d disk operations, %d store commits, %d log entries: %d crash images (all of %d moments, samples of %d), "+
				"%d pairs of image and commit (%d different), %d engines brought up and run to rest, in %s",
				len(c.film.moments)-1, len(c.stores)-1, len(c.entries), c.images, c.whole, c.sampled, c.pairs, c.states, c.engines,
				time.Since(began).Round(time.Millisecond))
			if !t.Failed() && (c.images < s.images || c.pairs < s.pairs) {
				t.Errorf("%d images and %d pairs, want at least %d and %d", c.images, c.pairs, s.images, s.pairs)
			}
		})
	}
}

// cuts is one scenario being cut.
type cuts struct {
	t       *testing.T
	name    string
	dir     string
	samples int
	every   int // so many different states to one that is brought up
	all     bool

	film     *film
	entries  [][]byte                      // that were ever staged, in order
	hashes   []map[stock.ActivityID]string // of the books behind each
	reserved map[stock.ID]int              // the position of each reservation's entry
	stores   []*boundary

	mu             sync.Mutex
	seen           map[state]bool
	images, pairs  int
	whole, sampled int
	states         int // different ones
	engines        int
	failures       int
}

// state is all that the outcome of a recovery depends on: the files as the log
// mended them, the store, and what had been promised.
type state struct {
	files    uint64
	store    int
	entries  int
	receipts int
}

var seed = maphash.MakeSeed()

func (c *cuts) stop() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures >= 3
}

func (c *cuts) fail(t *testing.T, m *moment, label string, format string, args ...any) {
	c.mu.Lock()
	c.failures++
	c.mu.Unlock()
	t.Errorf("%s: power cut after %v, image %s: %s", c.name, m.op, label, fmt.Sprintf(format, args...))
}

// shoot plays the scenario.
func (c *cuts) shoot(base string, s script) {
	path := filepath.Join(c.dir, strings.ReplaceAll(s.name, " ", "-")+".db")
	b, err := os.ReadFile(base)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	synctest.Test(c.t, func(t *testing.T) {
		w := c.world(path, simdisk.New(), 1)
		w.oracle, w.provider, w.shoppers, w.ops = newOracle(w), newProvider(w), newShoppers(w), newOperators(w)
		w.snapshotAt = s.snapshotAt
		if w.store, err = sqlstore.Open(context.Background(), path, sqlstore.Options{Readers: 1}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if w.e != nil {
				w.shoppers.hangUp()
			}
			_ = w.store.Close()
			if w.violation != "" {
				t.Errorf("%s, uncut: %s", s.name, w.violation)
			}
		}()
		if _, err := w.boot(); err != nil {
			t.Fatal(err)
		}
		p := &player{w: w, t: t, eager: s.eager}
		s.play(p)
		if c.film = p.film; c.film == nil || w.violation != "" {
			return
		}
		w.commit()
		c.film.cut()
		for _, e := range w.oracle.entries {
			c.entries = append(c.entries, slices.Clone(e))
		}
		log, err := os.ReadFile(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		c.stores = c.film.boundaries(log)
		for _, b := range c.stores {
			b.file = log[:min(b.store, int64(len(log)))] // for now
		}
		w.rest() // the scenario itself ends well
	})
}

func (c *cuts) world(path string, disk *simdisk.Disk, seed uint64) *world {
	return &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), log: slog.New(slog.DiscardHandler), begin: time.Now(),
		path: path, disk: disk, fired: map[string]int{}, quiet: true, evening: shortEvening}
}

// develop opens each of the stores and replays the entries.
func (c *cuts) develop(base string) {
	t := c.t
	at := stock.Books{}
	c.hashes, c.reserved = []map[stock.ActivityID]string{{}}, map[stock.ID]int{}
	for i, p := range c.entries {
		e, err := new(stock.Decoder).Entry(slices.Clone(p))
		if err == nil {
			err = at.Replay(e)
		}
		if err != nil {
			t.Fatalf("entry %d: %v", i+1, err)
		}
		if e.Kind == stock.EntryReserved {
			c.reserved[e.Reservation.ID] = i + 1
		}
		now := map[stock.ActivityID]string{}
		for id, b := range at {
			now[id] = b.Hash()
		}
		c.hashes = append(c.hashes, now)
	}
	for _, b := range c.stores {
		path := fmt.Sprintf("%s-%d", base, b.number)
		err := errors.Join(os.WriteFile(path, c.film.base, 0o600), os.WriteFile(path+"-wal", b.file, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		s, err := sqlstore.Open(t.Context(), path, sqlstore.Options{Readers: 1})
		if err != nil {
			t.Fatalf("store at commit %d: %v", b.number, err)
		}
		b.mark, err = s.Watermark(t.Context(), walstock.LogID)
		if err == nil {
			b.rows, err = s.List(t.Context(), order.Query{Limit: order.MaxPage})
		}
		if err = errors.Join(err, s.Close()); err == nil {
			b.file, err = os.ReadFile(path)
		}
		if err != nil {
			t.Fatalf("store at commit %d: %v", b.number, err)
		}
		remove(path)
	}
}

func remove(path string) {
	for _, end := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(path + end)
	}
}

// moment cuts the power after one operation.
func (c *cuts) moment(t *testing.T, at int) {
	m := &c.film.moments[at]
	samples := c.samples
	c.mu.Lock()
	if m.disk.Uncertain() > simdisk.Exhaustive {
		c.sampled++
	} else {
		c.whole++
	}
	c.mu.Unlock()
	for label, image := range m.disk.Images(uint64(at), samples) {
		if c.stop() {
			return
		}
		c.image(t, m, label, image)
	}
}

// image recovers the ledger of one image, and compares it with each store.
func (c *cuts) image(t *testing.T, m *moment, label string, image *simdisk.Disk) {
	untouched := image.Kill()
	l, err := walstock.Open("stock", options(image))
	if err != nil {
		c.fail(t, m, label, "the ledger does not open: %v", err)
		return
	}
	head := int(l.Head().Position)
	books, err := c.recovered(l, m)
	if err != nil {
		c.fail(t, m, label, "%v", err)
		return
	}
	files := digest(image)
	receipts := len(c.film.receiptsBy(m))
	for _, b := range c.stores {
		if !m.goes(b) {
			continue
		}
		if err := c.agree(books, head, b); err != nil {
			c.fail(t, m, label, "with the store at commit %d of %d: %v", b.number, len(c.stores)-1, err)
			return
		}
		s := state{files, b.number, c.film.entriesBy(m), receipts}
		c.mu.Lock()
		c.pairs++
		known := c.seen[s]
		if c.seen[s] = true; !known {
			c.states++
		}
		up := c.all || !known && c.states%c.every == 0
		if up {
			c.engines++
		}
		c.mu.Unlock()
		if !up {
			continue
		}
		if v := c.live(t, m, b, untouched.Kill(), false); v.violation != "" {
			c.fail(t, m, label, "with the store at commit %d of %d: %s\n%s", b.number, len(c.stores)-1, v.violation, c.live(t, m, b, untouched.Kill(), true).trace)
			return
		}
	}
	c.mu.Lock()
	c.images++
	c.mu.Unlock()
}

// recovered holds the ledger of an image against what was promised by then.
func (c *cuts) recovered(l *walstock.Ledger, m *moment) (map[stock.ActivityID]*stock.Book, error) {
	head, least := int(l.Head().Position), c.film.entriesBy(m)
	if head < least || head > len(c.entries) {
		return nil, fmt.Errorf("the log ends at %d, %d entries had been seen and %d were ever staged", head, least, len(c.entries))
	}
	ctx := context.Background()
	first := 0
	for first < head && truncated(l, first) {
		first++
	}
	next := first
	for e, err := range l.Tail(ctx, after(first)) {
		if err != nil {
			return nil, fmt.Errorf("tail after %d: %w", next, err)
		}
		if string(stock.AppendEntry(nil, &e)) != string(c.entries[next]) {
			return nil, fmt.Errorf("entry %d reads otherwise after recovery", next+1)
		}
		next++
	}
	if next != head {
		return nil, fmt.Errorf("the log reads up to %d of %d", next, head)
	}
	books, err := l.Replica(ctx, l.Head())
	if err != nil {
		return nil, err
	}
	if len(books) != len(c.hashes[head]) {
		return nil, fmt.Errorf("%d books at %d, want %d", len(books), head, len(c.hashes[head]))
	}
	for id, b := range books {
		if err := b.Check(); err != nil || b.Hash() != c.hashes[head][id] {
			return nil, fmt.Errorf("the book of %s at %d has another state than its entries give: %w", id, head, err)
		}
	}
	for _, in := range c.film.receiptsBy(m) {
		got, err := l.Lookup(ctx, stock.Ref{Activity: in.activity, User: in.user, Key: in.key})
		if err != nil || !same(got.Reservation, in.receipt.Reservation) {
			return nil, fmt.Errorf("the receipt of %s was %+v, and is %+v, %w", in.key, in.receipt.Reservation, got.Reservation, err)
		}
	}
	return books, nil
}

func truncated(l *walstock.Ledger, position int) bool {
	for _, err := range l.Tail(context.Background(), after(position)) {
		return errors.Is(err, stock.ErrTruncated)
	}
	return false
}

// agrees lists how a reservation may stand beside its order right after a
// recovery: the log may not have heard of the order's end, but not the reverse.
var agrees = map[order.State][]stock.State{
	order.Created:   {stock.Held},
	order.Paid:      {stock.Held, stock.Confirmed},
	order.Fulfilled: {stock.Held, stock.Confirmed},
	order.Cancelled: {stock.Held, stock.Released, stock.Expired},
	order.Refunded:  {stock.Held, stock.Confirmed, stock.Returned},
}

// agree holds the rows of a store against the books of a ledger.
func (c *cuts) agree(books map[stock.ActivityID]*stock.Book, head int, b *boundary) error {
	mark := int(b.mark.Position)
	if mark > head {
		return fmt.Errorf("orders are landed up to entry %d of a log that ends at %d", mark, head)
	}
	rows := map[stock.ID]order.Order{}
	for _, row := range b.rows {
		if _, twice := rows[row.Reservation]; twice {
			return fmt.Errorf("two orders of reservation %s", row.Reservation)
		}
		rows[row.Reservation] = row
	}
	count := 0
	var err error
	for _, book := range books {
		book.Reservations(func(r *stock.Reservation) bool {
			row, landed := rows[r.ID]
			switch {
			case landed:
				count++
				if row.ID != r.Order || row.User != r.User || row.Key != r.Key || int(row.Position.Position) > mark || !slices.Contains(agrees[row.State], r.State) {
					err = fmt.Errorf("order %s (%s, version %d, entry %d of %d) is not reservation %s (%s)", row.ID, row.State, row.Version, row.Position.Position, mark, r.ID, r.State)
				}
			case r.State != stock.Held:
				err = fmt.Errorf("reservation %s is %s and has no order", r.ID, r.State)
			case c.reserved[r.ID] <= mark:
				err = fmt.Errorf("reservation %s is behind the watermark %d and has no order", r.ID, mark)
			}
			return err == nil
		})
	}
	if err == nil && count != len(rows) {
		err = fmt.Errorf("%d of %d orders have no reservation", len(rows)-count, len(rows))
	}
	return err
}

// digest is of all files, as they are read.
func digest(d *simdisk.Disk) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	names, _ := d.ReadDir("stock")
	slices.Sort(names)
	for _, name := range names {
		f, err := d.OpenFile(filepath.Join("stock", name), os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		size, _ := f.Size()
		p := make([]byte, size)
		_, _ = f.ReadAt(p, 0)
		fmt.Fprintf(&h, "%s %d ", name, size)
		_, _ = h.Write(p)
	}
	return h.Sum64()
}

// live brings the engine up on an image and a store, lets everybody ask again
// what they had asked before, and runs it until it rests.
func (c *cuts) live(t *testing.T, m *moment, b *boundary, image *simdisk.Disk, traced bool) (r result) {
	path := filepath.Join(c.dir, fmt.Sprintf("live-%p-%d.db", image, b.number))
	defer remove(path)
	if err := os.WriteFile(path, b.file, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(*testing.T) {
		w := c.world(path, image, uint64(m.ops)<<16|uint64(b.number))
		if traced {
			w.trace = &strings.Builder{}
			w.log = slog.New(slog.NewTextHandler(logged{w}, nil))
		}
		defer func() {
			if p := recover(); p != nil {
				w.violate("panic: %v\n%s", p, debug.Stack())
			}
			if w.e != nil {
				w.shoppers.hangUp()
			}
			if w.store != nil {
				_ = w.store.Close()
			}
			if r.violation = w.violation; w.trace != nil {
				r.trace = w.trace.String()
			}
		}()
		c.film.restore(w, m, b, c.entries)
		var err error
		if w.store, err = sqlstore.Open(context.Background(), path, sqlstore.Options{Log: w.log, Readers: 1}); err != nil {
			w.violate("open the store: %v", err)
			return
		}
		if _, err := w.boot(); err != nil {
			w.violate("the engine does not come up: %v", err)
			return
		}
		w.again()
		if w.violation == "" {
			w.rest()
		}
	})
	return r
}

// again is everybody with what they remember: shoppers press again, operators
// look whether their deltas are in force.
func (w *world) again() {
	for id, applied := range w.oracle.deltas {
		if applied && !slices.ContainsFunc(w.ops.activities, func(a sale.Activity) bool { return w.oracle.books[a.ID].adjusted["stock-"+id] }) {
			w.violate("delta %s was answered as applied, and is gone", id)
		}
	}
	w.oracle.check(true)
	for _, in := range w.shoppers.asked {
		w.shoppers.call(in, in.lines).lost = false
	}
	w.commit()
	w.shoppers.replies()
	w.oracle.check(true)
}
