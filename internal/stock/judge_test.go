package stock_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// bucketOf opens a book as an engine would and answers it beside a keeper's.
func bucketOf(t stocktest.Fataler, units, perUser int) (engine, keeper *stock.Book, opened stock.Entry) {
	a := stocktest.Allocation("judged", units, perUser)
	engine, opened, err := stock.NewBook(a)
	if err != nil {
		t.Fatal(err)
	}
	opened.Allocation = &a
	return engine, restore(t, 1, []stock.Entry{opened}, nil), opened
}

func restore(t stocktest.Fataler, epoch uint32, rules []stock.Entry, kept []stock.Reservation) *stock.Book {
	b, err := stock.Restore(epoch, rules, func(yield func(stock.Reservation, error) bool) {
		for _, r := range kept {
			if !yield(r, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A keeper that judges what an honest engine decided comes to the same counts,
// and so does one that is restored from what was kept at any point between.
func TestJudgeAgreesWithAnHonestEngine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		engine, keeper, opened := bucketOf(t, rapid.IntRange(0, 12).Draw(t, "units"), rapid.IntRange(0, 4).Draw(t, "limit"))
		rules := []stock.Entry{opened}
		sequence := uint64(0)
		var ids []stock.ID
		for range rapid.IntRange(1, 60).Draw(t, "operations") {
			var e *stock.Entry
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			case 0:
				a := stock.Adjustment{ID: fmt.Sprint("d", len(rules)), Activity: "judged", SKU: "s", Delta: rapid.IntRange(-2, 3).Draw(t, "delta")}
				e, _ = engine.Adjust(a)
				if e != nil {
					rules = append(rules, stock.Entry{Kind: stock.EntryAdjusted, Adjustment: e.Adjustment})
				}
			case 1, 2, 3:
				if len(ids) > 0 {
					_, e, _ = engine.Settle(stock.Settlement{ID: rapid.SampledFrom(ids).Draw(t, "which"),
						Outcome: rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Released, stock.Returned}).Draw(t, "outcome")})
				}
			default:
				r := stocktest.Request("judged", rapid.SampledFrom([]string{"ann", "bob", "cy"}).Draw(t, "user"),
					fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "key")), rapid.IntRange(1, 3).Draw(t, "quantity"))
				var rec *stock.Record
				if rec, e, _ = engine.Reserve(&r); e != nil {
					ids = append(ids, rec.ID)
				}
			}
			if e == nil {
				continue
			}
			sequence++
			judged := *e
			judged.Sequence = sequence
			if err := keeper.Judge(judged); err != nil {
				t.Fatalf("%+v: %v", judged, err)
			}
		}
		var kept []stock.Reservation
		keeper.Reservations(func(r *stock.Reservation) bool {
			one := *r
			one.Lines = slices.Clone(r.Lines)
			kept = append(kept, one)
			return true
		})
		again := restore(t, 2, rules, kept)
		for _, b := range []*stock.Book{keeper, again} {
			got, want := b.Counts().Items[0], engine.Counts().Items[0]
			if got != want {
				t.Fatalf("keeper has %+v, engine %+v", got, want)
			}
		}
		for _, id := range ids {
			if r, err := again.Find(id); err != nil || r.ID != id {
				t.Fatalf("%s: %v", id, err)
			}
		}
	})
}

// What an engine gave that was not its to give is refused, and what follows it
// is judged as if it had never been.
func TestJudgeRefusesWhatIsNotThere(t *testing.T) {
	_, keeper, _ := bucketOf(t, 1, 1)
	entry := func(sequence, number uint64, user, key string) stock.Entry {
		r := stocktest.Request("judged", user, key, 1)
		return stock.Entry{Activity: "judged", Sequence: sequence, Kind: stock.EntryReserved, Reservation: &stock.Reservation{
			ID: stock.ID{Activity: "judged", Epoch: 1, Number: number}, User: r.User, Key: r.Key, Order: r.Order, Lines: r.Lines, At: r.At, State: stock.Held}}
	}
	f := func(e stock.Entry, want error) {
		t.Helper()
		if err := keeper.Judge(e); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	f(entry(1, 1, "ann", "k"), nil)
	f(entry(2, 2, "bob", "k"), stock.ErrAllHeld)  // a unit more than there is
	f(entry(3, 3, "ann", "k2"), stock.ErrLimit)   // a limit that was forgotten
	f(entry(4, 4, "ann", "k"), stock.ErrMismatch) // a key that was forgotten
	f(entry(6, 5, "cy", "k"), stock.ErrCorrupt)   // entry 5 is missing
	f(entry(5, 7, "cy", "k"), stock.ErrCorrupt)   // reservation 5 is missing
	if r, err := keeper.Lookup("bob", "k", ""); err != nil || r.State != stock.Refused {
		t.Errorf("bob's: %+v, %v", r, err)
	}
	if r, err := keeper.Lookup("ann", "k", ""); err != nil || r.State != stock.Held || r.ID.Number != 1 {
		t.Errorf("ann's: %+v, %v", r, err)
	}
	if c := keeper.Counts().Items[0]; c.Held != 1 || c.Free != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestMovesNameBothSides(t *testing.T) {
	m := stock.Move{ID: "x7", Activity: "a", SKU: "s", Units: 5, From: 3, To: 12}
	f := func(at uint16, a stock.Adjustment, debit bool) {
		t.Helper()
		if got, is, ok := stock.MoveOf(at, &a); !ok || is != debit || got != m {
			t.Errorf("%+v is %+v, %v, %v", a, got, is, ok)
		}
	}
	f(3, m.Debit(1), true)
	f(12, m.Credit(1), false)
	for _, a := range []stock.Adjustment{{ID: "stock-1", Delta: 3}, {ID: "out-1-x", Delta: 3}, {ID: "in-x-1", Delta: 2}} {
		if _, _, ok := stock.MoveOf(0, &a); ok {
			t.Errorf("%+v is no move", a)
		}
	}
}

func TestSharesAddUp(t *testing.T) {
	a := stocktest.Allocation("shares", 10, 0)
	a.Buckets = 4
	sum := 0
	for b := range a.Buckets {
		sum += a.Share(b).Items[0].Units
	}
	if sum != 10 {
		t.Errorf("the shares of 10 units come to %d", sum)
	}
}
