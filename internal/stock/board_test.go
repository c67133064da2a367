package stock_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

func publish(f *stock.Face, b *stock.Book) { f.Publish(b.Counts(), b.Allocation(), b.Items()) }

// What the board refuses, the book refuses too, for the same reason.
func TestBoardRefusesOnlyWhatTheBookWould(t *testing.T) {
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		a := stocktest.Allocation("a", rapid.IntRange(0, 4).Draw(t, "units"), rapid.IntRange(0, 2).Draw(t, "per_user"))
		a.OpensAt += 10
		a.ClosesAt = a.OpensAt + 50
		a.Items[0].PerOrder = 2
		b, _, err := stock.NewBook(a)
		if err != nil {
			t.Fatal(err)
		}
		face := stock.NewBoard().Post("a")
		var last stock.ID
		for i := range 30 {
			r := stocktest.Request("a", fmt.Sprint("u", rapid.IntRange(0, 6).Draw(t, "user")), fmt.Sprint("k", i), rapid.IntRange(1, 3).Draw(t, "quantity"))
			r.At = a.OpensAt + stock.Millis(rapid.IntRange(-10, 60).Draw(t, "at"))
			glance := face.Refuses(r.User, r.Lines, r.At)
			rec, _, err := b.Reserve(&r)
			if glance != nil {
				refused++
				if err == nil || errors.Unwrap(glance) != nil && !errors.Is(err, errors.Unwrap(glance)) || errors.Unwrap(glance) == nil && !errors.Is(err, glance) {
					t.Fatalf("the board refuses with %v, the book says %v", glance, err)
				}
			}
			if err == nil {
				face.Holder(rec.User)
				last = rec.ID
			}
			if rapid.IntRange(0, 4).Draw(t, "settle") == 0 && last.Number != 0 {
				_, _, _ = b.Settle(stock.Settlement{ID: last, Outcome: rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Released}).Draw(t, "outcome")})
			}
			if rapid.IntRange(0, 6).Draw(t, "phase") == 0 {
				_, _ = b.Adjust(stock.Adjustment{ID: fmt.Sprint("p", i), Activity: "a", Phase: rapid.SampledFrom([]stock.Phase{stock.Live, stock.Paused, stock.Draining}).Draw(t, "to")})
			}
			publish(face, b)
		}
	})
	if refused == 0 {
		t.Error("the board never refused anything: the test shows nothing")
	}
}

// A holder is never refused by the board, however sold out the sale is.
func TestBoardSendsHoldersToTheLedger(t *testing.T) {
	b, _, err := stock.NewBook(stocktest.Allocation("a", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	face := stock.NewBoard().Post("a")
	r := stocktest.Request("a", "ann", "k", 1)
	rec, _, err := b.Reserve(&r)
	if err != nil {
		t.Fatal(err)
	}
	f := func(user stock.UserID, want error) {
		t.Helper()
		if err := face.Refuses(user, r.Lines, r.At); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
	}
	f("bob", nil) // nothing is shown yet
	face.Holder("ann")
	publish(face, b)
	f("ann", nil)
	f("bob", stock.ErrAllHeld)
	if _, _, err := b.Settle(stock.Settlement{ID: rec.ID, Outcome: stock.Confirmed}); err != nil {
		t.Fatal(err)
	}
	publish(face, b)
	f("ann", nil)
	f("bob", stock.ErrSoldOut)
}

// What was read from afar is refused by for as long as was said, and only of the
// items that are sure; it stays on show.
func TestBoardRefusesUntil(t *testing.T) {
	b, _, err := stock.NewBook(stocktest.Allocation("a", 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	board, face := stock.NewBoard(), stock.NewFace("a")
	r := stocktest.Request("a", "ann", "k", 1)
	show := func(sure []bool, until stock.Millis) {
		face.PublishUntil(b.Counts(), b.Allocation(), b.Items(), sure, until)
	}
	f := func(name string, at stock.Millis, want error) {
		t.Helper()
		if err := face.Refuses(r.User, r.Lines, at); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	face.Extend(r.At) // before anything is shown it is no change
	f("nothing shown", r.At, nil)
	show(nil, r.At+10)
	f("in time", r.At+10, stock.ErrSoldOut)
	f("too late", r.At+11, nil)
	face.Extend(r.At + 20)
	f("extended", r.At+11, stock.ErrSoldOut)
	face.Extend(0)
	f("ended", r.At, nil)
	show([]bool{false}, r.At+10)
	f("not sure", r.At, nil)
	show([]bool{true}, r.At+10)
	f("sure", r.At, stock.ErrSoldOut)
	if counts, ok := face.Counts(); !ok || counts.Items[0].Level != stock.SoldOut {
		t.Errorf("%+v, %v", counts, ok)
	}
	if board.Put(face); board.Face("a") != face || board.Post("a") != face {
		t.Error("the face is not on the board")
	}
	if board.Withdraw("a"); board.Face("a") != nil {
		t.Error("the face is still on the board")
	}
}

// Readers run beside the writers while the set of holders grows.
func TestHoldersGrowUnderReaders(t *testing.T) {
	face := stock.NewBoard().Post("a")
	const users = 20_000
	var wg sync.WaitGroup
	added := make(chan int, 64)
	for range 4 {
		wg.Go(func() {
			for i := range added {
				if !face.Holds(stock.UserID(fmt.Sprint("u", i))) {
					t.Errorf("u%d was added and is not there", i)
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := w; i < users; i += 2 {
				face.Holder(stock.UserID(fmt.Sprint("u", i)))
				added <- i/4*2 + w // of its own, and long before
			}
		})
	}
	writers.Wait()
	close(added)
	wg.Wait()
	strangers := 0
	for i := range users {
		if face.Holds(stock.UserID(fmt.Sprint("x", i))) {
			strangers++
		}
	}
	if strangers > 0 { // 64-bit hashes: about one in 10^11 for this many
		t.Errorf("%d strangers are taken for holders", strangers)
	}
}

func TestBoardAllocatesNothing(t *testing.T) {
	b, _, err := stock.NewBook(stocktest.Allocation("a", 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	face := stock.NewBoard().Post("a")
	publish(face, b)
	r := stocktest.Request("a", "ann", "k", 1)
	if n := testing.AllocsPerRun(1000, func() {
		if face.Refuses(r.User, r.Lines, r.At) == nil {
			t.Fatal("not refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a refusal", n)
	}
}

func BenchmarkBoardRefuses(b *testing.B) {
	book, _, err := stock.NewBook(stocktest.Allocation("a", 0, 1))
	if err != nil {
		b.Fatal(err)
	}
	face := stock.NewBoard().Post("a")
	publish(face, book)
	r := stocktest.Request("a", "ann", "k", 1)
	for b.Loop() {
		_ = face.Refuses(r.User, r.Lines, r.At)
	}
}
