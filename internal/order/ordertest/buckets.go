package ordertest

import (
	"errors"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// bucketLog is the log of bucket 3 of an activity, as a keeper lands it.
const bucketLog stock.LogID = "flash/3"

// lander writes batches of bucketLog.
type lander struct {
	order.Buckets
	f     *fixture
	token uint64
	at    stock.Cursor
}

func newLander(t *testing.T, f *fixture) *lander {
	t.Helper()
	kept, ok := f.Store.(order.Buckets)
	if !ok {
		t.Fatalf("%T is no order.Buckets", f.Store)
	}
	token, err := f.Fence(t.Context(), bucketLog)
	if err != nil {
		t.Fatal(err)
	}
	return &lander{Buckets: kept, f: f, token: token}
}

func (l *lander) land(t *testing.T, epoch uint32, position uint64, b order.Batch) {
	t.Helper()
	b.Log, b.Token, b.From = bucketLog, l.token, l.at
	b.To = stock.Cursor{Log: bucketLog, Epoch: epoch, Position: position}
	if err := l.f.Land(t.Context(), b); err != nil {
		t.Fatalf("land up to %d.%d: %v", epoch, position, err)
	}
	l.at = b.To
}

func (l *lander) kept(t *testing.T) order.Kept {
	t.Helper()
	k, err := l.Kept(t.Context(), bucketLog)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// inBucket is order n of an epoch, as reservation number of bucket 3.
func inBucket(n int, epoch uint32, number, position uint64) order.Landed {
	o := plain(n)
	o.Reservation = stock.ID{Activity: "flash", Bucket: 3, Epoch: epoch, Number: number}
	o.Position = stock.Cursor{Log: bucketLog, Epoch: epoch, Position: position}
	o.Claims = []string{"pass"}
	return landed(o)
}

func opened() stock.Entry {
	a := stock.Allocation{ID: "flash", Activity: "flash", Bucket: 3, Epoch: 1, OpensAt: 5, ClosesAt: 9, Hold: 7, PerUser: 2, At: 4, Buckets: 8,
		Items: []stock.Item{{SKU: "mug", Units: 11, PerUser: 1, PerOrder: 2}, {SKU: "cup", PerOrder: 1}}}
	return stock.Entry{Cursor: stock.Cursor{Log: bucketLog, Epoch: 1}, Activity: "flash", Bucket: 3, Sequence: 1, Kind: stock.EntryOpened, Allocation: &a}
}

func adjusted(id string, epoch uint32, position uint64) stock.Entry {
	n := int(position)
	a := stock.Adjustment{ID: id, Activity: "flash", SKU: "mug", Delta: -3, Limits: &stock.ItemLimits{PerUser: 4, PerOrder: 5}, PerUser: &n,
		OpensAt: 1, ClosesAt: 2, Hold: 3, Phase: stock.Paused, Reason: "为什么", At: 6}
	return stock.Entry{Cursor: stock.Cursor{Log: bucketLog, Epoch: epoch, Position: position}, Activity: "flash", Bucket: 3,
		Sequence: position, Kind: stock.EntryAdjusted, Adjustment: &a}
}

// What is kept of a bucket is its rules as they were written and its
// reservations as their orders stand.
func kept(t *testing.T, f *fixture) {
	l := newLander(t, f)
	equal(t, "before any", l.kept(t), order.Kept{})
	if _, err := l.Kept(t.Context(), log); !errors.Is(err, stock.ErrInvalid) {
		t.Errorf("what is kept of a log that is no bucket's: %v", err)
	}

	open, first, second := opened(), adjusted("stock-1", 1, 2), adjusted("out-7-m", 2, 10)
	l.land(t, 1, 0, order.Batch{Rules: []stock.Entry{open}})
	refused := inBucket(2, 1, 2, 4)
	refused.Order.State = order.Refused
	l.land(t, 1, 4, order.Batch{Orders: []order.Landed{inBucket(1, 1, 1, 3), refused}, Rules: []stock.Entry{first}})
	l.land(t, 2, 0, order.Batch{})
	l.land(t, 2, 10, order.Batch{Orders: []order.Landed{inBucket(3, 2, 1, 9), inBucket(4, 2, 2, 10)}, Rules: []stock.Entry{second}})
	again := adjusted("stock-1", 2, 11)
	l.land(t, 2, 12, order.Batch{Rules: []stock.Entry{again}, Orders: []order.Landed{inBucket(1, 1, 1, 3)}})

	// What belongs to others: another bucket, another activity, another log.
	other := inBucket(5, 1, 1, 1)
	other.Order.Reservation.Bucket, other.Order.Position.Log = 4, "flash/4"
	elsewhere := inBucket(6, 1, 9, 1)
	elsewhere.Order.Position.Log = log
	f.land(t, other, elsewhere)

	pay := func(o *order.Order) ([]outbox.Message, error) { o.State = order.Paid; return nil, nil }
	if err := f.Update(t.Context(), plain(3).ID, pay); err != nil {
		t.Fatal(err)
	}
	got := l.kept(t)
	equal(t, "watermark", got.Watermark, l.at)
	equal(t, "rules", got.Rules, []stock.Entry{open, first, second})
	want := []stock.State{stock.Held, stock.Refused, stock.Confirmed, stock.Held}
	if len(got.Reservations) != len(want) {
		t.Fatalf("%d reservations, want %d", len(got.Reservations), len(want))
	}
	for i, r := range got.Reservations {
		o := f.get(t, r.Order)
		equal(t, "state", r.State, want[i])
		equal(t, "reservation", r, order.ReservationOf(&o, r.Terms))
	}
	equal(t, "order of reservations", []stock.OrderID{got.Reservations[0].Order, got.Reservations[3].Order},
		[]stock.OrderID{plain(1).ID, plain(4).ID})

	is := func(log stock.LogID, id string, want bool) {
		t.Helper()
		got, err := l.Adjusted(t.Context(), log, []string{"none", id})
		if err != nil || len(got) != 2 || got[0] || got[1] != want {
			t.Errorf("%q landed in %s: %v, %v", id, log, got, err)
		}
	}
	is(bucketLog, "stock-1", true)
	is(bucketLog, "out-7-m", true)
	is(bucketLog, "out-7", false)
	is("flash/4", "stock-1", false)
}

// Rules and the end of a log are part of their batch.
func rulesAreWhole(t *testing.T, f *fixture) {
	l := newLander(t, f)
	l.land(t, 1, 0, order.Batch{Rules: []stock.Entry{opened()}})
	to := stock.Cursor{Log: bucketLog, Epoch: 1, Position: 5}
	spoilt := order.Batch{Log: bucketLog, Token: l.token, From: l.at, To: to, Rules: []stock.Entry{adjusted("a", 1, 3)}, Retired: true,
		Orders: []order.Landed{inBucket(1, 1, 1, 1), inBucket(1, 1, 2, 2)}} // one id twice
	if err := f.Land(t.Context(), spoilt); err == nil {
		t.Fatal("an order id landed twice")
	}
	spoilt.Orders, spoilt.Token = nil, l.token+1
	if err := f.Land(t.Context(), spoilt); !errors.Is(err, order.ErrFenced) {
		t.Fatalf("rules of another lander: %v", err)
	}
	over := func(want bool) {
		t.Helper()
		if is, err := l.Retired(t.Context(), bucketLog); err != nil || is != want {
			t.Errorf("retired: %v, %v", is, err)
		}
	}
	equal(t, "rules", l.kept(t).Rules, []stock.Entry{opened()})
	over(false)
	l.land(t, 1, 5, order.Batch{Retired: true})
	over(true)
	l.land(t, 1, 6, order.Batch{Retired: true})
	over(true)
}
