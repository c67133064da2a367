package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"sluice/internal/backend/walstock"
	"sluice/internal/lib/wal/simdisk"
	"sluice/internal/stock"
)

// TestLedgerCrashImages runs the embedded ledger alone through reserves,
// settlements, adjustments, rotation, snapshots and trimming, and recovers it
// from every kind of crash image of every prefix of what reached its disk. The
// recovered book is the one that the same operations give without a disk, up
// to some entry not before the last acknowledged one; every receipt is given
// again; and the ledger goes on from there through a second power cut.
func TestLedgerCrashImages(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			r := &rehearsal{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 9)), disk: simdisk.New()}
			r.run(80)
			t.Logf("seed %d: %d crash images of %d operations, %d entries", seed, r.images, len(r.disk.Ops()), len(r.hashes)-1)
			if r.images < 500 || !r.trimmed {
				t.Errorf("only %d images, trimmed: %v", r.images, r.trimmed)
			}
		})
	}
}

// rehearsal is one run of the ledger beside a bare book.
type rehearsal struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	disk     *simdisk.Disk
	ledger   *walstock.Ledger
	book     *stock.Book
	hashes   []string // of the book behind each log position
	acked    uint64
	receipts []stock.Receipt // acknowledged
	requests []stock.Request // theirs
	images   int
	trimmed  bool
}

const sold stock.ActivityID = "a"

func options(d *simdisk.Disk) walstock.Options {
	return walstock.Options{FS: d, Log: slog.New(slog.DiscardHandler), SegmentSize: segmentSize, SnapshotAt: 12}
}

func (r *rehearsal) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// durable runs a call of a ledger and the commits that answer it.
func durable(l *walstock.Ledger, call func()) {
	done := make(chan struct{})
	go func() {
		call()
		close(done)
	}()
	synctest.Wait()
	_, _ = l.Commit(context.Background())
	<-done
}

func (r *rehearsal) run(steps int) {
	var err error
	r.ledger, err = walstock.Open("stock", options(r.disk))
	r.must(err)
	r.disk.Saw(r.powerCuts)
	a := stock.Allocation{ID: "x", Activity: sold, Epoch: walstock.Epoch, OpensAt: 1, ClosesAt: 1 << 40, Hold: 1000, PerUser: 40, At: 1,
		Items: []stock.Item{{SKU: "s", Units: 400, PerUser: 30, PerOrder: 3}, {SKU: "t", Units: 5, PerOrder: 2}}}
	r.book, _, err = stock.NewBook(a)
	r.must(err)
	r.hashes = []string{"", r.book.Hash()}
	durable(r.ledger, func() { err = r.ledger.Open(context.Background(), a) })
	r.must(err)
	r.acked = 1
	for range steps {
		switch r.rng.IntN(8) {
		case 0:
			r.settle()
		case 1:
			r.adjust()
		case 2:
			r.compact()
		default:
			r.reserve()
		}
	}
}

// reserve puts a few requests into one batch.
func (r *rehearsal) reserve() {
	n := 1 + r.rng.IntN(3)
	got, errs := make([]stock.Receipt, n), make([]error, n)
	var asked []stock.Request
	for i := range n {
		req := stock.Request{
			Activity: sold, User: stock.UserID(fmt.Sprint("u", r.rng.IntN(20))), Key: fmt.Sprint("k", len(r.hashes), ".", i),
			Order: stock.OrderID(fmt.Sprint(1000*len(r.hashes) + i)), At: stock.Millis(10 + len(r.hashes)),
			Lines: []stock.Line{{SKU: "s", Quantity: 1 + r.rng.IntN(2)}}, Terms: bytes.Repeat([]byte{'.'}, 1+r.rng.IntN(2)*r.rng.IntN(6000)),
		}
		asked = append(asked, req)
		go func() { got[i], errs[i] = r.ledger.Reserve(context.Background(), req) }()
		synctest.Wait() // in this order
		if _, e, err := r.book.Reserve(&req); e != nil && err == nil {
			r.hashes = append(r.hashes, r.book.Hash())
		}
	}
	_, err := r.ledger.Commit(context.Background())
	r.must(err)
	synctest.Wait()
	r.acked = uint64(len(r.hashes)) - 1
	for i := range n {
		if errs[i] == nil {
			r.receipts, r.requests = append(r.receipts, got[i]), append(r.requests, asked[i])
		}
	}
}

func (r *rehearsal) settle() {
	if len(r.receipts) == 0 {
		return
	}
	s := stock.Settlement{ID: r.receipts[r.rng.IntN(len(r.receipts))].ID, At: stock.Millis(10 + len(r.hashes)),
		Outcome: []stock.Outcome{stock.Confirmed, stock.Released, stock.Expired, stock.Returned}[r.rng.IntN(4)]}
	_, e, want := r.book.Settle(s)
	if e != nil {
		r.hashes = append(r.hashes, r.book.Hash())
	}
	var got error
	durable(r.ledger, func() { _, got = r.ledger.Settle(context.Background(), s) })
	if (got == nil) != (want == nil) {
		r.t.Fatalf("settle: %v; without a disk: %v", got, want)
	}
	r.acked = uint64(len(r.hashes)) - 1
}

func (r *rehearsal) adjust() {
	a := stock.Adjustment{ID: fmt.Sprint("d", len(r.hashes)), Activity: sold, SKU: "s", Delta: r.rng.IntN(9) - 3, At: stock.Millis(10 + len(r.hashes))}
	e, want := r.book.Adjust(a)
	if e != nil {
		r.hashes = append(r.hashes, r.book.Hash())
	}
	var got error
	durable(r.ledger, func() { got = r.ledger.Adjust(context.Background(), a) })
	if (got == nil) != (want == nil) {
		r.t.Fatalf("adjust: %v; without a disk: %v", got, want)
	}
	r.acked = uint64(len(r.hashes)) - 1
}

func (r *rehearsal) compact() {
	r.must(r.ledger.Trim(context.Background(), r.ledger.Head()))
	_, err := r.ledger.Compact(context.Background())
	r.must(err)
	_, err = r.ledger.Prepare(context.Background())
	r.must(err)
	for _, err := range r.ledger.Tail(context.Background(), stock.Cursor{Log: walstock.LogID}) {
		r.trimmed = r.trimmed || err != nil
		break
	}
}

// powerCuts recovers from the images of this moment.
func (r *rehearsal) powerCuts(op simdisk.Op) {
	for label, image := range r.disk.Images(r.seed+uint64(op.Number), 4) {
		r.images++
		if err := r.recover(image); err != nil {
			r.t.Fatalf("seed %d, power cut after %v, image %s: %v", r.seed, op, label, err)
		}
		if r.images%7 == 0 || op.Kind != simdisk.Write {
			continue // all of a few, one of many
		}
		break
	}
	r.images++
	if err := r.recover(r.disk.Kill()); err != nil {
		r.t.Fatalf("seed %d, killed after %v: %v", r.seed, op, err)
	}
}

func (r *rehearsal) recover(image *simdisk.Disk) error {
	l, err := walstock.Open("stock", options(image))
	if err != nil {
		return err
	}
	if err := r.stands(l, r.acked, uint64(len(r.hashes))-1); err != nil {
		return err
	}
	// It goes on: one more reservation, and the power fails at once.
	head := l.Head().Position
	if head == 0 || r.images%3 != 0 {
		return nil
	}
	var more stock.Receipt
	req := stock.Request{Activity: sold, User: "late", Key: "k", Order: "1", Lines: []stock.Line{{SKU: "t", Quantity: 1}}, At: 1 << 30}
	durable(l, func() { more, err = l.Reserve(context.Background(), req) })
	if err != nil {
		return fmt.Errorf("reserve after recovery: %w", err)
	}
	again, err := walstock.Open("stock", options(image.Image(func(int) int { return 0 })))
	if err != nil {
		return fmt.Errorf("second power cut: %w", err)
	}
	if at := again.Head().Position; at != head+1 {
		return fmt.Errorf("second power cut: the log ends at %d, %d entries were acknowledged", at, head+1)
	}
	got, err := again.Reserve(context.Background(), req)
	if err != nil || !got.Replayed || !same(got.Reservation, more.Reservation) {
		return fmt.Errorf("second power cut: the receipt was %+v, and is %+v, %w", more, got, err)
	}
	return nil
}

// stands checks a recovered ledger: its end, its state, its receipts.
func (r *rehearsal) stands(l *walstock.Ledger, least, most uint64) error {
	head := l.Head()
	if head.Position < least || head.Position > most {
		return fmt.Errorf("the log ends at %d, %d entries were acknowledged and %d staged", head.Position, least, most)
	}
	if head.Position == 0 {
		return nil
	}
	books, err := l.Replica(context.Background(), head)
	if err != nil {
		return err
	}
	if b := books[sold]; b == nil || b.Check() != nil || b.Hash() != r.hashes[head.Position] {
		return fmt.Errorf("at %d it has another state than the same operations give", head.Position)
	}
	for i, want := range r.receipts {
		if i%5 != int(head.Position)%5 { // any of them, not all each time
			continue
		}
		got, err := l.Reserve(context.Background(), r.requests[i])
		if err != nil || !got.Replayed || !same(got.Reservation, want.Reservation) {
			return fmt.Errorf("receipt %+v is now %+v, %w", want.Reservation, got.Reservation, err)
		}
	}
	return nil
}
