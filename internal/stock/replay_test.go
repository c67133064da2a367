package stock_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// history runs random operations on a book and answers the encoded entries.
func history(t *rapid.T) (*stock.Book, [][]byte) {
	a := stocktest.Allocation("a", rapid.IntRange(1, 30).Draw(t, "units"), rapid.IntRange(0, 3).Draw(t, "per_user"))
	b, first, err := stock.NewBook(a)
	if err != nil {
		t.Fatal(err)
	}
	log := [][]byte{stock.AppendEntry(nil, &first)}
	var ids []stock.ID
	for i := range rapid.IntRange(0, 60).Draw(t, "operations") {
		var e *stock.Entry
		var err error
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			e, err = b.Adjust(stock.Adjustment{
				ID: fmt.Sprint("d", i), Activity: "a", SKU: "s", Delta: rapid.IntRange(-3, 5).Draw(t, "delta"),
				Limits: &stock.ItemLimits{PerUser: i % 4, PerOrder: 10}, Reason: "why", At: a.At + stock.Millis(i),
			})
		case 1:
			if len(ids) > 0 {
				id := rapid.SampledFrom(ids).Draw(t, "id")
				outcome := rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Released, stock.Expired, stock.Returned}).Draw(t, "outcome")
				_, e, err = b.Settle(stock.Settlement{ID: id, Outcome: outcome, At: a.At + stock.Millis(i)})
			}
		default:
			r := stocktest.Request("a", fmt.Sprint("u", i%7), fmt.Sprint("k", i%11), rapid.IntRange(1, 3).Draw(t, "quantity"))
			r.Claims = []string{fmt.Sprint("c", i%13)}
			if i%5 == 0 {
				r.Late = "p1"
			}
			var rec *stock.Record
			rec, e, err = b.Reserve(&r)
			if e != nil {
				ids = append(ids, rec.ID)
			}
		}
		if err != nil && e != nil {
			t.Fatalf("a refusal with an entry: %v", err)
		}
		if e != nil {
			log = append(log, stock.AppendEntry(nil, e))
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
	}
	return b, log
}

func replay(t *rapid.T, b *stock.Book, log [][]byte) *stock.Book {
	var d stock.Decoder
	for _, p := range log {
		e, err := d.Entry(p)
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			b, err = stock.Open(e)
		} else {
			err = b.Replay(e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// Replaying the entries, wholly or from a snapshot at any point, gives the
// state that deciding gave.
func TestReplayGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, log := history(t)
		if got := replay(t, nil, log); got.Hash() != want.Hash() {
			t.Fatal("replay gives another state")
		}
		cut := rapid.IntRange(1, len(log)).Draw(t, "cut")
		var d stock.Decoder
		half, err := d.Snapshot(replay(t, nil, log[:cut]).AppendSnapshot(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := replay(t, half, log[cut:]); got.Hash() != want.Hash() {
			t.Fatal("snapshot and replay give another state")
		}
	})
}

// An entry left out, repeated or out of order is noticed.
func TestReplayNoticesGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, log := history(t)
		if len(log) < 3 {
			return
		}
		at := rapid.IntRange(1, len(log)-2).Draw(t, "at")
		b := replay(t, nil, log[:at])
		var d stock.Decoder
		for _, wrong := range [][]byte{log[at-1], log[at+1]} {
			e, err := d.Entry(wrong)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Replay(e); !errors.Is(err, stock.ErrCorrupt) {
				t.Fatalf("entry %d after %d: %v", e.Sequence, at, err)
			}
		}
	})
}

// Whatever the bytes, decoding answers an entry that encodes to something it
// reads again as the same, or ErrCorrupt.
func FuzzEntry(f *testing.F) {
	_, first, err := stock.NewBook(stocktest.Allocation("a", 5, 2))
	if err != nil {
		f.Fatal(err)
	}
	r := stock.Reservation{
		ID: stock.ID{Activity: "a", Epoch: 1, Number: 1}, User: "ann", Key: "k", Order: "1", Lines: []stock.Line{{SKU: "s", Quantity: 1}},
		Claims: []string{"c"}, Terms: []byte("{}"), Late: "p", At: 5, Expires: 9,
	}
	perUser := 3
	for _, e := range []stock.Entry{
		first,
		{Activity: "a", Sequence: 2, Kind: stock.EntryReserved, Reservation: &r},
		{Activity: "a", Sequence: 3, Kind: stock.EntrySettled, Settlement: &stock.Settlement{ID: r.ID, Outcome: stock.Confirmed, At: 6}},
		{Activity: "a", Sequence: 4, Kind: stock.EntryAdjusted, Adjustment: &stock.Adjustment{
			ID: "d", Activity: "a", SKU: "s", Delta: -1, Limits: &stock.ItemLimits{PerUser: 1, PerOrder: 1}, PerUser: &perUser, Phase: stock.Paused, Reason: "why"}},
	} {
		f.Add(stock.AppendEntry(nil, &e))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var d stock.Decoder
		e, err := d.Entry(p)
		if err != nil {
			if !errors.Is(err, stock.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := d.Entry(stock.AppendEntry(nil, &e))
		if err != nil {
			t.Fatalf("%+v does not read back: %v", e, err)
		}
		if x, y := stock.AppendEntry(nil, &e), stock.AppendEntry(nil, &again); string(x) != string(y) {
			t.Fatalf("%x became %x", x, y)
		}
		if b, err := stock.Open(e); err == nil {
			_ = b.Replay(e)
		}
	})
}

// Whatever the bytes, a snapshot is read as a sound book or refused.
func FuzzSnapshot(f *testing.F) {
	b, _, err := stock.NewBook(stocktest.Allocation("a", 5, 2))
	if err != nil {
		f.Fatal(err)
	}
	r := stocktest.Request("a", "ann", "k", 2)
	if _, _, err := b.Reserve(&r); err != nil {
		f.Fatal(err)
	}
	f.Add(b.AppendSnapshot(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		var d stock.Decoder
		b, err := d.Snapshot(p)
		if err != nil {
			if !errors.Is(err, stock.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestID(t *testing.T) {
	f := func(s string, want stock.ID, ok bool) {
		t.Helper()
		got, err := stock.ParseID(s)
		if (err == nil) != ok || got != want {
			t.Errorf("ParseID(%q) = %+v, %v", s, got, err)
		}
		if ok && got.String() != s {
			t.Errorf("%q is written as %q", s, got)
		}
	}
	f("drop.0.1.7", stock.ID{Activity: "drop", Epoch: 1, Number: 7}, true)
	f("a.b.65535.4294967295.18446744073709551615", stock.ID{Activity: "a.b", Bucket: 65535, Epoch: 4294967295, Number: 18446744073709551615}, true)
	for _, s := range []string{"", "drop", "drop.0.1", ".0.1.7", "drop.0.1.0", "drop.0.1.07", "drop.0.1.+7", "drop.65536.1.7", "drop.0.1.7.", "drop.0.-1.7"} {
		f(s, stock.ID{}, false)
	}
}

// One user's reservations in one activity are bounded, ended ones included, so
// that reserving and cancelling in a loop cannot grow the book without end.
func TestReservationsOfAUserAreBounded(t *testing.T) {
	b, _, err := stock.NewBook(stocktest.Allocation("a", 5, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range stock.MaxReservations {
		r := stocktest.Request("a", "ann", fmt.Sprint("k", i), 1)
		rec, _, err := b.Reserve(&r)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Settle(stock.Settlement{ID: rec.ID, Outcome: stock.Released}); err != nil {
			t.Fatal(err)
		}
	}
	r := stocktest.Request("a", "ann", "one more", 1)
	if _, _, err := b.Reserve(&r); !errors.Is(err, stock.ErrLimit) {
		t.Errorf("past the bound: %v", err)
	}
	again := stocktest.Request("a", "ann", "k0", 1)
	if rec, e, err := b.Reserve(&again); err != nil || e != nil || rec.State != stock.Released {
		t.Errorf("a known key past the bound: %v, %v", rec, err)
	}
}

func BenchmarkBookReserve(b *testing.B) {
	book, _, err := stock.NewBook(stocktest.Allocation("a", stock.MaxUnits, 0))
	if err != nil {
		b.Fatal(err)
	}
	lines := []stock.Line{{SKU: "s", Quantity: 1}}
	terms := []byte(`{"currency":"CNY","total":9900}`)
	user := make([]byte, 0, 32)
	entry := make([]byte, 0, 512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		user = fmt.Appendf(user[:0], "u%d", i)
		_, e, err := book.Reserve(&stock.Request{
			Activity: "a", User: stock.UserID(user), Key: "k", Order: "123456789012345678", Lines: lines, Terms: terms, At: 1_800_000_000_001,
		})
		if err != nil {
			b.Fatal(err)
		}
		entry = stock.AppendEntry(entry[:0], e)
	}
}
