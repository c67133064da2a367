package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/walstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

// allUnits pages through a SKU.
func allUnits(t *testing.T, trail *Trail, page int) []Unit {
	t.Helper()
	var all []Unit
	for from := 1; from != 0; {
		p, err := trail.Units(t.Context(), "a", "", from, page)
		if err != nil {
			t.Fatal(err)
		}
		all, from = append(all, p.Units...), p.Next
	}
	return all
}

// Whatever happens, the view has as many units in each place as the book, no
// unit is in two places, and reading on gives what reading from the start does.
func TestUnitsAgreeWithTheBook(t *testing.T) {
	l := newLedger(t, walstock.Options{})
	random := rand.New(rand.NewPCG(7, 7))
	kept := NewTrail(l, walstock.LogID)
	if err := l.Open(t.Context(), stocktest.Allocation("a", 100, 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context(), stocktest.Allocation("b", 100, 0)); err != nil {
		t.Fatal(err)
	}
	var ids []stock.ID
	for round := range 12 {
		for i := range 40 {
			switch random.IntN(4) {
			case 0, 1:
				activity := []string{"a", "a", "b"}[random.IntN(3)]
				r, err := l.Reserve(t.Context(), stocktest.Request(activity, fmt.Sprint("u", random.IntN(30)), fmt.Sprint("k", round, "-", i), 1+random.IntN(3)))
				if err == nil && activity == "a" {
					ids = append(ids, r.ID)
				}
			case 2:
				if len(ids) > 0 {
					outcome := []stock.Outcome{stock.Confirmed, stock.Released, stock.Expired, stock.Returned}[random.IntN(4)]
					_, _ = l.Settle(t.Context(), stock.Settlement{ID: ids[random.IntN(len(ids))], Outcome: outcome})
				}
			case 3:
				_ = l.Adjust(t.Context(), stock.Adjustment{ID: fmt.Sprint("d", round, "-", i), Activity: "a", SKU: "s", Delta: random.IntN(9) - 4})
			}
		}
		units := allUnits(t, kept, 7)
		if fresh := allUnits(t, NewTrail(l, walstock.LogID), 1000); !reflect.DeepEqual(units, fresh) {
			t.Fatalf("round %d: reading on gives\n%v\nfrom the start\n%v", round, units, fresh)
		}
		counts, err := l.Counts(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for i, u := range units {
			if got[u.State]++; u.Number != i+1 {
				t.Fatalf("unit %d stands at %d", u.Number, i)
			}
			if u.State == "held" || u.State == "confirmed" {
				id, _ := stock.ParseID(u.Reservation)
				r, err := l.Lookup(context.Background(), stock.Ref{ID: id})
				if err != nil || r.User != u.User || r.Order != u.Order || r.State.String() != u.State {
					t.Fatalf("%+v, the ledger says %+v (%v)", u, r, err)
				}
			}
		}
		c := counts.Items[0]
		if got["free"] != c.Free || got["held"] != c.Held || got["confirmed"] != c.Confirmed {
			t.Fatalf("round %d: %v, the book says %+v", round, got, c)
		}
	}
}

// Lowest free first; what is taken back goes from the other end, for good.
func TestUnitNumbers(t *testing.T) {
	s := newShelves()
	next := uint64(0)
	step := func(e stock.Entry) {
		t.Helper()
		if err := s.apply(e); err != nil {
			t.Fatal(err)
		}
	}
	reserve := func(n int) {
		t.Helper()
		next++
		step(stock.Entry{Kind: stock.EntryReserved, Reservation: &stock.Reservation{ID: stock.ID{Activity: "a", Epoch: 1, Number: next}, Lines: []stock.Line{{SKU: "s", Quantity: n}}}})
	}
	settle := func(number uint64, o stock.Outcome) {
		t.Helper()
		step(stock.Entry{Kind: stock.EntrySettled, Settlement: &stock.Settlement{ID: stock.ID{Number: number}, Outcome: o}})
	}
	delta := func(n int) {
		t.Helper()
		step(stock.Entry{Kind: stock.EntryAdjusted, Adjustment: &stock.Adjustment{SKU: "s", Delta: n}})
	}
	f := func(want ...uint64) { // holders by unit; 0 free, 99 withdrawn
		t.Helper()
		got := make([]uint64, 0, len(want))
		for _, h := range s.by[0].holder {
			if h == withdrawn {
				h = 99
			}
			got = append(got, h)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("holders %v, want %v", got, want)
		}
	}
	a := stocktest.Allocation("a", 5, 0)
	step(stock.Entry{Kind: stock.EntryOpened, Allocation: &a})
	reserve(2)
	reserve(1)
	f(1, 1, 2, 0, 0)
	settle(1, stock.Confirmed)
	settle(2, stock.Released)
	f(1, 1, 0, 0, 0)
	delta(-1)
	f(1, 1, 0, 0, 99)
	delta(2)
	f(1, 1, 0, 0, 99, 0, 0)
	reserve(3)
	f(1, 1, 3, 3, 99, 3, 0)
	settle(1, stock.Returned)
	reserve(1)
	delta(-2)
	f(4, 99, 3, 3, 99, 3, 99)

	for _, e := range []stock.Entry{
		{Kind: stock.EntryReserved, Reservation: &stock.Reservation{Lines: []stock.Line{{SKU: "s", Quantity: 1}}}},
		{Kind: stock.EntryReserved, Reservation: &stock.Reservation{Lines: []stock.Line{{SKU: "x", Quantity: 1}}}},
		{Kind: stock.EntryAdjusted, Adjustment: &stock.Adjustment{SKU: "s", Delta: -1}},
		{Kind: stock.EntrySettled, Settlement: &stock.Settlement{ID: stock.ID{Number: 2}, Outcome: stock.Released}},
		{},
	} {
		if err := s.apply(e); !errors.Is(err, stock.ErrCorrupt) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// Where the log is gone, numbers are not invented, and a user's reservations
// come from the books, without their histories.
func TestTrailOfATruncatedLog(t *testing.T) {
	l := newLedger(t, walstock.Options{SegmentSize: 1 << 17, SnapshotAt: 50})
	trail := NewTrail(l, walstock.LogID)
	work(t, l, 0)
	before, err := trail.User(t.Context(), "a", "u0")
	if err != nil || !before.Complete || len(before.Reservations) != 1 || len(before.Reservations[0].Settled) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	truncated := func() bool {
		for _, err := range l.Tail(t.Context(), stock.Cursor{Log: walstock.LogID}) {
			return err != nil
		}
		return false
	}
	rounds := 1
	for ; !truncated() && rounds < 500; rounds++ {
		work(t, l, rounds)
		if err := l.Trim(t.Context(), l.Head()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := trail.Units(t.Context(), "a", "", 1, 10); !errors.Is(err, stock.ErrTruncated) {
		t.Errorf("units: %v", err)
	}
	if _, err := trail.Unit(t.Context(), "a", "", 1); !errors.Is(err, stock.ErrTruncated) {
		t.Errorf("unit: %v", err)
	}
	now, err := trail.User(t.Context(), "a", "u0")
	if err != nil || now.Complete || len(now.Reservations) != rounds || now.Reservations[0].State != "confirmed" {
		t.Errorf("%+v, %v; want %d reservations", now, err, rounds)
	}
}

// shelved keeps one final proof.
type shelved struct{ r Report }

func (s shelved) Proof(_ context.Context, activity stock.ActivityID) (Report, bool, error) {
	return s.r, s.r.Activity == activity, nil
}

func (s shelved) SaveProof(context.Context, Report) error { return nil }

// The trail of a long sale is complete until it is proved, however many
// snapshots were taken; then the proof is shown in its place.
func TestTrailUntilProved(t *testing.T) {
	l := newLedger(t, walstock.Options{SegmentSize: 1 << 17, SnapshotAt: 50, KeepLog: 1 << 30})
	kept := shelved{Report{Activity: "a", Position: Position{"wal", 1, 77}, CheckedAt: time.Date(2027, 5, 1, 12, 0, 0, 0, time.UTC)}}
	trail := NewTrail(l, walstock.LogID).Beside(kept)
	compact := func() {
		t.Helper()
		if err := l.Trim(t.Context(), l.Head()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 60
	for round := range rounds {
		work(t, l, round)
		compact()
	}
	if l.LogSize() < 3<<17 {
		t.Fatalf("the log has only %d bytes", l.LogSize())
	}
	if page, err := trail.Unit(t.Context(), "a", "", 1); err != nil || page.History[0].Event != "allocated" || len(page.History) < 3 {
		t.Errorf("%+v, %v", page, err)
	}
	if u, err := trail.User(t.Context(), "b", "u0"); err != nil || !u.Complete || len(u.Reservations) != rounds || u.Proved != nil {
		t.Errorf("%+v, %v", u, err)
	}
	l.Release("a", "b")
	compact()
	const want = "its final proof was taken at position 77 on 2027-05-01T12:00:00Z"
	if _, err := trail.Units(t.Context(), "a", "", 1, 10); !errors.Is(err, stock.ErrTruncated) || !strings.Contains(err.Error(), want) {
		t.Errorf("units: %v", err)
	}
	if _, err := trail.Unit(t.Context(), "a", "", 1); !errors.Is(err, stock.ErrTruncated) || !strings.Contains(err.Error(), want) {
		t.Errorf("unit: %v", err)
	}
	if _, err := trail.Units(t.Context(), "b", "", 1, 10); !errors.Is(err, stock.ErrTruncated) || strings.Contains(err.Error(), "proof") {
		t.Errorf("units of b: %v", err)
	}
	if u, err := trail.User(t.Context(), "a", "u0"); err != nil || u.Complete || u.Proved == nil || u.Proved.Position.Position != 77 {
		t.Errorf("%+v, %v", u, err)
	}
}
